/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Telnet (RFC 854) over another channel: it removes commands from the bytes that are read, and
 * doubles the byte that begins a command in the bytes that are written. A channel of the main
 * loop's thread; besides the rules of io/channel.h, a writer that was told -EAGAIN goes on with the
 * same bytes.
 *
 * The server's end says that it echoes, never sends "go ahead", and takes and sends all 8 bits (RFC
 * 856, 857, 858). So the peer's telnet program sends each key as it is pressed. Other proposals of
 * the peer are declined.
 */
#ifndef FERRY_CHARDEV_CHAR_TELNET_H
#define FERRY_CHARDEV_CHAR_TELNET_H

#include "io/channel.h"

/* Takes a reference to master; no other user reads or writes master from now on. */
QIOChannel *char_telnet_new(QIOChannel *master, bool is_server);

#endif
