/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the stream. It comes from a stranger: whatever it says is checked before it is used, and
 * the first thing that is wrong ends the load with a message that names it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "accel/cpus.h"
#include "migration/savevm.h"
#include "trace/trace-migration.h"
#include "util/bql.h"
#include "util/error.h"
#include "vmstate/register.h"
#include "vmstate/vmstate.h"

/* Longest description at the end of a stream, bytes; it is read and dropped. */
#define VMDESC_MAX (256u * 1024 * 1024)

static int load_header(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    uint32_t magic = qemu_get_be32(f), version = qemu_get_be32(f);

    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    if (magic != QEMU_VM_FILE_MAGIC) {
        error_setg(errp, "Not a migration stream, magic: %08" PRIx32 " != %08x", magic,
                   QEMU_VM_FILE_MAGIC);
        return -EINVAL;
    }
    if (version != QEMU_VM_FILE_VERSION) {
        error_setg(errp, "Unsupported migration stream version %" PRIu32, version);
        return -ENOTSUP;
    }
    if (mis->settings->compat.send_configuration) {
        uint8_t type = qemu_get_byte(f);

        if (type != QEMU_VM_CONFIGURATION) {
            error_setg(errp, "Configuration section missing, %u != %u", type,
                       QEMU_VM_CONFIGURATION);
            return -EINVAL;
        }
        return configuration_load(f, mis->settings, errp);
    }
    return 0;
}

/* --- sections --- */

static void drop_big_lock(void *opaque)
{
    bql_unlock();
}

static void retake_big_lock(void *opaque)
{
    bql_lock();
}

/* A device is loaded under the big lock, which is dropped while the source is slow. */
static int load_device(QEMUFile *f, SaveStateEntry *se, GError **errp)
{
    int ret;

    bql_lock();
    qemu_file_set_wait_hooks(f, drop_big_lock, retake_big_lock, NULL);
    ret = vmstate_load_device(f, se->idstr, se->instance_id, se->vmsd, se->opaque,
                              se->load_version_id, errp);
    qemu_file_set_wait_hooks(f, NULL, NULL, NULL);
    bql_unlock();
    return ret;
}

static int load_live(QEMUFile *f, SaveStateEntry *se, GError **errp)
{
    int ret = se->ops->load_state(f, se->opaque, se->load_version_id, errp);

    if (ret < 0) {
        g_prefix_error(errp,
                       "error while loading state for instance 0x%" PRIx32 " of device '%s': ",
                       se->instance_id, se->idstr);
    }
    return ret;
}

static int check_footer(MigrationIncomingState *mis, QEMUFile *f, const SaveStateEntry *se,
                        GError **errp)
{
    uint8_t mark;
    uint32_t id;

    if (!mis->settings->compat.send_section_footer) {
        return 0;
    }
    mark = qemu_get_byte(f);
    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    if (mark != QEMU_VM_SECTION_FOOTER) {
        error_setg(errp, "Missing section footer for %s", se->idstr);
        return -EINVAL;
    }
    id = qemu_get_be32(f);
    if (id != se->load_section_id && qemu_file_get_error(f) == 0) {
        error_setg(
            errp, "Mismatched section id in footer for %s - read 0x%" PRIx32 " expected 0x%" PRIx32,
            se->idstr, id, se->load_section_id);
        return -EINVAL;
    }
    return 0;
}

static int load_contents(MigrationIncomingState *mis, QEMUFile *f, SaveStateEntry *se,
                         GError **errp)
{
    int ret = se->vmsd ? load_device(f, se, errp) : load_live(f, se, errp);

    return ret < 0 ? ret : check_footer(mis, f, se, errp);
}

/* START or FULL: says who it is. */
static int load_first_section(MigrationIncomingState *mis, QEMUFile *f, uint8_t type, GError **errp)
{
    uint32_t section_id = qemu_get_be32(f), instance_id, version_id;
    char idstr[256];
    SaveStateEntry *se;

    if (qemu_get_counted_string(f, idstr) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    instance_id = qemu_get_be32(f);
    version_id = qemu_get_be32(f);
    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    trace_loadvm_section(idstr, section_id, type);
    bql_lock();
    se = savevm_find(idstr, instance_id);
    bql_unlock();
    if (!se) {
        error_setg(errp,
                   "Unknown section or instance '%s' %" PRIu32 ". Make sure that your current VM "
                   "setup matches your saved VM setup, including any hotplugged devices",
                   idstr, instance_id);
        return -EINVAL;
    }
    if (version_id > (uint32_t)se->version_id) {
        error_setg(errp, "unsupported version %" PRIu32 " for '%s' v%d", version_id, idstr,
                   se->version_id);
        return -EINVAL;
    }
    se->loaded = true;
    se->load_section_id = section_id;
    se->load_version_id = (int)version_id;
    return load_contents(mis, f, se, errp);
}

/* PART or END: of a section that has started. */
static int load_next_section(MigrationIncomingState *mis, QEMUFile *f, uint8_t type, GError **errp)
{
    uint32_t section_id = qemu_get_be32(f);
    SaveStateEntry *se;

    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    bql_lock();
    se = savevm_find_loaded(section_id);
    bql_unlock();
    if (!se) {
        error_setg(errp, "Unknown section %" PRIu32, section_id);
        return -EINVAL;
    }
    trace_loadvm_section(se->idstr, section_id, type);
    if (type == QEMU_VM_SECTION_END) {
        se->load_ended = true;
    }
    return load_contents(mis, f, se, errp);
}

/* --- commands --- */

static int open_return_path(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    bool twice, ack;

    g_mutex_lock(&mis->lock);
    twice = mis->to_src;
    if (!twice) {
        mis->to_src = qemu_file_get_return(f);
    }
    ack = migrate_switchover_ack(mis->settings) && mis->switchover_ack_pending == 0 &&
          mis->settings->compat.switchover_ack_legacy;
    g_mutex_unlock(&mis->lock);
    if (twice) {
        error_setg(errp, "CMD_OPEN_RETURN_PATH called when RP already open");
        return -EINVAL;
    }
    if (!mis->to_src) {
        error_setg(errp, "the source wants a return path, but the channel has no way back");
        return -EINVAL;
    }
    return ack ? migrate_send_rp_switchover_ack(mis) : 0;
}

static int load_ping(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    uint32_t value = qemu_get_be32(f);

    if (!mis->to_src) {
        error_setg(errp, "CMD_PING (0x%" PRIx32 ") received with no return path", value);
        return -EPERM;
    }
    /* A source that has gone will be noticed where it matters: when the stream ends early. */
    (void)migrate_send_rp_pong(mis, value);
    return 0;
}

/* Bytes of data that a command has; -1: any number. */
static const struct {
    int len;
    const char *name;
} commands[MIG_CMD_MAX] = {
    [MIG_CMD_OPEN_RETURN_PATH] = {0, "OPEN_RETURN_PATH"},
    [MIG_CMD_PING] = {4, "PING"},
    [MIG_CMD_POSTCOPY_ADVISE] = {-1, "POSTCOPY_ADVISE"},
    [MIG_CMD_POSTCOPY_LISTEN] = {0, "POSTCOPY_LISTEN"},
    [MIG_CMD_POSTCOPY_RUN] = {0, "POSTCOPY_RUN"},
    [MIG_CMD_POSTCOPY_RAM_DISCARD] = {-1, "POSTCOPY_RAM_DISCARD"},
    [MIG_CMD_PACKAGED] = {4, "PACKAGED"},
    [MIG_CMD_ENABLE_COLO] = {-1, "ENABLE_COLO"},
    [MIG_CMD_POSTCOPY_RESUME] = {0, "POSTCOPY_RESUME"},
    [MIG_CMD_RECV_BITMAP] = {-1, "RECV_BITMAP"},
    [MIG_CMD_SWITCHOVER_START] = {0, "SWITCHOVER_START"},
};

static int load_command(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    uint16_t cmd = qemu_get_be16(f), len = qemu_get_be16(f);

    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error_obj(f, errp);
    }
    trace_loadvm_command(cmd, len);
    if (cmd == MIG_CMD_INVALID || cmd >= MIG_CMD_MAX) {
        error_setg(errp, "MIG_CMD 0x%x unknown (len 0x%x)", cmd, len);
        return -EINVAL;
    }
    if (commands[cmd].len >= 0 && commands[cmd].len != len) {
        error_setg(errp, "%s received with bad length - expecting %d, got %u", commands[cmd].name,
                   commands[cmd].len, len);
        return -ERANGE;
    }
    switch (cmd) {
    case MIG_CMD_OPEN_RETURN_PATH:
        return open_return_path(mis, f, errp);
    case MIG_CMD_PING:
        return load_ping(mis, f, errp);
    case MIG_CMD_SWITCHOVER_START:
        return 0; /* nobody here has to prepare for it */
    default:
        error_setg(errp, "the source sent %s, which this destination does not support",
                   commands[cmd].name);
        return -ENOTSUP;
    }
}

/* --- the whole --- */

static int load_items(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    for (;;) {
        uint8_t type = qemu_get_byte(f);
        int ret = qemu_file_get_error_obj(f, errp);

        if (ret < 0) {
            return ret;
        }
        switch (type) {
        case QEMU_VM_SECTION_START:
        case QEMU_VM_SECTION_FULL:
            ret = load_first_section(mis, f, type, errp);
            break;
        case QEMU_VM_SECTION_PART:
        case QEMU_VM_SECTION_END:
            ret = load_next_section(mis, f, type, errp);
            break;
        case QEMU_VM_COMMAND:
            ret = load_command(mis, f, errp);
            break;
        case QEMU_VM_EOF:
            return 0;
        default:
            error_setg(errp, "Unknown section type %u at offset %" PRIu64, type,
                       qemu_file_transferred(f) - 1);
            return -EINVAL;
        }
        if (ret == 0) {
            ret = qemu_file_get_error_obj(f, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
}

/*
 * The byte that ends a stream is a zero, and so is what is left of a file whose data got lost: what
 * travels in several sections has to be whole.
 */
static int check_all_ended(const GPtrArray *live, GError **errp)
{
    for (guint i = 0; i < live->len; i++) {
        const SaveStateEntry *se = g_ptr_array_index(live, i);

        if ((se->loaded || se->ops->always_sent) && !se->load_ended) {
            error_setg(errp, "the stream ends before the last section of '%s'", se->idstr);
            return -EINVAL;
        }
    }
    return 0;
}

/*
 * The description is for people and tools; the guest has arrived without it. It is read to its end,
 * though, so that the source does not see its last bytes refused. -EINVAL when the stream goes on
 * with zeroes: then its end was none.
 */
static int drop_description(QEMUFile *f, GError **errp)
{
    uint8_t type;
    uint32_t len;

    if (qemu_file_at_end(f)) {
        warn_report("Expected vmdescription section, but got %d", 0);
        return 0;
    }
    type = qemu_get_byte(f);
    if (type == QEMU_VM_EOF) {
        error_setg(errp, "the stream ends in zeroes: what was there is lost");
        return -EINVAL;
    }
    if (type != QEMU_VM_VMDESCRIPTION) {
        warn_report("Expected vmdescription section, but got %u", type);
        return 0;
    }
    len = qemu_get_be32(f);
    if (len > VMDESC_MAX || qemu_file_skip(f, len) < 0) {
        warn_report("the description at the end of the stream is cut short");
    }
    return 0;
}

int loadvm_approve_switchover(MigrationIncomingState *mis)
{
    bool last;

    g_mutex_lock(&mis->lock);
    last = mis->switchover_ack_pending > 0 && --mis->switchover_ack_pending == 0;
    last = last && migrate_switchover_ack(mis->settings) && mis->to_src;
    g_mutex_unlock(&mis->lock);
    /* before the return path is open: whoever opens it says so */
    return last ? migrate_send_rp_switchover_ack(mis) : 0;
}

static void count_switchover_acks(MigrationIncomingState *mis, const GPtrArray *live)
{
    int pending = 0;

    for (guint i = 0; i < live->len; i++) {
        const SaveStateEntry *se = g_ptr_array_index(live, i);

        pending += se->ops->switchover_ack_needed && se->ops->switchover_ack_needed(se->opaque);
    }
    g_mutex_lock(&mis->lock);
    mis->switchover_ack_pending = pending;
    g_mutex_unlock(&mis->lock);
}

static int live_load_setup(MigrationIncomingState *mis, GPtrArray *live, GError **errp)
{
    SaveStateEntry *se;
    int ret = 0;

    bql_lock();
    savevm_reset_loaded();
    TAILQ_FOREACH(se, savevm_entries(), next) {
        if (se->ops) {
            g_ptr_array_add(live, se);
        }
    }
    bql_unlock();
    count_switchover_acks(mis, live);
    for (guint i = 0; i < live->len && ret == 0; i++) {
        se = g_ptr_array_index(live, i);
        ret = se->ops->load_setup ? se->ops->load_setup(se->opaque, errp) : 0;
        if (ret < 0) {
            g_ptr_array_set_size(live, (gint)i + 1); /* those that want their cleanup */
        }
    }
    return ret;
}

/* What cannot be migrated cannot be given a new state either. */
static bool all_migratable(GError **errp)
{
    SaveStateEntry *se;
    const SaveStateEntry *bad = NULL;

    bql_lock();
    TAILQ_FOREACH(se, savevm_entries(), next) {
        if (se->blocker) {
            bad = se;
            break;
        }
    }
    bql_unlock();
    if (bad) {
        error_setg(errp, "the state of the device '%s' cannot be migrated", bad->idstr);
    }
    return !bad;
}

int loadvm_state(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    g_autoptr(GPtrArray) live = g_ptr_array_new();
    int ret;

    ret = all_migratable(errp) ? load_header(mis, f, errp) : -EINVAL;
    if (ret == 0) {
        ret = live_load_setup(mis, live, errp);
    }
    if (ret == 0) {
        ret = load_items(mis, f, errp);
    }
    if (ret == 0) {
        ret = check_all_ended(live, errp);
    }
    if (ret == 0) {
        bql_lock();
        ret = cpus_push(errp) ? 0 : -EINVAL;
        bql_unlock();
    }
    for (guint i = 0; i < live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(live, i);

        if (se->ops->load_cleanup) {
            se->ops->load_cleanup(se->opaque);
        }
    }
    return ret < 0 ? ret : drop_description(f, errp);
}
