/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a guest goes to or comes from: URIs and channel lists, and the MigrationAddress that both mean.
 *
 *   tcp:HOST:PORT[,to=PORT][,ipv4][,ipv6][,keep-alive]   [IPV6] in brackets
 *   unix:PATH    vsock:CID:PORT    fd:NAME-or-NUMBER
 *   exec:COMMAND (run by /bin/sh -c)    file:PATH[,offset=BYTES]
 */
#ifndef FERRY_MIGRATION_ADDRESS_H
#define FERRY_MIGRATION_ADDRESS_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/qapi-types-migration.h"

/* NULL and errp when it is none. The caller frees, here and below. */
MigrationAddress *migration_uri_parse(const char *uri, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* For messages and tests; a program's arguments are joined by spaces. */
char *migration_address_to_uri(const MigrationAddress *addr);
MigrationAddress *migration_address_copy(const MigrationAddress *addr);

/*
 * What migrate and migrate-incoming take: exactly one of both; uri may be NULL. A list, which may be
 * NULL, has one main channel. `command` is for messages.
 */
MigrationAddress *migration_args_to_address(const char *uri, bool has_channels,
                                            const MigrationChannelList *channels,
                                            const char *command,
                                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The argument of -incoming: a URI, or the JSON of one channel ({"channel-type":"main","addr":...}). */
MigrationAddress *migration_incoming_arg_parse(const char *arg,
                                               GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* Several connections can be made to it (tcp, unix, vsock). */
bool migration_address_is_multi_channel(const MigrationAddress *addr);
/* A descriptor that was passed, of whatever kind. */
bool migration_address_is_fd(const MigrationAddress *addr);
/* A file: pages may be put anywhere in it. */
bool migration_address_is_seekable(const MigrationAddress *addr);

#endif
