/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CharStream: the traffic of a chardev over descriptors. */
#include "chardev/char-stream.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/sockets.h"

/* Buffers larger than this are given back when empty. */
#define OUTPUT_KEEP (16 * 1024)

struct CharStream {
    Chardev *chr;
    int in_fd, out_fd;
    bool in_is_socket, out_is_socket;
    CharStreamHangupFunc *hangup;
    GByteArray *output;
    size_t sent;  /* bytes at the head of output that are done */
    bool reading; /* in_fd is watched */
    bool writing; /* out_fd is watched */
    bool input_ended;
    bool finishing; /* hang up when the output is empty */
    bool broken;    /* hang up: a write failed, or somebody said so */
    QEMUBH *hangup_bh;
};

static void stream_readable(void *opaque);
static void stream_writable(void *opaque);
static void stream_hangup(void *opaque);

static bool is_socket(int fd)
{
    int type;
    socklen_t len = sizeof(type);

    return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
}

CharStream *char_stream_new(Chardev *chr, int in_fd, int out_fd, CharStreamHangupFunc *hangup)
{
    CharStream *stream = g_new0(CharStream, 1);

    stream->chr = chr;
    stream->in_fd = in_fd;
    stream->out_fd = out_fd;
    stream->in_is_socket = is_socket(in_fd);
    stream->out_is_socket = is_socket(out_fd);
    stream->hangup = hangup;
    stream->output = g_byte_array_new();
    stream->hangup_bh = aio_bh_new(qemu_get_aio_context(), stream_hangup, stream);
    return stream;
}

static void watch(CharStream *stream, bool reading, bool writing)
{
    AioContext *ctx = qemu_get_aio_context();
    IOHandler *on_read = reading ? stream_readable : NULL,
              *on_write = writing ? stream_writable : NULL;

    if (stream->reading == reading && stream->writing == writing) {
        return;
    }
    if (stream->in_fd == stream->out_fd) {
        aio_set_fd_handler(ctx, stream->in_fd, on_read, on_write, stream);
    } else {
        if (stream->reading != reading) {
            aio_set_fd_handler(ctx, stream->in_fd, on_read, NULL, stream);
        }
        if (stream->writing != writing) {
            aio_set_fd_handler(ctx, stream->out_fd, NULL, on_write, stream);
        }
    }
    stream->reading = reading;
    stream->writing = writing;
}

void char_stream_free(CharStream *stream)
{
    if (!stream) {
        return;
    }
    watch(stream, false, false);
    qemu_bh_delete(stream->hangup_bh);
    g_byte_array_unref(stream->output);
    g_free(stream);
}

/*
 * The front end may be on the stack of whoever finds out that it is over; the news comes from the
 * loop.
 */
static void stream_break(CharStream *stream)
{
    stream->broken = true;
    watch(stream, false, false);
    qemu_bh_schedule(stream->hangup_bh);
}

static void stream_hangup(void *opaque)
{
    CharStream *stream = opaque;

    stream->hangup(stream->chr);
}

/* --- output --- */

size_t char_stream_pending(const CharStream *stream)
{
    return stream->output->len - stream->sent;
}

/* Bytes the kernel took now, 0 when it would block, -errno. */
static ssize_t send_some(CharStream *stream, const void *buf, size_t len)
{
    ssize_t n;

    do {
        n = stream->out_is_socket ? send(stream->out_fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT)
                                  : write(stream->out_fd, buf, len);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -errno;
    }
    return n;
}

/*
 * Sends from the buffer until it is empty or the kernel takes no more. False: the descriptor
 * failed.
 */
static bool send_pending(CharStream *stream)
{
    size_t len;

    while ((len = char_stream_pending(stream))) {
        ssize_t n = send_some(stream, stream->output->data + stream->sent, len);

        if (n < 0) {
            return false;
        }
        if (!n) {
            return true;
        }
        stream->sent += (size_t)n;
    }
    stream->sent = 0;
    if (stream->output->len > OUTPUT_KEEP) {
        g_byte_array_unref(stream->output);
        stream->output = g_byte_array_new();
    } else {
        g_byte_array_set_size(stream->output, 0);
    }
    return true;
}

void char_stream_push(CharStream *stream)
{
    if (stream && stream->out_fd >= 0 && !stream->broken) {
        (void)send_pending(stream);
    }
}

static void stream_writable(void *opaque)
{
    CharStream *stream = opaque;

    if (!send_pending(stream)) {
        stream_break(stream);
    } else if (!char_stream_pending(stream)) {
        watch(stream, stream->reading, false);
        if (stream->finishing) {
            stream->hangup(stream->chr);
        } else {
            qemu_chr_be_drained(stream->chr);
        }
    }
}

void char_stream_write(CharStream *stream, const uint8_t *buf, size_t len)
{
    ssize_t n = 0;

    if (stream->out_fd < 0 || stream->broken || stream->finishing) {
        return;
    }
    if (!char_stream_pending(stream)) {
        n = send_some(stream, buf, len);
        if (n < 0) {
            stream_break(stream);
            return;
        }
        if (n == (ssize_t)len) {
            return;
        }
    }
    /* What was sent is cut off when it is the greater part, so that copying stays linear. */
    if (stream->sent > stream->output->len / 2) {
        g_byte_array_remove_range(stream->output, 0, (guint)stream->sent);
        stream->sent = 0;
    }
    g_byte_array_append(stream->output, buf + n, (guint)(len - (size_t)n));
    watch(stream, stream->reading, true);
}

void char_stream_finish(CharStream *stream)
{
    stream->finishing = true;
    if (!char_stream_pending(stream)) {
        stream_break(stream);
    }
}

void char_stream_abort(CharStream *stream)
{
    stream_break(stream);
}

/* --- input --- */

static void stream_end_of_input(CharStream *stream)
{
    watch(stream, false, stream->writing);
    stream->input_ended = true;
    if (stream->out_fd < 0 || !qemu_chr_be_eof(stream->chr)) {
        stream->hangup(stream->chr);
    }
}

static void stream_readable(void *opaque)
{
    CharStream *stream = opaque;
    uint8_t buf[CHR_READ_BUF_LEN];
    struct iovec iov = {.iov_base = buf, .iov_len = qemu_chr_be_can_read(stream->chr)};
    int fds[SOCKET_MAX_FDS];
    size_t nfds = 0;
    ssize_t n;

    if (!iov.iov_len) {
        watch(stream, false, stream->writing);
        return;
    }
    if (stream->in_is_socket) {
        n = socket_recv_fds(stream->in_fd, &iov, 1, fds, SOCKET_MAX_FDS, &nfds, 0);
    } else {
        do {
            n = read(stream->in_fd, buf, iov.iov_len);
        } while (n < 0 && errno == EINTR);
        n = n < 0 ? -errno : n;
    }
    if (n == -EAGAIN) {
        return;
    }
    if (n > 0) {
        /* The stream may be gone when this returns. */
        qemu_chr_be_read(stream->chr, buf, (size_t)n, fds, nfds);
    } else if (n == 0) {
        stream_end_of_input(stream);
    } else {
        stream_break(stream);
    }
}

void char_stream_update_read(CharStream *stream)
{
    if (stream->in_fd >= 0 && !stream->input_ended && !stream->broken && !stream->finishing) {
        watch(stream, qemu_chr_be_can_read(stream->chr) > 0, stream->writing);
    }
}
