/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of migrations: URIs there and back, channel lists, and what is refused. */
#include <glib.h>
#include <string.h>
#include "migration/address.h"

typedef struct UriCase {
    const char *uri, *json, *back; /* back NULL: the URI itself */
} UriCase;

static const UriCase good[] = {
    {"tcp:127.0.0.1:4444",
     "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"4444\"}", NULL},
    {"tcp:[::1]:4444",
     "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"::1\",\"port\":\"4444\"}", NULL},
    {"tcp:[::]:49152",
     "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"::\",\"port\":\"49152\"}", NULL},
    {"tcp::4444", "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"\",\"port\":\"4444\"}",
     NULL},
    {"tcp:0:4444", "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"0\",\"port\":\"4444\"}",
     NULL},
    {"tcp:h:1,to=9,ipv4=on,ipv6=off,keep-alive=on",
     "{\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"h\",\"port\":\"1\",\"to\":9,"
     "\"ipv4\":true,\"ipv6\":false,\"keep-alive\":true}",
     "tcp:h:1"},
    {"unix:/tmp/a b", "{\"transport\":\"socket\",\"type\":\"unix\",\"path\":\"/tmp/a b\"}", NULL},
    {"vsock:2:1234",
     "{\"transport\":\"socket\",\"type\":\"vsock\",\"cid\":\"2\",\"port\":\"1234\"}", NULL},
    {"fd:migrate", "{\"transport\":\"socket\",\"type\":\"fd\",\"str\":\"migrate\"}", NULL},
    {"fd:27", "{\"transport\":\"socket\",\"type\":\"fd\",\"str\":\"27\"}", NULL},
    {"exec:cat > /dev/null",
     "{\"transport\":\"exec\",\"args\":[\"/bin/sh\",\"-c\",\"cat > /dev/null\"]}",
     "exec:/bin/sh -c cat > /dev/null"},
    {"file:/a,b", "{\"transport\":\"file\",\"filename\":\"/a,b\",\"offset\":0}", NULL},
    {"file:/a,offset=0x1000", "{\"transport\":\"file\",\"filename\":\"/a\",\"offset\":4096}",
     "file:/a,offset=4096"},
    {"file:/a,offset=1M", "{\"transport\":\"file\",\"filename\":\"/a\",\"offset\":1048576}",
     "file:/a,offset=1048576"},
    {"file:/dev/fdset/3", "{\"transport\":\"file\",\"filename\":\"/dev/fdset/3\",\"offset\":0}",
     NULL},
};

static void check_address(const MigrationAddress *addr, const UriCase *c)
{
    json_object *json = MigrationAddress_to_json(addr), *expected = json_tokener_parse(c->json);
    g_autofree char *uri = migration_address_to_uri(addr);

    g_assert_nonnull(expected);
    if (!json_object_equal(json, expected)) {
        g_error("%s: %s is not %s", c->uri, json_object_to_json_string(json), c->json);
    }
    g_assert_cmpstr(uri, ==, c->back ? c->back : c->uri);
    json_object_put(json);
    json_object_put(expected);
}

static void test_uris(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autoptr(GError) err = NULL;
        g_autoptr(MigrationAddress) addr = migration_uri_parse(good[i].uri, &err);
        g_autoptr(MigrationAddress) copy = NULL;

        g_assert_no_error(err);
        check_address(addr, &good[i]);
        copy = migration_address_copy(addr);
        check_address(copy, &good[i]);
    }
}

/* The JSON of -incoming means the same. */
static void test_json(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_autofree char *arg =
            g_strdup_printf("{\"channel-type\":\"main\",\"addr\":%s}", good[i].json);
        g_autoptr(GError) err = NULL;
        g_autoptr(MigrationAddress) addr = migration_incoming_arg_parse(arg, &err);

        g_assert_no_error(err);
        check_address(addr, &good[i]);
    }
}

static const char *const bad[] = {
    "",
    ":",
    "foo:",
    "tcp",
    "tcp:",
    "tcp:1234",
    "tcp:host:",
    "tcp:[::1:4444",
    "tcp:[::1]4444",
    "tcp:::1:4444",
    "tcp:h:1,bogus=1",
    "tcp:h:1,to=99999",
    "unix:",
    "vsock:",
    "vsock:2",
    "vsock:2:",
    "vsock:-1:2",
    "vsock:4294967296:2",
    "vsock:a:b",
    "fd:",
    "exec:",
    "file:",
    "file:,offset=1",
    "file:/a,offset=",
    "file:/a,offset=-1",
    "file:/a,offset=1x",
    "file:/a,offset=9223372036854775808",
    "file:/a,offset=99999999999999999999",
    "rdma:h:1",
    "TCP:h:1",
    " tcp:h:1",
    "defer",
    "{}",
    "{\"channel-type\":\"main\"}",
    "{\"channel-type\":\"cpr\",\"addr\":{\"transport\":\"exec\",\"args\":[\"a\"]}}",
    "{\"channel-type\":\"main\",\"addr\":{\"transport\":\"exec\",\"args\":[]}}",
    "{\"channel-type\":\"main\",\"addr\":{\"transport\":\"exec\",\"args\":[\"\"]}}",
    "{\"channel-type\":\"main\",\"addr\":{\"transport\":\"file\",\"filename\":\"\",\"offset\":0}}",
    "{\"channel-type\":\"main\",\"addr\":{\"transport\":\"file\",\"filename\":\"a\","
    "\"offset\":9223372036854775808}}",
    "{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\",\"type\":\"vsock\",\"cid\":"
    "\"x\",\"port\":\"1\"}}",
    "{\"channel-type\":\"main\",\"addr\":",
};

static void test_bad(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;
        g_autoptr(MigrationAddress) addr = migration_incoming_arg_parse(bad[i], &err);

        g_test_message("%s: %s", bad[i], err ? err->message : "accepted");
        g_assert_null(addr);
        g_assert_nonnull(err);
    }
}

/* Random bytes behind each prefix end in an address or an error. */
static void test_random(void)
{
    static const char *const prefixes[] = {"tcp:", "unix:", "vsock:", "fd:", "exec:", "file:", ""};
    static const char letters[] = "0123456789:,=[]{}\"abfost/-. \\%";
    g_autoptr(GRand) rand = g_rand_new_with_seed(20260101);

    for (int i = 0; i < 20000; i++) {
        g_autoptr(GString) uri = g_string_new(prefixes[i % G_N_ELEMENTS(prefixes)]);
        g_autoptr(GError) err = NULL;
        g_autoptr(MigrationAddress) addr = NULL;

        for (int n = g_rand_int_range(rand, 0, 40); n > 0; n--) {
            g_string_append_c(uri, letters[g_rand_int_range(rand, 0, sizeof(letters) - 1)]);
        }
        addr = migration_incoming_arg_parse(uri->str, &err);
        g_assert_cmpint(addr != NULL, !=, err != NULL);
    }
}

static void test_arguments(void)
{
    g_autoptr(MigrationAddress) addr = migration_uri_parse("file:/x", NULL), got = NULL;
    MigrationChannel channel = {.addr = addr};
    MigrationChannelList second = {.value = &channel}, list = {.value = &channel};
    g_autoptr(GError) err = NULL;

    got = migration_args_to_address(NULL, true, &list, "migrate", &err);
    g_assert_no_error(err);
    g_assert_cmpstr(got->u.file.filename, ==, "/x");
    g_assert_null(migration_args_to_address("file:/x", true, &list, "migrate", &err));
    g_assert_nonnull(strstr(err->message, "mutually exclusive"));
    g_clear_error(&err);
    g_assert_null(migration_args_to_address("file:/x", true, NULL, "migrate", &err));
    g_assert_nonnull(strstr(err->message, "mutually exclusive"));
    g_clear_error(&err);
    g_assert_null(migration_args_to_address(NULL, false, NULL, "migrate", &err));
    g_assert_nonnull(strstr(err->message, "need either 'uri' or 'channels'"));
    g_assert_null(strstr(err->message, "exclusive"));
    g_clear_error(&err);
    g_assert_null(migration_args_to_address(NULL, true, NULL, "migrate", &err));
    g_assert_nonnull(strstr(err->message, "no main channel"));
    g_clear_error(&err);
    list.next = &second;
    g_assert_null(migration_args_to_address(NULL, true, &list, "migrate", &err));
    g_assert_nonnull(strstr(err->message, "more than one main"));
}

static void test_kinds(void)
{
    static const struct {
        const char *uri;
        bool multi, seekable;
    } kinds[] = {
        {"tcp:h:1", true, false}, {"unix:/p", true, false},    {"vsock:2:1", true, false},
        {"fd:x", false, false},   {"exec:true", false, false}, {"file:/p", false, true},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autoptr(MigrationAddress) addr = migration_uri_parse(kinds[i].uri, NULL);

        g_assert_cmpint(migration_address_is_multi_channel(addr), ==, kinds[i].multi);
        g_assert_cmpint(migration_address_is_seekable(addr), ==, kinds[i].seekable);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migration-address/uris", test_uris);
    g_test_add_func("/migration-address/json", test_json);
    g_test_add_func("/migration-address/bad", test_bad);
    g_test_add_func("/migration-address/random", test_random);
    g_test_add_func("/migration-address/arguments", test_arguments);
    g_test_add_func("/migration-address/kinds", test_kinds);
    return g_test_run();
}
