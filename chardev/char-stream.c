/* SPDX-License-Identifier: GPL-2.0-or-later */
/* CharStream: the traffic of a chardev over descriptors, or over a channel. */
#include "chardev/char-stream.h"

#include <errno.h>
#include <unistd.h>
#include "util/aio.h"

/* Buffers larger than this are given back when empty. */
#define OUTPUT_KEEP (16 * 1024)

struct CharStream {
    Chardev *chr;
    QIOChannel *ioc;   /* NULL: descriptors */
    int in_fd, out_fd; /* -1: none */
    CharStreamHangupFunc *hangup;
    GByteArray *output;
    size_t sent;  /* bytes at the head of output that are done */
    bool reading; /* input is watched */
    bool writing; /* output is watched */
    bool input_ended;
    bool finishing; /* hang up when the output is empty */
    bool broken;    /* hang up: a write failed, or the owner asked for it */
    QEMUBH *hangup_bh;
};

static void stream_readable(void *opaque);
static void stream_writable(void *opaque);
static void stream_hangup(void *opaque);

static CharStream *stream_alloc(Chardev *chr, CharStreamHangupFunc *hangup)
{
    CharStream *stream = g_new0(CharStream, 1);

    stream->chr = chr;
    stream->in_fd = stream->out_fd = -1;
    stream->hangup = hangup;
    stream->output = g_byte_array_new();
    stream->hangup_bh = aio_bh_new(chr->ctx, stream_hangup, stream);
    return stream;
}

CharStream *char_stream_new(Chardev *chr, int in_fd, int out_fd, CharStreamHangupFunc *hangup)
{
    CharStream *stream = stream_alloc(chr, hangup);

    stream->in_fd = in_fd;
    stream->out_fd = out_fd;
    return stream;
}

CharStream *char_stream_new_channel(Chardev *chr, QIOChannel *ioc, CharStreamHangupFunc *hangup)
{
    CharStream *stream = stream_alloc(chr, hangup);

    stream->ioc = qio_channel_ref(ioc);
    return stream;
}

static bool has_input(const CharStream *stream)
{
    return stream->ioc || stream->in_fd >= 0;
}

static bool has_output(const CharStream *stream)
{
    return stream->ioc || stream->out_fd >= 0;
}

static void watch(CharStream *stream, bool reading, bool writing)
{
    AioContext *ctx = stream->chr->ctx;
    IOHandler *on_read = reading ? stream_readable : NULL,
              *on_write = writing ? stream_writable : NULL;

    if (stream->reading == reading && stream->writing == writing) {
        return;
    }
    if (stream->ioc) {
        if (stream->reading != reading) {
            qio_channel_set_watch(stream->ioc, ctx, QIO_CHANNEL_READ, on_read, stream);
        }
        if (stream->writing != writing) {
            qio_channel_set_watch(stream->ioc, ctx, QIO_CHANNEL_WRITE, on_write, stream);
        }
    } else if (stream->in_fd == stream->out_fd) {
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

void char_stream_leave(CharStream *stream)
{
    if (!stream) {
        return;
    }
    watch(stream, false, false);
    if (stream->ioc) {
        qio_channel_detach_aio_context(stream->ioc);
    }
    g_clear_pointer(&stream->hangup_bh, qemu_bh_delete);
}

void char_stream_enter(CharStream *stream)
{
    if (!stream) {
        return;
    }
    stream->hangup_bh = aio_bh_new(stream->chr->ctx, stream_hangup, stream);
    if (stream->broken) {
        qemu_bh_schedule(stream->hangup_bh);
    } else {
        watch(stream, false, char_stream_pending(stream) > 0);
    }
}

void char_stream_free(CharStream *stream)
{
    if (!stream) {
        return;
    }
    watch(stream, false, false);
    qemu_bh_delete(stream->hangup_bh);
    qio_channel_unref(stream->ioc);
    g_byte_array_unref(stream->output);
    g_free(stream);
}

/*
 * The front end may be on the stack of the function that finds the end, so the loop tells it later.
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

/* Bytes that could be sent now, 0 when it would block, -errno. */
static ssize_t send_some(CharStream *stream, const void *buf, size_t len)
{
    ssize_t n;

    if (stream->ioc) {
        n = qio_channel_write(stream->ioc, buf, len, NULL);
        return n == -EAGAIN ? 0 : n;
    }
    do {
        n = write(stream->out_fd, buf, len);
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
    if (stream && has_output(stream) && !stream->broken) {
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

    if (!has_output(stream) || stream->broken || stream->finishing) {
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
    if (!has_output(stream) || !qemu_chr_be_eof(stream->chr)) {
        stream->hangup(stream->chr);
    }
}

/* As read(2), -errno; with the descriptors that came along. */
static ssize_t receive_some(CharStream *stream, void *buf, size_t len, QIOChannelFds *fds)
{
    struct iovec iov = {buf, len};
    ssize_t n;

    if (stream->ioc) {
        return qio_channel_readv_full(stream->ioc, &iov, 1, fds, QIO_CHANNEL_READ_FLAG_RELAXED_EOF,
                                      NULL);
    }
    do {
        n = read(stream->in_fd, buf, len);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static void stream_readable(void *opaque)
{
    CharStream *stream = opaque;
    uint8_t buf[CHR_READ_BUF_LEN];
    size_t len = qemu_chr_be_can_read(stream->chr);
    QIOChannelFds fds = {NULL, 0};
    ssize_t n;

    if (!len) {
        watch(stream, false, stream->writing);
        return;
    }
    n = receive_some(stream, buf, len, &fds);
    if (n == -EAGAIN) {
        return;
    }
    if (n > 0) {
        /* The stream may be gone when this returns. */
        qemu_chr_be_read(stream->chr, buf, (size_t)n, fds.fd, fds.n);
        g_free(fds.fd);
    } else if (n == 0) {
        stream_end_of_input(stream);
    } else {
        stream_break(stream);
    }
}

void char_stream_update_read(CharStream *stream)
{
    if (has_input(stream) && !stream->input_ended && !stream->broken && !stream->finishing) {
        watch(stream, qemu_chr_be_can_read(stream->chr) > 0, stream->writing);
    }
}
