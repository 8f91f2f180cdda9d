/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of hw/core share. */
#ifndef FERRY_HW_CORE_DEVICE_INT_H
#define FERRY_HW_CORE_DEVICE_INT_H

#include "hw/core/device.h"

/* The longest line of classes, "device" counted. */
#define DEVICE_CLASS_DEPTH_MAX 8

const QomType *device_class_type(const DeviceClass *class);
/* The class or a parent says that its devices stay. */
bool device_class_stays(const DeviceClass *class);
/* The line of classes, the base first; its length. */
unsigned device_class_line(const DeviceClass *class, const DeviceClass *line[]);
/* Frees a device after its last reference. */
void device_finalize(void *opaque);

#endif
