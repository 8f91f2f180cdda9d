/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The chip of a serial port, 16550A, without a bus. Specification: National Semiconductor, "PC16550D
 * Universal Asynchronous Receiver/Transmitter with FIFOs", June 1995.
 *
 * The device of a bus embeds the struct, and gives it a clock, an interrupt line and a chardev. It puts
 * serial_registers over the struct where its bus wants them.
 *
 * Transmitting takes no time of the guest: a byte leaves the shift register when the chardev takes it.
 * While the chardev takes none, the byte waits there and the holding register or FIFO behind it fills.
 * The guest never waits. Without a chardev, or without a peer, bytes are lost. A byte is sent whole,
 * whatever word length the guest has set.
 *
 * Receiving takes from the chardev what there is room for, while the guest runs. So only the loopback
 * of the chip overruns.
 *
 * Errors of received bytes are shown when the byte comes, not when it reaches the top of the FIFO. What
 * travels with a guest has no place for errors of each byte.
 *
 * Under the big lock (util/bql.h). The chip and its chardev meet in the thread of the clock's context: what a
 * vCPU writes is sent there at the loop's next turn.
 */
#ifndef FERRY_HW_CHAR_SERIAL_H
#define FERRY_HW_CHAR_SERIAL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include "chardev/char.h"
#include "hw/core/clock.h"
#include "hw/core/irq.h"
#include "hw/core/register.h"
#include "util/aio.h"
#include "vmstate/vmstate.h"

#define SERIAL_FIFO_BYTES 16
#define SERIAL_PORTS      8 /* offsets of the registers */
#define SERIAL_BAUDBASE   115200
/* Highest number of tries to send a byte that a stream may have. */
#define SERIAL_RETRY_MAX 4

typedef struct SerialFifo {
    uint8_t data[SERIAL_FIFO_BYTES];
    uint32_t head; /* of the oldest byte; < SERIAL_FIFO_BYTES */
    uint32_t num;  /* bytes in it; <= SERIAL_FIFO_BYTES */
} SerialFifo;

/* The names of members that travel are those of their fields in the section. */
typedef struct SerialState {
    /* properties, before serial_init() */
    CharFrontend chr;
    uint32_t baudbase; /* bits a second at divisor 1; not 0 */
    /* registers */
    uint16_t divider;
    uint8_t rbr, thr, tsr; /* received; waits to be sent; is being sent */
    uint8_t ier, iir, lcr, mcr, lsr, msr, scr;
    uint8_t fcr_vmstate; /* FCR without the bits that only reset */
    SerialFifo recv_fifo, xmit_fifo;
    int32_t thr_ipending;     /* 1: an empty holding register is to be reported */
    int32_t timeout_ipending; /* 1: bytes have waited in the FIFO for 4 frames */
    uint32_t tsr_retry;       /* not 0: tsr waits for the chardev */
    QEMUTimer *fifo_timeout_timer;
    QEMUBH *meet; /* for the chardev, from another thread than the chardev's */
    /* what the chip is given */
    DeviceClock clock;
    IRQLine *irq;
    bool running; /* the guest runs */
    /* Of a sender whose chardev has modem lines; nothing here uses them. */
    int32_t poll_msl;
    int64_t modem_status_poll;
} SerialState;

/* The registers; the state is the SerialState. */
extern const RegisterTable serial_registers;
/* The section, as stock has it inside of "serial" and "pci-serial". */
extern const VMStateDescription vmstate_serial_chip;

/* Connects the chip, in its reset state. `irq` is lent. False and errp: the chardev refused. */
bool serial_init(SerialState *s, const DeviceClock *clock, IRQLine *irq,
                 GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Takes the chip from chardev, clock and line. */
void serial_cleanup(SerialState *s);

/* Reset in two steps: the state; then the line and the chardev (hw/core/reset.h). */
void serial_reset_enter(SerialState *s);
void serial_reset_exit(SerialState *s);
/*
 * While the guest stands, no input is taken and no waiting byte is sent. Before it stands, what waits is
 * sent as far as the chardev takes it.
 */
void serial_set_running(SerialState *s, bool running);
/* The line was at the level of a start bit for a whole frame. */
void serial_receive_break(SerialState *s);

#endif
