/* SPDX-License-Identifier: GPL-2.0-or-later */
/* chardev file and pipe: output to a file, or traffic over a pair of FIFOs. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "chardev/char-stream.h"
#include "util/error.h"
#include "util/open.h"

typedef struct FileChardev {
    Chardev parent;
    CharStream *stream;
    int in_fd, out_fd; /* 0: not open yet; in_fd -1: none; may be the same */
} FileChardev;

static void file_hangup(Chardev *chr)
{
    FileChardev *s = (FileChardev *)chr;

    g_clear_pointer(&s->stream, char_stream_free);
    qemu_chr_be_closed(chr);
}

/* Starts the traffic; takes over the descriptors, of which either may be -1. */
static void file_start(FileChardev *s, int in_fd, int out_fd)
{
    s->in_fd = in_fd;
    s->out_fd = out_fd;
    s->stream = char_stream_new(&s->parent, in_fd, out_fd, file_hangup);
    qemu_chr_be_opened(&s->parent);
}

static bool coroutine_fn file_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    const ChardevFile *opts = backend->u.file.data;
    bool append = opts->has_append && opts->append;
    int in_fd = -1, out_fd;

    out_fd = qemu_open(opts->out, O_WRONLY | O_CREAT | O_NONBLOCK | (append ? O_APPEND : O_TRUNC),
                       0666, errp);
    if (out_fd < 0) {
        return false;
    }
    if (opts->in) {
        in_fd = qemu_open(opts->in, O_RDONLY | O_NONBLOCK, 0, errp);
        if (in_fd < 0) {
            qemu_close(out_fd);
            return false;
        }
    }
    file_start((FileChardev *)chr, in_fd, out_fd);
    return true;
}

/* PATH.in and PATH.out where both exist, else PATH for both directions. */
static bool coroutine_fn pipe_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    const char *path = backend->u.pipe.data->device;
    g_autofree char *in_path = g_strconcat(path, ".in", NULL);
    g_autofree char *out_path = g_strconcat(path, ".out", NULL);
    int in_fd, out_fd;

    /* Opened for both directions, so that a peer may come and go without an end of file. */
    in_fd = qemu_open(in_path, O_RDWR | O_NONBLOCK, 0, NULL);
    out_fd = qemu_open(out_path, O_RDWR | O_NONBLOCK, 0, NULL);
    if (in_fd < 0 || out_fd < 0) {
        if (in_fd >= 0) {
            close(in_fd);
        }
        if (out_fd >= 0) {
            close(out_fd);
        }
        in_fd = out_fd = qemu_open(path, O_RDWR | O_NONBLOCK, 0, errp);
        if (in_fd < 0) {
            return false;
        }
    }
    file_start((FileChardev *)chr, in_fd, out_fd);
    return true;
}

static void file_close(Chardev *chr)
{
    FileChardev *s = (FileChardev *)chr;

    char_stream_push(s->stream);
    char_stream_free(s->stream);
    if (s->in_fd > 0 && s->in_fd != s->out_fd) {
        qemu_close(s->in_fd);
    }
    if (s->out_fd > 0) {
        qemu_close(s->out_fd);
    }
}

static void file_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    char_stream_write(((FileChardev *)chr)->stream, buf, len);
}

static size_t file_pending(const Chardev *chr)
{
    const FileChardev *s = (const FileChardev *)chr;

    return s->stream ? char_stream_pending(s->stream) : 0;
}

static void file_update_read(Chardev *chr)
{
    FileChardev *s = (FileChardev *)chr;

    if (s->stream) {
        char_stream_update_read(s->stream);
    }
}

static bool coroutine_fn file_co_leave(Chardev *chr, bool at_once)
{
    char_stream_leave(((FileChardev *)chr)->stream);
    return true;
}

static void file_enter(Chardev *chr)
{
    char_stream_enter(((FileChardev *)chr)->stream);
}

const ChardevClass chardev_file_class = {
    .kind = CHARDEV_BACKEND_KIND_FILE,
    .name = "file",
    .instance_size = sizeof(FileChardev),
    .co_open = file_co_open,
    .close = file_close,
    .write = file_write,
    .pending = file_pending,
    .update_read = file_update_read,
    .co_leave = file_co_leave,
    .enter = file_enter,
};

const ChardevClass chardev_pipe_class = {
    .kind = CHARDEV_BACKEND_KIND_PIPE,
    .name = "pipe",
    .instance_size = sizeof(FileChardev),
    .co_open = pipe_co_open,
    .close = file_close,
    .write = file_write,
    .pending = file_pending,
    .update_read = file_update_read,
    .co_leave = file_co_leave,
    .enter = file_enter,
};
