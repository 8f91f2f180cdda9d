/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The transaction command. */
#include "block/qmp/transaction.h"

#include "qapi/qapi-commands.h"
#include "util/co-lock.h"
#include "util/error.h"

static bool coroutine_fn abort_prepare(TransactionStep *step, GError **errp)
{
    (void)step;
    error_setg(errp, "Transaction aborted using Abort action");
    return false;
}

static const TransactionActionOps transaction_abort = {
    .prepare = abort_prepare,
};

static const TransactionActionOps *const action_ops[TRANSACTION_ACTION_KIND__MAX] = {
    [TRANSACTION_ACTION_KIND_ABORT] = &transaction_abort,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD] = &transaction_bitmap_add,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE] = &transaction_bitmap_remove,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR] = &transaction_bitmap_clear,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE] = &transaction_bitmap_enable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE] = &transaction_bitmap_disable,
    [TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE] = &transaction_bitmap_merge,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT] = &transaction_blockdev_snapshot,
    [TRANSACTION_ACTION_KIND_BLOCKDEV_SNAPSHOT_SYNC] = &transaction_blockdev_snapshot_sync,
};

/*
 * Main thread. Steps yield, and commands of several monitors run side by side: what one transaction
 * has prepared must not be taken away by another before it commits.
 */
static CoMutex transaction_lock = {
    .guard = PTHREAD_MUTEX_INITIALIZER,
    .waiters = TAILQ_HEAD_INITIALIZER(transaction_lock.waiters),
};

static bool coroutine_fn run_steps_locked(GArray *steps, GError **errp)
{
    guint prepared = 0;
    bool ok = true;

    for (; prepared < steps->len && ok; prepared++) {
        TransactionStep *step = &g_array_index(steps, TransactionStep, prepared);
        const TransactionActionOps *ops = action_ops[step->action->type];

        if (!ops) {
            error_setg(errp, "Action '%s' is not supported",
                       TransactionActionKind_str(step->action->type));
            ok = false;
            break;
        }
        ok = ops->prepare(step, errp);
    }
    for (guint i = 0; ok && i < prepared; i++) {
        TransactionStep *step = &g_array_index(steps, TransactionStep, i);

        if (action_ops[step->action->type]->commit) {
            action_ops[step->action->type]->commit(step);
        }
    }
    for (guint i = prepared; !ok && i-- > 0;) {
        TransactionStep *step = &g_array_index(steps, TransactionStep, i);

        if (action_ops[step->action->type]->abort) {
            action_ops[step->action->type]->abort(step);
        }
    }
    for (guint i = 0; i < prepared; i++) {
        TransactionStep *step = &g_array_index(steps, TransactionStep, i);

        if (action_ops[step->action->type]->clean) {
            action_ops[step->action->type]->clean(step);
        }
    }
    return ok;
}

static bool coroutine_fn run_steps(GArray *steps, GError **errp)
{
    bool ok;

    qemu_co_mutex_lock(&transaction_lock);
    ok = run_steps_locked(steps, errp);
    qemu_co_mutex_unlock(&transaction_lock);
    return ok;
}

bool coroutine_fn transaction_co_run_one(const TransactionAction *action, GError **errp)
{
    g_autoptr(GArray) steps = g_array_new(false, true, sizeof(TransactionStep));
    TransactionStep step = {.action = action};

    g_array_append_val(steps, step);
    return run_steps(steps, errp);
}

bool coroutine_fn qmp_transaction(const TransactionArg *arg, GError **errp)
{
    g_autoptr(GArray) steps = g_array_new(false, true, sizeof(TransactionStep));
    TransactionActionList *it;

    QAPI_LIST_FOREACH(it, arg->actions) {
        TransactionStep step = {.action = it->value};

        g_array_append_val(steps, step);
    }
    return run_steps(steps, errp);
}
