/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values that properties get when a device is made, after their defaults and before what the user
 * says. Rows of the machine type come first (what a guest of an older machine sees), then -global.
 * A value for a class holds for all that descend from it; of two rows for one property the later
 * one counts.
 */
#ifndef FERRY_HW_CORE_GLOBALS_H
#define FERRY_HW_CORE_GLOBALS_H

#include "hw/core/device.h"

typedef struct PropertyRow {
    const char *driver, *property, *value;
} PropertyRow;

/* A row of a machine type; it lives on. One for a property that a class does not have is a bug. */
void globals_add_row(const PropertyRow *row);
/* -global; strings are copied. */
void globals_add_user(const char *driver, const char *property, const char *value);
/* Warns of each -global for a class that does not exist. Once all classes are registered. */
void globals_check(void);
/* Forgets all. */
void globals_clear(void);
/* Sets the properties of a new device; device.c's. */
bool globals_apply(DeviceState *dev, GError **errp);

#endif
