/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the machine is reset: by `system_reset`, and when the guest or its processor asks. */
#ifndef FERRY_SYSTEM_RESET_H
#define FERRY_SYSTEM_RESET_H

/* From now on requests (accel/vm-reset.h) are carried out. Start-up, main thread. */
void system_reset_init(void);

#endif
