/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connections of migrations that are there at once: programs, descriptors, files and sets of them;
 * and which transport goes with which settings.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "monitor/fds.h"
#include "monitor/monitor-int.h"
#include "tests/unit/migration-ends.h"
#include "util/inherited-fds.h"
#include "util/open.h"
#include "util/sockets.h"

/* --- programs and descriptors --- */

static void test_exec(void)
{
    g_autofree char *path = path_in_dir("exec-out"), *text = NULL;
    g_autofree char *out = g_strdup_printf("exec:cat > %s", path);
    g_autofree char *in = g_strdup_printf("exec:cat %s", path);
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};
    QIOChannel *ioc;
    GError *err = NULL;

    migration_settings_reset();
    c = new_connector(out);
    ioc = connect_to(c);
    send_bytes(ioc, "through a program");
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_no_error(err);
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "through a program");

    listen_at(&dst, in);
    run_until(&dst.arrived);
    g_assert_no_error(dst.error);
    g_assert_null(migration_listener_addresses(dst.listener));
    expect_bytes(dst.channels[0], "through a program");
    destination_clear(&dst);
}

/* With a return path both directions of the program are used. */
static void test_exec_both_ways(void)
{
    g_autoptr(MigrationConnector) c = NULL;
    QIOChannel *ioc;

    migration_settings_reset();
    set_cap(MIGRATION_CAPABILITY_RETURN_PATH);
    c = new_connector("exec:cat");
    ioc = connect_to(c);
    send_bytes(ioc, "echo");
    expect_bytes(ioc, "echo");
    qio_channel_unref(ioc);
    migration_settings_reset();
}

static int take_name(const char *name, GError **errp)
{
    return strcmp(name, "mig") ? -1 : open("/dev/null", O_WRONLY);
}

static void test_fd(void)
{
    int fds[2];
    g_autofree char *out = NULL, *in = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    g_autoptr(GError) err = NULL;
    Destination dst = {0};
    ConnectCall again = {0};
    QIOChannel *ioc;

    migration_settings_reset();
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    inherited_fds_record();
    out = g_strdup_printf("fd:%d", fds[0]);
    in = g_strdup_printf("fd:%d", fds[1]);
    listen_at(&dst, in);
    c = new_connector(out);
    ioc = connect_to(c);
    run_until(&dst.arrived);
    send_bytes(ioc, "over descriptors");
    expect_bytes(dst.channels[0], "over descriptors");
    again.c = c;
    start_connect(&again);
    run_until(&again.done);
    g_assert_nonnull(again.err);
    g_clear_error(&again.err);
    qio_channel_unref(ioc);
    destination_clear(&dst);

    socket_set_fd_lookup(take_name);
    g_clear_pointer(&c, migration_connector_unref);
    c = new_connector("fd:mig");
    qio_channel_unref(connect_to(c));
    socket_set_fd_lookup(NULL);
    g_assert_null(try_connector("fd:mig", &err));
    g_clear_error(&err);
    g_assert_null(try_connector("fd:999", &err));
    g_test_message("%s", err->message);
}

static void test_file(void)
{
    g_autofree char *path = path_in_dir("file");
    g_autofree char *uri = g_strdup_printf("file:%s,offset=16", path), *text = NULL;
    g_autofree char *long_old = g_strnfill(5000, 'o');
    g_autoptr(MigrationConnector) c = NULL;
    Destination dst = {0};
    GError *err = NULL;
    gsize len;
    QIOChannel *ioc;
    int extra;

    migration_settings_reset();
    write_file("file", long_old);
    c = new_connector(uri);
    ioc = connect_to(c);
    g_assert_true(qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE));
    send_bytes(ioc, "behind the header");
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_cmpint(pwrite(extra, "header", 6, 0), ==, 6);
    close(extra);
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    g_assert_cmpuint(len, ==, 16 + 17);
    g_assert_cmpint(memcmp(text, "headeroooooooooobehind the header", len), ==, 0);

    listen_at(&dst, uri);
    run_until(&dst.arrived);
    g_assert_true(qio_channel_has_feature(dst.channels[0], QIO_CHANNEL_FEATURE_SEEKABLE));
    extra = migration_listener_open_extra(dst.listener, false, &err);
    g_assert_no_error(err);
    close(extra);
    {
        char buf[18] = "";

        g_assert_cmpint(qio_channel_read_all(dst.channels[0], buf, 17, &err), ==, 0);
        g_assert_cmpstr(buf, ==, "behind the header");
    }
    destination_clear(&dst);
}

/* libvirt passes one descriptor with O_DIRECT and one without in one set. */
static void test_fdset(void)
{
    g_autofree char *path = path_in_dir("set");
    g_autoptr(MigrationConnector) c = NULL;
    g_autofree char *uri = NULL, *text = NULL;
    GError *err = NULL;
    int direct, plain, extra;
    int64_t set;
    QIOChannel *ioc;

    migration_settings_reset();
    write_file("set", "old old old old old old old old");
    direct = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (direct < 0) {
        g_test_skip("no O_DIRECT here");
        return;
    }
    plain = open(path, O_WRONLY | O_CLOEXEC);
    set = monitor_fdset_add_fd(-1, direct, NULL);
    g_assert_cmpint(monitor_fdset_add_fd(set, plain, NULL), ==, set);
    uri = g_strdup_printf("file:/dev/fdset/%" G_GINT64_FORMAT ",offset=4", set);
    c = new_connector(uri);
    ioc = connect_to(c);
    send_bytes(ioc, "stream");

    extra = migration_connector_open_extra(c, true, &err);
    g_assert_no_error(err);
    g_assert_true(fcntl(extra, F_GETFL) & O_DIRECT);
    qemu_close(extra);
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_false(fcntl(extra, F_GETFL) & O_DIRECT);
    g_assert_cmpint(pwrite(extra, "OLD", 3, 0), ==, 3);
    qemu_close(extra);

    send_bytes(ioc, "ed");
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "OLD streamed");
}

/* A set's only descriptor, whose flags are those of neither use: each gets one that fits. */
static void test_fdset_of_one(void)
{
    g_autofree char *path = path_in_dir("one");
    static const int flags[] = {0, O_DIRECT, O_APPEND};

    migration_settings_reset();
    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
        g_autofree char *uri = NULL, *text = NULL;
        g_autoptr(MigrationConnector) c = NULL;
        GError *err = NULL;
        QIOChannel *ioc;
        int fd, extra;

        write_file("one", "old old old old old old old old");
        fd = open(path, O_WRONLY | O_CLOEXEC | flags[i]);
        if (fd < 0) {
            g_test_skip("no O_DIRECT here");
            return;
        }
        uri = g_strdup_printf("file:/dev/fdset/%" G_GINT64_FORMAT ",offset=4",
                              monitor_fdset_add_fd(-1, fd, NULL));
        c = new_connector(uri);
        ioc = connect_to(c);
        send_bytes(ioc, "streamed");
        for (int direct = 0; direct < 2; direct++) {
            extra = migration_connector_open_extra(c, direct, &err);
            g_assert_no_error(err);
            g_assert_cmphex(fcntl(extra, F_GETFL) & (O_DIRECT | O_APPEND), ==,
                            direct ? O_DIRECT : 0);
            qemu_close(extra);
        }
        qio_channel_unref(ioc);
        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        g_assert_cmpstr(text, ==, "old streamed");
    }
}

/* A file's descriptor serves mapped-ram from where it stands; what has no places does not. */
static void test_mapped_fd(void)
{
    g_autofree char *path = path_in_dir("mapped"), *uri = NULL, *text = NULL;
    g_autofree char *append_uri = NULL, *pipe_uri = NULL;
    g_autoptr(MigrationConnector) c = NULL;
    GError *err = NULL;
    int fds[2], fd, extra;
    QIOChannel *ioc;

    migration_settings_reset();
    set_cap(MIGRATION_CAPABILITY_MAPPED_RAM);
    write_file("mapped", "header");
    fd = open(path, O_WRONLY);
    g_assert_cmpint(lseek(fd, 4, SEEK_SET), ==, 4);
    inherited_fds_record();
    uri = g_strdup_printf("fd:%d", fd);
    c = new_connector(uri);
    ioc = connect_to(c);
    send_bytes(ioc, "the stream");
    extra = migration_connector_open_extra(c, false, &err);
    g_assert_no_error(err);
    g_assert_cmpint(pwrite(extra, "page", 4, 20), ==, 4);
    qemu_close(extra);
    send_bytes(ioc, ".");
    qio_channel_unref(ioc);
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpstr(text, ==, "headthe stream.");
    g_assert_cmpstr(text + 20, ==, "page");

    append_uri = g_strdup_printf("fd:%d", open(path, O_WRONLY | O_APPEND));
    inherited_fds_record();
    g_assert_null(try_connector(append_uri, &err));
    g_assert_nonnull(strstr(err->message, "O_APPEND"));
    g_clear_error(&err);
    g_assert_cmpint(pipe(fds), ==, 0);
    pipe_uri = g_strdup_printf("fd:%d", fds[1]);
    inherited_fds_record();
    g_assert_null(try_connector(pipe_uri, &err));
    g_assert_nonnull(strstr(err->message, "seekable transport"));
    g_clear_error(&err);
    close(fds[0]);
    migration_settings_reset();
}

static void test_new_file_is_private(void)
{
    g_autofree char *path = path_in_dir("new");
    g_autofree char *uri = g_strdup_printf("file:%s", path);
    g_autoptr(MigrationConnector) c = NULL;
    struct stat st;

    migration_settings_reset();
    c = new_connector(uri);
    qio_channel_unref(connect_to(c));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 077, ==, 0);
}

static void test_missing_file(void)
{
    g_autoptr(GError) err = NULL;
    Destination dst = {0};

    migration_settings_reset();
    g_assert_false(try_listen(&dst, "file:/nonexistent/x", &err));
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, "/nonexistent/x"));
}

/* --- what goes with what --- */

typedef struct CheckCase {
    const char *uri;
    int caps[2]; /* -1: none */
    const char *tls, *compression;
    const char *error; /* NULL: fine */
} CheckCase;

#define CAP(name) MIGRATION_CAPABILITY_##name

static const CheckCase checks[] = {
    {"file:/x", {CAP(MAPPED_RAM), -1}, "", "none", NULL},
    {"file:/x", {CAP(MAPPED_RAM), CAP(MULTIFD)}, "", "none", NULL},
    {"file:/x", {CAP(MAPPED_RAM), CAP(MULTIFD)}, "", "zstd", "compression with mapped-ram"},
    {"file:/x", {CAP(MAPPED_RAM), -1}, "t", "none", "TLS with mapped-ram"},
    {"tcp:h:1", {CAP(MAPPED_RAM), -1}, "", "none", "seekable transport"},
    {"exec:x", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"fd:1", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"file:/x", {CAP(MULTIFD), -1}, "", "none", "multi-channel URIs"},
    {"file:/x", {-1, -1}, "t", "none", "TLS with a file"},
};

static void test_checks(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(checks); i++) {
        const CheckCase *check = &checks[i];
        g_autoptr(GError) err = NULL, listen_err = NULL;
        g_autoptr(MigrationConnector) c = NULL;
        Destination dst = {0};

        migration_settings_reset();
        for (int j = 0; j < 2 && check->caps[j] >= 0; j++) {
            set_cap(check->caps[j]);
        }
        set_param("tls-creds", check->tls);
        set_param("multifd-compression", check->compression);
        c = try_connector(check->uri, &err);
        g_assert_cmpint(c == NULL, ==, check->error != NULL);
        if (check->error) {
            g_assert_nonnull(strstr(err->message, check->error));
            g_assert_false(try_listen(&dst, check->uri, &listen_err));
            g_assert_cmpstr(listen_err->message, ==, err->message);
        }
    }
    migration_settings_reset();
}

int main(int argc, char **argv)
{
    migration_ends_init(&argc, &argv);
    fdsets_init();
    g_test_add_func("/migration-channel-file/exec", test_exec);
    g_test_add_func("/migration-channel-file/exec-both-ways", test_exec_both_ways);
    g_test_add_func("/migration-channel-file/fd", test_fd);
    g_test_add_func("/migration-channel-file/file", test_file);
    g_test_add_func("/migration-channel-file/fdset", test_fdset);
    g_test_add_func("/migration-channel-file/fdset-of-one", test_fdset_of_one);
    g_test_add_func("/migration-channel-file/mapped-fd", test_mapped_fd);
    g_test_add_func("/migration-channel-file/new-file-is-private", test_new_file_is_private);
    g_test_add_func("/migration-channel-file/missing-file", test_missing_file);
    g_test_add_func("/migration-channel-file/checks", test_checks);
    return migration_ends_run();
}
