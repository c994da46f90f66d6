/* TFRecord frames and the canonical form of tf.Examples: what `tfrecord.py`, `walk.py` and `canonical.py` do
   with NumPy, and the same for any bytes, damaged ones included. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_BYTES 16 /* length and its checksum before the payload, the payload's checksum behind it */

/* Follows the lengths of whole frames in `buffer[:size]`, from 0 on. Writes where they begin and returns how
   many they are, at most `room`. */
int64_t frame_starts(const uint8_t *buffer, int64_t size, int64_t *starts, int64_t room)
{
    int64_t count = 0, at = 0;
    while (count < room && at <= size - FRAME_BYTES) {
        uint64_t length;
        memcpy(&length, buffer + at, 8);
        if (length > (uint64_t)(size - FRAME_BYTES - at))
            break;
        starts[count++] = at;
        at += (int64_t)length + FRAME_BYTES;
    }
    return count;
}

/* A map entry, and the key by which it is sorted. */
struct entry {
    uint64_t prefix; /* the key's first 8 bytes, big-endian, filled with zeros */
    const uint8_t *begin, *end, *key;
    int64_t key_size;
};

struct entries {
    struct entry *items;
    int64_t count, room;
};

/* Reads a varint of at most 5 bytes; returns what follows it, NULL where there is none before `end`. */
static const uint8_t *read_varint(const uint8_t *at, const uint8_t *end, int64_t *value)
{
    *value = 0;
    for (int place = 0; place < 5 && at < end; place++) {
        uint8_t byte = *at++;
        *value |= (int64_t)(byte & 127) << 7 * place;
        if (byte < 128)
            return at;
    }
    return NULL;
}

static uint64_t key_prefix(const uint8_t *key, int64_t size)
{
    uint64_t word = 0;
    if (size >= 8)
        memcpy(&word, key, 8);
    else
        for (int64_t place = 0; place < size; place++)
            word |= (uint64_t)key[place] << 8 * place;
    return __builtin_bswap64(word);
}

static int compare(const void *left, const void *right)
{
    const struct entry *a = left, *b = right;
    if (a->prefix != b->prefix)
        return a->prefix < b->prefix ? -1 : 1;
    int64_t common = a->key_size < b->key_size ? a->key_size : b->key_size;
    int difference = common > 8 ? memcmp(a->key + 8, b->key + 8, (size_t)(common - 8)) : 0;
    if (difference)
        return difference;
    return (a->key_size > b->key_size) - (a->key_size < b->key_size);
}

/* Finds the map entries of a plain tf.Example (see `walk.py`). Returns 1, 0 where the record is none, or -1
   where there is no memory. */
static int find_entries(const uint8_t *at, const uint8_t *end, struct entries *found)
{
    int64_t size;
    found->count = 0;
    if (at == end || *at != 0x0A || !(at = read_varint(at + 1, end, &size)) || size != end - at)
        return 0;
    while (at < end) {
        const uint8_t *begin = at, *value;
        if (*at != 0x0A || !(at = read_varint(at + 1, end, &size)) || size > end - at)
            return 0;
        const uint8_t *behind = at + size;
        if (behind - at < 2 || at[0] != 0x0A || at[1] > 127)
            return 0;
        const uint8_t *key = at + 2;
        int64_t key_size = at[1];
        if (key_size >= behind - key)
            return 0;
        value = key + key_size;
        if (*value != 0x12 || !(value = read_varint(value + 1, behind, &size)) || size != behind - value)
            return 0;
        if (found->count == found->room) {
            int64_t room = found->room ? 2 * found->room : 64;
            struct entry *items = realloc(found->items, (size_t)room * sizeof(struct entry));
            if (!items)
                return -1;
            found->items = items;
            found->room = room;
        }
        found->items[found->count++] =
            (struct entry){key_prefix(key, key_size), begin, behind, key, key_size};
        at = behind;
    }
    return 1;
}

static void sort(struct entries *found)
{
    if (found->count > 64) {
        qsort(found->items, (size_t)found->count, sizeof(struct entry), compare);
        return;
    }
    for (int64_t i = 1; i < found->count; i++) {
        struct entry moved = found->items[i];
        int64_t place = i;
        for (; place > 0 && compare(&moved, &found->items[place - 1]) < 0; place--)
            found->items[place] = found->items[place - 1];
        found->items[place] = moved;
    }
}

static int is_sorted(const struct entries *found)
{
    for (int64_t i = 1; i < found->count; i++)
        if (compare(&found->items[i - 1], &found->items[i]) >= 0)
            return 0;
    return 1;
}

/* Writes the canonical forms of the records whose entries are out of order into `result`, a copy of `buffer`.
   Without a `result`, only looks for the first such record. Returns how many it found, or -1 where there is
   no memory. */
int64_t canonical_forms(const uint8_t *buffer, uint8_t *result, const int64_t *starts, const int64_t *ends,
                        int64_t count)
{
    struct entries found = {0};
    int64_t changed = 0;
    for (int64_t i = 0; i < count && changed >= 0; i++) {
        int is_plain = find_entries(buffer + starts[i], buffer + ends[i], &found);
        if (is_plain < 0) {
            changed = -1;
        } else if (is_plain && found.count && !is_sorted(&found)) {
            const uint8_t *first = found.items[0].begin;
            changed++;
            if (!result)
                break;
            sort(&found);
            if (!is_sorted(&found))
                continue; /* a key twice: the record stays as it is */
            uint8_t *to = result + (first - buffer);
            for (int64_t entry = 0; entry < found.count; entry++) {
                size_t bytes = (size_t)(found.items[entry].end - found.items[entry].begin);
                memcpy(to, found.items[entry].begin, bytes);
                to += bytes;
            }
        }
    }
    free(found.items);
    return changed;
}
