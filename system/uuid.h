/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UUIDs as text (RFC 4122, section 3). */
#ifndef FERRY_SYSTEM_UUID_H
#define FERRY_SYSTEM_UUID_H

#include <stdbool.h>
#include <stdint.h>

#define UUID_STR_LEN 37 /* with the final NUL */

bool uuid_parse(const char *text, uint8_t uuid[16]);
void uuid_format(const uint8_t uuid[16], char text[UUID_STR_LEN]);

#endif
