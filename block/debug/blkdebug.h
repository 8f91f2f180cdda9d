/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * blkdebug: a filter that makes requests fail, wait or stop, by rules.
 *
 * A rule fires at an event (BlkdebugEvent: a place in a driver that a request passes) in one state
 * of a small state machine. A set-state rule moves the machine. An inject-error rule arms an error
 * for the requests that follow (kind, sector, once). A breakpoint stops the coroutine that passes
 * it until the coroutine is resumed by its tag. Shared by blkdebug.c (the driver) and
 * blkdebug-rules.c (rules and their file).
 */
#ifndef FERRY_BLOCK_BLKDEBUG_H
#define FERRY_BLOCK_BLKDEBUG_H

#include "block/block_int.h"

extern const BlockDriver bdrv_blkdebug;

#define BLKDEBUG_ANY_STATE  0
#define BLKDEBUG_ANY_SECTOR (-1)

typedef struct BlkdebugErrorRule {
    BlkdebugEvent event;
    int64_t state;    /* BLKDEBUG_ANY_STATE or the one it fires in */
    uint32_t iotypes; /* bit mask of BlkdebugIOType */
    int error;        /* positive errno; 0: only the delay */
    int64_t delay_ns;
    int64_t offset; /* byte that a request must touch; BLKDEBUG_ANY_SECTOR: any */
    bool once, immediately;
    bool armed;
    bool spent; /* once, and it has fired */
} BlkdebugErrorRule;

typedef struct BlkdebugStateRule {
    BlkdebugEvent event;
    int64_t state, new_state;
} BlkdebugStateRule;

typedef struct BlkdebugRules {
    GArray *errors; /* BlkdebugErrorRule */
    GArray *states; /* BlkdebugStateRule */
    int64_t state;  /* of the machine; starts as 1 */
} BlkdebugRules;

void blkdebug_rules_init(BlkdebugRules *rules);
void blkdebug_rules_clear(BlkdebugRules *rules);
bool blkdebug_rules_add_error(BlkdebugRules *rules, const BlkdebugInjectErrorOptions *o,
                              GError **errp);
bool blkdebug_rules_add_state(BlkdebugRules *rules, const BlkdebugSetStateOptions *o,
                              GError **errp);
/*
 * Reads a rule file: sections [inject-error] and [set-state] of lines `name = "value"` with the
 * members of the schema's structs; '#' starts a comment.
 */
bool blkdebug_rules_read_file(BlkdebugRules *rules, const char *path, GError **errp);
/* The event happens: arms error rules and moves the machine. */
void blkdebug_rules_event(BlkdebugRules *rules, BlkdebugEvent event);
/*
 * The armed rule that a request of this kind and range meets, or NULL; a `once` rule is spent by
 * that.
 */
const BlkdebugErrorRule *blkdebug_rules_match(BlkdebugRules *rules, BlkdebugIOType type,
                                              int64_t offset, int64_t bytes);

#endif
