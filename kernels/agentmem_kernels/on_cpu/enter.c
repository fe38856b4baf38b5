/* A few new tokens enter a working set: rotated queries and keys, values beside them, and raw copies of all.
 *
 * One call instead of some twenty operations on a few thousand numbers each. The same bits as torch's operations: each
 * product and sum is rounded as there, so nothing may be contracted (-ffp-contract=off).
 */
#include "common.h"

struct Enter {
    const bf16 *q, *k, *v;           /* raw; heads and rows have strides, the last dimension is contiguous */
    const void *C, *S;               /* rows of the tokens' positions: (T, D) and (T, width), or NULL */
    const int64_t *partner;          /* (D) */
    bf16 *q_out;                     /* (Hq, T, D) */
    bf16 *keys_out, *values_out;     /* (Hkv, ..., D): at the first token's place */
    bf16 *q_kept, *k_kept, *v_kept;  /* likewise, or NULL */
    long Hq, Hkv, T, D, width;
    long q_head, q_row, k_head, k_row, v_head, v_row;
    long out_head, q_kept_head, kept_head;
    int in_fp32;
};

INLINE float widened(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}

INLINE bf16 narrowed(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return x != x ? 0x7FC0 : (bf16)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

INLINE float table(const void *rows, long at, int in_fp32) {
    return in_fp32 ? ((const float *)rows)[at] : widened(((const bf16 *)rows)[at]);
}

static void rotate(const struct Enter *e, const bf16 *x, long t, bf16 *out) {
    if (!e->C) {
        memcpy(out, x, (size_t)e->D * sizeof *x);
        return;
    }
    for (long d = 0; d < e->D; d++) {
        float own = widened(x[d]) * table(e->C, t * e->D + d, e->in_fp32);
        if (d < e->width) {
            float other = widened(x[e->partner[d]]) * table(e->S, t * e->width + d, e->in_fp32);
            own = e->in_fp32 ? own + other : widened(narrowed(own)) + widened(narrowed(other));
        }
        out[d] = narrowed(own);
    }
}

void agentmem_enter(const struct Enter *e) {
    size_t row = (size_t)e->D * sizeof(bf16);
    for (long h = 0; h < e->Hq; h++)
        for (long t = 0; t < e->T; t++) {
            const bf16 *q = e->q + h * e->q_head + t * e->q_row;
            rotate(e, q, t, e->q_out + (h * e->T + t) * e->D);
            if (e->q_kept)
                memcpy(e->q_kept + h * e->q_kept_head + t * e->D, q, row);
        }
    for (long h = 0; h < e->Hkv; h++)
        for (long t = 0; t < e->T; t++) {
            const bf16 *k = e->k + h * e->k_head + t * e->k_row, *v = e->v + h * e->v_head + t * e->v_row;
            rotate(e, k, t, e->keys_out + h * e->out_head + t * e->D);
            memcpy(e->values_out + h * e->out_head + t * e->D, v, row);
            if (e->k_kept) {
                memcpy(e->k_kept + h * e->kept_head + t * e->D, k, row);
                memcpy(e->v_kept + h * e->kept_head + t * e->D, v, row);
            }
        }
}
