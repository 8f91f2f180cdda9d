/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What saving and loading of descriptions share. */
#ifndef FERRY_VMSTATE_VMSTATE_INT_H
#define FERRY_VMSTATE_VMSTATE_INT_H

#include "vmstate/vmstate.h"

/* What precedes a subsection. */
#define QEMU_VM_SUBSECTION 0x05
/* The byte that stands for a NULL element in an array of pointers. */
#define VMS_NULLPTR_MARKER 0x30

/* Where and how large a field is in the present state. */
typedef struct VMStateExtent {
    size_t n;      /* elements */
    size_t stride; /* bytes from one to the next */
    size_t size;   /* of one; what VMStateInfo functions get */
    size_t bytes;  /* of memory from the first on */
} VMStateExtent;

bool vmstate_field_exists(const VMStateField *field, void *opaque, int version_id);
/* Reads the counts in the state and checks them. 0 or -EINVAL. */
int vmstate_field_extent(const VMStateField *field, void *opaque, VMStateExtent *extent,
                         GError **errp);
/*
 * The first element (of an array of pointers: the first pointer). -EINVAL when the state has none.
 */
int vmstate_field_base(const VMStateField *field, void *opaque, const VMStateExtent *extent,
                       void **base, GError **errp);
/* Element i, or the value that it points to if elements are pointers. */
void *vmstate_field_element(const VMStateField *field, void *base, const VMStateExtent *extent,
                            size_t i);

/* Go one description deeper, and come back. 0 or -ELOOP. */
int vmstate_enter(QEMUFile *f, const VMStateDescription *vmsd, GError **errp);
void vmstate_leave(QEMUFile *f);

#endif
