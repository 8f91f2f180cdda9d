/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Announcements: series of them, and the cards that take part. */
#include "net/announce.h"

#include <string.h>
#include "qapi/qapi-commands-migration.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/queue.h"
#include "util/timer.h"

struct AnnouncedCard {
    char *id;
    void (*announce)(void *opaque);
    void *opaque;
    TAILQ_ENTRY(AnnouncedCard) next;
};

/* Freed with its last round. */
typedef struct AnnounceSeries {
    char *id;
    AnnounceParameters *params;
    int64_t done; /* rounds */
    QEMUTimer *timer;
    LIST_ENTRY(AnnounceSeries) next;
} AnnounceSeries;

static TAILQ_HEAD(, AnnouncedCard) cards = TAILQ_HEAD_INITIALIZER(cards);
static LIST_HEAD(, AnnounceSeries) all_series = LIST_HEAD_INITIALIZER(all_series);

/* --- cards --- */

AnnouncedCard *announce_card_register(const char *id, void (*announce)(void *opaque), void *opaque)
{
    AnnouncedCard *card = g_new0(AnnouncedCard, 1);

    card->id = g_strdup(id);
    card->announce = announce;
    card->opaque = opaque;
    TAILQ_INSERT_TAIL(&cards, card, next);
    return card;
}

void announce_card_unregister(AnnouncedCard *card)
{
    if (card) {
        TAILQ_REMOVE(&cards, card, next);
        g_free(card->id);
        g_free(card);
    }
}

/* --- series --- */

static void series_free(AnnounceSeries *series)
{
    LIST_REMOVE(series, next);
    timer_free(series->timer);
    qapi_free_AnnounceParameters(series->params);
    g_free(series->id);
    g_free(series);
}

static bool takes_part(const AnnounceSeries *series, const AnnouncedCard *card)
{
    if (!series->params->has_interfaces) {
        return true;
    }
    for (const strList *name = series->params->interfaces; name; name = name->next) {
        if (!strcmp(name->value, card->id)) {
            return true;
        }
    }
    return false;
}

static void series_round(void *opaque)
{
    AnnounceSeries *series = opaque;
    const AnnounceParameters *params = series->params;
    AnnouncedCard *card;
    int64_t delay_ms;

    if (series->done < params->rounds) {
        TAILQ_FOREACH(card, &cards, next) {
            if (takes_part(series, card)) {
                card->announce(card->opaque);
            }
        }
    }
    if (++series->done >= params->rounds) {
        series_free(series);
        return;
    }
    delay_ms = MIN(params->initial + (series->done - 1) * params->step, params->max);
    timer_mod_ns(series->timer, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + delay_ms * SCALE_MS);
}

static bool check_range(const char *name, int64_t value, int64_t max, GError **errp)
{
    if (value < 0 || value > max) {
        error_setg(errp, "Parameter '%s' expects a value between 0 and %d", name, (int)max);
        return false;
    }
    return true;
}

bool announce_start(const AnnounceParameters *params, GError **errp)
{
    const char *id = params->id ? params->id : "";
    AnnounceSeries *series, *next;

    if (!check_range("initial", params->initial, ANNOUNCE_TIME_MAX_MS, errp) ||
        !check_range("max", params->max, ANNOUNCE_TIME_MAX_MS, errp) ||
        !check_range("rounds", params->rounds, ANNOUNCE_ROUNDS_MAX, errp) ||
        !check_range("step", params->step, ANNOUNCE_TIME_MAX_MS, errp)) {
        return false;
    }
    LIST_FOREACH_SAFE(series, &all_series, next, next) {
        if (!strcmp(series->id, id)) {
            series_free(series);
        }
    }
    series = g_new0(AnnounceSeries, 1);
    series->id = g_strdup(id);
    series->params = QAPI_CLONE(AnnounceParameters, params);
    series->timer =
        aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, series_round, series);
    LIST_INSERT_HEAD(&all_series, series, next);
    series_round(series);
    return true;
}

void announce_stop_all(void)
{
    while (!LIST_EMPTY(&all_series)) {
        series_free(LIST_FIRST(&all_series));
    }
}

bool coroutine_fn qmp_announce_self(const AnnounceParameters *arg, GError **errp)
{
    return announce_start(arg, errp);
}
