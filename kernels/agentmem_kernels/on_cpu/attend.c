/* Attention of bfloat16 queries to keys and values, in one pass over the keys, sums in fp32.
 *
 * The online softmax of FlashAttention (arXiv 2205.14135). A block of 64 keys is packed once for up to 96 rows; a group
 * of up to six rows keeps its logits in registers from the product to the weights, which are rounded to bfloat16 for the
 * product with the values, as torch's own fused attention does. A row's result depends neither on the rows beside
 * it nor on the number of threads.
 */
#include "common.h"

enum { TILE = 96, AHEAD = 4 };
#define HEADROOM 8.0f /* in powers of 2: so much a logit may exceed its row's level before that is raised */
enum { OPEN, MIXED, HIDDEN }; /* what a mask leaves of a block of keys for one row */

struct Attend {
    const bf16 *q, *keys, *values, *mask; /* mask: NULL for none */
    bf16 *out;                            /* (B, Hq, T, D), contiguous */
    uint8_t *sight;                       /* (T, blocks), or NULL where masks differ among heads */
    long B, Hq, Hkv, T, S, D;
    long q_batch, q_head, q_row;          /* strides in elements; the last dimension is contiguous everywhere */
    long k_batch, k_head, k_row;
    long v_batch, v_head, v_row;
    long m_batch, m_head, m_row;
    float scaling;
    int threads;
    Parallel parallel;
};

struct Tile {
    float out[TILE * MAX_DIM];
    float total[TILE][LANES]; /* of weights: each lane's part */
    float level[TILE];        /* what exponents are taken relative to: a logit near the highest */
    const bf16 *q[TILE], *mask[TILE];
    const uint8_t *sight[TILE];
    uint32_t keys[MAX_PAIRS * KEYS];
    uint32_t values[KEYS / 2 * MAX_DIM];
    bf16 weights[ROWS][KEYS];
} __attribute__((aligned(64)));

/* Values of ``present`` keys, two beside each other: packed[key / 2 * width + dim]. */
INLINE void pack_values(const bf16 *values, long stride, long present, int D, int width, uint32_t *packed) {
    for (int k = 0; k < KEYS; k += 2)
        for (int d = 0; d < D; d += LANES) {
            __mmask16 lanes = first_lanes(D - d);
            __mmask16 even = k < present ? lanes : 0, odd = k + 1 < present ? lanes : 0;
            __m512i a = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(even, values + k * stride + d));
            __m512i b = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(odd, values + (k + 1) * stride + d));
            _mm512_storeu_si512(packed + (long)(k / 2) * width + d, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
        }
}

/* Rows' weights times so many sixteens of the packed values' dimensions, onto what was found before, scaled. */
INLINE void add_part(struct Tile *tile, int first, int R, int parts, const float *scale, int width, int d, int steps) {
    __m512 sums[ROWS][4];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < parts; j++)
            sums[r][j] = _mm512_mul_ps(_mm512_loadu_ps(tile->out + (long)(first + r) * width + d + 16 * j), _mm512_set1_ps(scale[r]));
    for (int i = 0; i < steps; i++) {
        const uint32_t *at = tile->values + (long)i * width + d;
        __m512i v[4];
        for (int j = 0; j < parts; j++)
            v[j] = _mm512_loadu_si512(at + 16 * j);
        for (int r = 0; r < R; r++) {
            int32_t pair;
            memcpy(&pair, tile->weights[r] + 2 * i, 4);
            __m512i w = _mm512_set1_epi32(pair);
            for (int j = 0; j < parts; j++)
                sums[r][j] = dot(sums[r][j], w, v[j]);
        }
    }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < parts; j++)
            _mm512_storeu_ps(tile->out + (long)(first + r) * width + d + 16 * j, sums[r][j]);
}

INLINE void add_values(struct Tile *tile, int first, int R, const float *scale, int width, int steps) {
    int d = 0;
    for (; d + 4 * LANES <= width; d += 4 * LANES)
        add_part(tile, first, R, 4, scale, width, d, steps);
    for (; d < width; d += LANES)
        add_part(tile, first, R, 1, scale, width, d, steps);
}

/* Keep a row's level within HEADROOM of its highest logit; returns what was found before must be scaled by. */
INLINE float lift(struct Tile *tile, int row, __m512 top) {
    float before = tile->level[row];
    __mmask16 above = _mm512_cmp_ps_mask(top, _mm512_set1_ps(before + HEADROOM), _CMP_GT_OQ);
    if (__builtin_expect(above == 0, 1))
        return 1.0f;
    tile->level[row] = _mm512_reduce_max_ps(top);
    return _mm512_cvtss_f32(exp2_16(_mm512_set1_ps(before - tile->level[row])));
}

/* A group of R rows meets a block of keys. */
INLINE void group_block(const struct Attend *a, struct Tile *tile, int first, int R, long start, int width, int open) {
    long present = a->S - start < KEYS ? a->S - start : KEYS;
    __m512 sums[ROWS][4];
    float scale[ROWS];
    products(tile->q + first, R, (int)a->D / 2, tile->keys, sums);
    __m512 scaling = _mm512_set1_ps(a->scaling * LOG2E), nothing = _mm512_set1_ps(-INFINITY);
    __m512i ones = _mm512_set1_epi16(0x3F80); /* rounded weights are added up, so that roundings cancel in the quotient */
    for (int r = 0; r < R; r++) {
        __m512 *x = sums[r];
        for (int j = 0; j < 4; j++) {
            __mmask16 lanes = first_lanes(present - 16 * j);
            x[j] = _mm512_mul_ps(x[j], scaling);
            if (!open) {
                __m256i bias = _mm256_maskz_loadu_epi16(lanes, tile->mask[first + r] + start + 16 * j);
                __m512 wide = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bias), 16));
                x[j] = _mm512_fmadd_ps(wide, _mm512_set1_ps(LOG2E), x[j]);
            }
            x[j] = _mm512_mask_mov_ps(nothing, lanes, x[j]);
        }
        __m512 top = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
        scale[r] = lift(tile, first + r, top);
        float level = tile->level[first + r];
        __m512 zero = _mm512_set1_ps(level == -INFINITY ? 0.0f : level); /* all hidden so far: weights of 0 */
        for (int j = 0; j < 4; j++)
            x[j] = exp2_16(_mm512_sub_ps(x[j], zero));
        __m512i low = (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]), high = (__m512i)_mm512_cvtne2ps_pbh(x[3], x[2]);
        _mm512_store_si512(tile->weights[r], low);
        _mm512_store_si512(tile->weights[r] + 32, high);
        __m512 before = _mm512_mul_ps(_mm512_load_ps(tile->total[first + r]), _mm512_set1_ps(scale[r]));
        _mm512_store_ps(tile->total[first + r], dot(dot(before, low, ones), high, ones));
    }
    add_values(tile, first, R, scale, width, (int)(present + 1) / 2);
}

static void __attribute__((noinline)) group(const struct Attend *a, struct Tile *t, int first, int R, long start, int width, int open) {
    switch (R) { /* so that sums stay in registers */
    case 1: group_block(a, t, first, 1, start, width, open); break;
    case 2: group_block(a, t, first, 2, start, width, open); break;
    case 3: group_block(a, t, first, 3, start, width, open); break;
    case 4: group_block(a, t, first, 4, start, width, open); break;
    case 5: group_block(a, t, first, 5, start, width, open); break;
    default: group_block(a, t, first, 6, start, width, open); break;
    }
}

static long blocks_of(const struct Attend *a) { return (a->S + KEYS - 1) / KEYS; }

/* What the mask leaves of the block for all rows of the group together. */
INLINE int seen(const struct Tile *tile, int first, int R, long block) {
    if (!tile->mask[first])
        return OPEN;
    if (!tile->sight[first])
        return MIXED;
    int all = tile->sight[first][block];
    for (int r = 1; r < R; r++)
        all = tile->sight[first + r][block] == all ? all : MIXED;
    return all;
}

static void write_rows(const struct Attend *a, const struct Tile *tile, bf16 *out, int rows, int width) {
    for (int r = 0; r < rows; r++) {
        float total = _mm512_reduce_add_ps(_mm512_load_ps(tile->total[r]));
        __m512 share = _mm512_set1_ps(total == 0.0f ? NAN : 1.0f / total);
        for (int d = 0; d < a->D; d += LANES) {
            __m512 x = _mm512_mul_ps(_mm512_loadu_ps(tile->out + (long)r * width + d), share);
            _mm256_mask_storeu_epi16(out + (long)r * a->D + d, first_lanes(a->D - d), (__m256i)_mm512_cvtneps_pbh(x));
        }
    }
}

/* Rows of a later block of keys or values on their way from memory, while this one is met. */
INLINE void prefetch(const bf16 *from, long stride, long start, long end, long D) {
    for (long k = start; k < end && k < start + KEYS; k++)
        for (long d = 0; d < D; d += 32)
            _mm_prefetch((const char *)(from + k * stride + d), _MM_HINT_T1);
}

static void attend_tile(const void *of, long number) {
    const struct Attend *a = of;
    struct Tile tile;
    long G = a->Hq / a->Hkv, per_head = (G * a->T + TILE - 1) / TILE;
    long b = number / (a->Hkv * per_head), h = number / per_head % a->Hkv, start = number % per_head * TILE;
    int rows = (int)(G * a->T - start < TILE ? G * a->T - start : TILE);
    int width = (int)(a->D + LANES - 1) / LANES * LANES;
    const bf16 *keys = a->keys + b * a->k_batch + h * a->k_head, *values = a->values + b * a->v_batch + h * a->v_head;
    for (int r = 0; r < rows; r++) {
        long head = h * G + (start + r) / a->T, t = (start + r) % a->T;
        tile.q[r] = a->q + b * a->q_batch + head * a->q_head + t * a->q_row;
        tile.mask[r] = a->mask ? a->mask + b * a->m_batch + head * a->m_head + t * a->m_row : 0;
        tile.sight[r] = a->sight ? a->sight + t * blocks_of(a) : 0;
        tile.level[r] = -INFINITY;
        _mm512_store_ps(tile.total[r], _mm512_setzero_ps());
    }
    memset(tile.out, 0, sizeof(float) * (size_t)rows * (size_t)width);
    for (long block = 0; block < blocks_of(a); block++) {
        long at = block * KEYS, present = a->S - at < KEYS ? a->S - at : KEYS;
        int packed = 0;
        for (int first = 0, R; first < rows; first += R) {
            R = next_group(rows - first);
            int sight = seen(&tile, first, R, block);
            if (sight == HIDDEN)
                continue;
            if (!packed) {
                prefetch(keys, a->k_row, at + AHEAD * KEYS, a->S, a->D);
                prefetch(values, a->v_row, at + AHEAD * KEYS, a->S, a->D);
                pack(keys + at * a->k_row, a->k_row, present, (int)a->D / 2, tile.keys);
                pack_values(values + at * a->v_row, a->v_row, present, (int)a->D, width, tile.values);
                packed = 1;
            }
            group(a, &tile, first, R, at, width, sight == OPEN);
        }
    }
    write_rows(a, &tile, a->out + ((b * a->Hq + h * G) * a->T + start) * a->D, rows, width);
}

/* What the mask leaves of each block of keys for the t-th row, when all heads share it. */
static void look(const void *of, long t) {
    const struct Attend *a = of;
    const bf16 *row = a->mask + t * a->m_row;
    for (long block = 0; block < blocks_of(a); block++) {
        long at = block * KEYS, present = a->S - at < KEYS ? a->S - at : KEYS, zeros = 0, hidden = 0;
        for (long k = 0; k < present; k += 32) {
            long some = present - k < 32 ? present - k : 32;
            __mmask32 lanes = some == 32 ? 0xFFFFFFFFu : (1u << some) - 1;
            __m512i x = _mm512_maskz_loadu_epi16(lanes, row + at + k);
            zeros += __builtin_popcount(_mm512_mask_testn_epi16_mask(lanes, x, _mm512_set1_epi16(0x7FFF)));
            hidden += __builtin_popcount(_mm512_mask_cmpeq_epi16_mask(lanes, x, _mm512_set1_epi16((short)0xFF80)));
        }
        a->sight[t * blocks_of(a) + block] = zeros == present ? OPEN : hidden == present ? HIDDEN : MIXED;
    }
}

void agentmem_attend(const struct Attend *a) {
    long G = a->Hq / a->Hkv, per_head = (G * a->T + TILE - 1) / TILE;
    if (a->sight)
        share_out(look, a, a->T, a->parallel, a->T >= 32 ? a->threads : 1);
    share_out(attend_tile, a, a->B * a->Hkv * per_head, a->parallel, a->threads);
}
