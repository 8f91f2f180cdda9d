/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOHangupWatch: notices that the peer of an idle channel has gone, also while unread bytes are
 * waiting in it.
 */
#ifndef FERRY_IO_HANGUP_WATCH_H
#define FERRY_IO_HANGUP_WATCH_H

#include "io/channel.h"

typedef struct QIOHangupWatch QIOHangupWatch;

/*
 * Calls cb(opaque) in ctx's thread once the peer has closed the connection or its writing side, the
 * connection has broken, or it was shut down here. It calls cb again and again until the watch is
 * freed, which cb may do. Holds a reference to ioc, which others may use meanwhile. For channels
 * with a descriptor that can hang up, i.e. sockets, TLS over them and pipes. ctx's thread; NULL
 * with an error.
 */
QIOHangupWatch *qio_hangup_watch_new(QIOChannel *ioc, AioContext *ctx, QIOChannelWatchFunc *cb,
                                     void *opaque, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Whether that is so at this moment, without a watch; false also for channels without a descriptor. Any thread
 * that keeps ioc.
 */
bool qio_channel_has_hung_up(QIOChannel *ioc);
/* NULL is allowed; cb is not called any more. ctx's thread. */
void qio_hangup_watch_free(QIOHangupWatch *watch);

#endif
