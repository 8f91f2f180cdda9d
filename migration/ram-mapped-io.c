/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Threads that move pages of a mapped-ram file.
 *
 * Ranges are gathered in batches, so that pages that lie scattered do not cost a wake-up each:
 *
 *   free -> filling (one, the owner's) -> ready (a queue) -> a thread -> free
 *
 * There are two batches for each thread and one to fill: the owner waits when none is free, so it is
 * never ahead by more than a batch a thread.
 */
#include "migration/ram-mapped-io.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include "io/channel-file.h"
#include "memory/ram-block.h"
#include "util/error.h"
#include "util/open.h"
#include "util/queue.h"

/* What a thread takes at a time. */
#define BATCH_PAGES  256
#define BATCH_RANGES 32

typedef struct MappedBatch {
    TAILQ_ENTRY(MappedBatch) next;
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

    MappedBatch *filling; /* the owner's; NULL: none */

    pthread_mutex_t lock;
    pthread_cond_t work; /* threads: a batch is ready, or the end has come */
    pthread_cond_t room; /* owner: a batch is free, or a move has failed */
    TAILQ_HEAD(, MappedBatch) free, ready;
    unsigned busy; /* lock: batches that threads have in hand */
    bool quit;     /* lock */
    int ret;       /* lock: of the first move that failed, else 0 */
    GError *error; /* lock: its error */

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

    pthread_mutex_lock(&io->lock);
    first = !io->error;
    if (first) {
        io->error = g_error_copy(err);
    }
    pthread_mutex_unlock(&io->lock);
    if (first && io->options.failed) {
        io->options.failed(io->options.opaque, g_steal_pointer(&err));
    }
    g_clear_error(&err);
    pthread_mutex_lock(&io->lock);
    io->ret = io->ret ? io->ret : ret;
    pthread_cond_signal(&io->room);
    pthread_mutex_unlock(&io->lock);
}

/* The next batch; NULL: the end. The lock is held. */
static MappedBatch *take_ready_batch(MappedIO *io)
{
    MappedBatch *batch;

    while (TAILQ_EMPTY(&io->ready) && !io->quit) {
        pthread_cond_wait(&io->work, &io->lock);
    }
    if (io->quit) {
        return NULL;
    }
    batch = TAILQ_FIRST(&io->ready);
    TAILQ_REMOVE(&io->ready, batch, next);
    io->busy++;
    return batch;
}

static void *worker_thread(void *opaque)
{
    MappedWorker *worker = opaque;
    MappedIO *io = worker->io;
    MappedBatch *batch;

    pthread_mutex_lock(&io->lock);
    while ((batch = take_ready_batch(io))) {
        GError *err = NULL;
        int ret = 0;

        if (!io->error) {
            pthread_mutex_unlock(&io->lock);
            ret = move_batch(worker, batch, &err);
            if (ret < 0) {
                move_failed(io, ret, err);
            }
            pthread_mutex_lock(&io->lock);
        }
        io->busy--;
        TAILQ_INSERT_HEAD(&io->free, batch, next);
        pthread_cond_signal(&io->room);
    }
    pthread_mutex_unlock(&io->lock);
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

/* The lock is held. */
static void queue_filled_batch(MappedIO *io)
{
    if (io->filling) {
        TAILQ_INSERT_TAIL(&io->ready, io->filling, next);
        io->filling = NULL;
        pthread_cond_signal(&io->work);
    }
}

/* An empty batch in io->filling. The lock is held. 0 or -errno. */
static int take_free_batch(MappedIO *io, GError **errp)
{
    while (TAILQ_EMPTY(&io->free) && !io->ret) {
        pthread_cond_wait(&io->room, &io->lock);
    }
    if (!io->ret) {
        io->filling = TAILQ_FIRST(&io->free);
        TAILQ_REMOVE(&io->free, io->filling, next);
        io->filling->n = 0;
        io->filling->pages = 0;
    }
    return owner_error(io, errp);
}

/* Adds what fits of the range, which is taken off it, and hands the batch over when it is full. */
static int fill_batch(MappedIO *io, MappedRange *left, GError **errp)
{
    MappedBatch *batch;
    uint64_t n;
    int ret = 0;

    if (!io->filling) {
        pthread_mutex_lock(&io->lock);
        ret = take_free_batch(io, errp);
        pthread_mutex_unlock(&io->lock);
    }
    if (ret < 0) {
        return ret;
    }
    batch = io->filling;
    n = MIN(left->n, BATCH_PAGES - batch->pages);
    batch->ranges[batch->n++] = (MappedRange){left->block, left->first, n};
    batch->pages += n;
    left->first += n;
    left->n -= n;
    if (batch->n == BATCH_RANGES || batch->pages == BATCH_PAGES) {
        pthread_mutex_lock(&io->lock);
        queue_filled_batch(io);
        pthread_mutex_unlock(&io->lock);
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

    pthread_mutex_lock(&io->lock);
    queue_filled_batch(io);
    while (!TAILQ_EMPTY(&io->ready) || io->busy) {
        pthread_cond_wait(&io->room, &io->lock);
    }
    ret = owner_error(io, errp);
    pthread_mutex_unlock(&io->lock);
    return ret;
}

static void stop_threads(MappedIO *io)
{
    pthread_mutex_lock(&io->lock);
    io->quit = true;
    pthread_cond_broadcast(&io->work);
    pthread_mutex_unlock(&io->lock);
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
    pthread_mutex_init(&io->lock, NULL);
    pthread_cond_init(&io->work, NULL);
    pthread_cond_init(&io->room, NULL);
    TAILQ_INIT(&io->free);
    TAILQ_INIT(&io->ready);
    io->batches = g_new0(MappedBatch, n_batches);
    for (unsigned i = 0; i < n_batches; i++) {
        TAILQ_INSERT_TAIL(&io->free, &io->batches[i], next);
    }
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
    pthread_cond_destroy(&io->room);
    pthread_cond_destroy(&io->work);
    pthread_mutex_destroy(&io->lock);
    g_clear_error(&io->error);
    g_free(io->batches);
    g_free(io);
}
