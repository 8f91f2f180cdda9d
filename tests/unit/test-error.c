/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors: classes and messages. */
#include <errno.h>
#include <glib.h>
#include "util/error.h"

static void test_message_and_class(void)
{
    g_autoptr(GError) err = NULL;

    error_setg(&err, "Could not open '%s'", "disk");
    g_assert_error(err, FERRY_ERROR, FERRY_ERROR_GENERIC);
    g_assert_cmpstr(err->message, ==, "Could not open 'disk'");
    g_assert_cmpstr(ferry_error_class(err), ==, "GenericError");
    g_clear_error(&err);

    error_set_class(&err, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", "d0");
    g_assert_error(err, FERRY_ERROR, FERRY_ERROR_DEVICE_NOT_FOUND);
    g_assert_cmpstr(err->message, ==, "Device 'd0' not found");
    g_assert_cmpstr(ferry_error_class(err), ==, "DeviceNotFound");
}

static void test_errno_follows_message(void)
{
    g_autoptr(GError) err = NULL;

    error_setg_errno(&err, ENOENT, "Could not open '%s'", "100%s");
    g_assert_cmpstr(err->message, ==, "Could not open '100%s': No such file or directory");
}

static void test_null_is_ignored(void)
{
    error_setg(NULL, "nothing %s", "listens");
    error_set_class(NULL, FERRY_ERROR_COMMAND_NOT_FOUND, "nothing listens");
    error_setg_errno(NULL, EIO, "nothing listens");
}

static void test_foreign_domain_is_generic(void)
{
    g_autoptr(GError) err =
        g_error_new_literal(G_FILE_ERROR, FERRY_ERROR_DEVICE_NOT_FOUND, "foreign");

    g_assert_cmpstr(ferry_error_class(err), ==, "GenericError");
}

static void test_reports(void)
{
    if (g_test_subprocess()) {
        GError *err = NULL;

        g_set_prgname("ferry-test");
        error_setg(&err, "went wrong");
        error_report_err(err);
        warn_report("may go %s", "wrong");
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr("*ferry-test: went wrong\nferry-test: warning: may go wrong\n*");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/error/message-and-class", test_message_and_class);
    g_test_add_func("/error/errno-follows-message", test_errno_follows_message);
    g_test_add_func("/error/null-is-ignored", test_null_is_ignored);
    g_test_add_func("/error/foreign-domain-is-generic", test_foreign_domain_is_generic);
    g_test_add_func("/error/reports", test_reports);
    return g_test_run();
}
