/* Walks the feature map of a tf.Example, for any bytes: what `walk.py` does with NumPy, and the same. */

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A map entry of a plain tf.Example. */
struct entry {
    const uint8_t *begin, *end; /* all of it */
    const uint8_t *key, *value; /* the value is a serialized Feature and ends where the entry does */
    int64_t key_size;
    uint64_t prefix; /* the key's first 8 bytes as a big-endian number, filled with zeros */
};

/* Reads a varint of at most 5 bytes; returns what follows it, NULL where there is none before `end`. */
static inline const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, int64_t *value)
{
    if (at < end && *at < 128) {
        *value = *at;
        return at + 1;
    }
    *value = 0;
    for (int place = 0; place < 5 && at < end; place++) {
        uint8_t byte = *at++;
        *value |= (int64_t)(byte & 127) << 7 * place;
        if (byte < 128)
            return at;
    }
    return NULL;
}

/* Returns the key's first 8 bytes; `end` is that of the record, up to which bytes can be read. */
static inline uint64_t key_prefix(const uint8_t *key, int64_t size, const uint8_t *end)
{
    uint64_t word = 0;
    if (end - key >= 8)
        memcpy(&word, key, 8);
    else
        memcpy(&word, key, (size_t)(end - key));
    static const uint64_t kept[] = {0,
                                    UINT64_MAX << 56,
                                    UINT64_MAX << 48,
                                    UINT64_MAX << 40,
                                    UINT64_MAX << 32,
                                    UINT64_MAX << 24,
                                    UINT64_MAX << 16,
                                    UINT64_MAX << 8,
                                    UINT64_MAX};
    return __builtin_bswap64(word) & kept[size < 8 ? size : 8];
}

/* Returns where the map entries of a record begin, NULL where it is not one field, the feature map. */
static inline const uint8_t *begin_entries(const uint8_t *at, const uint8_t *end)
{
    int64_t size;
    if (at == end || *at != 0x0A || !(at = read_varint(at + 1, end, &size)) || size != end - at)
        return NULL;
    return at;
}

/* Reads the map entry at `at`, which is before `end`. Returns what follows it, NULL where the record is not plain. */
static inline const uint8_t *read_entry(const uint8_t *at, const uint8_t *end, struct entry *entry)
{
    int64_t size;
    entry->begin = at;
    if (*at != 0x0A || !(at = read_varint(at + 1, end, &size)) || size > end - at)
        return NULL;
    const uint8_t *behind = at + size;
    if (size < 2 || at[0] != 0x0A || at[1] > 127)
        return NULL;
    entry->key = at + 2;
    entry->key_size = at[1];
    if (entry->key_size >= behind - entry->key)
        return NULL;
    at = entry->key + entry->key_size;
    if (*at != 0x12 || !(at = read_varint(at + 1, behind, &size)) || size != behind - at)
        return NULL;
    entry->value = at;
    entry->end = behind;
    entry->prefix = key_prefix(entry->key, entry->key_size, end);
    return behind;
}

/* Compares two keys by their bytes: below, equal to or above 0. */
static inline int compare_keys(const struct entry *a, const struct entry *b)
{
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    int64_t common = a->key_size < b->key_size ? a->key_size : b->key_size;
    int difference = common > 8 ? memcmp(a->key + 8, b->key + 8, (size_t)(common - 8)) : 0;
    if (difference)
        return difference;
    return (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

#define SPARE_BYTES 32 /* that may be written behind a canonical form */

/* Room for the entries of a record; the caller frees `items`. */
struct entries {
    struct entry *items;
    int64_t count, room;
};

int is_canonical(const uint8_t *record, const uint8_t *end);
int write_canonical(const uint8_t *record, const uint8_t *end, const uint8_t *readable, struct entries *found,
                    uint8_t *to);
