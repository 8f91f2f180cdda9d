/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CharStream: the traffic of a chardev over descriptors, or over a channel. Reads while the front
 * end can take bytes; writes what the kernel takes at once and buffers the rest.
 */
#ifndef FERRY_CHARDEV_CHAR_STREAM_H
#define FERRY_CHARDEV_CHAR_STREAM_H

#include "chardev/char-int.h"
#include "io/channel.h"

typedef struct CharStream CharStream;

/*
 * The conversation is over: the peer left, or everything was sent after char_stream_finish(). From
 * the event loop.
 */
typedef void CharStreamHangupFunc(Chardev *chr);

/*
 * The descriptors stay the caller's, non-blocking and open until char_stream_free(); either may be
 * -1, and both may be the same. Nothing is read before char_stream_update_read().
 */
CharStream *char_stream_new(Chardev *chr, int in_fd, int out_fd, CharStreamHangupFunc *hangup);
/*
 * The same over a channel, of which it takes a reference; with a socket, descriptors that come
 * along are handed to the front end. The stream alone reads and writes the channel until
 * char_stream_free(), which leaves it open.
 */
CharStream *char_stream_new_channel(Chardev *chr, QIOChannel *ioc, CharStreamHangupFunc *hangup);
/* Stops both directions and drops what is unsent; no callback comes after this. NULL is allowed. */
void char_stream_free(CharStream *stream);
/* Sends now what the kernel takes without waiting, for the end of the process. */
void char_stream_push(CharStream *stream);

/* As co_leave() and enter() of a back end; NULL is allowed. Reading waits for char_stream_update_read(). */
void char_stream_leave(CharStream *stream);
void char_stream_enter(CharStream *stream);

void char_stream_write(CharStream *stream, const uint8_t *buf, size_t len);
size_t char_stream_pending(const CharStream *stream);
void char_stream_update_read(CharStream *stream);
/* Hangs up when everything is sent. */
void char_stream_finish(CharStream *stream);
/* Hangs up at the next turn of the loop, without sending what is pending. */
void char_stream_abort(CharStream *stream);

#endif
