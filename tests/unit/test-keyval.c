/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Option arguments of the command line. */
#include <string.h>

#include "qapi/keyval.h"

static void check(const char *params, const char *implied, const char *expected)
{
    g_autoptr(GError) err = NULL;
    json_object *json = keyval_parse(params, implied, NULL, &err);

    g_assert_no_error(err);
    g_assert_cmpstr(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN), ==, expected);
    json_object_put(json);
}

static void refuse(const char *params, const char *implied, const char *message)
{
    g_autoptr(GError) err = NULL;

    g_assert_null(keyval_parse(params, implied, NULL, &err));
    g_assert_cmpstr(err->message, ==, message);
}

static void test_values(void)
{
    check("", NULL, "{}");
    check("a=1,b=on,c=", NULL, "{\"a\":\"1\",\"b\":\"on\",\"c\":\"\"}");
    check("a=1,a=2", NULL, "{\"a\":\"2\"}");
    check("a=x,,y,,,b=,,", NULL, "{\"a\":\"x,y,\",\"b\":\",\"}");
    check("a=b=c", NULL, "{\"a\":\"b=c\"}");
    check("a=1,", NULL, "{\"a\":\"1\"}");
}

static void test_containers(void)
{
    check("driver=qcow2,file.driver=file,file.filename=x", NULL,
          "{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"x\"}}");
    check("l.1=b,l.0=a", NULL, "{\"l\":[\"a\",\"b\"]}");
    check("l.0.k=a,l.1.k=b,l.1.m.0=c", NULL, "{\"l\":[{\"k\":\"a\"},{\"k\":\"b\",\"m\":[\"c\"]}]}");
}

static void test_implied_key(void)
{
    check("iothread,id=x", "qom-type", "{\"qom-type\":\"iothread\",\"id\":\"x\"}");
    check("a,,b", "k", "{\"k\":\"a,b\"}");
    refuse("id=x,iothread", "qom-type", "No '=' after parameter 'iothread'");
    refuse("x", NULL, "No '=' after parameter 'x'");
    refuse(",a=b", "k", "Expected a value for parameter 'k'");
}

static void test_mistakes(void)
{
    refuse("a.b=1,a=2", NULL, "Parameter 'a' is used inconsistently");
    refuse("a=1,a.b=2", NULL, "Parameter 'a.b' is used inconsistently");
    refuse("a.0=1,a.x=2", NULL, "Parameters 'a.*' are used inconsistently");
    refuse("a.b.0=1,a.b.2=2", NULL, "Parameter 'a.b.1' is missing");
    refuse("a.00=1", NULL, "Parameter 'a.0' is missing");
    refuse("=1", NULL, "Invalid parameter ''");
    refuse("a..b=1", NULL, "Invalid parameter 'a..b'");
    refuse("a b=1", NULL, "Invalid parameter 'a b'");
}

static void test_limits(void)
{
    g_autoptr(GString) params = g_string_new(NULL);
    g_autofree char *longest = g_strnfill(KEYVAL_MAX_NAME, 'n');
    g_autofree char *longer = g_strnfill(KEYVAL_MAX_NAME + 1, 'n');
    g_autoptr(GError) err = NULL;

    g_string_printf(params, "%s=1", longer);
    g_assert_null(keyval_parse(params->str, NULL, NULL, &err));
    g_clear_error(&err);
    g_string_printf(params, "%s=1", longest);
    json_object_put(keyval_parse(params->str, NULL, NULL, &err));
    g_assert_no_error(err);
    refuse("a.4000000000=1", NULL, "Parameter 'a.0' is missing");
    g_string_truncate(params, 0);
    for (int i = 0; i <= KEYVAL_MAX_DEPTH; i++) {
        g_string_append(params, i ? ".a" : "a");
    }
    g_string_append(params, "=1");
    g_assert_null(keyval_parse(params->str, NULL, NULL, &err));
}

static void test_help(void)
{
    g_autoptr(GError) err = NULL;
    bool help;

    json_object_put(keyval_parse("help", "qom-type", &help, &err));
    g_assert_true(help);
    json_object_put(keyval_parse("iothread,help", "qom-type", &help, &err));
    g_assert_true(help);
    json_object_put(keyval_parse("help=on", "qom-type", &help, &err));
    g_assert_false(help);
    g_assert_no_error(err);
}

static void test_json_form(void)
{
    g_autoptr(GError) err = NULL;
    QapiDecodeFlags flags;
    json_object *json = keyval_parse_or_json("{\"a\":true}", NULL, NULL, &flags, &err);

    g_assert_cmpint(flags, ==, QAPI_DECODE_JSON);
    g_assert_true(json_object_get_boolean(json_object_object_get(json, "a")));
    json_object_put(json);
    g_assert_null(keyval_parse_or_json("{\"a\":", NULL, NULL, &flags, &err));
    g_clear_error(&err);
    json = keyval_parse_or_json("a=true", NULL, NULL, &flags, &err);
    g_assert_cmpint(flags, ==, QAPI_DECODE_KEYVAL);
    json_object_put(json);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/keyval/values", test_values);
    g_test_add_func("/keyval/containers", test_containers);
    g_test_add_func("/keyval/implied-key", test_implied_key);
    g_test_add_func("/keyval/mistakes", test_mistakes);
    g_test_add_func("/keyval/limits", test_limits);
    g_test_add_func("/keyval/help", test_help);
    g_test_add_func("/keyval/json-form", test_json_form);
    return g_test_run();
}
