# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The kernels of `reference.py`, compiled: the same signatures, the same bytes, the same None for bytes that are no mask.

Loops run without the GIL over raw memory. An input array may be changed by another thread meanwhile: each loop that
writes is bounded by the length of its output, never by what it counted before.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from fedsparse.codec import reference

ABI = 1

cdef int64_t SCALE = reference.LOG2_SCALE
cdef int64_t[512] LOG2
for _i in range(512):
    LOG2[_i] = reference.LOG2[_i]

cdef uint8_t[256][8] SPREAD  # a byte of a bitmap as eight bytes
for _i in range(256):
    for _j in range(8):
        SPREAD[_i][_j] = _i >> _j & 1


cdef const uint8_t* _in(const uint8_t[::1] view) noexcept nogil:
    return &view[0] if view.shape[0] else NULL


cdef uint8_t* _out(uint8_t[::1] view) noexcept nogil:
    return &view[0] if view.shape[0] else NULL


cdef inline uint64_t _word(const uint8_t* at) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, at, 8)
    return word


cdef int64_t _count(const uint8_t* bits, int64_t n) noexcept nogil:
    cdef int64_t i = 0, j, total = 0
    cdef uint8_t part  # small sums: 16 positions an instruction
    while i < n:
        part = 0
        for j in range(min(n - i, 128)):
            part += bits[i + j] != 0
        total += part
        i += 128
    return total


def count(bits):
    cdef const uint8_t[::1] source = bits.view(np.uint8)
    cdef int64_t total
    with nogil:
        total = _count(_in(source), source.shape[0])
    return total


def pack(bits):
    cdef const uint8_t[::1] source = bits.view(np.uint8)
    cdef int64_t n = source.shape[0], i, j
    packed = np.empty((n + 7) // 8, np.uint8)
    cdef uint8_t[::1] target = packed
    cdef const uint8_t* a = _in(source)
    cdef uint8_t* b = _out(target)
    cdef uint8_t byte
    with nogil:
        for i in range(n // 8):
            byte = 0
            for j in range(8):
                byte |= (a[8 * i + j] != 0) << j
            b[i] = byte
        if n % 8:
            byte = 0
            for j in range(n % 8):
                byte |= (a[n - n % 8 + j] != 0) << j
            b[n // 8] = byte
    return packed


def unpack(packed, n, kept):
    cdef int64_t size = n, i
    cdef const uint8_t[::1] source = packed
    if source.shape[0] != (size + 7) // 8:
        return None
    cdef const uint8_t* a = _in(source)
    if size % 8 and a[size // 8] >> (size % 8):
        return None
    bits = np.empty(size, np.bool_)
    cdef uint8_t[::1] target = bits.view(np.uint8)
    cdef uint8_t* b = _out(target)
    cdef int64_t total
    with nogil:
        for i in range(size // 8):
            memcpy(b + 8 * i, SPREAD[a[i]], 8)
        for i in range(size - size % 8, size):
            b[i] = SPREAD[a[i >> 3]][i & 7]
        total = _count(b, size)
    return bits if total == kept else None


cdef int64_t _gaps(const uint8_t* bits, int64_t n, uint8_t* out, int64_t room) noexcept nogil:
    cdef int64_t i = 0, used = 0, last = -1, gap
    while i < n:
        if i + 8 <= n and _word(bits + i) == 0:
            i += 8
            continue
        if bits[i]:
            gap = i - last - 1
            last = i
            while gap >= 255 and used < room:
                out[used] = 255
                used += 1
                gap -= 255
            if used == room:
                return used
            out[used] = <uint8_t>gap
            used += 1
        i += 1
    return used


def gaps(bits, kept):
    cdef const uint8_t[::1] source = bits.view(np.uint8)
    cdef int64_t n = source.shape[0], used
    symbols = np.empty(kept + (n - kept) // 255, np.uint8)
    cdef uint8_t[::1] target = symbols
    with nogil:
        used = _gaps(_in(source), n, _out(target), target.shape[0])
    return symbols[:used]


cdef bint _ungaps(const uint8_t* symbols, int64_t m, uint8_t* bits, int64_t n, int64_t kept) noexcept nogil:
    cdef int64_t i, at = 0, found = 0
    for i in range(m):
        at += symbols[i]
        if symbols[i] != 255:
            if at >= n:
                return False
            bits[at] = 1
            at += 1
            found += 1
    return found == kept and (m == 0 or symbols[m - 1] != 255)


def ungaps(symbols, n, kept):
    cdef const uint8_t[::1] source = symbols
    cdef int64_t size = n, wanted = kept
    bits = np.zeros(size, np.bool_)
    cdef uint8_t[::1] target = bits.view(np.uint8)
    cdef bint fits
    with nogil:
        fits = _ungaps(_in(source), source.shape[0], _out(target), size, wanted)
    return bits if fits else None


ctypedef struct Pair64:
    uint64_t low
    uint64_t high


ctypedef fused Item:  # only its size counts
    uint8_t
    uint16_t
    uint32_t
    uint64_t
    Pair64


# Values are moved by memcpy of a constant size (one instruction): on the wire they are not aligned.

cdef void _compact(const uint8_t* bits, const uint8_t* values, int64_t n, uint8_t* out, int64_t room, Item* kind) noexcept nogil:
    cdef int64_t i = 0, j, used = 0
    while i + 8 <= n and used + 8 <= room:
        if _word(bits + i):
            for j in range(8):  # no branch: what is not kept is overwritten by the next value
                memcpy(out + used * sizeof(Item), values + (i + j) * sizeof(Item), sizeof(Item))
                used += bits[i + j] != 0
        i += 8
    while i < n and used < room:
        if i + 8 <= n and _word(bits + i) == 0:
            i += 8
            continue
        if bits[i]:
            memcpy(out + used * sizeof(Item), values + i * sizeof(Item), sizeof(Item))
            used += 1
        i += 1


cdef void _expand(const uint8_t* bits, const uint8_t* values, int64_t n, uint8_t* out, int64_t room, Item* kind) noexcept nogil:
    cdef int64_t i = 0, j, used = 0
    cdef uint64_t[2] zero = [0, 0]
    cdef const uint8_t* source
    while i + 8 <= n and used + 8 <= room:
        if _word(bits + i):
            for j in range(8):  # no branch: a choice between two addresses
                source = values + used * sizeof(Item) if bits[i + j] else <const uint8_t*>zero
                memcpy(out + (i + j) * sizeof(Item), source, sizeof(Item))
                used += bits[i + j] != 0
        i += 8
    while i < n and used < room:
        if i + 8 <= n and _word(bits + i) == 0:
            i += 8
            continue
        if bits[i]:
            memcpy(out + i * sizeof(Item), values + used * sizeof(Item), sizeof(Item))
            used += 1
        i += 1


def compact(bits, values, kept):
    out = np.empty(kept, values.dtype)
    cdef const uint8_t[::1] mask = bits.view(np.uint8), source = values.view(np.uint8)
    cdef uint8_t[::1] target = out.view(np.uint8)
    cdef int64_t n = mask.shape[0], room = kept
    cdef int item = values.dtype.itemsize
    cdef const uint8_t* m = _in(mask)
    cdef const uint8_t* a = _in(source)
    cdef uint8_t* b = _out(target)
    with nogil:
        if item == 1:
            _compact[uint8_t](m, a, n, b, room, NULL)
        elif item == 2:
            _compact[uint16_t](m, a, n, b, room, NULL)
        elif item == 4:
            _compact[uint32_t](m, a, n, b, room, NULL)
        elif item == 8:
            _compact[uint64_t](m, a, n, b, room, NULL)
        else:
            _compact[Pair64](m, a, n, b, room, NULL)
    return out


def expand(bits, values, kept):
    out = np.zeros(bits.size, values.dtype)
    cdef const uint8_t[::1] mask = bits.view(np.uint8), source = values.view(np.uint8)
    cdef uint8_t[::1] target = out.view(np.uint8)
    cdef int64_t n = mask.shape[0], room = kept
    cdef int item = values.dtype.itemsize
    cdef const uint8_t* m = _in(mask)
    cdef const uint8_t* a = _in(source)
    cdef uint8_t* b = _out(target)
    with nogil:
        if item == 1:
            _expand[uint8_t](m, a, n, b, room, NULL)
        elif item == 2:
            _expand[uint16_t](m, a, n, b, room, NULL)
        elif item == 4:
            _expand[uint32_t](m, a, n, b, room, NULL)
        elif item == 8:
            _expand[uint64_t](m, a, n, b, room, NULL)
        else:
            _expand[Pair64](m, a, n, b, room, NULL)
    return out


cdef int64_t _log2(int64_t number) noexcept nogil:
    cdef int64_t shift = 0
    while number >> shift >= 512:
        shift += 1
    return LOG2[number >> shift] + SCALE * shift


cdef int64_t _cost(const uint8_t* symbols, int64_t n) noexcept nogil:
    cdef int64_t[4][256] counts
    cdef int64_t i, number, total = n, first = 0, used = 0, bits = 0
    memset(counts, 0, sizeof(counts))
    for i in range(n):  # four tables: equal neighbours do not wait for each other
        counts[i & 3][symbols[i]] += 1
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


def cost(symbols):
    cdef const uint8_t[::1] source = symbols
    cdef int64_t bits
    with nogil:
        bits = _cost(_in(source), source.shape[0])
    return bits
