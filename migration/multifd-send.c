/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * multifd, the source's side.
 *
 * The source's thread gathers pages in a batch and puts full batches in a queue; channels' threads take
 * them from there, an idle channel first. No bytes are copied: the thread that sends a page reads it,
 * straight from guest memory. There are two batches for each channel and one to fill (batch-queue.h).
 *
 * A barrier is a SYNC packet on every channel after everything that was handed over before. The
 * source's thread waits until all of them are written, which keeps this simple: while it waits
 * nothing new comes.
 *
 * Lock order: MigrationState.lock, MultiFDSend.lock. migrate_fail() is called without the second.
 */
#include "migration/multifd.h"

#include <errno.h>
#include <string.h>
#include "io/channel-tls.h"
#include "io/hangup-watch.h"
#include "migration/multifd-codec.h"
#include "migration/multifd-int.h"
#include "migration/savevm.h"
#include "util/error.h"
#include "util/timer.h"

/* How long a peer may keep a channel from saying that it has ended. */
#define BYE_NS (5 * NANOSECONDS_PER_SECOND)

typedef struct SendChannel {
    MultiFDSend *send;
    unsigned id;
    GThread *thread;  /* NULL: not started */
    QIOChannel *ioc;  /* set under the lock; constant while the thread runs */
    bool sync_wanted; /* lock: it owes a SYNC packet */

    /* The thread's. */
    uint64_t missed_pass; /* the last pass over the dirty log in which zero copy was of no use */
    void *codec_state;
    MultiFDPacket packet;
    uint8_t header[MULTIFD_HEADER_BYTES];
    MultiFDPages pages, payload;
} SendChannel;

struct MultiFDSend {
    /* Constant. */
    MigrationState *s;
    const MultiFDCodec *codec;
    bool zero_copy;
    unsigned n_channels;

    uint64_t packet_number; /* atomic: of the next packet */

    BatchQueue queue; /* failed: nothing is sent any more, the migration failed or was cancelled */
    /* Under its lock. */
    bool failing; /* a channel is telling why */
    bool finish;  /* end when all is sent */

    MultiFDBatch *batches;
    SendChannel channels[];
};

static QIOChannel *connect_usual(MigrationState *s, GError **errp)
{
    return migration_connector_connect_blocking(s->connector, errp);
}

static MultiFDConnectFunc *connect_func = connect_usual;

void multifd_send_set_connect(MultiFDConnectFunc *func)
{
    connect_func = func ? func : connect_usual;
}

/* --- a channel's thread --- */

static int channel_write(SendChannel *ch, const MultiFDPages *payload, GError **errp)
{
    MultiFDSend *send = ch->send;
    struct iovec iov[1 + MULTIFD_PACKET_PAGES] = {{ch->header, sizeof(ch->header)}};
    int ret;

    if (send->zero_copy && payload->niov) {
        /* the header is written over again before the kernel is done with it, so it is copied */
        ret = qio_channel_write_all(ch->ioc, ch->header, sizeof(ch->header), errp);
        if (ret == 0) {
            ret = qio_channel_writev_zero_copy_all(ch->ioc, payload->iov, payload->niov, errp);
        }
    } else {
        memcpy(iov + 1, payload->iov, payload->niov * sizeof(iov[0]));
        ret = qio_channel_writev_all(ch->ioc, iov, 1 + payload->niov, errp);
    }
    if (ret == 0) {
        stat64_add(&send->s->counters.multifd_bytes, sizeof(ch->header) + payload->bytes);
    }
    return ret;
}

static void packet_begin(SendChannel *ch, uint32_t flags)
{
    ch->packet.flags = flags;
    ch->packet.normal = ch->packet.zero = ch->packet.payload = 0;
    ch->packet.number = __atomic_fetch_add(&ch->send->packet_number, 1, __ATOMIC_RELAXED);
    ch->packet.block[0] = '\0';
    ch->payload.niov = 0;
    ch->payload.bytes = 0;
}

static int channel_send_batch(SendChannel *ch, const MultiFDBatch *batch, GError **errp)
{
    const MultiFDCodec *codec = ch->send->codec;
    MigrationCounters *counters = &ch->send->s->counters;
    MultiFDPacket *packet = &ch->packet;
    int ret = 0;

    packet_begin(ch, codec->flags);
    g_strlcpy(packet->block, batch->block->idstr, sizeof(packet->block));
    multifd_zero_split(batch, packet);
    if (packet->normal) {
        multifd_pages_from_offsets(&ch->pages, batch->block->host, packet->offsets, packet->normal);
        ret = codec->encode(ch->codec_state, &ch->pages, &ch->payload, errp);
        packet->payload = ch->payload.bytes;
    }
    if (ret == 0) {
        multifd_packet_encode(packet, ch->header);
        ret = channel_write(ch, &ch->payload, errp);
    }
    if (ret == 0) {
        stat64_add(&counters->normal_pages, packet->normal);
        stat64_add(&counters->zero_pages, packet->zero);
    }
    return ret;
}

/* Once for each channel and pass, however many barriers there are in it. */
static void count_missed_zero_copy(SendChannel *ch)
{
    MigrationCounters *counters = &ch->send->s->counters;
    uint64_t pass = stat64_get(&counters->dirty_sync_count);

    if (ch->missed_pass != pass) {
        ch->missed_pass = pass;
        stat64_add(&counters->zero_copy_missed, 1);
    }
}

static int channel_send_sync(SendChannel *ch, GError **errp)
{
    int ret;

    packet_begin(ch, MULTIFD_FLAG_SYNC);
    multifd_packet_encode(&ch->packet, ch->header);
    ret = channel_write(ch, &ch->payload, errp);
    if (ret == 0 && ch->send->zero_copy) {
        ret = qio_channel_flush(ch->ioc, errp);
        if (ret > 0) {
            count_missed_zero_copy(ch);
            ret = 0;
        }
    }
    return ret;
}

static int channel_send_handshake(SendChannel *ch, GError **errp)
{
    const MigrationIdentity *identity = migration_get_identity();
    MultiFDHandshake hs = {.channel = ch->id};
    uint8_t buf[MULTIFD_HANDSHAKE_BYTES];
    int ret;

    if (identity->has_uuid) {
        memcpy(hs.uuid, identity->uuid, sizeof(hs.uuid));
    }
    multifd_handshake_encode(&hs, buf);
    ret = qio_channel_write_all(ch->ioc, buf, sizeof(buf), errp);
    if (ret == 0) {
        stat64_add(&ch->send->s->counters.multifd_bytes, sizeof(buf));
    }
    return ret;
}

static void batch_release(MultiFDSend *send, MultiFDBatch *batch)
{
    g_clear_pointer(&batch->block, ram_block_unref);
    batch->n = 0;
    batch_queue_give_back(&send->queue, &batch->batch);
}

/* One batch or SYNC packet; 1: that was the last. The lock is held, but not while sending. */
static int channel_work(SendChannel *ch, GError **errp)
{
    MultiFDSend *send = ch->send;
    MultiFDBatch *batch = NULL;
    int ret = 0;

    while (!send->queue.failed && !(batch = (MultiFDBatch *)batch_queue_take(&send->queue)) &&
           !ch->sync_wanted && !send->finish) {
        pthread_cond_wait(&send->queue.work, &send->queue.lock);
    }
    if (send->queue.failed) {
        return 1;
    }
    if (batch) {
        pthread_mutex_unlock(&send->queue.lock);
        ret = channel_send_batch(ch, batch, errp);
        pthread_mutex_lock(&send->queue.lock);
        batch_release(send, batch);
    } else if (ch->sync_wanted) {
        pthread_mutex_unlock(&send->queue.lock);
        ret = channel_send_sync(ch, errp);
        pthread_mutex_lock(&send->queue.lock);
        ch->sync_wanted = false;
        pthread_cond_signal(&send->queue.room);
    } else {
        return 1;
    }
    return ret;
}

/* The first failure is told before threads wake: one that returns because of it finds its error. */
static void channel_failed(SendChannel *ch, GError *err)
{
    MultiFDSend *send = ch->send;
    bool follows;

    pthread_mutex_lock(&send->queue.lock);
    follows = send->failing || send->queue.failed;
    send->failing = true;
    pthread_mutex_unlock(&send->queue.lock);
    if (follows) {
        g_error_free(err); /* of having been shut down */
        return;
    }
    g_prefix_error(&err, "multifd channel %u: ", ch->id);
    migrate_fail(send->s, err);
    pthread_mutex_lock(&send->queue.lock);
    batch_queue_fail(&send->queue);
    pthread_mutex_unlock(&send->queue.lock);
}

static void *channel_thread(void *opaque)
{
    SendChannel *ch = opaque;
    MultiFDSend *send = ch->send;
    GError *err = NULL;
    int ret = channel_send_handshake(ch, &err);

    pthread_mutex_lock(&send->queue.lock);
    while (ret == 0) {
        ret = channel_work(ch, &err);
    }
    pthread_mutex_unlock(&send->queue.lock);
    if (ret < 0) {
        channel_failed(ch, err);
    } else if (qio_channel_has_feature(ch->ioc, QIO_CHANNEL_FEATURE_TLS) &&
               send->s->settings->compat.multifd_clean_tls_termination) {
        /* everything has arrived: a peer that does not want to hear this has no need to */
        (void)qio_channel_tls_bye((QIOChannelTLS *)ch->ioc, BYE_NS, NULL);
    }
    return NULL;
}

/* --- the source's thread --- */

static int send_error(MultiFDSend *send)
{
    return send->queue.failed ? -EIO : 0;
}

/* An empty or partly filled batch of that block; NULL: nothing is sent any more. */
static MultiFDBatch *prepare_batch(MultiFDSend *send, RAMBlock *block)
{
    MultiFDBatch *batch = (MultiFDBatch *)send->queue.filling;
    bool ok;

    if (batch && batch->block == block && batch->n < MULTIFD_PACKET_PAGES) {
        return batch;
    }
    pthread_mutex_lock(&send->queue.lock);
    batch_queue_hand_over(&send->queue);
    ok = batch_queue_begin(&send->queue);
    pthread_mutex_unlock(&send->queue.lock);
    if (!ok) {
        return NULL;
    }
    batch = (MultiFDBatch *)send->queue.filling;
    ram_block_ref(block);
    batch->block = block;
    return batch;
}

int multifd_send_run(MigrationState *s, const RAMRun *run, bool detect_zero)
{
    MultiFDSend *send = s->multifd;
    MultiFDPageKind kind = !detect_zero     ? MULTIFD_PAGE_NORMAL
                           : run->untouched ? MULTIFD_PAGE_ZERO
                                            : MULTIFD_PAGE_LOOK;

    for (uint32_t i = 0; i < run->n; i++) {
        MultiFDBatch *batch = prepare_batch(send, run->sb->block);

        if (!batch) {
            return -EIO;
        }
        batch->offsets[batch->n] = (run->first + i) * TARGET_PAGE_SIZE;
        batch->kinds[batch->n++] = kind;
    }
    return 0;
}

static bool sync_is_owed(const MultiFDSend *send)
{
    for (unsigned i = 0; i < send->n_channels; i++) {
        if (send->channels[i].sync_wanted) {
            return true;
        }
    }
    return false;
}

int multifd_send_sync(MigrationState *s)
{
    MultiFDSend *send = s->multifd;
    int ret;

    pthread_mutex_lock(&send->queue.lock);
    batch_queue_hand_over(&send->queue);
    for (unsigned i = 0; i < send->n_channels; i++) {
        send->channels[i].sync_wanted = true;
    }
    pthread_cond_broadcast(&send->queue.work);
    while (sync_is_owed(send) && !send->queue.failed) {
        pthread_cond_wait(&send->queue.room, &send->queue.lock);
    }
    ret = send_error(send);
    pthread_mutex_unlock(&send->queue.lock);
    return ret;
}

int multifd_send_check(MigrationState *s, GError **errp)
{
    const MultiFDSend *send = s->multifd;

    for (unsigned i = 0; i < send->n_channels; i++) {
        if (qio_channel_has_hung_up(send->channels[i].ioc)) {
            error_setg(errp, "multifd channel %u: the destination has closed it", i);
            return -EPIPE;
        }
    }
    return 0;
}

/* --- life --- */

static MultiFDSend *send_new(MigrationState *s, const MultiFDCodec *codec)
{
    unsigned n = migrate_multifd_channels(s->settings);
    MultiFDSend *send = g_malloc0(sizeof(*send) + n * sizeof(send->channels[0]));

    send->s = s;
    send->codec = codec;
    send->zero_copy = migrate_zero_copy_send(s->settings);
    send->n_channels = n;
    send->batches = g_new0(MultiFDBatch, 2 * n + 1);
    batch_queue_init(&send->queue, send->batches, sizeof(*send->batches), 2 * n + 1);
    for (unsigned i = 0; i < n; i++) {
        send->channels[i].send = send;
        send->channels[i].id = i;
    }
    return send;
}

static void send_free(MultiFDSend *send)
{
    for (unsigned i = 0; i < send->n_channels; i++) {
        qio_channel_unref(send->channels[i].ioc);
        send->codec->send_free(send->channels[i].codec_state);
    }
    for (unsigned i = 0; i < 2 * send->n_channels + 1; i++) {
        g_clear_pointer(&send->batches[i].block, ram_block_unref);
    }
    g_free(send->batches);
    batch_queue_destroy(&send->queue);
    g_free(send);
}

static bool channel_prepare_ioc(SendChannel *ch, QIOChannel *ioc, GError **errp)
{
    g_autofree char *name = g_strdup_printf("multifd-send-%u", ch->id);

    qio_channel_set_name(ioc, name);
    if (ch->send->zero_copy && !qio_channel_has_feature(ioc, QIO_CHANNEL_FEATURE_WRITE_ZERO_COPY)) {
        error_setg(errp, "Zero copy send feature not detected in host kernel");
        return false;
    }
    return qio_channel_set_blocking(ioc, true, errp);
}

static bool channel_start(SendChannel *ch, GError **errp)
{
    MultiFDSend *send = ch->send;
    g_autoptr(QIOChannel) ioc = NULL;
    g_autofree char *name = g_strdup_printf("mig/src/send_%u", ch->id);

    ch->codec_state = send->codec->send_new(send->s->settings, errp);
    if (!ch->codec_state) {
        return false;
    }
    ioc = connect_func(send->s, errp);
    if (!ioc || !channel_prepare_ioc(ch, ioc, errp)) {
        return false;
    }
    pthread_mutex_lock(&send->queue.lock);
    ch->ioc = g_steal_pointer(&ioc);
    if (send->queue.failed) {
        qio_channel_shutdown(ch->ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
    }
    pthread_mutex_unlock(&send->queue.lock);
    ch->thread = g_thread_try_new(name, channel_thread, ch, errp);
    return ch->thread != NULL;
}

bool multifd_send_setup(MigrationState *s, GError **errp)
{
    const MultiFDCodec *codec = multifd_codec_find(migrate_multifd_compression(s->settings), errp);
    MultiFDSend *send;

    if (!codec) {
        return false;
    }
    send = send_new(s, codec);
    g_mutex_lock(&s->lock);
    s->multifd = send;
    g_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < send->n_channels; i++) {
        if (!channel_start(&send->channels[i], errp)) {
            multifd_send_shutdown(s);
            multifd_send_cleanup(s);
            return false;
        }
    }
    return true;
}

void multifd_send_shutdown(MigrationState *s)
{
    MultiFDSend *send = s->multifd;

    pthread_mutex_lock(&send->queue.lock);
    batch_queue_fail(&send->queue);
    for (unsigned i = 0; i < send->n_channels; i++) {
        if (send->channels[i].ioc) {
            qio_channel_shutdown(send->channels[i].ioc, QIO_CHANNEL_SHUTDOWN_BOTH);
        }
    }
    pthread_mutex_unlock(&send->queue.lock);
}

void multifd_send_cleanup(MigrationState *s)
{
    MultiFDSend *send = s->multifd;

    pthread_mutex_lock(&send->queue.lock);
    batch_queue_hand_over(&send->queue);
    send->finish = true;
    pthread_cond_broadcast(&send->queue.work);
    pthread_mutex_unlock(&send->queue.lock);
    for (unsigned i = 0; i < send->n_channels; i++) {
        if (send->channels[i].thread) {
            g_thread_join(send->channels[i].thread);
        }
    }
    g_mutex_lock(&s->lock);
    s->multifd = NULL;
    g_mutex_unlock(&s->lock);
    send_free(send);
}
