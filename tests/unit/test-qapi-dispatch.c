/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How QMP commands are found and run. */
#include <string.h>

#include "qapi/dispatch.h"
#include "qapi/json.h"
#include "qapi/qapi-types.h"
#include "util/error.h"

static char *last_call;

static bool run_resize(const void *opaque, void *ret, GError **errp)
{
    const BlockResizeArg *arg = opaque;

    g_free(last_call);
    last_call = g_strdup_printf("%s %" G_GINT64_FORMAT, arg->device, arg->size);
    if (arg->size < 0) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "negative");
        return false;
    }
    return true;
}

static bool run_query_name(const void *arg, void *ret, GError **errp)
{
    NameInfo *info = g_new0(NameInfo, 1);

    info->name = g_strdup("guest");
    *(NameInfo **)ret = info;
    return true;
}

static bool run_empty_list(const void *arg, void *ret, GError **errp)
{
    return true;
}

static bool run_text(const void *arg, void *ret, GError **errp)
{
    *(char **)ret = g_strdup("said");
    return true;
}

static const QmpCommand resize = {
    .name = "resize", .arg = &qapi_type_BlockResizeArg, .call = run_resize};
static const QmpCommand query_name = {
    .name = "query-name", .ret = &qapi_type_NameInfo, .call = run_query_name};
static const QmpCommand query_list = {
    .name = "query-list", .ret = &qapi_type_JobInfoList, .call = run_empty_list};
static const QmpCommand text = {.name = "text", .ret = &qapi_type_str, .call = run_text};

/* The result, or "CLASS: message". */
static char *run(const QmpCommand *cmd, const char *args)
{
    g_autoptr(GError) err = NULL;
    json_object *in = NULL, *out;
    char *result;

    if (args) {
        g_assert_true(json_parse_text(args, strlen(args), &in, NULL));
    }
    if (qmp_command_co_run(cmd, in, &out, &err)) {
        g_assert_no_error(err);
        result = g_strdup(json_object_to_json_string_ext(out, JSON_C_TO_STRING_PLAIN));
    } else {
        g_assert_null(out);
        result = g_strdup_printf("%s: %s", ferry_error_class(err), err->message);
    }
    json_object_put(out);
    json_object_put(in);
    return result;
}

static void check(const QmpCommand *cmd, const char *args, const char *expected)
{
    g_autofree char *got = run(cmd, args);

    g_assert_cmpstr(got, ==, expected);
}

static void test_run(void)
{
    check(&resize, "{'device':'d','size':5}", "{}");
    g_assert_cmpstr(last_call, ==, "d 5");
    check(&resize, "{'device':'d','size':-1}", "DeviceNotFound: negative");
    check(&query_name, NULL, "{\"name\":\"guest\"}");
    check(&query_name, "{}", "{\"name\":\"guest\"}");
    check(&query_list, NULL, "[]");
    check(&text, NULL, "\"said\"");
    g_clear_pointer(&last_call, g_free);
}

static void test_bad_arguments_never_reach_the_handler(void)
{
    check(&resize, NULL, "GenericError: Parameter 'size' is missing");
    check(&resize, "{'size':5,'x':1}", "GenericError: Parameter 'x' is unexpected");
    check(&resize, "[]", "GenericError: Invalid parameter type, expected: object");
    check(&query_name, "{'x':1}", "GenericError: Parameter 'x' is unexpected");
    g_assert_null(last_call);
}

static void test_table_is_sorted_and_found(void)
{
    for (size_t i = 0; i < qmp_command_count; i++) {
        const QmpCommand *cmd = &qmp_commands[i];

        g_assert_true(qmp_find_command(cmd->name) == cmd);
        g_assert_true(!cmd->call != !cmd->call_json);
        if (i > 0) {
            g_assert_cmpstr(qmp_commands[i - 1].name, <, cmd->name);
        }
    }
    g_assert_null(qmp_find_command("no-such-command"));
    g_assert_null(qmp_find_command(""));
}

/* The text decodes as what the schema says about query-qmp-schema itself. */
static void test_schema_text_describes_itself(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(SchemaInfoList) list = NULL;
    json_object *lazy = qmp_schema_json(), *json;
    const char *printed = json_object_to_json_string_ext(lazy, JSON_C_TO_STRING_PLAIN);
    size_t commands = 0;

    g_assert_true(json_parse_text(printed, strlen(printed), &json, &err));
    json_object_put(lazy);
    list = SchemaInfoList_from_json(json, QAPI_DECODE_JSON, &err);
    json_object_put(json);
    g_assert_no_error(err);
    for (SchemaInfoList *it = list; it; it = it->next) {
        commands += it->value->meta_type == SCHEMA_META_TYPE_COMMAND;
    }
    g_assert_cmpuint(commands, ==, qmp_command_count);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dispatch/run", test_run);
    g_test_add_func("/dispatch/bad-arguments-never-reach-the-handler",
                    test_bad_arguments_never_reach_the_handler);
    g_test_add_func("/dispatch/table-is-sorted-and-found", test_table_is_sorted_and_found);
    g_test_add_func("/dispatch/schema-text-describes-itself", test_schema_text_describes_itself);
    return g_test_run();
}
