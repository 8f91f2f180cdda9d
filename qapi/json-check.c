/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The grammar of one JSON text: a pass over its bytes, without a value being made.
 *
 * json-c in its strict mode takes numbers such as `00` and `5.`, lone surrogates, bad UTF-8 in some
 * places and names that occur twice. A text that passes here is one that all parsers read alike.
 *
 *   state    what may stand next                  then
 *   VALUE    a value                              AFTER, or inside the bracket that it opens
 *   ITEM     a value, or ] right behind [         as VALUE
 *   NAME     a name and its colon                 VALUE
 *   MEMBER   a name, or } right behind {          as NAME
 *   AFTER    a comma or the closing bracket       NAME, VALUE or AFTER; at the top: the end
 */
#include "qapi/json-check.h"

#include <string.h>

#include "util/error.h"

typedef enum CheckState {
    CHECK_VALUE,
    CHECK_ITEM,
    CHECK_NAME,
    CHECK_MEMBER,
    CHECK_AFTER
} CheckState;

typedef struct JsonCheck {
    const char *at, *end;
    const char *why;   /* the mistake at `at`; NULL: none so far */
    CheckState state;  /* outside of strings and words */
    GPtrArray *levels; /* open brackets: GHashTable, the names of an object; NULL: an array */
} JsonCheck;

static bool mistake(JsonCheck *check, const char *why)
{
    check->why = why;
    return false;
}

/* The next byte; NUL at the end, which no grammar has a place for. */
static char peek(const JsonCheck *check)
{
    return check->at < check->end ? *check->at : '\0';
}

static bool take(JsonCheck *check, char c)
{
    if (check->at < check->end && *check->at == c) {
        check->at++;
        return true;
    }
    return false;
}

static void free_names(gpointer names)
{
    if (names) {
        g_hash_table_unref(names);
    }
}

/* --- numbers and words --- */

static bool take_digits(JsonCheck *check)
{
    const char *begin = check->at;

    while (g_ascii_isdigit(peek(check))) {
        check->at++;
    }
    return check->at > begin || mistake(check, "a number lacks a digit");
}

static bool take_number(JsonCheck *check)
{
    (void)take(check, '-');
    if (take(check, '0')) {
        if (g_ascii_isdigit(peek(check))) {
            return mistake(check, "a number begins with a needless zero");
        }
    } else if (!take_digits(check)) {
        return false;
    }
    if (take(check, '.') && !take_digits(check)) {
        return false;
    }
    if (take(check, 'e') || take(check, 'E')) {
        if (!take(check, '-')) {
            (void)take(check, '+');
        }
        return take_digits(check);
    }
    return true;
}

static bool take_word(JsonCheck *check)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        size_t len = strlen(words[i]);

        if ((size_t)(check->end - check->at) >= len && !memcmp(check->at, words[i], len)) {
            check->at += len;
            return true;
        }
    }
    return mistake(check, check->at < check->end ? "unexpected character" : "unexpected end");
}

/* --- strings --- */

/* The four digits behind \u. */
static bool take_hex4(JsonCheck *check, gunichar *ret)
{
    *ret = 0;
    for (int i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(peek(check));

        if (digit < 0) {
            return mistake(check, "invalid escape sequence in a string");
        }
        *ret = *ret << 4 | (gunichar)digit;
        check->at++;
    }
    return true;
}

static bool take_unicode(JsonCheck *check, gunichar *ret)
{
    gunichar low;

    if (!take_hex4(check, ret)) {
        return false;
    }
    if (*ret < 0xd800 || *ret > 0xdfff) {
        return true;
    }
    if (*ret > 0xdbff || !take(check, '\\') || !take(check, 'u')) {
        return mistake(check, "a surrogate without its pair in a string");
    }
    if (!take_hex4(check, &low)) {
        return false;
    }
    if (low < 0xdc00 || low > 0xdfff) {
        return mistake(check, "a surrogate without its pair in a string");
    }
    *ret = 0x10000 + ((*ret - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

/* What follows a backslash; `out` (NULL: not wanted) gets the character. */
static bool take_escape(JsonCheck *check, GString *out)
{
    static const char plain[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    char c = peek(check);
    const char *found = c ? strchr(plain, c) : NULL;
    gunichar code;

    if (found) {
        check->at++;
        code = (gunichar)meaning[found - plain];
    } else if (!take(check, 'u')) {
        return mistake(check, "invalid escape sequence in a string");
    } else if (!take_unicode(check, &code)) {
        return false;
    }
    if (out && !code) {
        return mistake(check, "NUL in the name of a member");
    }
    if (out) {
        g_string_append_unichar(out, code);
    }
    return true;
}

/* A run of bytes that stand for themselves. */
static bool take_plain(JsonCheck *check, GString *out)
{
    const char *begin = check->at, *bad;

    while (check->at < check->end && *check->at != '"' && *check->at != '\\') {
        if ((unsigned char)*check->at < 0x20) {
            return mistake(check, "control character in a string");
        }
        check->at++;
    }
    if (!g_utf8_validate_len(begin, (gsize)(check->at - begin), &bad)) {
        check->at = bad;
        return mistake(check, "invalid UTF-8 in a string");
    }
    if (out) {
        g_string_append_len(out, begin, check->at - begin);
    }
    return true;
}

/* From the quote on; `out` (NULL: not wanted) gets the text. */
static bool take_string(JsonCheck *check, GString *out)
{
    check->at++;
    while (!take(check, '"')) {
        if (check->at == check->end) {
            return mistake(check, "unexpected end");
        }
        if (take(check, '\\') ? !take_escape(check, out) : !take_plain(check, out)) {
            return false;
        }
    }
    return true;
}

/* --- brackets --- */

static void skip_space(JsonCheck *check)
{
    while (check->at < check->end && strchr(" \t\r\n", *check->at) && *check->at) {
        check->at++;
    }
}

static void open_level(JsonCheck *check, bool object)
{
    check->at++;
    g_ptr_array_add(check->levels,
                    object ? g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL) : NULL);
    check->state = object ? CHECK_MEMBER : CHECK_ITEM;
}

static bool close_level(JsonCheck *check)
{
    guint depth = check->levels->len;
    bool object = depth && g_ptr_array_index(check->levels, depth - 1);

    if (!depth) {
        return mistake(check, "unexpected text behind the value");
    }
    if (!take(check, object ? '}' : ']')) {
        return mistake(check, check->at < check->end ? "unexpected character" : "unexpected end");
    }
    g_ptr_array_set_size(check->levels, (gint)depth - 1);
    check->state = CHECK_AFTER;
    return true;
}

/* A name that its object does not have yet, and the colon. */
static bool take_name(JsonCheck *check)
{
    GHashTable *names = g_ptr_array_index(check->levels, check->levels->len - 1);
    const char *begin = check->at;
    g_autoptr(GString) name = NULL;

    if (peek(check) != '"') {
        return mistake(check, "a member without a name");
    }
    name = g_string_new(NULL);
    if (!take_string(check, name)) {
        return false;
    }
    if (!g_hash_table_add(names, g_strdup(name->str))) {
        check->at = begin;
        return mistake(check, "duplicate key");
    }
    skip_space(check);
    check->state = CHECK_VALUE;
    return take(check, ':') || mistake(check, "a name without a colon");
}

static bool take_value(JsonCheck *check)
{
    char c = peek(check);

    if (c == '{' || c == '[') {
        open_level(check, c == '{');
        return true;
    }
    check->state = CHECK_AFTER;
    if (c == '"') {
        return take_string(check, NULL);
    }
    return c == '-' || g_ascii_isdigit(c) ? take_number(check) : take_word(check);
}

static bool take_next(JsonCheck *check)
{
    bool object;

    switch (check->state) {
    case CHECK_ITEM:
        return peek(check) == ']' ? close_level(check) : take_value(check);
    case CHECK_VALUE:
        return take_value(check);
    case CHECK_MEMBER:
        return peek(check) == '}' ? close_level(check) : take_name(check);
    case CHECK_NAME:
        return take_name(check);
    default:
        object = check->levels->len && g_ptr_array_index(check->levels, check->levels->len - 1);
        if (check->levels->len && take(check, ',')) {
            check->state = object ? CHECK_NAME : CHECK_VALUE;
            return true;
        }
        return close_level(check);
    }
}

bool json_check_text(const char *text, size_t len, GError **errp)
{
    g_autoptr(GPtrArray) levels = g_ptr_array_new_with_free_func(free_names);
    JsonCheck check = {.at = text, .end = text + len, .levels = levels};
    bool ok = true;

    while (ok) {
        skip_space(&check);
        if (check.at == check.end && check.state == CHECK_AFTER && !levels->len) {
            return true;
        }
        ok = take_next(&check);
    }
    error_setg(errp, "JSON parse error, %s at byte %zu", check.why, (size_t)(check.at - text));
    return false;
}
