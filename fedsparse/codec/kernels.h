/* The loops of `_kernels.pyx`: portable C, and the same for AVX2 and AVX-512 on x86-64.

   The file includes itself once a tier: what stands between "A tier" and its #endif is compiled under another name and
   another target each time, with intrinsics where they pay. `reference.py` says what each function does.

   Nothing here trusts its input: another thread may change it at any time. What decides about addresses is read once
   (a bitmap is copied, chunk by chunk, before it is counted), and each output is bounded by its own length. */

#ifndef TIER

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#else
#define HAVE_X86 0
#endif
#if HAVE_X86 || defined(_M_X64)
#define HAVE_SSE2 1
#include <immintrin.h>
#else
#define HAVE_SSE2 0
#endif
#ifdef _MSC_VER
#include <intrin.h>
#define ALIGNED __declspec(align(64))
#else
#define ALIGNED __attribute__((aligned(64)))
#endif

enum {
    CHUNK = 4096,          /* positions that go through the caches together */
    WORDS = CHUNK / 64,
    BLOCK = 1024,          /* values that are taken apart or put together at once */
    PAD = 128,             /* what a register may reach beyond the end of a buffer of ours, in items */
    FEW = CHUNK / 16,      /* kept positions of a chunk that are best treated one by one */
    DENSE = 44,            /* of 64 positions: one by one is slower then */
    GROUP = 128,           /* quantised values that share a scale */
    LARGE = 4 << 20        /* bytes of an output that is not worth its place in the caches */
};

/* The values of one client, and where in them we are. `raw`: `codes` are the values themselves. */
typedef struct {
    const uint8_t *bitmap, *codes, *escapes, *mid, *rest;
    int64_t bitmap_size, codes_size, escapes_size, mid_size, rest_size;
    int64_t kept, top, width, low;
    float weight;
    int raw;
    uint8_t pick[64];   /* for sixteen values the bytes of `rest` where each begins, */
    uint32_t turn[16];  /* and how many bits to the right of that */
    int64_t joined, escaped, used, have;
    uint32_t stage[CHUNK + BLOCK + PAD]; /* stage[used..have] are the next values */
} source_t;

/* Where `split` is told to write. */
typedef struct {
    uint8_t *codes, *escapes, *mid, *rest;
    int64_t escaped;
} planes_t;

typedef struct {
    const char *name;
    int64_t (*count)(const uint8_t *, int64_t);
    void (*pack)(const uint8_t *, int64_t, uint8_t *);
    void (*unpack)(const uint8_t *, int64_t, uint8_t *);
    int64_t (*gaps)(const uint8_t *, int64_t, uint8_t *, int64_t);
    int (*ungaps)(const uint8_t *, int64_t, int64_t, int64_t, uint8_t *);
    int64_t (*rice)(const uint8_t *, int64_t, int64_t, int, uint8_t *, int64_t, uint8_t *);
    int (*unrice)(const uint8_t *, int64_t, const uint8_t *, int64_t, int64_t, int64_t, int, uint8_t *);
    void (*pext)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t);
    void (*pdep)(const uint8_t *, int64_t, const uint8_t *, int64_t, uint8_t *);
    void (*compact)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t, int);
    void (*expand)(const uint8_t *, const uint8_t *, int64_t, uint8_t *, int64_t, int);
    void (*split)(const uint8_t *, int64_t, int, int, int, planes_t *);
    int (*decode)(source_t *, int64_t, uint8_t *);
    int64_t (*accumulate)(source_t **, int64_t, int64_t, uint8_t *, uint8_t *);
    void (*zigzag)(const uint8_t *, const uint8_t *, int64_t, uint8_t *);
    void (*unzigzag)(const uint8_t *, const uint8_t *, int64_t, uint8_t *);
    void (*quantise)(const uint8_t *, const uint8_t *, int64_t, int, uint8_t *, uint8_t *);
    int (*dequantise)(const uint8_t *, const uint8_t *, int64_t, int, uint8_t *);
} tier_t;

/* Words */

static inline uint16_t load16(const uint8_t *at) { uint16_t x; memcpy(&x, at, 2); return x; }
static inline uint32_t load32(const uint8_t *at) { uint32_t x; memcpy(&x, at, 4); return x; }
static inline uint64_t load64(const uint8_t *at) { uint64_t x; memcpy(&x, at, 8); return x; }
static inline float as_float(uint32_t bits) { float x; memcpy(&x, &bits, 4); return x; }
static inline uint32_t as_bits(float x) { uint32_t bits; memcpy(&bits, &x, 4); return bits; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static inline int lowest(uint64_t word) { /* the position of the lowest one of a word that has any */
#ifdef _MSC_VER
    unsigned long i;
    _BitScanForward64(&i, word);
    return (int)i;
#else
    return __builtin_ctzll(word);
#endif
}

/* `size` bytes at most eight, the others zero. */
static inline uint64_t load_part(const uint8_t *at, int64_t size) {
    uint64_t x = 0;
    memcpy(&x, at, (size_t)least(size, 8));
    return x;
}

/* 57 bits or more from a bit's position on: zeros beyond the end. */
static inline uint64_t bits_from(const uint8_t *at, int64_t size, int64_t bit) {
    int64_t byte = bit >> 3;
    if (byte + 8 <= size) return load64(at + byte) >> (bit & 7);
    return byte < size ? load_part(at + byte, size - byte) >> (bit & 7) : 0;
}

static inline void set_bit(uint8_t *bitmap, int64_t i) { bitmap[i >> 3] |= (uint8_t)(1 << (i & 7)); }

static int is_bitmap(const uint8_t *bitmap, int64_t size, int64_t n) {
    return size == n / 8 + (n % 8 != 0) && !(n % 8 && bitmap[size - 1] >> (n % 8));
}

/* A copy of the bits from position `at` (a multiple of CHUNK) on, zeros beyond n; without a bitmap all are ones.
   Returns the number of positions. */
static int64_t load_mask(const uint8_t *bitmap, int64_t n, int64_t at, uint64_t *mask) {
    int64_t m = least(n - at, CHUNK);
    if (m < CHUNK) memset(mask, 0, WORDS * 8);
    if (bitmap) memcpy(mask, bitmap + at / 8, (size_t)(m + 7) / 8);
    else memset(mask, 255, (size_t)(m + 7) / 8);
    if (m % 64) mask[m / 64] &= ((uint64_t)1 << (m % 64)) - 1;
    return m;
}

static void stream_end(int large) {
#if HAVE_SSE2
    if (large) _mm_sfence();
#else
    (void)large;
#endif
}

/* Items of any size, by a copy of a constant size: on the wire they are not aligned. */

#define EACH_SIZE(item, call) \
    switch (item) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 4: call(4); break; \
        case 8: call(8); break; \
        default: call(16); \
    }

/* Planes */

static inline uint32_t field(const uint8_t *codes, int64_t i, int64_t width) {
    return codes[i * width >> 3] >> (i * width & 7) & ((1u << width) - 1);
}

static void source_start(source_t *s) {
    for (int i = 0; i < 16; i++) {
        int64_t bit = i % 8 * s->low;
        s->turn[i] = (uint32_t)(bit & 7);
        for (int j = 0; j < 4; j++) s->pick[4 * i + j] = j < 3 ? (uint8_t)(bit / 8 + j) : 128;
    }
    s->joined = s->escaped = s->used = s->have = 0;
}

/* Whether the lengths, the padding and the exponents are right; the number of the escapes shows only in the end. */
static int source_fits(const source_t *s) {
    if (s->raw) return s->codes_size % 4 == 0;
    if ((s->width != 1 && s->width != 2 && s->width != 4) || s->low < 0 || s->low > 16) return 0;
    if (s->top < 0 || s->top > 255 || s->kept < 0 || s->mid_size != s->kept) return 0;
    if (!is_bitmap(s->codes, s->codes_size, s->kept * s->width)) return 0;
    if (!is_bitmap(s->rest, s->rest_size, s->kept * s->low)) return 0;
    int64_t largest = (1 << s->width) - 1, most = s->top - largest;
    uint8_t top = 0;
    for (int64_t i = 0; i < s->escapes_size; i++) top = s->escapes[i] > top ? s->escapes[i] : top;
    if (s->escapes_size && top > most) return 0;
    if (s->top < largest - 1)
        for (int64_t i = 0; i < s->kept; i++) {
            uint32_t code = field(s->codes, i, s->width);
            if (code > s->top && code < largest) return 0;
        }
    return 1;
}

static void survey(const uint8_t *values, int64_t k, int64_t *exponents, uint32_t *any) {
    uint32_t table[4][256]; /* equal neighbours do not wait for each other */
    uint64_t seen = 0;
    memset(exponents, 0, 256 * sizeof(int64_t));
    for (int64_t start = 0, end; start < k; start = end) {
        end = least(start + ((int64_t)1 << 30), k);
        memset(table, 0, sizeof(table));
        int64_t i = start;
        for (; i + 4 <= end; i += 4) {
            uint64_t a = load64(values + 4 * i), b = load64(values + 4 * i + 8);
            seen |= a | b;
            table[0][a >> 23 & 255]++, table[1][a >> 55 & 255]++;
            table[2][b >> 23 & 255]++, table[3][b >> 55 & 255]++;
        }
        for (; i < end; i++) {
            uint32_t a = load32(values + 4 * i);
            seen |= a;
            table[0][a >> 23 & 255]++;
        }
        for (int j = 0; j < 256; j++) exponents[j] += (int64_t)table[0][j] + table[1][j] + table[2][j] + table[3][j];
    }
    *any = (uint32_t)(seen | seen >> 32);
}

/* The tiers */

static uint8_t RANK[256][8];  /* of each one in a byte its place among the ones; ABSENT: a zero */
static uint8_t PLACE[256][8]; /* its opposite: where the first, the second, ... one is */
enum { ABSENT = 0x88 };       /* negative for AVX2, 8 in the lower half for the others */

#define PORTABLE 0
#define AVX2 1
#define AVX512 2

#define TIER PORTABLE
#define ISA
#define T(name) name##_c
#include "kernels.h"
#undef TIER
#undef ISA
#undef T

#if HAVE_X86
#define TIER AVX2
#define ISA __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define T(name) name##_avx2
#include "kernels.h"
#undef TIER
#undef ISA
#undef T

#define TIER AVX512
#define ISA \
    __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vbmi2")))
#define T(name) name##_avx512
#include "kernels.h"
#undef TIER
#undef ISA
#undef T
#endif

#define FUNCTIONS(t) \
    count_##t, pack_##t, unpack_##t, gaps_##t, ungaps_##t, rice_##t, unrice_##t, pext_##t, pdep_##t, compact_##t, \
    expand_##t, split_##t, decode_##t, accumulate_##t, zigzag_##t, unzigzag_##t, quantise_##t, dequantise_##t

/* The best tiers of this machine first. Returns their number. */
static int find_tiers(const tier_t **found) {
    static const tier_t portable = {"c", FUNCTIONS(c)};
    int tiers = 0;
    for (int byte = 0; byte < 256; byte++)
        for (int bit = 0, rank = 0; bit < 8; bit++) {
            RANK[byte][bit] = byte >> bit & 1 ? (uint8_t)rank : ABSENT;
            if (byte >> bit & 1) PLACE[byte][rank++] = (uint8_t)bit;
        }
#if HAVE_X86
    static const tier_t avx2 = {"avx2", FUNCTIONS(avx2)}, avx512 = {"avx512", FUNCTIONS(avx512)};
    __builtin_cpu_init();
    int old = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
              __builtin_cpu_supports("popcnt");
    int new = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
              __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
    if (old && new) found[tiers++] = &avx512;
    if (old) found[tiers++] = &avx2;
#endif
    found[tiers++] = &portable;
    return tiers;
}

#else /* A tier */

ISA static inline int T(ones)(uint64_t x) {
#if TIER == PORTABLE
    x -= x >> 1 & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + (x >> 2 & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(x * 0x0101010101010101u >> 56);
#else
    return __builtin_popcountll(x);
#endif
}

ISA static int64_t T(mask_ones)(const uint64_t *mask) {
    int64_t total = 0;
    for (int w = 0; w < WORDS; w++) total += T(ones)(mask[w]);
    return total;
}

ISA static int64_t T(count)(const uint8_t *bitmap, int64_t size) {
    int64_t total = 0, i = 0;
    for (; i + 32 <= size; i += 32)
        total += T(ones)(load64(bitmap + i)) + T(ones)(load64(bitmap + i + 8)) + T(ones)(load64(bitmap + i + 16)) +
                 T(ones)(load64(bitmap + i + 24));
    for (; i < size; i += 8) total += T(ones)(load_part(bitmap + i, size - i));
    return total;
}

/* Bits and bytes */

ISA static inline uint64_t T(pack64)(const uint8_t *bits) {
#if TIER == AVX512
    __m512i x = _mm512_loadu_si512(bits);
    return _mm512_test_epi8_mask(x, x);
#elif TIER == AVX2
    const __m256i zero = _mm256_setzero_si256();
    uint32_t low = (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)bits), zero));
    uint32_t high =
        (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(bits + 32)), zero));
    return ~(low | (uint64_t)high << 32);
#else
    uint64_t word = 0;
    for (int j = 0; j < 8; j++) {
        uint64_t x = load64(bits + 8 * j), seven = 0x7f7f7f7f7f7f7f7fu;
        x = (((x & seven) + seven) | x) >> 7 & 0x0101010101010101u; /* each byte 0 or 1 */
        word |= (x * 0x0102040810204080u >> 56) << (8 * j);
    }
    return word;
#endif
}

ISA static inline void T(unpack64)(uint64_t word, uint8_t *out) {
#if TIER == AVX512
    _mm512_storeu_si512(out, _mm512_maskz_set1_epi8(word, 1));
#elif TIER == AVX2
    const __m256i which = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201u), one = _mm256_set1_epi8(1);
    for (int j = 0; j < 64; j += 32) {
        __m256i x = _mm256_shuffle_epi8(_mm256_set1_epi32((int)(word >> j)), which);
        _mm256_storeu_si256((__m256i *)(out + j), _mm256_min_epu8(_mm256_and_si256(x, bit), one));
    }
#else
    for (int j = 0; j < 8; j++) {
        uint64_t x = (word >> (8 * j) & 255) * 0x0101010101010101u & 0x8040201008040201u;
        x = (x + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
        memcpy(out + 8 * j, &x, 8);
    }
#endif
}

ISA static void T(pack)(const uint8_t *bits, int64_t n, uint8_t *out) {
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) {
        uint64_t word = T(pack64)(bits + i);
        memcpy(out + i / 8, &word, 8);
    }
    if (i < n) {
        uint8_t last[64] = {0};
        memcpy(last, bits + i, (size_t)(n - i));
        uint64_t word = T(pack64)(last);
        memcpy(out + i / 8, &word, (size_t)(n - i + 7) / 8);
    }
}

ISA static void T(unpack)(const uint8_t *bitmap, int64_t n, uint8_t *out) {
    int64_t i = 0;
    for (; i + 64 <= n; i += 64) T(unpack64)(load64(bitmap + i / 8), out + i);
    if (i < n) {
        uint8_t last[64];
        T(unpack64)(load_part(bitmap + i / 8, (n - i + 7) / 8), last);
        memcpy(out + i, last, (size_t)(n - i));
    }
}

ISA static void T(pext)(const uint8_t *source, const uint8_t *which, int64_t n, uint8_t *out, int64_t room) {
    uint64_t bits[WORDS], mask[WORDS], open = 0;
    int64_t used = 0; /* bits; the last used % 64 are in `open` */
    for (int64_t at = 0; at < n; at += CHUNK) {
        load_mask(source, n, at, bits);
        int64_t m = load_mask(which, n, at, mask);
        for (int w = 0; 64 * w < m; w++) {
            int found = T(ones)(mask[w]), full = (int)(used % 64);
            uint64_t taken = 0;
#if TIER == PORTABLE
            int i = 0;
            for (uint64_t left = mask[w]; left; left &= left - 1) taken |= (bits[w] >> lowest(left) & 1) << i++;
#else
            taken = _pext_u64(bits[w], mask[w]);
#endif
            open |= taken << full;
            if (full + found >= 64) {
                if (used / 64 * 8 + 8 > room) return;
                memcpy(out + used / 64 * 8, &open, 8);
                open = full ? taken >> (64 - full) : 0;
            }
            used += found;
        }
    }
    int64_t done = used / 64 * 8;
    memcpy(out + done, &open, (size_t)least(room - done, (used % 64 + 7) / 8));
}

ISA static void T(pdep)(const uint8_t *source, int64_t size, const uint8_t *which, int64_t n, uint8_t *out) {
    uint64_t mask[WORDS], bits[WORDS];
    int64_t used = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = load_mask(which, n, at, mask);
        for (int w = 0; 64 * w < m; w++) {
            int found = T(ones)(mask[w]);
            uint64_t next = bits_from(source, size, used);
            if (found > 56) next = (next & 0xffffffffu) | bits_from(source, size, used + 32) << 32;
#if TIER == PORTABLE
            bits[w] = 0;
            for (uint64_t left = mask[w]; left; left &= left - 1, next >>= 1) bits[w] |= (next & 1) << lowest(left);
#else
            bits[w] = _pdep_u64(next, mask[w]);
#endif
            used += found;
        }
        memcpy(out + at / 8, bits, (size_t)(m + 7) / 8);
    }
}

ISA static int64_t T(gaps)(const uint8_t *bitmap, int64_t n, uint8_t *out, int64_t room) {
    uint64_t mask[WORDS];
    int64_t used = 0, last = -1;
#if TIER == AVX512
    uint8_t count_up[64];
    for (int j = 0; j < 64; j++) count_up[j] = (uint8_t)j;
    const __m512i iota = _mm512_loadu_si512(count_up), one = _mm512_set1_epi8(1), before = _mm512_sub_epi8(iota, one);
#endif
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = load_mask(bitmap, n, at, mask);
        for (int64_t w = 0; 64 * w < m; w++) {
            uint64_t left = mask[w];
            while (left) {
                int64_t i = at + 64 * w + lowest(left), gap = i - last - 1;
                for (; gap >= 255 && used < room; gap -= 255) out[used++] = 255;
                if (used >= room) return used;
#if TIER == AVX512
                if (left & (left - 1) && used + 64 <= room) { /* the first gap of a word is long, the others are differences within it */
                    __m512i places = _mm512_maskz_compress_epi8(left, iota);
                    __m512i previous = _mm512_permutexvar_epi8(before, places);
                    _mm512_storeu_si512(out + used, _mm512_sub_epi8(_mm512_sub_epi8(places, previous), one));
                    out[used] = (uint8_t)gap;
                    used += T(ones)(left);
                    last = at + 64 * w + 63 - __builtin_clzll(left);
                    break;
                }
#endif
                out[used++] = (uint8_t)gap;
                last = i;
                left &= left - 1;
            }
        }
    }
    return used;
}

ISA static int T(ungaps)(const uint8_t *symbols, int64_t size, int64_t n, int64_t kept, uint8_t *bitmap) {
    int64_t at = 0, found = 0;
    uint8_t symbol = 0;
    for (int64_t i = 0; i < size; i++) {
        symbol = symbols[i];
        at += symbol;
        if (at >= n) return 0;
        if (symbol == 255) continue;
        set_bit(bitmap, at++);
        found++;
    }
    return found == kept && symbol != 255;
}

ISA static int64_t T(rice)(
    const uint8_t *bitmap, int64_t n, int64_t kept, int shift, uint8_t *unary, int64_t room, uint8_t *low) {
    uint64_t mask[WORDS], open = 0, few = ((uint64_t)1 << shift) - 1;
    int64_t end = 0, last = -1, found = 0, bytes = 0, limit = (kept * shift + 7) / 8;
    int full = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = load_mask(bitmap, n, at, mask);
        for (int64_t w = 0; 64 * w < m; w++)
            for (uint64_t left = mask[w]; left; left &= left - 1) {
                int64_t i = at + 64 * w + lowest(left), gap = i - last - 1;
                last = i;
                end += gap >> shift;
                if (end >= room * 8 || found++ == kept) return 0;
                set_bit(unary, end++);
                open |= ((uint64_t)gap & few) << full; /* less than 32 bits wait: 64 are enough */
                full += shift;
                if (full >= 32) {
                    memcpy(low + bytes, &open, (size_t)least(limit - bytes, 4));
                    bytes += 4, full -= 32, open >>= 32;
                }
            }
    }
    if (bytes < limit) memcpy(low + bytes, &open, (size_t)least(limit - bytes, 4));
    return (end + 7) / 8;
}

ISA static int T(unrice)(
    const uint8_t *unary, int64_t size, const uint8_t *low, int64_t low_size, int64_t n, int64_t kept, int shift,
    uint8_t *bitmap) {
    uint64_t few = ((uint64_t)1 << shift) - 1;
    int64_t at = 0, last = -1, found = 0, most = n >> shift;
    for (int64_t start = 0; start < size; start += 8) {
        uint64_t left = load_part(unary + start, size - start);
        for (; left; left &= left - 1) {
            int64_t i = 8 * start + lowest(left), high = i - last - 1;
            last = i;
            if (found == kept || high > most) return 0;
            at += high << shift | (int64_t)(bits_from(low, low_size, found++ * shift) & few);
            if (at >= n) return 0;
            set_bit(bitmap, at++);
        }
    }
    return found == kept && (last + 8) / 8 == size;
}

/* Values to and from the kept positions */

#define COMPACT(item) T(compact_items)(bitmap, values, n, out, room, item)
#define EXPAND(item) T(expand_items)(bitmap, values, n, out, room, item)

/* The kept ones of 64 values. May write as much as if all were kept. */
ISA static inline void T(take)(uint64_t bits, const uint8_t *values, uint8_t *out) {
#if TIER == AVX512
    for (int j = 0; j < 4; j++, bits >>= 16) {
        __m512i x = _mm512_loadu_si512(values + 64 * j);
        _mm512_storeu_si512(out, _mm512_maskz_compress_epi32((__mmask16)bits, x));
        out += 4 * T(ones)(bits & 0xffff);
    }
#elif TIER == AVX2
    for (int j = 0; j < 8; j++, bits >>= 8) {
        __m256i places = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)PLACE[bits & 255]));
        __m256i x = _mm256_loadu_si256((const __m256i *)(values + 32 * j));
        _mm256_storeu_si256((__m256i *)out, _mm256_permutevar8x32_epi32(x, places));
        out += 4 * T(ones)(bits & 255);
    }
#else
    if (T(ones)(bits) < DENSE)
        for (; bits; bits &= bits - 1, out += 4) memcpy(out, values + 4 * lowest(bits), 4);
    else
        for (int j = 0; j < 64; j++, bits >>= 1) { /* no branch: what is not kept is overwritten by the next value */
            memcpy(out, values + 4 * j, 4);
            out += bits << 2 & 4;
        }
#endif
}

ISA static inline void T(compact_items)(
    const uint8_t *bitmap, const uint8_t *values, int64_t n, uint8_t *out, int64_t room, int item) {
    uint64_t mask[WORDS];
    int64_t used = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = load_mask(bitmap, n, at, mask);
        for (int64_t w = 0; 64 * w < m; w++) {
            uint64_t bits = mask[w];
            const uint8_t *from = values + (at + 64 * w) * item;
            if (!bits) continue;
            if (item == 4 && 64 * w + 64 <= m && used + 64 <= room) {
                T(take)(bits, from, out + used * 4);
                used += T(ones)(bits);
                continue;
            }
            for (; bits && used < room; bits &= bits - 1, used++)
                memcpy(out + used * item, from + lowest(bits) * item, (size_t)item);
        }
    }
}

ISA static void T(compact)(
    const uint8_t *bitmap, const uint8_t *values, int64_t n, uint8_t *out, int64_t room, int item) {
    EACH_SIZE(item, COMPACT)
}

ISA static inline void T(expand_items)(
    const uint8_t *bitmap, const uint8_t *values, int64_t n, uint8_t *out, int64_t room, int item) {
    uint64_t mask[WORDS];
    int64_t used = 0;
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = load_mask(bitmap, n, at, mask);
        for (int64_t w = 0; 64 * w < m; w++) {
            uint8_t *to = out + (at + 64 * w) * item;
            memset(to, 0, (size_t)(least(m - 64 * w, 64) * item));
            for (uint64_t bits = mask[w]; bits && used < room; bits &= bits - 1, used++)
                memcpy(to + lowest(bits) * item, values + used * item, (size_t)item);
        }
    }
}

ISA static void T(expand)(
    const uint8_t *bitmap, const uint8_t *values, int64_t n, uint8_t *out, int64_t room, int item) {
    EACH_SIZE(item, EXPAND)
}

/* Taking apart: BLOCK values, or the `m` last ones followed by PAD values of 0 distance */

/* Eight numbers of `low` bits after each other, twice: 2 * low bytes. May write 16 bytes beyond them. */
ISA static inline void T(pack_rest)(const uint16_t *rest, int low, uint8_t *out) {
    for (int j = 0; j < 16; j += 8, out += low) {
        uint64_t half[2];
        for (int h = 0; h < 2; h++) {
            const uint16_t *x = rest + j + 4 * h;
            half[h] = x[0] | (uint64_t)x[1] << low | (uint64_t)x[2] << (2 * low) | (uint64_t)x[3] << (3 * low);
        }
        half[0] |= half[1] << (4 * low);
        half[1] >>= 64 - 4 * low;
        memcpy(out, half, 16);
    }
}

#if TIER == AVX512

ISA static int64_t T(split_block)(
    const uint8_t *values, int64_t m, int top, int width, int low, uint8_t *codes, uint8_t *escapes, uint8_t *mid,
    uint8_t *rest) {
    const __m512i most = _mm512_set1_epi32(top), largest = _mm512_set1_epi32((1 << width) - 1);
    const __m512i byte = _mm512_set1_epi32(255);
    const __m128i shift = _mm_cvtsi32_si128(16 - low);
    int64_t escaped = 0;
    for (int64_t i = 0; i < m; i += 16, values += 64) {
        __m512i x = _mm512_loadu_si512(values);
        __m512i exponent = _mm512_and_si512(_mm512_srli_epi32(x, 23), byte);
        __m512i code = _mm512_min_epu32(_mm512_sub_epi32(most, exponent), largest);
        __mmask16 out = _mm512_cmpeq_epi32_mask(code, largest);
        if (width == 1) {
            memcpy(codes, &out, 2);
        } else {
            __m128i bytes = _mm512_cvtepi32_epi8(code);
            uint64_t low8 = (uint64_t)_mm_cvtsi128_si64(bytes), high8 = (uint64_t)_mm_extract_epi64(bytes, 1);
            uint64_t which = width == 2 ? 0x0303030303030303u : 0x0f0f0f0f0f0f0f0fu;
            uint64_t packed = _pext_u64(low8, which) | _pext_u64(high8, which) << (8 * width);
            memcpy(codes, &packed, width == 2 ? 4 : 8);
        }
        codes += 2 * width;
        if (out) {
            __m512i left = _mm512_maskz_compress_epi32(out, exponent);
            _mm_storeu_si128((__m128i *)(escapes + escaped), _mm512_cvtepi32_epi8(left));
            escaped += T(ones)(out);
        }
        __m512i high = _mm512_srli_epi32(x, 16); /* sign, exponent, seven bits */
        high = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi32(x, 24), _mm512_set1_epi32(128)),
                               _mm512_and_si512(high, _mm512_set1_epi32(127)));
        _mm_storeu_si128((__m128i *)(mid + i), _mm512_cvtepi32_epi8(high));
        if (low) {
            uint16_t fine[16];
            __m256i part = _mm256_srl_epi16(_mm512_cvtepi32_epi16(x), shift);
            if (low == 16) {
                _mm256_storeu_si256((__m256i *)(rest + 2 * i), part);
            } else {
                _mm256_storeu_si256((__m256i *)fine, part);
                T(pack_rest)(fine, low, rest + i * low / 8);
            }
        }
    }
    return escaped;
}

#else

/* `m` codes, a multiple of 32, side by side. */
ISA static inline void T(pack_codes)(const uint8_t *code, int64_t m, int width, uint8_t *out) {
    if (width == 1) {
        T(pack)(code, m, out);
        return;
    }
#if TIER == AVX2
    const __m256i pairs = _mm256_set1_epi16(width == 2 ? 0x0401 : 0x1001), fours = _mm256_set1_epi32(0x00100001);
    for (int64_t i = 0; i < m; i += 32, out += 4 * width) {
        __m256i x = _mm256_maddubs_epi16(_mm256_loadu_si256((const __m256i *)(code + i)), pairs);
        x = width == 2 ? _mm256_madd_epi16(x, fours) : x;
        x = width == 2 ? _mm256_packus_epi32(x, x) : x;
        x = _mm256_permute4x64_epi64(_mm256_packus_epi16(x, x), 0x08);
        if (width == 4) {
            _mm_storeu_si128((__m128i *)out, _mm256_castsi256_si128(x));
        } else {
            uint32_t halves[4];
            _mm_storeu_si128((__m128i *)halves, _mm256_castsi256_si128(x));
            memcpy(out, halves, 4), memcpy(out + 4, halves + 2, 4);
        }
    }
#else
    for (int64_t i = 0; i < m; i += 4) {
        uint32_t x = load32(code + i);
        uint16_t four = (uint16_t)((x & 15) | (x >> 4 & 0xf0) | (x >> 8 & 0xf00) | (x >> 12 & 0xf000));
        if (width == 2) out[i / 4] = (uint8_t)(x | x >> 6 | x >> 12 | x >> 18);
        else memcpy(out + i / 2, &four, 2);
    }
#endif
}

ISA static int64_t T(split_block)(
    const uint8_t *values, int64_t m, int top, int width, int low, uint8_t *codes, uint8_t *escapes, uint8_t *mid,
    uint8_t *rest) {
    uint8_t exponent[BLOCK], code[BLOCK];
    uint16_t fine[BLOCK];
    uint8_t highest = (uint8_t)top, largest = (uint8_t)((1 << width) - 1);
    int64_t escaped = 0;
    m = (m + 31) & ~(int64_t)31;
    for (int64_t i = 0; i < m; i++) {
        uint32_t x = load32(values + 4 * i);
        exponent[i] = (uint8_t)(x >> 23);
        mid[i] = (uint8_t)((x >> 24 & 128) | (x >> 16 & 127));
        fine[i] = (uint16_t)((x & 0xffff) >> (16 - low));
    }
    for (int64_t i = 0; i < m; i++) {
        uint8_t distance = (uint8_t)(highest - exponent[i]);
        code[i] = distance < largest ? distance : largest;
    }
#if TIER == AVX2
    for (int64_t i = 0; i < m; i += 32) {
        __m256i far = _mm256_cmpeq_epi8(_mm256_loadu_si256((const __m256i *)(code + i)), _mm256_set1_epi8((char)largest));
        uint32_t out = (uint32_t)_mm256_movemask_epi8(far);
        for (int j = 0; out; j += 8, out >>= 8) {
            __m128i places = _mm_loadl_epi64((const __m128i *)PLACE[out & 255]);
            __m128i x = _mm_loadl_epi64((const __m128i *)(exponent + i + j));
            _mm_storel_epi64((__m128i *)(escapes + escaped), _mm_shuffle_epi8(x, places));
            escaped += T(ones)(out & 255);
        }
    }
#else
    for (int64_t i = 0; i < m; i += 8) {
        uint64_t eight = load64(code + i), at = eight & 0x0101010101010101u; /* the escapes, a bit each */
        if (width > 1) at &= eight >> 1;
        if (width > 2) at &= eight >> 2 & eight >> 3;
        for (int j = 0; at && j < 8; j++) {
            escapes[escaped] = exponent[i + j];
            escaped += code[i + j] == largest;
        }
    }
#endif
    T(pack_codes)(code, m, width, codes);
    if (low == 16) memcpy(rest, fine, (size_t)m * 2);
    else if (low)
        for (int64_t i = 0; i < m; i += 16) T(pack_rest)(fine + i, low, rest + i * low / 8);
    return escaped;
}

#endif

/* The planes of k values. `escapes` has room for k + PAD, the others for what they hold. */
ISA static void T(split)(const uint8_t *values, int64_t k, int top, int width, int low, planes_t *to) {
    uint8_t codes[BLOCK / 2], mid[BLOCK], rest[2 * BLOCK + PAD];
    to->escaped = 0;
    for (int64_t at = 0; at < k; at += BLOCK) {
        int64_t m = least(k - at, BLOCK);
        if (m == BLOCK && low == 16) {
            to->escaped += T(split_block)(
                values + 4 * at, m, top, width, low, to->codes + at * width / 8, to->escapes + to->escaped,
                to->mid + at, to->rest + 2 * at);
            continue;
        }
        uint8_t last[4 * (BLOCK + PAD)];
        const uint8_t *from = values + 4 * at;
        if (m < BLOCK) { /* what follows the last value has code 0 and no bits: the padding */
            uint32_t nothing = (uint32_t)top << 23;
            memcpy(last, from, (size_t)m * 4);
            for (int j = 0; j < PAD; j++) memcpy(last + 4 * (m + j), &nothing, 4);
            from = last;
        }
        to->escaped += T(split_block)(from, m, top, width, low, codes, to->escapes + to->escaped, mid, rest);
        memcpy(to->codes + at * width / 8, codes, (size_t)(m * width + 7) / 8);
        memcpy(to->mid + at, mid, (size_t)m);
        memcpy(to->rest + at * low / 8, rest, (size_t)(m * low + 7) / 8);
    }
}

/* Putting together */

#if TIER == PORTABLE

/* `m` values, rounded up to 16. The planes may be read PAD bytes beyond them. */
ISA static inline void T(join_some)(
    source_t *s, const uint8_t *codes, const uint8_t *mid, const uint8_t *rest, int64_t m, int low, uint32_t *out) {
    uint8_t code[BLOCK], exponent[BLOCK];
    uint16_t fine[BLOCK];
    uint8_t top = (uint8_t)s->top;
    m = (m + 15) & ~(int64_t)15;
    if (s->width == 1)
        T(unpack)(codes, m, code);
    else if (s->width == 2)
        for (int64_t i = 0; i < m; i += 4) {
            uint32_t x = codes[i / 4], four = (x | x << 6 | x << 12 | x << 18) & 0x03030303;
            memcpy(code + i, &four, 4);
        }
    else
        for (int64_t i = 0; i < m / 2; i++) code[2 * i] = codes[i] & 15, code[2 * i + 1] = codes[i] >> 4;
    for (int64_t i = 0; i < m; i++) exponent[i] = (uint8_t)(top - code[i]);
    for (int64_t i = 0; i < m; i += 8) {
        uint64_t eight = load64(code + i), at = eight & 0x0101010101010101u;
        if (s->width > 1) at &= eight >> 1;
        if (s->width > 2) at &= eight >> 2 & eight >> 3;
        for (; at; at &= at - 1, s->escaped++)
            if (s->escaped < s->escapes_size) exponent[i + lowest(at) / 8] = s->escapes[s->escaped];
    }
    if (low == 16) memcpy(fine, rest, (size_t)m * 2);
    else
        for (int64_t i = 0; i < m; i++) {
            uint32_t x = low ? load32(rest + (i * low >> 3)) >> (i * low & 7) : 0;
            fine[i] = (uint16_t)((x & ((1u << low) - 1)) << (16 - low));
        }
    for (int64_t i = 0; i < m; i++)
        out[i] = (uint32_t)(mid[i] & 128) << 24 | (uint32_t)exponent[i] << 23 | (uint32_t)(mid[i] & 127) << 16 | fine[i];
}

#else

/* Sixteen escapes, or what there is of them. */
ISA static inline __m128i T(escapes16)(const source_t *s) {
    uint8_t last[16] = {0};
    int64_t left = s->escapes_size - s->escaped;
    if (left >= 16) return _mm_loadu_si128((const __m128i *)(s->escapes + s->escaped));
    if (left > 0) memcpy(last, s->escapes + s->escaped, (size_t)left);
    return _mm_loadu_si128((const __m128i *)last);
}

#endif

#if TIER == AVX512

ISA static inline __m512i T(twice)(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

ISA static inline __m256i T(both)(const uint8_t *at) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)at));
}

ISA static inline void T(join_some)(
    source_t *s, const uint8_t *codes, const uint8_t *mid, const uint8_t *rest, int64_t m, int low, uint32_t *out) {
    const int width = (int)s->width;
    const __m256i eight = _mm256_setr_epi32(0, width, 2 * width, 3 * width, 4 * width, 5 * width, 6 * width, 7 * width);
    const __m512i places = T(twice)(eight, eight), largest = _mm512_set1_epi32((1 << width) - 1);
    const __m512i top = _mm512_set1_epi32((int)s->top), frame = _mm512_set1_epi32((int)0x807f0000u);
    const __m512i pick = _mm512_loadu_si512(s->pick), turn = _mm512_loadu_si512(s->turn);
    const __m512i few = _mm512_set1_epi32((1 << low) - 1);
    for (int64_t i = 0; i < m; i += 16, codes += 2 * width) {
        __m512i x = T(twice)(
            _mm256_set1_epi32((int)load32(codes)), _mm256_set1_epi32((int)load32(codes + width)));
        x = _mm512_and_si512(_mm512_srlv_epi32(x, places), largest);
        __m512i exponent = _mm512_sub_epi32(top, x), fine = _mm512_setzero_si512();
        __mmask16 out_of_reach = _mm512_cmpeq_epi32_mask(x, largest);
        if (out_of_reach) {
            exponent = _mm512_mask_expand_epi32(exponent, out_of_reach, _mm512_cvtepu8_epi32(T(escapes16)(s)));
            s->escaped += T(ones)(out_of_reach);
        }
        if (low == 16) {
            fine = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(rest + 2 * i)));
        } else if (low) {
            const uint8_t *from = rest + i * low / 8;
            fine = _mm512_shuffle_epi8(T(twice)(T(both)(from), T(both)(from + low)), pick);
            fine = _mm512_and_si512(_mm512_srlv_epi32(fine, turn), few);
            fine = _mm512_sll_epi32(fine, _mm_cvtsi32_si128(16 - low));
        }
        x = _mm512_slli_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(mid + i))), 16);
        x = _mm512_or_si512(_mm512_and_si512(x, frame), _mm512_slli_epi32(exponent, 23));
        _mm512_storeu_si512(out + i, _mm512_or_si512(x, fine));
    }
}

#elif TIER == AVX2

ISA static inline void T(join_some)(
    source_t *s, const uint8_t *codes, const uint8_t *mid, const uint8_t *rest, int64_t m, int low, uint32_t *out) {
    const int width = (int)s->width;
    const __m256i places = _mm256_setr_epi32(0, width, 2 * width, 3 * width, 4 * width, 5 * width, 6 * width, 7 * width);
    const __m256i largest = _mm256_set1_epi32((1 << width) - 1);
    const __m256i top = _mm256_set1_epi32((int)s->top), frame = _mm256_set1_epi32((int)0x807f0000u);
    const __m256i pick = _mm256_loadu_si256((const __m256i *)s->pick);
    const __m256i turn = _mm256_loadu_si256((const __m256i *)s->turn), few = _mm256_set1_epi32((1 << low) - 1);
    for (int64_t i = 0; i < m; i += 8, codes += width) {
        __m256i x = _mm256_set1_epi32((int)load32(codes));
        x = _mm256_and_si256(_mm256_srlv_epi32(x, places), largest);
        __m256i exponent = _mm256_sub_epi32(top, x), fine = _mm256_setzero_si256();
        __m256i far = _mm256_cmpeq_epi32(x, largest);
        int out_of_reach = _mm256_movemask_ps(_mm256_castsi256_ps(far));
        if (out_of_reach) {
            __m256i rank = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)RANK[out_of_reach]));
            __m256i escapes = _mm256_permutevar8x32_epi32(_mm256_cvtepu8_epi32(T(escapes16)(s)), rank);
            exponent = _mm256_blendv_epi8(exponent, escapes, far);
            s->escaped += T(ones)((uint64_t)out_of_reach);
        }
        if (low == 16) {
            fine = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(rest + 2 * i)));
        } else if (low) {
            const __m128i *from = (const __m128i *)(rest + i * low / 8);
            fine = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(from)), pick);
            fine = _mm256_and_si256(_mm256_srlv_epi32(fine, turn), few);
            fine = _mm256_sll_epi32(fine, _mm_cvtsi32_si128(16 - low));
        }
        x = _mm256_slli_epi32(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(mid + i))), 16);
        x = _mm256_or_si256(_mm256_and_si256(x, frame), _mm256_slli_epi32(exponent, 23));
        _mm256_storeu_si256((__m256i *)(out + i), _mm256_or_si256(x, fine));
    }
}

#endif

/* The next block's values, at most BLOCK, into `out`, which has room for PAD more. Returns their number. */
ISA static int64_t T(join_block)(source_t *s, uint32_t *out) {
    int64_t at = s->joined, m = least(s->kept - at, BLOCK);
    s->joined += m;
    if (s->raw) {
        memcpy(out, s->codes + 4 * at, (size_t)m * 4);
        return m;
    }
    int low = (int)s->low;
    const uint8_t *codes = s->codes + at * s->width / 8, *mid = s->mid + at, *rest = s->rest + at * low / 8;
    uint8_t last_codes[BLOCK / 2 + PAD], last_mid[BLOCK + PAD], last_rest[2 * BLOCK + PAD];
    if (s->kept - at < BLOCK + PAD) { /* zeros after the end: no escapes */
        int64_t sizes[3] = {(m * s->width + 7) / 8, m, (m * low + 7) / 8};
        memcpy(last_codes, codes, (size_t)sizes[0]), memset(last_codes + sizes[0], 0, PAD);
        memcpy(last_mid, mid, (size_t)sizes[1]), memset(last_mid + sizes[1], 0, PAD);
        if (low) memcpy(last_rest, rest, (size_t)sizes[2]);
        memset(last_rest + sizes[2], 0, PAD);
        codes = last_codes, mid = last_mid, rest = last_rest;
    }
    if (low == 16) T(join_some)(s, codes, mid, rest, m, 16, out);
    else T(join_some)(s, codes, mid, rest, m, low, out);
    return m;
}

/* The next `need` (at most CHUNK) values at stage + used; no where there are less. */
ISA static int T(fill)(source_t *s, int64_t need) {
    if (s->have - s->used >= need) return 1;
    memmove(s->stage, s->stage + s->used, (size_t)(s->have - s->used) * 4);
    s->have -= s->used, s->used = 0;
    while (s->have < need) {
        int64_t m = T(join_block)(s, s->stage + s->have);
        if (!m) return 0;
        s->have += m;
    }
    return 1;
}

ISA static int T(source_ok)(source_t *s, int64_t n) {
    source_start(s);
    if (!source_fits(s)) return 0;
    if (!s->bitmap) return s->kept == n;
    if (!is_bitmap(s->bitmap, s->bitmap_size, n) || T(count)(s->bitmap, s->bitmap_size) != s->kept) return 0;
    if (s->kept == n) s->bitmap = NULL;
    return 1;
}

ISA static int T(source_done)(const source_t *s) { return s->joined == s->kept && s->escaped == s->escapes_size; }

/* Copies beside the caches where that pays and the machine can: whole lines, in the widest registers. */
ISA static void T(stream_out)(uint8_t *out, const void *from, int64_t size, int large) {
    const uint8_t *in = (const uint8_t *)from;
#if HAVE_SSE2
    if (large) {
        int64_t i = least(-(int64_t)(uintptr_t)out & 63, size);
        memcpy(out, in, (size_t)i);
        for (; i + 64 <= size; i += 64) {
#if TIER == AVX512
            _mm512_stream_si512((void *)(out + i), _mm512_loadu_si512(in + i));
#elif TIER == AVX2
            for (int j = 0; j < 64; j += 32)
                _mm256_stream_si256((__m256i *)(out + i + j), _mm256_loadu_si256((const __m256i *)(in + i + j)));
#else
            for (int j = 0; j < 64; j += 16)
                _mm_stream_si128((__m128i *)(out + i + j), _mm_loadu_si128((const __m128i *)(in + i + j)));
#endif
        }
        memcpy(out + i, in + i, (size_t)(size - i));
        return;
    }
#endif
    (void)large;
    memcpy(out, in, (size_t)size);
}

/* 64 positions from the next values, and zeros. Reads PAD values beyond them. */
ISA static inline void T(put)(uint64_t bits, const uint32_t *from, uint32_t *out) {
#if TIER != PORTABLE /* the permutation of AVX2 is faster than the expansion of AVX-512 where that is microcode */
    for (int j = 0; j < 64; j += 8, bits >>= 8) {
        __m256i rank = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)RANK[bits & 255]));
        __m256i x = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)from), rank);
        _mm256_storeu_si256((__m256i *)(out + j), _mm256_andnot_si256(_mm256_srai_epi32(rank, 31), x));
        from += T(ones)(bits & 255);
    }
#else
    uint32_t next[9];
    next[8] = 0;
    for (int j = 0; j < 64; j += 8, bits >>= 8) {
        const uint8_t *rank = RANK[bits & 255];
        memcpy(next, from, 8 * 4);
        for (int i = 0; i < 8; i++) out[j + i] = next[rank[i] & 15];
        from += T(ones)(bits & 255);
    }
#endif
}

/* The same positions' sums grow by weight * value, and what is held by the weight. */
ISA static inline void T(add)(uint64_t bits, const uint32_t *from, float weight, float *sum, float *held) {
#if TIER == AVX512
    const __m512 factor = _mm512_set1_ps(weight);
    for (int j = 0; j < 64; j += 16, bits >>= 16) {
        __mmask16 which = (__mmask16)bits;
        __m512 x = _mm512_castsi512_ps(_mm512_maskz_expand_epi32(which, _mm512_loadu_si512(from)));
        x = _mm512_maskz_mul_ps(which, factor, x);
        _mm512_storeu_ps(sum + j, _mm512_add_ps(_mm512_loadu_ps(sum + j), x));
        if (held) {
            __m512 before = _mm512_loadu_ps(held + j);
            _mm512_storeu_ps(held + j, _mm512_mask_add_ps(before, which, before, factor));
        }
        from += T(ones)(bits & 0xffff);
    }
#elif TIER == AVX2
    const __m256 factor = _mm256_set1_ps(weight);
    for (int j = 0; j < 64; j += 8, bits >>= 8) {
        __m256i rank = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)RANK[bits & 255]));
        __m256 not_kept = _mm256_castsi256_ps(_mm256_srai_epi32(rank, 31));
        __m256i x = _mm256_permutevar8x32_epi32(_mm256_loadu_si256((const __m256i *)from), rank);
        __m256 product = _mm256_andnot_ps(not_kept, _mm256_mul_ps(factor, _mm256_castsi256_ps(x)));
        _mm256_storeu_ps(sum + j, _mm256_add_ps(_mm256_loadu_ps(sum + j), product));
        if (held)
            _mm256_storeu_ps(held + j, _mm256_add_ps(_mm256_loadu_ps(held + j), _mm256_andnot_ps(not_kept, factor)));
        from += T(ones)(bits & 255);
    }
#else
    for (; bits; bits &= bits - 1) {
        int j = lowest(bits);
        sum[j] += weight * as_float(*from++);
        if (held) held[j] += weight;
    }
#endif
}

/* The same one by one: for few. */
ISA static inline void T(add_few)(uint64_t bits, const uint32_t *from, float weight, float *sum, float *held) {
    for (; bits; bits &= bits - 1) {
        int j = lowest(bits);
        sum[j] += weight * as_float(*from++);
        if (held) held[j] += weight;
    }
}

/* All 64 kept. */
ISA static inline void T(add_all)(const uint32_t *from, float weight, float *sum, float *held) {
    for (int j = 0; j < 64; j++) sum[j] += weight * as_float(from[j]);
    if (held)
        for (int j = 0; j < 64; j++) held[j] += weight;
}

ISA static inline void T(put_chunk)(source_t *s, const uint64_t *mask, int64_t need, int64_t m, uint32_t *out) {
    const uint32_t *from = s->stage + s->used;
    s->used += need;
    if (need < (TIER == PORTABLE ? FEW : FEW / 16)) {
        memset(out, 0, (size_t)m * 4);
        for (int64_t w = 0; 64 * w < m; w++)
            for (uint64_t bits = mask[w]; bits; bits &= bits - 1) out[64 * w + lowest(bits)] = *from++;
        return;
    }
    for (int64_t w = 0; 64 * w < m; w++) {
        T(put)(mask[w], from, out + 64 * w);
        from += T(ones)(mask[w]);
    }
}

ISA static int T(decode)(source_t *s, int64_t n, uint8_t *out) {
    ALIGNED uint32_t chunk[CHUNK];
    uint64_t mask[WORDS];
    int large = n >= LARGE / 4;
    if (!T(source_ok)(s, n)) return 0;
    for (int64_t at = 0, m; at < n && !s->bitmap; at += m) {
        m = T(join_block)(s, s->stage);
        T(stream_out)(out + 4 * at, s->stage, m * 4, large);
    }
    for (int64_t at = 0; at < n && s->bitmap; at += CHUNK) {
        int64_t m = load_mask(s->bitmap, n, at, mask);
        int64_t need = T(mask_ones)(mask);
        if (!T(fill)(s, need)) return 0;
        T(put_chunk)(s, mask, need, m, chunk);
        T(stream_out)(out + 4 * at, chunk, m * 4, large);
    }
    stream_end(large);
    return T(source_done)(s);
}

ISA static inline void T(add_chunk)(source_t *s, const uint64_t *mask, int64_t need, int64_t m, float *sum, float *held) {
    const uint32_t *from = s->stage + s->used;
    for (int64_t w = 0; 64 * w < m; w++) {
        float *also = held ? held + 64 * w : NULL;
        if (!~mask[w]) T(add_all)(from, s->weight, sum + 64 * w, also);
        else if (need < FEW / 4) T(add_few)(mask[w], from, s->weight, sum + 64 * w, also);
        else T(add)(mask[w], from, s->weight, sum + 64 * w, also);
        from += T(ones)(mask[w]);
    }
    s->used += need;
}

ISA static int64_t T(accumulate)(source_t **clients, int64_t number, int64_t n, uint8_t *total, uint8_t *held) {
    ALIGNED float sum[CHUNK], weights[CHUNK];
    uint64_t mask[WORDS];
    int64_t wrong = -1;
    int large = n >= LARGE / 4;
    for (int64_t i = 0; i < number && wrong < 0; i++)
        if (!T(source_ok)(clients[i], n)) wrong = i;
    if (wrong >= 0) number = wrong; /* one of those before it may still turn out to be wrong */
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t m = least(n - at, CHUNK);
        memset(sum, 0, sizeof(sum));
        if (held) memset(weights, 0, sizeof(weights));
        for (int64_t i = 0; i < number; i++) {
            source_t *s = clients[i];
            load_mask(s->bitmap, n, at, mask);
            int64_t need = T(mask_ones)(mask);
            if (!need) continue;
            if (!T(fill)(s, need)) return i;
            if (held) T(add_chunk)(s, mask, need, m, sum, weights);
            else T(add_chunk)(s, mask, need, m, sum, NULL);
        }
        T(stream_out)(total + 4 * at, sum, m * 4, large);
        if (held) T(stream_out)(held + 4 * at, weights, m * 4, large);
    }
    stream_end(large);
    for (int64_t i = 0; i < number; i++)
        if (!T(source_done)(clients[i])) return i;
    return wrong;
}

/* Differences in the order of floats */

ISA static inline uint32_t T(ordered)(uint32_t x) { return x ^ ((uint32_t)((int32_t)x >> 31) | 0x80000000u); }

ISA static void T(zigzag)(const uint8_t *values, const uint8_t *reference, int64_t k, uint8_t *planes) {
    uint32_t folded[256];
    for (int64_t at = 0; at < k; at += 256) {
        int64_t m = least(k - at, 256);
        for (int64_t i = 0; i < m; i++) {
            uint32_t a = load32(values + 4 * (at + i)), b = load32(reference + 4 * (at + i));
            uint32_t distance = T(ordered)(a) - T(ordered)(b);
            folded[i] = distance << 1 ^ (uint32_t)((int32_t)distance >> 31);
        }
        for (int plane = 0; plane < 4; plane++) {
            uint8_t *out = planes + plane * k + at;
            for (int64_t i = 0; i < m; i++) out[i] = (uint8_t)(folded[i] >> (8 * plane));
        }
    }
}

ISA static void T(unzigzag)(const uint8_t *planes, const uint8_t *reference, int64_t k, uint8_t *values) {
    for (int64_t i = 0; i < k; i++) {
        uint32_t folded = planes[i] | (uint32_t)planes[k + i] << 8 | (uint32_t)planes[2 * k + i] << 16 |
                          (uint32_t)planes[3 * k + i] << 24;
        uint32_t distance = folded >> 1 ^ (0u - (folded & 1));
        uint32_t x = ~(T(ordered)(load32(reference + 4 * i)) + distance);
        x = ~x ^ ((uint32_t)((int32_t)x >> 31) | 0x80000000u);
        memcpy(values + 4 * i, &x, 4);
    }
}

/* Few bits */

ISA static inline void T(quantise_group)(
    const uint8_t *values, const uint8_t *uniform, int64_t m, int quanta, uint8_t *scales, int8_t *q) {
    int32_t largest = 0;
    for (int64_t i = 0; i < m; i++) {
        int32_t x = (int32_t)(load32(values + 4 * i) & 0x7fffffff);
        largest = x > largest ? x : largest;
    }
    uint32_t bits = (as_bits(as_float((uint32_t)largest) / (float)quanta) + 0xffff) >> 16;
    uint16_t half = (uint16_t)bits;
    memcpy(scales, &half, 2);
    if (!half) {
        memset(q, 0, (size_t)m);
        return;
    }
    float scale = as_float(bits << 16), most = (float)quanta + 1;
    for (int64_t i = 0; i < m; i++) {
        float x = as_float(load32(values + 4 * i)) / scale;
        x = x < most ? x : most; /* so that no NaN becomes an integer */
        x = x > -most ? x : -most;
        int32_t floor = (int32_t)x;
        floor -= (float)floor > x;
        float chance = (float)(int32_t)(load32(uniform + 4 * i) >> 8) * 0x1p-24f;
        floor += chance < x - (float)floor;
        floor = floor < quanta ? floor : quanta;
        q[i] = (int8_t)(floor > -quanta ? floor : -quanta);
    }
}

ISA static void T(quantise)(
    const uint8_t *values, const uint8_t *uniform, int64_t k, int bits, uint8_t *scales, uint8_t *codes) {
    int8_t q[GROUP + 1];
    for (int64_t at = 0; at < k; at += GROUP, scales += 2) {
        int64_t m = least(k - at, GROUP);
        T(quantise_group)(values + 4 * at, uniform + 4 * at, m, bits == 8 ? 127 : 7, scales, q);
        if (bits == 8) {
            memcpy(codes + at, q, (size_t)m);
            continue;
        }
        q[m] = -8; /* the padding of an odd number */
        for (int64_t i = 0; i < (m + 1) / 2; i++)
            codes[at / 2 + i] = (uint8_t)((q[2 * i] + 8) | (q[2 * i + 1] + 8) << 4);
    }
}

ISA static int T(dequantise)(const uint8_t *scales, const uint8_t *codes, int64_t k, int bits, uint8_t *out) {
    int8_t q[GROUP];
    float x[GROUP];
    int wrong = bits == 4 && k % 2 && codes[k / 2] >> 4;
    for (int64_t at = 0; at < k; at += GROUP, scales += 2) {
        int64_t m = least(k - at, GROUP);
        float scale = as_float((uint32_t)load16(scales) << 16);
        wrong |= load16(scales) >= 0x7f80;
        if (bits == 8) memcpy(q, codes + at, (size_t)m);
        else
            for (int64_t i = 0; i < m; i++) q[i] = (int8_t)((codes[(at + i) / 2] >> (i % 2 * 4) & 15) - 8);
        int8_t least_q = 0;
        for (int64_t i = 0; i < m; i++) {
            least_q = q[i] < least_q ? q[i] : least_q;
            x[i] = (float)q[i] * scale;
        }
        wrong |= least_q == (bits == 8 ? -128 : -8);
        memcpy(out + 4 * at, x, (size_t)m * 4);
    }
    return !wrong;
}

#endif
