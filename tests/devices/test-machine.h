/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A machine of the tests alone, "ferry-test". It has a PCI bus that takes devices while it runs and
 * an ISA bus. It also has an interrupt controller that only has inputs ("/machine/intc"), and a
 * device with a section, "test-counter".
 *
 * Ports: 0xcf8 and 0xcfc reach PCI configuration space. 0xae08, 32 bits: reads as the slots that a user wants to
 * have back; a guest that writes a bit lets that slot go.
 */
#ifndef FERRY_TESTS_DEVICES_TEST_MACHINE_H
#define FERRY_TESTS_DEVICES_TEST_MACHINE_H

#include "hw/core/machine.h"
#include "hw/isa/isa.h"
#include "hw/pci/pci.h"

#define TEST_INTC_LINES 20 /* 16 of ISA, then 4 of PCI */
#define TEST_EJECT_PORT 0xae08

/*
 * test-counter: ports at iobase, little endian.
 *   0  CONTROL  8 bits   bit 0: counts; bit 1: interrupts
 *   1  STATUS   8 bits   bit 0: has expired, a one clears it; bit 7: is being reset
 *   4  COUNT    32 bits  periods since it was started
 *   8  KICK     8 bits   a write begins a command, which ends after `delay` ns of the guest's time; one at a
 *                        time, others are lost. It travels with the device.
 *   9  ASK      8 bits   a write begins a request, which the test ends in the place of a back end
 *   10 ANSWER   8 bits   a write ends the oldest request
 *   12 DONE     32 bits  commands and requests that ended without a reset in between
 */
typedef struct CounterState {
    ISADevice parent;
    /* properties */
    uint32_t iobase, period, delay, flags;
    uint8_t irq;
    char *label;
    OnOffAuto mode;
    uint64_t space;
    MACAddr mac;
    QomObject *iothread;
    CharFrontend chr;
    BlockBackend *drive;
    bool fail; /* realizing fails at its end */
    /* state */
    uint8_t control, status;
    uint32_t count, done;
    IRQLine *out;
    QEMUTimer *timer, *command;
    GQueue requests; /* generations, oldest first */
    RegisterBank bank;
} CounterState;

/* What a write to ANSWER does, also for a device that the guest does not find any more. */
void test_counter_answer(CounterState *s);

/*
 * test-disk: a disk with a queue in each of up to 4 iothreads (iothreads=ID:ID:...), which does by
 * itself what a guest would do (disk-load.h). A PCI function whose ports are at iobase, not behind
 * a BAR; little endian. The load travels with it.
 *   0  CONTROL   8 bits   bit 0: the load is to run, while the guest runs
 *   1  STATUS    8 bits   bit 0: the load runs; bit 1: requests go down the graph in all threads
 *   4  ENDED     32 bits  requests that have ended, in the queue with the fewest
 *   8  BAD       32 bits  of all queues: failed, ended in another thread, read what was not written
 *   12 CONTENTS  32 bits  the end of the MD5 sum that the start of the disk has while no load runs
 */
extern const DeviceClass test_disk_device;
extern const DeviceClass test_counter_device;
extern const VMStateDescription vmstate_test_counter;

/* After machine_register_types(). */
void test_machine_register(void);
/* Makes the buses and the controller; the unit tests' way to a machine. */
bool coroutine_fn test_machine_co_init(const MachineClass *class, GError **errp);

#endif
