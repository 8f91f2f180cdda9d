/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: loading. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "util/error.h"
#include "vmstate/qemu-file-int.h"
#include "vmstate/vmstate-int.h"
#include "vmstate/vmstate.h"

/*
 * Loading has failed inside `what`: puts it in front of the error, and the offset where the
 * innermost failure has none yet. Returns ret, or the file's error, which caused all others.
 */
static int G_GNUC_PRINTF(4, 5)
    vmstate_load_failed(QEMUFile *f, int ret, GError **errp, const char *fmt, ...)
{
    g_autofree char *what = NULL;
    va_list ap;

    if (qemu_file_failed(f)) {
        ret = qemu_file_get_error(f);
    }
    if (!errp) {
        return ret;
    }
    va_start(ap, fmt);
    what = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    if (!f->error_located && qemu_file_failed(f)) {
        g_clear_error(errp);
        qemu_file_get_error_obj(f, errp);
    }
    if (!*errp) {
        error_setg(errp, "%s", g_strerror(-ret));
    }
    if (f->error_located || (f->ended && qemu_file_failed(f))) {
        g_prefix_error(errp, "Failed to load %s: ", what);
    } else {
        g_prefix_error(errp, "Failed to load %s at offset 0x%" PRIx64 ": ", what,
                       qemu_file_transferred(f));
    }
    f->error_located = true;
    return ret;
}

/* --- one field --- */

/* Frees what *pointer has, and makes it `bytes` zeroes; 0 bytes are NULL. */
static int vmstate_allocate(void **pointer, size_t bytes, GError **errp)
{
    g_free(*pointer);
    *pointer = NULL;
    if (bytes > VMSTATE_MAX_ALLOC) {
        error_setg(errp, "it takes %zu bytes, the limit is %d", bytes, VMSTATE_MAX_ALLOC);
        return -ENOMEM;
    }
    if (bytes > 0) {
        *pointer = g_try_malloc0(bytes);
        if (!*pointer) {
            error_setg(errp, "there is no memory for its %zu bytes", bytes);
            return -ENOMEM;
        }
    }
    return 0;
}

static int vmstate_load_element(QEMUFile *f, const VMStateField *field, void *element, size_t size,
                                GError **errp)
{
    if (!element && field->flags & VMS_ARRAY_OF_POINTER) {
        return vmstate_info_nullptr.get(f, NULL, 0, field, errp);
    }
    if (field->flags & VMS_STRUCT) {
        return vmstate_load_state(
            f, field->vmsd, element,
            field->flags & VMS_VSTRUCT ? field->struct_version_id : field->vmsd->version_id, errp);
    }
    return field->info->get(f, element, size, field, errp);
}

static int vmstate_load_elements(QEMUFile *f, const VMStateDescription *vmsd,
                                 const VMStateField *field, const VMStateExtent *extent, void *base,
                                 GError **errp)
{
    for (size_t i = 0; i < extent->n; i++) {
        int ret = 0;

        if (field->flags & VMS_ALLOC_ELEMENTS) {
            ret = vmstate_allocate((void **)base + i, field->size, errp);
        }
        if (ret == 0) {
            ret = vmstate_load_element(f, field, vmstate_field_element(field, base, extent, i),
                                       extent->size, errp);
        }
        if (ret == 0) {
            ret = qemu_file_get_error(f);
        }
        if (ret < 0 && field->flags & VMS_ARRAY) {
            return vmstate_load_failed(f, ret, errp, "%s:%s[%zu]", vmsd->name, field->name, i);
        }
        if (ret < 0) {
            return vmstate_load_failed(f, ret, errp, "%s:%s", vmsd->name, field->name);
        }
    }
    return 0;
}

static int vmstate_load_field(QEMUFile *f, const VMStateDescription *vmsd,
                              const VMStateField *field, void *opaque, GError **errp)
{
    VMStateExtent extent;
    void *base;
    int ret = vmstate_field_extent(field, opaque, &extent, errp);

    if (ret == 0 && field->flags & VMS_ALLOC) {
        ret = vmstate_allocate((void **)((char *)opaque + field->offset), extent.bytes, errp);
    }
    if (ret == 0) {
        ret = vmstate_field_base(field, opaque, &extent, &base, errp);
    }
    if (ret != 0) {
        return vmstate_load_failed(f, ret, errp, "%s:%s", vmsd->name, field->name);
    }
    return vmstate_load_elements(f, vmsd, field, &extent, base, errp);
}

static int vmstate_load_fields(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                               int version_id, GError **errp)
{
    for (const VMStateField *field = vmsd->fields; field && !(field->flags & VMS_END); field++) {
        bool exists = vmstate_field_exists(field, opaque, version_id);
        int ret;

        if (field->flags & VMS_VALIDATE) {
            if (!exists) {
                error_setg(errp, "Input validation failed: %s/%s", vmsd->name, field->name);
                return vmstate_load_failed(f, -EINVAL, errp, "%s:%s", vmsd->name, field->name);
            }
        } else if (exists) {
            ret = vmstate_load_field(f, vmsd, field, opaque, errp);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return 0;
}

/* --- subsections --- */

/*
 * True if a subsection comes next that belongs to vmsd by its name, which is put into `name`. Looks
 * no further ahead than it must. The next bytes may be a field of the struct that contains vmsd,
 * and the last bytes that the peer sends before it waits for us.
 */
static bool vmstate_peek_subsection(QEMUFile *f, const VMStateDescription *vmsd, char name[256])
{
    size_t own = strlen(vmsd->name), len;
    const uint8_t *bytes;

    if (qemu_peek_buffer(f, &bytes, 1) < 1 || bytes[0] != QEMU_VM_SUBSECTION ||
        qemu_peek_buffer(f, &bytes, 2) < 2 || bytes[1] <= own) {
        return false;
    }
    len = bytes[1];
    if (qemu_peek_buffer(f, &bytes, 2 + own) < 2 + own || memcmp(bytes + 2, vmsd->name, own) ||
        qemu_peek_buffer(f, &bytes, 2 + len) < 2 + len) {
        return false;
    }
    memcpy(name, bytes + 2, len);
    name[len] = '\0';
    return true;
}

static const VMStateDescription *vmstate_find_subsection(const VMStateDescription *vmsd,
                                                         const char *name)
{
    for (size_t i = 0; vmsd->subsections && vmsd->subsections[i]; i++) {
        if (!strcmp(vmsd->subsections[i]->name, name)) {
            return vmsd->subsections[i];
        }
    }
    return NULL;
}

static int vmstate_load_subsections(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                                    GError **errp)
{
    char name[256];

    while (vmstate_peek_subsection(f, vmsd, name)) {
        const VMStateDescription *sub = vmstate_find_subsection(vmsd, name);
        uint32_t version_id;
        int ret;

        if (!sub) {
            g_autofree char *shown = g_strescape(name, NULL);

            error_setg(errp, "the subsection '%s' is not known here", shown);
            return vmstate_load_failed(f, -ENOENT, errp, "%s", vmsd->name);
        }
        ret = qemu_file_skip(f, 2 + strlen(name));
        version_id = qemu_get_be32(f);
        if (ret == 0) {
            ret = qemu_file_get_error(f);
        }
        if (ret == 0 && version_id > INT32_MAX) {
            error_setg(errp, "its version is 0x%x", version_id);
            ret = -EINVAL;
        }
        if (ret == 0) {
            ret = vmstate_load_state(f, sub, opaque, version_id, errp);
        }
        if (ret < 0) {
            return vmstate_load_failed(f, ret, errp, "%s", name);
        }
    }
    return qemu_file_failed(f) ? vmstate_load_failed(f, -EIO, errp, "%s", vmsd->name) : 0;
}

/* --- descriptions --- */

static int vmstate_check_version(const VMStateDescription *vmsd, int version_id, GError **errp)
{
    if (version_id > vmsd->version_id) {
        error_setg(errp, "%s: incoming version_id %d is too new for local version_id %d",
                   vmsd->name, version_id, vmsd->version_id);
        return -EINVAL;
    }
    if (version_id < vmsd->minimum_version_id) {
        error_setg(errp, "%s: incoming version_id %d is too old for local minimum version_id %d",
                   vmsd->name, version_id, vmsd->minimum_version_id);
        return -EINVAL;
    }
    return 0;
}

static int vmstate_load_contents(QEMUFile *f, const VMStateDescription *vmsd, void *opaque,
                                 int version_id, GError **errp)
{
    int ret = vmstate_check_version(vmsd, version_id, errp);

    if (ret == 0 && vmsd->pre_load) {
        ret = vmsd->pre_load(opaque, errp);
    }
    if (ret < 0) {
        return vmstate_load_failed(f, ret, errp, "%s", vmsd->name);
    }
    ret = vmstate_load_fields(f, vmsd, opaque, version_id, errp);
    if (ret < 0) {
        return ret;
    }
    ret = vmstate_load_subsections(f, vmsd, opaque, errp);
    if (ret < 0) {
        return ret;
    }
    if (vmsd->post_load) {
        ret = vmsd->post_load(opaque, version_id, errp);
        if (ret < 0) {
            return vmstate_load_failed(f, ret, errp, "%s", vmsd->name);
        }
    }
    return 0;
}

int vmstate_load_state(QEMUFile *f, const VMStateDescription *vmsd, void *opaque, int version_id,
                       GError **errp)
{
    int ret = vmstate_enter(f, vmsd, errp);

    if (ret < 0) {
        return ret;
    }
    ret = vmstate_load_contents(f, vmsd, opaque, version_id, errp);
    vmstate_leave(f);
    return ret;
}

int vmstate_load_device(QEMUFile *f, const char *idstr, uint32_t instance_id,
                        const VMStateDescription *vmsd, void *opaque, int version_id, GError **errp)
{
    int ret = vmstate_load_state(f, vmsd, opaque, version_id, errp);

    if (ret < 0) {
        g_prefix_error(errp,
                       "error while loading state for instance 0x%x of device '%s': ", instance_id,
                       idstr);
    }
    return ret;
}
