/* CRC-32C (Castagnoli), the checksum of TFRecord, of many records at once. Source: RFC 3720, section 12.1. */

#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#define SIDE_BY_SIDE 4 /* the instruction takes three cycles, and one can begin in each */

static uint32_t table[256];

__attribute__((constructor)) static void fill_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78 : 0);
        table[byte] = crc;
    }
}

static void checksums_by_table(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count,
                               uint32_t *crcs)
{
    for (int64_t i = 0; i < count; i++) {
        uint32_t crc = UINT32_MAX;
        for (const uint8_t *at = buffer + starts[i]; at < buffer + ends[i]; at++)
            crc = crc >> 8 ^ table[(crc ^ *at) & 255];
        crcs[i] = ~crc;
    }
}

#if __x86_64__
static inline __attribute__((always_inline, target("sse4.2"))) uint64_t step8(uint64_t crc, const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
    return __builtin_ia32_crc32di(crc, word);
}

__attribute__((target("sse4.2"))) static uint32_t finish(uint64_t crc, const uint8_t *at, const uint8_t *end)
{
    for (; end - at >= 8; at += 8)
        crc = step8(crc, at);
    for (; at < end; at++)
        crc = __builtin_ia32_crc32qi((uint32_t)crc, *at);
    return ~(uint32_t)crc;
}

__attribute__((target("sse4.2"))) static void checksums_by_instruction(const uint8_t *buffer,
                                                                       const int64_t *starts,
                                                                       const int64_t *ends, int64_t count,
                                                                       uint32_t *crcs)
{
    int64_t i = 0;
    for (; i + SIDE_BY_SIDE <= count; i += SIDE_BY_SIDE) {
        const uint8_t *a = buffer + starts[i], *b = buffer + starts[i + 1], *c = buffer + starts[i + 2],
                      *d = buffer + starts[i + 3];
        uint64_t crc_a = UINT32_MAX, crc_b = UINT32_MAX, crc_c = UINT32_MAX, crc_d = UINT32_MAX;
        int64_t least = ends[i] - starts[i];
        for (int other = 1; other < SIDE_BY_SIDE; other++)
            if (ends[i + other] - starts[i + other] < least)
                least = ends[i + other] - starts[i + other];
        for (int64_t at = 0; at + 8 <= least; at += 8, a += 8, b += 8, c += 8, d += 8) {
            crc_a = step8(crc_a, a);
            crc_b = step8(crc_b, b);
            crc_c = step8(crc_c, c);
            crc_d = step8(crc_d, d);
        }
        crcs[i] = finish(crc_a, a, buffer + ends[i]);
        crcs[i + 1] = finish(crc_b, b, buffer + ends[i + 1]);
        crcs[i + 2] = finish(crc_c, c, buffer + ends[i + 2]);
        crcs[i + 3] = finish(crc_d, d, buffer + ends[i + 3]);
    }
    for (; i < count; i++)
        crcs[i] = finish(UINT32_MAX, buffer + starts[i], buffer + ends[i]);
}
#endif

/* Writes the CRC-32C, not masked, of each payload, by the processor's instruction where it has one and
   `uses_instruction` allows it. */
void crc32c_checksums(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count,
                      uint32_t *crcs, int uses_instruction)
{
#if __x86_64__
    if (uses_instruction && __builtin_cpu_supports("sse4.2")) {
        checksums_by_instruction(buffer, starts, ends, count, crcs);
        return;
    }
#endif
    (void)uses_instruction;
    checksums_by_table(buffer, starts, ends, count, crcs);
}

static uint32_t masked(uint32_t crc)
{
    return (crc >> 15 | crc << 17) + 0xA282EAD8;
}

/* Returns the CRC-32C of some bytes as TFRecord masks it. */
uint32_t masked_crc32c(const uint8_t *data, int64_t size, int uses_instruction)
{
#if __x86_64__
    if (uses_instruction && __builtin_cpu_supports("sse4.2"))
        return masked(finish(UINT32_MAX, data, data + size));
#endif
    const int64_t start = 0;
    uint32_t crc;
    crc32c_checksums(data, &start, &size, 1, &crc, uses_instruction);
    return masked(crc);
}

/* Returns the first record that does not fit the checksum behind it, as TFRecord masks it; `count` where all do. */
int64_t first_damaged(const uint8_t *buffer, const int64_t *starts, const int64_t *ends, int64_t count,
                      int uses_instruction)
{
    uint32_t crcs[512];
    const int64_t room = sizeof crcs / sizeof *crcs;
    for (int64_t begin = 0; begin < count; begin += room) {
        int64_t some = count - begin < room ? count - begin : room;
        crc32c_checksums(buffer, starts + begin, ends + begin, some, crcs, uses_instruction);
        for (int64_t i = 0; i < some; i++) {
            uint32_t written;
            memcpy(&written, buffer + ends[begin + i], sizeof written);
            if (written != masked(crcs[i]))
                return begin + i;
        }
    }
    return count;
}
