/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * multifd: pages on extra channels, each with a thread of its own on both sides. A file has no such
 * channels: there its threads write pages to their places, see ram-mapped-io.h.
 *
 * Wire: a 64-byte handshake a channel, then packets of a 1344-byte header and the bytes of up to 128
 * pages of one block. A SYNC packet on every channel marks a barrier that the main channel has as well.
 * The formats and the two styles of barriers (per section: 7.2; per round: 8.1 and later) are chosen by
 * the settings.
 */
#ifndef FERRY_MIGRATION_MULTIFD_H
#define FERRY_MIGRATION_MULTIFD_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "io/channel.h"
#include "migration/migration.h"
#include "migration/ram-receive.h"
#include "migration/ram.h"

#define MULTIFD_MAGIC        0x11223344u
#define MULTIFD_VERSION      1u
#define MULTIFD_PACKET_PAGES 128

/* --- source; the source's thread unless said otherwise --- */

/*
 * Connects the channels and starts their threads, all of which stop when the migration does. False
 * with an error.
 */
bool multifd_send_setup(MigrationState *s, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Hands a run of pages to a channel; they are read when the channel sends them, so their bits are
 * clear already. detect_zero: the channel's thread looks for zero pages. Waits while all channels are
 * busy. 0, or -errno: the migration has failed or was cancelled.
 */
int multifd_send_run(MigrationState *s, const RAMRun *run, bool detect_zero);
/* Everything handed over so far and a SYNC packet are on their way. 0 or -errno as above. */
int multifd_send_sync(MigrationState *s);
/*
 * Looks whether the destination has closed a channel, which a channel that has nothing to send does not
 * notice. Not once the end of the stream has left. 0, or -EPIPE with an error.
 */
int multifd_send_check(MigrationState *s, GError **errp);
/*
 * Ends the threads and closes the channels: what was handed over is sent first, unless the migration
 * has failed or multifd_send_shutdown() was called.
 */
void multifd_send_cleanup(MigrationState *s);
/*
 * Wakes and ends all channels at once. s->multifd is not NULL: in the source's thread, or in any that
 * holds s->lock.
 */
void multifd_send_shutdown(MigrationState *s);

/* --- destination --- */

/*
 * Before the first channel of any kind is looked at; main loop. A channel that fails keeps its error in
 * mis->error, unless there is one, and ends the reading of mis->from_src.
 */
MultiFDRecv *multifd_recv_new(MigrationIncomingState *mis);

/*
 * Takes a channel that began with these MULTIFD_HANDSHAKE_BYTES, and starts its thread; main loop. In
 * which order channels come says nothing: connections and TLS handshakes overtake each other. False with
 * an error: the migration fails; ioc stays the caller's in any case.
 */
bool multifd_recv_take_channel(MigrationIncomingState *mis, QIOChannel *ioc,
                               const uint8_t *handshake, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
bool multifd_recv_all_channels_created(MigrationIncomingState *mis);
/* Whether one of the channels that are there has hung up, as the kernel knows. Main loop. */
bool multifd_recv_has_hung_up(MigrationIncomingState *mis);
/* All channels are there, the main one too, and the load begins; some may have hung up. Main loop. */
void multifd_recv_begin(MigrationIncomingState *mis);
/*
 * Where pages go from now on: before the first barrier. NULL: no more pages are taken; channels in
 * the middle of some are shut down and waited for, then no thread uses the old one. Incoming thread.
 */
void multifd_recv_set_ram(MigrationIncomingState *mis, RAMRecv *ram);
/* Waits until every channel has met its SYNC packet, then lets them go on. Incoming thread. */
int multifd_recv_sync(MigrationIncomingState *mis, GError **errp);
/*
 * The load has gone well: channels are read until the source closes them. So its last bytes there
 * (7.2: an empty packet behind the last barrier) are not refused, which the source would take for a
 * failure. Channels that a source leaves open are closed soon. When the last one has ended
 * everything is freed, and mis->multifd is NULL. Main loop.
 */
void multifd_recv_finish(MigrationIncomingState *mis);
/* Ends every wait of the channels and of multifd_recv_sync(). In any thread that keeps mis->multifd. */
void multifd_recv_shutdown(MigrationIncomingState *mis);
/* Ends the threads and closes the channels; mis->multifd is NULL. Main loop. */
void multifd_recv_free(MigrationIncomingState *mis);

#endif
