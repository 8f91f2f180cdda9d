/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UUIDs as text. */
#include "system/uuid.h"

#include <glib.h>
#include <string.h>

/* Bytes before which a dash stands. */
static bool dash_before(int byte)
{
    return byte == 4 || byte == 6 || byte == 8 || byte == 10;
}

bool uuid_parse(const char *text, uint8_t uuid[16])
{
    for (int i = 0; i < 16; i++) {
        int high, low;

        if (dash_before(i) && *text++ != '-') {
            return false;
        }
        high = g_ascii_xdigit_value(text[0]);
        low = high < 0 ? -1 : g_ascii_xdigit_value(text[1]);
        if (low < 0) {
            return false;
        }
        uuid[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    return !*text;
}

void uuid_format(const uint8_t uuid[16], char text[UUID_STR_LEN])
{
    for (int i = 0; i < 16; i++) {
        if (dash_before(i)) {
            *text++ = '-';
        }
        g_snprintf(text, 3, "%02x", uuid[i]);
        text += 2;
    }
}
