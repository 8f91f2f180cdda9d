/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Authorization: the first rule that matches decides, and where nothing says yes the answer is no.
 */
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
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

/* --- a list in a file --- */

static char *list_path;

static void write_list(const char *text)
{
    g_autofree char *tmp = g_strconcat(list_path, ".new", NULL);

    g_assert_true(g_file_set_contents(tmp, text, -1, NULL));
    g_assert_cmpint(g_rename(tmp, list_path), ==, 0);
}

static void add_list_file(const char *more)
{
    g_autofree char *json = g_strdup_printf(
        "{'qom-type': 'authz-listfile', 'id': 'a', 'filename': '%s'%s}", list_path, more);

    add_object(json);
}

#define ONLY(name) \
    "{\"policy\": \"deny\", \"rules\": [{\"match\": \"" name "\", \"policy\": \"allow\"}]}"

static void test_file_is_read_again(void)
{
    write_list(ONLY("CN=alice"));
    add_list_file("");
    assert_allowed("CN=alice", true);
    assert_allowed("CN=bob", false);
    write_list(ONLY("CN=bob"));
    assert_allowed("CN=bob", true);
    assert_allowed("CN=alice", false);
    /* also in place, to the same length */
    g_assert_true(g_file_set_contents_full(list_path, ONLY("CN=eve"), -1, G_FILE_SET_CONTENTS_NONE,
                                           0600, NULL));
    assert_allowed("CN=eve", true);
    assert_allowed("CN=bob", false);
    del_object("a");
}

/* Half a file, none, nonsense: the answer is no until it is good again. */
static void test_file_that_cannot_be_read_denies(void)
{
    static const char *const bad[] = {"", "{\"policy\": \"allow\"", "[]", "{\"policy\": \"maybe\"}",
                                      "{\"policy\": \"allow\", \"rule\": []}"};

    write_list(ONLY("CN=alice"));
    add_list_file(", 'refresh': true");
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_allowed("CN=alice", true);
        write_list(bad[i]);
        assert_allowed("CN=alice", false);
        assert_allowed("CN=alice", false);
        write_list(ONLY("CN=alice"));
    }
    assert_allowed("CN=alice", true);
    g_assert_cmpint(g_unlink(list_path), ==, 0);
    assert_allowed("CN=alice", false);
    write_list(ONLY("CN=alice"));
    assert_allowed("CN=alice", true);
    del_object("a");
}

static void count(void *opaque)
{
    (*(int *)opaque)++;
}

/* In the place of the file stands a FIFO, of which nothing comes: the answer is no, without a wait. */
static void coroutine_fn ask_co(void *opaque)
{
    static int turns;

    aio_bh_schedule_oneshot(qemu_get_aio_context(), count, &turns);
    assert_allowed("CN=alice", false);
    g_assert_cmpint(turns, ==, 0); /* it holds a lock, and did not yield */
}

static void test_fifo_in_the_place_of_the_file_denies_at_once(void)
{
    write_list(ONLY("CN=alice"));
    add_list_file("");
    g_assert_cmpint(g_unlink(list_path), ==, 0);
    g_assert_cmpint(mkfifo(list_path, 0600), ==, 0);
    aio_run_coroutine(ask_co, NULL);
    write_list(ONLY("CN=alice"));
    assert_allowed("CN=alice", true);
    del_object("a");
}

static void test_file_without_refresh_stays(void)
{
    write_list(ONLY("CN=alice"));
    add_list_file(", 'refresh': false");
    write_list(ONLY("CN=bob"));
    assert_allowed("CN=alice", true);
    assert_allowed("CN=bob", false);
    del_object("a");
}

static void test_bad_file_is_refused_at_once(void)
{
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'authz-listfile', 'id': 'a', 'filename': '%s'}", list_path);
    g_autofree char *long_list = g_strnfill(1024 * 1024 + 1, ' ');

    write_list("{");
    assert_refused(json, "Unable to read authorization list");
    write_list("{\"rules\": [{}]}");
    assert_refused(json, "match");
    write_list(long_list);
    assert_refused(json, "more than");
    g_assert_cmpint(g_unlink(list_path), ==, 0);
    assert_refused(json, "No such file");
}

int main(int argc, char **argv)
{
    g_autofree char *dir = NULL;
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    register_crypto_objects();
    g_test_add_func("/authz/simple", test_simple);
    g_test_add_func("/authz/empty-list-denies", test_empty_list_denies);
    g_test_add_func("/authz/default-policy", test_default_policy);
    g_test_add_func("/authz/first-match-decides", test_first_match_decides);
    g_test_add_func("/authz/exact-is-the-default-format", test_exact_is_the_default_format);
    g_test_add_func("/authz/missing-object-denies", test_missing_object_denies);
    g_test_add_func("/authz/file-is-read-again", test_file_is_read_again);
    g_test_add_func("/authz/file-that-cannot-be-read-denies", test_file_that_cannot_be_read_denies);
    g_test_add_func("/authz/fifo", test_fifo_in_the_place_of_the_file_denies_at_once);
    g_test_add_func("/authz/file-without-refresh-stays", test_file_without_refresh_stays);
    g_test_add_func("/authz/bad-file-is-refused-at-once", test_bad_file_is_refused_at_once);
    dir = g_dir_make_tmp("ferry-authz-XXXXXX", NULL);
    list_path = g_build_filename(dir, "list.json", NULL);
    ret = g_test_run();
    g_unlink(list_path);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
    g_free(list_path);
    return ret;
}
