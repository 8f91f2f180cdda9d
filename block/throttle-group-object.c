/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type throttle-group: a group's limits, made and destroyed by users. */
#include "block/throttle-group-object.h"

#include "block/throttle-group.h"
#include "util/error.h"

/* One bucket's members, which the schema's two notations spell alike. */
#define TAKE_LIMIT(cfg, bucket, from, prefix)                                         \
    take_limit(&(cfg)->limits[bucket], (from)->has_##prefix ? &(from)->prefix : NULL, \
               (from)->has_##prefix##_max ? &(from)->prefix##_max : NULL,             \
               (from)->has_##prefix##_max_length ? &(from)->prefix##_max_length : NULL)

static void take_limit(ThrottleLimit *limit, const int64_t *avg, const int64_t *max,
                       const int64_t *length)
{
    limit->avg = avg ? *avg : limit->avg;
    limit->max = max ? *max : limit->max;
    limit->burst_length = length ? *length : limit->burst_length;
}

static void take_limits(ThrottleConfig *cfg, const ThrottleLimits *from)
{
    TAKE_LIMIT(cfg, THROTTLE_BPS_TOTAL, from, bps_total);
    TAKE_LIMIT(cfg, THROTTLE_BPS_READ, from, bps_read);
    TAKE_LIMIT(cfg, THROTTLE_BPS_WRITE, from, bps_write);
    TAKE_LIMIT(cfg, THROTTLE_OPS_TOTAL, from, iops_total);
    TAKE_LIMIT(cfg, THROTTLE_OPS_READ, from, iops_read);
    TAKE_LIMIT(cfg, THROTTLE_OPS_WRITE, from, iops_write);
    cfg->op_size = from->has_iops_size ? from->iops_size : cfg->op_size;
}

/* "x-bps-total" and so on, as the command line has them. */
static void take_flat_limits(ThrottleConfig *cfg, const ThrottleGroupProperties *from)
{
    TAKE_LIMIT(cfg, THROTTLE_BPS_TOTAL, from, x_bps_total);
    TAKE_LIMIT(cfg, THROTTLE_BPS_READ, from, x_bps_read);
    TAKE_LIMIT(cfg, THROTTLE_BPS_WRITE, from, x_bps_write);
    TAKE_LIMIT(cfg, THROTTLE_OPS_TOTAL, from, x_iops_total);
    TAKE_LIMIT(cfg, THROTTLE_OPS_READ, from, x_iops_read);
    TAKE_LIMIT(cfg, THROTTLE_OPS_WRITE, from, x_iops_write);
    cfg->op_size = from->has_x_iops_size ? from->x_iops_size : cfg->op_size;
}

static void *coroutine_fn object_co_create(const ObjectOptions *options, GError **errp)
{
    const ThrottleGroupProperties *properties = &options->u.throttle_group;
    ThrottleGroup *group = throttle_group_find(options->id);
    ThrottleConfig cfg;

    if (group) {
        throttle_group_unref(group);
        error_setg(errp, "A throttle group '%s' exists already", options->id);
        return NULL;
    }
    throttle_config_init(&cfg);
    take_flat_limits(&cfg, properties);
    if (properties->limits) {
        take_limits(&cfg, properties->limits);
    }
    if (!throttle_config_is_valid(&cfg, errp)) {
        return NULL;
    }
    group = throttle_group_get(options->id);
    throttle_group_set_config(group, &cfg);
    return group;
}

static bool object_can_be_deleted(void *object, GError **errp)
{
    if (throttle_group_in_use(object)) {
        error_setg(errp, "object '%s' is in use, can not be deleted", throttle_group_name(object));
        return false;
    }
    return true;
}

static void object_destroy(void *object)
{
    throttle_group_unref(object);
}

const UserCreatableOps throttle_group_object_ops = {
    .type = OBJECT_TYPE_THROTTLE_GROUP,
    .co_create = object_co_create,
    .destroy = object_destroy,
    .can_be_deleted = object_can_be_deleted,
};
