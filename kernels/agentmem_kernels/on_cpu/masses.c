/* How much attention blocks of keys would get: softmax over all keys, rows added up, keys of a block added up.
 *
 * A tile of up to 24 query rows keeps its logits in fp32 in lent memory, so keys are read and packed once a tile.
 * What each tile found is kept apart and added up in a fixed order, so threads change no bit.
 */
#include "common.h"

enum { TILE = 24 };

struct Masses {
    const bf16 *queries;        /* (H, M, W), contiguous */
    const bf16 *const *parts;   /* keys: so many parts of rows (W) beside each other */
    const long *counts;         /* rows of each part */
    const long *heads;          /* from one head to the next, in elements */
    const uint8_t *dead;        /* (H, n), or NULL */
    const int64_t *seen;        /* (M): a row sees its first so many keys; or NULL */
    float *logits;              /* (tasks at once: threads, TILE, stride) */
    float *sums;                /* (H, tiles, stride) */
    float *out;                 /* (1 or 3, H, blocks) */
    long H, M, W, n, stride, parts_count, per_block, edge;
    float scaling;
    int threads;
    Parallel parallel;
};

static long tiles_of(const struct Masses *m) { return (m->M + TILE - 1) / TILE; }

struct Room {
    const struct Masses *masses;
    atomic_long next;
};

INLINE void keep(const __m512 sums[4], float scaling, float *logits, const uint8_t *dead, long present) {
    __m512 nothing = _mm512_set1_ps(-INFINITY), factor = _mm512_set1_ps(scaling);
    for (int j = 0; j < 4; j++) {
        __mmask16 lanes = first_lanes(present - 16 * j);
        if (dead)
            lanes &= _mm_mask_testn_epi8_mask(lanes, _mm_maskz_loadu_epi8(lanes, dead + 16 * j), _mm_set1_epi8(-1));
        _mm512_storeu_ps(logits + 16 * j, _mm512_mask_mul_ps(nothing, lanes, sums[j], factor));
    }
}

/* Where a block's logits go, and which of them count. */
struct Block {
    float *logits; /* of the first row; the next one's are ``stride`` behind */
    long stride;
    float scaling;
    const uint8_t *dead;
    const int64_t *seen; /* of the first row, or NULL */
    long at, present;    /* the block's first key, and how many it has */
};

INLINE void few(const bf16 *const *rows, int R, int pairs, const uint32_t *packed, const struct Block *b) {
    __m512 sums[ROWS][4];
    products(rows, R, pairs, packed, sums);
    for (int r = 0; r < R; r++) {
        long seen = b->seen ? b->seen[r] - b->at : b->present;
        keep(sums[r], b->scaling, b->logits + r * b->stride, b->dead, seen < b->present ? seen : b->present);
    }
}

static void __attribute__((noinline)) some(const bf16 *const *rows, int R, int pairs, const uint32_t *packed, const struct Block *b) {
    switch (R) { /* so that sums stay in registers */
    case 1: few(rows, 1, pairs, packed, b); break;
    case 2: few(rows, 2, pairs, packed, b); break;
    case 3: few(rows, 3, pairs, packed, b); break;
    case 4: few(rows, 4, pairs, packed, b); break;
    case 5: few(rows, 5, pairs, packed, b); break;
    default: few(rows, 6, pairs, packed, b); break;
    }
}

/* Logits of a tile's rows with all keys of a head. Each part is padded to whole packed blocks by later ones. */
static void fill(const struct Masses *m, long h, const bf16 *const *rows, long start, int count, float *logits) {
    uint32_t packed[MAX_PAIRS * KEYS] __attribute__((aligned(64)));
    long at = 0;
    for (long p = 0; p < m->parts_count; p++) {
        const bf16 *keys = m->parts[p] + h * m->heads[p];
        for (long k = 0; k < m->counts[p]; k += KEYS) {
            long present = m->counts[p] - k < KEYS ? m->counts[p] - k : KEYS;
            pack(keys + k * m->W, m->W, present, (int)m->W / 2, packed);
            for (int first = 0, R; first < count; first += R) {
                R = next_group(count - first);
                struct Block b = {logits + first * m->stride + at, m->stride, m->scaling, m->dead ? m->dead + h * m->n + at : 0,
                                  m->seen ? m->seen + start + first : 0, at, present};
                some(rows + first, R, (int)m->W / 2, packed, &b);
            }
            at += present;
        }
    }
}

/* A row's logits become its distribution, added to ``sums``. */
static void add_row(float *logits, long n, float *sums) {
    __m512 top = _mm512_set1_ps(-INFINITY), total = _mm512_setzero_ps();
    for (long k = 0; k < n; k += LANES)
        top = _mm512_max_ps(top, _mm512_mask_loadu_ps(top, first_lanes(n - k), logits + k));
    float highest = _mm512_reduce_max_ps(top);
    if (highest == -INFINITY)
        return;
    __m512 zero = _mm512_set1_ps(highest);
    for (long k = 0; k < n; k += LANES) {
        __mmask16 lanes = first_lanes(n - k);
        __m512 e = _mm512_maskz_mov_ps(lanes, exp2_16(_mm512_mul_ps(_mm512_sub_ps(_mm512_maskz_loadu_ps(lanes, logits + k), zero), _mm512_set1_ps(LOG2E))));
        total = _mm512_add_ps(total, e);
        _mm512_mask_storeu_ps(logits + k, lanes, e);
    }
    __m512 share = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(total));
    for (long k = 0; k < n; k += LANES) {
        __mmask16 lanes = first_lanes(n - k);
        __m512 before = _mm512_maskz_loadu_ps(lanes, sums + k), e = _mm512_maskz_loadu_ps(lanes, logits + k);
        _mm512_mask_storeu_ps(sums + k, lanes, _mm512_fmadd_ps(e, share, before));
    }
}

/* One worker: takes tiles until none is left, in logits of its own. */
static void worker(const void *of, long number) {
    struct Room *room = (struct Room *)of;
    const struct Masses *m = room->masses;
    float *logits = m->logits + number * TILE * m->stride;
    long tiles = tiles_of(m);
    for (long task = atomic_fetch_add(&room->next, 1); task < m->H * tiles; task = atomic_fetch_add(&room->next, 1)) {
        long h = task / tiles, start = task % tiles * TILE;
        int count = (int)(m->M - start < TILE ? m->M - start : TILE);
        const bf16 *rows[TILE];
        for (int r = 0; r < count; r++)
            rows[r] = m->queries + (h * m->M + start + r) * m->W;
        fill(m, h, rows, start, count, logits);
        float *sums = m->sums + task * m->stride;
        memset(sums, 0, sizeof(float) * (size_t)m->n);
        for (int r = 0; r < count; r++)
            add_row(logits + r * m->stride, m->n, sums);
    }
}

static float sum_of(const float *from, long count) {
    float total = 0.0f;
    for (long k = 0; k < count; k++)
        total += from[k];
    return total;
}

/* Tiles of a head added up, then the keys of each block. */
static void gather(const void *of, long h) {
    const struct Masses *m = of;
    long tiles = tiles_of(m), L = m->per_block, blocks = m->n / L;
    float *sums = m->sums + h * tiles * m->stride;
    for (long task = 1; task < tiles; task++)
        for (long k = 0; k < m->n; k++)
            sums[k] += sums[task * m->stride + k];
    for (long block = 0; block < blocks; block++) {
        const float *keys = sums + block * L;
        m->out[h * blocks + block] = sum_of(keys, L);
        if (m->edge) {
            m->out[(m->H + h) * blocks + block] = sum_of(keys, m->edge);
            m->out[(2 * m->H + h) * blocks + block] = sum_of(keys + L - m->edge, m->edge);
        }
    }
}

void agentmem_masses(const struct Masses *m) {
    struct Room room = {m, 0};
    long workers = m->threads < m->H * tiles_of(m) ? m->threads : m->H * tiles_of(m);
    share_out(worker, &room, workers, m->parallel, m->threads);
    share_out(gather, m, m->H, m->parallel, m->threads);
}
