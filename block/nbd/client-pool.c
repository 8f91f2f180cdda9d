/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which connection a request takes, how long it waits for one, and what a drained section means for
 * all of them.
 */
#include "block/nbd/client-int.h"

#include "block/graph/give-up.h"

/* At the end of the process a request waits so long for a connection, whatever reconnect-delay says. */
#define NBD_LAST_CHANCE_NS (5 * NANOSECONDS_PER_SECOND)

/* The link that is up with the fewest requests, if it has room; *any: some link is up. */
static NbdLink *client_best_link(NbdClient *client, bool *any)
{
    NbdLink *best = NULL;

    *any = false;
    for (unsigned i = 0; i < client->n_links; i++) {
        NbdLink *link = client->links[(client->next_link + i) % client->n_links];

        if (link->state != NBD_LINK_UP) {
            continue;
        }
        *any = true;
        if (link->in_flight < NBD_LINK_MAX_REQUESTS &&
            (!best || link->in_flight < best->in_flight)) {
            best = link;
        }
    }
    return best;
}

/* All links are at work: another one may help. */
static void client_grow(NbdClient *client)
{
    for (unsigned i = 0; i < client->n_links; i++) {
        if (client->links[i]->state == NBD_LINK_DIALLING) {
            return; /* one at a time */
        }
    }
    for (unsigned i = 0; i < client->n_links; i++) {
        if (client->links[i]->state == NBD_LINK_DOWN && !client->links[i]->useless) {
            nbd_link_dial(client->links[i]);
            return;
        }
    }
    if (client->n_links < client->max_links && !client->drained) {
        NbdLink *link = nbd_link_new(client, client->n_links);

        g_mutex_lock(&client->ioc_lock); /* others look from other threads */
        client->links[client->n_links++] = link;
        g_mutex_unlock(&client->ioc_lock);
        nbd_link_dial(link);
    }
}

static void client_abandon_dials(NbdClient *client)
{
    for (unsigned i = 0; i < client->n_links; i++) {
        nbd_link_abandon_dial(client->links[i]);
    }
}

static bool client_has_patience(const NbdClient *client)
{
    return qemu_clock_get_ns(QEMU_CLOCK_REALTIME) < client->patience_until_ns;
}

static void client_arm_patience(NbdClient *client)
{
    if (client_has_patience(client) && !timer_pending(client->patience)) {
        timer_mod_ns(client->patience, client->patience_until_ns);
    }
}

/* A drained node may move to another thread, which no timer of this one may then know. */
static void client_rest_patience(NbdClient *client)
{
    if (client->drained && !client->n_waiting) {
        timer_del(client->patience);
    }
}

/* Once for each client: a request of now may be the last that can save what was acknowledged. */
static bool client_takes_last_chance(NbdClient *client)
{
    if (client->last_chance || !bdrv_give_up_is_watched() || g_atomic_int_get(&client->cancelled)) {
        return false;
    }
    client->last_chance = true;
    client->patience_until_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + NBD_LAST_CHANCE_NS;
    return true;
}

/* A drained section that began without waiters has given up the dial: a waiter needs one. */
static void client_dial_again(NbdClient *client)
{
    NbdLink *link = client->n_links ? client->links[0] : NULL;

    if (link && link->state == NBD_LINK_DOWN && link->wanted) {
        nbd_link_dial(link);
    }
}

NbdLink *coroutine_fn nbd_client_co_get_link(NbdClient *client)
{
    for (;;) {
        bool any;
        NbdLink *link = client_best_link(client, &any);

        if (link) {
            if (link->in_flight && client->max_links > 1) {
                client_grow(client);
            }
            client->next_link = (link->index + 1) % client->n_links;
            return link;
        }
        if (!any && !client_has_patience(client) && !client_takes_last_chance(client)) {
            return NULL;
        }
        client->n_waiting += !any;
        if (!any) {
            client_arm_patience(client);
            client_dial_again(client);
        }
        if (any || client_has_patience(client)) {
            qemu_co_queue_wait(&client->waiting, NULL);
        }
        client->n_waiting -= !any;
        if (client->drained && !client->n_waiting) {
            client_abandon_dials(client);
            client_rest_patience(client);
        }
    }
}

void nbd_client_link_up(NbdClient *client)
{
    g_atomic_int_set(&client->cancelled, 0);
    client->patience_until_ns = 0;
    timer_del(client->patience);
    qemu_co_queue_restart_all(&client->waiting);
}

void nbd_client_slot_freed(NbdClient *client)
{
    (void)qemu_co_queue_next(&client->waiting);
}

void nbd_client_stop_waiting(NbdClient *client)
{
    client->patience_until_ns = 0;
    timer_del(client->patience);
    qemu_co_queue_restart_all(&client->waiting);
}

void nbd_client_link_lost(NbdClient *client)
{
    bool any;

    (void)client_best_link(client, &any);
    if (!any && client->reconnect_delay && !g_atomic_int_get(&client->cancelled)) {
        client->patience_until_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) +
                                    client->reconnect_delay * NANOSECONDS_PER_SECOND;
        timer_del(client->patience);
        client_arm_patience(client);
        client_rest_patience(client);
    }
}

static void client_stop_waiting_cb(void *opaque)
{
    nbd_client_stop_waiting(opaque);
}

void nbd_client_enter_context(NbdClient *client, AioContext *ctx)
{
    client->ctx = ctx;
    client->patience = aio_timer_new(ctx, QEMU_CLOCK_REALTIME, client_stop_waiting_cb, client);
    client->cancel_bh = aio_bh_new(ctx, client_stop_waiting_cb, client);
}

void nbd_client_leave_context(NbdClient *client)
{
    g_clear_pointer(&client->patience, timer_free);
    g_clear_pointer(&client->cancel_bh, qemu_bh_delete);
}

void nbd_client_yank(void *opaque)
{
    NbdClient *client = opaque;

    g_mutex_lock(&client->ioc_lock);
    if (client->opening_bh) {
        qemu_bh_schedule(client->opening_bh);
    }
    for (unsigned i = 0; i < client->n_links; i++) {
        if (client->links[i]->ioc) {
            qio_channel_shutdown(client->links[i]->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        }
    }
    g_mutex_unlock(&client->ioc_lock);
}

void nbd_client_cancel(NbdClient *client)
{
    g_atomic_int_set(&client->cancelled, 1);
    g_atomic_int_inc(&client->cancels);
    nbd_client_yank(client);
    qemu_bh_schedule(client->cancel_bh);
}

void nbd_client_drain_begin(NbdClient *client)
{
    client->drained = true;
    for (unsigned i = 0; i < client->n_links; i++) {
        if (!client->n_waiting) { /* waiters are bounded by reconnect-delay */
            nbd_link_abandon_dial(client->links[i]);
        }
        nbd_link_rest(client->links[i]);
    }
    client_rest_patience(client);
}

void nbd_client_drain_end(NbdClient *client)
{
    client->drained = false;
    client_arm_patience(client);
    for (unsigned i = 0; i < client->n_links; i++) {
        NbdLink *link = client->links[i];

        if (link->state == NBD_LINK_DOWN && link->wanted) {
            nbd_link_dial(link);
        }
        nbd_link_watch(link);
    }
}

void nbd_client_close(NbdClient *client)
{
    for (unsigned i = 0; i < client->n_links; i++) {
        NbdLink *link = client->links[i];

        nbd_link_abandon_dial(link);
        if (link->state == NBD_LINK_UP) {
            qio_channel_set_watch(link->ioc, NULL, QIO_CHANNEL_READ, NULL, NULL);
            nbd_client_say_goodbye(link->ioc);
        }
        link->state = NBD_LINK_CLOSED;
        nbd_link_free(link);
        client->links[i] = NULL;
    }
    client->n_links = 0;
}
