/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: the descriptions that device types have, as QEMU's -dump-vmstate shows them. */
#include <string.h>
#include "vmstate/vmstate.h"

/* Type name to description, in the order of names; main thread. */
static GTree *class_descriptions;

static int compare_names(const void *a, const void *b, void *opaque)
{
    return strcmp(a, b);
}

/* --- what no description may be --- */

static void vmstate_check_field(const VMStateDescription *vmsd, const VMStateField *field)
{
    const char *wrong = NULL;

    if (!field->name) {
        g_error("%s: a field has no name, or VMSTATE_END_OF_LIST() is missing", vmsd->name);
    }
    if (field->flags & VMS_VALIDATE) {
        wrong = field->field_exists ? NULL : "validates nothing";
    } else if (!field->info == !(field->flags & VMS_STRUCT)) {
        wrong = "is neither a value nor a struct, or both";
    } else if (field->flags & VMS_STRUCT && !field->vmsd) {
        wrong = "has no description";
    } else if (field->count_type != VMS_COUNT_FIXED && field->capacity == 0) {
        wrong = "has no capacity";
    } else if (field->version_id > vmsd->version_id) {
        wrong = "is newer than its description";
    }
    if (wrong) {
        g_error("%s:%s %s", vmsd->name, field->name, wrong);
    }
}

static void vmstate_check_description(const VMStateDescription *vmsd, unsigned depth)
{
    if (vmsd->minimum_version_id > vmsd->version_id || depth > VMSTATE_MAX_DEPTH ||
        strlen(vmsd->name) > 255) {
        g_error("%s: wrong versions, name too long or nested too deep", vmsd->name);
    }
    for (const VMStateField *field = vmsd->fields; field && !(field->flags & VMS_END); field++) {
        vmstate_check_field(vmsd, field);
        if (field->vmsd) {
            vmstate_check_description(field->vmsd, depth + 1);
        }
    }
    for (size_t i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        const char *name = vmsd->subsections[i]->name;

        if (!g_str_has_prefix(name, vmsd->name) || !strcmp(name, vmsd->name)) {
            g_error("%s: the name of its subsection %s is no longer form of it", vmsd->name, name);
        }
        vmstate_check_description(vmsd->subsections[i], depth + 1);
    }
}

void vmstate_register_class_description(const char *type, const VMStateDescription *vmsd)
{
    vmstate_check_description(vmsd, 0);
    if (!class_descriptions) {
        class_descriptions = g_tree_new_full(compare_names, NULL, NULL, NULL);
    }
    g_tree_insert(class_descriptions, (void *)type, (void *)vmsd);
}

/* --- the text --- */

static void vmstate_dump_description(JSONWriter *w, const VMStateDescription *vmsd);

static void vmstate_dump_versions(JSONWriter *w, const VMStateDescription *vmsd)
{
    json_writer_int64(w, "version_id", vmsd->version_id);
    json_writer_int64(w, "minimum_version_id", vmsd->minimum_version_id);
}

static void vmstate_dump_field(JSONWriter *w, const VMStateField *field)
{
    bool no_size = field->flags & VMS_BUFFER && field->count_type != VMS_COUNT_FIXED;

    json_writer_start_object(w, NULL);
    json_writer_str(w, "field", field->name);
    json_writer_int64(w, "version_id", field->version_id);
    json_writer_bool(w, "field_exists", field->field_exists != NULL);
    json_writer_uint64(w, "size", no_size ? 0 : field->size);
    if (field->vmsd) {
        json_writer_start_object(w, "Description");
        vmstate_dump_description(w, field->vmsd);
        json_writer_end_object(w);
    }
    json_writer_end_object(w);
}

static void vmstate_dump_description(JSONWriter *w, const VMStateDescription *vmsd)
{
    json_writer_str(w, "name", vmsd->name);
    vmstate_dump_versions(w, vmsd);
    if (vmsd->fields && !(vmsd->fields->flags & VMS_END)) {
        json_writer_start_array(w, "Fields");
        for (const VMStateField *field = vmsd->fields; !(field->flags & VMS_END); field++) {
            vmstate_dump_field(w, field);
        }
        json_writer_end_array(w);
    }
    if (vmsd->subsections && vmsd->subsections[0]) {
        json_writer_start_array(w, "Subsections");
        for (size_t i = 0; vmsd->subsections[i]; i++) {
            json_writer_start_object(w, NULL);
            vmstate_dump_description(w, vmsd->subsections[i]);
            json_writer_end_object(w);
        }
        json_writer_end_array(w);
    }
}

static gboolean vmstate_dump_class(void *type, void *value, void *opaque)
{
    const VMStateDescription *vmsd = value;
    JSONWriter *w = opaque;

    json_writer_start_object(w, type);
    json_writer_str(w, "Name", type);
    vmstate_dump_versions(w, vmsd);
    json_writer_start_object(w, "Description");
    vmstate_dump_description(w, vmsd);
    json_writer_end_object(w);
    json_writer_end_object(w);
    return FALSE;
}

char *vmstate_dump_json(const char *machine_name)
{
    g_autoptr(JSONWriter) w = json_writer_new(true);

    json_writer_start_object(w, NULL);
    json_writer_start_object(w, "vmschkmachine");
    json_writer_str(w, "Name", machine_name);
    json_writer_end_object(w);
    if (class_descriptions) {
        g_tree_foreach(class_descriptions, vmstate_dump_class, w);
    }
    json_writer_end_object(w);
    return g_strconcat(json_writer_get(w), "\n", NULL);
}
