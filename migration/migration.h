/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Migration: the two objects, MigrationState at the source and MigrationIncomingState at the
 * destination, and what their rooms share.
 *
 * The source: `migrate` makes the connection in the main loop (channel.h) and starts the source's
 * thread (source.c), which sends the stream through savevm.c. While it runs the guest runs. To
 * switch over, it has the main loop stop the guest, sends what is left, and waits for the
 * destination's verdict on the return path (return-path.c). Whatever ends a migration comes
 * together in migration_co_finish() in the main loop, which gives everything back unless the guest
 * has left.
 *
 * The destination: a listener (channel.h) hands over channels; once all are there the incoming
 * thread (incoming.c) loads the stream (loadvm.c), and the main loop starts the guest.
 *
 * Threads: the main loop owns both objects, and makes and frees them; a thread belongs to its
 * object and is joined before that is freed. Devices are touched under the big lock (util/bql.h),
 * which no thread holds while it waits for a peer.
 */
#ifndef FERRY_MIGRATION_MIGRATION_H
#define FERRY_MIGRATION_MIGRATION_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "accel/runstate.h"
#include "io/channel.h"
#include "migration/channel.h"
#include "migration/options.h"
#include "qapi/qapi-types-migration.h"
#include "util/yank.h"
#include "vmstate/qemu-file.h"

/* --- statistics of the source: written by its threads, read by any, all atomically --- */

typedef struct MigrationCounters {
    uint64_t zero_pages;       /* pages sent as "zero" */
    uint64_t normal_pages;     /* pages sent with their bytes */
    uint64_t dirty_sync_count; /* passes over the dirty log so far */
    uint64_t dirty_pages_rate; /* pages a second that the guest wrote during the last pass */
    uint64_t total_bytes;      /* of the RAM that travels */
    uint64_t remaining_bytes;  /* RAM that is dirty and not sent */
    uint64_t multifd_bytes;    /* what the extra channels took */
    uint64_t mapped_bytes;     /* pages written to their places of a file, not by the channels */
    uint64_t precopy_bytes;    /* of RAM, on the main channel, while the guest ran */
    uint64_t downtime_bytes;   /* of RAM, on the main channel, while it was stopped */
    uint64_t
        zero_copy_missed; /* passes in which the kernel copied after all, summed over channels */
    uint64_t postcopy_requests; /* pages that the destination asked for */
    uint64_t throttle_percent;  /* by which the vCPUs are slowed down; 0: not at all */
    uint64_t xbzrle_cache_size; /* bytes */
    uint64_t xbzrle_bytes, xbzrle_pages, xbzrle_cache_miss, xbzrle_overflow;
    double xbzrle_cache_miss_rate, xbzrle_encoding_rate; /* of the last pass; MigrationState.lock */
} MigrationCounters;

static inline void stat64_add(uint64_t *counter, uint64_t n)
{
    __atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline void stat64_set(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t stat64_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* The parts of the downtime, in the order in which they happen. */
typedef enum MigrationPhase {
    MIGRATION_PHASE_STOP,       /* stop the guest, write its disks back, hand them over */
    MIGRATION_PHASE_LAST_SYNC,  /* read the dirty log a last time */
    MIGRATION_PHASE_LAST_PAGES, /* send what it says */
    MIGRATION_PHASE_DEVICES,    /* save and send the devices */
    MIGRATION_PHASE_PEER_LOAD,  /* the destination loads; known only with a return path */
    MIGRATION_PHASE__MAX,
} MigrationPhase;

/* --- the source --- */

typedef struct ReturnPath ReturnPath;
typedef struct MultiFDSend MultiFDSend;
typedef struct FlushAhead FlushAhead;

typedef struct MigrationState {
    int status; /* MigrationStatus, atomic; changed only through migrate_set_state() */

    /* Constant from `migrate` on until the next one. */
    MigrationSettings *settings;
    MigrationConnector *connector; /* makes further channels, and descriptors of a file */

    GThread *thread;       /* the main loop's: NULL until the first migration */
    Coroutine *end_waiter; /* the main loop's: waits until the migration is over; NULL: none */
    Yankable *yank;        /* the main loop's: while a migration is under way */
    /* The thread's; set and cleared under `lock`, so that others can look at and shut down. */
    QEMUFile *to_dst;
    MultiFDSend *multifd;    /* NULL: none */
    ReturnPath *return_path; /* NULL: none */
    uint64_t bytes_sent;     /* lock: on to_dst, after that is gone */

    GMutex lock;
    GCond changed;         /* something that the thread waits for may have happened */
    GError *error;         /* lock: the first error of this migration */
    bool cancel_wanted;    /* lock */
    bool continue_wanted;  /* lock: migrate-continue in pre-switchover */
    bool switchover_acked; /* lock */
    bool pong_heard;       /* lock: the destination has read the stream up to the first ping */

    FlushAhead *flush_ahead; /* the thread's; NULL: not started */
    bool vm_stopped;         /* taken by us; it is to be given back unless it has left */
    bool disks_inactive;     /* by us */
    bool handed_over; /* the end of the stream is with the kernel: the peer may run the guest */

    /* ns of QEMU_CLOCK_REALTIME, 0: not yet; durations in ns. Atomic. */
    uint64_t start_ns, setup_ns, end_ns, downtime_start_ns, downtime_ns, expected_downtime_ns;
    uint64_t verdict_ns; /* when sending, and waiting for the answer, came to an end */
    uint64_t phase_ns[MIGRATION_PHASE__MAX];
    MigrationCounters counters;
    uint64_t mbps_1000;        /* atomic: throughput, megabits a second, times 1000 */
    uint64_t pages_per_second; /* atomic */

    /* rate.c: the thread's */
    struct {
        uint64_t window_start_ns, window_start_bytes, window_start_pages;
        uint64_t window_limit; /* bytes of this window; UINT64_MAX: no limit */
        double bytes_per_ms;   /* of the last full window; 0: none yet */
    } rate;
} MigrationState;

/*
 * Held while a new migration forgets the figures and settings of the last one, and while query-migrate
 * reads them. Never over a wait; MigrationState.lock may be taken under it. Any thread.
 */
extern GMutex migration_figures_lock;

/* The one source of the process; never NULL after migration_init(). Any thread. */
MigrationState *migrate_get_current(void);

/* Makes the source and registers what every guest has; once, main thread. */
void migration_init(void);
/* Cancels what is under way and waits for its threads; the source keeps the guest. Main thread. */
void coroutine_fn migration_co_shutdown(void);

static inline MigrationStatus migrate_get_status(MigrationState *s)
{
    return (MigrationStatus)__atomic_load_n(&s->status, __ATOMIC_ACQUIRE);
}

/*
 * Changes the status if it is `from`, and tells clients that want events. False: it was another
 * one, nothing happened. The change must be in the table in state.c. Any thread.
 */
bool migrate_set_state(int *status, const MigrationSettings *settings, MigrationStatus from,
                       MigrationStatus to);
/* The table: whether a status may follow another. */
bool migration_status_may_become(MigrationStatus from, MigrationStatus to);
/* Something is under way: every status is, but for the final ones in state.c. */
bool migration_status_is_running(MigrationStatus status);

/* Keeps err, which it takes over, unless there is an error already. Any thread. */
void migrate_set_error(MigrationState *s, GError *err);
/*
 * A thread of this migration cannot go on: keeps the error, and shuts the channels down so that all
 * others stop as well. Any thread.
 */
void migrate_fail(MigrationState *s, GError *err);
/* A user cancels it, or it has failed: threads that work or wait stop soon. Any thread. */
bool migration_should_stop(MigrationState *s);

/* --- rate.c; the source's thread --- */

void migration_rate_start(MigrationState *s);
/* Looks at the clock: ends the present window when it is over, and measures. */
void migration_rate_update(MigrationState *s);
/* The whole took until s->end_ns: its throughput is what people see from now on. Main loop. */
void migration_rate_end(MigrationState *s);
/*
 * Waits for the next window if this one is used up, or until the migration should stop, or until the
 * flag (s->lock, announced by s->changed; NULL: none) is set.
 */
void migration_rate_wait(MigrationState *s, const bool *flag);
/* Bytes that fit into the downtime that is allowed, by what was measured. */
uint64_t migration_downtime_bytes(MigrationState *s);

/* --- source.c --- */

/* The status is a final one: wakes the coroutines that wait for that. Main loop. */
void migration_source_over(MigrationState *s);
/* Starts the thread, which takes the migration over. s->to_dst is connected. Main loop. */
void migration_source_start(MigrationState *s);

/*
 * The phase of the downtime that began at *since (ns of QEMU_CLOCK_REALTIME) is over, and the next
 * begins. The source's thread.
 */
void migration_end_phase(MigrationState *s, MigrationPhase phase, uint64_t *since);

/* All bytes that have left on all channels so far. Any thread. */
uint64_t migration_transferred_bytes(MigrationState *s);
/*
 * The bandwidth for the present 100 ms window is used up: leave save_live_iterate(). The source's
 * thread; never true once the guest is stopped.
 */
bool migration_rate_exceeded(MigrationState *s);

/* --- the destination --- */

typedef struct MultiFDRecv MultiFDRecv;
typedef struct QIOHangupWatch QIOHangupWatch;

typedef struct MigrationIncomingState {
    int status;                  /* as above */
    MigrationSettings *settings; /* as they were when loading began */
    MigrationListener *listener; /* NULL: none */
    GThread *thread;
    Coroutine *end_waiter; /* waits until loading has ended; NULL: none */
    Yankable *yank;        /* while there may be a connection to cut */
    bool ending;           /* the main loop's: the process ends */

    /* What other threads may shut down at any time: it is set and cleared under this lock. */
    GMutex channels_lock;
    QEMUFile *from_src;   /* the incoming thread's while it runs */
    MultiFDRecv *multifd; /* NULL: none */
    /*
     * The main loop's: a channel of multifd has ended before the guest is here. NULL: no interest.
     * hangup, to be taken over: the peer has closed it before all channels were there, whether or not its
     * thread knows; NULL: its thread has ended for another reason.
     */
    void (*channel_lost)(struct MigrationIncomingState *mis, GError *hangup);

    /* The main loop's. */
    QIOHangupWatch *hangup; /* of from_src before it is read; NULL: none */
    GError *lost;           /* a channel has hung up before all were there; NULL: none */
    QEMUTimer *lost_timer;  /* with lost: looks whether others follow */
    int64_t lost_deadline_ns;
    uint64_t
        oldest_extra; /* serial of the first channel of multifd that came; 0: none. Main loop */

    /* The writer's side of the return path. Held while bytes are sent: only by threads that send. */
    GMutex send_lock;
    QEMUFile *to_src; /* opened by the incoming thread, closed by the main loop; NULL: none */

    GMutex lock;                  /* guards members, never held over a wait */
    GError *error;                /* lock */
    SocketAddressList *addresses; /* lock: where it listens, or listened at first */
    int switchover_ack_pending;   /* lock: parts that have not agreed yet */
    bool return_path_open;        /* lock: there is a way to say so */

    bool from_file; /* a file that can be read anywhere */
    bool exit_on_error;
    bool started;       /* migrate-incoming or -incoming URI was there */
    uint64_t resume_ns; /* from the last byte to the guest's start; 0: it did not start. Atomic. */
} MigrationIncomingState;

/* The one destination of the process; NULL without -incoming. Any thread. */
MigrationIncomingState *migration_incoming_get_current(void);

/*
 * -incoming: makes the destination and, unless uri_or_json is "defer", starts to listen. The
 * guest's machine exists. false with an error.
 */
bool coroutine_fn migration_incoming_co_start(const char *uri_or_json, GError **errp);

/* False with an error: a stream is being loaded. Nothing may reset a device meanwhile. Main thread. */
bool migration_incoming_check_not_loading(GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* Keeps err, which it takes over, as what ends the load, unless there is one. Any thread. */
void migrate_incoming_set_error(MigrationIncomingState *mis, GError *err);

/*
 * Ends a load that is under way, whatever it waits for, and starts no other; the guest has not arrived
 * then, unless the source has been told that it has. Shutdown, main thread.
 */
void coroutine_fn migration_incoming_co_shutdown(void);

/*
 * Messages of the return path, from any thread of the load that may wait for the source to read; not
 * from the main loop, without the big lock. 0 or -errno.
 */
int migrate_send_rp_pong(MigrationIncomingState *mis, uint32_t value);
int migrate_send_rp_switchover_ack(MigrationIncomingState *mis);
/* The verdict, the last message. A source that does not take it in time (-ETIMEDOUT) is not told. */
int migrate_send_rp_shut(MigrationIncomingState *mis, uint32_t value);

#endif
