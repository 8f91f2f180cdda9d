/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * query-migrate: the figures of the source, or the state of the destination. Any thread: what is read
 * is atomic, or under the lock of the object.
 */
#include "migration/migration.h"
#include "qapi/qapi-commands-migration.h"
#include "util/migration-blocker.h"
#include "util/timer.h"

GMutex migration_figures_lock;

static MigrationStats *ram_stats(MigrationState *s, MigrationStatus status)
{
    MigrationStats *ram = g_new0(MigrationStats, 1);
    const MigrationCounters *c = &s->counters;

    ram->transferred = (int64_t)migration_transferred_bytes(s);
    ram->total = (int64_t)stat64_get(&c->total_bytes);
    ram->duplicate = (int64_t)stat64_get(&c->zero_pages);
    ram->normal = (int64_t)stat64_get(&c->normal_pages);
    ram->normal_bytes = ram->normal * 4096;
    ram->mbps = (double)stat64_get(&s->mbps_1000) / 1000;
    ram->dirty_sync_count = (int64_t)stat64_get(&c->dirty_sync_count);
    ram->postcopy_requests = (int64_t)stat64_get(&c->postcopy_requests);
    ram->page_size = 4096;
    ram->multifd_bytes = stat64_get(&c->multifd_bytes);
    ram->pages_per_second = stat64_get(&s->pages_per_second);
    ram->precopy_bytes = stat64_get(&c->precopy_bytes);
    ram->downtime_bytes = stat64_get(&c->downtime_bytes);
    ram->dirty_sync_missed_zero_copy = stat64_get(&c->zero_copy_missed);
    if (status != MIGRATION_STATUS_COMPLETED) {
        ram->remaining = (int64_t)stat64_get(&c->remaining_bytes);
        ram->dirty_pages_rate = (int64_t)stat64_get(&c->dirty_pages_rate);
    }
    return ram;
}

static XBZRLECacheStats *xbzrle_stats(MigrationState *s)
{
    XBZRLECacheStats *x = g_new0(XBZRLECacheStats, 1);
    const MigrationCounters *c = &s->counters;

    x->cache_size = stat64_get(&c->xbzrle_cache_size);
    x->bytes = (int64_t)stat64_get(&c->xbzrle_bytes);
    x->pages = (int64_t)stat64_get(&c->xbzrle_pages);
    x->cache_miss = (int64_t)stat64_get(&c->xbzrle_cache_miss);
    x->overflow = (int64_t)stat64_get(&c->xbzrle_overflow);
    g_mutex_lock(&s->lock);
    x->cache_miss_rate = c->xbzrle_cache_miss_rate;
    x->encoding_rate = c->xbzrle_encoding_rate;
    g_mutex_unlock(&s->lock);
    return x;
}

static int64_t ms(uint64_t ns)
{
    return (int64_t)(ns / SCALE_MS);
}

static MigrationDowntime *downtime_by_phase(MigrationState *s)
{
    MigrationDowntime *d = g_new0(MigrationDowntime, 1);
    const struct {
        bool *has;
        double *value;
    } members[MIGRATION_PHASE__MAX] = {
        [MIGRATION_PHASE_STOP] = {&d->has_stop, &d->stop},
        [MIGRATION_PHASE_LAST_SYNC] = {&d->has_last_sync, &d->last_sync},
        [MIGRATION_PHASE_LAST_PAGES] = {&d->has_last_pages, &d->last_pages},
        [MIGRATION_PHASE_DEVICES] = {&d->has_device_state, &d->device_state},
        [MIGRATION_PHASE_PEER_LOAD] = {&d->has_peer_load, &d->peer_load},
    };

    for (int i = 0; i < MIGRATION_PHASE__MAX; i++) {
        uint64_t ns = stat64_get(&s->phase_ns[i]);

        *members[i].has = ns > 0;
        *members[i].value = (double)ns / SCALE_MS;
    }
    return d;
}

static void add_figures(MigrationState *s, MigrationStatus status, MigrationInfo *info)
{
    bool completed = status == MIGRATION_STATUS_COMPLETED;
    uint64_t throttle = stat64_get(&s->counters.throttle_percent);
    uint64_t end = stat64_get(&s->end_ns);

    if (!end) {
        end = (uint64_t)qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
    }
    info->has_setup_time = info->has_total_time = true;
    info->setup_time = ms(stat64_get(&s->setup_ns));
    info->total_time = ms(end - stat64_get(&s->start_ns));
    info->has_downtime = completed;
    info->downtime = ms(stat64_get(&s->downtime_ns));
    info->has_expected_downtime = !completed;
    info->expected_downtime = stat64_get(&s->expected_downtime_ns)
                                  ? ms(stat64_get(&s->expected_downtime_ns))
                                  : (int64_t)migrate_downtime_limit();
    info->ram = ram_stats(s, status);
    info->has_remaining = !completed;
    info->remaining = stat64_get(&s->counters.remaining_bytes);
    if (s->settings && migrate_xbzrle(s->settings)) {
        info->xbzrle_cache = xbzrle_stats(s);
    }
    info->has_cpu_throttle_percentage = throttle > 0;
    info->cpu_throttle_percentage = (int64_t)throttle;
    if (stat64_get(&s->downtime_start_ns)) {
        info->x_downtime = downtime_by_phase(s);
    }
}

static void add_source(MigrationState *s, MigrationInfo *info)
{
    MigrationStatus status = migrate_get_status(s);

    if (status == MIGRATION_STATUS_NONE) {
        return;
    }
    info->has_status = true;
    info->status = status;
    switch (status) {
    case MIGRATION_STATUS_ACTIVE:
    case MIGRATION_STATUS_PRE_SWITCHOVER:
    case MIGRATION_STATUS_DEVICE:
    case MIGRATION_STATUS_CANCELLING:
    case MIGRATION_STATUS_FAILING:
    case MIGRATION_STATUS_COMPLETED:
        add_figures(s, status, info);
        break;
    default:
        break;
    }
    g_mutex_lock(&s->lock);
    info->error_desc = s->error ? g_strdup(s->error->message) : NULL;
    g_mutex_unlock(&s->lock);
}

static void add_destination(MigrationIncomingState *mis, MigrationInfo *info)
{
    MigrationStatus status = (MigrationStatus)__atomic_load_n(&mis->status, __ATOMIC_ACQUIRE);
    uint64_t resume_ns = stat64_get(&mis->resume_ns);

    info->has_status = status != MIGRATION_STATUS_NONE;
    info->status = status;
    if (resume_ns) {
        info->x_downtime = g_new0(MigrationDowntime, 1);
        info->x_downtime->has_resume = true;
        info->x_downtime->resume = (double)resume_ns / SCALE_MS;
    }
    g_mutex_lock(&mis->lock);
    info->error_desc = mis->error ? g_strdup(mis->error->message) : NULL;
    if (status == MIGRATION_STATUS_SETUP || status == MIGRATION_STATUS_ACTIVE) {
        info->socket_address = QAPI_CLONE(SocketAddressList, mis->addresses);
        info->has_socket_address = info->socket_address;
    }
    g_mutex_unlock(&mis->lock);
}

static void add_blockers(MigrationInfo *info)
{
    g_autoptr(GPtrArray) reasons = migrate_blocker_reasons();
    strList **tail = &info->blocked_reasons;

    info->has_blocked_reasons = reasons->len > 0;
    for (guint i = 0; i < reasons->len; i++) {
        *tail = g_new0(strList, 1);
        (*tail)->value = g_strdup(g_ptr_array_index(reasons, i));
        tail = &(*tail)->next;
    }
}

bool coroutine_fn qmp_query_migrate(MigrationInfo **ret, GError **errp)
{
    MigrationState *s = migrate_get_current();
    MigrationIncomingState *mis = migration_incoming_get_current();

    *ret = g_new0(MigrationInfo, 1);
    if (migrate_get_status(s) == MIGRATION_STATUS_NONE && mis) {
        add_destination(mis, *ret);
    } else {
        g_mutex_lock(&migration_figures_lock);
        add_source(s, *ret);
        g_mutex_unlock(&migration_figures_lock);
    }
    add_blockers(*ret);
    return true;
}
