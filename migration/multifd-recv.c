/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * multifd, the destination's side: a thread a channel reads packets and puts pages where they belong,
 * the kernel straight into guest memory unless they are compressed.
 *
 * Barriers. A channel that meets a SYNC packet stops there (`at_sync`). The incoming thread, at the same
 * point of the main channel, waits until all of them have, and lets them go on. So a page that was
 * sent twice, with a barrier in between, arrives in that order whichever channels it took.
 *
 * A channel that ends where a packet would begin has just ended. Before the first barrier, which every
 * migration has, that is too early. Later it shows when a barrier is waited for that the channel has not
 * met. A source that has sent everything closes the channels when all of the main one is on its way. So
 * if a channel has hung up, and no channel brings data after that, the source has gone (`silence`).
 * Before all channels are there incoming.c decides that (`channel_lost`): a thread at a barrier sees no
 * end.
 *
 * A peer is not trusted: multifd-packet.c checks a header, this file that a packet fits this guest's
 * memory.
 *
 * Life. A thread that ends tells the main loop (channel_over_bh). Once the guest has arrived the main
 * loop gives back what the channel had, and everything when no channel is left.
 *
 * Lock order: MigrationIncomingState.channels_lock, MultiFDRecv.lock.
 */
#include "migration/multifd.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include "io/hangup-watch.h"
#include "migration/multifd-codec.h"
#include "migration/multifd-packet.h"
#include "migration/ram-receive.h"
#include "migration/savevm.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/timer.h"

/* How long the main channel may say nothing once another one has ended. */
#define SILENCE_NS (5 * NANOSECONDS_PER_SECOND)
/* How long a source may keep channels open when the guest has arrived. */
#define LINGER_NS (5 * NANOSECONDS_PER_SECOND)
/* How long all channels may take to come before a user should look at the settings of the source. */
#define OVERDUE_NS (5 * NANOSECONDS_PER_SECOND)

typedef struct RecvChannel {
    MultiFDRecv *recv;
    unsigned id;
    GThread *thread;        /* main loop; NULL: not there yet, or joined */
    QIOChannel *ioc;        /* constant while the thread runs */
    QIOHangupWatch *hangup; /* main loop; NULL: it has hung up */
    bool at_sync;           /* lock: waits to be let go on */
    bool ended;             /* lock */
    bool gone;              /* the thread's until it has ended: the source has closed it */
    bool taken;             /* main loop: it has come */

    /* The thread's. */
    void *codec_state;
    MultiFDPacket packet;
    uint8_t header[MULTIFD_HEADER_BYTES];
    MultiFDPages pages;
    uint8_t *scratch; /* a packet's pages; NULL: not needed so far */
} RecvChannel;

struct MultiFDRecv {
    /* The main loop's. */
    unsigned refcount;  /* of the owner, and of each thread until its channel_over_bh() */
    unsigned created;   /* channels that have had a thread */
    unsigned released;  /* of these, channels that have given back all they had */
    QEMUTimer *silence; /* armed while a channel has hung up */
    QEMUTimer *overdue; /* armed from the first channel to the last */
    uint64_t heard;     /* what had come when the timer was armed */

    uint64_t packets; /* atomic: that came */

    /* Constant. */
    MigrationIncomingState *mis;
    const MultiFDCodec *codec; /* NULL: codec_error says why */
    GError *codec_error;
    unsigned n_channels;

    pthread_mutex_t lock;
    pthread_cond_t go;      /* channels: they may go on */
    pthread_cond_t arrived; /* incoming thread: a channel has met a barrier, or ended */
    bool quit;              /* lock */
    bool over;              /* lock: the guest is here, what channels say now means nothing */
    bool synced;            /* lock: all have met a barrier */
    bool done;              /* lock: all pages have come */
    GError *error;          /* lock: the first one of a channel */
    RAMRecv *ram;           /* lock: where pages go; NULL: nowhere yet, or any more */
    unsigned ram_users;     /* lock: channels that are putting pages there */

    RecvChannel channels[];
};

/* --- a channel's thread: a packet --- */

static int check_pages(RecvChannel *ch, const RAMRecvBlock *rb, GError **errp)
{
    const MultiFDPacket *packet = &ch->packet;

    for (uint32_t i = 0; i < packet->normal + packet->zero; i++) {
        if (!ram_recv_check(rb, packet->offsets[i], TARGET_PAGE_SIZE, errp)) {
            return -EINVAL;
        }
    }
    return 0;
}

/* Pages that cannot be read into place, or better are not. */
static int receive_and_put(RecvChannel *ch, RAMRecvBlock *rb, GError **errp)
{
    const MultiFDPacket *packet = &ch->packet;
    size_t bytes = (size_t)packet->normal * TARGET_PAGE_SIZE;
    uint32_t n;
    int ret;

    if (!ch->scratch) {
        ch->scratch = g_malloc((size_t)MULTIFD_PACKET_PAGES * TARGET_PAGE_SIZE);
    }
    multifd_pages_set_buffer(&ch->pages, ch->scratch, bytes);
    ret = ch->recv->codec->receive(ch->codec_state, ch->ioc, packet->payload, &ch->pages, errp);
    for (uint32_t i = 0; ret == 0 && i < packet->normal; i += n) {
        const uint64_t *offset = &packet->offsets[i];

        n = 1;
        while (i + n < packet->normal && offset[n] == offset[0] + (uint64_t)n * TARGET_PAGE_SIZE) {
            n++;
        }
        if (!ram_recv_put(rb, offset[0] >> TARGET_PAGE_BITS, n,
                          ch->scratch + (size_t)i * TARGET_PAGE_SIZE, errp)) {
            ret = -EINVAL;
        }
    }
    return ret;
}

static int receive_normal(RecvChannel *ch, RAMRecvBlock *rb, GError **errp)
{
    const MultiFDPacket *packet = &ch->packet;
    uint8_t *host = rb->block->host;
    int ret;

    if (!ram_recv_takes_in_place(rb) || ram_recv_is_by_write(rb)) {
        return receive_and_put(ch, rb, errp);
    }
    multifd_pages_from_offsets(&ch->pages, host, packet->offsets, packet->normal);
    ret = ch->recv->codec->receive(ch->codec_state, ch->ioc, packet->payload, &ch->pages, errp);
    for (unsigned i = 0; ret == 0 && i < ch->pages.niov; i++) {
        const struct iovec *iov = &ch->pages.iov[i];

        ram_recv_mark(rb, (uint64_t)((uint8_t *)iov->iov_base - host) >> TARGET_PAGE_BITS,
                      iov->iov_len >> TARGET_PAGE_BITS);
    }
    return ret;
}

static int receive_pages(RecvChannel *ch, RAMRecv *ram, GError **errp)
{
    const MultiFDPacket *packet = &ch->packet;
    RAMRecvBlock *rb = ram_recv_find(ram, packet->block, errp);
    int ret = rb ? check_pages(ch, rb, errp) : -EINVAL;

    if (ret == 0 && packet->normal) {
        ret = receive_normal(ch, rb, errp);
    }
    for (uint32_t i = 0; ret == 0 && i < packet->zero; i++) {
        uint64_t page = packet->offsets[packet->normal + i] >> TARGET_PAGE_BITS;

        ret = ram_recv_zero(rb, page, 1, errp) ? 0 : -EINVAL;
    }
    return ret;
}

static RAMRecv *begin_with_ram(MultiFDRecv *r, GError **errp)
{
    RAMRecv *ram;

    pthread_mutex_lock(&r->lock);
    ram = r->ram;
    if (ram) {
        r->ram_users++;
    }
    pthread_mutex_unlock(&r->lock);
    if (!ram) {
        error_setg(errp, "pages outside of the time between the list of RAM blocks and the end");
    }
    return ram;
}

static void end_with_ram(MultiFDRecv *r)
{
    pthread_mutex_lock(&r->lock);
    r->ram_users--;
    pthread_cond_signal(&r->arrived);
    pthread_mutex_unlock(&r->lock);
}

static int handle_pages(RecvChannel *ch, GError **errp)
{
    MultiFDRecv *r = ch->recv;
    uint32_t method = ch->packet.flags & MULTIFD_FLAG_CODEC_MASK;
    RAMRecv *ram;
    int ret;

    if (method != r->codec->flags) {
        error_setg(errp, "packet compressed by method %x, expected %x", method, r->codec->flags);
        return -EINVAL;
    }
    ram = begin_with_ram(r, errp);
    if (!ram) {
        return -EINVAL;
    }
    ret = receive_pages(ch, ram, errp);
    end_with_ram(r);
    return ret;
}

/* Stays until the barrier has been met by all; 1: the end. */
static int wait_at_barrier(RecvChannel *ch)
{
    MultiFDRecv *r = ch->recv;
    int ret;

    pthread_mutex_lock(&r->lock);
    ch->at_sync = true;
    pthread_cond_signal(&r->arrived);
    while (ch->at_sync && !r->quit) {
        pthread_cond_wait(&r->go, &r->lock);
    }
    ret = r->quit ? 1 : 0;
    pthread_mutex_unlock(&r->lock);
    return ret;
}

/* 0; 1: the channel has come to its end; -errno. */
static int receive_packet(RecvChannel *ch, GError **errp)
{
    MultiFDRecv *r = ch->recv;
    struct iovec iov = {ch->header, sizeof(ch->header)};
    bool strict = r->mis->settings->compat.multifd_clean_tls_termination;
    const QIOChannelAllOptions opts = {
        .flags = strict ? 0 : QIO_CHANNEL_READ_FLAG_RELAXED_EOF,
    };
    int ret = qio_channel_readv_all_eof_full(ch->ioc, &iov, 1, &opts, errp);

    if (ret <= 0) {
        return ret < 0 ? ret : 1;
    }
    __atomic_fetch_add(&r->packets, 1, __ATOMIC_RELAXED);
    if (!multifd_packet_decode(ch->header, &ch->packet, errp)) {
        return -EINVAL;
    }
    ret = 0;
    if (ch->packet.normal || ch->packet.zero) {
        ret = handle_pages(ch, errp);
    }
    if (ret == 0 && (ch->packet.flags & MULTIFD_FLAG_SYNC)) {
        ret = wait_at_barrier(ch);
    }
    return ret;
}

/* --- a channel's thread: its life --- */

static void recv_shutdown(MultiFDRecv *r)
{
    pthread_mutex_lock(&r->lock);
    r->quit = true;
    for (unsigned i = 0; i < r->n_channels; i++) {
        if (r->channels[i].ioc) {
            qio_channel_shutdown(r->channels[i].ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        }
    }
    pthread_cond_broadcast(&r->go);
    pthread_cond_broadcast(&r->arrived);
    pthread_mutex_unlock(&r->lock);
}

/* The migration fails because of a channel, unless the channel fails because of the migration. */
static void migration_fails(MultiFDRecv *r, GError *err)
{
    MigrationIncomingState *mis = r->mis;
    bool first;

    pthread_mutex_lock(&r->lock);
    first = !r->quit && !r->error && !r->over;
    if (first) {
        r->error = g_error_copy(err);
    }
    pthread_mutex_unlock(&r->lock);
    if (first) {
        migrate_incoming_set_error(mis, g_error_copy(err));
        g_mutex_lock(&mis->channels_lock);
        if (mis->from_src) {
            qemu_file_stop_reading(mis->from_src); /* the source will still be told */
        }
        g_mutex_unlock(&mis->channels_lock);
        recv_shutdown(r);
    }
    g_error_free(err);
}

static GError *ended_too_early(unsigned id, const char *more)
{
    GError *err = NULL;

    error_setg(&err, "multifd channel %u: the source has closed it too early%s", id, more);
    return err;
}

static void recv_unref(MultiFDRecv *r)
{
    if (--r->refcount) {
        return;
    }
    pthread_cond_destroy(&r->arrived);
    pthread_cond_destroy(&r->go);
    pthread_mutex_destroy(&r->lock);
    g_clear_error(&r->error);
    g_clear_error(&r->codec_error);
    g_free(r);
}

/* Waits for the thread, and gives back what the channel has. Main loop. */
static void channel_release(RecvChannel *ch)
{
    QIOChannel *ioc;

    if (ch->thread) {
        g_thread_join(g_steal_pointer(&ch->thread));
        ch->recv->released++;
    }
    qio_hangup_watch_free(g_steal_pointer(&ch->hangup));
    pthread_mutex_lock(&ch->recv->lock);
    ioc = g_steal_pointer(&ch->ioc);
    pthread_mutex_unlock(&ch->recv->lock);
    qio_channel_unref(ioc);
    if (ch->codec_state) {
        ch->recv->codec->recv_free(g_steal_pointer(&ch->codec_state));
    }
    g_free(g_steal_pointer(&ch->scratch));
}

/* Channels that have ended are needed as long as they may say why a load fails. */
static void release_ended(MultiFDRecv *r)
{
    for (unsigned i = 0; i < r->n_channels; i++) {
        RecvChannel *ch = &r->channels[i];
        bool ended;

        pthread_mutex_lock(&r->lock);
        ended = ch->ended;
        pthread_mutex_unlock(&r->lock);
        if (ended && ch->thread) {
            channel_release(ch);
        }
    }
    if (r->released == r->created) {
        multifd_recv_free(r->mis);
    }
}

static void channel_over_bh(void *opaque)
{
    RecvChannel *ch = opaque;
    MultiFDRecv *r = ch->recv;

    /* `over` is written by the main loop, so it may be read here without the lock */
    if (r->mis->multifd == r && r->over) {
        release_ended(r);
    } else if (r->mis->multifd == r && r->mis->channel_lost) {
        r->mis->channel_lost(r->mis, ch->gone ? ended_too_early(ch->id, "") : NULL);
    }
    recv_unref(r);
}

static void *channel_thread(void *opaque)
{
    RecvChannel *ch = opaque;
    MultiFDRecv *r = ch->recv;
    GError *err = NULL;
    bool synced;
    int ret;

    do {
        ret = receive_packet(ch, &err);
    } while (ret == 0);
    pthread_mutex_lock(&r->lock);
    synced = r->synced;
    ch->gone = !r->quit && qio_channel_has_hung_up(ch->ioc);
    pthread_mutex_unlock(&r->lock);
    if (ret < 0) {
        g_prefix_error(&err, "multifd channel %u: ", ch->id);
        migration_fails(r, err);
    } else if (!synced) {
        migration_fails(r, ended_too_early(ch->id, ""));
    }
    pthread_mutex_lock(&r->lock);
    ch->ended = true;
    pthread_cond_signal(&r->arrived);
    pthread_mutex_unlock(&r->lock);
    aio_bh_schedule_oneshot(qemu_get_aio_context(), channel_over_bh, ch);
    return NULL;
}

/* --- a channel has hung up; main loop --- */

static uint64_t heard(MultiFDRecv *r)
{
    return qemu_file_transferred(r->mis->from_src) + __atomic_load_n(&r->packets, __ATOMIC_RELAXED);
}

static void listen_for_silence(MultiFDRecv *r)
{
    r->heard = heard(r);
    timer_mod_ns(r->silence, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + SILENCE_NS);
}

/* Something is still expected on the channels. */
static bool expects_more(MultiFDRecv *r)
{
    bool more;

    pthread_mutex_lock(&r->lock);
    more = !r->done && !r->over && !r->quit;
    pthread_mutex_unlock(&r->lock);
    return more;
}

static bool all_there(const MultiFDRecv *r)
{
    return r->created == r->n_channels && r->mis->from_src;
}

static void silence_cb(void *opaque)
{
    MultiFDRecv *r = opaque;
    unsigned id = 0;

    if (r->over) {
        recv_shutdown(r); /* it had time enough */
        return;
    }
    if (!expects_more(r) || !all_there(r)) {
        return;
    }
    if (heard(r) != r->heard) {
        listen_for_silence(r);
        return;
    }
    while (r->channels[id].hangup) {
        id++; /* one of them has hung up */
    }
    migration_fails(r, ended_too_early(id, ", and nothing comes on the main one"));
}

static void channel_hung_up(void *opaque)
{
    RecvChannel *ch = opaque;
    MultiFDRecv *r = ch->recv;

    qio_hangup_watch_free(g_steal_pointer(&ch->hangup));
    if (!expects_more(r)) {
        return;
    }
    if (all_there(r)) {
        listen_for_silence(r);
    } else if (r->mis->channel_lost) {
        r->mis->channel_lost(r->mis, ended_too_early(ch->id, "")); /* may free r */
    } else {
        migration_fails(r, ended_too_early(ch->id, ""));
    }
}

/* --- channels that arrive; main loop --- */

/* Nothing on the main channel tells a slow source from one that has other settings. */
static void overdue_cb(void *opaque)
{
    const MultiFDRecv *r = opaque;

    warn_report("multifd: %u of %u channels have come so far: does the source use multifd, "
                "with as many channels?",
                r->created, r->n_channels);
}

MultiFDRecv *multifd_recv_new(MigrationIncomingState *mis)
{
    unsigned n = migrate_multifd_channels(mis->settings);
    MultiFDRecv *r = g_malloc0(sizeof(*r) + n * sizeof(r->channels[0]));

    r->refcount = 1;
    r->mis = mis;
    r->codec = multifd_codec_find(migrate_multifd_compression(mis->settings), &r->codec_error);
    r->n_channels = n;
    r->silence = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, silence_cb, r);
    r->overdue = aio_timer_new(qemu_get_aio_context(), QEMU_CLOCK_REALTIME, overdue_cb, r);
    timer_mod_ns(r->overdue, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + OVERDUE_NS);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->go, NULL);
    pthread_cond_init(&r->arrived, NULL);
    for (unsigned i = 0; i < n; i++) {
        r->channels[i].recv = r;
        r->channels[i].id = i;
    }
    return r;
}

/* Which of the channels it is; NULL with an error. */
static RecvChannel *identify(MultiFDRecv *r, const MultiFDHandshake *hs, GError **errp)
{
    const MigrationIdentity *identity = migration_get_identity();
    static const uint8_t none[sizeof(hs->uuid)];

    if (memcmp(hs->uuid, identity->has_uuid ? identity->uuid : none, sizeof(hs->uuid)) != 0) {
        error_setg(errp, "multifd: the channel is of a guest with another UUID");
        return NULL;
    }
    if (hs->channel >= r->n_channels) {
        error_setg(errp, "multifd: received channel id %u is not below the number of channels %u",
                   hs->channel, r->n_channels);
        return NULL;
    }
    if (r->channels[hs->channel].taken) {
        error_setg(errp, "multifd: received channel id %u twice", hs->channel);
        return NULL;
    }
    return &r->channels[hs->channel];
}

static bool channel_start(RecvChannel *ch, QIOChannel *ioc, GError **errp)
{
    MultiFDRecv *r = ch->recv;
    g_autofree char *name = g_strdup_printf("mig/dst/recv_%u", ch->id);

    qio_channel_set_name(ioc, name);
    if (!qio_channel_set_blocking(ioc, true, errp)) {
        return false;
    }
    if (!ch->codec_state) {
        ch->codec_state = r->codec->recv_new(errp);
    }
    if (!ch->codec_state) {
        return false;
    }
    ch->hangup = qio_hangup_watch_new(ioc, qemu_get_aio_context(), channel_hung_up, ch, errp);
    if (!ch->hangup) {
        return false;
    }
    pthread_mutex_lock(&r->lock);
    ch->ioc = qio_channel_ref(ioc);
    pthread_mutex_unlock(&r->lock);
    ch->thread = g_thread_try_new(name, channel_thread, ch, errp);
    if (!ch->thread) {
        return false;
    }
    ch->taken = true;
    r->refcount++;
    if (++r->created == r->n_channels) {
        timer_del(r->overdue);
    }
    return true;
}

bool multifd_recv_take_channel(MigrationIncomingState *mis, QIOChannel *ioc,
                               const uint8_t *handshake, GError **errp)
{
    MultiFDRecv *r = mis->multifd;
    RecvChannel *ch = NULL;
    MultiFDHandshake hs;

    if (!r->codec) {
        g_propagate_error(errp, g_error_copy(r->codec_error));
        return false;
    }
    if (multifd_handshake_decode(handshake, &hs, errp)) {
        ch = identify(r, &hs, errp);
    }
    return ch && channel_start(ch, ioc, errp);
}

bool multifd_recv_all_channels_created(MigrationIncomingState *mis)
{
    return mis->multifd->created == mis->multifd->n_channels;
}

bool multifd_recv_has_hung_up(MigrationIncomingState *mis)
{
    const MultiFDRecv *r = mis->multifd;

    for (unsigned i = 0; i < r->n_channels; i++) {
        if (r->channels[i].ioc && qio_channel_has_hung_up(r->channels[i].ioc)) {
            return true;
        }
    }
    return false;
}

void multifd_recv_begin(MigrationIncomingState *mis)
{
    MultiFDRecv *r = mis->multifd;

    for (unsigned i = 0; i < r->n_channels; i++) {
        if (!r->channels[i].hangup) {
            listen_for_silence(r);
            return;
        }
    }
}

/* --- the incoming thread --- */

/* 1: all have met the barrier; 0: not yet; -errno. The lock is held. */
static int barrier_state(MultiFDRecv *r, GError **errp)
{
    int ret = 1;

    if (r->error) {
        g_propagate_error(errp, g_error_copy(r->error));
        return -EIO;
    }
    if (r->quit) {
        error_setg(errp, "multifd: the channels were shut down");
        return -ECANCELED;
    }
    for (unsigned i = 0; i < r->n_channels; i++) {
        if (r->channels[i].at_sync) {
            continue;
        }
        if (r->channels[i].ended) {
            g_propagate_error(errp, ended_too_early(i, ""));
            return -EPIPE;
        }
        ret = 0;
    }
    return ret;
}

int multifd_recv_sync(MigrationIncomingState *mis, GError **errp)
{
    MultiFDRecv *r = mis->multifd;
    int ret;

    pthread_mutex_lock(&r->lock);
    while ((ret = barrier_state(r, errp)) == 0) {
        pthread_cond_wait(&r->arrived, &r->lock);
    }
    if (ret > 0) {
        r->synced = true;
        for (unsigned i = 0; i < r->n_channels; i++) {
            r->channels[i].at_sync = false;
        }
        pthread_cond_broadcast(&r->go);
    }
    pthread_mutex_unlock(&r->lock);
    return ret < 0 ? ret : 0;
}

void multifd_recv_set_ram(MigrationIncomingState *mis, RAMRecv *ram)
{
    MultiFDRecv *r = mis->multifd;

    bool in_use;

    pthread_mutex_lock(&r->lock);
    r->ram = ram;
    r->done = !ram;
    in_use = !ram && r->ram_users;
    pthread_mutex_unlock(&r->lock);
    if (in_use) {
        recv_shutdown(r);
        pthread_mutex_lock(&r->lock);
        while (r->ram_users) {
            pthread_cond_wait(&r->arrived, &r->lock);
        }
        pthread_mutex_unlock(&r->lock);
    }
}

/* --- the end --- */

void multifd_recv_finish(MigrationIncomingState *mis)
{
    MultiFDRecv *r = mis->multifd;

    pthread_mutex_lock(&r->lock);
    r->over = true;
    pthread_mutex_unlock(&r->lock);
    timer_mod_ns(r->silence, qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + LINGER_NS);
    release_ended(r);
}

void multifd_recv_shutdown(MigrationIncomingState *mis)
{
    recv_shutdown(mis->multifd);
}

void multifd_recv_free(MigrationIncomingState *mis)
{
    MultiFDRecv *r;

    g_mutex_lock(&mis->channels_lock);
    r = g_steal_pointer(&mis->multifd);
    g_mutex_unlock(&mis->channels_lock);
    if (!r) {
        return;
    }
    recv_shutdown(r);
    for (unsigned i = 0; i < r->n_channels; i++) {
        channel_release(&r->channels[i]);
    }
    timer_free(g_steal_pointer(&r->silence));
    timer_free(g_steal_pointer(&r->overdue));
    recv_unref(r);
}
