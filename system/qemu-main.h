/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The whole program as a function: its binary, and that of the tests, which has a machine more, call it. */
#ifndef FERRY_SYSTEM_QEMU_MAIN_H
#define FERRY_SYSTEM_QEMU_MAIN_H

/*
 * Runs until the process is asked to end; the exit status. Machines and devices of the caller's own are registered
 * before, after machine_register_types() (system/machine.h).
 */
int qemu_main(int argc, char **argv);

#endif
