/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * transaction: several actions that happen all or not at all.
 *
 * A kind of action is a row in the table of transaction.c: prepare does everything that may fail.
 * Then all actions commit, or all that were prepared abort; clean ends both. All in the main
 * thread's coroutine of the command.
 */
#ifndef FERRY_BLOCK_TRANSACTION_H
#define FERRY_BLOCK_TRANSACTION_H

#include <glib.h>
#include "qapi/qapi-types.h"
#include "util/coroutine.h"

typedef struct TransactionStep {
    const TransactionAction *action;
    void *opaque; /* the action's own, from prepare to clean */
} TransactionStep;

typedef struct TransactionActionOps {
    bool coroutine_fn (*prepare)(TransactionStep *step, GError **errp);
    void coroutine_fn (*commit)(TransactionStep *step); /* may be NULL */
    /* also when its own prepare failed; may be NULL */
    void coroutine_fn (*abort)(TransactionStep *step);
    void coroutine_fn (*clean)(TransactionStep *step); /* may be NULL */
} TransactionActionOps;

extern const TransactionActionOps transaction_bitmap_add;
extern const TransactionActionOps transaction_bitmap_remove;
extern const TransactionActionOps transaction_bitmap_clear;
extern const TransactionActionOps transaction_bitmap_enable;
extern const TransactionActionOps transaction_bitmap_disable;
extern const TransactionActionOps transaction_bitmap_merge;
extern const TransactionActionOps transaction_blockdev_snapshot;
extern const TransactionActionOps transaction_blockdev_snapshot_sync;

/* Runs one action as a transaction of its own. */
bool coroutine_fn transaction_co_run_one(const TransactionAction *action, GError **errp);

/* Defines the QMP command qmp_MEMBER(), whose arguments are those of the action `member` of KIND. */
#define TRANSACTION_COMMAND(KIND, member, Arguments)                              \
    bool coroutine_fn qmp_##member(const Arguments *arg, GError **errp)           \
    {                                                                             \
        const TransactionAction action = {.type = TRANSACTION_ACTION_KIND_##KIND, \
                                          .u.member.data = (Arguments *)arg};     \
                                                                                  \
        return transaction_co_run_one(&action, errp);                             \
    }

#endif
