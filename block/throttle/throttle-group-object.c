/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object type throttle-group: a group's limits, made and destroyed by users. */
#include "block/throttle/throttle-group-object.h"

#include <string.h>
#include "block/throttle/throttle-group.h"
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

/* --- properties --- */

#define SHOW_LIMIT(all, cfg, bucket, name) show_limit(all, &(cfg)->limits[bucket], name)

static void show_limit(json_object *all, const ThrottleLimit *limit, const char *name)
{
    g_autofree char *max = g_strconcat(name, "-max", NULL);
    g_autofree char *length = g_strconcat(name, "-max-length", NULL);

    json_object_object_add(all, name, json_object_new_int64(limit->avg));
    json_object_object_add(all, max, json_object_new_int64(limit->max));
    json_object_object_add(all, length, json_object_new_int64(limit->burst_length));
}

/* The members of ThrottleLimits. */
static json_object *show_limits(const ThrottleConfig *cfg)
{
    json_object *all = json_object_new_object();

    SHOW_LIMIT(all, cfg, THROTTLE_BPS_TOTAL, "bps-total");
    SHOW_LIMIT(all, cfg, THROTTLE_BPS_READ, "bps-read");
    SHOW_LIMIT(all, cfg, THROTTLE_BPS_WRITE, "bps-write");
    SHOW_LIMIT(all, cfg, THROTTLE_OPS_TOTAL, "iops-total");
    SHOW_LIMIT(all, cfg, THROTTLE_OPS_READ, "iops-read");
    SHOW_LIMIT(all, cfg, THROTTLE_OPS_WRITE, "iops-write");
    json_object_object_add(all, "iops-size", json_object_new_int64(cfg->op_size));
    return all;
}

static json_object *object_get(void *object)
{
    json_object *all = json_object_new_object(), *limits;
    ThrottleConfig cfg;

    throttle_group_get_config(object, &cfg);
    limits = show_limits(&cfg);
    json_object_object_foreach(limits, name, value)
    {
        g_autofree char *flat = g_strconcat("x-", name, NULL);

        json_object_object_add(all, flat, json_object_get(value));
    }
    json_object_object_add(all, "limits", limits);
    return all;
}

static bool object_set(void *object, const char *property, json_object *value, GError **errp)
{
    g_autoptr(ThrottleLimits) limits = NULL;
    ThrottleConfig cfg;

    if (strcmp(property, "limits") != 0) {
        error_setg(errp, "Property '%s' cannot be changed any more; set 'limits'", property);
        return false;
    }
    limits = ThrottleLimits_from_json(value, QAPI_DECODE_JSON, errp);
    if (!limits) {
        return false;
    }
    throttle_group_get_config(object, &cfg);
    take_limits(&cfg, limits);
    if (!throttle_config_is_valid(&cfg, errp)) {
        return false;
    }
    throttle_group_set_config(object, &cfg);
    return true;
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
    .get = object_get,
    .set = object_set,
};
