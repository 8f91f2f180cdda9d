/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writing the stream: header, sections of live parts, sections of devices, the end. */
#include "migration/savevm.h"

#include <errno.h>
#include <string.h>
#include "accel/cpus.h"
#include "accel/vm-stop.h"
#include "trace/trace-migration.h"
#include "util/bql.h"
#include "util/bswap.h"
#include "util/error.h"
#include "vmstate/register.h"
#include "vmstate/vmstate.h"

struct SaveVMState {
    GPtrArray *live; /* SaveStateEntry, in order; devices cannot come or go meanwhile */
    guint
        prepared; /* of which that many have had their early set-up, the last one perhaps in part */
    guint set_up; /* and that many their START section */
    bool footers;
};

int savevm_send_header(QEMUFile *f, const MigrationSettings *settings, GError **errp)
{
    qemu_put_be32(f, QEMU_VM_FILE_MAGIC);
    qemu_put_be32(f, QEMU_VM_FILE_VERSION);
    return settings->compat.send_configuration ? configuration_save(f, settings, NULL, errp) : 0;
}

/* --- sections --- */

static void put_section_header(QEMUFile *f, const SaveStateEntry *se, uint8_t type)
{
    qemu_put_byte(f, type);
    qemu_put_be32(f, se->section_id);
    if (type == QEMU_VM_SECTION_START || type == QEMU_VM_SECTION_FULL) {
        qemu_put_counted_string(f, se->idstr);
        qemu_put_be32(f, se->instance_id);
        qemu_put_be32(f, se->version_id);
    }
}

static void put_section_footer(QEMUFile *f, const SaveStateEntry *se, bool footers)
{
    if (footers) {
        qemu_put_byte(f, QEMU_VM_SECTION_FOOTER);
        qemu_put_be32(f, se->section_id);
    }
}

/* One section of a live part: what `contents` writes; returns what it returns. */
static int put_live_section(SaveVMState *sv, QEMUFile *f, SaveStateEntry *se, uint8_t type,
                            int (*contents)(QEMUFile *f, void *opaque, GError **errp),
                            GError **errp)
{
    int ret, file_ret;

    trace_savevm_section(se->idstr, se->section_id, type);
    put_section_header(f, se, type);
    ret = contents(f, se->opaque, errp);
    if (ret < 0) {
        return ret;
    }
    put_section_footer(f, se, sv->footers);
    file_ret = qemu_file_get_error_obj(f, errp);
    return file_ret < 0 ? file_ret : ret;
}

SaveVMState *savevm_prepare(const MigrationSettings *settings, GError **errp)
{
    SaveVMState *sv = g_new0(SaveVMState, 1);
    SaveStateEntry *se;

    sv->live = g_ptr_array_new();
    sv->footers = settings->compat.send_section_footer;
    bql_lock();
    TAILQ_FOREACH(se, savevm_entries(), next) {
        if (se->ops && se->ops->save_setup &&
            (!se->ops->is_active || se->ops->is_active(se->opaque))) {
            g_ptr_array_add(sv->live, se);
        }
    }
    bql_unlock();
    while (sv->prepared < sv->live->len) {
        se = g_ptr_array_index(sv->live, sv->prepared++);
        if (se->ops->save_prepare && se->ops->save_prepare(se->opaque, errp) < 0) {
            savevm_cleanup(sv);
            return NULL;
        }
    }
    return sv;
}

int savevm_setup(SaveVMState *sv, QEMUFile *f, GError **errp)
{
    int ret = 0;

    while (ret >= 0 && sv->set_up < sv->live->len) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, sv->set_up++);

        ret = put_live_section(sv, f, se, QEMU_VM_SECTION_START, se->ops->save_setup, errp);
    }
    return MIN(ret, 0);
}

int savevm_iterate(SaveVMState *sv, QEMUFile *f, GError **errp)
{
    for (guint i = 0; i < sv->live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, i);
        int ret;

        if (!se->ops->save_live_iterate) {
            continue;
        }
        ret = put_live_section(sv, f, se, QEMU_VM_SECTION_PART, se->ops->save_live_iterate, errp);
        if (ret <= 0) {
            return ret; /* the next part waits until this one's pass is over */
        }
    }
    return 1;
}

SaveVMPending savevm_pending_by_kind(SaveVMState *sv, bool exact)
{
    SaveVMPending pending = {0};

    for (guint i = 0; i < sv->live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, i);

        if (se->ops->state_pending) {
            se->ops->state_pending(se->opaque, exact, &pending);
        }
    }
    return pending;
}

uint64_t savevm_pending(SaveVMState *sv, bool exact)
{
    SaveVMPending pending = savevm_pending_by_kind(sv, exact);

    return pending.must_precopy + pending.can_postcopy;
}

int savevm_complete_live(SaveVMState *sv, QEMUFile *f, bool postcopy, GError **errp)
{
    int ret = 0;

    for (guint i = 0; ret >= 0 && i < sv->live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, i);

        if (se->ops->save_live_complete_precopy &&
            !(postcopy && se->ops->save_live_complete_postcopy)) {
            ret = put_live_section(sv, f, se, QEMU_VM_SECTION_END,
                                   se->ops->save_live_complete_precopy, errp);
        }
    }
    return MIN(ret, 0);
}

int savevm_complete_postcopy(SaveVMState *sv, QEMUFile *f, GError **errp)
{
    int ret = 0;

    for (guint i = 0; ret >= 0 && i < sv->live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, i);

        if (se->ops->save_live_complete_postcopy) {
            ret = put_live_section(sv, f, se, QEMU_VM_SECTION_END,
                                   se->ops->save_live_complete_postcopy, errp);
        }
    }
    return MIN(ret, 0);
}

int savevm_resume_prepare(SaveVMState *sv, GError **errp)
{
    int ret = 0;

    for (guint i = 0; ret >= 0 && i < sv->live->len; i++) {
        SaveStateEntry *se = g_ptr_array_index(sv->live, i);

        if (se->ops->resume_prepare) {
            ret = se->ops->resume_prepare(se->opaque, errp);
        }
    }
    return MIN(ret, 0);
}

void savevm_cleanup(SaveVMState *sv)
{
    if (!sv) {
        return;
    }
    for (guint i = 0; i < sv->live->len; i++) {
        const SaveStateEntry *se = g_ptr_array_index(sv->live, i);
        bool begun = i < sv->set_up || (se->ops->save_prepare && i < sv->prepared);

        if (begun && se->ops->save_cleanup) {
            se->ops->save_cleanup(se->opaque);
        }
    }
    g_ptr_array_unref(sv->live);
    g_free(sv);
}

/* --- devices --- */

static int put_devices(QEMUFile *f, const MigrationSettings *settings, JSONWriter *json,
                       GError **errp)
{
    SaveStateEntry *se;

    TAILQ_FOREACH(se, savevm_entries(), next) {
        int ret;

        if (!se->vmsd || !vmstate_section_needed(se->vmsd, se->opaque)) {
            continue;
        }
        trace_savevm_section(se->idstr, se->section_id, QEMU_VM_SECTION_FULL);
        put_section_header(f, se, QEMU_VM_SECTION_FULL);
        ret = vmstate_save_device(f, se->idstr, se->instance_id, se->vmsd, se->opaque, json, errp);
        if (ret < 0) {
            return ret;
        }
        put_section_footer(f, se, settings->compat.send_section_footer);
    }
    return 0;
}

/* The member "configuration" of the description: what the section in front of it all had. */
static int describe_configuration(const MigrationSettings *settings, JSONWriter *json,
                                  GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(SAVEVM_DEVICES_MAX);
    int ret;

    json_writer_start_object(json, "configuration");
    ret = configuration_save(f, settings, json, errp);
    json_writer_end_object(json);
    return ret;
}

static int put_device_state(QEMUFile *f, const MigrationSettings *settings, size_t *eof,
                            GError **errp)
{
    g_autoptr(JSONWriter) json = json_writer_new(false);
    int ret;

    json_writer_start_object(json, NULL);
    ret = describe_configuration(settings, json, errp);
    if (ret < 0) {
        return ret;
    }
    json_writer_int64(json, "page_size", 4096);
    json_writer_start_array(json, "devices");
    ret = put_devices(f, settings, json, errp);
    if (ret < 0) {
        return ret;
    }
    json_writer_end_array(json);
    json_writer_end_object(json);
    *eof = qemu_file_transferred(f);
    qemu_put_byte(f, QEMU_VM_EOF);
    qemu_put_byte(f, QEMU_VM_VMDESCRIPTION);
    qemu_put_be32(f, json_writer_length(json));
    qemu_put_buffer(f, json_writer_get(json), json_writer_length(json));
    return qemu_file_get_error_obj(f, errp);
}

GBytes *savevm_save_devices(const MigrationSettings *settings, size_t *eof, GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(SAVEVM_DEVICES_MAX);
    int ret;

    bql_lock();
    /* The last moment at which a stop that was wished meanwhile can travel with the guest. */
    global_state_store(vm_wished_state(), settings->compat.store_global_state);
    ret = cpus_fetch(errp) ? put_device_state(f, settings, eof, errp) : -EIO;
    bql_unlock();
    return ret < 0 ? NULL : qemu_file_memory_steal(f);
}

/* --- commands --- */

void savevm_send_command(QEMUFile *f, MigCommand cmd, const void *data, uint16_t len)
{
    trace_savevm_send_command(cmd, len);
    qemu_put_byte(f, QEMU_VM_COMMAND);
    qemu_put_be16(f, cmd);
    qemu_put_be16(f, len);
    if (len) {
        qemu_put_buffer(f, data, len);
    }
}

void savevm_send_ping(QEMUFile *f, uint32_t value)
{
    uint8_t buf[4];

    stl_be_p(buf, value);
    savevm_send_command(f, MIG_CMD_PING, buf, sizeof(buf));
}
