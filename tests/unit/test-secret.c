/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets: every way to give one, and every way to give it wrongly. */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "crypto/secret.h"
#include "tests/unit/crypto-objects.h"
#include "util/error.h"
#include "util/wipe.h"

/*
 * "hunter2" under thirty-two times 'k', as openssl enc -aes-256-cbc makes it; the IV is
 * "0123456789abcdef".
 */
#define IV     "MDEyMzQ1Njc4OWFiY2RlZg=="
#define CIPHER "IPb0FDb9MYLi92WtR6UZqA=="
#define KEY    "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"

static void assert_value(const char *id, const void *expected, size_t bytes)
{
    uint8_t *data;
    size_t size;
    GError *err = NULL;

    g_assert_true(qcrypto_secret_lookup(id, &data, &size, &err));
    g_assert_no_error(err);
    g_assert_cmpmem(data, size, expected, bytes);
    g_assert_cmpint(data[size], ==, 0);
    wipe_free(data, size);
}

static void test_data(void)
{
    add_object("{'qom-type': 'secret', 'id': 's', 'data': 'open sesame'}");
    assert_value("s", "open sesame", 11);
    del_object("s");
    add_object("{'qom-type': 'secret', 'id': 's', 'data': 'AAH/', 'format': 'base64'}");
    assert_value("s", "\0\1\377", 3);
    del_object("s");
    add_object("{'qom-type': 'secret', 'id': 's', 'data': '', 'format': 'base64'}");
    assert_value("s", "", 0);
    del_object("s");
}

static char *write_temp(const void *data, size_t bytes)
{
    char *path = NULL;
    int fd = g_file_open_tmp("ferry-secret-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, data, bytes), ==, bytes);
    close(fd);
    return path;
}

static void test_file(void)
{
    g_autofree char *path = write_temp("AAH/\n", 5);
    g_autofree char *raw = g_strdup_printf("{'qom-type': 'secret', 'id': 's', 'file': '%s'}", path);
    g_autofree char *base64 = g_strdup_printf(
        "{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'file': '%s'}", path);

    add_object(raw);
    assert_value("s", "AAH/\n", 5); /* as it is, line end included */
    del_object("s");
    add_object(base64);
    assert_value("s", "\0\1\377", 3);
    del_object("s");
    unlink(path);
    assert_refused(raw, "No such file");
}

static void test_file_that_is_too_large(void)
{
    g_autofree char *data = g_malloc0(QCRYPTO_SECRET_MAX_BYTES + 1);
    g_autofree char *path = write_temp(data, QCRYPTO_SECRET_MAX_BYTES + 1);
    g_autofree char *json =
        g_strdup_printf("{'qom-type': 'secret', 'id': 's', 'file': '%s'}", path);

    assert_refused(json, "has more than 65536 bytes");
    g_assert_cmpint(truncate(path, QCRYPTO_SECRET_MAX_BYTES), ==, 0);
    add_object(json);
    del_object("s");
    unlink(path);
}

static void test_encrypted(void)
{
    add_object("{'qom-type': 'secret', 'id': 'master', 'data': '" KEY "'}");
    add_object("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', 'iv': '" IV
               "', 'data': '" CIPHER "'}");
    assert_value("s", "hunter2", 7);
    del_object("master"); /* it was needed once */
    assert_value("s", "hunter2", 7);
    del_object("s");
}

static void test_encrypted_wrongly(void)
{
    add_object("{'qom-type': 'secret', 'id': 'master', 'data': '" KEY "'}");
    add_object("{'qom-type': 'secret', 'id': 'short', 'data': 'short'}");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', "
                   "'data': '" CIPHER "'}",
                   "IV is required");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', "
                   "'iv': 'AAAA', 'data': '" CIPHER "'}",
                   "IV should be 16 bytes in length, not 3");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'short', "
                   "'iv': '" IV "', 'data': '" CIPHER "'}",
                   "should be 32 bytes in length, not 5");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'none', "
                   "'iv': '" IV "', 'data': '" CIPHER "'}",
                   "No secret with id 'none'");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', "
                   "'iv': '" IV "', 'data': 'AAAA'}",
                   "multiple of the block size");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', "
                   "'iv': '" IV "', 'data': ''}",
                   "multiple of the block size");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'format': 'base64', 'keyid': 'master', "
                   "'iv': '" IV "', 'data': '" IV "'}",
                   "padding is wrong");
    del_object("master");
    del_object("short");
}

static void test_refusals(void)
{
    assert_refused("{'qom-type': 'secret', 'id': 's'}", "Either 'file' or 'data'");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'data': 'x', 'file': 'y'}",
                   "mutually exclusive");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'data': '!!!!', 'format': 'base64'}",
                   "Base64 data contains invalid characters");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'data': 'AAA', 'format': 'base64'}",
                   "is incomplete");
    assert_refused("{'qom-type': 'secret', 'id': 's', 'data': 'A=AA', 'format': 'base64'}",
                   "Base64 data");
}

static void test_as_text(void)
{
    g_autoptr(GError) err = NULL;
    char *text;

    add_object("{'qom-type': 'secret', 'id': 's', 'data': 'ol\u00e9'}");
    text = qcrypto_secret_lookup_as_utf8("s", NULL);
    g_assert_cmpstr(text, ==, "ol\u00e9");
    wipe_free_text(text);
    text = qcrypto_secret_lookup_as_base64("s", NULL);
    g_assert_cmpstr(text, ==, "b2zDqQ==");
    wipe_free_text(text);
    del_object("s");

    add_object("{'qom-type': 'secret', 'id': 's', 'data': '/w==', 'format': 'base64'}");
    g_assert_null(qcrypto_secret_lookup_as_utf8("s", &err));
    g_assert_nonnull(strstr(err->message, "not valid UTF-8"));
    del_object("s");
    add_object("{'qom-type': 'secret', 'id': 's', 'data': 'YQBi', 'format': 'base64'}");
    g_assert_null(qcrypto_secret_lookup_as_utf8("s", NULL)); /* a NUL inside */
    del_object("s");
    g_assert_null(qcrypto_secret_lookup_as_utf8("s", NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    register_crypto_objects();
    g_test_add_func("/secret/data", test_data);
    g_test_add_func("/secret/file", test_file);
    g_test_add_func("/secret/file-that-is-too-large", test_file_that_is_too_large);
    g_test_add_func("/secret/encrypted", test_encrypted);
    g_test_add_func("/secret/encrypted-wrongly", test_encrypted_wrongly);
    g_test_add_func("/secret/refusals", test_refusals);
    g_test_add_func("/secret/as-text", test_as_text);
    return g_test_run();
}
