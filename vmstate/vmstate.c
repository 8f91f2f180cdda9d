/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: where a field is in the state, and how much of it there is. */
#include "vmstate/vmstate.h"
#include <errno.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"
#include "vmstate/qemu-file-int.h"
#include "vmstate/vmstate-int.h"

bool vmstate_section_needed(const VMStateDescription *vmsd, void *opaque)
{
    return !vmsd->needed || vmsd->needed(opaque);
}

bool vmstate_field_exists(const VMStateField *field, void *opaque, int version_id)
{
    return field->field_exists ? field->field_exists(opaque, version_id)
                               : field->version_id <= version_id;
}

/* The count in the state. */
static int vmstate_field_count(const VMStateField *field, void *opaque, size_t *count,
                               GError **errp)
{
    const void *at = (const char *)opaque + field->count_offset;

    switch (field->count_type) {
    case VMS_COUNT_UINT8:
        *count = *(const uint8_t *)at;
        return 0;
    case VMS_COUNT_UINT16:
        *count = *(const uint16_t *)at;
        return 0;
    case VMS_COUNT_UINT32:
        *count = *(const uint32_t *)at;
        return 0;
    case VMS_COUNT_INT32:
        if (*(const int32_t *)at < 0) {
            error_setg(errp, "its count is %d", *(const int32_t *)at);
            return -EINVAL;
        }
        *count = *(const int32_t *)at;
        return 0;
    case VMS_COUNT_FIXED:
        break;
    }
    g_assert_not_reached();
}

static int vmstate_field_variable(const VMStateField *field, void *opaque, size_t *count,
                                  GError **errp)
{
    size_t capacity = field->capacity;
    int ret = vmstate_field_count(field, opaque, count, errp);

    if (ret < 0) {
        return ret;
    }
    if (capacity & VMS_CAPACITY_AT) {
        capacity = *(const uint32_t *)((const char *)opaque + (capacity & ~VMS_CAPACITY_AT));
    }
    if (!mul_size(*count, MAX(field->multiplier, 1), count) || *count > capacity) {
        error_setg(errp, "its count is %zu, but there is room for %zu", *count, capacity);
        return -EINVAL;
    }
    return 0;
}

int vmstate_field_extent(const VMStateField *field, void *opaque, VMStateExtent *extent,
                         GError **errp)
{
    size_t count = field->flags & VMS_BUFFER  ? field->size
                   : field->flags & VMS_ARRAY ? field->num
                                              : 1;

    if (field->count_type != VMS_COUNT_FIXED) {
        int ret = vmstate_field_variable(field, opaque, &count, errp);
        if (ret < 0) {
            return ret;
        }
    }
    if (field->flags & VMS_BUFFER) {
        extent->n = 1;
        extent->stride = extent->size = extent->bytes = count;
        return 0;
    }
    extent->n = count;
    extent->size = field->size;
    extent->stride = field->flags & VMS_ARRAY_OF_POINTER ? sizeof(void *) : field->size;
    if (!mul_size(extent->n, extent->stride, &extent->bytes)) {
        error_setg(errp, "its count is %zu", count);
        return -EINVAL;
    }
    return 0;
}

int vmstate_field_base(const VMStateField *field, void *opaque, const VMStateExtent *extent,
                       void **base, GError **errp)
{
    *base = (char *)opaque + field->offset;
    if (field->flags & VMS_POINTER) {
        *base = *(void **)*base;
        if (!*base && extent->bytes > 0) {
            error_setg(errp, "it does not exist here");
            return -EINVAL;
        }
    }
    return 0;
}

void *vmstate_field_element(const VMStateField *field, void *base, const VMStateExtent *extent,
                            size_t i)
{
    char *element = base;

    if (i > 0) {
        element += i * extent->stride;
    }
    return field->flags & VMS_ARRAY_OF_POINTER ? *(void **)element : element;
}

int vmstate_enter(QEMUFile *f, const VMStateDescription *vmsd, GError **errp)
{
    if (f->nesting == VMSTATE_MAX_DEPTH) {
        error_setg(errp, "%s is nested more than %d deep", vmsd->name, VMSTATE_MAX_DEPTH);
        return -ELOOP;
    }
    if (f->nesting++ == 0) {
        f->error_located = false;
    }
    return 0;
}

void vmstate_leave(QEMUFile *f)
{
    f->nesting--;
}
