/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BlockBackend: the root edge of a device, export or job. Its gate is in backend-gate.c, its contexts
 * are in backend-context.c.
 */
#include "block/backend-int.h"

#include <errno.h>
#include <string.h>
#include "block/graph/activate.h"
#include "block/graph/graph.h"
#include "trace/trace-block.h"
#include "util/error.h"
#include "util/iothread.h"

static TAILQ_HEAD(, BlockBackend) all_backends = TAILQ_HEAD_INITIALIZER(all_backends);
static TAILQ_HEAD(, BlockBackend) named_backends = TAILQ_HEAD_INITIALIZER(named_backends);

/* --- life --- */

BlockBackend *blk_new(uint64_t perm, uint64_t shared)
{
    BlockBackend *blk = g_new(BlockBackend, 1);

    *blk = (BlockBackend){
        .refcnt = 1,
        .ctx = qemu_get_aio_context(),
        .perm = perm,
        .shared_perm = shared,
        .enable_write_cache = true,
        .on_read_error = BLOCKDEV_ON_ERROR_REPORT,
        .on_write_error = BLOCKDEV_ON_ERROR_ENOSPC,
    };
    TAILQ_INIT(&blk->queued);
    pthread_mutex_init(&blk->gate, NULL);
    blk_binding_init(blk);
    TAILQ_INSERT_TAIL(&all_backends, blk, all);
    block_acct_init(&blk->stats);
    return blk;
}

void blk_ref(BlockBackend *blk)
{
    __atomic_fetch_add(&blk->refcnt, 1, __ATOMIC_RELAXED);
}

static void blk_free(void *opaque)
{
    BlockBackend *blk = opaque;

    g_assert(TAILQ_EMPTY(&blk->queued));
    blk_remove_bs(blk);
    g_assert(blk->in_flight == 0);
    blk_binding_destroy(blk);
    pthread_mutex_destroy(&blk->gate);
    blk_set_throttle_group(blk, NULL);
    if (blk->name) {
        TAILQ_REMOVE(&named_backends, blk, named);
        g_free(blk->name);
    }
    TAILQ_REMOVE(&all_backends, blk, all);
    block_acct_cleanup(&blk->stats);
    g_free(blk);
}

void blk_unref(BlockBackend *blk)
{
    if (!blk || __atomic_sub_fetch(&blk->refcnt, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    if (bdrv_in_main_thread()) {
        blk_free(blk);
    } else {
        aio_bh_schedule_oneshot(qemu_get_aio_context(), blk_free, blk);
    }
}

BlockBackend *blk_by_name(const char *name)
{
    BlockBackend *blk = blk_next(NULL);

    while (blk && !g_str_equal(blk->name, name)) {
        blk = blk_next(blk);
    }
    return blk;
}

/* Commands take the names of nodes and of backends alike, so that each means one thing. */
bool blk_set_name(BlockBackend *blk, const char *name, GError **errp)
{
    g_assert(!blk->name);
    if (bdrv_node_name_in_use(name)) {
        error_setg(errp, "Device name '%s' conflicts with an existing node name", name);
    } else if (blk_by_name(name)) {
        error_setg(errp, "Device with id '%s' already exists", name);
    } else {
        blk->name = g_strdup(name);
        TAILQ_INSERT_TAIL(&named_backends, blk, named);
    }
    return blk->name;
}

const char *blk_name(const BlockBackend *blk)
{
    return blk->name ?: "";
}

bool blk_name_in_use(const char *name)
{
    return blk_by_name(name) != NULL;
}

BlockBackend *blk_next(BlockBackend *blk)
{
    return blk ? TAILQ_NEXT(blk, named) : TAILQ_FIRST(&named_backends);
}

BlockBackend *blk_all_next(BlockBackend *blk)
{
    return blk ? TAILQ_NEXT(blk, all) : TAILQ_FIRST(&all_backends);
}

void blk_set_dev_ops(BlockBackend *blk, const BlockDevOps *ops, void *opaque)
{
    bdrv_edges_lock(); /* drained sections call these in the graph's thread */
    blk->dev_ops = ops;
    blk->dev_opaque = opaque;
    if (ops && ops->drained_begin && blk_in_drain(blk)) {
        ops->drained_begin(opaque);
    }
    bdrv_edges_unlock();
}

/* --- the root edge --- */

char *blk_describe(BlockBackend *blk)
{
    if (blk->dev_ops && blk->dev_ops->get_desc) {
        return blk->dev_ops->get_desc(blk->dev_opaque);
    }
    return blk->name ? g_strdup_printf("block device '%s'", blk->name)
                     : g_strdup("an unnamed block device");
}

static char *root_get_parent_desc(BdrvChild *child)
{
    return blk_describe(child->opaque);
}

static const char *root_get_name(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    return blk->name;
}

static void root_drained_begin(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (__atomic_fetch_add(&blk->quiesce, 1, __ATOMIC_SEQ_CST) > 0) {
        return;
    }
    if (blk->throttle) {
        throttle_member_bypass_begin(blk->throttle); /* what waits for the limits ends soon */
    }
    if (blk->dev_ops && blk->dev_ops->drained_begin) {
        blk->dev_ops->drained_begin(blk->dev_opaque);
    }
}

static bool root_drained_poll(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (blk->dev_ops && blk->dev_ops->drained_poll && blk->dev_ops->drained_poll(blk->dev_opaque)) {
        return true;
    }
    return __atomic_load_n(&blk->in_flight, __ATOMIC_SEQ_CST) > 0;
}

static void root_drained_end(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    g_assert(blk->quiesce > 0);
    if (__atomic_sub_fetch(&blk->quiesce, 1, __ATOMIC_SEQ_CST) > 0) {
        return;
    }
    if (blk->throttle) {
        throttle_member_bypass_end(blk->throttle);
    }
    if (blk->dev_ops && blk->dev_ops->drained_end) {
        blk->dev_ops->drained_end(blk->dev_opaque);
    }
    blk_gate_open(blk);
}

static void root_resize(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    if (blk->dev_ops && blk->dev_ops->resize_cb) {
        blk->dev_ops->resize_cb(blk->dev_opaque);
    }
}

static bool root_can_set_aio_context(BdrvChild *child, AioContext *ctx, GError **errp)
{
    BlockBackend *blk = child->opaque;
    const BlockDevOps *ops = blk->dev_ops;

    if (blk->wish.fixed && ctx != blk->wish.ctx) {
        g_autofree char *desc = root_get_parent_desc(child);
        g_autofree char *here = iothread_describe_context(blk->wish.ctx);

        error_setg(errp, "Node '%s' cannot move: %s keeps it in %s", bdrv_get_node_name(child->bs),
                   desc, here);
        return false;
    }
    return !ops || !ops->can_set_aio_context ||
           ops->can_set_aio_context(blk->dev_opaque, ctx, errp);
}

static void root_set_aio_context(BdrvChild *child, AioContext *ctx)
{
    blk_set_context(child->opaque, ctx);
}

static AioContext *root_get_wished_context(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    return blk->wish.ctx;
}

static bool root_can_inactivate(BdrvChild *child)
{
    BlockBackend *blk = child->opaque;

    return blk->name || blk->allow_inactive ||
           !(blk->perm & (BLK_PERM_WRITE | BLK_PERM_WRITE_UNCHANGED | BLK_PERM_RESIZE));
}

static void root_active_perms(BdrvChild *child, uint64_t *perm, uint64_t *shared)
{
    BlockBackend *blk = child->opaque;

    *perm = blk->perm;
    *shared = blk->shared_perm;
}

static const BdrvChildClass child_root = {
    .get_parent_desc = root_get_parent_desc,
    .get_name = root_get_name,
    .drained_begin = root_drained_begin,
    .drained_poll = root_drained_poll,
    .drained_end = root_drained_end,
    .resize = root_resize,
    .can_set_aio_context = root_can_set_aio_context,
    .set_aio_context = root_set_aio_context,
    .get_wished_context = root_get_wished_context,
    .get_threads = blk_root_get_threads,
    .set_threads = blk_root_set_threads,
    .settle_threads = blk_root_settle_threads,
    .can_inactivate = root_can_inactivate,
    .active_perms = root_active_perms,
};

bool bdrv_child_is_blk_root(const BdrvChild *child)
{
    return child->klass == &child_root;
}

bool blk_insert_bs(BlockBackend *blk, BlockDriverState *bs, GError **errp)
{
    bool active = !bdrv_is_inactive(bs);
    AioContext *ctx = bdrv_get_aio_context(bs);

    bdrv_assert_main_thread();
    g_assert(!blk->root);
    if (blk->wish.fixed && blk->wish.ctx != ctx) {
        g_autofree char *here = iothread_describe_context(ctx);
        g_autofree char *there = iothread_describe_context(blk->wish.ctx);

        error_setg(errp, "Node '%s' is in %s, its new user in %s", bdrv_get_node_name(bs), here,
                   there);
        return false;
    }
    bdrv_ref(bs);
    blk->root = bdrv_root_attach_child(
        bs, "root", &child_root, BDRV_CHILD_FILTERED | BDRV_CHILD_PRIMARY, active ? blk->perm : 0,
        active ? blk->shared_perm : BLK_PERM_ALL, blk, errp);
    if (!blk->root) {
        return false;
    }
    blk->root->stay_at_node = blk->stay_at_node;
    blk_set_context(blk, ctx);
    return true;
}

void blk_remove_bs(BlockBackend *blk)
{
    BdrvChild *root = blk->root;

    if (root) {
        blk->root = NULL;
        bdrv_root_unref_child(root);
        blk_set_context(blk, blk->wish.ctx ? blk->wish.ctx : qemu_get_aio_context());
    }
}

BlockDriverState *blk_bs(const BlockBackend *blk)
{
    return blk->root ? blk->root->bs : NULL;
}

BdrvChild *blk_root(const BlockBackend *blk)
{
    return blk->root;
}

bool blk_set_perm(BlockBackend *blk, uint64_t perm, uint64_t shared, GError **errp)
{
    if (blk->root && !bdrv_is_inactive(blk_bs(blk)) &&
        !bdrv_child_try_set_perm(blk->root, perm, shared, errp)) {
        return false;
    }
    blk->perm = perm;
    blk->shared_perm = shared;
    return true;
}

void blk_set_stay_at_node(BlockBackend *blk, bool stay)
{
    blk->stay_at_node = stay;
    if (blk->root) {
        blk->root->stay_at_node = stay;
    }
}

void blk_set_disable_request_queuing(BlockBackend *blk, bool disable)
{
    blk->disable_request_queuing = disable;
}

void blk_set_allow_write_beyond_eof(BlockBackend *blk, bool allow)
{
    blk->allow_write_beyond_eof = allow;
}

void blk_set_allow_inactive(BlockBackend *blk, bool allow)
{
    blk->allow_inactive = allow;
}

void blk_set_enable_write_cache(BlockBackend *blk, bool wce)
{
    blk->enable_write_cache = wce;
}

bool blk_enable_write_cache(const BlockBackend *blk)
{
    return blk->enable_write_cache;
}

/* --- requests --- */

/* Passes the limits. */
static void coroutine_fn throttle_wait(BlockBackend *blk, int64_t bytes, bool is_write)
{
    if (blk->throttle) {
        throttle_member_co_wait(blk->throttle, bytes, is_write);
    }
}

static int check_range(BlockBackend *blk, int64_t offset, int64_t bytes, bool may_grow)
{
    BlockDriverState *bs = blk_bs(blk);
    int64_t size;

    if (!bs || !bdrv_is_inserted(bs)) {
        return -ENOMEDIUM;
    }
    if (bdrv_is_inactive(bs)) {
        return -EPERM;
    }
    if (offset < 0 || bytes < 0 || bytes > BDRV_MAX_LENGTH) {
        return -EIO;
    }
    if (may_grow && blk->allow_write_beyond_eof) {
        return 0;
    }
    size = bdrv_size(bs);
    if (offset > size || size - offset < bytes) {
        return -EIO;
    }
    return 0;
}

static int check_write(BlockBackend *blk)
{
    if (!(bdrv_child_perm(blk->root) & BLK_PERM_WRITE)) {
        return (bdrv_child_perm(blk->root) & BLK_PERM_WRITE_UNCHANGED) ? 0 : -EACCES;
    }
    return 0;
}

static BdrvRequestFlags write_flags(BlockBackend *blk, BdrvRequestFlags flags)
{
    if (!blk->enable_write_cache) {
        flags |= BDRV_REQ_FUA;
    }
    if (!(bdrv_child_perm(blk->root) & BLK_PERM_WRITE)) {
        flags |= BDRV_REQ_WRITE_UNCHANGED;
    }
    return flags;
}

int coroutine_fn blk_co_preadv(BlockBackend *blk, int64_t offset, int64_t bytes, QEMUIOVector *qiov,
                               BdrvRequestFlags flags)
{
    GatePass pass;
    int ret;

    trace_blk_co_preadv(blk_name(blk), offset, bytes, flags);
    blk_co_gate_pass(blk, &pass);
    ret = check_range(blk, offset, bytes, false);
    if (ret == 0) {
        throttle_wait(blk, bytes, false);
        ret = bdrv_co_preadv(blk->root, offset, bytes, qiov, flags);
    }
    blk_co_gate_leave(blk, &pass);
    return ret;
}

int coroutine_fn blk_co_pwritev(BlockBackend *blk, int64_t offset, int64_t bytes,
                                QEMUIOVector *qiov, BdrvRequestFlags flags)
{
    GatePass pass;
    int ret;

    trace_blk_co_pwritev(blk_name(blk), offset, bytes, flags);
    blk_co_gate_pass(blk, &pass);
    ret = check_range(blk, offset, bytes, true);
    ret = ret ? ret : check_write(blk);
    if (ret == 0) {
        throttle_wait(blk, bytes, true);
        ret = bdrv_co_pwritev(blk->root, offset, bytes, qiov, write_flags(blk, flags));
    }
    blk_co_gate_leave(blk, &pass);
    return ret;
}

int coroutine_fn blk_co_pread(BlockBackend *blk, int64_t offset, int64_t bytes, void *buf,
                              BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, buf, bytes);
    return blk_co_preadv(blk, offset, bytes, &qiov, flags);
}

int coroutine_fn blk_co_pwrite(BlockBackend *blk, int64_t offset, int64_t bytes, const void *buf,
                               BdrvRequestFlags flags)
{
    QEMUIOVector qiov;

    qemu_iovec_init_buf(&qiov, (void *)buf, bytes);
    return blk_co_pwritev(blk, offset, bytes, &qiov, flags);
}

int coroutine_fn blk_co_pwrite_zeroes(BlockBackend *blk, int64_t offset, int64_t bytes,
                                      BdrvRequestFlags flags)
{
    GatePass pass;
    int ret;

    trace_blk_co_pwrite_zeroes(blk_name(blk), offset, bytes, flags);
    blk_co_gate_pass(blk, &pass);
    ret = check_range(blk, offset, bytes, true);
    ret = ret ? ret : check_write(blk);
    if (ret == 0) {
        throttle_wait(blk, bytes, true);
        ret = bdrv_co_pwrite_zeroes(blk->root, offset, bytes, write_flags(blk, flags));
    }
    blk_co_gate_leave(blk, &pass);
    return ret;
}

int coroutine_fn blk_co_pdiscard(BlockBackend *blk, int64_t offset, int64_t bytes)
{
    GatePass pass;
    int ret;

    trace_blk_co_pdiscard(blk_name(blk), offset, bytes);
    blk_co_gate_pass(blk, &pass);
    ret = check_range(blk, offset, bytes, false);
    ret = ret ? ret : check_write(blk);
    if (ret == 0) {
        ret = bdrv_co_pdiscard(blk->root, offset, bytes);
    }
    blk_co_gate_leave(blk, &pass);
    return ret;
}

int coroutine_fn blk_co_flush(BlockBackend *blk)
{
    BlockDriverState *bs;
    int ret = -ENOMEDIUM;
    GatePass pass;

    trace_blk_co_flush(blk_name(blk));
    blk_co_gate_pass(blk, &pass);
    bs = blk_bs(blk);
    if (bs && bdrv_is_inserted(bs)) {
        ret = bdrv_is_inactive(bs) ? -EPERM : bdrv_co_flush(bs);
    }
    blk_co_gate_leave(blk, &pass);
    return ret;
}

int coroutine_fn blk_co_copy_range(BlockBackend *src, int64_t src_offset, BlockBackend *dst,
                                   int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    GatePass src_pass, dst_pass;
    int ret;

    blk_co_gate_pass(src, &src_pass);
    blk_co_gate_pass(dst, &dst_pass);
    ret = check_range(src, src_offset, bytes, false);
    ret = ret ? ret : check_range(dst, dst_offset, bytes, true);
    ret = ret ? ret : check_write(dst);
    if (ret == 0) {
        ret = bdrv_co_copy_range(src->root, src_offset, dst->root, dst_offset, bytes,
                                 write_flags(dst, flags));
    }
    blk_co_gate_leave(dst, &dst_pass);
    blk_co_gate_leave(src, &src_pass);
    return ret;
}

bool coroutine_fn blk_co_truncate(BlockBackend *blk, int64_t size, bool exact,
                                  PreallocMode prealloc, GError **errp)
{
    if (!blk_bs(blk)) {
        error_setg(errp, "No medium inserted");
        return false;
    }
    if (!bdrv_check_active(blk_bs(blk), errp)) {
        return false;
    }
    return bdrv_co_truncate(blk->root, size, exact, prealloc, 0, errp);
}

int64_t blk_getlength(BlockBackend *blk)
{
    BlockDriverState *bs = blk_bs(blk);

    return bs && bdrv_is_inserted(bs) ? bdrv_size(bs) : -ENOMEDIUM;
}

/* --- limits --- */

void blk_set_throttle_group(BlockBackend *blk, ThrottleGroup *group)
{
    if (blk->throttle) {
        throttle_member_destroy(blk->throttle);
        g_clear_pointer(&blk->throttle, g_free);
    }
    if (group) {
        blk->throttle = g_new0(ThrottleGroupMember, 1);
        throttle_member_init(blk->throttle, group);
        bdrv_edges_lock();
        if (blk_in_drain(blk)) {
            throttle_member_bypass_begin(blk->throttle);
        }
        bdrv_edges_unlock();
    }
}

ThrottleGroup *blk_get_throttle_group(const BlockBackend *blk)
{
    return blk->throttle ? blk->throttle->group : NULL;
}

/* --- error policy --- */

void blk_set_on_error(BlockBackend *blk, BlockdevOnError on_read, BlockdevOnError on_write)
{
    blk->on_read_error = on_read;
    blk->on_write_error = on_write;
}

BlockdevOnError blk_get_on_error(const BlockBackend *blk, bool is_read)
{
    return is_read ? blk->on_read_error : blk->on_write_error;
}

void blk_iostatus_enable(BlockBackend *blk)
{
    blk->iostatus_enabled = true;
    blk->iostatus = BLOCK_DEVICE_IO_STATUS_OK;
}

bool blk_iostatus_is_enabled(const BlockBackend *blk)
{
    return blk->iostatus_enabled;
}

BlockDeviceIoStatus blk_iostatus(const BlockBackend *blk)
{
    return blk->iostatus;
}

void blk_iostatus_reset(BlockBackend *blk)
{
    blk->iostatus = BLOCK_DEVICE_IO_STATUS_OK;
}

void blk_iostatus_set_err(BlockBackend *blk, int error)
{
    if (blk->iostatus_enabled && blk->iostatus == BLOCK_DEVICE_IO_STATUS_OK) {
        blk->iostatus =
            error == ENOSPC ? BLOCK_DEVICE_IO_STATUS_NOSPACE : BLOCK_DEVICE_IO_STATUS_FAILED;
    }
}

BlockAcctStats *blk_get_stats(BlockBackend *blk)
{
    return &blk->stats;
}
