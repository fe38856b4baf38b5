/* What all kernels share: products of bfloat16 with sums in fp32, exponentials, and work shared among threads.
 *
 * For CPUs with AVX-512 BF16. A bfloat16 pair is one 32-bit word, and one instruction adds both products of sixteen
 * pairs to sixteen sums; so keys are laid out as pairs, sixteen keys beside each other ("packed").
 * Knows no Python and no torch; the threads are torch's, whose runtime's own entry is handed in.
 */
#ifndef AGENTMEM_COMMON_H
#define AGENTMEM_COMMON_H

#include <immintrin.h>
#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
#define LOG2E 1.44269504f
#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLLED _Pragma("unroll")
#else
#define UNROLLED _Pragma("GCC unroll 16") /* so that small arrays of registers are registers */
#endif
enum {
    LANES = 16,          /* of a register of fp32 */
    KEYS = 64,           /* keys in a packed block */
    ROWS = 6,            /* query rows whose sums for a block fit the registers */
    MAX_DIM = 256,       /* of a vector */
    MAX_PAIRS = MAX_DIM / 2
};

/* The entry of GNU's OpenMP runtime: runs ``work(data)`` on so many threads. */
typedef void (*Parallel)(void (*work)(void *), void *data, unsigned threads, unsigned flags);

struct Job {
    void (*task)(const void *of, long number);
    const void *of;
    long count;
    atomic_long next;
};

INLINE void job_work(void *data) {
    struct Job *job = data;
    for (long n = atomic_fetch_add(&job->next, 1); n < job->count; n = atomic_fetch_add(&job->next, 1))
        job->task(job->of, n);
}

static void job_thread(void *data) { job_work(data); }

/* Tasks 0 to count - 1, each done once, by up to so many threads. */
static void share_out(void (*task)(const void *, long), const void *of, long count, Parallel parallel, int threads) {
    struct Job job = {task, of, count, 0};
    if (parallel && threads > 1 && count > 1)
        parallel(job_thread, &job, (unsigned)(threads < count ? threads : count), 0);
    else
        job_work(&job);
}

INLINE __m512 dot(__m512 sum, __m512i a, __m512i b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }

INLINE __mmask16 first_lanes(long count) {
    return count >= LANES ? 0xFFFF : count <= 0 ? 0 : (__mmask16)((1u << count) - 1);
}

/* 2 to the x, to 2.6e-6 of itself; 0 for -inf and far below, NaN for NaN. The best polynomial of degree 4 on [-0.5, 0.5]. */
INLINE __m512 exp2_16(__m512 x) {
    __m512 t = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);
    __m512 whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 r = _mm512_sub_ps(t, whole);
    __m512 p = _mm512_set1_ps(9.57010155e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.59178622e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40247449e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93121815e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.99999261e-1f));
    return _mm512_scalef_ps(p, whole);
}

/* Sixteen rows of sixteen words, turned over. */
INLINE void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Sixteen vectors from ``keys``, ``stride`` elements apart, as packed[pair * KEYS + key]; missing ones are zero. */
INLINE void pack16(const bf16 *keys, long stride, long present, int pairs, uint32_t *packed) {
    for (int start = 0; start < pairs; start += LANES) {
        __mmask16 lanes = first_lanes(pairs - start);
        __m512i r[16];
        for (int k = 0; k < LANES; k++)
            r[k] = k < present ? _mm512_maskz_loadu_epi32(lanes, keys + k * stride + 2 * start) : _mm512_setzero_si512();
        transpose16(r);
        int some = pairs - start < LANES ? pairs - start : LANES;
        for (int i = 0; i < some; i++)
            _mm512_storeu_si512(packed + (long)(start + i) * KEYS, r[i]);
    }
}

/* ``present`` (1 to KEYS) keys, one after another, packed; missing ones are zero. */
INLINE void pack(const bf16 *keys, long stride, long present, int pairs, uint32_t *packed) {
    for (int k = 0; k < KEYS; k += LANES)
        pack16(keys + k * stride, stride, present - k, pairs, packed + k);
}

/* R rows of queries with a block of packed keys: sums[r][j] are the products with keys 16 j to 16 j + 15. */
INLINE void products(const bf16 *const *rows, int R, int pairs, const uint32_t *packed, __m512 sums[ROWS][4]) {
    for (int r = 0; r < R; r++)
        for (int j = 0; j < 4; j++)
            sums[r][j] = _mm512_setzero_ps();
    for (int i = 0; i < pairs; i++) {
        const uint32_t *at = packed + (long)i * KEYS;
        __m512i k0 = _mm512_loadu_si512(at), k1 = _mm512_loadu_si512(at + 16);
        __m512i k2 = _mm512_loadu_si512(at + 32), k3 = _mm512_loadu_si512(at + 48);
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, rows[r] + 2 * i, 4);
            __m512i q = _mm512_set1_epi32(pair);
            sums[r][0] = dot(sums[r][0], q, k0);
            sums[r][1] = dot(sums[r][1], q, k1);
            sums[r][2] = dot(sums[r][2], q, k2);
            sums[r][3] = dot(sums[r][3], q, k3);
        }
    }
}

/* How many rows the next group takes, so that groups are alike: 7 rows are 4 and 3. */
INLINE int next_group(int left) {
    int groups = (left + ROWS - 1) / ROWS;
    return (left + groups - 1) / groups;
}

#endif
