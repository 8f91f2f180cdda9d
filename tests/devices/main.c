/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The product with the machine of the tests in it: what the functional tests of devices run. */
#include "system/machine.h"
#include "system/qemu-main.h"
#include "tests/devices/test-machine.h"
#include "tests/devices/test-pc.h"

int main(int argc, char **argv)
{
    machine_register_types();
    test_machine_register();
    test_pc_register();
    return qemu_main(argc, argv);
}
