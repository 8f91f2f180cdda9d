/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QIOChannelNull: takes everything, gives nothing: reads are at the end of the stream at once. */
#ifndef FERRY_IO_CHANNEL_NULL_H
#define FERRY_IO_CHANNEL_NULL_H

#include "io/channel.h"

QIOChannel *qio_channel_null_new(void);

#endif
