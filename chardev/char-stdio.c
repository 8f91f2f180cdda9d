/* SPDX-License-Identifier: GPL-2.0-or-later */
/* chardev stdio: the process's own standard input and output. */
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>
#include "chardev/char-stream.h"
#include "util/error.h"

typedef struct StdioChardev {
    Chardev parent;
    CharStream *stream;
    bool owner;   /* this one holds the terminal */
    bool signals; /* keys of the terminal raise them */
} StdioChardev;

/* How the terminal was; restored when the chardev or the process ends. */
static struct {
    bool in_use, registered, have_tty;
    struct termios tty;
    int flags[2];
} saved;

static void restore_terminal(void)
{
    if (!saved.in_use) {
        return;
    }
    saved.in_use = false;
    if (saved.have_tty) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved.tty);
    }
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        if (saved.flags[fd] >= 0) {
            (void)fcntl(fd, F_SETFL, saved.flags[fd]);
        }
    }
}

/*
 * How the terminal is used: as it was (`lines`), or key by key without echo. Ctrl-C ends the process
 * if `signals`.
 */
static void set_terminal(bool lines, bool signals)
{
    struct termios tty = saved.tty;

    if (!saved.have_tty) {
        return;
    }
    if (!lines) {
        tty.c_iflag &=
            ~(tcflag_t)(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
        tty.c_lflag &= ~(tcflag_t)(ECHO | ECHONL | ICANON | IEXTEN);
        tty.c_oflag |= OPOST;
        tty.c_cc[VMIN] = 1;
        tty.c_cc[VTIME] = 0;
    }
    if (!signals) {
        tty.c_lflag &= ~(tcflag_t)ISIG;
    }
    tcsetattr(STDIN_FILENO, TCSANOW, &tty);
}

static void take_terminal(bool signals)
{
    saved.in_use = true;
    for (int fd = STDIN_FILENO; fd <= STDOUT_FILENO; fd++) {
        saved.flags[fd] = fcntl(fd, F_GETFL);
        if (saved.flags[fd] >= 0) {
            (void)fcntl(fd, F_SETFL, saved.flags[fd] | O_NONBLOCK);
        }
    }
    saved.have_tty = isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &saved.tty) == 0;
    set_terminal(false, signals);
    if (!saved.registered) {
        saved.registered = true;
        atexit(restore_terminal);
        at_quick_exit(restore_terminal);
    }
}

static void stdio_line_mode(Chardev *chr)
{
    set_terminal(true, ((StdioChardev *)chr)->signals);
}

static const char *forbidden_by; /* an option; NULL: allowed */

void qemu_chr_forbid_stdio(const char *option)
{
    forbidden_by = option;
}

static void stdio_hangup(Chardev *chr)
{
    StdioChardev *s = (StdioChardev *)chr;

    g_clear_pointer(&s->stream, char_stream_free);
    qemu_chr_be_closed(chr);
}

static bool coroutine_fn stdio_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    StdioChardev *s = (StdioChardev *)chr;
    const ChardevStdio *opts = backend->u.stdio.data;

    if (forbidden_by) {
        error_setg(errp, "cannot use stdio with %s", forbidden_by);
        return false;
    }
    if (saved.in_use) {
        error_setg(errp, "cannot use stdio by multiple character devices");
        return false;
    }
    if (fcntl(STDIN_FILENO, F_GETFD) < 0 || fcntl(STDOUT_FILENO, F_GETFD) < 0) {
        error_setg(errp, "standard input or output is not open");
        return false;
    }
    s->signals = !opts->has_signal || opts->signal;
    take_terminal(s->signals);
    s->owner = true;
    s->stream = char_stream_new(chr, STDIN_FILENO, STDOUT_FILENO, stdio_hangup);
    qemu_chr_be_opened(chr);
    return true;
}

static void stdio_close(Chardev *chr)
{
    StdioChardev *s = (StdioChardev *)chr;

    char_stream_push(s->stream);
    char_stream_free(s->stream);
    if (s->owner) {
        restore_terminal();
    }
}

static void stdio_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    char_stream_write(((StdioChardev *)chr)->stream, buf, len);
}

static size_t stdio_pending(const Chardev *chr)
{
    const StdioChardev *s = (const StdioChardev *)chr;

    return s->stream ? char_stream_pending(s->stream) : 0;
}

static void stdio_update_read(Chardev *chr)
{
    StdioChardev *s = (StdioChardev *)chr;

    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

static bool coroutine_fn stdio_co_leave(Chardev *chr, bool at_once)
{
    char_stream_leave(((StdioChardev *)chr)->stream);
    return true;
}

static void stdio_enter(Chardev *chr)
{
    char_stream_enter(((StdioChardev *)chr)->stream);
}

const ChardevClass chardev_stdio_class = {
    .kind = CHARDEV_BACKEND_KIND_STDIO,
    .name = "stdio",
    .instance_size = sizeof(StdioChardev),
    .co_open = stdio_co_open,
    .close = stdio_close,
    .write = stdio_write,
    .pending = stdio_pending,
    .update_read = stdio_update_read,
    .line_mode = stdio_line_mode,
    .co_leave = stdio_co_leave,
    .enter = stdio_enter,
};
