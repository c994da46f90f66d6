/* The canonical form of tf.Examples, as `canonical.py` makes it, and where their features lie. */

#include <stdlib.h>

#include "examples.h"

#define RANKED 32 /* as many keys are sorted by counting those below each: no branch depends on them */

static int compare(const void *left, const void *right)
{
    return compare_keys(left, right);
}

/* Returns 1 for a record that is canonical for certain: its keys are in order, up to where it stops being plain. */
int is_canonical(const uint8_t *record, const uint8_t *end)
{
    struct entry pair[2];
    const uint8_t *at = begin_entries(record, end);
    for (int place = 0; at && at < end; place++) {
        at = read_entry(at, end, &pair[place & 1]);
        if (at && place && compare_keys(&pair[(place & 1) ^ 1], &pair[place & 1]) >= 0)
            return 0;
    }
    return 1;
}

/* Finds all entries of a record. Returns 1, 0 where it is not plain, or -1 where there is no memory. */
static int find_entries(const uint8_t *record, const uint8_t *end, struct entries *found)
{
    const uint8_t *at = begin_entries(record, end);
    for (found->count = 0; at && at < end; found->count++) {
        if (found->count == found->room) {
            int64_t room = found->room ? 2 * found->room : 64;
            struct entry *items = realloc(found->items, (size_t)room * sizeof *items);
            if (!items)
                return -1;
            found->items = items;
            found->room = room;
        }
        at = read_entry(at, end, &found->items[found->count]);
    }
    return at != NULL;
}

/* Finds the order of up to RANKED keys by their first 8 bytes; returns 0 where some of these are the same. */
#if __x86_64__ && __gnu_linux__ /* whose loader chooses the clone */
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
static int rank_keys(const struct entry *items, int64_t count, uint8_t *order)
{
    uint64_t prefixes[RANKED], ranks[RANKED] = {0}, seen = 0;
    int64_t lanes = (count + 7) / 8 * 8;
    for (int64_t i = 0; i < count; i++)
        prefixes[i] = items[i].prefix;
    for (int64_t i = count; i < lanes; i++)
        prefixes[i] = 0; /* their ranks are not used */
    for (int64_t other = 0; other < count; other++)
        for (int64_t i = 0; i < lanes; i++)
            ranks[i] += prefixes[other] < prefixes[i];
    for (int64_t i = 0; i < count; i++) {
        order[ranks[i]] = (uint8_t)i;
        seen |= (uint64_t)1 << ranks[i];
    }
    return seen == ((uint64_t)1 << count) - 1;
}

/* Copies the bytes of a short entry in two steps of one size, which takes less time than a call with any size. */
static uint8_t *copy_entry(const struct entry *entry, const uint8_t *readable, uint8_t *to)
{
    size_t size = (size_t)(entry->end - entry->begin);
    if (size <= SPARE_BYTES && readable - entry->begin >= SPARE_BYTES)
        memcpy(to, entry->begin, SPARE_BYTES);
    else
        memcpy(to, entry->begin, size);
    return to + size;
}

/* Writes the canonical form of a record that `is_canonical` denies, as many bytes as the record has. Up to `readable`
   bytes can be read, and SPARE_BYTES behind the form be written. Returns 1, 0 where the record is its own form: it is
   not plain, or has a key twice, of which the last counts; -1 where there is no memory. */
int write_canonical(const uint8_t *record, const uint8_t *end, const uint8_t *readable, struct entries *found,
                    uint8_t *to)
{
    int is_plain = find_entries(record, end, found);
    if (is_plain <= 0)
        return is_plain;
    size_t head = (size_t)(found->items[0].begin - record);
    memcpy(to, record, head);
    to += head;
    uint8_t order[RANKED];
    if (found->count <= RANKED && rank_keys(found->items, found->count, order)) {
        for (int64_t i = 0; i < found->count; i++)
            to = copy_entry(&found->items[order[i]], readable, to);
        return 1;
    }
    qsort(found->items, (size_t)found->count, sizeof *found->items, compare);
    for (int64_t i = 1; i < found->count; i++)
        if (compare_keys(&found->items[i - 1], &found->items[i]) == 0)
            return 0;
    for (int64_t i = 0; i < found->count; i++)
        to = copy_entry(&found->items[i], readable, to);
    return 1;
}

/* Finds where a feature's value lies in each record: its place and its bytes in `buffer`. The size stays as it is,
   as does the place, in records that do not have the feature or are not plain; of a key twice the last one counts. */
void find_feature(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count,
                  const uint8_t *key, int64_t key_size, int64_t *begins, int64_t *sizes)
{
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *end = buffer + ends[i], *at = begin_entries(buffer + starts[i], end), *value = NULL;
        int64_t size = 0;
        while (at && at < end) {
            struct entry entry;
            at = read_entry(at, end, &entry);
            if (at && entry.key_size == key_size && !memcmp(entry.key, key, (size_t)key_size)) {
                value = entry.value;
                size = entry.end - entry.value;
            }
        }
        if (at && value) {
            begins[i] = value - buffer;
            sizes[i] = size;
        }
    }
}
