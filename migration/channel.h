/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The connections of a migration: MigrationConnector makes those of a source, MigrationListener waits
 * for those of a destination. TLS is theirs: what they hand out is ready for the first byte of the
 * stream.
 */
#ifndef FERRY_MIGRATION_CHANNEL_H
#define FERRY_MIGRATION_CHANNEL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "io/channel.h"
#include "migration/address.h"
#include "migration/options.h"

/* --- source --- */

typedef struct MigrationConnector MigrationConnector;

/*
 * Checks that the address can do what the settings ask for, and finds the TLS credentials, which
 * cannot be deleted as long as this lives. The caller owns one reference. Main thread.
 */
MigrationConnector *migration_connector_new(const MigrationAddress *addr,
                                            MigrationSettings *settings,
                                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
MigrationConnector *migration_connector_ref(MigrationConnector *c); /* any thread */
void migration_connector_unref(MigrationConnector *c);              /* any thread; NULL allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(MigrationConnector, migration_connector_unref)

/*
 * Makes a connection: the first one is the main channel's. A named descriptor is used up, a program is
 * started, a file is created or cut off at its offset. In the main thread. NULL with an error, also
 * after migration_connector_cancel(). The channel is idle in the main loop: it may be used in any
 * thread next.
 */
QIOChannel *coroutine_fn migration_connector_co_connect(MigrationConnector *c,
                                                        GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The same from a thread without an event loop, which must not hold the big lock: the main loop
 * connects while the thread waits. Needs an address with several channels.
 */
QIOChannel *migration_connector_connect_blocking(MigrationConnector *c,
                                                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Every attempt to connect, in progress or yet to come, fails soon, also one whose peer does not answer
 * the TLS handshake. Channels that were handed out stay as they are. Any thread.
 */
void migration_connector_cancel(MigrationConnector *c);

/*
 * Another descriptor of the file of a migration with mapped-ram, for pwrite(2), whose position may be
 * shared; direct: past the page cache (O_DIRECT). The file exists: the main channel was connected before.
 * Close it with qemu_close(). Any thread. -1 with an error.
 */
int migration_connector_open_extra(MigrationConnector *c, bool direct,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * False with an error: what was written by `ioc`, the main channel, went into a file that has been removed
 * meanwhile. Any thread.
 */
bool migration_connector_file_remains(const MigrationConnector *c, QIOChannel *ioc,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* --- destination; main thread --- */

typedef struct MigrationListener MigrationListener;

/* Most bytes by which a peer proves to be the source: a handshake of multifd. */
#define MIGRATION_HELLO_MAX 64

/* What a source said first. */
typedef struct MigrationHello {
    size_t n; /* 0: nothing was read, the channel is the only one */
    uint8_t bytes[MIGRATION_HELLO_MAX];
    /* Grows with each connection that the listener takes. A source makes its main one first. */
    uint64_t serial;
} MigrationHello;

/*
 * A source's channel is there, after its TLS handshake, with the bytes that were read from it; takes over
 * the reference, hello lives until the return. Or ioc and hello are NULL: a file, a program or a
 * descriptor gives one channel only, and err says why it failed. It takes over err too. Called in the main
 * loop, outside of coroutines, never from inside migration_listener_co_new(); it may stop and free the
 * listener.
 */
typedef void MigrationChannelFunc(QIOChannel *ioc, const MigrationHello *hello, GError *err,
                                  void *opaque);

/*
 * Waits for channels at an address; one comes at once from a file, a program or a descriptor. The
 * settings for TLS are those at the time when a peer connects. A peer of a socket that is not the source
 * is forgotten (newcomers.h), waiting goes on.
 */
MigrationListener *coroutine_fn migration_listener_co_new(const MigrationAddress *addr,
                                                          MigrationChannelFunc *func, void *opaque,
                                                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * The source is there: from now on other peers are told by warnings, and if one of them was the
 * source's, its main channel tells. The main loop.
 */
void migration_listener_set_lenient(MigrationListener *listener);
/* Stops listening and drops newcomers. func is not called any more. NULL is allowed. */
void migration_listener_stop(MigrationListener *listener);
/* Stops and frees; NULL is allowed. */
void migration_listener_free(MigrationListener *listener);
/* Whether a connection waits to be accepted, or has said something that has not been looked at. */
bool migration_listener_hears(const MigrationListener *listener);
/* Where it really listens; NULL when there is no socket, or not any more. The caller frees. */
SocketAddressList *migration_listener_addresses(const MigrationListener *listener);
/* As migration_connector_open_extra(), to read. Any thread, as long as the listener is there. */
int migration_listener_open_extra(MigrationListener *listener, bool direct,
                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
