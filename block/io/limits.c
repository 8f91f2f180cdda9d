/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Limits of drives. */
#include "block/io/limits.h"

#include <string.h>
#include "block/backend-int.h"
#include "block/throttle/throttle-group.h"
#include "qapi/qapi-commands-block-node.h"
#include "util/cutils.h"
#include "util/error.h"

/* --- -drive --- */

/* How the options of a bucket start: below throttling., and in the older spelling. */
static const char *const option_names[THROTTLE_BUCKETS][2] = {
    [THROTTLE_BPS_TOTAL] = {"bps-total", "bps"},
    [THROTTLE_BPS_READ] = {"bps-read", "bps_rd"},
    [THROTTLE_BPS_WRITE] = {"bps-write", "bps_wr"},
    [THROTTLE_OPS_TOTAL] = {"iops-total", "iops"},
    [THROTTLE_OPS_READ] = {"iops-read", "iops_rd"},
    [THROTTLE_OPS_WRITE] = {"iops-write", "iops_wr"},
};

/* Takes a number out of an object that keyval made; leaves *value alone when there is none. */
static bool take_number(json_object *obj, const char *key, int64_t *value, GError **errp)
{
    json_object *text;

    if (!obj || !json_object_object_get_ex(obj, key, &text)) {
        return true;
    }
    if (!json_object_is_type(text, json_type_string) ||
        qemu_strtoi64(json_object_get_string(text), NULL, 0, value) < 0) {
        error_setg(errp, "Parameter '%s' expects a number", key);
        return false;
    }
    json_object_object_del(obj, key);
    return true;
}

static bool take_limit(json_object *obj, const char *name, char separator, ThrottleLimit *limit,
                       GError **errp)
{
    g_autofree char *max = g_strdup_printf("%s%cmax", name, separator);
    g_autofree char *length = g_strdup_printf("%s%cmax%clength", name, separator, separator);

    return take_number(obj, name, &limit->avg, errp) && take_number(obj, max, &limit->max, errp) &&
           take_number(obj, length, &limit->burst_length, errp);
}

/* What is left of throttling.* is unknown. */
static bool end_throttling(json_object *options, json_object *throttling, GError **errp)
{
    if (!throttling) {
        return true;
    }
    json_object_object_foreach(throttling, key, value)
    {
        (void)value;
        error_setg(errp, "Invalid parameter 'throttling.%s'", key);
        return false;
    }
    json_object_object_del(options, "throttling");
    return true;
}

bool io_limits_take_options(json_object *options, ThrottleConfig *cfg, char **group, GError **errp)
{
    json_object *throttling = NULL, *name;

    *group = NULL;
    throttle_config_init(cfg);
    if (json_object_object_get_ex(options, "throttling", &throttling) &&
        !json_object_is_type(throttling, json_type_object)) {
        error_setg(errp, "Invalid parameter 'throttling'");
        return false;
    }
    for (int i = 0; i < THROTTLE_BUCKETS; i++) {
        if (!take_limit(throttling, option_names[i][0], '-', &cfg->limits[i], errp) ||
            !take_limit(options, option_names[i][1], '_', &cfg->limits[i], errp)) {
            return false;
        }
    }
    if (!take_number(throttling, "iops-size", &cfg->op_size, errp) ||
        !take_number(options, "iops_size", &cfg->op_size, errp)) {
        return false;
    }
    if (throttling && json_object_object_get_ex(throttling, "group", &name)) {
        *group = g_strdup(json_object_get_string(name));
        json_object_object_del(throttling, "group");
    }
    return end_throttling(options, throttling, errp) && throttle_config_is_valid(cfg, errp);
}

/* --- setting --- */

bool coroutine_fn io_limits_co_apply(BlockBackend *blk, const ThrottleConfig *cfg,
                                     const char *group_name, GError **errp)
{
    BlockDriverState *bs = blk_bs(blk);
    ThrottleGroup *now = blk_get_throttle_group(blk), *group = NULL;

    if (throttle_enabled(cfg)) {
        const char *name = group_name ? group_name : now ? throttle_group_name(now) : blk_name(blk);

        group = throttle_group_get(name);
    }
    if (group != now && bs) {
        bdrv_ref(bs);
        if (!bdrv_co_drained_begin_within(bs, BDRV_DRAIN_COMMAND_NS, errp)) {
            bdrv_co_unref(bs);
            throttle_group_unref(group);
            return false;
        }
    }
    if (group) {
        throttle_group_set_config(group, cfg);
    }
    if (group == now) {
        throttle_group_unref(group);
        return true;
    }
    blk_set_throttle_group(blk, group);
    if (bs) {
        bdrv_co_drained_end(bs);
        bdrv_co_unref(bs);
    }
    return true;
}

#define TAKE(bucket, name)                                                    \
    do {                                                                      \
        cfg.limits[bucket].avg = arg->name;                                   \
        cfg.limits[bucket].max = arg->has_##name##_max ? arg->name##_max : 0; \
        cfg.limits[bucket].burst_length =                                     \
            arg->has_##name##_max_length ? arg->name##_max_length : 1;        \
    } while (0)

bool coroutine_fn qmp_block_set_io_throttle(const BlockIOThrottle *arg, GError **errp)
{
    const char *name = arg->id ? arg->id : arg->device;
    BlockBackend *blk = name ? blk_by_name(name) : NULL;
    ThrottleConfig cfg;
    bool ok;

    if (!name || (arg->id && arg->device)) {
        error_setg(errp, "Need exactly one of 'device' and 'id'");
        return false;
    }
    if (!blk) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Device '%s' not found", name);
        return false;
    }
    if (!blk_bs(blk)) {
        error_setg(errp, "Device '%s' has no medium", name);
        return false;
    }
    throttle_config_init(&cfg);
    TAKE(THROTTLE_BPS_TOTAL, bps);
    TAKE(THROTTLE_BPS_READ, bps_rd);
    TAKE(THROTTLE_BPS_WRITE, bps_wr);
    TAKE(THROTTLE_OPS_TOTAL, iops);
    TAKE(THROTTLE_OPS_READ, iops_rd);
    TAKE(THROTTLE_OPS_WRITE, iops_wr);
    cfg.op_size = arg->has_iops_size ? arg->iops_size : 0;
    if (!throttle_config_is_valid(&cfg, errp)) {
        return false;
    }
    blk_ref(blk);
    ok = io_limits_co_apply(blk, &cfg, arg->group, errp);
    blk_unref(blk);
    return ok;
}

/* --- showing --- */

#define SHOW(bucket, name)                                                                   \
    do {                                                                                     \
        info->name = cfg.limits[bucket].avg;                                                 \
        info->has_##name##_max = info->has_##name##_max_length = cfg.limits[bucket].max > 0; \
        info->name##_max = cfg.limits[bucket].max;                                           \
        info->name##_max_length = cfg.limits[bucket].burst_length;                           \
    } while (0)

void io_limits_lift_all(void)
{
    for (BlockBackend *blk = blk_all_next(NULL); blk; blk = blk_all_next(blk)) {
        if (blk->throttle) {
            throttle_member_bypass_begin(blk->throttle);
        }
    }
    for (BlockDriverState *bs = bdrv_next_node(NULL); bs; bs = bdrv_next_node(bs)) {
        if (bs->is_open && bs->drv && bs->drv->bdrv_lift_limits) {
            bs->drv->bdrv_lift_limits(bs, true);
        }
    }
}

void io_limits_fill_info(BlockDeviceInfo *info, const BlockBackend *blk)
{
    ThrottleGroup *group = blk_get_throttle_group(blk);
    ThrottleConfig cfg;

    if (!group) {
        return;
    }
    throttle_group_get_config(group, &cfg);
    SHOW(THROTTLE_BPS_TOTAL, bps);
    SHOW(THROTTLE_BPS_READ, bps_rd);
    SHOW(THROTTLE_BPS_WRITE, bps_wr);
    SHOW(THROTTLE_OPS_TOTAL, iops);
    SHOW(THROTTLE_OPS_READ, iops_rd);
    SHOW(THROTTLE_OPS_WRITE, iops_wr);
    info->has_iops_size = cfg.op_size > 0;
    info->iops_size = cfg.op_size;
    info->group = g_strdup(throttle_group_name(group));
}
