/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that move pages of a mapped-ram file.
 *
 * Ranges are gathered in batches (batch-queue.h), so that pages that lie scattered do not cost a wake-up
 * each. There are two batches for each thread and one to fill.
 */
#include "migration/ram-mapped-io.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include "io/channel-file.h"
#include "memory/ram-block.h"
#include "migration/batch-queue.h"
#include "util/error.h"
#include "util/open.h"

/* What a thread takes at a time. */
#define BATCH_PAGES  256
#define BATCH_RANGES 32

typedef struct MappedBatch {
    Batch batch; /* first */
    unsigned n;
    uint64_t pages;
    MappedRange ranges[BATCH_RANGES];
} MappedBatch;

typedef struct MappedWorker {
    MappedIO *io;
    QIOChannel *file; /* constant while the thread runs */
    void *scratch;    /* NULL: none is wanted */
    GThread *thread;  /* NULL: the owner's */
} MappedWorker;

struct MappedIO {
    /* Constant. */
    MappedIOOptions options;
    unsigned n_workers;
    MappedBatch *batches;

    BatchQueue queue; /* failed: `ret` says how */
    /* Under its lock. */
    bool quit;
    int ret;       /* of the first move that failed, else 0 */
    GError *error; /* its error */

    MappedWorker workers[];
};

/* --- a thread --- */

static int move_range(const MappedWorker *worker, const MappedRange *range, GError **errp)
{
    const MappedIOOptions *options = &worker->io->options;

    return options->move(options->opaque, worker->file, worker->scratch, range, errp);
}

static int move_batch(const MappedWorker *worker, const MappedBatch *batch, GError **errp)
{
    int ret = 0;

    for (unsigned i = 0; i < batch->n && ret == 0; i++) {
        ret = move_range(worker, &batch->ranges[i], errp);
    }
    return ret;
}

/* The first failure is told before the owner wakes: a caller that returns because of it finds its error. */
static void move_failed(MappedIO *io, int ret, GError *err)
{
    bool first;

    pthread_mutex_lock(&io->queue.lock);
    first = !io->error;
    if (first) {
        io->error = g_error_copy(err);
    }
    pthread_mutex_unlock(&io->queue.lock);
    if (first && io->options.failed) {
        io->options.failed(io->options.opaque, g_steal_pointer(&err));
    }
    g_clear_error(&err);
    pthread_mutex_lock(&io->queue.lock);
    io->ret = io->ret ? io->ret : ret;
    batch_queue_fail(&io->queue);
    pthread_mutex_unlock(&io->queue.lock);
}

/* The next batch; NULL: the end. The lock is held. */
static MappedBatch *take_ready_batch(MappedIO *io)
{
    Batch *batch = NULL;

    while (!io->quit && !(batch = batch_queue_take(&io->queue))) {
        pthread_cond_wait(&io->queue.work, &io->queue.lock);
    }
    return (MappedBatch *)batch;
}

static void *worker_thread(void *opaque)
{
    MappedWorker *worker = opaque;
    MappedIO *io = worker->io;
    MappedBatch *batch;

    pthread_mutex_lock(&io->queue.lock);
    while ((batch = take_ready_batch(io))) {
        GError *err = NULL;
        int ret = 0;

        if (!io->error) {
            pthread_mutex_unlock(&io->queue.lock);
            ret = move_batch(worker, batch, &err);
            if (ret < 0) {
                move_failed(io, ret, err);
            }
            pthread_mutex_lock(&io->queue.lock);
        }
        batch_queue_give_back(&io->queue, &batch->batch);
    }
    pthread_mutex_unlock(&io->queue.lock);
    return NULL;
}

/* --- the owner --- */

/* What has failed so far. The lock is held. 0 or -errno. */
static int owner_error(MappedIO *io, GError **errp)
{
    if (io->ret < 0) {
        g_propagate_error(errp, g_error_copy(io->error));
    }
    return io->ret;
}

/* An empty batch to fill. The lock is held. 0 or -errno. */
static int begin_batch(MappedIO *io, GError **errp)
{
    if (batch_queue_begin(&io->queue)) {
        MappedBatch *batch = (MappedBatch *)io->queue.filling;

        batch->n = 0;
        batch->pages = 0;
    }
    return owner_error(io, errp);
}

/* Adds what fits of the range, which is taken off it, and hands the batch over when it is full. */
static int fill_batch(MappedIO *io, MappedRange *left, GError **errp)
{
    MappedBatch *batch;
    uint64_t n;
    int ret = 0;

    if (!io->queue.filling) {
        pthread_mutex_lock(&io->queue.lock);
        ret = begin_batch(io, errp);
        pthread_mutex_unlock(&io->queue.lock);
    }
    if (ret < 0) {
        return ret;
    }
    batch = (MappedBatch *)io->queue.filling;
    n = MIN(left->n, BATCH_PAGES - batch->pages);
    batch->ranges[batch->n++] = (MappedRange){left->block, left->first, n};
    batch->pages += n;
    left->first += n;
    left->n -= n;
    if (batch->n == BATCH_RANGES || batch->pages == BATCH_PAGES) {
        pthread_mutex_lock(&io->queue.lock);
        batch_queue_hand_over(&io->queue);
        pthread_mutex_unlock(&io->queue.lock);
    }
    return 0;
}

int mapped_io_submit(MappedIO *io, const MappedRange *range, GError **errp)
{
    MappedRange left = *range;
    int ret = 0;

    if (!io->options.threads) {
        return move_range(&io->workers[0], range, errp);
    }
    while (ret == 0 && left.n > 0) {
        ret = fill_batch(io, &left, errp);
    }
    return ret;
}

int mapped_io_wait(MappedIO *io, GError **errp)
{
    int ret;

    pthread_mutex_lock(&io->queue.lock);
    batch_queue_hand_over(&io->queue);
    while (!batch_queue_is_idle(&io->queue)) {
        pthread_cond_wait(&io->queue.room, &io->queue.lock);
    }
    ret = owner_error(io, errp);
    pthread_mutex_unlock(&io->queue.lock);
    return ret;
}

static void stop_threads(MappedIO *io)
{
    pthread_mutex_lock(&io->queue.lock);
    io->quit = true;
    pthread_cond_broadcast(&io->queue.work);
    pthread_mutex_unlock(&io->queue.lock);
    for (unsigned i = 0; i < io->n_workers; i++) {
        if (io->workers[i].thread) {
            g_thread_join(g_steal_pointer(&io->workers[i].thread));
        }
    }
}

int mapped_io_finish(MappedIO *io, GError **errp)
{
    int ret = mapped_io_wait(io, errp);

    stop_threads(io);
    for (unsigned i = 0; i < io->n_workers && ret == 0; i++) {
        if (io->workers[i].file != io->options.stream) {
            ret = qio_channel_close(io->workers[i].file, errp);
        }
    }
    return ret;
}

/* --- life --- */

static QIOChannel *open_file(MappedIO *io, GError **errp)
{
    const MappedIOOptions *options = &io->options;
    QIOChannelFile *file;
    int fd;

    if (!options->threads && !options->direct) {
        return qio_channel_ref(options->stream);
    }
    fd = options->open(options->opaque, options->direct, errp);
    if (fd < 0) {
        return NULL;
    }
    file = qio_channel_file_new_fd(fd, errp);
    if (!file) {
        qemu_close(fd);
    }
    return (QIOChannel *)file;
}

static bool start_worker(MappedIO *io, unsigned i, GError **errp)
{
    MappedWorker *worker = &io->workers[i];
    g_autofree char *name = g_strdup_printf("%s_%u", io->options.thread_name, i);

    worker->io = io;
    if (io->options.scratch_bytes) {
        worker->scratch = g_aligned_alloc(1, io->options.scratch_bytes, TARGET_PAGE_SIZE);
    }
    worker->file = open_file(io, errp);
    if (!worker->file) {
        return false;
    }
    if (io->options.threads) {
        worker->thread = g_thread_try_new(name, worker_thread, worker, errp);
    }
    return worker->thread || !io->options.threads;
}

MappedIO *mapped_io_new(const MappedIOOptions *options, GError **errp)
{
    unsigned n = MAX(options->threads, 1), n_batches = 2 * options->threads + 1;
    MappedIO *io = g_malloc0(sizeof(*io) + n * sizeof(io->workers[0]));

    io->options = *options;
    io->n_workers = n;
    io->batches = g_new0(MappedBatch, n_batches);
    batch_queue_init(&io->queue, io->batches, sizeof(*io->batches), n_batches);
    for (unsigned i = 0; i < n; i++) {
        if (!start_worker(io, i, errp)) {
            mapped_io_free(io);
            return NULL;
        }
    }
    return io;
}

void mapped_io_free(MappedIO *io)
{
    if (!io) {
        return;
    }
    stop_threads(io);
    for (unsigned i = 0; i < io->n_workers; i++) {
        qio_channel_unref(io->workers[i].file);
        g_aligned_free(io->workers[i].scratch);
    }
    batch_queue_destroy(&io->queue);
    g_clear_error(&io->error);
    g_free(io->batches);
    g_free(io);
}
