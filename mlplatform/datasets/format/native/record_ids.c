/* Record ids: the BLAKE3 hashes of many records' canonical forms. The hash function itself is the official one (see
   blake3/); this file only feeds it the blocks of many records side by side, so that all lanes of the processor's
   vectors are used. Hashing record by record leaves most of them empty, since a record has few chunks, often one.
   Source of the tree: the BLAKE3 paper, section 2.1. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "blake3/blake3_impl.h"
#include "examples.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian processors"
#endif

#define BATCH_CHUNKS 512 /* of several records, hashed together */
#define LANES 16         /* the most inputs that the official code hashes side by side */
#define CHUNK_BLOCKS (BLAKE3_CHUNK_LEN / BLAKE3_BLOCK_LEN)
#define QUEUED_CHUNKS 16 /* by place in their record; the chunks of longer records fill lanes by themselves */

/* Inputs of one shape, waiting for company: as many whole blocks each, hashed with the same flags. */
struct queue {
    const uint8_t *inputs[LANES];
    uint8_t *outs[LANES];
    size_t count, blocks;
    uint64_t counter;
    uint8_t flags, first, last; /* of every block, of the first one, of the last one */
};

struct queues {
    struct queue chunks[QUEUED_CHUNKS];             /* whole chunks that are not the last of their record */
    struct queue ends[QUEUED_CHUNKS][CHUNK_BLOCKS]; /* all but the last block of a record's last chunk */
    struct queue parents, roots;
};

static void flush(struct queue *queue)
{
    uint8_t found[LANES * BLAKE3_OUT_LEN];
    if (!queue->count)
        return;
    blake3_hash_many(queue->inputs, queue->count, queue->blocks, IV, queue->counter, false, queue->flags,
                     queue->first, queue->last, found);
    for (size_t i = 0; i < queue->count; i++)
        memcpy(queue->outs[i], found + i * BLAKE3_OUT_LEN, BLAKE3_OUT_LEN);
    queue->count = 0;
}

static void add(struct queue *queue, const uint8_t *input, uint8_t *out)
{
    queue->inputs[queue->count] = input;
    queue->outs[queue->count++] = out;
    if (queue->count == LANES)
        flush(queue);
}

/* Prepares queues that are all zeros. */
static void set_up(struct queues *queues)
{
    for (size_t place = 0; place < QUEUED_CHUNKS; place++) {
        queues->chunks[place].blocks = CHUNK_BLOCKS;
        queues->chunks[place].counter = place;
        queues->chunks[place].first = CHUNK_START;
        queues->chunks[place].last = CHUNK_END;
        for (size_t blocks = 0; blocks < CHUNK_BLOCKS; blocks++) {
            queues->ends[place][blocks].blocks = blocks;
            queues->ends[place][blocks].counter = place;
            queues->ends[place][blocks].first = CHUNK_START;
        }
    }
    queues->parents.blocks = queues->roots.blocks = 1;
    queues->parents.flags = PARENT;
    queues->roots.flags = PARENT | ROOT;
}

static int64_t chunks_of(int64_t size)
{
    return size ? (size + BLAKE3_CHUNK_LEN - 1) / BLAKE3_CHUNK_LEN : 1;
}

/* Hashes all chunks but the last of a long record. */
static void hash_own_chunks(const uint8_t *data, int64_t chunks, uint8_t *out)
{
    const uint8_t *inputs[LANES];
    for (int64_t chunk = 0; chunk < chunks; chunk += LANES) {
        size_t count = (size_t)(chunks - chunk < LANES ? chunks - chunk : LANES);
        for (size_t i = 0; i < count; i++)
            inputs[i] = data + (chunk + (int64_t)i) * BLAKE3_CHUNK_LEN;
        blake3_hash_many(inputs, count, CHUNK_BLOCKS, IV, (uint64_t)chunk, true, 0, CHUNK_START, CHUNK_END,
                         out + chunk * BLAKE3_OUT_LEN);
    }
}

/* Mixes the last block, which may not be whole, into the chaining value of a record's last chunk. */
static void finish_chunk(const uint8_t *data, int64_t size, int64_t chunk, uint8_t flags, int has_before,
                         uint8_t *out)
{
    uint8_t block[BLAKE3_BLOCK_LEN] = {0};
    uint32_t value[8];
    memcpy(block, data, (size_t)size);
    memcpy(value, has_before ? (const void *)out : (const void *)IV, sizeof value);
    blake3_compress_in_place(value, block, (uint8_t)size, (uint64_t)chunk,
                             flags | CHUNK_END | (has_before ? 0 : CHUNK_START));
    memcpy(out, value, sizeof value);
}

/* The canonical form of a record. */
struct form {
    const uint8_t *data;
    int64_t size;
};

/* Hashes the chunks of some records, one record's values behind the other's. */
static void hash_chunks(struct queues *queues, const struct form *forms, int64_t count, uint8_t *values)
{
    uint8_t *out = values;
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *data = forms[i].data;
        int64_t size = forms[i].size, last = chunks_of(size) - 1;
        int64_t left = size - last * BLAKE3_CHUNK_LEN;
        int64_t blocks = left ? (left - 1) / BLAKE3_BLOCK_LEN : 0; /* before the last one */
        if (last < QUEUED_CHUNKS)
            for (int64_t chunk = 0; chunk < last; chunk++)
                add(&queues->chunks[chunk], data + chunk * BLAKE3_CHUNK_LEN, out + chunk * BLAKE3_OUT_LEN);
        else
            hash_own_chunks(data, last, out);
        out += last * BLAKE3_OUT_LEN;
        data += last * BLAKE3_CHUNK_LEN;
        if (blocks && last < QUEUED_CHUNKS)
            add(&queues->ends[last][blocks], data, out);
        else if (blocks)
            blake3_hash_many(&data, 1, (size_t)blocks, IV, (uint64_t)last, false, 0, CHUNK_START, 0, out);
        out += BLAKE3_OUT_LEN;
    }
    for (size_t place = 0; place < QUEUED_CHUNKS; place++) {
        flush(&queues->chunks[place]);
        for (size_t blocks = 1; blocks < CHUNK_BLOCKS; blocks++)
            flush(&queues->ends[place][blocks]);
    }
    out = values;
    for (int64_t i = 0; i < count; i++) {
        int64_t size = forms[i].size, last = chunks_of(size) - 1;
        int64_t left = size - last * BLAKE3_CHUNK_LEN;
        int64_t blocks = left ? (left - 1) / BLAKE3_BLOCK_LEN : 0;
        out += last * BLAKE3_OUT_LEN;
        finish_chunk(forms[i].data + last * BLAKE3_CHUNK_LEN + blocks * BLAKE3_BLOCK_LEN,
                     left - blocks * BLAKE3_BLOCK_LEN, last, last ? 0 : ROOT, blocks > 0, out);
        out += BLAKE3_OUT_LEN;
    }
}

/* Joins the chunks' values, a level of all trees at a time: neighbours become their parent, one without a
   neighbour moves up as it is. `left` holds the values that each record has. */
static void join_chunks(struct queues *queues, const struct form *forms, int64_t count, uint8_t *values,
                        int64_t *left)
{
    for (int is_done = 0; !is_done;) {
        is_done = 1;
        uint8_t *nodes = values;
        for (int64_t i = 0; i < count; nodes += BLAKE3_OUT_LEN * chunks_of(forms[i].size), i++) {
            struct queue *queue = left[i] == 2 ? &queues->roots : &queues->parents;
            /* A parent is written over its left child only when its queue is flushed: both were read by then,
               and the ones before it lie further to the left. */
            for (int64_t pair = 0; 2 * pair + 1 < left[i]; pair++)
                add(queue, nodes + 2 * BLAKE3_OUT_LEN * pair, nodes + BLAKE3_OUT_LEN * pair);
        }
        flush(&queues->parents);
        flush(&queues->roots);
        nodes = values;
        for (int64_t i = 0; i < count; nodes += BLAKE3_OUT_LEN * chunks_of(forms[i].size), i++) {
            if (left[i] > 1 && left[i] % 2)
                memcpy(nodes + BLAKE3_OUT_LEN * (left[i] / 2), nodes + BLAKE3_OUT_LEN * (left[i] - 1),
                       BLAKE3_OUT_LEN);
            left[i] = (left[i] + 1) / 2;
            is_done &= left[i] == 1;
        }
    }
}

static uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t word = 0;
    for (int place = 0; place < 8; place++)
        word = word << 8 | bytes[place];
    return word;
}

/* Memory for a batch of records. */
struct batch {
    struct queues queues;
    struct form forms[BATCH_CHUNKS];
    int64_t left[BATCH_CHUNKS];
    uint8_t *values;        /* the hash of every chunk */
    struct entries entries; /* of one record */
    uint8_t *sorted;        /* the records that were not in canonical form */
    int64_t sorted_room;
};

/* Brings some records into canonical form. Returns 0, or -1 where there is no memory. */
static int find_forms(struct batch *batch, const uint8_t *buffer, const int64_t *starts, const int64_t *ends,
                      int64_t count)
{
    const uint8_t *readable = buffer;
    int64_t room = SPARE_BYTES, used = 0;
    for (int64_t i = 0; i < count; i++) {
        room += ends[i] - starts[i];
        readable = buffer + ends[i] > readable ? buffer + ends[i] : readable;
    }
    for (int64_t i = 0; i < count; i++) {
        const uint8_t *record = buffer + starts[i], *end = buffer + ends[i];
        batch->forms[i] = (struct form){record, end - record};
        if (is_canonical(record, end))
            continue;
        if (batch->sorted_room < room) { /* at the first of a batch: there is room for the others, too */
            free(batch->sorted);
            batch->sorted = malloc((size_t)room);
            batch->sorted_room = batch->sorted ? room : 0;
            if (!batch->sorted)
                return -1;
        }
        int is_written = write_canonical(record, end, readable, &batch->entries, batch->sorted + used);
        if (is_written < 0)
            return -1;
        if (is_written) {
            batch->forms[i].data = batch->sorted + used;
            used += end - record;
        }
    }
    return 0;
}

static int hash_records(struct batch *batch, const uint8_t *buffer, const int64_t *starts, const int64_t *ends,
                        int64_t count, uint64_t *high, uint64_t *low)
{
    for (int64_t begin = 0, end = 0; begin < count; begin = end) {
        int64_t chunks = 0;
        for (; end < count && end - begin < BATCH_CHUNKS; end++) {
            int64_t more = chunks_of(ends[end] - starts[end]);
            if (end > begin && chunks + more > BATCH_CHUNKS)
                break;
            batch->left[end - begin] = more;
            chunks += more;
        }
        if (find_forms(batch, buffer, starts + begin, ends + begin, end - begin))
            return -1;
        hash_chunks(&batch->queues, batch->forms, end - begin, batch->values);
        join_chunks(&batch->queues, batch->forms, end - begin, batch->values, batch->left);
        const uint8_t *out = batch->values;
        for (int64_t i = begin; i < end; out += BLAKE3_OUT_LEN * chunks_of(ends[i] - starts[i]), i++) {
            high[i] = big_endian(out);
            low[i] = big_endian(out + 8);
        }
    }
    return 0;
}

/* Writes the first 16 bytes of the BLAKE3 hash of each record's canonical form, as two big-endian numbers. Returns
   0, or -1 where there is no memory. */
int record_ids(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count, uint64_t *high,
               uint64_t *low)
{
    int64_t most = BATCH_CHUNKS;
    for (int64_t i = 0; i < count; i++) {
        int64_t chunks = chunks_of(ends[i] - starts[i]);
        most = chunks > most ? chunks : most;
    }
    struct batch *batch = calloc(1, sizeof *batch);
    int failed = -1;
    if (batch && (batch->values = malloc((size_t)most * BLAKE3_OUT_LEN))) {
        set_up(&batch->queues);
        failed = hash_records(batch, buffer, starts, ends, count, high, low);
        free(batch->values);
        free(batch->entries.items);
        free(batch->sorted);
    }
    free(batch);
    return failed;
}
