/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Channels: what each kind has of its own. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-buffer.h"
#include "io/channel-command.h"
#include "io/channel-fd.h"
#include "io/channel-file.h"
#include "io/channel-null.h"
#include "io/channel-socket.h"
#include "util/error.h"

/* --- buffer and null --- */

static void test_buffer(void)
{
    QIOChannelBuffer *bioc = qio_channel_buffer_new(10000);
    QIOChannel *ioc = QIO_CHANNEL(bioc);
    g_autoptr(GError) err = NULL;
    g_autofree char *big = g_malloc0(10001);
    char buf[16] = "";
    struct iovec iov = {buf, 3};
    size_t bytes;

    g_assert_cmpint(qio_channel_write_all(ioc, "hello world", 11, &err), ==, 0);
    g_assert_cmpint(qio_channel_read_all_eof(ioc, buf, 1, &err), ==, 0);
    g_assert_cmpint(qio_channel_seek(ioc, 6, SEEK_SET, &err), ==, 6);
    g_assert_cmpint(
        qio_channel_readv_full(ioc, &iov, 1, NULL, QIO_CHANNEL_READ_FLAG_MSG_PEEK, &err), ==, 3);
    g_assert_cmpint(qio_channel_read_all(ioc, buf, 5, &err), ==, 0);
    g_assert_cmpstr(buf, ==, "world");
    iov = (struct iovec){(char *)"W", 1};
    g_assert_cmpint(qio_channel_pwritev_all(ioc, &iov, 1, 6, &err), ==, 0);
    g_assert_cmpint(memcmp(qio_channel_buffer_data(bioc, &bytes), "hello World", 11), ==, 0);
    g_assert_cmpint(bytes, ==, 11);
    g_assert_cmpint(qio_channel_seek(ioc, 12, SEEK_SET, NULL), ==, -EINVAL);
    g_assert_cmpint(qio_channel_seek(ioc, INT64_MAX, SEEK_END, NULL), ==, -EINVAL);
    g_assert_cmpint(qio_channel_pwritev(ioc, &iov, 1, -1, NULL), ==, -ENOSPC);
    g_assert_no_error(err);
    qio_channel_buffer_reset(bioc);
    g_assert_cmpint(qio_channel_write_all(ioc, big, 10000, &err), ==, 0);
    g_assert_cmpint(qio_channel_write_all(ioc, big, 1, &err), ==, -ENOSPC);
    g_assert_cmpstr(err->message, ==, "Unable to write 1 bytes to buffer: No space left on device");
    qio_channel_unref(ioc);
}

static void test_null(void)
{
    g_autoptr(QIOChannel) ioc = qio_channel_null_new();
    char buf[4];

    g_assert_cmpint(qio_channel_write_all(ioc, "data", 4, NULL), ==, 0);
    g_assert_cmpint(qio_channel_read_all_eof(ioc, buf, 4, NULL), ==, 0);
    qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    g_assert_cmpint(qio_channel_write_all(ioc, "data", 4, NULL), ==, -EPIPE);
}

/* --- files --- */

static void test_file(void)
{
    g_autofree char *path = g_strdup("/tmp/ferry-channel-XXXXXX");
    int fd = g_mkstemp(path);
    QIOChannelFile *fioc;
    QIOChannel *ioc;
    g_autoptr(GError) err = NULL;
    char buf[9] = "";
    struct iovec iov[3] = {{(char *)"ab", 2}, {NULL, 0}, {(char *)"cd", 2}};
    struct iovec in = {buf, 8};

    close(fd);
    fioc = qio_channel_file_new_path(path, O_RDWR | O_TRUNC, 0, &err);
    g_assert_no_error(err);
    ioc = QIO_CHANNEL(fioc);
    g_assert_true(qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_SEEKABLE));
    g_assert_cmpint(qio_channel_pwritev_all(ioc, iov, 3, 4, &err), ==, 0);
    g_assert_cmpint(qio_channel_writev_all(ioc, iov, 3, &err), ==, 0);
    g_assert_cmpint(qio_channel_preadv_all(ioc, &in, 1, 0, &err), ==, 0);
    g_assert_cmpstr(buf, ==, "abcdabcd");
    g_assert_cmpint(qio_channel_seek(ioc, 2, SEEK_SET, &err), ==, 2);
    g_assert_cmpint(qio_channel_read_all(ioc, buf, 6, &err), ==, 0);
    g_assert_cmpint(memcmp(buf, "cdabcd", 6), ==, 0);
    g_assert_cmpint(qio_channel_file_sync(fioc, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(qio_channel_preadv_all(ioc, &in, 1, 1, &err), ==, -EPIPE);
    g_clear_error(&err);
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_cmpint(qio_channel_write_all(ioc, "x", 1, &err), ==, -EBADF);
    g_assert_cmpstr(err->message, ==, "Unable to write to file: Bad file descriptor");
    g_clear_error(&err);
    qio_channel_unref(ioc);
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_null(qio_channel_file_new_path(path, O_RDWR, 0, &err));
    g_assert_nonnull(strstr(err->message, "No such file"));
}

static void test_full_disk(void)
{
    QIOChannelFile *fioc = qio_channel_file_new_path("/dev/full", O_WRONLY, 0, NULL);
    g_autoptr(GError) err = NULL;

    g_assert_nonnull(fioc);
    g_assert_cmpint(qio_channel_write_all(QIO_CHANNEL(fioc), "x", 1, &err), ==, -ENOSPC);
    g_assert_cmpstr(err->message, ==, "Unable to write to file: No space left on device");
    qio_channel_unref(QIO_CHANNEL(fioc));
}

static void test_direct_io(void)
{
    g_autofree char *path = g_strdup("/var/tmp/ferry-channel-XXXXXX");
    int fd = g_mkstemp(path);
    g_autoptr(GError) err = NULL;
    QIOChannelFile *fioc;
    struct iovec iov;
    void *page = NULL;

    close(fd);
    fioc = qio_channel_file_new_path(path, O_RDWR | O_DIRECT, 0, &err);
    if (!fioc) {
        g_test_skip(err->message);
        g_unlink(path);
        return;
    }
    g_assert_cmpint(posix_memalign(&page, 4096, 4096), ==, 0);
    memset(page, 'p', 4096);
    iov = (struct iovec){page, 4096};
    g_assert_cmpint(qio_channel_pwritev_all(QIO_CHANNEL(fioc), &iov, 1, 8192, &err), ==, 0);
    memset(page, 0, 4096);
    g_assert_cmpint(qio_channel_preadv_all(QIO_CHANNEL(fioc), &iov, 1, 8192, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpint(((char *)page)[4095], ==, 'p');
    free(page);
    qio_channel_unref(QIO_CHANNEL(fioc));
    g_unlink(path);
}

/* --- programs --- */

static QIOChannel *start(const char *command, int flags)
{
    g_autoptr(GError) err = NULL;
    QIOChannelCommand *cioc = qio_channel_command_new_shell(command, flags, &err);

    g_assert_no_error(err);
    return QIO_CHANNEL(cioc);
}

static void test_command_both_ways(void)
{
    g_autoptr(QIOChannel) ioc = start("tr a-z A-Z", O_RDWR);
    g_autoptr(GError) err = NULL;
    g_autoptr(QIOChannel) line = start("read x; echo \"<$x>\"", O_RDWR);
    char buf[8] = "";

    g_assert_cmpint(qio_channel_write_all(line, "word\n", 5, &err), ==, 0);
    g_assert_cmpint(qio_channel_read_all(line, buf, 7, &err), ==, 0);
    g_assert_cmpstr(buf, ==, "<word>\n");
    g_assert_cmpint(qio_channel_close(line, &err), ==, 0);
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_no_error(err);
}

static void check_close(const char *command, const char *message)
{
    g_autoptr(QIOChannel) ioc = start(command, O_WRONLY);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(qio_channel_close(ioc, &err), ==, -EIO);
    g_assert_cmpstr(err->message, ==, message);
    g_clear_error(&err);
    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
}

static void test_command_status(void)
{
    g_autoptr(GError) err = NULL;
    const char *const argv[] = {"/nonexistent/program", NULL};

    check_close("exit 3", "Command exited with status 3");
    check_close("kill -9 $$", "Command was killed by signal 9 (Killed)");
    g_assert_null(qio_channel_command_new_spawn(argv, O_RDONLY, &err));
    g_assert_cmpstr(err->message, ==,
                    "Unable to start '/nonexistent/program': No such file or directory");
}

/* The write reports the command's end, and so does the close. */
static void test_command_ends_while_it_is_written_to(void)
{
    g_autoptr(QIOChannel) ioc = start("exec <&-; exit 3", O_WRONLY);
    g_autoptr(GError) err = NULL, again = NULL;
    static const char bytes[65536];
    ssize_t ret;

    do {
        ret = qio_channel_write_all(ioc, bytes, sizeof(bytes), &err);
    } while (ret >= 0);
    g_assert_cmpint(ret, ==, -EPIPE);
    g_assert_cmpstr(err->message, ==,
                    "Command exited with status 3: Unable to write to command: Broken pipe");
    g_assert_cmpint(qio_channel_close(ioc, &again), ==, -EIO);
    g_assert_cmpstr(again->message, ==, "Command exited with status 3");
}

static void *close_in_thread(void *opaque)
{
    return GINT_TO_POINTER(qio_channel_close(opaque, NULL));
}

static void test_shutdown_ends_command(void)
{
    for (int stubborn = 0; stubborn < 2; stubborn++) {
        g_autoptr(QIOChannel) ioc = start(
            stubborn ? "trap '' TERM; echo; while :; do sleep 0.1; done" : "echo; exec sleep 1000",
            O_RDONLY);
        GThread *thread;
        char byte;

        g_assert_cmpint(qio_channel_read_all(ioc, &byte, 1, NULL), ==, 0);
        thread = g_thread_new("close", close_in_thread, ioc);
        qio_channel_shutdown(ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        g_assert_cmpint(GPOINTER_TO_INT(g_thread_join(thread)), ==, -ECANCELED);
    }
}

static void test_dropped_command_ends(void)
{
    QIOChannel *ioc = start("echo; exec sleep 1000", O_RDONLY);
    pid_t pid = qio_channel_command_get_pid((QIOChannelCommand *)ioc);
    char byte;

    g_assert_cmpint(qio_channel_read_all(ioc, &byte, 1, NULL), ==, 0);
    qio_channel_unref(ioc);
    while (kill(pid, 0) == 0) {
        g_thread_yield();
    }
    g_assert_cmpint(errno, ==, ESRCH);
}

static void test_command_inherits_nothing(void)
{
    int leak = open("/dev/null", O_RDWR); /* not close-on-exec */
    g_autofree char *command = g_strdup_printf("test ! -e /proc/self/fd/%d", leak);
    g_autoptr(QIOChannel) ioc = start(command, O_RDWR);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(qio_channel_close(ioc, &err), ==, 0);
    g_assert_no_error(err);
    close(leak);
}

/* --- sockets --- */

static void tcp_pair(QIOChannel *end[2])
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sa);
    int lfd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_assert_cmpint(bind(lfd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    g_assert_cmpint(listen(lfd, 1), ==, 0);
    g_assert_cmpint(getsockname(lfd, (struct sockaddr *)&sa, &len), ==, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), ==, 0);
    end[0] = qio_channel_new_fd(fd, NULL);
    end[1] = qio_channel_new_fd(accept(lfd, NULL, NULL), NULL);
    close(lfd);
}

#define ZERO_COPY_BYTES (16u << 20)

static void *read_zero_copied(void *opaque)
{
    g_autofree uint8_t *buf = g_malloc(ZERO_COPY_BYTES);

    g_assert_cmpint(qio_channel_read_all(opaque, buf, ZERO_COPY_BYTES, NULL), ==, 0);
    for (size_t i = 0; i < ZERO_COPY_BYTES; i++) {
        g_assert_cmpint(buf[i], ==, (uint8_t)(i >> 12));
    }
    return NULL;
}

static void test_zero_copy(void)
{
    uint8_t *mem =
        mmap(NULL, ZERO_COPY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    QIOChannel *end[2];
    g_autoptr(GError) err = NULL;
    GThread *thread;

    tcp_pair(end);
    if (!qio_channel_has_feature(end[0], QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        g_test_skip("the kernel has no zero-copy sends");
        return;
    }
    for (size_t i = 0; i < ZERO_COPY_BYTES; i++) {
        mem[i] = i >> 12;
    }
    g_assert_cmpint(qio_channel_flush(end[0], &err), ==, 0); /* nothing to wait for */
    thread = g_thread_new("reader", read_zero_copied, end[1]);
    for (size_t pos = 0; pos < ZERO_COPY_BYTES; pos += 64 << 10) {
        struct iovec iov = {mem + pos, 64 << 10};
        int ret = qio_channel_writev_zero_copy_all(end[0], &iov, 1, &err);

        if (ret == -ENOBUFS) {
            g_assert_nonnull(strstr(err->message, "lock enough memory"));
            g_clear_error(&err);
            ret = qio_channel_writev_all(end[0], &iov, 1, &err);
        }
        g_assert_no_error(err);
        g_assert_cmpint(ret, ==, 0);
    }
    g_thread_join(thread);
    /* loopback makes a copy for the receiver */
    g_assert_cmpint(qio_channel_flush(end[0], &err), ==, 1);
    g_assert_no_error(err);
    qio_channel_unref(end[0]);
    qio_channel_unref(end[1]);
    munmap(mem, ZERO_COPY_BYTES);
}

static void *flush_thread(void *opaque)
{
    return GINT_TO_POINTER(qio_channel_flush(opaque, NULL));
}

static void test_flush_is_woken_by_shutdown(void)
{
    QIOChannel *end[2];
    GThread *thread;
    g_autofree uint8_t *page = g_malloc0(4096);
    struct iovec iov = {page, 4096};
    ssize_t len;
    int ret;

    tcp_pair(end);
    do { /* no peer reads, so some of it stays unsent */
        len =
            qio_channel_writev_full(end[0], &iov, 1, NULL, QIO_CHANNEL_WRITE_FLAG_ZERO_COPY, NULL);
    } while (len > 0);
    thread = g_thread_new("flush", flush_thread, end[0]);
    qio_channel_shutdown(end[0], QIO_CHANNEL_SHUTDOWN_BOTH);
    ret = GPOINTER_TO_INT(g_thread_join(thread));
    g_assert_true(ret == -EPIPE || ret == 1);
    qio_channel_unref(end[0]);
    qio_channel_unref(end[1]);
}

static void test_zero_copy_needs_the_feature(void)
{
    g_autoptr(QIOChannel) ioc = qio_channel_null_new();
    struct iovec iov = {(char *)"x", 1};
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(qio_channel_writev_zero_copy_all(ioc, &iov, 1, &err), ==, -ENOTSUP);
    g_assert_cmpstr(err->message, ==, "Requested Zero Copy feature is not available");
    g_assert_cmpint(qio_channel_flush(ioc, NULL), ==, 0);
}

static void test_descriptors_and_peeking(void)
{
    int fds[2], pipe_fds[2];
    QIOChannel *end[2];
    QIOChannelFds got;
    char buf[2] = "";
    struct iovec iov = {(char *)"x", 1}, in = {buf, 1};

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    g_assert_cmpint(pipe2(pipe_fds, O_CLOEXEC), ==, 0);
    end[0] = qio_channel_new_fd(fds[0], NULL);
    end[1] = qio_channel_new_fd(fds[1], NULL);
    g_assert_cmpint(
        qio_channel_writev_full(end[0], &iov, 1, &(QIOChannelFds){pipe_fds, 2}, 0, NULL), ==, 1);
    g_assert_true(qio_channel_set_blocking(end[1], true, NULL));
    g_assert_cmpint(
        qio_channel_readv_full(end[1], &in, 1, NULL, QIO_CHANNEL_READ_FLAG_MSG_PEEK, NULL), ==, 1);
    g_assert_cmpint(qio_channel_readv_full(end[1], &in, 1, &got, 0, NULL), ==, 1);
    g_assert_cmpint(got.n, ==, 2);
    g_assert_cmpint(write(got.fd[1], "y", 1), ==, 1);
    g_assert_cmpint(read(pipe_fds[0], buf, 1), ==, 1);
    g_assert_cmpint(buf[0], ==, 'y');
    for (int i = 0; i < 2; i++) {
        close(got.fd[i]);
        close(pipe_fds[i]);
        qio_channel_unref(end[i]);
    }
    g_free(got.fd);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/channel-buffer/all", test_buffer);
    g_test_add_func("/channel-null/all", test_null);
    g_test_add_func("/channel-file/all", test_file);
    g_test_add_func("/channel-file/full-disk", test_full_disk);
    g_test_add_func("/channel-file/direct-io", test_direct_io);
    g_test_add_func("/channel-command/both-ways", test_command_both_ways);
    g_test_add_func("/channel-command/status", test_command_status);
    g_test_add_func("/channel-command/ends-while-written-to",
                    test_command_ends_while_it_is_written_to);
    g_test_add_func("/channel-command/shutdown-ends-it", test_shutdown_ends_command);
    g_test_add_func("/channel-command/dropped-one-ends", test_dropped_command_ends);
    g_test_add_func("/channel-command/inherits-nothing", test_command_inherits_nothing);
    g_test_add_func("/channel-socket/zero-copy", test_zero_copy);
    g_test_add_func("/channel-socket/flush-is-woken-by-shutdown", test_flush_is_woken_by_shutdown);
    g_test_add_func("/channel-socket/zero-copy-needs-the-feature",
                    test_zero_copy_needs_the_feature);
    g_test_add_func("/channel-socket/descriptors-and-peeking", test_descriptors_and_peeking);
    return g_test_run();
}
