# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The kernels of `reference.py`, compiled: the same signatures, the same bytes, the same None for what is refused.

The loops are in `kernels.h`, once for each tier of CPU, and run without the GIL. Here is what they need of Python:
memory, lengths that fit each other, and the choice of the tier. A length that only a mistake of the caller makes wrong
is a ValueError; one that the wire makes wrong is None.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer

import numpy as np

from fedsparse.codec import reference

cdef extern from "kernels.h" nogil:
    enum:
        PAD

    ctypedef struct source_t:
        const uint8_t *bitmap
        const uint8_t *codes
        const uint8_t *escapes
        const uint8_t *mid
        const uint8_t *rest
        int64_t bitmap_size, codes_size, escapes_size, mid_size, rest_size, kept, top, width, low
        float weight
        int raw

    ctypedef struct planes_t:
        uint8_t *codes
        uint8_t *escapes
        uint8_t *mid
        uint8_t *rest
        int64_t escaped

    ctypedef struct tier_t:
        const char *name
        int64_t (*count)(const uint8_t *, int64_t) noexcept nogil
        void (*pack)(const uint8_t *, int64_t, uint8_t *) noexcept nogil
        void (*unpack)(const uint8_t *, int64_t, uint8_t *) noexcept nogil
        int64_t (*gaps)(const uint8_t *, int64_t, uint8_t *, int64_t) noexcept nogil
        bint (*ungaps)(const uint8_t *, int64_t, int64_t, int64_t, uint8_t *) noexcept nogil
        int64_t (*rice)(const uint8_t *, int64_t, int64_t, int, uint8_t *, int64_t, uint8_t *) noexcept nogil
        bint (*unrice)(const uint8_t *, int64_t, const uint8_t *, int64_t, int64_t, int64_t, int, uint8_t *) noexcept nogil
        void (*pext)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t) noexcept nogil
        void (*pdep)(const uint8_t *, int64_t, const uint8_t *, int64_t, uint8_t *) noexcept nogil
        void (*compact)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t, int) noexcept nogil
        void (*expand)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t, int) noexcept nogil
        void (*split)(const uint8_t *, int64_t, int, int, int, planes_t *) noexcept nogil
        bint (*decode)(source_t *, int64_t, uint8_t *) noexcept nogil
        int64_t (*accumulate)(source_t **, int64_t, int64_t, uint8_t *, uint8_t *) noexcept nogil
        void (*zigzag)(const uint8_t *, const uint8_t *, int64_t, uint8_t *) noexcept nogil
        void (*unzigzag)(const uint8_t *, const uint8_t *, int64_t, uint8_t *) noexcept nogil
        void (*quantise)(const uint8_t *, const uint8_t *, int64_t, int, uint8_t *, uint8_t *) noexcept nogil
        bint (*dequantise)(const uint8_t *, const uint8_t *, int64_t, int, uint8_t *) noexcept nogil

    int find_tiers(const tier_t **) noexcept
    bint is_bitmap(const uint8_t *, int64_t, int64_t) noexcept
    void survey_values "survey"(const uint8_t *, int64_t, int64_t *, uint32_t *) noexcept

ABI = 3

cdef const tier_t *found[3]
cdef int _tiers = find_tiers(found)
cdef const tier_t *tier = found[0]

TIERS = tuple(found[i].name.decode() for i in range(_tiers))
"""The tiers that this CPU has, the best first."""


def select(str name):
    """Lets all kernels run in one of TIERS from now on. Returns the one before."""
    global tier
    before = tier.name.decode()
    tier = found[TIERS.index(name)]
    return before


cdef class _Bytes:
    """The memory of a contiguous array of whatever type, for as long as this object lives."""

    cdef Py_buffer buffer
    cdef uint8_t *at
    cdef int64_t size

    def __cinit__(self, array, bint writable=False):
        PyObject_GetBuffer(array, &self.buffer, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.at = <uint8_t *>self.buffer.buf
        self.size = self.buffer.len

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)


cdef int _expect(int64_t size, int64_t wanted) except -1:
    if size != wanted:
        raise ValueError(f"{size} bytes where {wanted} belong")
    return 0


cdef _Bytes _of(array, int64_t size):
    """The memory of an input that the caller vouches for."""
    cdef _Bytes memory = _Bytes(array)
    _expect(memory.size, size)
    return memory


def count(bitmap):
    cdef _Bytes a = _Bytes(bitmap)
    cdef int64_t total
    with nogil:
        total = tier.count(a.at, a.size)
    return total


def pack(bits):
    cdef _Bytes a = _Bytes(bits)
    bitmap = np.empty((a.size + 7) // 8, np.uint8)
    cdef _Bytes b = _Bytes(bitmap)
    with nogil:
        tier.pack(a.at, a.size, b.at)
    return bitmap


def unpack(bitmap, int64_t n):
    cdef _Bytes a = _of(bitmap, (n + 7) // 8)
    bits = np.empty(n, np.bool_)
    cdef _Bytes b = _Bytes(bits)
    with nogil:
        tier.unpack(a.at, n, b.at)
    return bits


def gaps(bitmap, int64_t n, int64_t kept):
    cdef _Bytes a = _of(bitmap, (n + 7) // 8)
    symbols = np.empty(kept + (n - kept) // 255, np.uint8)
    cdef _Bytes b = _Bytes(symbols)
    cdef int64_t used
    with nogil:
        used = tier.gaps(a.at, n, b.at, b.size)
    return symbols[:used]


def ungaps(symbols, int64_t n, int64_t kept):
    cdef _Bytes a = _Bytes(symbols)
    bitmap = np.zeros((n + 7) // 8, np.uint8)
    cdef _Bytes b = _Bytes(bitmap)
    cdef bint fits
    with nogil:
        fits = tier.ungaps(a.at, a.size, n, kept, b.at)
    return bitmap if fits else None


def rice(bitmap, int64_t n, int64_t kept, int shift):
    cdef _Bytes a = _of(bitmap, (n + 7) // 8)
    unary = np.zeros((((n - kept) >> shift) + kept + 7) // 8, np.uint8)
    low = np.empty((kept * shift + 7) // 8, np.uint8)
    cdef _Bytes b = _Bytes(unary), c = _Bytes(low)
    cdef int64_t used
    with nogil:
        used = tier.rice(a.at, n, kept, shift, b.at, b.size, c.at)
    return unary[:used], low


def unrice(unary, low, int64_t n, int64_t kept, int shift):
    cdef _Bytes a = _Bytes(unary), b = _Bytes(low)
    if not 0 <= shift <= 32 or not 0 <= kept <= n or not is_bitmap(b.at, b.size, kept * shift):
        return None
    bitmap = np.zeros((n + 7) // 8, np.uint8)
    cdef _Bytes c = _Bytes(bitmap)
    cdef bint fits
    with nogil:
        fits = tier.unrice(a.at, a.size, b.at, b.size, n, kept, shift, c.at)
    return bitmap if fits else None


def pext(source, which, int64_t n):
    cdef _Bytes a = _of(source, (n + 7) // 8), b = _of(which, (n + 7) // 8)
    bitmap = np.empty((tier.count(b.at, b.size) + 7) // 8, np.uint8)
    cdef _Bytes c = _Bytes(bitmap)
    with nogil:
        tier.pext(a.at, b.at, n, c.at, c.size)
    return bitmap


def pdep(source, which, int64_t n):
    cdef _Bytes a = _Bytes(source), b = _of(which, (n + 7) // 8)
    if not is_bitmap(a.at, a.size, tier.count(b.at, b.size)):
        return None
    bitmap = np.empty((n + 7) // 8, np.uint8)
    cdef _Bytes c = _Bytes(bitmap)
    with nogil:
        tier.pdep(a.at, a.size, b.at, n, c.at)
    return bitmap


def compact(bitmap, values, int64_t kept):
    cdef int item = values.itemsize
    cdef _Bytes b = _Bytes(values)
    cdef int64_t n = b.size // item
    cdef _Bytes a = _of(bitmap, (n + 7) // 8)
    out = np.empty(kept, values.dtype)
    cdef _Bytes c = _Bytes(out)
    with nogil:
        tier.compact(a.at, b.at, n, c.at, kept, item)
    return out


def expand(bitmap, values, out):
    cdef int item = out.itemsize
    cdef _Bytes b = _Bytes(values), c = _Bytes(out, True)
    cdef int64_t n = c.size // item
    cdef _Bytes a = _of(bitmap, (n + 7) // 8)
    if item == 4:
        if not decode32(bitmap, n, values, out):
            raise ValueError("other values than the bitmap has ones")
        return
    _expect(b.size, tier.count(a.at, a.size) * item)
    with nogil:
        tier.expand(a.at, b.at, n, c.at, b.size // item, item)


def cost(symbols):
    return _cost(_Bytes(symbols))


cdef int64_t _codes(const int64_t *counts, int top, int width) noexcept nogil:
    cdef int64_t largest = (1 << width) - 1, escaped = 0, total = 0, bits = 0, number
    cdef int i
    for i in range(top + 1):
        number = counts[top - i]
        total += number
        if i < largest:
            bits -= number * _log2(number)
        else:
            escaped += number
    bits += total * _log2(total) - escaped * _log2(escaped)
    return max(bits // SCALE, total * width // 8) + 8 * escaped


def plan(values):
    cdef _Bytes a = _Bytes(values)
    cdef int64_t[256] counts
    cdef uint32_t any = 0
    cdef int top = 255, width = 1, low = 16, trial
    cdef int64_t best, bits
    with nogil:
        survey_values(a.at, a.size // 4, counts, &any)
        while top > 0 and not counts[top]:
            top -= 1
        best = _codes(counts, top, 1)
        trial = 2
        while trial <= 4:
            bits = _codes(counts, top, trial)
            if bits < best:
                best, width = bits, trial
            trial *= 2
        any &= 0x7FFFFF
        while low > 0 and not any >> (16 - low) & 1:
            low -= 1
    return best, width, top, low


def split(values, int top, int width, int low):
    cdef _Bytes a = _Bytes(values)
    cdef int64_t k = a.size // 4
    cdef planes_t to
    if width not in (1, 2, 4) or not 0 <= low <= 16:
        raise ValueError("width is 1, 2 or 4, low 0 to 16")
    codes, mid = np.empty((k * width + 7) // 8, np.uint8), np.empty(k, np.uint8)
    rest, escapes = np.empty((k * low + 7) // 8, np.uint8), np.empty(k + PAD, np.uint8)
    cdef _Bytes b = _Bytes(codes), c = _Bytes(escapes), d = _Bytes(mid), e = _Bytes(rest)
    to.codes, to.escapes, to.mid, to.rest = b.at, c.at, d.at, e.at
    with nogil:
        tier.split(a.at, k, top, width, low, &to)
    return codes, escapes[: to.escaped].copy(), mid, rest


cdef class _Source:
    """A client's bitmap and values, and the state of reading them."""

    cdef source_t *s
    cdef _Bytes bitmap, codes, escapes, mid, rest

    def __cinit__(self, bitmap, source, double weight):
        cdef source_t *s = <source_t *>malloc(sizeof(source_t))
        if s == NULL:
            raise MemoryError
        self.s = s
        s.bitmap = NULL
        s.weight = <float>weight
        s.raw = not isinstance(source, tuple)
        if bitmap is not None:
            self.bitmap = _Bytes(bitmap)
            s.bitmap, s.bitmap_size = self.bitmap.at, self.bitmap.size
        if s.raw:
            self.codes = _Bytes(source)
            s.kept = self.codes.size // 4
            s.top = s.width = s.low = s.escapes_size = s.mid_size = s.rest_size = 0
        else:
            codes, escapes, mid, rest, s.kept, s.top, s.width, s.low = source
            self.codes, self.escapes, self.mid, self.rest = _Bytes(codes), _Bytes(escapes), _Bytes(mid), _Bytes(rest)
            s.escapes, s.escapes_size = self.escapes.at, self.escapes.size
            s.mid, s.mid_size = self.mid.at, self.mid.size
            s.rest, s.rest_size = self.rest.at, self.rest.size
        s.codes, s.codes_size = self.codes.at, self.codes.size

    def __dealloc__(self):
        free(self.s)


def decode32(bitmap, int64_t n, source, out):
    cdef _Source a = _Source(bitmap, source, 0)
    cdef _Bytes b = _Bytes(out, True)
    cdef bint fits
    _expect(b.size, 4 * n)
    with nogil:
        fits = tier.decode(a.s, n, b.at)
    return fits


def join(codes, escapes, mid, rest, k, top, width, low):
    if mid.size != k:
        return None
    out = np.empty(k, np.uint32)
    return out if decode32(None, k, (codes, escapes, mid, rest, k, top, width, low), out) else None


def accumulate32(clients, int64_t n, total, held):
    cdef _Bytes a = _Bytes(total, True), b = None if held is None else _Bytes(held, True)
    cdef int64_t number = len(clients), i, wrong
    _expect(a.size, 4 * n)
    if b is not None:
        _expect(b.size, 4 * n)
    sources = [_Source(bitmap, source, weight) for bitmap, source, weight in clients]
    cdef source_t **all = <source_t **>malloc((number + 1) * sizeof(source_t *))
    cdef uint8_t *also = NULL if b is None else b.at
    if all == NULL:
        raise MemoryError
    for i in range(number):
        all[i] = (<_Source>sources[i]).s
    with nogil:
        wrong = tier.accumulate(all, number, n, a.at, also)
        free(all)
    return wrong


def zigzag(values, reference):
    cdef _Bytes a = _Bytes(values)
    cdef _Bytes b = _of(reference, a.size)
    planes = np.empty(a.size, np.uint8)
    cdef _Bytes c = _Bytes(planes)
    with nogil:
        tier.zigzag(a.at, b.at, a.size // 4, c.at)
    return planes


def unzigzag(planes, reference):
    cdef _Bytes a = _Bytes(planes), b = _Bytes(reference)
    if a.size != b.size:
        return None
    values = np.empty(a.size // 4, np.uint32)
    cdef _Bytes c = _Bytes(values)
    with nogil:
        tier.unzigzag(a.at, b.at, a.size // 4, c.at)
    return values


def quantise(values, uniform, int bits):
    cdef _Bytes a = _Bytes(values)
    cdef _Bytes b = _of(uniform, a.size)
    cdef int64_t k = a.size // 4
    if bits not in (8, 4):
        raise ValueError("8 or 4 bits")
    scales, codes = np.empty((k + 127) // 128, np.uint16), np.empty((k * bits + 7) // 8, np.uint8)
    cdef _Bytes c = _Bytes(scales), d = _Bytes(codes)
    with nogil:
        tier.quantise(a.at, b.at, k, bits, c.at, d.at)
    return scales, codes


def dequantise(scales, codes, int64_t k, int bits):
    cdef _Bytes a = _Bytes(scales), b = _Bytes(codes)
    cdef bint fits
    if a.size != (k + 127) // 128 * 2 or b.size != (k * bits + 7) // 8:
        return None
    values = np.empty(k, np.float32)
    cdef _Bytes c = _Bytes(values)
    with nogil:
        fits = tier.dequantise(a.at, b.at, k, bits, c.at)
    return values if fits else None


# The choice between two ways to write a mask: in integers, so that every machine chooses alike.

cdef int64_t SCALE = reference.LOG2_SCALE
cdef int64_t[512] LOG2
for _i in range(512):
    LOG2[_i] = reference.LOG2[_i]


cdef int64_t _log2(int64_t number) noexcept nogil:
    cdef int64_t shift = 0
    while number >> shift >= 512:
        shift += 1
    return LOG2[number >> shift] + SCALE * shift


cdef int64_t _cost(_Bytes symbols):
    cdef int64_t[4][256] counts
    cdef int64_t i, number, n = symbols.size, total = n, first = 0, used = 0, bits = 0
    cdef const uint8_t *at = symbols.at
    with nogil:
        for i in range(256):
            counts[0][i] = counts[1][i] = counts[2][i] = counts[3][i] = 0
        for i in range(n):  # four tables: equal neighbours do not wait for each other
            counts[i & 3][at[i]] += 1
        for i in range(256):
            number = counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i]
            if number:
                used += 1
                first = max(first, number)
                bits -= number * _log2(number)
        if used < 2:
            return 16 * SCALE
        if 2 * first > n:
            bits += first * _log2(first) + n * SCALE
            total -= first
        bits += total * _log2(total)
        return min(bits + used * SCALE * 4, n * 8 * SCALE)
