/* SPDX-License-Identifier: GPL-2.0-or-later */
/* JSON text: what is accepted, what is refused, and how a stream goes on after a mistake. */
#include <string.h>

#include "qapi/json.h"

/* What a stream gave, one line a value: its compact text, or "!" and the message. */
static void log_value(void *opaque, json_object *value, const GError *err)
{
    GString *log = opaque;

    if (err) {
        g_string_append_printf(log, "!%s\n", err->message);
    } else {
        g_string_append_printf(log, "%s\n",
                               json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
    }
    json_object_put(value);
}

static char *run_stream(const char *input, size_t len, size_t step)
{
    GString *log = g_string_new(NULL);
    g_autoptr(JsonStream) stream = json_stream_new(log_value, log);

    for (size_t at = 0; at < len; at += step) {
        json_stream_feed(stream, input + at, MIN(step, len - at));
    }
    json_stream_end(stream);
    g_assert_true(json_stream_is_idle(stream));
    return g_string_free(log, FALSE);
}

/* The result must not depend on how the input is cut. */
static void check_stream(const char *input, const char *expected)
{
    static const size_t steps[] = {1, 2, 3, 7, 4096};

    for (size_t i = 0; i < G_N_ELEMENTS(steps); i++) {
        g_autofree char *got = run_stream(input, strlen(input), steps[i]);

        g_assert_cmpstr(got, ==, expected);
    }
}

static void test_stream_splits_values(void)
{
    check_stream("{\"a\":1}{\"b\":[2]}\n\n[3] 4 \"five\"null true-6.5",
                 "{\"a\":1}\n{\"b\":[2]}\n[3]\n4\n\"five\"\nnull\n"
                 "!JSON parse error, unexpected text behind the value at byte 4\n");
    check_stream("", "");
    check_stream(" \t\r\n", "");
}

static void test_single_quotes(void)
{
    check_stream("{'execute':'quit'}", "{\"execute\":\"quit\"}\n");
    check_stream("['a\"b', 'it\\'s', \"it\\'s\", 'a\\\"b']",
                 "[\"a\\\"b\",\"it's\",\"it's\",\"a\\\"b\"]\n");
    check_stream("[\"it's\"]", "[\"it's\"]\n");
}

static void test_stream_survives_mistakes(void)
{
    check_stream("{\"a\":}{\"b\":1}",
                 "!JSON parse error, unexpected character at byte 5\n{\"b\":1}\n");
    check_stream("}}{\"b\":1}", "!JSON parse error, unexpected '}'\n"
                                "!JSON parse error, unexpected '}'\n{\"b\":1}\n");
    check_stream("{\"a\":[1}\n{\"b\":1}", "!JSON parse error, unexpected '}'\n{\"b\":1}\n");
    check_stream("{\"a\n{\"b\":1}",
                 "!JSON parse error, control character in a string\n{\"b\":1}\n");
    check_stream("{\"a\xff{\"b\":1}", "!JSON parse error, invalid byte in input\n{\"b\":1}\n");
    check_stream("{\"a\":1", "!JSON parse error, unexpected end of input\n");
}

/* A backslash outside of strings may be the last byte that the scanner holds, whatever its buffer's size. */
static void test_backslash_before_colon(void)
{
    for (int spaces = 0; spaces < 300; spaces++) {
        g_autofree char *blank = g_strnfill(spaces, ' ');
        g_autofree char *text = g_strdup_printf("{%s\\:1}", blank);
        g_autofree char *log = run_stream(text, strlen(text), strlen(text));

        g_assert_true(g_str_has_prefix(log, "!JSON parse error"));
    }
}

static void test_strictness(void)
{
    static const char *const refused[] = {
        "[1,]",      "{\"a\":1,}", "[01]",   "[1 2]",          "{\"a\" 1}",
        "[NaN]",     "[Infinity]", "[True]", "[+1]",           "[/* no */ 1]",
        "[\"\\x\"]", "[.5]",       "{1:2}",  "[\"\xc3\x28\"]", "nul",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autofree char *shown = g_strescape(refused[i], NULL);
        g_autoptr(GError) err = NULL;
        json_object *value;

        g_test_message("%s", shown); /* not all of them are UTF-8 */
        g_assert_false(json_parse_text(refused[i], strlen(refused[i]), &value, &err));
        g_assert_nonnull(err);
        g_assert_null(value);
    }
}

/* Each text is wrong in one way, and the error says which. */
static void test_names_the_mistake(void)
{
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"5.", "a number lacks a digit at byte 2"},
        {"[5.]", "a number lacks a digit at byte 3"},
        {"-.5", "a number lacks a digit at byte 1"},
        {"[-]", "a number lacks a digit at byte 2"},
        {"[1e]", "a number lacks a digit at byte 3"},
        {"[1e+]", "a number lacks a digit at byte 4"},
        {"[1.e1]", "a number lacks a digit at byte 3"},
        {"00", "a number begins with a needless zero at byte 1"},
        {"-01", "a number begins with a needless zero at byte 2"},
        {"[0x1]", "unexpected character at byte 2"},
        {"[NaN]", "unexpected character at byte 1"},
        {"[-Infinity]", "a number lacks a digit at byte 2"},
        {"{\"a\":1,\"a\":2}", "duplicate key at byte 7"},
        {"{\"a\":{},\"b\":[{\"c\":1,\"\\u0063\":2}]}", "duplicate key at byte 20"},
        {"{'a':1,\"a\":2}", "duplicate key at byte 7"},
        {"{\"\\u0000\":1}", "NUL in the name of a member at byte 8"},
        {"[\"\xc3\x28\"]", "invalid UTF-8 in a string at byte 2"},
        {"[\"\xc0\x80\"]", "invalid UTF-8 in a string at byte 2"},
        {"[\"\xed\xa0\x80\"]", "invalid UTF-8 in a string at byte 2"},
        {"[\"ab\xf4\x90\x80\x80\"]", "invalid UTF-8 in a string at byte 4"},
        {"{\"\xe2\x82\":1}", "invalid UTF-8 in a string at byte 2"},
        {"[\"\\ud800\"]", "a surrogate without its pair in a string at byte 8"},
        {"[\"\\udc00\"]", "a surrogate without its pair in a string at byte 8"},
        {"[\"\\ud800\\u0041\"]", "a surrogate without its pair in a string at byte 14"},
        {"[\"\\u12g4\"]", "invalid escape sequence in a string at byte 6"},
        {"[\"\\x41\"]", "invalid escape sequence in a string at byte 3"},
        {"{\"a\"}", "a name without a colon at byte 4"},
        {"{\"a\":}", "unexpected character at byte 5"},
        {"{,}", "a member without a name at byte 1"},
        {"{\"a\":1,}", "a member without a name at byte 7"},
        {"[1,]", "unexpected character at byte 3"},
        {"[,1]", "unexpected character at byte 1"},
        {"[1:2]", "unexpected character at byte 2"},
        {"truefalse", "unexpected text behind the value at byte 4"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *whole = g_strconcat("JSON parse error, ", cases[i].why, NULL);
        g_autoptr(GError) err = NULL;
        json_object *value;

        g_autofree char *shown = g_strescape(cases[i].text, NULL);

        g_test_message("%s", shown); /* not all of them are UTF-8 */
        g_assert_false(json_parse_text(cases[i].text, strlen(cases[i].text), &value, &err));
        g_assert_cmpstr(err->message, ==, whole);
    }
}

static void test_takes_what_the_grammar_has(void)
{
    check_stream("[0,-0,10,-10,1.0,0.5,1e5,1E+5,1e-5,-0.0e0]",
                 "[0,0,10,-10,1.0,0.5,1e5,1E+5,1e-5,-0.0e0]\n");
    check_stream("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]", "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]\n");
    check_stream("[\"\\ud83d\\ude00\",\"\xf0\x9f\x98\x80\"]",
                 "[\"\xf0\x9f\x98\x80\",\"\xf0\x9f\x98\x80\"]\n");
    check_stream("{\"\":1,\" \":2,\"a\":{\"a\":{}},\"b\":[[],{}]}",
                 "{\"\":1,\" \":2,\"a\":{\"a\":{}},\"b\":[[],{}]}\n");
    check_stream("[\"\\u0000\"]", "[\"\\u0000\"]\n");
    check_stream(" [ true , false , null ] ", "[true,false,null]\n");
}

static void test_integers(void)
{
    g_autoptr(GError) err = NULL;
    json_object *value;

    g_assert_true(json_parse_text("18446744073709551615", 20, &value, &err));
    g_assert_cmpuint(json_object_get_uint64(value), ==, UINT64_MAX);
    json_object_put(value);
    g_assert_true(json_parse_text("-9223372036854775808", 20, &value, &err));
    g_assert_cmpint(json_object_get_int64(value), ==, INT64_MIN);
    json_object_put(value);
    check_stream("18446744073709551616", "18446744073709551616.0\n");
    check_stream("[-9223372036854775809,1]", "[-9223372036854775809.0,1]\n");
    check_stream("[99999999999999999999e1, 0.99999999999999999999]",
                 "[99999999999999999999e1,0.99999999999999999999]\n");
}

static char *nested(size_t depth)
{
    char *text = g_malloc(2 * depth + 1);

    memset(text, '[', depth);
    memset(text + depth, ']', depth);
    text[2 * depth] = '\0';
    return text;
}

static void test_depth_limit(void)
{
    g_autofree char *fits = nested(JSON_MAX_DEPTH);
    g_autofree char *deep = nested(5 * JSON_MAX_DEPTH);
    g_autofree char *input = g_strconcat(deep, " 7", NULL);
    g_autoptr(GError) err = NULL;
    json_object *value;

    g_assert_true(json_parse_text(fits, strlen(fits), &value, &err));
    g_assert_no_error(err);
    json_object_put(value);
    check_stream(input, "!JSON nesting depth limit exceeded\n7\n");
}

static void test_size_limit(void)
{
    GString *input = g_string_new("[\"");
    g_autofree char *got = NULL;
    g_autofree char *mebibyte = g_strnfill(1024 * 1024, 'x');

    for (int i = 0; i < 65; i++) {
        g_string_append(input, mebibyte);
    }
    g_string_append(input, "\", {\"in\": [1]}] 7");
    got = run_stream(input->str, input->len, 1000 * 1000);
    g_assert_cmpstr(got, ==, "!JSON token size limit exceeded\n7\n");
    g_string_free(input, TRUE);
}

static void test_parts_limit(void)
{
    g_autoptr(GString) text = g_string_new("[[]");

    for (int i = 2; i < JSON_MAX_PARTS / 2; i++) {
        g_string_append(text, ",[]");
    }
    g_string_append(text, "]7 ");
    {
        g_autofree char *got = run_stream(text->str, text->len, 4096);

        g_assert_true(g_str_has_prefix(got, "[[],[],") && g_str_has_suffix(got, ",[]]\n7\n"));
    }
    g_string_insert(text, 1, "'','',");
    {
        g_autofree char *got = run_stream(text->str, text->len, 4096);

        g_assert_true(strcmp(got, "!JSON token count limit exceeded\n7\n") == 0);
    }
}

static void test_one_text(void)
{
    g_autoptr(GError) err = NULL;
    json_object *value;

    g_assert_true(json_parse_text(" null ", 6, &value, &err));
    g_assert_null(value);
    g_assert_false(json_parse_text("1 2", 3, &value, &err));
    g_clear_error(&err);
    g_assert_false(json_parse_text("", 0, &value, &err));
    g_clear_error(&err);
    g_assert_false(json_parse_text("[1", 2, &value, &err));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/json/stream-splits-values", test_stream_splits_values);
    g_test_add_func("/json/single-quotes", test_single_quotes);
    g_test_add_func("/json/stream-survives-mistakes", test_stream_survives_mistakes);
    g_test_add_func("/json/backslash-before-colon", test_backslash_before_colon);
    g_test_add_func("/json/strictness", test_strictness);
    g_test_add_func("/json/names-the-mistake", test_names_the_mistake);
    g_test_add_func("/json/takes-what-the-grammar-has", test_takes_what_the_grammar_has);
    g_test_add_func("/json/integers", test_integers);
    g_test_add_func("/json/depth-limit", test_depth_limit);
    g_test_add_func("/json/size-limit", test_size_limit);
    g_test_add_func("/json/parts-limit", test_parts_limit);
    g_test_add_func("/json/one-text", test_one_text);
    return g_test_run();
}
