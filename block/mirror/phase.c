/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The phases of a mirror job.
 *
 *   phase      event         next       by                               what a user sees; guests' writes
 *   COPYING    MET           READY      job, target flushed              BLOCK_JOB_READY; by copy-mode
 *   READY      MET_TO_PIVOT  COMPLETE   job, guests held up (complete)   to both sides until the pivot
 *   READY      MET_TO_KEEP   KEPT       job, guests held up (cancel)     to the source only
 *   COMPLETE   SWITCHED      PIVOTED    pivot, everything drained        the disk is the target
 *   any        ENDED         OVER       pivot that failed, clean         to the source only
 *
 * What the user has asked for (finish) and that an error paused the job (stopped) are no phases: they
 * come and go in each.
 */
#include "block/mirror/mirror-int.h"

#define NONE MIRROR_PHASE__MAX

static const MirrorPhase next_phase[MIRROR_PHASE__MAX][MIRROR_EVENT__MAX] = {
    /*                 MET           MET_TO_PIVOT     MET_TO_KEEP  SWITCHED        ENDED */
    [MIRROR_COPYING] = {MIRROR_READY, NONE, NONE, NONE, MIRROR_OVER},
    [MIRROR_READY] = {NONE, MIRROR_COMPLETE, MIRROR_KEPT, NONE, MIRROR_OVER},
    [MIRROR_COMPLETE] = {NONE, NONE, NONE, MIRROR_PIVOTED, MIRROR_OVER},
    [MIRROR_KEPT] = {NONE, NONE, NONE, NONE, MIRROR_OVER},
    [MIRROR_PIVOTED] = {NONE, NONE, NONE, NONE, MIRROR_OVER},
    [MIRROR_OVER] = {NONE, NONE, NONE, NONE, MIRROR_OVER},
};

/* How the filter treats guests' writes in each. */
static const MirrorForward forward[MIRROR_PHASE__MAX] = {
    [MIRROR_COPYING] = MIRROR_FORWARD_BY_MODE, [MIRROR_READY] = MIRROR_FORWARD_BY_MODE,
    [MIRROR_COMPLETE] = MIRROR_FORWARD_ALWAYS, [MIRROR_KEPT] = MIRROR_FORWARD_NEVER,
    [MIRROR_PIVOTED] = MIRROR_FORWARD_NEVER,   [MIRROR_OVER] = MIRROR_FORWARD_NEVER,
};

void mirror_event(MirrorBlockJob *s, MirrorEvent event)
{
    MirrorPhase next = next_phase[mirror_phase(s)][event];

    g_assert(next != NONE);
    __atomic_store_n(&s->phase, next, __ATOMIC_SEQ_CST);
}

MirrorPhase mirror_phase(const MirrorBlockJob *s)
{
    return __atomic_load_n(&s->phase, __ATOMIC_SEQ_CST);
}

MirrorForward mirror_forward(const MirrorBlockJob *s)
{
    return forward[mirror_phase(s)];
}
