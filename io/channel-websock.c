/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelWebsock: frames over another channel.
 *
 * Input passes through `in`; payload is unmasked where it lies. Output is one frame at a time in
 * `out`, control frames between those of data. A thread that has the lock never waits in the
 * master.
 */
#include "io/channel-websock.h"
#include <errno.h>
#include <string.h>
#include "io/channel-deadline.h"
#include "io/websock-proto.h"
#include "trace/trace-io.h"
#include "util/bswap.h"
#include "util/error.h"
#include "util/iov.h"

/* Bytes read from the master at once; more than the longest request and any control frame. */
#define WS_IN_BYTES 16384
/* Most bytes that go into one frame. */
#define WS_OUT_BYTES 32768
/* Reads from the master that bring no payload before others in the loop have their turn. */
#define WS_IDLE_READS 16
/* How often output that no call waits for is tried again. */
#define WS_RETRY_NS (20 * SCALE_MS)

G_STATIC_ASSERT(WS_IN_BYTES >= WEBSOCK_REQUEST_MAX);
G_STATIC_ASSERT(WS_IN_BYTES >= WEBSOCK_HEAD_MAX + WEBSOCK_CONTROL_MAX);

struct QIOChannelWebsock {
    QIOChannel parent;
    QIOChannel *master;

    GMutex lock; /* of what follows: reader and writer may be different threads */
    bool established;

    uint8_t in[WS_IN_BYTES];
    size_t in_start, in_end; /* what of it has been read and not consumed */
    WebsockFrame frame;      /* the data frame whose payload comes next */
    uint64_t left;           /* bytes of it still to come */
    bool in_message;         /* continuation frames may follow */
    bool stuck;              /* what is in `in` is less than a frame */
    bool ended;              /* the peer has sent a close frame */
    GError *broken;          /* the peer broke the protocol */

    GByteArray *out; /* a frame, or the end of the handshake */
    size_t out_sent;
    size_t out_data; /* payload in `out`, which the writer has not been told of */
    uint8_t pong[WEBSOCK_CONTROL_MAX];
    size_t pong_bytes;
    bool pong_due; /* for the last ping: earlier ones need no answer of their own */
    bool close_due, close_queued;
    uint8_t close[WEBSOCK_CONTROL_MAX];
    size_t close_bytes;
    bool retrying; /* a timer is to send what is left */
};

typedef struct WebsockRetry {
    QIOChannelWebsock *wioc; /* a reference */
    QEMUTimer *timer;
} WebsockRetry;

static QIOChannelWebsock *wioc_of(QIOChannel *ioc)
{
    return (QIOChannelWebsock *)ioc;
}

/* --- output; all with the lock --- */

static void out_append(QIOChannelWebsock *wioc, WebsockOpcode opcode, const void *buf, size_t bytes)
{
    uint8_t head[WEBSOCK_HEAD_MAX];

    g_byte_array_append(wioc->out, head, websock_frame_encode(head, opcode, bytes));
    g_byte_array_append(wioc->out, buf, bytes);
}

/* Between frames: puts in what must go before further data. */
static void out_append_control(QIOChannelWebsock *wioc)
{
    if (wioc->close_queued) {
        return;
    }
    if (wioc->pong_due) {
        wioc->pong_due = false;
        out_append(wioc, WEBSOCK_OP_PONG, wioc->pong, wioc->pong_bytes);
    }
    if (wioc->close_due) {
        wioc->close_queued = true;
        out_append(wioc, WEBSOCK_OP_CLOSE, wioc->close, wioc->close_bytes);
    }
}

/* 0: everything has gone to the master; -EAGAIN; -errno. */
static int out_flush(QIOChannelWebsock *wioc, GError **errp)
{
    for (;;) {
        struct iovec iov;
        ssize_t len;

        if (wioc->out_sent == wioc->out->len) {
            wioc->out_sent = 0;
            g_byte_array_set_size(wioc->out, 0);
            out_append_control(wioc);
        }
        if (!wioc->out->len) {
            return 0;
        }
        iov.iov_base = wioc->out->data + wioc->out_sent;
        iov.iov_len = wioc->out->len - wioc->out_sent;
        len = wioc->master->klass->writev(wioc->master, &iov, 1, NULL, 0, errp);
        if (len < 0) {
            return len;
        }
        wioc->out_sent += len;
    }
}

static void out_retry(void *opaque)
{
    WebsockRetry *retry = opaque;
    QIOChannelWebsock *wioc = retry->wioc;
    bool again;

    g_mutex_lock(&wioc->lock);
    again = wioc->parent.ctx && !qio_channel_is_shut(&wioc->parent, QIO_CHANNEL_SHUTDOWN_WRITE) &&
            out_flush(wioc, NULL) == -EAGAIN;
    wioc->retrying = again;
    g_mutex_unlock(&wioc->lock);
    if (again) {
        timer_mod_ns(retry->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + WS_RETRY_NS);
        return;
    }
    timer_free(retry->timer);
    g_free(retry);
    qio_channel_unref(&wioc->parent);
}

/*
 * Sends control frames when no writer is there to send them. Bytes that the master does not take go
 * with the next write, or by a timer: the peer may wait for them before it sends more.
 */
static void out_flush_aside(QIOChannelWebsock *wioc)
{
    WebsockRetry *retry;

    if (out_flush(wioc, NULL) != -EAGAIN || !wioc->parent.ctx || wioc->retrying) {
        return;
    }
    wioc->retrying = true;
    retry = g_new0(WebsockRetry, 1);
    retry->wioc = wioc_of(qio_channel_ref(&wioc->parent));
    retry->timer = aio_timer_new(wioc->parent.ctx, QEMU_CLOCK_REALTIME, out_retry, retry);
    timer_mod_ns(retry->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + WS_RETRY_NS);
}

/*
 * To be sent when `out` is flushed. Status 0: none; reason: NULL or text. Only the first one
 * counts.
 */
static void out_close(QIOChannelWebsock *wioc, unsigned status, const char *reason)
{
    if (wioc->established && !wioc->close_due) {
        wioc->close_due = true;
        wioc->close_bytes = status ? 2 : 0;
        stw_be_p(wioc->close, status);
        if (reason) {
            size_t len = strlen(reason);

            g_assert(len <= WEBSOCK_CONTROL_MAX - 2);
            memcpy(wioc->close + 2, reason, len);
            wioc->close_bytes += len;
        }
    }
}

/* --- input; all with the lock --- */

/* wioc->broken is set. */
static int in_break(QIOChannelWebsock *wioc, WebsockStatus status)
{
    g_assert(wioc->broken);
    out_close(wioc, status, wioc->broken->message);
    out_flush_aside(wioc);
    return -EPROTO;
}

static int in_break_protocol(QIOChannelWebsock *wioc, const char *what)
{
    error_setg(&wioc->broken, "WebSocket peer broke the protocol: %s", what);
    return in_break(wioc, WEBSOCK_STATUS_PROTOCOL_ERROR);
}

/* Reads more from the master. Bytes, 0 at the end, -errno. */
static ssize_t in_fill(QIOChannelWebsock *wioc, GError **errp)
{
    struct iovec iov;
    ssize_t len;

    if (wioc->in_start) {
        memmove(wioc->in, wioc->in + wioc->in_start, wioc->in_end - wioc->in_start);
        wioc->in_end -= wioc->in_start;
        wioc->in_start = 0;
    }
    iov.iov_base = wioc->in + wioc->in_end;
    iov.iov_len = sizeof(wioc->in) - wioc->in_end;
    len = wioc->master->klass->readv(wioc->master, &iov, 1, NULL, 0, errp);
    wioc->in_end += MAX(len, 0);
    return len;
}

/* A control frame, whose payload is there. */
static int in_control(QIOChannelWebsock *wioc, const WebsockFrame *frame, const uint8_t *payload)
{
    switch (frame->opcode) {
    case WEBSOCK_OP_PING:
        memcpy(wioc->pong, payload, frame->bytes);
        wioc->pong_bytes = frame->bytes;
        wioc->pong_due = true;
        out_flush_aside(wioc);
        return 0;
    case WEBSOCK_OP_CLOSE:
        if (!websock_close_valid(payload, frame->bytes)) {
            return in_break_protocol(wioc, "a close frame has no valid status");
        }
        wioc->ended = true;
        out_close(wioc, frame->bytes ? lduw_be_p(payload) : 0, NULL);
        out_flush_aside(wioc);
        return 0;
    default:
        return 0; /* a pong without a ping of ours */
    }
}

static int in_data_head(QIOChannelWebsock *wioc, const WebsockFrame *frame)
{
    if ((frame->opcode == WEBSOCK_OP_CONTINUATION) != wioc->in_message) {
        return in_break_protocol(wioc, wioc->in_message ? "a message begins within another"
                                                        : "nothing is there to be continued");
    }
    if (frame->opcode == WEBSOCK_OP_TEXT) {
        error_setg(&wioc->broken, "WebSocket peer sent text where only binary messages are known");
        return in_break(wioc, WEBSOCK_STATUS_UNSUPPORTED_DATA);
    }
    wioc->frame = *frame;
    wioc->left = frame->bytes;
    wioc->in_message = !frame->fin;
    return 0;
}

/* Between frames. 1: a frame's head was consumed, a control frame as a whole; 0: more must come. */
static int in_next_frame(QIOChannelWebsock *wioc)
{
    uint8_t *bytes = wioc->in + wioc->in_start;
    size_t len = wioc->in_end - wioc->in_start;
    WebsockFrame frame;
    int head = websock_frame_decode(bytes, len, &frame, &wioc->broken), ret;

    if (head < 0) {
        return in_break(wioc, WEBSOCK_STATUS_PROTOCOL_ERROR);
    }
    if (!head) {
        return 0;
    }
    if (frame.opcode < WEBSOCK_OP_CLOSE) {
        wioc->in_start += head;
        ret = in_data_head(wioc, &frame);
    } else if (len - head < frame.bytes) {
        return 0;
    } else {
        wioc->in_start += head + frame.bytes;
        websock_frame_mask(&frame, 0, bytes + head, frame.bytes);
        ret = in_control(wioc, &frame, bytes + head);
    }
    return ret < 0 ? ret : 1;
}

/*
 * Goes on to payload. 1: some is at hand; 0: the stream has ended; -errno, -ECONNABORTED: without a
 * word.
 */
static int in_advance(QIOChannelWebsock *wioc, GError **errp)
{
    int ret;

    for (unsigned reads = 0; !wioc->broken && !wioc->ended;) {
        if (wioc->left && wioc->in_start < wioc->in_end) {
            return 1;
        }
        ret = wioc->left ? 0 : in_next_frame(wioc);
        if (ret == 0) {
            ssize_t len = reads++ < WS_IDLE_READS ? in_fill(wioc, errp) : -EAGAIN;

            wioc->stuck = len == -EAGAIN;
            if (len < 0) {
                return len;
            }
            if (len == 0) {
                error_setg(errp, "WebSocket peer left without closing the conversation");
                return -ECONNABORTED;
            }
        }
    }
    if (wioc->broken) {
        g_propagate_error(errp, g_error_copy(wioc->broken));
        return -EPROTO;
    }
    return 0;
}

/* Hands out what is at hand, at least a byte. */
static ssize_t in_take(QIOChannelWebsock *wioc, const struct iovec *iov, size_t niov)
{
    size_t want = iov_size(iov, niov), done = 0;

    while (done < want && in_advance(wioc, NULL) > 0) {
        uint8_t *payload = wioc->in + wioc->in_start;
        size_t n = MIN(MIN(wioc->left, wioc->in_end - wioc->in_start), want - done);

        websock_frame_mask(&wioc->frame, wioc->frame.bytes - wioc->left, payload, n);
        iov_from_buf(iov, niov, done, payload, n);
        wioc->in_start += n;
        wioc->left -= n;
        done += n;
        if (wioc->in_start == wioc->in_end) {
            break; /* the rest is for the next call, which finds out whether there is any */
        }
    }
    return done;
}

/* --- the class --- */

static ssize_t websock_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);
    g_autoptr(GError) err = NULL;
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ)) {
        return 0;
    }
    g_mutex_lock(&wioc->lock);
    len = in_advance(wioc, &err);
    len = len > 0 ? in_take(wioc, iov, niov) : len;
    g_mutex_unlock(&wioc->lock);
    if (len >= 0 || len == -EAGAIN) {
        return len;
    }
    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_READ) ||
        (len == -ECONNABORTED && (flags & QIO_CHANNEL_READ_FLAG_RELAXED_EOF))) {
        return 0;
    }
    g_propagate_error(errp, g_steal_pointer(&err));
    return len;
}

/* As writev, with the lock. */
static ssize_t websock_write(QIOChannelWebsock *wioc, const struct iovec *iov, size_t niov,
                             GError **errp)
{
    size_t bytes;
    int ret = out_flush(wioc, errp); /* a control frame may be in the middle */

    if (ret == 0 && !wioc->out_data) {
        uint8_t head[WEBSOCK_HEAD_MAX];

        if (wioc->close_queued) {
            error_setg(errp, "Cannot write to WebSocket channel: the conversation was closed");
            return -EPIPE;
        }
        wioc->out_data = MIN(iov_size(iov, niov), WS_OUT_BYTES);
        g_byte_array_append(wioc->out, head,
                            websock_frame_encode(head, WEBSOCK_OP_BINARY, wioc->out_data));
        bytes = wioc->out->len;
        g_byte_array_set_size(wioc->out, bytes + wioc->out_data);
        iov_to_buf(iov, niov, 0, wioc->out->data + bytes, wioc->out_data);
        ret = out_flush(wioc, errp);
    }
    if (ret < 0) {
        return ret;
    }
    bytes = wioc->out_data;
    wioc->out_data = 0;
    return bytes;
}

static ssize_t websock_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                              const QIOChannelFds *fds, int flags, GError **errp)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);
    ssize_t len;

    if (qio_channel_is_shut(ioc, QIO_CHANNEL_SHUTDOWN_WRITE)) {
        error_setg(errp, "Cannot write to WebSocket channel: it was shut down");
        return -EPIPE;
    }
    g_mutex_lock(&wioc->lock);
    len = websock_write(wioc, iov, niov, errp);
    g_mutex_unlock(&wioc->lock);
    return len;
}

static bool websock_read_pending(QIOChannel *ioc)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);
    bool pending;

    g_mutex_lock(&wioc->lock);
    pending = wioc->established &&
              (wioc->ended || wioc->broken || (!wioc->stuck && wioc->in_start < wioc->in_end));
    g_mutex_unlock(&wioc->lock);
    return pending ||
           (wioc->master->klass->read_pending && wioc->master->klass->read_pending(wioc->master));
}

static bool websock_idle_event(QIOChannel *ioc)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);
    int ret;

    g_mutex_lock(&wioc->lock);
    ret = in_advance(wioc, NULL);
    g_mutex_unlock(&wioc->lock);
    return ret != -EAGAIN;
}

static int websock_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    QIOChannel *master = wioc_of(ioc)->master;

    return master->klass->poll_fd(master, dir, events);
}

static int websock_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);

    /* a thread that is inside must not be waited for; then there is no word of farewell */
    if ((how & QIO_CHANNEL_SHUTDOWN_WRITE) && g_mutex_trylock(&wioc->lock)) {
        out_close(wioc, WEBSOCK_STATUS_NORMAL, NULL);
        (void)out_flush(wioc, NULL);
        g_mutex_unlock(&wioc->lock);
    }
    qio_channel_shutdown(wioc->master, how);
    return 0;
}

static void websock_say_bye(QIOChannelWebsock *wioc)
{
    g_mutex_lock(&wioc->lock);
    if (!qio_channel_is_shut_down(&wioc->parent)) {
        out_close(wioc, WEBSOCK_STATUS_NORMAL, NULL);
        (void)out_flush(wioc, NULL);
    }
    g_mutex_unlock(&wioc->lock);
}

static int websock_close(QIOChannel *ioc, GError **errp)
{
    websock_say_bye(wioc_of(ioc));
    return qio_channel_close(wioc_of(ioc)->master, errp);
}

static void websock_finalize(QIOChannel *ioc)
{
    QIOChannelWebsock *wioc = wioc_of(ioc);

    websock_say_bye(wioc);
    qio_channel_unref(wioc->master);
    g_byte_array_unref(wioc->out);
    g_clear_error(&wioc->broken);
    g_mutex_clear(&wioc->lock);
}

static void websock_set_cork(QIOChannel *ioc, bool on)
{
    qio_channel_set_cork(wioc_of(ioc)->master, on);
}

static void websock_set_delay(QIOChannel *ioc, bool on)
{
    qio_channel_set_delay(wioc_of(ioc)->master, on);
}

static const QIOChannelClass qio_channel_websock_class = {
    .name = "websock",
    .instance_size = sizeof(QIOChannelWebsock),
    .readv = websock_readv,
    .writev = websock_writev,
    .read_pending = websock_read_pending,
    .idle_event = websock_idle_event,
    .poll_fd = websock_poll_fd,
    .shutdown = websock_shutdown,
    .close = websock_close,
    .finalize = websock_finalize,
    .set_cork = websock_set_cork,
    .set_delay = websock_set_delay,
};

QIOChannelWebsock *qio_channel_websock_new_server(QIOChannel *master)
{
    QIOChannelWebsock *wioc =
        wioc_of(qio_channel_alloc(&qio_channel_websock_class, qio_channel_get_name(master)));

    g_mutex_init(&wioc->lock);
    wioc->master = qio_channel_ref(master);
    wioc->out = g_byte_array_new();
    wioc->parent.features =
        master->features & (QIO_CHANNEL_FEATURE_SHUTDOWN | QIO_CHANNEL_FEATURE_TLS);
    qio_channel_detach_aio_context(master); /* from now on this channel waits for the descriptor */
    return wioc;
}

/* --- the handshake --- */

/* What a wait that failed means. */
static int handshake_over(int ret, GError **errp)
{
    error_setg(errp, ret == -ETIMEDOUT ? "WebSocket handshake timed out"
                                       : "WebSocket handshake was cancelled");
    return ret;
}

/* Reads until the request can be judged. */
static int coroutine_fn handshake_co_request(QIOChannelWebsock *wioc, QIOChannelDeadline *deadline,
                                             WebsockVerdict *verdict, char **reply,
                                             GError **refusal, GError **errp)
{
    size_t used = 0;

    for (;;) {
        ssize_t len = in_fill(wioc, errp);

        if (len == -EAGAIN) {
            int ret = qio_channel_deadline_co_wait(deadline, QIO_CHANNEL_READ);

            if (ret < 0) {
                return handshake_over(ret, errp);
            }
        } else if (len < 0) {
            return len;
        } else if (len == 0 && qio_channel_is_shut_down(wioc->master)) {
            return handshake_over(-ECANCELED, errp);
        } else if (len == 0) {
            error_setg(errp, "WebSocket peer left before its request was complete");
            return -ECONNABORTED;
        } else {
            *verdict = websock_request_parse(wioc->in, wioc->in_end, &used, reply, refusal);
            if (*verdict != WEBSOCK_REQUEST_PARTIAL) {
                wioc->in_start = used;
                return 0;
            }
        }
    }
}

static int coroutine_fn handshake_co_reply(QIOChannelWebsock *wioc, QIOChannelDeadline *deadline,
                                           const char *reply, GError **errp)
{
    int ret;

    g_byte_array_append(wioc->out, (const uint8_t *)reply, strlen(reply));
    while ((ret = out_flush(wioc, errp)) == -EAGAIN) {
        ret = qio_channel_deadline_co_wait(deadline, QIO_CHANNEL_WRITE);
        if (ret < 0) {
            return handshake_over(ret, errp);
        }
    }
    return ret;
}

int coroutine_fn qio_channel_websock_co_handshake(QIOChannelWebsock *wioc, int64_t timeout_ns,
                                                  GError **errp)
{
    WebsockVerdict verdict = WEBSOCK_REQUEST_PARTIAL;
    QIOChannelDeadline deadline;
    g_autofree char *reply = NULL;
    g_autoptr(GError) refusal = NULL;
    int ret;

    qio_channel_deadline_start(&deadline, &wioc->parent, timeout_ns);
    ret = handshake_co_request(wioc, &deadline, &verdict, &reply, &refusal, errp);
    if (ret == 0) {
        ret = handshake_co_reply(wioc, &deadline, reply, refusal ? NULL : errp);
    }
    qio_channel_deadline_stop(&deadline);
    if (refusal) {
        g_propagate_error(errp, g_steal_pointer(&refusal));
        ret = -EPROTO;
    }
    wioc->established = ret == 0;
    trace_qio_channel_websock_handshake(wioc, ret);
    return ret;
}
