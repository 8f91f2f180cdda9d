/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chardev pty: a pseudo-terminal whose other side any process may open.
 *
 * The kernel reports a pty that no process has open as hung up, all the time, and does not say when
 * that changes. While disconnected, the chardev polls it once a second, and whenever there is
 * something to write.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>
#include "chardev/char-stream.h"
#include "util/error.h"
#include "util/aio.h"
#include "util/timer.h"

#define PTY_POLL_NS NANOSECONDS_PER_SECOND

typedef struct PtyChardev {
    Chardev parent;
    int fd;             /* of the master side; 0: not open yet */
    CharStream *stream; /* NULL while no process has the other side open */
    QEMUTimer *timer;
} PtyChardev;

static bool somebody_there(PtyChardev *s)
{
    struct pollfd pfd = {.fd = s->fd, .events = POLLOUT};

    return poll(&pfd, 1, 0) >= 0 && !(pfd.revents & (POLLHUP | POLLERR));
}

static void pty_arm(PtyChardev *s)
{
    timer_mod_ns(s->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + PTY_POLL_NS);
}

static void pty_hangup(Chardev *chr)
{
    PtyChardev *s = (PtyChardev *)chr;

    g_clear_pointer(&s->stream, char_stream_free);
    pty_arm(s);
    qemu_chr_be_closed(chr);
}

static void pty_check(void *opaque)
{
    PtyChardev *s = opaque;

    if (s->stream) {
        return;
    }
    if (!somebody_there(s)) {
        pty_arm(s);
        return;
    }
    timer_del(s->timer);
    s->stream = char_stream_new(&s->parent, s->fd, s->fd, pty_hangup);
    qemu_chr_be_opened(&s->parent);
    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

static bool coroutine_fn pty_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    PtyChardev *s = (PtyChardev *)chr;
    char name[64];
    struct termios tty;
    int fd, slave;

    if (backend->u.pty.data && backend->u.pty.data->path) {
        error_setg(errp, "Parameter 'path' of chardev 'pty' is not supported");
        return false;
    }
    fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || grantpt(fd) < 0 || unlockpt(fd) < 0 || ptsname_r(fd, name, sizeof(name)) != 0) {
        error_setg_errno(errp, errno, "Failed to create PTY");
        if (fd >= 0) {
            close(fd);
        }
        return false;
    }
    /*
     * Bytes go through unchanged. Opening the other side once also makes a fresh pty report a
     * hang-up.
     */
    slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave >= 0) {
        if (tcgetattr(slave, &tty) == 0) {
            cfmakeraw(&tty);
            tcsetattr(slave, TCSAFLUSH, &tty);
        }
        close(slave);
    }
    s->fd = fd;
    chr->pty = g_strdup(name);
    s->timer = aio_timer_new(chr->ctx, QEMU_CLOCK_REALTIME, pty_check, s);
    pty_arm(s);
    return true;
}

static void pty_close(Chardev *chr)
{
    PtyChardev *s = (PtyChardev *)chr;

    timer_free(s->timer);
    char_stream_push(s->stream);
    char_stream_free(s->stream);
    if (s->fd > 0) {
        close(s->fd);
    }
}

static void pty_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    PtyChardev *s = (PtyChardev *)chr;

    if (s->stream) {
        char_stream_write(s->stream, buf, len);
    }
}

static size_t pty_pending(const Chardev *chr)
{
    const PtyChardev *s = (const PtyChardev *)chr;

    return s->stream ? char_stream_pending(s->stream) : 0;
}

static void pty_update_read(Chardev *chr)
{
    PtyChardev *s = (PtyChardev *)chr;

    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

static bool coroutine_fn pty_co_leave(Chardev *chr, bool at_once)
{
    PtyChardev *s = (PtyChardev *)chr;

    g_clear_pointer(&s->timer, timer_free);
    char_stream_leave(s->stream);
    return true;
}

static void pty_enter(Chardev *chr)
{
    PtyChardev *s = (PtyChardev *)chr;

    s->timer = aio_timer_new(chr->ctx, QEMU_CLOCK_REALTIME, pty_check, s);
    char_stream_enter(s->stream);
    if (!s->stream) {
        pty_arm(s);
    }
}

static char *pty_filename(const Chardev *chr)
{
    return g_strconcat("pty:", chr->pty, NULL);
}

const ChardevClass chardev_pty_class = {
    .kind = CHARDEV_BACKEND_KIND_PTY,
    .name = "pty",
    .instance_size = sizeof(PtyChardev),
    .co_open = pty_co_open,
    .close = pty_close,
    .write = pty_write,
    .pending = pty_pending,
    .update_read = pty_update_read,
    .co_leave = pty_co_leave,
    .enter = pty_enter,
    .filename = pty_filename,
};
