/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The pace of a copy: how large its requests are, and how many are in flight.
 *
 * Both follow what was measured. A request that is over soon is followed by one of twice its size,
 * as large as COPY_MAX_REQUEST: what a request costs by itself is then small beside its data. One
 * that takes long is followed by half of it, so that pausing, draining and a guest's write to the
 * same place do not wait long either.
 */
#include "block/copy/copy.h"

/* Operations in flight: at first, at least, at most. */
#define START_DEPTH 4
#define MIN_DEPTH   2
#define MAX_DEPTH   32
/* Requests: at first, and at least unless granularity or the job's speed wants less; bytes. */
#define START_REQUEST (1 << 20)
#define MIN_REQUEST   (64 << 10)
/* While the owner's writes wait for a request that is under way in the same place. */
#define SHORT_REQUEST (256 << 10)
/* A request that took less is followed by a larger one, one that took more by a smaller one. */
#define QUICK_NS (10 * SCALE_MS)
#define SLOW_NS  (100 * SCALE_MS)
/*
 * The same for a target behind a connection. A server receives a request as a whole before it acts
 * on it. So larger requests only help where even these are over at once.
 */
#define QUICK_SERVER_NS SCALE_MS
/*
 * A server's C library gives the memory of each long request back to the kernel, which clears it
 * anew for the next one. That ends once the library has freed a longer request, as glibc's mmap and
 * trim thresholds follow the longest: see mallopt(3). So a server that takes 1 MiB within so many
 * ns is sent one long request, once; half of the longest does, too.
 */
#define LONG_REQUEST_SERVER_NS (4 * SCALE_MS)
#define LONG_REQUEST_MIN       (COPY_MAX_REQUEST / 2)
/* How large an operation is that tells something about latency. */
#define ADAPT_MIN_BYTES (256 << 10)
/* How long the rate is measured before it counts. */
#define RATE_WINDOW_NS (20 * SCALE_MS)
/* A job with a speed limit is served in requests of this time's worth. */
#define SPEED_REQUEST_NS (50 * SCALE_MS)

/* Data passes through no memory of the job. */
static bool is_offloaded(const CopyEngine *s)
{
    return s->copy_range_refusals == 0;
}

/*
 * Requests that pass through buffers are small enough for several of them: some are read while
 * others are written.
 */
static int64_t max_request(const CopyEngine *s)
{
    int64_t bytes = COPY_MAX_REQUEST;

    while (!(is_offloaded(s) && s->host_target) && bytes > MIN_REQUEST && bytes * 2 > s->buf_size) {
        bytes /= 2;
    }
    return bytes;
}

void copy_pace_init(CopyEngine *s)
{
    s->processors = (int)MIN(g_get_num_processors(), MAX_DEPTH);
    s->depth = START_DEPTH;
    s->request_bytes = START_REQUEST;
}

static bool long_request_is_due(const CopyEngine *s)
{
    return s->server_quick && !s->long_request_sent && is_offloaded(s);
}

/* Bytes that requests have, but for a long one in between. */
static int64_t usual_request(const CopyEngine *s)
{
    return MIN(s->request_bytes, max_request(s));
}

int64_t copy_request_bytes(const CopyEngine *s)
{
    int64_t speed = s->speed ? __atomic_load_n(s->speed, __ATOMIC_SEQ_CST) : 0;
    int64_t bytes = long_request_is_due(s) ? COPY_MAX_REQUEST : usual_request(s);

    if (s->short_requests) {
        bytes = MIN(bytes, SHORT_REQUEST);
    }
    while (s->max_transfer && bytes > MIN_REQUEST && bytes > s->max_transfer) {
        bytes /= 2;
    }
    if (speed) {
        int64_t worth =
            MAX(speed / (NANOSECONDS_PER_SECOND / SPEED_REQUEST_NS), (int64_t)s->granularity);

        while (bytes > worth) {
            bytes /= 2;
        }
    }
    return bytes;
}

/*
 * More operations as long as each takes hardly longer than the quickest have, fewer when they only
 * wait for each other. A local file settles at what its cores can copy, a distant server at what
 * fills the line or the buffers.
 */
bool copy_has_room(const CopyEngine *s)
{
    int64_t limit = MAX_DEPTH;
    int depth;

    if (s->host_target && is_offloaded(s)) {
        /*
         * Workers only wait for a processor where they are more, but for one that takes over while
         * another waits for the kernel.
         */
        limit = MIN(limit, s->processors + 1);
    } else {
        limit = MIN(limit, s->buf_size / MAX(usual_request(s), 1));
    }
    if (s->short_requests && s->server_target) {
        limit = MIN(limit, MIN_DEPTH); /* the owner's writes stand behind these in one queue */
    }
    depth = (int)CLAMP(s->depth, MIN_DEPTH, MAX(limit, MIN_DEPTH));
    return s->in_flight < MIN(depth, COPY_MAX_IN_FLIGHT) + (s->scan.running ? 1 : 0);
}

/* Looks, after as many operations as are in flight, whether that was a good number. */
static void adapt_depth(CopyEngine *s, int64_t bytes, int64_t elapsed_ns)
{
    int64_t per_mib = (int64_t)((double)elapsed_ns * (1 << 20) / (double)bytes);
    int64_t mean;

    s->latency_sum += per_mib;
    if (++s->latency_ops < s->depth) {
        return;
    }
    mean = s->latency_sum / s->latency_ops;
    s->latency_sum = s->latency_ops = 0;
    s->best_latency = s->best_latency ? MIN(s->best_latency + s->best_latency / 64, mean) : mean;
    if (mean > 3 * s->best_latency) {
        s->depth = MAX(s->depth - 1, MIN_DEPTH);
    } else if (mean < 2 * s->best_latency) {
        s->depth = MIN(s->depth + 1, MAX_DEPTH);
    }
}

/* What a short request tells about a long one is that it takes no longer in proportion. */
static void adapt_request(CopyEngine *s, int64_t bytes, int64_t elapsed_ns)
{
    double whole_ns = (double)elapsed_ns * (double)MAX(s->request_bytes, bytes) / (double)bytes;

    if (elapsed_ns / MAX(bytes / s->request_bytes, 1) > SLOW_NS) {
        s->request_bytes = MAX(s->request_bytes / 2, MIN_REQUEST);
    } else if (whole_ns < (s->server_target ? QUICK_SERVER_NS : QUICK_NS)) {
        s->request_bytes = MIN(s->request_bytes * 2, max_request(s));
    }
}

/* Times the copying in windows that begin when it begins. */
static void measure_rate(CopyEngine *s, int64_t bytes)
{
    int64_t elapsed = qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - s->rate_start_ns;

    s->rate_bytes += bytes;
    if (elapsed >= RATE_WINDOW_NS || !s->rate) {
        int64_t rate = (int64_t)((double)s->rate_bytes * NANOSECONDS_PER_SECOND / MAX(elapsed, 1));

        s->rate = s->rate ? (s->rate + rate) / 2 : rate;
        s->rate_bytes = 0;
        s->rate_start_ns += elapsed;
    }
}

void copy_pace_started(CopyEngine *s, int64_t data_bytes)
{
    s->long_request_sent |= data_bytes >= LONG_REQUEST_MIN;
    if (s->bytes_in_flight == 0) {
        s->rate_start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        s->rate_bytes = 0;
    }
}

void copy_pace_ended(CopyEngine *s, int64_t data_bytes, int64_t elapsed_ns)
{
    measure_rate(s, data_bytes);
    if (!data_bytes) {
        return;
    }
    adapt_request(s, data_bytes, elapsed_ns);
    if (data_bytes >= MIN(ADAPT_MIN_BYTES, usual_request(s))) {
        s->server_quick |=
            s->server_target && (elapsed_ns << 20) / data_bytes < LONG_REQUEST_SERVER_NS;
        adapt_depth(s, data_bytes, elapsed_ns);
    }
}
