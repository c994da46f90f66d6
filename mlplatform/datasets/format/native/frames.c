/* TFRecord frames: what `tfrecord.py` does with NumPy, and the same for any bytes, damaged ones included. */

#include <stdint.h>
#include <string.h>

#include "crc32c.h"

#define HEADER_BYTES 12 /* length and its checksum before the payload */
#define FRAME_BYTES 16  /* and the payload's checksum behind it */

/* Follows the whole frames in `buffer[:size]`, from 0 on, of which each length fits its checksum. Writes where the
   payloads begin and their sizes, at most `room` of each, and returns how many there are. `used` is where the frame
   behind the last one begins; `is_damaged` says that its header is there, and that its length does not fit. */
int64_t find_frames(const uint8_t *buffer, int64_t size, int64_t *starts, int64_t *sizes, int64_t room,
                    int uses_instruction, int64_t *used, int64_t *is_damaged)
{
    int64_t count = 0, at = 0;
    *is_damaged = 0;
    while (count < room && at <= size - HEADER_BYTES) {
        uint64_t length;
        uint32_t written;
        memcpy(&length, buffer + at, sizeof length);
        memcpy(&written, buffer + at + sizeof length, sizeof written);
        if (masked_crc32c(buffer + at, sizeof length, uses_instruction) != written) {
            *is_damaged = 1;
            break;
        }
        if (size - at < FRAME_BYTES || length > (uint64_t)(size - at - FRAME_BYTES))
            break;
        starts[count] = at + HEADER_BYTES;
        sizes[count++] = (int64_t)length;
        at += (int64_t)length + FRAME_BYTES;
    }
    *used = at;
    return count;
}

/* Returns whether all records lie in a buffer of `size` bytes. */
int lie_within(const int64_t *starts, const int64_t *ends, int64_t count, int64_t size)
{
    int are_outside = 0;
    for (int64_t i = 0; i < count; i++)
        are_outside |= (starts[i] < 0) | (starts[i] > ends[i]) | (ends[i] > size);
    return !are_outside;
}
