/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * VMState: saving, and the JSON that says what has been saved.
 *
 * The JSON is QEMU 11.1's. Elements of an array that all look the same are one object with
 * "array_len"; others are listed one by one. Fields of the same name are called name[0], name[1],
 * ...
 */
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "vmstate/qemu-file-int.h"
#include "vmstate/vmstate-int.h"
#include "vmstate/vmstate.h"

/* --- the look of elements --- */

static bool vmstate_field_is_list(const VMStateField *field)
{
    return field->info == &vmstate_info_qtailq || field->info == &vmstate_info_qlist ||
           field->info == &vmstate_info_gtree;
}

/* Every value of this field has the same layout. */
static bool vmstate_field_is_uniform(const VMStateField *field, unsigned depth)
{
    if (field->field_exists || depth > VMSTATE_MAX_DEPTH) {
        return false;
    }
    if (depth > 0 && (field->count_type != VMS_COUNT_FIXED || vmstate_field_is_list(field) ||
                      field->flags & VMS_ARRAY_OF_POINTER)) {
        return false;
    }
    if (field->vmsd) {
        if (field->vmsd->subsections && field->vmsd->subsections[0]) {
            return false;
        }
        for (const VMStateField *sub = field->vmsd->fields; sub && !(sub->flags & VMS_END); sub++) {
            if (!vmstate_field_is_uniform(sub, depth + 1)) {
                return false;
            }
        }
    }
    return true;
}

/* The name in the JSON: with a number if it is not the only one. Caller frees. */
static char *vmstate_field_label(const VMStateDescription *vmsd, const VMStateField *field)
{
    unsigned before = 0, all = 0;

    for (const VMStateField *other = vmsd->fields; !(other->flags & VMS_END); other++) {
        if (!strcmp(other->name, field->name)) {
            before += other < field;
            all++;
        }
    }
    return all > 1 ? g_strdup_printf("%s[%u]", field->name, before) : g_strdup(field->name);
}

static const char *vmstate_field_type(const VMStateField *field, const void *element)
{
    if (!element && field->flags & VMS_ARRAY_OF_POINTER) {
        return vmstate_info_nullptr.name;
    }
    if (field->flags & VMS_STRUCT) {
        return field->flags & VMS_VSTRUCT ? "vstruct" : "struct";
    }
    return field->info->name;
}

/* --- one field --- */

static int vmstate_save_element(QEMUFile *f, const VMStateField *field, void *element, size_t size,
                                JSONWriter *vmdesc, GError **errp)
{
    int ret;

    if (!element && field->flags & VMS_ARRAY_OF_POINTER) {
        if (field->flags & VMS_ALLOC_ELEMENTS) {
            error_setg(errp, "an element does not exist here");
            return -EINVAL;
        }
        return vmstate_info_nullptr.put(f, NULL, 0, field, vmdesc, errp);
    }
    if (field->flags & VMS_VSTRUCT) {
        return vmstate_save_state_v(f, field->vmsd, element, vmdesc, field->struct_version_id,
                                    errp);
    }
    if (field->flags & VMS_STRUCT) {
        if (vmdesc) {
            json_writer_start_object(vmdesc, "struct");
        }
        ret = vmstate_save_state(f, field->vmsd, element, vmdesc, errp);
        if (vmdesc) {
            json_writer_end_object(vmdesc);
        }
        return ret;
    }
    return field->info->put(f, element, size, field, vmdesc, errp);
}

/* Writes an element and its object; that stands for `run` elements that look the same. */
static int vmstate_save_described(QEMUFile *f, const VMStateField *field, void *element,
                                  size_t size, size_t run, const char *label, JSONWriter *vmdesc,
                                  GError **errp)
{
    uint64_t start = qemu_file_transferred(f);
    int ret;

    json_writer_start_object(vmdesc, NULL);
    json_writer_str(vmdesc, "name", label);
    if (run > 1) {
        json_writer_uint64(vmdesc, "array_len", run);
    }
    json_writer_str(vmdesc, "type", vmstate_field_type(field, element));
    ret = vmstate_save_element(f, field, element, size, vmdesc, errp);
    json_writer_uint64(vmdesc, "size", qemu_file_transferred(f) - start);
    json_writer_end_object(vmdesc);
    return ret;
}

/* How many elements from i on look the same. */
static size_t vmstate_uniform_run(const VMStateField *field, void *base,
                                  const VMStateExtent *extent, size_t i)
{
    bool is_null = !vmstate_field_element(field, base, extent, i);
    size_t end = i + 1;

    if (!(field->flags & VMS_ARRAY) || !(is_null || vmstate_field_is_uniform(field, 0))) {
        return 1;
    }
    while (end < extent->n && !vmstate_field_element(field, base, extent, end) == is_null) {
        end++;
    }
    return end - i;
}

static int vmstate_save_elements(QEMUFile *f, const VMStateField *field,
                                 const VMStateExtent *extent, void *base, const char *label,
                                 JSONWriter *vmdesc, GError **errp)
{
    size_t run_end = 0;

    for (size_t i = 0; i < extent->n; i++) {
        void *element = vmstate_field_element(field, base, extent, i);
        int ret;

        if (vmdesc && i == run_end) {
            run_end = i + vmstate_uniform_run(field, base, extent, i);
            ret = vmstate_save_described(f, field, element, extent->size, run_end - i, label,
                                         vmdesc, errp);
        } else {
            ret = vmstate_save_element(f, field, element, extent->size, NULL, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

static int vmstate_save_field(QEMUFile *f, const VMStateDescription *vmsd,
                              const VMStateField *field, void *opaque, JSONWriter *vmdesc,
                              GError **errp)
{
    g_autofree char *label = vmdesc ? vmstate_field_label(vmsd, field) : NULL;
    VMStateExtent extent;
    void *base;
    int ret = vmstate_field_extent(field, opaque, &extent, errp);

    if (ret == 0) {
        ret = vmstate_field_base(field, opaque, &extent, &base, errp);
    }
    if (ret == 0) {
        ret = vmstate_save_elements(f, field, &extent, base, label, vmdesc, errp);
    }
    if (ret < 0) {
        if (errp && !*errp) {
            error_setg(errp, "%s", g_strerror(-ret));
        }
        g_prefix_error(errp, "Failed to save %s:%s: ", vmsd->name, field->name);
    }
    return ret;
}

static int vmstate_save_fields(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                               JSONWriter *vmdesc, int version_id, GError **errp)
{
    for (const VMStateField *field = vmsd->fields; field && !(field->flags & VMS_END); field++) {
        bool exists = vmstate_field_exists(field, opaque, version_id);
        int ret;

        if (field->flags & VMS_VALIDATE) {
            if (!exists) {
                error_setg(errp, "Output state validation failed: %s/%s", vmsd->name, field->name);
                return -EINVAL;
            }
        } else if (exists) {
            ret = vmstate_save_field(f, vmsd, field, opaque, vmdesc, errp);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* --- descriptions --- */

static int vmstate_save_subsection(QEMUFile *f, const VMStateDescription *sub, void *opaque,
                                   JSONWriter *vmdesc, GError **errp)
{
    int ret;

    if (vmdesc) {
        json_writer_start_object(vmdesc, NULL);
    }
    qemu_put_byte(f, QEMU_VM_SUBSECTION);
    qemu_put_counted_string(f, sub->name);
    qemu_put_be32(f, sub->version_id);
    ret = vmstate_save_state(f, sub, opaque, vmdesc, errp);
    if (vmdesc) {
        json_writer_end_object(vmdesc);
    }
    return ret;
}

static int vmstate_save_subsections(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                                    JSONWriter *vmdesc, GError **errp)
{
    bool any = false;
    int ret = 0;

    for (size_t i = 0; ret == 0 && vmsd->subsections && vmsd->subsections[i]; i++) {
        if (!vmstate_section_needed(vmsd->subsections[i], opaque)) {
            continue;
        }
        if (!any && vmdesc) {
            json_writer_start_array(vmdesc, "subsections");
        }
        any = true;
        ret = vmstate_save_subsection(f, vmsd->subsections[i], opaque, vmdesc, errp);
    }
    if (any && vmdesc) {
        json_writer_end_array(vmdesc);
    }
    return ret;
}

/* What a device has to put in order first. Its hook may leave the words to us. */
static int prepare_to_save(const VMStateDescription *vmsd, void *opaque, GError **errp)
{
    g_autoptr(GError) err = NULL;
    int ret = vmsd->pre_save ? vmsd->pre_save(opaque, &err) : 0;

    if (ret < 0) {
        error_setg(errp, "the state of %s could not be prepared to be saved: %s", vmsd->name,
                   err ? err->message : g_strerror(-ret));
        return ret;
    }
    return 0;
}

static int vmstate_save_contents(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                                 JSONWriter *vmdesc, int version_id, GError **errp)
{
    int ret = prepare_to_save(vmsd, opaque, errp);

    if (ret < 0) {
        return ret;
    }
    if (vmdesc) {
        json_writer_str(vmdesc, "vmsd_name", vmsd->name);
        json_writer_int64(vmdesc, "version", version_id);
        json_writer_start_array(vmdesc, "fields");
    }
    ret = vmstate_save_fields(f, vmsd, opaque, vmdesc, version_id, errp);
    if (vmdesc) {
        json_writer_end_array(vmdesc);
    }
    if (ret == 0) {
        ret = vmstate_save_subsections(f, vmsd, opaque, vmdesc, errp);
    }
    if (ret == 0) {
        ret = qemu_file_get_error_obj(f, errp);
    }
    if (vmsd->post_save) {
        vmsd->post_save(opaque);
    }
    return ret;
}

int vmstate_save_state_v(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                         JSONWriter *vmdesc, int version_id, GError **errp)
{
    int ret = vmstate_enter(f, vmsd, errp);

    if (ret == 0) {
        ret = vmstate_save_contents(f, vmsd, opaque, vmdesc, version_id, errp);
        vmstate_leave(f);
    }
    return ret;
}

int vmstate_save_state(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                       JSONWriter *vmdesc, GError **errp)
{
    return vmstate_save_state_v(f, vmsd, opaque, vmdesc, vmsd->version_id, errp);
}

/* --- devices --- */

static void vmstate_start_device(JSONWriter *devices, const char *idstr, uint32_t instance_id)
{
    json_writer_start_object(devices, NULL);
    json_writer_str(devices, "name", idstr);
    json_writer_uint64(devices, "instance_id", instance_id);
}

int vmstate_save_device(QEMUFile *f, const char *idstr, uint32_t instance_id,
                        const VMStateDescription *vmsd, void *opaque, JSONWriter *devices,
                        GError **errp)
{
    int ret;

    if (devices) {
        vmstate_start_device(devices, idstr, instance_id);
    }
    ret = vmstate_save_state(f, vmsd, opaque, devices, errp);
    if (devices) {
        json_writer_end_object(devices);
    }
    if (ret < 0) {
        g_prefix_error(errp,
                       "error while saving state for instance 0x%x of device '%s': ", instance_id,
                       idstr);
    }
    return ret;
}

void vmstate_describe_opaque_device(JSONWriter *devices, const char *idstr, uint32_t instance_id,
                                    uint64_t size)
{
    vmstate_start_device(devices, idstr, instance_id);
    json_writer_uint64(devices, "size", size);
    json_writer_start_array(devices, "fields");
    json_writer_start_object(devices, NULL);
    json_writer_str(devices, "name", "data");
    json_writer_uint64(devices, "size", size);
    json_writer_str(devices, "type", "buffer");
    json_writer_end_object(devices);
    json_writer_end_array(devices);
    json_writer_end_object(devices);
}
