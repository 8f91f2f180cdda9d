/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A mirror comes to its end however fast guests write. While source and target are to meet (before
 * READY, and when the user asked for the end), the least that was left to copy is remembered. It
 * may not be undercut for an eighth of the time that copying it would take, within bounds. If writes
 * have added to it by then, they go to both sides until the two have met: what is left then only
 * shrinks. A copy that merely stands still (a limit, a slow target) is left alone.
 *
 *   watching    what is left has become less than ever      note it and the time
 *   watching    it is more than that after patience_ns()    converging: BLOCK_JOB_CONVERGING, active
 *   converging  source and target have met, or need not     watching: BLOCK_JOB_CONVERGING, not active
 */
#include "block/mirror/mirror-int.h"

#include "qapi/qapi-events.h"

#define PATIENCE_MIN_NS (50 * SCALE_MS)
#define PATIENCE_MAX_NS (10 * NANOSECONDS_PER_SECOND)

static int64_t patience_ns(const MirrorBlockJob *s)
{
    double whole = s->copy.rate > 0
                       ? (double)s->least_left / (double)s->copy.rate * NANOSECONDS_PER_SECOND
                       : (double)PATIENCE_MAX_NS;

    return CLAMP((int64_t)MIN(whole / 8, (double)PATIENCE_MAX_NS), PATIENCE_MIN_NS,
                 PATIENCE_MAX_NS);
}

static void coroutine_fn co_set_converging(MirrorBlockJob *s, bool converging)
{
    AioContext *ctx = qemu_get_current_aio_context(), *main_ctx = qemu_get_aio_context();
    int64_t left = copy_bytes_left(&s->copy);

    __atomic_store_n(&s->converging, converging, __ATOMIC_RELAXED);
    s->copy.short_requests = converging;
    if (!s->common.job.id) {
        return;
    }
    if (ctx != main_ctx) {
        aio_co_reschedule_self(main_ctx);
    }
    qapi_event_send_block_job_converging(s->common.job.id, converging, left);
    if (ctx != main_ctx) {
        aio_co_reschedule_self(ctx);
    }
}

void coroutine_fn mirror_co_watch_progress(MirrorBlockJob *s, bool wanted)
{
    int64_t now, left;

    if (!wanted || !s->converge) {
        s->least_left_ns = 0;
        if (mirror_is_converging(s)) {
            co_set_converging(s, false);
        }
        return;
    }
    now = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    left = copy_bytes_left(&s->copy);
    if (!s->least_left_ns || left < s->least_left || job_should_pause(&s->common.job)) {
        s->least_left = s->least_left_ns ? MIN(left, s->least_left) : left;
        s->least_left_ns = now;
    } else if (!mirror_is_converging(s) && left > s->least_left &&
               now - s->least_left_ns > patience_ns(s)) {
        co_set_converging(s, true);
    }
}
