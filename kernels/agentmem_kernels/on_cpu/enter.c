/* Rotation of queries and keys; and a few new tokens that enter a working set, with values and raw copies of all.
 *
 * One call instead of some twenty operations on a few thousand numbers each. The same bits as torch's operations: each
 * product and sum is rounded as there, so nothing may be contracted (-ffp-contract=off).
 */
#include "common.h"

struct Rotation {
    const void *C, *S;       /* rows of the positions: (T, D) and (T, width), bfloat16 or fp32; C: NULL for none */
    const int64_t *partner;  /* (D), of which the first ``width`` count */
    long D, width;
    int in_fp32;
    uint8_t runs[MAX_DIM / LANES];
};

struct Enter {
    struct Rotation rotation;
    const bf16 *q, *k, *v;           /* raw; heads and rows have strides, the last dimension is contiguous */
    bf16 *q_out;                     /* (Hq, T, D) */
    bf16 *keys_out, *values_out;     /* (Hkv, ..., D): at the first token's place */
    bf16 *q_kept, *k_kept, *v_kept;  /* likewise, or NULL */
    long Hq, Hkv, T;
    long q_head, q_row, k_head, k_row, v_head, v_row;
    long out_head, q_kept_head, kept_head;
};

INLINE __m512 wide(const bf16 *from, __mmask16 lanes) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from)), 16));
}

/* Rounded to the nearest bfloat16, ties to even, the smallest numbers too (the instruction for it takes them for 0). */
INLINE __m512i rounded(__m512 x) {
    __m512i bits = _mm512_castps_si512(x), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i near = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(_mm512_slli_epi32(_mm512_srli_epi32(near, 16), 16), nan, _mm512_set1_epi32(0x7FC00000));
}

INLINE __m512 table(const void *rows, long at, __mmask16 lanes, int in_fp32) {
    return in_fp32 ? _mm512_maskz_loadu_ps(lanes, (const float *)rows + at) : wide((const bf16 *)rows + at, lanes);
}

/* A row (D) turned to the t-th of the table's positions; ``out`` may be the row itself. */
INLINE void rotate(const struct Rotation *r, const bf16 *row, long t, bf16 *out) {
    bf16 x[MAX_DIM];
    memcpy(x, row, (size_t)r->D * sizeof *x);
    for (long d = 0; d < r->D; d += LANES) {
        __mmask16 lanes = first_lanes(r->D - d), turned = first_lanes(r->width - d);
        __m512 own = _mm512_mul_ps(wide(x + d, lanes), table(r->C, t * r->D + d, lanes, r->in_fp32));
        if (turned) {
            bf16 beside[LANES] = {0};
            const bf16 *partners = beside;
            if (r->runs[d / LANES])
                partners = x + r->partner[d];
            else
                for (int i = 0; i < LANES && d + i < r->width; i++)
                    beside[i] = x[r->partner[d + i]];
            __m512 other = _mm512_mul_ps(wide(partners, turned), table(r->S, t * r->width + d, turned, r->in_fp32));
            if (!r->in_fp32) {
                own = _mm512_castsi512_ps(rounded(own));
                other = _mm512_castsi512_ps(rounded(other));
            }
            own = _mm512_mask_add_ps(own, turned, own, other);
        }
        __m256i narrow = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(own), 16));
        _mm256_mask_storeu_epi16(out + d, lanes, narrow);
    }
}

/* Which sixteens of dimensions have their partners beside each other, too. */
static void find_runs(struct Rotation *r) {
    for (long d = 0; d < r->width; d += LANES) {
        r->runs[d / LANES] = 1;
        for (long i = 1; i < LANES && d + i < r->width; i++)
            r->runs[d / LANES] &= r->partner[d + i] == r->partner[d] + i;
    }
}

INLINE void turn(const struct Rotation *r, const bf16 *x, long t, bf16 *out) {
    if (r->C)
        rotate(r, x, t, out);
    else
        memcpy(out, x, (size_t)r->D * sizeof *x);
}

struct Turn {
    struct Rotation rotation;
    const bf16 *x;
    bf16 *out;
    long heads, T, x_head, x_row, out_head, out_row;
    int threads;
    Parallel parallel;
};

enum { TURNED = 128 }; /* rows of a task */

static void turn_some(const void *of, long number) {
    const struct Turn *a = of;
    long parts = (a->T + TURNED - 1) / TURNED, h = number / parts, from = number % parts * TURNED;
    for (long t = from; t < a->T && t < from + TURNED; t++)
        turn(&a->rotation, a->x + h * a->x_head + t * a->x_row, t, a->out + h * a->out_head + t * a->out_row);
}

/* Many rows at consecutive positions; ``out`` is x itself, or does not overlap it. */
void agentmem_rotate(struct Turn *a) {
    find_runs(&a->rotation);
    share_out(turn_some, a, a->heads * ((a->T + TURNED - 1) / TURNED), a->parallel, a->threads);
}

void agentmem_enter(struct Enter *e) {
    long D = e->rotation.D;
    size_t row = (size_t)D * sizeof(bf16);
    find_runs(&e->rotation);
    for (long h = 0; h < e->Hq; h++)
        for (long t = 0; t < e->T; t++) {
            const bf16 *q = e->q + h * e->q_head + t * e->q_row;
            turn(&e->rotation, q, t, e->q_out + (h * e->T + t) * D);
            if (e->q_kept)
                memcpy(e->q_kept + h * e->q_kept_head + t * D, q, row);
        }
    for (long h = 0; h < e->Hkv; h++)
        for (long t = 0; t < e->T; t++) {
            const bf16 *k = e->k + h * e->k_head + t * e->k_row, *v = e->v + h * e->v_head + t * e->v_row;
            turn(&e->rotation, k, t, e->keys_out + h * e->out_head + t * D);
            memcpy(e->values_out + h * e->out_head + t * D, v, row);
            if (e->k_kept) {
                memcpy(e->k_kept + h * e->kept_head + t * D, k, row);
                memcpy(e->v_kept + h * e->kept_head + t * D, v, row);
            }
        }
}
