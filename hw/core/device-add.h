/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices as users make and remove them: -device, device_add, device_del, and the texts that tell which there
 * are. Main thread.
 */
#ifndef FERRY_HW_CORE_DEVICE_ADD_H
#define FERRY_HW_CORE_DEVICE_ADD_H

#include "hw/core/device.h"

/*
 * Makes a device of {"driver": ..., "bus": ..., "id": ..., PROPERTY: VALUE...} and realizes it. `hotplug`: the machine
 * exists already, so the bus must allow it, and the guest is told. False and errp: nothing was made.
 */
bool coroutine_fn device_co_add(json_object *args, PropertySource source, bool hotplug,
                                GError **errp);

/*
 * The guest has let the device go: ends it in a coroutine of the main loop, DEVICE_DELETED. While the guest is
 * taken (accel/vm-stop.h) the device stays. A second call for the same device does nothing.
 */
void device_unplug(DeviceState *dev);

/*
 * The mover's: false with an error while devices must stay as they are. command: "device_add" or "device_del".
 * NULL: they need not, as far as the mover is concerned.
 */
typedef bool DevicePlugCheck(const char *command, GError **errp);
void device_set_plug_check(DevicePlugCheck *check);
/* A device_add has begun and is not over. */
bool device_plug_under_way(void);

/* -device help: types by category. The caller frees. */
char *device_help(void);
/* -device TYPE,help. NULL and errp: there is no such type. */
char *device_type_help(const char *type, GError **errp);
/* info qtree. The caller frees. */
char *device_tree_text(void);

/* qtest-irq.c: lets qtest listen to interrupt lines and set them. */
void qtest_irq_init(void);

#endif
