/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qemu-system-x86_64: start-up. */

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 0;
}
