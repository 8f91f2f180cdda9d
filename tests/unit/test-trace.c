/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trace points: what the generator makes of them, how they are found and switched, and the log. */
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "trace/trace-util.h"
#include "trace/trace-unit.h"
#include "util/log.h"
#include "util/trace.h"

extern TraceEvent *const trace_events_unit[];

typedef struct Log {
    char *dir;
    char *path;
} Log;

static void log_start(Log *log)
{
    g_autoptr(GError) err = NULL;

    log->dir = g_dir_make_tmp("test-trace-XXXXXX", &err);
    g_assert_no_error(err);
    log->path = g_build_filename(log->dir, "log", NULL);
    g_assert_true(qemu_set_log_filename(log->path, &err));
    g_assert_no_error(err);
}

static char *log_text(Log *log)
{
    g_autoptr(GError) err = NULL;
    char *text = NULL;

    g_file_get_contents(log->path, &text, NULL, &err);
    g_assert_no_error(err);
    return text;
}

static void log_end(Log *log)
{
    g_assert_true(qemu_set_log_filename(NULL, NULL));
    g_unlink(log->path);
    g_rmdir(log->dir);
    g_free(log->path);
    g_free(log->dir);
}

static void test_event_is_logged_only_while_enabled(void)
{
    g_autofree char *text = NULL;
    g_autofree char *start = g_strdup_printf("%d@", (int)getpid());
    Log log;

    log_start(&log);
    trace_unit_plain(1, "off");
    g_assert_false(trace_unit_plain_enabled());
    trace_event_unit_plain.enabled = true;
    g_assert_true(trace_unit_plain_enabled());
    trace_unit_plain(-2, "on");
    trace_event_unit_plain.enabled = false;
    trace_unit_plain(3, "off");
    text = log_text(&log);
    g_assert_true(g_str_has_prefix(text, start));
    g_assert_true(g_regex_match_simple("^\\d+@\\d+\\.\\d{6}:unit_plain a -2 b on\n$", text, 0, 0));
    log_end(&log);
}

static void test_formats(void)
{
    g_autofree char *text = NULL;
    Log log;

    log_start(&log);
    for (int i = 0; trace_events_unit[i]; i++) {
        trace_events_unit[i]->enabled = true;
    }
    trace_unit_nothing();
    trace_unit_macros(0x123456789a, NULL, 7);
    trace_unit_twelve(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12);
    for (int i = 0; trace_events_unit[i]; i++) {
        trace_events_unit[i]->enabled = false;
    }
    text = log_text(&log);
    g_assert_nonnull(strstr(text, ":unit_nothing nothing to show\n"));
    g_assert_nonnull(strstr(text, ":unit_macros off 0x123456789a p (nil) n 7 100%\n"));
    g_assert_nonnull(strstr(text, ":unit_twelve 1 2 3 4 5 6 7 8 9 10 11 12\n"));
    log_end(&log);
}

static void test_long_lines_are_cut(void)
{
    g_autofree char *text = NULL, *arg = g_strnfill(10000, 'x');
    Log log;

    log_start(&log);
    trace_event_unit_plain.enabled = true;
    trace_unit_plain(0, arg);
    trace_event_unit_plain.enabled = false;
    text = log_text(&log);
    g_assert_cmpuint(strlen(text), ==, 1024);
    g_assert_true(g_str_has_suffix(text, "x\n"));
    log_end(&log);
}

static void test_disabled_event_is_never_on(void)
{
    g_assert_false(trace_unit_disabled_enabled());
    trace_unit_disabled(1);
    for (int i = 0; trace_events_unit[i]; i++) {
        g_assert_cmpint(trace_events_unit[i]->available, ==,
                        !g_str_equal(trace_events_unit[i]->name, "unit_disabled"));
    }
}

static void test_registry_finds_names_and_patterns(void)
{
    TraceEventIter iter = {.pattern = "socket_*"};
    unsigned n = 0;

    g_assert_null(trace_event_by_name("no_such_event"));
    g_assert_true(trace_event_by_name("socket_listen") == &trace_event_socket_listen);
    while (trace_event_iter_next(&iter)) {
        n++;
    }
    g_assert_cmpuint(n, >, 1);
    g_assert_cmpuint(trace_event_set_state("socket_*", true), ==, n);
    g_assert_true(trace_socket_listen_enabled() && trace_socket_connect_done_enabled());
    g_assert_cmpuint(trace_event_set_state("socket_listen", false), ==, 1);
    g_assert_true(!trace_socket_listen_enabled() && trace_socket_connect_done_enabled());
    g_assert_cmpuint(trace_event_set_state("*", false), >=, n);
    g_assert_false(trace_socket_connect_done_enabled());
    g_assert_cmpuint(trace_event_set_state("nothing_*", true), ==, 0);
}

static void test_trace_option(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *arg = NULL;
    bool help = true;
    Log log;

    log_start(&log);
    g_assert_true(
        g_file_set_contents(log.path, "# comment\n\n socket_* \n-socket_listen\n", -1, NULL));
    arg = g_strdup_printf("events=%s", log.path);
    g_assert_true(trace_opt_parse(arg, &help, &err));
    g_assert_false(help);
    g_assert_true(!trace_socket_listen_enabled() && trace_socket_resolve_enabled());
    g_assert_true(trace_opt_parse("socket_listen,enable=-socket_resolve", &help, &err));
    g_assert_true(trace_socket_listen_enabled() && !trace_socket_resolve_enabled());
    g_assert_false(trace_opt_parse("colour=blue", &help, &err));
    g_assert_nonnull(strstr(err->message, "'colour'"));
    g_clear_error(&err);
    g_assert_false(trace_opt_parse("events=/nonexistent/file", &help, &err));
    g_assert_nonnull(strstr(err->message, "/nonexistent/file"));
    trace_event_set_state("*", false);
    log_end(&log);
}

static void test_log_items(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *text = NULL;
    Log log;

    log_start(&log);
    g_assert_true(qemu_set_log_items("unimp,trace:socket_listen", &err));
    g_assert_true(trace_socket_listen_enabled());
    g_assert_false(qemu_set_log_items("guest_errors,bogus", &err));
    g_assert_nonnull(strstr(err->message, "'bogus'"));
    qemu_log_mask(LOG_UNIMP, "register %#x\n", 0x40);
    qemu_log_mask(LOG_GUEST_ERROR, "not asked for\n");
    g_assert_true(qemu_set_log_items("none", NULL));
    qemu_log_mask(LOG_UNIMP, "not any more\n");
    text = log_text(&log);
    g_assert_cmpstr(text, ==, "register 0x40\n");
    trace_event_set_state("*", false);
    log_end(&log);
}

static void test_log_filename(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *pattern = NULL, *expanded = NULL;
    Log log;

    log_start(&log);
    g_assert_false(qemu_set_log_filename("/nonexistent/dir/log", &err));
    g_clear_error(&err);
    g_assert_false(qemu_set_log_filename("log-%s", &err));
    g_clear_error(&err);
    g_assert_false(qemu_set_log_filename("log-%d-%d", &err));
    pattern = g_build_filename(log.dir, "log-%d.txt", NULL);
    expanded = g_strdup_printf("%s/log-%d.txt", log.dir, (int)getpid());
    g_assert_true(qemu_set_log_filename(pattern, NULL));
    g_assert_true(g_file_test(expanded, G_FILE_TEST_EXISTS));
    g_unlink(expanded);
    log_end(&log);
}

static void test_generator_refuses_bad_lines(void)
{
    static const char thirteen_arguments[] =
        "many(int a, int b, int c, int d, int e, int f, int g, int h, int i, int j, int k, int l, "
        "int m) \"%d\"";
    const char *const bad[] = {
        "no_format(int a)",
        "no_parenthesis \"x\"",
        "1digit(int a) \"%d\"",
        "no_name(int) \"%d\"",
        "same(int a, int a) \"%d %d\"",
        "newline(int a) \"%d\\n\"",
        "shows_nothing(int a) \"text\"",
        "code(int a) \"%d\"); system(\"x\"",
        thirteen_arguments,
        "twice(void) \"x\"\ntwice(void) \"y\"",
    };
    const char *tool = g_getenv("TRACETOOL");
    Log log;

    if (!tool) {
        g_test_skip("TRACETOOL does not name the generator");
        return;
    }
    log_start(&log);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        const char *argv[] = {tool, "--folder", "unit", log.path, "/dev/null", "/dev/null", NULL};
        g_autofree char *messages = NULL;
        int status = 0;

        g_assert_true(g_file_set_contents(log.path, bad[i], -1, NULL));
        g_assert_true(
            g_spawn_sync(NULL, (char **)argv, NULL, 0, NULL, NULL, NULL, &messages, &status, NULL));
        g_test_message("%s", messages);
        g_assert_cmpint(status, !=, 0);
        g_assert_nonnull(
            strstr(messages, i == G_N_ELEMENTS(bad) - 1 ? ":2: error:" : ":1: error:"));
    }
    log_end(&log);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/trace/enabled", test_event_is_logged_only_while_enabled);
    g_test_add_func("/trace/formats", test_formats);
    g_test_add_func("/trace/long-lines", test_long_lines_are_cut);
    g_test_add_func("/trace/disabled", test_disabled_event_is_never_on);
    g_test_add_func("/trace/registry", test_registry_finds_names_and_patterns);
    g_test_add_func("/trace/option", test_trace_option);
    g_test_add_func("/trace/generator", test_generator_refuses_bad_lines);
    g_test_add_func("/log/items", test_log_items);
    g_test_add_func("/log/filename", test_log_filename);
    return g_test_run();
}
