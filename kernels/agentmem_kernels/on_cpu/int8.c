/* Few rows times weights of one byte each, sums in fp32.
 *
 * What decides the time is how fast weights come from memory: they are widened in registers, once for up to six rows.
 * A row's sums are added up in the same order whatever rows are beside it.
 */
#include "common.h"

enum { SHARE = 64, STEP = 32, CHAINS = 4, AHEAD = 4096 };
/* outputs of a task; weights widened at once; sums that a row has; bytes asked for early */

struct Int8 {
    const bf16 *x;       /* (M, K), contiguous */
    const int8_t *steps; /* (N, K), contiguous */
    const bf16 *scales;  /* (N) */
    bf16 *out;           /* (M, N), contiguous */
    long M, N, K;
    int threads;
    Parallel parallel;
};

INLINE float scale_of(const struct Int8 *a, long n) {
    uint32_t bits = (uint32_t)a->scales[n] << 16;
    float scale;
    memcpy(&scale, &bits, 4);
    return scale;
}

INLINE __m512 widened(__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)); }

/* What one output of R rows gets from so many of 32 weights; steps up to 127 are exact in bfloat16. */
INLINE void add(const bf16 *x, long K, int R, const int8_t *steps, long count, __m512 sums[ROWS][CHAINS], int chain) {
    const __m128i *at = (const __m128i *)steps;
    __m512i w = (__m512i)_mm512_cvtne2ps_pbh(widened(_mm_loadu_si128(at + 1)), widened(_mm_loadu_si128(at)));
    __mmask32 lanes = count >= STEP ? 0xFFFFFFFFu : (1u << count) - 1;
    UNROLLED
    for (int r = 0; r < R; r++)
        sums[r][chain] = dot(sums[r][chain], _mm512_maskz_loadu_epi16(lanes, x + r * K), w);
}

/* One output of R rows. */
INLINE void output(const struct Int8 *a, long row, int R, long n) {
    const int8_t *steps = a->steps + n * a->K;
    const bf16 *x = a->x + row * a->K;
    __m512 sums[ROWS][CHAINS];
    UNROLLED
    for (int r = 0; r < R; r++)
        UNROLLED
        for (int c = 0; c < CHAINS; c++)
            sums[r][c] = _mm512_setzero_ps();
    long k = 0;
    for (; k + CHAINS * STEP <= a->K; k += CHAINS * STEP) {
        _mm_prefetch((const char *)steps + k + AHEAD, _MM_HINT_T0);
        _mm_prefetch((const char *)steps + k + AHEAD + 64, _MM_HINT_T0);
        UNROLLED
        for (int c = 0; c < CHAINS; c++)
            add(x + k + c * STEP, a->K, R, steps + k + c * STEP, STEP, sums, c);
    }
    for (; k + STEP <= a->K; k += STEP)
        add(x + k, a->K, R, steps + k, STEP, sums, 0);
    if (k < a->K) {
        int8_t last[STEP] = {0};
        memcpy(last, steps + k, (size_t)(a->K - k));
        add(x + k, a->K, R, last, a->K - k, sums, 0);
    }
    UNROLLED
    for (int r = 0; r < R; r++) {
        __m512 sum = _mm512_add_ps(_mm512_add_ps(sums[r][0], sums[r][1]), _mm512_add_ps(sums[r][2], sums[r][3]));
        __m128bh narrow = _mm_cvtneps_pbh(_mm_set_ss(_mm512_reduce_add_ps(sum) * scale_of(a, n)));
        memcpy(a->out + (row + r) * a->N + n, &narrow, 2);
    }
}

INLINE void outputs(const struct Int8 *a, long row, int R, long from, long to) {
    for (; from < to; from++)
        output(a, row, R, from);
}

static void task(const void *of, long number) {
    const struct Int8 *a = of;
    long from = number * SHARE, to = from + SHARE < a->N ? from + SHARE : a->N;
    for (long row = 0, R; row < a->M; row += R) {
        R = next_group((int)(a->M - row));
        switch (R) { /* so that sums stay in registers */
        case 1: outputs(a, row, 1, from, to); break;
        case 2: outputs(a, row, 2, from, to); break;
        case 3: outputs(a, row, 3, from, to); break;
        case 4: outputs(a, row, 4, from, to); break;
        case 5: outputs(a, row, 5, from, to); break;
        default: outputs(a, row, 6, from, to); break;
        }
    }
}

void agentmem_int8(const struct Int8 *a) {
    share_out(task, a, (a->N + SHARE - 1) / SHARE, a->parallel, a->threads);
}
