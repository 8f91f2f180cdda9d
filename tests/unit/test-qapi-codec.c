/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QAPI values: decoding with all its checks, encoding, cloning; and events. */
#include <string.h>

#include "qapi/json.h"
#include "qapi/qapi-events.h"
#include "qapi/qapi-types.h"

static json_object *parse(const char *text)
{
    g_autoptr(GError) err = NULL;
    json_object *json;

    if (!json_parse_text(text, strlen(text), &json, &err)) {
        g_error("%s: %s", text, err->message);
    }
    return json;
}

/* Decodes, clones, encodes: the result must be the same JSON, or `expected` where that is given. */
static void check_round_trip(const QapiType *type, const char *text, const char *expected)
{
    g_autoptr(GError) err = NULL;
    json_object *in = parse(text), *want = parse(expected ? expected : text), *out;
    void *value, *copy;
    bool ok = qapi_decode_to(type, in, QAPI_DECODE_JSON, &value, &err);

    g_assert_no_error(err);
    g_assert_true(ok);
    copy = qapi_clone(type, value);
    qapi_free(type, value);
    out = qapi_encode(type, copy);
    qapi_free(type, copy);
    if (!json_object_equal(out, want)) {
        g_error("%s became %s", text, json_object_to_json_string(out));
    }
    json_object_put(in);
    json_object_put(want);
    json_object_put(out);
}

static void check_refused(const QapiType *type, QapiDecodeFlags flags, const char *text,
                          const char *message)
{
    g_autoptr(GError) err = NULL;
    json_object *json = parse(text);
    void *value;

    g_test_message("%s", text);
    g_assert_false(qapi_decode_to(type, json, flags, &value, &err));
    g_assert_null(value);
    g_assert_cmpstr(err->message, ==, message);
    json_object_put(json);
}

static void test_round_trips(void)
{
    const QapiType *node = &qapi_type_BlockdevOptions;

    check_round_trip(node, "{'driver':'null-co'}", NULL);
    check_round_trip(node, "{'driver':'null-co','size':4096,'read-zeroes':true,'latency-ns':7}",
                     NULL);
    check_round_trip(node,
                     "{'driver':'qcow2','node-name':'f','backing':null,'cache':{'direct':true},"
                     "'file':{'driver':'file','filename':'x'},'overlap-check':'all'}",
                     NULL);
    check_round_trip(
        node, "{'driver':'qcow2','file':'n','overlap-check':{'template':'none','active-l1':true}}",
        NULL);
    check_round_trip(node,
                     "{'driver':'blkdebug','image':'n','inject-error':["
                     "{'event':'l2_load','errno':5,'once':true},{'event':'none'}],'set-state':[]}",
                     NULL);
    check_round_trip(node, "{'driver':'nbd','server':{'type':'unix','path':'s'},'open-timeout':3}",
                     NULL);
    check_round_trip(&qapi_type_TransactionAction, "{'type':'abort','data':{}}", NULL);
    check_round_trip(&qapi_type_intList, "[1,-9223372036854775808,9223372036854775807]", NULL);
    check_round_trip(&qapi_type_intList, "[]", NULL);
    check_round_trip(&qapi_type_uint64List, "[18446744073709551615]", NULL);
    check_round_trip(&qapi_type_anyList, "[null,{'a':[1.5]}]", NULL);
    check_round_trip(&qapi_type_numberList, "[1.5,2]", "[1.5,2.0]");
}

static void test_members(void)
{
    json_object *json =
        parse("{'driver':'qcow2','node-name':'n','l2-cache-size':0,"
              "'file':{'driver':'host_device','filename':'/dev/x','aio':'io_uring'},"
              "'backing':'base'}");
    g_autoptr(BlockdevOptions) node = BlockdevOptions_from_json(json, QAPI_DECODE_JSON, NULL);

    json_object_put(json);
    g_assert_cmpint(node->driver, ==, BLOCKDEV_DRIVER_QCOW2);
    g_assert_cmpstr(node->node_name, ==, "n");
    g_assert_false(node->has_read_only);
    g_assert_null(node->cache);
    g_assert_true(node->u.qcow2.has_l2_cache_size);
    g_assert_cmpint(node->u.qcow2.l2_cache_size, ==, 0);
    g_assert_cmpint(node->u.qcow2.file->type, ==, json_type_object);
    g_assert_cmpstr(node->u.qcow2.file->u.definition.u.host_device.filename, ==, "/dev/x");
    g_assert_cmpint(node->u.qcow2.file->u.definition.u.host_device.aio, ==,
                    BLOCKDEV_AIO_OPTIONS_IO_URING);
    g_assert_cmpint(node->u.qcow2.backing->type, ==, json_type_string);
    g_assert_cmpstr(node->u.qcow2.backing->u.reference, ==, "base");
}

static void test_refusals(void)
{
    const QapiType *node = &qapi_type_BlockdevOptions;
    const QapiDecodeFlags strict = QAPI_DECODE_JSON;

    check_refused(node, strict, "{}", "Parameter 'driver' is missing");
    check_refused(node, strict, "{'driver':'foo'}",
                  "Parameter 'driver' does not accept value 'foo'");
    check_refused(node, strict, "{'driver':5}",
                  "Invalid parameter type for 'driver', expected: string");
    check_refused(node, strict, "5", "Invalid parameter type, expected: object");
    check_refused(node, strict, "{'driver':'raw'}", "Parameter 'file' is missing");
    check_refused(node, strict, "{'driver':'raw','file':'a','zz':1}",
                  "Parameter 'zz' is unexpected");
    check_refused(node, strict, "{'driver':'raw','file':{'driver':'file','filename':'a','zz':1}}",
                  "Parameter 'file.zz' is unexpected");
    check_refused(node, strict, "{'driver':'raw','file':{'driver':'raw','file':{}}}",
                  "Parameter 'file.file.driver' is missing");
    check_refused(node, strict, "{'driver':'raw','file':null}",
                  "Invalid parameter type for 'file', expected: BlockdevRef");
    check_refused(node, strict, "{'driver':'raw','file':'a','read-only':'on'}",
                  "Invalid parameter type for 'read-only', expected: boolean");
    check_refused(node, strict,
                  "{'driver':'blkdebug','image':'a','inject-error':[{'event':'none'},{}]}",
                  "Parameter 'inject-error[1].event' is missing");
    check_refused(node, strict, "{'driver':'blkdebug','image':'a','inject-error':{}}",
                  "Invalid parameter type for 'inject-error', expected: array");
    check_refused(node, strict, "{'driver':'file','filename':'a\\u0000b'}",
                  "Parameter 'filename' expects a string without NUL characters");
    check_refused(node, strict, "{'driver':'null-co','file':'a'}",
                  "Parameter 'file' is unexpected");
}

/* "file" within "file", `depth` nodes in all. */
static char *nested_nodes(int depth)
{
    GString *text = g_string_new(NULL);

    for (int i = 0; i < depth; i++) {
        g_string_append(text, "{'driver':'raw','file':");
    }
    g_string_append(text, "'end'");
    for (int i = 0; i < depth; i++) {
        g_string_append_c(text, '}');
    }
    return g_string_free(text, FALSE);
}

/* Handlers run on small stacks, so no client may decide how deep the decoder goes. */
static void test_depth_limit(void)
{
    g_autofree char *fits = nested_nodes(QAPI_DECODE_MAX_DEPTH - 1);
    g_autofree char *deep = nested_nodes(QAPI_DECODE_MAX_DEPTH);
    g_autofree char *deeper = nested_nodes(1000);
    const char *message = "Parameter 'file' is nested more than 100 levels deep";

    check_round_trip(&qapi_type_BlockdevOptions, fits, NULL);
    check_refused(&qapi_type_BlockdevOptions, QAPI_DECODE_JSON, deep, message);
    check_refused(&qapi_type_BlockdevOptions, QAPI_DECODE_JSON, deeper, message);
}

static void test_integer_ranges(void)
{
    const QapiDecodeFlags strict = QAPI_DECODE_JSON;

    check_round_trip(&qapi_type_int8List, "[-128,127]", NULL);
    check_round_trip(&qapi_type_uint8List, "[0,255]", NULL);
    check_round_trip(&qapi_type_int32List, "[-2147483648,2147483647]", NULL);
    check_refused(&qapi_type_int8List, strict, "[128]",
                  "Parameter '[0]' expects an integer between -128 and 127");
    check_refused(&qapi_type_int16List, strict, "[-32769]",
                  "Parameter '[0]' expects an integer between -32768 and 32767");
    check_refused(&qapi_type_uint16List, strict, "[65536]",
                  "Parameter '[0]' expects an integer between 0 and 65535");
    check_refused(&qapi_type_uint32List, strict, "[0,4294967296]",
                  "Parameter '[1]' expects an integer between 0 and 4294967295");
    check_refused(&qapi_type_sizeList, strict, "[-1]",
                  "Parameter '[0]' expects a non-negative integer");
    check_refused(&qapi_type_intList, strict, "[9223372036854775808]",
                  "Invalid parameter type for '[0]', expected: integer");
    check_refused(&qapi_type_uint64List, strict, "[18446744073709551616]",
                  "Invalid parameter type for '[0]', expected: integer");
    check_refused(&qapi_type_intList, strict, "[1.0]",
                  "Invalid parameter type for '[0]', expected: integer");
}

static void test_keyval_mode(void)
{
    json_object *json =
        parse("{'driver':'blkdebug','read-only':'on','image':'a','align':'0x200',"
              "'max-transfer':'65536','inject-error':[{'event':'none','once':'no'}]}");
    g_autoptr(BlockdevOptions) node = BlockdevOptions_from_json(json, QAPI_DECODE_KEYVAL, NULL);
    g_autoptr(BlockdevCreateOptions) image = NULL;

    json_object_put(json);
    g_assert_true(node->read_only);
    g_assert_cmpint(node->u.blkdebug.align, ==, 512);
    g_assert_cmpint(node->u.blkdebug.max_transfer, ==, 65536);
    g_assert_true(node->u.blkdebug.inject_error->value->has_once);
    g_assert_false(node->u.blkdebug.inject_error->value->once);

    json = parse("{'driver':'file','filename':'x','size':'1.5G'}");
    image = BlockdevCreateOptions_from_json(json, QAPI_DECODE_KEYVAL, NULL);
    json_object_put(json);
    g_assert_cmpuint(image->u.file.size, ==, 3ULL << 29);

    check_refused(&qapi_type_BlockdevOptions, QAPI_DECODE_KEYVAL,
                  "{'driver':'null-co','read-only':'maybe'}",
                  "Parameter 'read-only' expects 'on' or 'off'");
    check_refused(&qapi_type_BlockdevOptions, QAPI_DECODE_KEYVAL,
                  "{'driver':'null-co','size':'1x'}", "Parameter 'size' expects an integer");
    check_refused(&qapi_type_uint8List, QAPI_DECODE_KEYVAL, "['256']",
                  "Parameter '[0]' expects an integer between 0 and 255");
    check_refused(&qapi_type_sizeList, QAPI_DECODE_KEYVAL, "['20E']",
                  "Parameter '[0]' expects a size");
}

static void test_optional_list(void)
{
    json_object *json = parse("{'id':'x','boundaries':[]}");
    g_autoptr(BlockLatencyHistogramSetArg) arg =
        BlockLatencyHistogramSetArg_from_json(json, QAPI_DECODE_JSON, NULL);

    json_object_put(json);
    g_assert_true(arg->has_boundaries);
    g_assert_null(arg->boundaries);
    g_assert_false(arg->has_boundaries_read);
    /* Code that fills in a list need not set the flag. */
    QAPI_LIST_PREPEND(arg->boundaries_read, 7);
    json = BlockLatencyHistogramSetArg_to_json(arg);
    g_assert_cmpstr(json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN), ==,
                    "{\"id\":\"x\",\"boundaries\":[],\"boundaries-read\":[7]}");
    json_object_put(json);
}

static void test_lists(void)
{
    g_autoptr(strList) list = NULL;
    strList **tail = &list, *it;
    GString *all = g_string_new(NULL);

    QAPI_LIST_APPEND(tail, g_strdup("b"));
    QAPI_LIST_APPEND(tail, g_strdup("c"));
    QAPI_LIST_PREPEND(list, g_strdup("a"));
    QAPI_LIST_FOREACH(it, list) {
        g_string_append(all, it->value);
    }
    g_assert_cmpstr(all->str, ==, "abc");
    g_string_free(all, TRUE);
}

static void test_enums(void)
{
    g_autoptr(GError) err = NULL;
    JobStatus status = JOB_STATUS_NULL;

    g_assert_cmpstr(JobStatus_str(JOB_STATUS_STANDBY), ==, "standby");
    g_assert_null(JobStatus_str(JOB_STATUS__MAX));
    g_assert_true(JobStatus_parse("ready", &status, &err));
    g_assert_cmpint(status, ==, JOB_STATUS_READY);
    g_assert_false(JobStatus_parse("Ready", &status, &err));
    g_assert_nonnull(err);
}

static char *last_event;

static void take_event(const char *name, json_object *data)
{
    g_free(last_event);
    last_event = g_strdup_printf(
        "%s %s", name, data ? json_object_to_json_string_ext(data, JSON_C_TO_STRING_PLAIN) : "-");
    json_object_put(data);
}

static void test_events(void)
{
    BlockIoErrorData io_error = {
        .qom_path = (char *)"",
        .device = (char *)"d",
        .operation = IO_OPERATION_TYPE_WRITE,
        .action = BLOCK_ERROR_ACTION_STOP,
        .has_nospace = true,
        .nospace = true,
        .reason = (char *)"full",
    };

    qapi_event_send_stop(); /* no monitor listens */
    qapi_event_set_sink(take_event);
    qapi_event_send_stop();
    g_assert_cmpstr(last_event, ==, "STOP -");
    qapi_event_send_job_status_change("j", JOB_STATUS_READY);
    g_assert_cmpstr(last_event, ==, "JOB_STATUS_CHANGE {\"id\":\"j\",\"status\":\"ready\"}");
    qapi_event_send_block_job_completed(JOB_TYPE_MIRROR, "j", 3, 2, 1, NULL);
    g_assert_cmpstr(last_event, ==,
                    "BLOCK_JOB_COMPLETED {\"type\":\"mirror\",\"device\":\"j\",\"len\":3,"
                    "\"offset\":2,\"speed\":1}");
    qapi_event_send_block_io_error(&io_error);
    g_assert_cmpstr(last_event, ==,
                    "BLOCK_IO_ERROR {\"qom-path\":\"\",\"device\":\"d\",\"operation\":"
                    "\"write\",\"action\":\"stop\",\"nospace\":true,\"reason\":\"full\"}");
    qapi_event_set_sink(NULL);
    g_clear_pointer(&last_event, g_free);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qapi/round-trips", test_round_trips);
    g_test_add_func("/qapi/members", test_members);
    g_test_add_func("/qapi/refusals", test_refusals);
    g_test_add_func("/qapi/depth-limit", test_depth_limit);
    g_test_add_func("/qapi/integer-ranges", test_integer_ranges);
    g_test_add_func("/qapi/keyval-mode", test_keyval_mode);
    g_test_add_func("/qapi/optional-list", test_optional_list);
    g_test_add_func("/qapi/lists", test_lists);
    g_test_add_func("/qapi/enums", test_enums);
    g_test_add_func("/qapi/events", test_events);
    return g_test_run();
}
