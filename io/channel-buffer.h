/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QIOChannelBuffer: a channel over memory, which grows up to a limit. Reads and writes share one
 * position, as in a file: write, go back to the start, read. Never waits; one thread at a time.
 */
#ifndef FERRY_IO_CHANNEL_BUFFER_H
#define FERRY_IO_CHANNEL_BUFFER_H

#include "io/channel.h"

typedef struct QIOChannelBuffer QIOChannelBuffer;

/*
 * Empty. max_bytes: writing more than that fails with -ENOSPC, as does a want of memory
 * (-ENOMEM); memory is taken as it is written.
 */
QIOChannelBuffer *qio_channel_buffer_new(size_t max_bytes);

/* What it holds, from its beginning; the channel's, valid until the next write. */
const uint8_t *qio_channel_buffer_data(const QIOChannelBuffer *bioc, size_t *bytes);
/* Forgets what it holds and goes back to the beginning. */
void qio_channel_buffer_reset(QIOChannelBuffer *bioc);

#endif
