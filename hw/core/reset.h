/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reset, and requests in flight.
 *
 * A reset has two hooks and a wait between them. reset_enter puts the state to its reset values,
 * and the device's generation goes up. While requests of an older generation are in flight the
 * device is resetting, and no new request begins. A guest sees what device_is_resetting() says: the
 * status of virtio reads non-zero, IDE stays BSY. When the last of these requests has ended,
 * reset_exit runs: it drives lines and arms timers. With no request in flight, all of that happens
 * at once.
 *
 *     if (!device_request_begin(dev, &req->generation)) {
 *         return;                          // the device is being reset: the kick is lost
 *     }
 *     ...
 *     if (device_request_end(dev, req->generation)) {
 *         complete(req);                   // else: a reset came between, the result is dropped
 *     }
 *
 * A request ends by itself while the guest stands, whatever the guest's clock says: a back end ends it. What ends
 * at a time of the guest is no request; it is a timer of the device, which is saved and which a reset deletes.
 * A request that failed and is held (accel/held-requests.h) has ended, and begins again with the guest. So a
 * guest can be taken once its requests have ended, and none is lost with it.
 *
 * A reset of the machine enters all devices, waits until nothing is in flight in any, then exits all, in the
 * order of bus_foreach_device(). A device that is reset again meanwhile exits once.
 */
#ifndef FERRY_HW_CORE_RESET_H
#define FERRY_HW_CORE_RESET_H

#include "hw/core/device.h"

/* Resets one device, as a guest does through its registers. Returns while it may still be resetting. */
void device_reset(DeviceState *dev);
/* A reset has begun and reset_exit has not run. Any thread. */
bool device_is_resetting(const DeviceState *dev);

/*
 * Counts a request, which must be ended, and notes the present generation. False: the device is
 * resetting. Any thread.
 */
bool device_request_begin(DeviceState *dev, uint32_t *generation) G_GNUC_WARN_UNUSED_RESULT;
/* Ends it; true when no reset came in between: its result counts. Any thread. */
bool device_request_end(DeviceState *dev, uint32_t generation) G_GNUC_WARN_UNUSED_RESULT;
/* Requests begun and not ended. Any thread; a hint where others begin some. */
unsigned device_requests(const DeviceState *dev);

/* Yields until no request is in flight in the device. Main thread. */
void coroutine_fn device_co_settle(DeviceState *dev);
/*
 * Yields until no request is in flight in any device, for limit_ns at most; 0: without a limit. A step of
 * taking the guest (vm_co_quiesce()), after its vCPUs have stopped and before disks are drained. False
 * with an error: some have not ended. Main thread.
 */
bool coroutine_fn devices_co_settle(int64_t limit_ns, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Resets the machine, after a reset that is under way. It is a change of the machine (accel/vm-stop.h),
 * which the caller has begun. Main thread.
 */
void coroutine_fn devices_co_reset(void);
/* Tells every device; a handler of run states calls it. */
void devices_run_state_changed(bool running);

/* device.c's: between these two reset_exit waits. */
void device_reset_hold(DeviceState *dev);
void device_reset_release(DeviceState *dev);

#endif
