/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qtest: no code of a guest runs; a test drives the devices and memory over a line protocol, and
 * time stands still unless it is stepped. Main thread.
 *
 * Each line from the test is answered by one line, "OK", "OK VALUE", "OK DATA", "FAIL REASON" or
 * "ERR REASON". Between answers may come "IRQ raise N" and "IRQ lower N" of interrupts that were
 * intercepted. Numbers are decimal, 0x hexadecimal or 0 octal. Commands:
 *
 *   clock_step [NS], clock_set NS           answer: the virtual time, ns
 * outb|outw|outl PORT VALUE, inb|inw|inl PORT
 *   writeb|writew|writel|writeq ADDR VALUE, readb|readw|readl|readq ADDR
 *   write ADDR SIZE 0xHEX, read ADDR SIZE   HEX may be short: the rest is zeroes
 *   b64write ADDR SIZE BASE64, b64read ADDR SIZE
 *   memset ADDR SIZE VALUE
 *   irq_intercept_in PATH, irq_intercept_out PATH [NAME], set_irq_in PATH NAME NUMBER LEVEL
 *   endianness, module_load PREFIX NAME
 */
#ifndef FERRY_ACCEL_QTEST_H
#define FERRY_ACCEL_QTEST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "chardev/char.h"

/* Most bytes of a line, and of memory that one command reads or writes. */
#define QTEST_LINE_MAX (64 * 1024 * 1024)
#define QTEST_DATA_MAX (16 * 1024 * 1024)
/* Most bytes that memset sets. */
#define QTEST_SET_MAX (UINT64_C(1) << 36)

/* --- clock.c --- */

/*
 * From here on the virtual clock stands at 0 and goes only where it is told. Its timers fire while
 * it is stepped, in any state of the guest; those armed for a time that is past fire by themselves
 * while the guest runs. Before any virtual timer is made.
 */
void qtest_clock_init(void);
/*
 * Goes to `ns`, firing the main context's timers on the way, each at its time. False: that is in
 * the past.
 */
bool qtest_clock_set_ns(int64_t ns);

/* --- command.c --- */

/*
 * Carries out one line (without its end; any bytes) and appends the answer, with its end. The line
 * is changed.
 */
void qtest_command(char *line, size_t len, GString *answer);

/* Interrupts of devices; hw/ registers the one table. Each returns false and errp. */
typedef struct QTestIRQOps {
    /*
     * From now on qtest_irq_changed() is called for the inputs (outputs called `name`) of a device.
     */
    bool (*intercept_in)(const char *path, GError **errp);
    bool (*intercept_out)(const char *path, const char *name,
                          GError **errp); /* name NULL: unnamed */
    bool (*set_in)(const char *path, const char *name, unsigned number, int level, GError **errp);
} QTestIRQOps;
void qtest_set_irq_ops(const QTestIRQOps *ops);

/* --- server.c --- */

/*
 * Serves tests on chr. log: NULL is stderr, "none" nothing, else a file that is made or
 * overwritten.
 */
bool qtest_server_start(Chardev *chr, const char *log, GError **errp);
/* Before chr goes. Nothing happens when it was not started. */
void qtest_server_stop(void);
/* An intercepted interrupt has another level. */
void qtest_irq_changed(unsigned number, bool level);

#endif
