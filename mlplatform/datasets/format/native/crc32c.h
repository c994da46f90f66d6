/* CRC-32C, as TFRecord has it. */

#pragma once

#include <stdint.h>

uint32_t masked_crc32c(const uint8_t *data, int64_t size, int uses_instruction);
