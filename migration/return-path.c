/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The return path: its reader at the source, and the senders at the destination. */
#include "migration/return-path.h"

#include <errno.h>
#include <inttypes.h>
#include "migration/savevm.h"
#include "trace/trace-migration.h"
#include "util/bql.h"
#include "util/bswap.h"
#include "util/error.h"
#include "util/timer.h"

/* Longest message, bytes after its header. */
#define RP_MESSAGE_MAX 512
/* How long a source may take to make room for the verdict. */
#define VERDICT_NS (10 * NANOSECONDS_PER_SECOND)

typedef enum Verdict {
    VERDICT_NONE, /* not yet */
    VERDICT_DONE,
    VERDICT_REFUSED, /* the destination says that it failed */
    VERDICT_LOST,    /* the path ended without a verdict, or with nonsense */
} Verdict;

struct ReturnPath {
    MigrationState *s;
    QEMUFile *from_dst;
    GThread *thread;
    Verdict verdict; /* s->lock */
};

/* Bytes of each message; -1: not in a precopy migration. */
static const int message_len[MIG_RP_MSG_MAX] = {
    [MIG_RP_MSG_INVALID] = -1,      [MIG_RP_MSG_SHUT] = 4,           [MIG_RP_MSG_PONG] = 4,
    [MIG_RP_MSG_REQ_PAGES_ID] = -1, [MIG_RP_MSG_REQ_PAGES] = -1,     [MIG_RP_MSG_RECV_BITMAP] = -1,
    [MIG_RP_MSG_RESUME_ACK] = -1,   [MIG_RP_MSG_SWITCHOVER_ACK] = 0,
};

static Verdict handle_shut(ReturnPath *rp, uint32_t value, GError **errp)
{
    if (value == 0) {
        if (__atomic_load_n(&rp->s->handed_over, __ATOMIC_SEQ_CST)) {
            return VERDICT_DONE;
        }
        error_setg(errp, "the destination claims to have the guest, which has not left yet");
        return VERDICT_LOST;
    }
    error_setg(errp, "Sibling indicated error %" PRIu32, value);
    return VERDICT_REFUSED;
}

/* The source may wait for it. */
static void note(ReturnPath *rp, bool *flag)
{
    g_mutex_lock(&rp->s->lock);
    *flag = true;
    g_cond_broadcast(&rp->s->changed);
    g_mutex_unlock(&rp->s->lock);
}

/* Reads one message. VERDICT_NONE: more will come. */
static Verdict read_message(ReturnPath *rp, GError **errp)
{
    uint16_t type = qemu_get_be16(rp->from_dst), len = qemu_get_be16(rp->from_dst);
    uint8_t data[4];

    if (qemu_file_get_error_obj(rp->from_dst, errp) < 0) {
        g_prefix_error(errp, "the destination went away: ");
        return VERDICT_LOST;
    }
    trace_migration_return_path(type, len);
    if (type >= MIG_RP_MSG_MAX || message_len[type] < 0 || len > RP_MESSAGE_MAX) {
        error_setg(errp, "Received invalid message 0x%04x length 0x%04x", type, len);
        return VERDICT_LOST;
    }
    if (message_len[type] != len) {
        error_setg(errp, "Received message 0x%04x with bad length %u, expected %d", type, len,
                   message_len[type]);
        return VERDICT_LOST;
    }
    if (qemu_get_buffer(rp->from_dst, data, len) < 0) {
        (void)qemu_file_get_error_obj(rp->from_dst, errp);
        return VERDICT_LOST;
    }
    switch (type) {
    case MIG_RP_MSG_SHUT:
        return handle_shut(rp, (uint32_t)ldl_be_p(data), errp);
    case MIG_RP_MSG_SWITCHOVER_ACK:
        note(rp, &rp->s->switchover_acked);
        return VERDICT_NONE;
    default: /* PONG: whichever ping it answers */
        note(rp, &rp->s->pong_heard);
        return VERDICT_NONE;
    }
}

static void *return_path_thread(void *opaque)
{
    ReturnPath *rp = opaque;
    Verdict verdict = VERDICT_NONE;
    GError *err = NULL;

    while (verdict == VERDICT_NONE) {
        verdict = read_message(rp, &err);
    }
    if (err) {
        migrate_fail(rp->s, err); /* before the verdict, so that this error is the first */
    }
    g_mutex_lock(&rp->s->lock);
    rp->verdict = verdict;
    g_cond_broadcast(&rp->s->changed);
    g_mutex_unlock(&rp->s->lock);
    return NULL;
}

ReturnPath *return_path_open(MigrationState *s, GError **errp)
{
    ReturnPath *rp;
    QEMUFile *from_dst = qemu_file_get_return(s->to_dst);

    if (!from_dst) {
        error_setg(errp, "Capability 'return-path' needs a connection that goes both ways");
        return NULL;
    }
    rp = g_new0(ReturnPath, 1);
    rp->s = s;
    rp->from_dst = from_dst;
    rp->thread = g_thread_new("mig/src/return", return_path_thread, rp);
    return rp;
}

bool return_path_wait(ReturnPath *rp)
{
    bool done;

    g_mutex_lock(&rp->s->lock);
    while (rp->verdict == VERDICT_NONE) {
        g_cond_wait(&rp->s->changed, &rp->s->lock);
    }
    done = rp->verdict == VERDICT_DONE;
    g_mutex_unlock(&rp->s->lock);
    return done;
}

bool return_path_refused(const ReturnPath *rp)
{
    return rp->verdict == VERDICT_REFUSED;
}

void return_path_free(ReturnPath *rp)
{
    if (!rp) {
        return;
    }
    g_thread_join(rp->thread);
    (void)qemu_fclose(rp->from_dst);
    g_free(rp);
}

/* --- the destination --- */

/* deadline_ns: QEMU_CLOCK_REALTIME; 0: none, the load ends when the channel is shut down. */
static int send_message(MigrationIncomingState *mis, MigReturnMessage type, const void *data,
                        uint16_t len, int64_t deadline_ns)
{
    int ret = -ENOTCONN;

    g_assert(!bql_locked());
    g_mutex_lock(&mis->send_lock);
    if (mis->to_src) {
        trace_migration_return_path(type, len);
        qemu_file_set_deadline(mis->to_src, deadline_ns);
        qemu_put_be16(mis->to_src, type);
        qemu_put_be16(mis->to_src, len);
        qemu_put_buffer(mis->to_src, data, len);
        ret = qemu_fflush(mis->to_src);
    }
    g_mutex_unlock(&mis->send_lock);
    return ret;
}

int migrate_send_rp_pong(MigrationIncomingState *mis, uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    return send_message(mis, MIG_RP_MSG_PONG, buf, sizeof(buf), 0);
}

int migrate_send_rp_shut(MigrationIncomingState *mis, uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    return send_message(mis, MIG_RP_MSG_SHUT, buf, sizeof(buf),
                        qemu_clock_get_ns(QEMU_CLOCK_REALTIME) + VERDICT_NS);
}

int migrate_send_rp_switchover_ack(MigrationIncomingState *mis)
{
    return send_message(mis, MIG_RP_MSG_SWITCHOVER_ACK, NULL, 0, 0);
}
