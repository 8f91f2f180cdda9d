/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What connecting in a coroutine and in a thread have in common: the candidates of a name in turn,
 * listeners whose queue is full, what the error says. For sockets-connect*.c.
 */
#ifndef FERRY_UTIL_SOCKETS_ATTEMPT_H
#define FERRY_UTIL_SOCKETS_ATTEMPT_H

#include "util/sockets.h"

/* How to wait. All members may yield where the caller may. */
typedef struct SocketAttempt {
    /* What a host name means; NULL and errp. */
    GArray *(*resolve)(const FerrySockInet *inet, GError **errp);
    /*
     * 0 while the attempt may go on, -ECANCELED, -ETIMEDOUT. fd: the socket that is being connected;
     * -1: there is none any more.
     */
    int (*check)(int fd, void *opaque);
    /* The outcome of a connect() under way: 0 or -errno. */
    int (*await)(int fd, void *opaque);
    /* A moment, before a listener that is too busy is asked again. */
    void (*pause)(void *opaque);
    void *opaque;
} SocketAttempt;

/* As socket_connect(). */
int socket_attempt_run(const SocketAttempt *attempt, const FerrySockAddr *addr,
                       GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/*
 * What has become of a connect() under way, now that the socket reports something: 0, -errno, or
 * -EINPROGRESS: nothing yet, as with vsock, which wakes pollers before it knows.
 */
int socket_attempt_outcome(int fd);

#endif
