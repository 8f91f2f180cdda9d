/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON text to json-c values.
 *
 * This file finds the end of a value, so that a stream goes on behind an error. It rewrites
 * single-quoted strings into double-quoted ones. json-check.c checks the text against the grammar,
 * and json-c makes the values. The scanner's states:
 *
 *   BETWEEN  no value begun; white space is dropped
 *   WORD     in a number, true, false or null at the top level
 *   NESTED   in at least one bracket, outside strings
 *   STRING   in a string; ESCAPED after a backslash in it
 *
 * A value that was given up for its size, depth or number of parts is scanned to its end in the
 * same states, with `skipping` set.
 */
#include "qapi/json.h"

#include <errno.h>
#include <string.h>

#include "qapi/json-check.h"
#include "util/error.h"

typedef enum ScanState {
    SCAN_BETWEEN,
    SCAN_WORD,
    SCAN_NESTED,
    SCAN_STRING,
    SCAN_ESCAPED,
} ScanState;

struct JsonStream {
    JsonStreamValue *emit;
    void *opaque;
    GString *text;                /* the value so far, with single quotes rewritten */
    size_t depth;                 /* of open brackets */
    char closers[JSON_MAX_DEPTH]; /* the brackets that are to come, innermost last */
    size_t number;                /* 1 + where in text a number has begun, or 0 */
    size_t parts;                 /* brackets opened, strings, and commas outside of strings */
    ScanState state;
    char quote;    /* that ends the string */
    bool skipping; /* the value was reported and is only followed to its end */
};

/* `text` is followed by a NUL. */
static bool make_value(const char *text, size_t len, json_object **ret, GError **errp)
{
    struct json_tokener *tok = json_tokener_new_ex(JSON_MAX_DEPTH + 1);
    enum json_tokener_error error;
    size_t end;
    bool ok;

    json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    /* A number ends only at what follows it; len + 1 includes the NUL of the buffer. */
    *ret = json_tokener_parse_ex(tok, text, (int)len + 1);
    error = json_tokener_get_error(tok);
    end = json_tokener_get_parse_end(tok);
    ok = error == json_tokener_success && end >= len;
    if (!ok) {
        const char *why = error == json_tokener_success    ? "unexpected text behind the value"
                          : error == json_tokener_continue ? "unexpected end"
                                                           : json_tokener_error_desc(error);

        error_setg(errp, "JSON parse error, %s at byte %zu", why, MIN(end, len));
        json_object_put(*ret);
        *ret = NULL;
    }
    json_tokener_free(tok);
    return ok;
}

static void stream_reset(JsonStream *stream)
{
    /* A long command must not keep its memory for ever. */
    if (stream->text->allocated_len > 64 * 1024) {
        g_string_free(stream->text, TRUE);
        stream->text = g_string_new(NULL);
    } else {
        g_string_truncate(stream->text, 0);
    }
    stream->depth = 0;
    stream->number = 0;
    stream->parts = 0;
    stream->state = SCAN_BETWEEN;
    stream->skipping = false;
}

static void stream_report(JsonStream *stream, const char *message)
{
    if (!stream->skipping) {
        g_autoptr(GError) err = NULL;

        error_setg(&err, "%s", message);
        stream->emit(stream->opaque, NULL, err);
    }
}

/* Gives the value up and starts afresh with the next byte. */
static void stream_abandon(JsonStream *stream, const char *message)
{
    stream_report(stream, message);
    stream_reset(stream);
}

/*
 * A number has ended. json-c would replace an integer that is too large by the nearest one that
 * fits. With a fraction it becomes a double, which decoders refuse where an integer is needed.
 */
static void end_number(JsonStream *stream)
{
    const char *digits = stream->text->str + stream->number - 1;
    bool negative = *digits == '-';

    stream->number = 0;
    if (stream->skipping || digits[negative + strspn(digits + negative, "0123456789")] != '\0') {
        return;
    }
    errno = 0;
    if (negative) {
        g_ascii_strtoll(digits, NULL, 10);
    } else {
        g_ascii_strtoull(digits, NULL, 10);
    }
    if (errno == ERANGE) {
        g_string_append(stream->text, ".0");
    }
}

static void stream_finish(JsonStream *stream)
{
    if (stream->number > 0) {
        end_number(stream);
    }
    if (!stream->skipping) {
        g_autoptr(GError) err = NULL;
        json_object *value = NULL;

        if (json_check_text(stream->text->str, stream->text->len, &err) &&
            !make_value(stream->text->str, stream->text->len, &value, &err)) {
            value = NULL;
        }
        stream->emit(stream->opaque, value, err);
    }
    stream_reset(stream);
}

/* Keeps following the value's brackets and strings, but not its text. */
static void stream_skip(JsonStream *stream, const char *message)
{
    stream_report(stream, message);
    stream->skipping = true;
    stream->number = 0;
    g_string_free(stream->text, TRUE);
    stream->text = g_string_new(NULL);
}

static void keep(JsonStream *stream, const char *bytes, size_t len)
{
    if (stream->skipping) {
        return;
    }
    if (stream->text->len + len > JSON_MAX_TEXT) {
        stream_skip(stream, "JSON token size limit exceeded");
        return;
    }
    g_string_append_len(stream->text, bytes, (gssize)len);
}

static void keep_char(JsonStream *stream, char c)
{
    keep(stream, &c, 1);
}

static void open_bracket(JsonStream *stream, char c)
{
    if (stream->depth < JSON_MAX_DEPTH) {
        stream->closers[stream->depth] = c == '{' ? '}' : ']';
    } else if (!stream->skipping) {
        stream_skip(stream, "JSON nesting depth limit exceeded");
    }
    stream->depth++;
    keep_char(stream, c);
    stream->state = SCAN_NESTED;
}

static void close_bracket(JsonStream *stream, char c)
{
    /* Brackets beyond the limit are only counted. */
    if (stream->depth == 0 ||
        (stream->depth <= JSON_MAX_DEPTH && stream->closers[stream->depth - 1] != c)) {
        g_autofree char *message = g_strdup_printf("JSON parse error, unexpected '%c'", c);

        stream_abandon(stream, message);
        return;
    }
    keep_char(stream, c);
    if (--stream->depth == 0) {
        stream_finish(stream);
    }
}

static void open_string(JsonStream *stream, char quote)
{
    stream->quote = quote;
    stream->state = SCAN_STRING;
    keep_char(stream, '"');
}

static void close_string(JsonStream *stream)
{
    keep_char(stream, '"');
    stream->state = SCAN_NESTED;
    if (stream->depth == 0) {
        stream_finish(stream);
    }
}

static void scan_escape(JsonStream *stream, char c)
{
    stream->state = SCAN_STRING;
    if (c != '\'') {
        keep_char(stream, '\\');
    }
    keep_char(stream, c);
}

static void scan_string(JsonStream *stream, char c)
{
    if (c == stream->quote) {
        close_string(stream);
    } else if (c == '\\') {
        stream->state = SCAN_ESCAPED;
    } else {
        if (c == '"') {
            keep_char(stream, '\\');
        }
        keep_char(stream, c);
    }
}

static void scan_outside(JsonStream *stream, char c)
{
    bool top = stream->depth == 0;
    bool in_number = g_ascii_isdigit(c) || (c && strchr("+-.eE", c));

    if (stream->number > 0 && !in_number) {
        end_number(stream);
    } else if (stream->number == 0 && (g_ascii_isdigit(c) || c == '-') && !stream->skipping) {
        stream->number = stream->text->len + 1;
    }
    /* A word at the top ends at whatever can't be part of it, which then starts the next value. */
    if (stream->state == SCAN_WORD && (g_ascii_isspace(c) || strchr("{}[]\"',:", c))) {
        stream_finish(stream);
    }
    if (c && strchr("{[\"',", c) && ++stream->parts > JSON_MAX_PARTS && !stream->skipping) {
        stream_skip(stream, "JSON token count limit exceeded");
    }
    switch (c) {
    case '{':
    case '[':
        open_bracket(stream, c);
        break;
    case '}':
    case ']':
        close_bracket(stream, c);
        break;
    case '"':
    case '\'':
        open_string(stream, c);
        break;
    default:
        if (top && g_ascii_isspace(c)) {
            break;
        }
        keep_char(stream, c);
        stream->state = top ? SCAN_WORD : SCAN_NESTED;
        break;
    }
}

static bool is_control(char c)
{
    return (unsigned char)c < 0x20 && c != '\t' && c != '\n' && c != '\r';
}

static void scan_byte(JsonStream *stream, char c)
{
    bool in_string = stream->state == SCAN_STRING || stream->state == SCAN_ESCAPED;

    if ((unsigned char)c == 0xff || is_control(c)) {
        stream_abandon(stream, "JSON parse error, invalid byte in input");
    } else if (in_string && (unsigned char)c < 0x20) {
        stream_abandon(stream, "JSON parse error, control character in a string");
    } else if (stream->state == SCAN_ESCAPED) {
        scan_escape(stream, c);
    } else if (stream->state == SCAN_STRING) {
        scan_string(stream, c);
    } else {
        scan_outside(stream, c);
    }
}

/* The run of bytes from `bytes` that mean nothing to the scanner inside a string. */
static size_t plain_run(const JsonStream *stream, const char *bytes, size_t len)
{
    size_t n = 0;

    if (stream->state != SCAN_STRING) {
        return 0;
    }
    while (n < len && (unsigned char)bytes[n] >= 0x20 && (unsigned char)bytes[n] != 0xff &&
           bytes[n] != '"' && bytes[n] != '\'' && bytes[n] != '\\') {
        n++;
    }
    return n;
}

void json_stream_feed(JsonStream *stream, const char *bytes, size_t len)
{
    while (len > 0) {
        size_t run = plain_run(stream, bytes, len);

        if (run > 0) {
            keep(stream, bytes, run);
        } else {
            scan_byte(stream, *bytes);
            run = 1;
        }
        bytes += run;
        len -= run;
    }
}

void json_stream_end(JsonStream *stream)
{
    if (stream->state == SCAN_WORD) {
        stream_finish(stream);
    } else if (stream->state != SCAN_BETWEEN) {
        stream_abandon(stream, "JSON parse error, unexpected end of input");
    }
}

bool json_stream_is_idle(const JsonStream *stream)
{
    return stream->state == SCAN_BETWEEN;
}

JsonStream *json_stream_new(JsonStreamValue *emit, void *opaque)
{
    JsonStream *stream = g_new0(JsonStream, 1);

    stream->emit = emit;
    stream->opaque = opaque;
    stream->text = g_string_new(NULL);
    return stream;
}

void json_stream_free(JsonStream *stream)
{
    if (stream) {
        g_string_free(stream->text, TRUE);
        g_free(stream);
    }
}

/* ---- one text */

typedef struct OneValue {
    json_object *value;
    GError *err;
    int count;
} OneValue;

static void take_value(void *opaque, json_object *value, const GError *err)
{
    OneValue *one = opaque;

    if (one->count++ == 0) {
        one->value = value;
        one->err = err ? g_error_copy(err) : NULL;
    } else {
        json_object_put(value);
    }
}

bool json_parse_text(const char *text, size_t len, json_object **ret, GError **errp)
{
    OneValue one = {0};
    g_autoptr(JsonStream) stream = json_stream_new(take_value, &one);

    *ret = NULL;
    json_stream_feed(stream, text, len);
    json_stream_end(stream);
    if (one.err) {
        g_propagate_error(errp, one.err);
        return false;
    }
    if (one.count != 1) {
        error_setg(errp, one.count ? "JSON parse error, more than one value"
                                   : "JSON parse error, no value");
        json_object_put(one.value);
        return false;
    }
    *ret = one.value;
    return true;
}
