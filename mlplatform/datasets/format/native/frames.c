/* TFRecord frames: what `tfrecord.py` does with NumPy, and the same for any bytes, damaged ones included. */

#include <stdint.h>
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
