/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-system-x86_64. */
#include "system/qemu-main.h"

int main(int argc, char **argv)
{
    return qemu_main(argc, argv);
}
