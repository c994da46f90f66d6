/* Record ids in order, and their places among those that are known: what `hashing.py` does with NumPy. An id is two
   numbers, high and low, whose order is that of its bytes. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FEW 24        /* ids that are sorted by insertion */
#define FIRST_BITS 11 /* of an id, by which all are dealt into buckets first */

struct id {
    uint64_t high, low;
    int64_t place;
};

static inline int is_before(const struct id *a, const struct id *b)
{
    return a->high < b->high || (a->high == b->high && a->low < b->low);
}

static void insert_all(struct id *ids, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        struct id moved = ids[i];
        int64_t at = i;
        for (; at && is_before(&moved, &ids[at - 1]); at--)
            ids[at] = ids[at - 1];
        ids[at] = moved;
    }
}

/* Returns 8 bits of an id, from the `skipped`-th on. */
static inline unsigned byte_of(const struct id *id, int skipped)
{
    if (skipped >= 64)
        return (unsigned)(id->low << (skipped - 64) >> 56);
    uint64_t word = id->high << skipped;
    if (skipped > 56)
        word |= id->low >> (64 - skipped);
    return (unsigned)(word >> 56);
}

/* Sorts ids that are the same in their first `skipped` bits, equal ones by place, with as much room in `spare`.
   By their bytes and not by comparing, so that no choice of ids makes it slow. */
static void sort_bucket(struct id *ids, int64_t count, int skipped, struct id *spare)
{
    if (count <= FEW) {
        insert_all(ids, count);
        return;
    }
    int64_t bounds[257] = {0};
    for (int64_t i = 0; i < count; i++)
        bounds[byte_of(&ids[i], skipped) + 1]++;
    for (int byte = 0; byte < 256; byte++)
        bounds[byte + 1] += bounds[byte];
    int64_t next[256];
    memcpy(next, bounds, sizeof next);
    for (int64_t i = 0; i < count; i++)
        spare[next[byte_of(&ids[i], skipped)]++] = ids[i];
    memcpy(ids, spare, (size_t)count * sizeof *ids);
    if (skipped + 8 < 128)
        for (int byte = 0; byte < 256; byte++)
            if (bounds[byte + 1] - bounds[byte] > 1)
                sort_bucket(ids + bounds[byte], bounds[byte + 1] - bounds[byte], skipped + 8,
                            spare + bounds[byte]);
}

/* Sorts the ids whose high numbers lie between `least` and `most`, both included. Writes them in order, and the place
   that each had, equal ones in the order of their places. Returns 0, or -1 where there is no memory. */
int sort_ids(const uint64_t *high, const uint64_t *low, int64_t count, uint64_t least, uint64_t most,
             uint64_t *sorted_high, uint64_t *sorted_low, int64_t *places)
{
    int64_t bounds[(1 << FIRST_BITS) + 1] = {0}, largest = 1, begin = 0;
    for (int64_t i = 0; i < count; i++)
        bounds[(high[i] >> (64 - FIRST_BITS)) + 1] += high[i] >= least && high[i] <= most;
    for (int64_t bucket = 0; bucket < 1 << FIRST_BITS; bucket++) {
        largest = bounds[bucket + 1] > largest ? bounds[bucket + 1] : largest;
        bounds[bucket + 1] += bounds[bucket];
    }
    struct id *ids = malloc((size_t)largest * sizeof *ids), *spare = malloc((size_t)largest * sizeof *spare);
    int failed = ids && spare ? 0 : -1;
    for (int64_t i = 0; i < count && !failed; i++) { /* each bound moves on to that of the following bucket */
        if (high[i] < least || high[i] > most)
            continue;
        int64_t to = bounds[high[i] >> (64 - FIRST_BITS)]++;
        sorted_high[to] = high[i];
        sorted_low[to] = low[i];
        places[to] = i;
    }
    for (int64_t bucket = 0; bucket < 1 << FIRST_BITS && !failed; begin = bounds[bucket++]) {
        int64_t size = bounds[bucket] - begin;
        for (int64_t i = 0; i < size; i++)
            ids[i] = (struct id){sorted_high[begin + i], sorted_low[begin + i], places[begin + i]};
        sort_bucket(ids, size, FIRST_BITS, spare);
        for (int64_t i = 0; i < size; i++) {
            sorted_high[begin + i] = ids[i].high;
            sorted_low[begin + i] = ids[i].low;
            places[begin + i] = ids[i].place;
        }
    }
    free(ids);
    free(spare);
    return failed;
}

/* Finds sorted ids among sorted ones that are known. Writes the place of each among the known, at its own place. */
void find_ids(const uint64_t *known_high, const uint64_t *known_low, const int64_t *known_places, int64_t known,
              const uint64_t *high, const uint64_t *low, const int64_t *places, int64_t count, int64_t *found)
{
    int64_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        while (at < known && (known_high[at] < high[i] || (known_high[at] == high[i] && known_low[at] < low[i])))
            at++;
        if (at < known && known_high[at] == high[i] && known_low[at] == low[i])
            found[places[i]] = known_places[at];
    }
}
