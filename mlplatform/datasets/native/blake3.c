/* BLAKE3 of many records at once: their chunks fill the lanes of the processor's vectors. A library that
   hashes record by record leaves most lanes empty, since a record has few chunks, often one.
   Source: "BLAKE3: one function, fast everywhere" (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020). */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian processors"
#endif

#define MOST_LANES 16
#define BLOCK_BYTES 64
#define CHUNK_BYTES 1024
#define BATCH_CHUNKS 512 /* of several records, hashed together */

enum { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8 };

typedef uint32_t words __attribute__((vector_size(32)));
typedef uint8_t word_bytes __attribute__((vector_size(32)));

/* A chunk or a parent of BLAKE3's tree: `size` bytes, hashed to the eight words at `out`. */
struct node {
    const uint8_t *data;
    uint32_t *out;
    uint64_t counter;
    uint32_t size;
    uint32_t flags, first, last; /* of every block, of the first one, of the last one */
};

static const uint32_t INITIAL[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                                    0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};

/* The words of the message that each round mixes in: the paper's permutation, applied again and again. */
static const uint8_t SCHEDULE[7][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

#define ROTATE(x, n) (((x) >> (n)) | ((x) << (32 - (n))))
#if __clang__ || __GNUC__ >= 12
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (words){__VA_ARGS__})
#endif
/* Moves the bytes of every word: the result's first byte is byte `a` of the word, and so on. */
#define MOVE_BYTES(x, a, b, c, d)                                                                              \
    (words) __builtin_shuffle(                                                                                 \
        (word_bytes)(x), (word_bytes){a, b, c, d, 4 + a, 4 + b, 4 + c, 4 + d, 8 + a, 8 + b, 8 + c, 8 + d,      \
                                      12 + a, 12 + b, 12 + c, 12 + d, 16 + a, 16 + b, 16 + c, 16 + d, 20 + a,  \
                                      20 + b, 20 + c, 20 + d, 24 + a, 24 + b, 24 + c, 24 + d, 28 + a, 28 + b,  \
                                      28 + c, 28 + d})
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define LANES_INNER(name) JOIN(LANES_NAME, name)

#define LANES 8
#define LANES_NAME hash_lanes
#include "blake3_lanes.h"
#undef LANES_NAME

#if __x86_64__ && !__clang__
#define HAS_WIDER 1
#pragma GCC push_options
#pragma GCC target("avx2")
#define LANES_NAME hash_lanes_avx2
#include "blake3_lanes.h"
#undef LANES_NAME
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,avx512f,avx512vl")
#undef LANES
#define LANES 16
#define LANES_NAME hash_lanes_avx512
#include "blake3_lanes.h"
#undef LANES_NAME
#pragma GCC pop_options
#endif

/* Nodes that wait until all lanes are full. */
struct lanes {
    struct node nodes[MOST_LANES];
    int count, width;
    void (*hash)(const struct node *, int);
};

static struct lanes best(int level)
{
#if HAS_WIDER
    if (level >= 2 && __builtin_cpu_supports("avx512vl"))
        return (struct lanes){.width = 16, .hash = hash_lanes_avx512};
    if (level >= 1 && __builtin_cpu_supports("avx2"))
        return (struct lanes){.width = 8, .hash = hash_lanes_avx2};
#endif
    (void)level;
    return (struct lanes){.width = 8, .hash = hash_lanes};
}

static int64_t chunks_of(int64_t size)
{
    return size ? (size + CHUNK_BYTES - 1) / CHUNK_BYTES : 1;
}

static void flush(struct lanes *lanes)
{
    if (lanes->count)
        lanes->hash(lanes->nodes, lanes->count);
    lanes->count = 0;
}

static void add(struct lanes *lanes, struct node node)
{
    lanes->nodes[lanes->count++] = node;
    if (lanes->count == lanes->width)
        flush(lanes);
}

/* Hashes records that together have not more chunks than `chain` has room for (8 words each). `left` has room
   for a number per record. */
static void hash_batch(struct lanes *lanes, const uint8_t *buffer, const int64_t *starts, const int64_t *ends,
                       int64_t count, uint32_t *chain, int64_t *left, uint64_t *high, uint64_t *low)
{
    int is_done = 1;
    uint32_t *out = chain;
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *data = buffer + starts[i];
        int64_t size = ends[i] - starts[i], chunks = chunks_of(size);
        for (int64_t chunk = 0; chunk < chunks; chunk++, out += 8) {
            int64_t at = chunk * CHUNK_BYTES;
            uint32_t bytes = (uint32_t)(size - at < CHUNK_BYTES ? size - at : CHUNK_BYTES);
            uint32_t end = CHUNK_END | (chunks == 1 ? ROOT : 0);
            add(lanes, (struct node){data + at, out, (uint64_t)chunk, bytes, 0, CHUNK_START, end});
        }
        left[i] = chunks;
        is_done &= chunks == 1;
    }
    flush(lanes);
    /* A level at a time: neighbours become their parent, one without a neighbour moves up as it is. */
    while (!is_done) {
        is_done = 1;
        uint32_t *nodes = chain;
        for (int64_t i = 0; i < count; nodes += 8 * chunks_of(ends[i] - starts[i]), i++) {
            uint32_t flags = PARENT | (left[i] == 2 ? ROOT : 0);
            for (int64_t pair = 0; 2 * pair + 1 < left[i]; pair++)
                add(lanes, (struct node){(const uint8_t *)(nodes + 16 * pair), nodes + 8 * pair, 0, BLOCK_BYTES,
                                         flags, 0, 0});
        }
        flush(lanes);
        nodes = chain;
        for (int64_t i = 0; i < count; nodes += 8 * chunks_of(ends[i] - starts[i]), i++) {
            if (left[i] > 1 && left[i] % 2)
                memcpy(nodes + 8 * (left[i] / 2), nodes + 8 * (left[i] - 1), 32);
            left[i] = (left[i] + 1) / 2;
            is_done &= left[i] == 1;
        }
    }
    out = chain;
    for (int64_t i = 0; i < count; out += 8 * chunks_of(ends[i] - starts[i]), i++) {
        high[i] = __builtin_bswap64((uint64_t)out[1] << 32 | out[0]);
        low[i] = __builtin_bswap64((uint64_t)out[3] << 32 | out[2]);
    }
}

/* Writes the first 16 bytes of the BLAKE3 hash of each record, as two big-endian numbers. `level` is the best
   instruction set to use where the processor has it: 1 AVX2, 2 AVX-512. Returns 0, or -1 where there is no
   memory. */
int blake3_ids(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count, uint64_t *high,
               uint64_t *low, int level)
{
    int64_t most = BATCH_CHUNKS;
    for (int64_t i = 0; i < count; i++) {
        int64_t chunks = chunks_of(ends[i] - starts[i]);
        most = chunks > most ? chunks : most;
    }
    uint32_t *chain = malloc((size_t)most * 32);
    int64_t left[BATCH_CHUNKS];
    if (!chain)
        return -1;
    struct lanes lanes = best(level);
    int64_t begin = 0;
    while (begin < count) {
        int64_t end = begin, chunks = 0;
        while (end < count && end - begin < BATCH_CHUNKS) {
            int64_t more = chunks_of(ends[end] - starts[end]);
            if (end > begin && chunks + more > BATCH_CHUNKS)
                break;
            chunks += more;
            end++;
        }
        hash_batch(&lanes, buffer, starts + begin, ends + begin, end - begin, chain, left, high + begin,
                   low + begin);
        begin = end;
    }
    free(chain);
    return 0;
}
