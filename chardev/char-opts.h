/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character devices as command lines write them. */
#ifndef FERRY_CHARDEV_CHAR_OPTS_H
#define FERRY_CHARDEV_CHAR_OPTS_H

#include <glib.h>
#include "qapi/qapi-types-char.h"

/*
 * "socket,id=ID,path=/x,server=on,wait=off". The caller frees both results. *shared: mux=on, see
 * qemu_chr_co_new_shared(). NULL and errp on nonsense.
 */
ChardevBackend *chardev_parse_option(const char *text, char **id, bool *shared,
                                     GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The short forms of -qmp, -monitor and -serial. For sockets: "unix:/x,server=on,wait=off",
 * "tcp:HOST:PORT", "telnet:HOST:PORT", "websocket:HOST:PORT,server=on". Others: "stdio", "pty",
 * "null", "file:PATH", "pipe:PATH", "fd:N". "mon:" and one of them sets *shared. The caller frees.
 */
ChardevBackend *chardev_parse_short(const char *text, bool *shared,
                                    GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Prints the kinds for -chardev help. */
void chardev_print_kinds(void);

#endif
