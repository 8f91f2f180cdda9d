/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Announcements: network cards tell the switches around them where they are now, several times,
 * after the guest has arrived from another host or when a client asks for it. Main thread.
 */
#ifndef FERRY_NET_ANNOUNCE_H
#define FERRY_NET_ANNOUNCE_H

#include <stdbool.h>
#include "qapi/qapi-types-migration.h"

/* Most rounds of one series, and most time between two. */
#define ANNOUNCE_ROUNDS_MAX  1000
#define ANNOUNCE_TIME_MAX_MS 100000

typedef struct AnnouncedCard AnnouncedCard;

/* A card joins: announce(opaque) sends one announcement. `id` is the card's, for AnnounceParameters. */
AnnouncedCard *announce_card_register(const char *id, void (*announce)(void *opaque), void *opaque);
void announce_card_unregister(AnnouncedCard *card); /* NULL is allowed */

/*
 * Starts a series: one announcement at once, then after initial, initial + step, ... ms, at most max, until
 * `rounds` were made. A series of the same id, by default "", ends. False with an error when a number is out of
 * range.
 */
bool announce_start(const AnnounceParameters *params, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Ends all series: shutdown. */
void announce_stop_all(void);

#endif
