/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Authorization: the first rule that matches decides, and where nothing says yes the answer is no.
 */
#include <string.h>
#include "crypto/authz.h"
#include "tests/unit/crypto-objects.h"

static void assert_allowed(const char *identity, bool expected)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(qauthz_is_allowed_by_id("a", identity, &err), ==, expected);
    if (expected) {
        g_assert_no_error(err);
    } else {
        g_assert_nonnull(strstr(err->message, "not authorized by 'a'"));
    }
}

static void test_simple(void)
{
    add_object("{'qom-type': 'authz-simple', 'id': 'a', 'identity': 'CN=alice'}");
    assert_allowed("CN=alice", true);
    assert_allowed("CN=alic", false);
    assert_allowed("CN=alice2", false);
    assert_allowed("", false);
    del_object("a");
}

static void test_empty_list_denies(void)
{
    add_object("{'qom-type': 'authz-list', 'id': 'a'}");
    assert_allowed("CN=alice", false);
    del_object("a");
}

static void test_default_policy(void)
{
    add_object("{'qom-type': 'authz-list', 'id': 'a', 'policy': 'allow', 'rules': "
               "[{'match': 'CN=mallory', 'policy': 'deny'}]}");
    assert_allowed("CN=alice", true);
    assert_allowed("CN=mallory", false);
    del_object("a");
}

static void test_first_match_decides(void)
{
    add_object("{'qom-type': 'authz-list', 'id': 'a', 'rules': ["
               "{'match': 'CN=bob,*', 'policy': 'deny', 'format': 'glob'},"
               "{'match': 'CN=*', 'policy': 'allow', 'format': 'glob'},"
               "{'match': 'CN=bob,O=x', 'policy': 'allow', 'format': 'exact'}]}");
    assert_allowed("CN=bob,O=x", false);
    assert_allowed("CN=bob", true);
    assert_allowed("O=CN=", false);
    del_object("a");
}

static void test_exact_is_the_default_format(void)
{
    add_object("{'qom-type': 'authz-list', 'id': 'a', 'rules': "
               "[{'match': 'CN=*', 'policy': 'allow'}]}");
    assert_allowed("CN=*", true);
    assert_allowed("CN=alice", false);
    del_object("a");
}

static void test_missing_object_denies(void)
{
    g_autoptr(GError) err = NULL;

    add_object("{'qom-type': 'secret', 'id': 's', 'data': 'x'}");
    g_assert_false(qauthz_is_allowed_by_id("a", "CN=alice", &err));
    g_assert_nonnull(strstr(err->message, "No authorization object with id 'a'"));
    g_assert_false(qauthz_is_allowed_by_id("s", "CN=alice", NULL)); /* of another type */
    del_object("s");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    register_crypto_objects();
    g_test_add_func("/authz/simple", test_simple);
    g_test_add_func("/authz/empty-list-denies", test_empty_list_denies);
    g_test_add_func("/authz/default-policy", test_default_policy);
    g_test_add_func("/authz/first-match-decides", test_first_match_decides);
    g_test_add_func("/authz/exact-is-the-default-format", test_exact_is_the_default_format);
    g_test_add_func("/authz/missing-object-denies", test_missing_object_denies);
    return g_test_run();
}
