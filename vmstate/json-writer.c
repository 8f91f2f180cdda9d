/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSONWriter: text with separators, indentation and escapes. */
#include "vmstate/json-writer.h"
#include <string.h>

struct JSONWriter {
    GString *text;
    GString *closers; /* what ends each container that is open, innermost last */
    bool pretty;
    bool has_items; /* the innermost container is not empty */
};

JSONWriter *json_writer_new(bool pretty)
{
    JSONWriter *w = g_new0(JSONWriter, 1);

    w->text = g_string_new(NULL);
    w->closers = g_string_new(NULL);
    w->pretty = pretty;
    return w;
}

void json_writer_free(JSONWriter *w)
{
    if (w) {
        g_string_free(w->text, TRUE);
        g_string_free(w->closers, TRUE);
        g_free(w);
    }
}

static void json_writer_new_line(JSONWriter *w)
{
    g_string_append_printf(w->text, "\n%*s", (int)(2 * w->closers->len), "");
}

static void json_writer_escaped(JSONWriter *w, const char *str)
{
    const char *end = str + strlen(str);

    g_string_append_c(w->text, '"');
    while (str < end) {
        gunichar c = g_utf8_get_char_validated(str, end - str);

        if (c == (gunichar)-1 || c == (gunichar)-2) {
            g_string_append(w->text, "\\ufffd");
            str++;
            continue;
        }
        if (c == '"' || c == '\\') {
            g_string_append_c(w->text, '\\');
            g_string_append_c(w->text, (char)c);
        } else if (c >= 0x20 && c < 0x7f) {
            g_string_append_c(w->text, (char)c);
        } else if (c < 0x10000) {
            g_string_append_printf(w->text, "\\u%04x", c);
        } else {
            g_string_append_printf(w->text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
                                   0xdc00 + ((c - 0x10000) & 0x3ff));
        }
        str = g_utf8_next_char(str);
    }
    g_string_append_c(w->text, '"');
}

/* What stands before a value: separator, place, name. */
static void json_writer_item(JSONWriter *w, const char *name)
{
    bool in_object = w->closers->len > 0 && w->closers->str[w->closers->len - 1] == '}';

    g_assert(in_object == (name != NULL));
    if (w->has_items) {
        g_string_append(w->text, w->pretty ? "," : ", ");
    }
    if (w->pretty && w->closers->len > 0) {
        json_writer_new_line(w);
    }
    if (name) {
        json_writer_escaped(w, name);
        g_string_append(w->text, ": ");
    }
    w->has_items = true;
}

static void json_writer_start(JSONWriter *w, const char *name, char opener, char closer)
{
    json_writer_item(w, name);
    g_string_append_c(w->text, opener);
    g_string_append_c(w->closers, closer);
    w->has_items = false;
}

static void json_writer_end(JSONWriter *w, char closer)
{
    g_assert(w->closers->len > 0 && w->closers->str[w->closers->len - 1] == closer);
    g_string_truncate(w->closers, w->closers->len - 1);
    if (w->pretty && w->has_items) {
        json_writer_new_line(w);
    }
    g_string_append_c(w->text, closer);
    w->has_items = true;
}

void json_writer_start_object(JSONWriter *w, const char *name)
{
    json_writer_start(w, name, '{', '}');
}

void json_writer_end_object(JSONWriter *w)
{
    json_writer_end(w, '}');
}

void json_writer_start_array(JSONWriter *w, const char *name)
{
    json_writer_start(w, name, '[', ']');
}

void json_writer_end_array(JSONWriter *w)
{
    json_writer_end(w, ']');
}

void json_writer_bool(JSONWriter *w, const char *name, bool value)
{
    json_writer_item(w, name);
    g_string_append(w->text, value ? "true" : "false");
}

void json_writer_int64(JSONWriter *w, const char *name, int64_t value)
{
    json_writer_item(w, name);
    g_string_append_printf(w->text, "%" G_GINT64_FORMAT, value);
}

void json_writer_uint64(JSONWriter *w, const char *name, uint64_t value)
{
    json_writer_item(w, name);
    g_string_append_printf(w->text, "%" G_GUINT64_FORMAT, value);
}

void json_writer_str(JSONWriter *w, const char *name, const char *value)
{
    json_writer_item(w, name);
    json_writer_escaped(w, value);
}

const char *json_writer_get(const JSONWriter *w)
{
    return w->text->str;
}

size_t json_writer_length(const JSONWriter *w)
{
    return w->text->len;
}
