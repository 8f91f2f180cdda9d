/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a destination says on the return path. Bit 0 of the first byte: the end of the stream has left, so
 * that it may claim the guest; else such a claim is false. The reader's verdict on the rest is
 * compared with that of a few lines here. Every end but a good one has an error with a text.
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/channel-socket.h"
#include "migration/return-path.h"
#include "migration/savevm.h"
#include "util/bswap.h"

/* Less than a socket holds: everything is there before the reader starts. */
#define INPUT_MAX (64 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct Expected {
    bool done, refused, acked;
} Expected;

/* Messages up to the verdict: be16 type, be16 length, and what belongs to the type. */
static Expected expect(const uint8_t *p, size_t left, bool handed_over)
{
    Expected e = {0};

    while (left >= 4) {
        unsigned type = lduw_be_p(p), len = lduw_be_p(p + 2);

        p += 4;
        left -= 4;
        if (type == MIG_RP_MSG_SWITCHOVER_ACK && len == 0) {
            e.acked = true;
            continue;
        }
        if ((type != MIG_RP_MSG_SHUT && type != MIG_RP_MSG_PONG) || len != 4 || left < 4) {
            break;
        }
        if (type == MIG_RP_MSG_SHUT) {
            e.done = ldul_be_p(p) == 0 && handed_over;
            e.refused = ldul_be_p(p) != 0;
            break;
        }
        p += 4;
        left -= 4;
    }
    return e;
}

static void connect_source(MigrationState *s, int fd)
{
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_socket_new_fd(fd, NULL));

    g_assert_true(qio_channel_set_blocking(ioc, true, NULL));
    s->to_dst = qemu_file_new_output(ioc);
    qio_channel_unref(ioc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MigrationState s = {0};
    Expected e;
    int fds[2];
    bool done;

    if (size < 1 || size > INPUT_MAX) {
        return -1;
    }
    e = expect(data + 1, size - 1, data[0] & 1);
    g_mutex_init(&s.lock);
    g_cond_init(&s.changed);
    s.handed_over = data[0] & 1;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
    g_assert_cmpint(send(fds[0], data + 1, size - 1, MSG_NOSIGNAL), ==, (ssize_t)size - 1);
    g_assert_cmpint(shutdown(fds[0], SHUT_WR), ==, 0);
    connect_source(&s, fds[1]);

    s.return_path = return_path_open(&s, NULL);
    g_assert_nonnull(s.return_path);
    done = return_path_wait(s.return_path);
    g_assert_true(done == e.done);
    g_assert_true(return_path_refused(s.return_path) == e.refused);
    g_assert_true(s.switchover_acked == e.acked);
    g_assert_true(done == !s.error);
    g_assert_true(done || s.error->message[0]);
    return_path_free(s.return_path);

    (void)!qemu_fclose(s.to_dst);
    close(fds[0]);
    g_clear_error(&s.error);
    g_cond_clear(&s.changed);
    g_mutex_clear(&s.lock);
    return 0;
}
