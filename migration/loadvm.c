/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the stream. The peer is not trusted: everything is checked before it is used, and the first
 * thing that is wrong ends the load with a message that names it.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "accel/cpus.h"
#include "migration/savevm.h"
#include "trace/trace-migration.h"
#include "util/bql.h"
#include "util/error.h"
#include "vmstate/load-table.h"
#include "vmstate/vmstate.h"

/* Longest description at the end of a stream, bytes; it is read and dropped. */
#define VMDESC_MAX (256u * 1024 * 1024)

/* A load under way; the incoming thread's. */
typedef struct Load {
    MigrationIncomingState *mis;
    QEMUFile *f;
    LoadTable *table;
} Load;

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
static int load_device(QEMUFile *f, const LoadItem *item, GError **errp)
{
    const SaveStateEntry *se = item->se;
    int ret;

    bql_lock();
    if (savevm_entry_is_gone(se)) {
        bql_unlock();
        error_setg(errp, "the device '%s' was removed while the guest was loaded", se->idstr);
        return -ENODEV;
    }
    qemu_file_set_wait_hooks(f, drop_big_lock, retake_big_lock, NULL);
    ret = vmstate_load_device(f, se->idstr, se->instance_id, se->vmsd, se->opaque, item->version_id,
                              errp);
    qemu_file_set_wait_hooks(f, NULL, NULL, NULL);
    bql_unlock();
    return ret;
}

static int load_live(QEMUFile *f, const LoadItem *item, GError **errp)
{
    const SaveStateEntry *se = item->se;
    int ret;

    if (!se->ops->load_state) {
        error_setg(errp, "'%s' takes no part in this migration here", se->idstr);
        return -EINVAL;
    }
    ret = se->ops->load_state(f, se->opaque, item->version_id, errp);
    if (ret < 0) {
        g_prefix_error(errp,
                       "error while loading state for instance 0x%" PRIx32 " of device '%s': ",
                       se->instance_id, se->idstr);
    }
    return ret;
}

static int check_footer(Load *load, const LoadItem *item, GError **errp)
{
    uint8_t mark;
    uint32_t id;

    if (!load->mis->settings->compat.send_section_footer) {
        return 0;
    }
    mark = qemu_get_byte(load->f);
    if (qemu_file_get_error(load->f) < 0) {
        return qemu_file_get_error_obj(load->f, errp);
    }
    if (mark != QEMU_VM_SECTION_FOOTER) {
        error_setg(errp, "Missing section footer for %s", item->se->idstr);
        return -EINVAL;
    }
    id = qemu_get_be32(load->f);
    if (id != item->section_id && qemu_file_get_error(load->f) == 0) {
        error_setg(
            errp, "Mismatched section id in footer for %s - read 0x%" PRIx32 " expected 0x%" PRIx32,
            item->se->idstr, id, item->section_id);
        return -EINVAL;
    }
    return 0;
}

static int load_contents(Load *load, LoadItem *item, GError **errp)
{
    int ret = item->se->vmsd ? load_device(load->f, item, errp) : load_live(load->f, item, errp);

    return ret < 0 ? ret : check_footer(load, item, errp);
}

/* The first section of a part: the START of a live one, or a whole device. */
typedef struct SectionName {
    uint32_t section_id, instance_id, version_id;
    char idstr[256];
} SectionName;

static int read_section_name(QEMUFile *f, SectionName *name, GError **errp)
{
    name->section_id = qemu_get_be32(f);
    (void)!qemu_get_counted_string(f, name->idstr);
    name->instance_id = qemu_get_be32(f);
    name->version_id = qemu_get_be32(f);
    return qemu_file_get_error_obj(f, errp);
}

static int load_first_section(Load *load, uint8_t type, GError **errp)
{
    SectionName name;
    LoadItem *item;
    int ret = read_section_name(load->f, &name, errp);

    if (ret < 0) {
        return ret;
    }
    trace_loadvm_section(name.idstr, name.section_id, type);
    item = load_table_find(load->table, name.idstr, name.instance_id);
    if (!item) {
        error_setg(
            errp,
            "Unknown section or instance '%s' %" PRIu32
            ": this guest has no such device; is it configured as the one that was saved, with "
            "the devices that were plugged in later?",
            name.idstr, name.instance_id);
        return -EINVAL;
    }
    if (name.version_id > (uint32_t)item->se->version_id) {
        error_setg(errp, "unsupported version %" PRIu32 " for '%s' v%d", name.version_id,
                   name.idstr, item->se->version_id);
        return -EINVAL;
    }
    item->started = true;
    item->section_id = name.section_id;
    item->version_id = (int)name.version_id;
    return load_contents(load, item, errp);
}

/* What is to be done once all of a live part has come. */
static int end_live(LoadItem *item, GError **errp)
{
    const SaveStateEntry *se = item->se;

    item->ended = true;
    return se->ops && se->ops->load_complete ? se->ops->load_complete(se->opaque, errp) : 0;
}

/* A further section, PART or END, of what has started. */
static int load_next_section(Load *load, uint8_t type, GError **errp)
{
    uint32_t section_id = qemu_get_be32(load->f);
    LoadItem *item;
    int ret = qemu_file_get_error_obj(load->f, errp);

    if (ret < 0) {
        return ret;
    }
    item = load_table_find_started(load->table, section_id);
    if (!item) {
        error_setg(errp, "Unknown section %" PRIu32, section_id);
        return -EINVAL;
    }
    trace_loadvm_section(item->se->idstr, section_id, type);
    ret = load_contents(load, item, errp);
    return ret == 0 && type == QEMU_VM_SECTION_END ? end_live(item, errp) : ret;
}

/* --- commands --- */

static int open_return_path(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    bool ack;

    if (mis->to_src) {
        error_setg(errp, "CMD_OPEN_RETURN_PATH called when RP already open");
        return -EINVAL;
    }
    g_mutex_lock(&mis->send_lock);
    mis->to_src = qemu_file_get_return(f);
    g_mutex_unlock(&mis->send_lock);
    if (!mis->to_src) {
        error_setg(errp, "the source wants a return path, but the channel has no way back");
        return -EINVAL;
    }
    g_mutex_lock(&mis->lock);
    mis->return_path_open = true;
    ack = migrate_switchover_ack(mis->settings) && mis->switchover_ack_pending == 0 &&
          mis->settings->compat.switchover_ack_legacy;
    g_mutex_unlock(&mis->lock);
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

/* Prepares for nothing: devices that have to get ready do so when their state comes. */
static int note_switchover(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    return 0;
}

enum { ANY_LENGTH = -1 };

/* Commands by number, those that this destination does not carry out without a function. */
static const struct {
    const char *name;
    int data_bytes;
    int (*run)(MigrationIncomingState *mis, QEMUFile *f, GError **errp);
} commands[MIG_CMD_MAX] = {
    [MIG_CMD_OPEN_RETURN_PATH] = {"OPEN_RETURN_PATH", 0, open_return_path},
    [MIG_CMD_PING] = {"PING", 4, load_ping},
    [MIG_CMD_SWITCHOVER_START] = {"SWITCHOVER_START", 0, note_switchover},

    [MIG_CMD_POSTCOPY_ADVISE] = {"POSTCOPY_ADVISE", ANY_LENGTH},
    [MIG_CMD_POSTCOPY_LISTEN] = {"POSTCOPY_LISTEN", 0},
    [MIG_CMD_POSTCOPY_RUN] = {"POSTCOPY_RUN", 0},
    [MIG_CMD_POSTCOPY_RAM_DISCARD] = {"POSTCOPY_RAM_DISCARD", ANY_LENGTH},
    [MIG_CMD_POSTCOPY_RESUME] = {"POSTCOPY_RESUME", 0},
    [MIG_CMD_PACKAGED] = {"PACKAGED", 4},
    [MIG_CMD_ENABLE_COLO] = {"ENABLE_COLO", ANY_LENGTH},
    [MIG_CMD_RECV_BITMAP] = {"RECV_BITMAP", ANY_LENGTH},
};

static int load_command(Load *load, GError **errp)
{
    uint16_t number = qemu_get_be16(load->f), bytes = qemu_get_be16(load->f);
    int ret = qemu_file_get_error_obj(load->f, errp);

    if (ret < 0) {
        return ret;
    }
    trace_loadvm_command(number, bytes);
    if (number >= MIG_CMD_MAX || !commands[number].name) {
        error_setg(errp, "MIG_CMD 0x%x unknown (len 0x%x)", number, bytes);
        return -EINVAL;
    }
    if (commands[number].data_bytes != ANY_LENGTH && commands[number].data_bytes != bytes) {
        error_setg(errp, "%s received with bad length - expecting %d, got %u",
                   commands[number].name, commands[number].data_bytes, bytes);
        return -ERANGE;
    }
    if (!commands[number].run) {
        error_setg(errp, "the source sent %s, which this destination does not support",
                   commands[number].name);
        return -ENOTSUP;
    }
    return commands[number].run(load->mis, load->f, errp);
}

/* --- the whole --- */

/* One item of the stream. 1: it was the end. */
static int load_item(Load *load, GError **errp)
{
    uint8_t type = qemu_get_byte(load->f);
    int ret = qemu_file_get_error_obj(load->f, errp);

    if (ret < 0) {
        return ret;
    }
    switch (type) {
    case QEMU_VM_EOF:
        return 1;
    case QEMU_VM_COMMAND:
        return load_command(load, errp);
    case QEMU_VM_SECTION_FULL:
    case QEMU_VM_SECTION_START:
        return load_first_section(load, type, errp);
    case QEMU_VM_SECTION_PART:
    case QEMU_VM_SECTION_END:
        return load_next_section(load, type, errp);
    default:
        error_setg(errp, "Unknown section type %u at offset %" PRIu64, type,
                   qemu_file_transferred(load->f) - 1);
        return -EINVAL;
    }
}

static int load_items(Load *load, GError **errp)
{
    int ret;

    do {
        ret = load_item(load, errp);
        if (ret == 0) {
            ret = qemu_file_get_error_obj(load->f, errp);
        }
    } while (ret == 0);
    return MIN(ret, 0);
}

/*
 * The byte that ends a stream is a zero, and so is what is left of a file whose data got lost. So
 * the loader checks that what travels in several sections is whole.
 */
static int check_all_ended(const LoadTable *table, GError **errp)
{
    for (unsigned i = 0; i < table->n; i++) {
        const LoadItem *item = &table->items[i];
        const SaveVMHandlers *ops = item->se->ops;

        if (ops && !item->ended &&
            (ops->always_sent || (item->started && savevm_handlers_send_end(ops)))) {
            error_setg(errp, "the stream ends before the last section of '%s'", item->se->idstr);
            return -EINVAL;
        }
    }
    return 0;
}

/*
 * The description is for people and tools; the guest has arrived without it. It is still read to
 * its end, so that the source does not see its last bytes refused. The result is -EINVAL when the
 * stream goes on with zeroes: then the byte before was not its end.
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
    last = last && migrate_switchover_ack(mis->settings) && mis->return_path_open;
    g_mutex_unlock(&mis->lock);
    /* before the return path is open: the incoming thread says so when it opens it */
    return last ? migrate_send_rp_switchover_ack(mis) : 0;
}

static void count_switchover_acks(MigrationIncomingState *mis, const LoadTable *table)
{
    int pending = 0;

    for (unsigned i = 0; i < table->n; i++) {
        const SaveStateEntry *se = table->items[i].se;

        pending +=
            se->ops && se->ops->switchover_ack_needed && se->ops->switchover_ack_needed(se->opaque);
    }
    g_mutex_lock(&mis->lock);
    mis->switchover_ack_pending = pending;
    g_mutex_unlock(&mis->lock);
}

/* *n: how many entries want their load_cleanup() afterwards. */
static int live_load_setup(const LoadTable *table, unsigned *n, GError **errp)
{
    int ret = 0;

    for (*n = 0; *n < table->n && ret == 0; ++*n) {
        const SaveStateEntry *se = table->items[*n].se;

        if (se->ops && se->ops->load_setup) {
            ret = se->ops->load_setup(se->opaque, errp);
        }
    }
    return ret;
}

/* What cannot be migrated cannot be given a new state either. Big lock. */
static bool all_migratable(const LoadTable *table, GError **errp)
{
    for (unsigned i = 0; i < table->n; i++) {
        if (table->items[i].se->blocker) {
            error_setg(errp, "the state of the device '%s' cannot be migrated",
                       table->items[i].se->idstr);
            return false;
        }
    }
    return true;
}

int loadvm_state(MigrationIncomingState *mis, QEMUFile *f, GError **errp)
{
    g_autoptr(LoadTable) table = NULL;
    Load load = {.mis = mis, .f = f};
    unsigned set_up = 0;
    bool ok;
    int ret;

    bql_lock();
    load.table = table = load_table_new();
    ok = all_migratable(table, errp);
    bql_unlock();
    ret = ok ? load_header(mis, f, errp) : -EINVAL;
    if (ret == 0) {
        count_switchover_acks(mis, table);
        ret = live_load_setup(table, &set_up, errp);
    }
    if (ret == 0) {
        ret = load_items(&load, errp);
    }
    if (ret == 0) {
        ret = check_all_ended(table, errp);
    }
    if (ret == 0) {
        bql_lock();
        ret = cpus_push(errp) ? 0 : -EINVAL;
        bql_unlock();
    }
    for (unsigned i = 0; i < set_up; i++) {
        const SaveStateEntry *se = table->items[i].se;

        if (se->ops && se->ops->load_cleanup) {
            se->ops->load_cleanup(se->opaque);
        }
    }
    return ret < 0 ? ret : drop_description(f, errp);
}
