/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Telnet over another channel. */
#include "chardev/char-telnet.h"
#include <errno.h>
#include <string.h>
#include "util/iov.h"

/* Commands (RFC 854) and options (RFC 856, 857, 858). */
#define TELNET_SE   240
#define TELNET_SB   250
#define TELNET_WILL 251
#define TELNET_WONT 252
#define TELNET_DO   253
#define TELNET_DONT 254
#define TELNET_IAC  255

#define TELNET_OPT_BINARY 0
#define TELNET_OPT_ECHO   1
#define TELNET_OPT_SGA    3

/* Bytes read from the master at once. */
#define TELNET_IN_BYTES 4096
/* Replies that wait to be sent; what the peer proposes beyond that gets no answer. */
#define TELNET_REPLIES_MAX 96

typedef enum TelnetState {
    TELNET_DATA,
    TELNET_CR,      /* a NUL after it belongs to it, unless bytes are sent as they are */
    TELNET_COMMAND, /* after IAC */
    TELNET_OPTION,  /* after WILL, WONT, DO, DONT */
    TELNET_SUB,     /* in a subnegotiation, up to IAC SE */
    TELNET_SUB_IAC,
} TelnetState;

typedef struct CharTelnet {
    QIOChannel parent;
    QIOChannel *master;
    bool is_server;

    TelnetState state;
    uint8_t command; /* of TELNET_OPTION */
    bool binary;     /* the peer sends bytes as they are */

    uint8_t replies[TELNET_REPLIES_MAX];
    size_t n_replies;
    bool half; /* the first IAC of two has been sent for the byte that comes next */
} CharTelnet;

static CharTelnet *telnet_of(QIOChannel *ioc)
{
    return (CharTelnet *)ioc;
}

/* --- replies --- */

static void reply(CharTelnet *tn, uint8_t command, uint8_t option)
{
    const uint8_t bytes[3] = {TELNET_IAC, command, option};

    if (tn->n_replies + sizeof(bytes) <= sizeof(tn->replies)) {
        memcpy(tn->replies + tn->n_replies, bytes, sizeof(bytes));
        tn->n_replies += sizeof(bytes);
    }
}

static ssize_t master_write(CharTelnet *tn, const void *buf, size_t len, GError **errp)
{
    struct iovec iov = {(void *)buf, len};

    return tn->master->klass->writev(tn->master, &iov, 1, NULL, 0, errp);
}

/* 0: none are left. */
static ssize_t send_replies(CharTelnet *tn, GError **errp)
{
    while (tn->n_replies) {
        ssize_t len = master_write(tn, tn->replies, tn->n_replies, errp);

        if (len < 0) {
            return len;
        }
        tn->n_replies -= len;
        memmove(tn->replies, tn->replies + len, tn->n_replies);
    }
    return 0;
}

/* --- input --- */

static bool is_ours(const CharTelnet *tn, uint8_t command, uint8_t option)
{
    if (!tn->is_server) {
        return false;
    }
    return option == TELNET_OPT_BINARY ||
           (command == TELNET_DO && (option == TELNET_OPT_ECHO || option == TELNET_OPT_SGA));
}

/* Agreement to what was proposed needs no answer, nor does a refusal; all else is declined. */
static void take_option(CharTelnet *tn, uint8_t command, uint8_t option)
{
    if (option == TELNET_OPT_BINARY && (command == TELNET_WILL || command == TELNET_WONT)) {
        tn->binary = command == TELNET_WILL && tn->is_server;
    }
    if ((command == TELNET_WILL || command == TELNET_DO) && !is_ours(tn, command, option)) {
        reply(tn, command == TELNET_WILL ? TELNET_DONT : TELNET_WONT, option);
    }
}

/* One byte of input; true when it is the user's. */
static bool take_byte(CharTelnet *tn, uint8_t byte)
{
    TelnetState state = tn->state;

    tn->state = TELNET_DATA;
    switch (state) {
    case TELNET_CR:
        if (byte == 0 && !tn->binary) {
            return false;
        }
        /* fall through */
    case TELNET_DATA:
        tn->state = byte == TELNET_IAC ? TELNET_COMMAND : byte == '\r' ? TELNET_CR : TELNET_DATA;
        return byte != TELNET_IAC;
    case TELNET_COMMAND:
        if (byte == TELNET_IAC) {
            return true;
        }
        if (byte >= TELNET_WILL) {
            tn->command = byte;
            tn->state = TELNET_OPTION;
        } else if (byte == TELNET_SB) {
            tn->state = TELNET_SUB;
        }
        return false;
    case TELNET_OPTION:
        take_option(tn, tn->command, byte);
        return false;
    case TELNET_SUB:
        tn->state = byte == TELNET_IAC ? TELNET_SUB_IAC : TELNET_SUB;
        return false;
    default:
        tn->state = byte == TELNET_SE ? TELNET_DATA : TELNET_SUB;
        return false;
    }
}

static ssize_t telnet_readv(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                            QIOChannelFds *fds, int flags, GError **errp)
{
    CharTelnet *tn = telnet_of(ioc);
    uint8_t buf[TELNET_IN_BYTES];
    struct iovec in = {buf, MIN(iov_size(iov, niov), sizeof(buf))};
    ssize_t len = tn->master->klass->readv(tn->master, &in, 1, NULL, flags, errp);
    size_t n = 0;

    if (len <= 0) {
        return len;
    }
    for (ssize_t i = 0; i < len; i++) {
        if (take_byte(tn, buf[i])) {
            buf[n++] = buf[i];
        }
    }
    if (tn->n_replies && !tn->half) {
        (void)send_replies(tn, NULL);
    }
    /* commands alone: whether there is more will be asked when the descriptor has it */
    return n ? (ssize_t)iov_from_buf(iov, niov, 0, buf, n) : -EAGAIN;
}

static bool telnet_read_pending(QIOChannel *ioc)
{
    QIOChannel *master = telnet_of(ioc)->master;

    return master->klass->read_pending && master->klass->read_pending(master);
}

/* --- output --- */

/* Sends the byte IAC, which is two. 1, or -errno. */
static ssize_t write_iac(CharTelnet *tn, GError **errp)
{
    static const uint8_t twice[2] = {TELNET_IAC, TELNET_IAC};
    ssize_t len = master_write(tn, twice, tn->half ? 1 : 2, errp);

    if (len == 1 && !tn->half) {
        tn->half = true;
        return -EAGAIN;
    }
    tn->half = tn->half && len < 0;
    return len < 0 ? len : 1;
}

/* Some of one element. */
static ssize_t write_element(CharTelnet *tn, const uint8_t *buf, size_t len, GError **errp)
{
    const uint8_t *iac = memchr(buf, TELNET_IAC, len);

    return iac == buf ? write_iac(tn, errp)
                      : master_write(tn, buf, iac ? iac - buf : (ssize_t)len, errp);
}

static ssize_t telnet_writev(QIOChannel *ioc, const struct iovec *iov, size_t niov,
                             const QIOChannelFds *fds, int flags, GError **errp)
{
    CharTelnet *tn = telnet_of(ioc);
    ssize_t done = 0;

    if (!tn->half) {
        ssize_t ret = send_replies(tn, errp);

        if (ret < 0) {
            return ret;
        }
    }
    for (size_t i = 0, at = 0; i < niov;) {
        ssize_t len;

        if (at == iov[i].iov_len) {
            i++;
            at = 0;
            continue;
        }
        len = write_element(tn, (const uint8_t *)iov[i].iov_base + at, iov[i].iov_len - at,
                            done ? NULL : errp);
        if (len < 0) {
            return done ? done : len;
        }
        at += len;
        done += len;
    }
    return done;
}

/* --- the rest is the master's --- */

static int telnet_poll_fd(QIOChannel *ioc, QIOChannelDirection dir, short *events)
{
    QIOChannel *master = telnet_of(ioc)->master;

    return master->klass->poll_fd(master, dir, events);
}

static int telnet_shutdown(QIOChannel *ioc, QIOChannelShutdown how)
{
    qio_channel_shutdown(telnet_of(ioc)->master, how);
    return 0;
}

static int telnet_close(QIOChannel *ioc, GError **errp)
{
    return qio_channel_close(telnet_of(ioc)->master, errp);
}

static void telnet_finalize(QIOChannel *ioc)
{
    qio_channel_unref(telnet_of(ioc)->master);
}

static const QIOChannelClass char_telnet_class = {
    .name = "telnet",
    .instance_size = sizeof(CharTelnet),
    .readv = telnet_readv,
    .writev = telnet_writev,
    .read_pending = telnet_read_pending,
    .poll_fd = telnet_poll_fd,
    .shutdown = telnet_shutdown,
    .close = telnet_close,
    .finalize = telnet_finalize,
};

QIOChannel *char_telnet_new(QIOChannel *master, bool is_server)
{
    QIOChannel *ioc = qio_channel_alloc(&char_telnet_class, qio_channel_get_name(master));
    CharTelnet *tn = telnet_of(ioc);

    tn->master = qio_channel_ref(master);
    tn->is_server = is_server;
    ioc->features = master->features & (QIO_CHANNEL_FEATURE_SHUTDOWN | QIO_CHANNEL_FEATURE_TLS);
    qio_channel_detach_aio_context(master);
    if (is_server) {
        reply(tn, TELNET_WILL, TELNET_OPT_ECHO);
        reply(tn, TELNET_WILL, TELNET_OPT_SGA);
        reply(tn, TELNET_WILL, TELNET_OPT_BINARY);
        reply(tn, TELNET_DO, TELNET_OPT_BINARY);
        (void)send_replies(tn, NULL);
    }
    return ioc;
}
