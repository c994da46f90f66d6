/* BLAKE3's compression of LANES blocks side by side, 8 or 16. blake3.c includes this once per instruction set,
   with LANES_NAME as the name of the function. Source: the BLAKE3 paper, sections 2.2 to 2.5. */

#if __AVX2__ && !__AVX512VL__ && !__clang__ /* no instruction rotates, but one moves bytes */
#define ROTATE_16(x) MOVE_BYTES(x, 2, 3, 0, 1)
#define ROTATE_8(x) MOVE_BYTES(x, 1, 2, 3, 0)
#else
#define ROTATE_16(x) ROTATE(x, 16)
#define ROTATE_8(x) ROTATE(x, 8)
#endif

typedef uint32_t LANES_INNER(wide) __attribute__((vector_size(4 * LANES)));

static inline __attribute__((always_inline)) void LANES_INNER(mix)(LANES_INNER(wide) * v, int a, int b, int c,
                                                                   int d, LANES_INNER(wide) x,
                                                                   LANES_INNER(wide) y)
{
    v[a] += v[b] + x;
    v[d] = ROTATE_16(v[d] ^ v[a]);
    v[c] += v[d];
    v[b] = ROTATE(v[b] ^ v[c], 12);
    v[a] += v[b] + y;
    v[d] = ROTATE_8(v[d] ^ v[a]);
    v[c] += v[d];
    v[b] = ROTATE(v[b] ^ v[c], 7);
}

/* Turns eight rows of eight words into eight columns. */
static inline __attribute__((always_inline)) void LANES_INNER(transpose)(words *row)
{
    words a[8], b[8];
    for (int pair = 0; pair < 4; pair++) {
        a[2 * pair] = SHUFFLE(row[2 * pair], row[2 * pair + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        a[2 * pair + 1] = SHUFFLE(row[2 * pair], row[2 * pair + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int half = 0; half < 8; half += 4) {
        b[half] = SHUFFLE(a[half], a[half + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        b[half + 1] = SHUFFLE(a[half], a[half + 2], 2, 3, 10, 11, 6, 7, 14, 15);
        b[half + 2] = SHUFFLE(a[half + 1], a[half + 3], 0, 1, 8, 9, 4, 5, 12, 13);
        b[half + 3] = SHUFFLE(a[half + 1], a[half + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
    for (int column = 0; column < 4; column++) {
        row[column] = SHUFFLE(b[column], b[column + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        row[column + 4] = SHUFFLE(b[column], b[column + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
}

/* Hashes up to LANES nodes (chunks or parents); lanes behind `count` repeat the first. */
static void LANES_NAME(const struct node *nodes, int count)
{
    typedef LANES_INNER(wide) wide;
    uint8_t padded[LANES][BLOCK_BYTES];
    const struct node *lane[LANES];
    size_t blocks[LANES], most = 0;
    uint32_t counter_low[LANES], counter_high[LANES];
    wide chain[8];
    words part[16];
    for (int i = 0; i < LANES; i++) {
        lane[i] = &nodes[i < count ? i : 0];
        blocks[i] = lane[i]->size ? (lane[i]->size + BLOCK_BYTES - 1) / BLOCK_BYTES : 1;
        most = blocks[i] > most ? blocks[i] : most;
        counter_low[i] = (uint32_t)lane[i]->counter;
        counter_high[i] = (uint32_t)(lane[i]->counter >> 32);
    }
    for (int word = 0; word < 8; word++)
        chain[word] = (wide){0} + INITIAL[word];

    for (size_t block = 0; block < most; block++) {
        uint32_t length[LANES], flags[LANES], is_active[LANES];
        wide message[16], state[16], mask;
        for (int begin = 0; begin < LANES; begin += 8) {
            for (int i = begin; i < begin + 8; i++) {
                size_t at = block * BLOCK_BYTES, size = 0;
                const uint8_t *data = padded[i];
                if (block < blocks[i]) {
                    size = lane[i]->size - at < BLOCK_BYTES ? lane[i]->size - at : BLOCK_BYTES;
                    if (size == BLOCK_BYTES) {
                        data = lane[i]->data + at;
                    } else {
                        memset(padded[i], 0, BLOCK_BYTES);
                        memcpy(padded[i], lane[i]->data + at, size);
                    }
                }
                memcpy(&part[i - begin], data, sizeof(words));
                memcpy(&part[i - begin + 8], data + sizeof(words), sizeof(words));
                length[i] = (uint32_t)size;
                flags[i] = lane[i]->flags | (block == 0 ? lane[i]->first : 0) |
                           (block + 1 == blocks[i] ? lane[i]->last : 0);
                is_active[i] = block < blocks[i] ? UINT32_MAX : 0;
            }
            LANES_INNER(transpose)(part);
            LANES_INNER(transpose)(part + 8);
            for (int word = 0; word < 16; word++)
                memcpy((uint32_t *)&message[word] + begin, &part[word], sizeof(words));
        }
        for (int word = 0; word < 8; word++)
            state[word] = chain[word];
        for (int word = 0; word < 4; word++)
            state[word + 8] = (wide){0} + INITIAL[word];
        memcpy(&state[12], counter_low, sizeof(wide));
        memcpy(&state[13], counter_high, sizeof(wide));
        memcpy(&state[14], length, sizeof(wide));
        memcpy(&state[15], flags, sizeof(wide));
        memcpy(&mask, is_active, sizeof(wide));
#pragma GCC unroll 7
        for (int round = 0; round < 7; round++) {
            const uint8_t *m = SCHEDULE[round];
            LANES_INNER(mix)(state, 0, 4, 8, 12, message[m[0]], message[m[1]]);
            LANES_INNER(mix)(state, 1, 5, 9, 13, message[m[2]], message[m[3]]);
            LANES_INNER(mix)(state, 2, 6, 10, 14, message[m[4]], message[m[5]]);
            LANES_INNER(mix)(state, 3, 7, 11, 15, message[m[6]], message[m[7]]);
            LANES_INNER(mix)(state, 0, 5, 10, 15, message[m[8]], message[m[9]]);
            LANES_INNER(mix)(state, 1, 6, 11, 12, message[m[10]], message[m[11]]);
            LANES_INNER(mix)(state, 2, 7, 8, 13, message[m[12]], message[m[13]]);
            LANES_INNER(mix)(state, 3, 4, 9, 14, message[m[14]], message[m[15]]);
        }
        for (int word = 0; word < 8; word++)
            chain[word] = ((state[word] ^ state[word + 8]) & mask) | (chain[word] & ~mask);
    }
    for (int begin = 0; begin < count; begin += 8) {
        for (int word = 0; word < 8; word++)
            memcpy(&part[word], (uint32_t *)&chain[word] + begin, sizeof(words));
        LANES_INNER(transpose)(part);
        for (int i = begin; i < count && i < begin + 8; i++)
            memcpy(nodes[i].out, &part[i - begin], sizeof(words));
    }
}

#undef ROTATE_16
#undef ROTATE_8
