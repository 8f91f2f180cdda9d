/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The 16550A chip. Invariants: LSR.THRE is set if and only if the holding register (with FIFOs: the
 * transmit FIFO) is empty. LSR.TEMT is set if and only if the shift register is empty as well. With FIFOs,
 * LSR.DR is set if and only if the receive FIFO has bytes. IIR and the line follow from the rest.
 */
#include "hw/char/serial.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "hw/core/property.h"
#include "util/error.h"
#include "vmstate/vmstate-fields.h"

#define IER_RECEIVED  0x01
#define IER_THRE      0x02
#define IER_LINE      0x04
#define IER_MODEM     0x08
#define IER_ALL       0x0f
#define IIR_MODEM     0x00
#define IIR_NONE      0x01
#define IIR_THRE      0x02
#define IIR_RECEIVED  0x04
#define IIR_LINE      0x06
#define IIR_TIMEOUT   0x0c
#define IIR_ID        0x0f
#define IIR_FIFOS     0xc0
#define FCR_ENABLE    0x01
#define FCR_RESET_RX  0x02
#define FCR_RESET_TX  0x04
#define FCR_KEPT      0xc9 /* enable, DMA mode, trigger level */
#define LCR_WORD      0x03
#define LCR_TWO_STOPS 0x04
#define LCR_PARITY    0x08
#define LCR_DLAB      0x80
#define MCR_DTR       0x01
#define MCR_RTS       0x02
#define MCR_OUT1      0x04
#define MCR_OUT2      0x08
#define MCR_LOOP      0x10
#define MCR_ALL       0x1f
#define LSR_DR        0x01
#define LSR_OE        0x02
#define LSR_PE        0x04
#define LSR_FE        0x08
#define LSR_BI        0x10
#define LSR_THRE      0x20
#define LSR_TEMT      0x40
#define LSR_FIFO_ERR  0x80
#define LSR_ERRORS    (LSR_OE | LSR_PE | LSR_FE | LSR_BI)
#define MSR_TERI      0x04
#define MSR_DELTAS    0x0f
#define MSR_CTS       0x10
#define MSR_DSR       0x20
#define MSR_RI        0x40
#define MSR_DCD       0x80
#define MSR_LINES     0xf0
/* A chardev has no modem lines: the other end looks ready, as a null modem cable shows it. */
#define MSR_READY (MSR_CTS | MSR_DSR | MSR_DCD)

#define RESET_DIVIDER  12 /* 9600 baud; the chip itself leaves it as it was */
#define TIMEOUT_FRAMES 4

/* --- FIFOs --- */

/* False: it is full, and the byte is lost. */
static bool fifo_push(SerialFifo *fifo, uint8_t byte)
{
    if (fifo->num == SERIAL_FIFO_BYTES) {
        return false;
    }
    fifo->data[(fifo->head + fifo->num++) % SERIAL_FIFO_BYTES] = byte;
    return true;
}

/* It is not empty. */
static uint8_t fifo_pop(SerialFifo *fifo)
{
    uint8_t byte = fifo->data[fifo->head];

    fifo->head = (fifo->head + 1) % SERIAL_FIFO_BYTES;
    fifo->num--;
    return byte;
}

static bool has_fifos(const SerialState *s)
{
    return s->fcr_vmstate & FCR_ENABLE;
}

/* --- the interrupt --- */

static bool enough_received(const SerialState *s)
{
    static const uint8_t levels[] = {1, 4, 8, 14};

    return has_fifos(s) ? s->recv_fifo.num >= levels[s->fcr_vmstate >> 6] : s->lsr & LSR_DR;
}

/* Table IV of the data sheet: the highest cause that is enabled. */
static uint8_t interrupt_id(const SerialState *s)
{
    if ((s->ier & IER_LINE) && (s->lsr & LSR_ERRORS)) {
        return IIR_LINE;
    }
    if ((s->ier & IER_RECEIVED) && s->timeout_ipending) {
        return IIR_TIMEOUT;
    }
    if ((s->ier & IER_RECEIVED) && enough_received(s)) {
        return IIR_RECEIVED;
    }
    if ((s->ier & IER_THRE) && s->thr_ipending) {
        return IIR_THRE;
    }
    return (s->ier & IER_MODEM) && (s->msr & MSR_DELTAS) ? IIR_MODEM : IIR_NONE;
}

/* The level that the line is to have. */
static int update_iir(SerialState *s)
{
    uint8_t id = interrupt_id(s);

    s->iir = id | (has_fifos(s) ? IIR_FIFOS : 0);
    return id != IIR_NONE;
}

static void update_line(SerialState *s)
{
    qemu_set_irq(s->irq, update_iir(s));
}

/* --- threads --- */

/* The chardev can be called here and now; if not, the chip calls it soon. */
static bool meets_chardev(SerialState *s)
{
    if (aio_context_in_own_thread(s->clock.ctx)) {
        return true;
    }
    qemu_bh_schedule(s->meet);
    return false;
}

/* There may be room for input. */
static void ask_for_input(SerialState *s)
{
    if (meets_chardev(s)) {
        qemu_chr_fe_accept_input(&s->chr);
    }
}

/* --- receiving --- */

/* The time of one character on the wire. */
static int64_t frame_ns(const SerialState *s)
{
    unsigned word = 5 + (s->lcr & LCR_WORD), halves = 2 * (1 + word);
    unsigned divisor = s->divider ? s->divider : 1;

    halves += s->lcr & LCR_PARITY ? 2 : 0;
    halves += !(s->lcr & LCR_TWO_STOPS) ? 2 : word == 5 ? 3 : 4;
    return (int64_t)halves * (NANOSECONDS_PER_SECOND / 2) * divisor / s->baudbase;
}

/* A byte has come or gone: the time that the others wait begins anew. */
static void restart_timeout(SerialState *s)
{
    if (has_fifos(s) && s->recv_fifo.num) {
        timer_mod_ns(s->fifo_timeout_timer,
                     device_clock_ns(&s->clock) + TIMEOUT_FRAMES * frame_ns(s));
    } else {
        timer_del(s->fifo_timeout_timer);
    }
}

static void timed_out(void *opaque)
{
    SerialState *s = opaque;

    if (s->recv_fifo.num) {
        s->timeout_ipending = 1;
        update_line(s);
    }
}

static void receive_byte(SerialState *s, uint8_t byte)
{
    if (!has_fifos(s)) {
        s->lsr |= s->lsr & LSR_DR ? LSR_OE : LSR_DR;
        s->rbr = byte;
        return;
    }
    s->lsr |= fifo_push(&s->recv_fifo, byte) ? LSR_DR : LSR_OE;
    restart_timeout(s);
}

void serial_receive_break(SerialState *s)
{
    if (s->mcr & MCR_LOOP) {
        return; /* the receiver is not connected */
    }
    receive_byte(s, 0);
    s->lsr |= LSR_BI | (has_fifos(s) ? LSR_FIFO_ERR : 0);
    update_line(s);
}

static uint8_t take_received(SerialState *s)
{
    if (!has_fifos(s)) {
        s->lsr &= (uint8_t)~LSR_DR;
    } else if (s->recv_fifo.num) {
        s->rbr = fifo_pop(&s->recv_fifo);
        s->lsr &= (uint8_t) ~(s->recv_fifo.num ? 0 : LSR_DR);
        s->timeout_ipending = 0;
        restart_timeout(s);
    }
    update_line(s);
    ask_for_input(s);
    return s->rbr;
}

static void reset_receiver(SerialState *s)
{
    s->recv_fifo.head = s->recv_fifo.num = 0;
    s->lsr &= (uint8_t) ~(LSR_DR | LSR_FIFO_ERR);
    s->timeout_ipending = 0;
    timer_del(s->fifo_timeout_timer);
}

/* --- transmitting --- */

static void holding_is_empty(SerialState *s)
{
    if (!(s->lsr & LSR_THRE)) {
        s->lsr |= LSR_THRE;
        s->thr_ipending = 1;
    }
}

/* False: the chardev takes nothing now; transmit() is called when it does. */
static bool send_byte(SerialState *s)
{
    if (s->mcr & MCR_LOOP) {
        receive_byte(s, s->tsr);
        return true;
    }
    return meets_chardev(s) && qemu_chr_fe_write(&s->chr, &s->tsr, 1) == 1;
}

static void load_shift_register(SerialState *s)
{
    s->tsr = has_fifos(s) ? fifo_pop(&s->xmit_fifo) : s->thr;
    s->tsr_retry = 1;
    if (!has_fifos(s) || !s->xmit_fifo.num) {
        holding_is_empty(s);
    }
}

/* Sends what there is, as far as the chardev takes it. */
static void transmit(SerialState *s)
{
    while (s->tsr_retry || !(s->lsr & LSR_THRE)) {
        if (!s->tsr_retry) {
            load_shift_register(s);
        }
        if (!send_byte(s)) {
            break;
        }
        s->tsr_retry = 0;
    }
    s->lsr = (uint8_t)((s->lsr & ~LSR_TEMT) | (s->tsr_retry ? 0 : LSR_TEMT));
    update_line(s);
}

static void write_holding(SerialState *s, uint8_t byte)
{
    if (has_fifos(s)) {
        (void)fifo_push(&s->xmit_fifo, byte); /* a guest that fills a full one loses the byte */
    } else {
        s->thr = byte;
    }
    s->thr_ipending = 0;
    s->lsr &= (uint8_t)~LSR_THRE;
    transmit(s);
}

static void reset_transmitter(SerialState *s)
{
    s->xmit_fifo.head = s->xmit_fifo.num = 0;
    holding_is_empty(s);
}

/* --- the chardev --- */

static size_t chr_can_read(void *opaque)
{
    SerialState *s = opaque;

    if (!s->running || (s->mcr & MCR_LOOP)) {
        return 0;
    }
    return has_fifos(s) ? SERIAL_FIFO_BYTES - s->recv_fifo.num : !(s->lsr & LSR_DR);
}

static void chr_read(void *opaque, const uint8_t *buf, size_t len)
{
    SerialState *s = opaque;

    for (size_t i = 0; i < len; i++) {
        receive_byte(s, buf[i]);
    }
    update_line(s);
}

static void chr_drained(void *opaque)
{
    SerialState *s = opaque;

    if (s->running) {
        transmit(s);
    }
}

/* A peer that has gone takes everything; a new one begins with nothing unsent. */
static void chr_event(void *opaque, QEMUChrEvent event)
{
    chr_drained(opaque);
}

static const CharFrontendOps chr_ops = {
    .can_read = chr_can_read, .read = chr_read, .drained = chr_drained, .event = chr_event};

static void meet_chardev(void *opaque)
{
    SerialState *s = opaque;

    if (s->running) {
        transmit(s);
        ask_for_input(s);
    }
}

void serial_set_running(SerialState *s, bool running)
{
    meet_chardev(s); /* the last output of a guest that stops: the loop may not turn again */
    s->running = running;
    meet_chardev(s);
}

/* --- registers --- */

static uint64_t read_data(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    SerialState *s = state;

    return s->lcr & LCR_DLAB ? s->divider & 0xff : take_received(s);
}

static void write_data(void *state, const RegisterWrite *write)
{
    SerialState *s = state;

    if (s->lcr & LCR_DLAB) {
        s->divider = (uint16_t)((s->divider & 0xff00) | write->data);
    } else {
        write_holding(s, (uint8_t)write->data);
    }
}

static uint64_t read_ier(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    SerialState *s = state;

    return s->lcr & LCR_DLAB ? s->divider >> 8 : s->ier;
}

static void write_ier(void *state, const RegisterWrite *write)
{
    SerialState *s = state;
    uint8_t enabled;

    if (s->lcr & LCR_DLAB) {
        s->divider = (uint16_t)((s->divider & 0xff) | write->data << 8);
        return;
    }
    enabled = write->data & IER_ALL & ~s->ier;
    s->ier = write->data & IER_ALL;
    if (enabled & IER_THRE) {
        s->thr_ipending = (s->lsr & LSR_THRE) != 0;
    }
    update_line(s);
}

static uint64_t read_iir(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    SerialState *s = state;
    uint8_t iir = s->iir;

    if ((iir & IIR_ID) == IIR_THRE) {
        s->thr_ipending = 0;
        update_line(s);
    }
    return iir;
}

static void write_fcr(void *state, const RegisterWrite *write)
{
    SerialState *s = state;
    uint8_t value = (uint8_t)write->data;
    bool switched = (value ^ s->fcr_vmstate) & FCR_ENABLE;

    /* The other bits count only together with the one that enables. */
    s->fcr_vmstate = value & FCR_ENABLE ? value & FCR_KEPT : 0;
    if (switched || ((value & FCR_ENABLE) && (value & FCR_RESET_RX))) {
        reset_receiver(s);
    }
    if (switched || ((value & FCR_ENABLE) && (value & FCR_RESET_TX))) {
        reset_transmitter(s);
    }
    update_line(s);
    ask_for_input(s);
}

/* In loopback the chip's own outputs are its modem lines. Changes are noted until MSR is read. */
static void update_modem_lines(SerialState *s)
{
    uint8_t lines = MSR_READY, changed;

    if (s->mcr & MCR_LOOP) {
        lines = (s->mcr & MCR_RTS ? MSR_CTS : 0) | (s->mcr & MCR_DTR ? MSR_DSR : 0) |
                (s->mcr & MCR_OUT1 ? MSR_RI : 0) | (s->mcr & MCR_OUT2 ? MSR_DCD : 0);
    }
    changed = (s->msr ^ lines) & MSR_LINES;
    if (lines & MSR_RI) {
        changed &= (uint8_t)~MSR_RI; /* only the end of ringing counts */
    }
    s->msr = (uint8_t)(lines | (s->msr & MSR_DELTAS) | changed >> 4);
}

static void write_mcr(void *state, const RegisterWrite *write)
{
    SerialState *s = state;

    update_modem_lines(s);
    transmit(s); /* in loopback no byte waits for the chardev */
    ask_for_input(s);
}

static uint64_t read_lsr(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    SerialState *s = state;

    s->lsr &= (uint8_t) ~(LSR_ERRORS | LSR_FIFO_ERR);
    update_line(s);
    return stored;
}

static uint64_t read_msr(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    SerialState *s = state;

    s->msr &= MSR_LINES;
    update_line(s);
    return stored;
}

/* FCR is written where IIR is read. Data, IER and IIR have resets of their own. */
static const RegisterRow rows[] = {
    REGISTER_HOOKS(0, 1, "RBR/THR/DLL", .read = read_data, .write = write_data),
    REGISTER_HOOKS(1, 1, "IER/DLM", .read = read_ier, .write = write_ier),
    REGISTER_HOOKS(2, 1, "IIR/FCR", .read = read_iir, .write = write_fcr),
    REGISTER(3, SerialState, lcr, "LCR", .writable = 0xff),
    REGISTER(4, SerialState, mcr, "MCR", .writable = MCR_ALL, .write = write_mcr),
    REGISTER(5, SerialState, lsr, "LSR", .reset = LSR_THRE | LSR_TEMT, .read = read_lsr),
    REGISTER(6, SerialState, msr, "MSR", .reset = MSR_READY, .read = read_msr),
    REGISTER(7, SerialState, scr, "SCR", .writable = 0xff),
};
const RegisterTable serial_registers = {"serial", rows, G_N_ELEMENTS(rows)};

/* --- life --- */

void serial_reset_enter(SerialState *s)
{
    register_table_reset(&serial_registers, s);
    s->divider = RESET_DIVIDER;
    s->ier = s->rbr = s->thr = s->tsr = s->fcr_vmstate = 0;
    s->iir = IIR_NONE;
    s->thr_ipending = 0;
    s->tsr_retry = 0;
    s->poll_msl = -1;
    reset_receiver(s);
    reset_transmitter(s);
}

void serial_reset_exit(SerialState *s)
{
    update_line(s);
    ask_for_input(s);
}

bool serial_init(SerialState *s, const DeviceClock *clock, IRQLine *irq, GError **errp)
{
    s->clock = *clock;
    s->irq = irq;
    s->fifo_timeout_timer = device_clock_timer(clock, timed_out, s);
    s->meet = aio_bh_new(clock->ctx, meet_chardev, s);
    serial_reset_enter(s);
    if (!property_chardev_connect(&s->chr, &chr_ops, s, 0, errp)) {
        serial_cleanup(s);
        return false;
    }
    return true;
}

void serial_cleanup(SerialState *s)
{
    if (s->chr.chr) {
        qemu_chr_fe_deinit(&s->chr);
    }
    timer_free(g_steal_pointer(&s->fifo_timeout_timer));
    qemu_bh_delete(g_steal_pointer(&s->meet));
}

/* --- the section --- */

static int before_load(void *opaque, GError **errp)
{
    SerialState *s = opaque;

    /* What the stream may leave out. */
    s->thr_ipending = -1;
    s->timeout_ipending = 0;
    s->tsr_retry = 0;
    s->poll_msl = -1;
    s->recv_fifo = s->xmit_fifo = (SerialFifo){0};
    timer_del(s->fifo_timeout_timer);
    return 0;
}

static int fifo_loaded(void *opaque, int version_id, GError **errp)
{
    SerialFifo *fifo = opaque;

    if (fifo->head >= SERIAL_FIFO_BYTES || fifo->num > SERIAL_FIFO_BYTES) {
        error_setg(errp,
                   "a FIFO of %d bytes can't hold %" PRIu32 " bytes from place %" PRIu32 " on",
                   SERIAL_FIFO_BYTES, fifo->num, fifo->head);
        return -EINVAL;
    }
    return 0;
}

/* False and errp: the parts of the state contradict each other. */
static bool loaded_state_is_sound(const SerialState *s, GError **errp)
{
    if (s->thr_ipending < -1 || s->thr_ipending > 1 || s->timeout_ipending < 0 ||
        s->timeout_ipending > 1) {
        error_setg(errp, "interrupts are neither pending nor not pending");
        return false;
    }
    if (s->tsr_retry > SERIAL_RETRY_MAX) {
        error_setg(errp, "a byte was tried %" PRIu32 " times, %d are the most", s->tsr_retry,
                   SERIAL_RETRY_MAX);
        return false;
    }
    if (!s->tsr_retry == !(s->lsr & LSR_TEMT)) {
        error_setg(errp, "LSR is 0x%02x, but the shift register is %s", s->lsr,
                   s->tsr_retry ? "full" : "empty");
        return false;
    }
    return true;
}

static int loaded(void *opaque, int version_id, GError **errp)
{
    SerialState *s = opaque;

    if (!loaded_state_is_sound(s, errp)) {
        return -EINVAL;
    }
    s->ier &= IER_ALL;
    s->mcr &= MCR_ALL;
    s->fcr_vmstate &= FCR_KEPT;
    if (s->thr_ipending < 0) {
        s->thr_ipending = (s->iir & IIR_ID) == IIR_THRE;
    }
    if (has_fifos(s)) {
        s->lsr &= (uint8_t) ~(LSR_DR | LSR_THRE);
        s->lsr |= (s->recv_fifo.num ? LSR_DR : 0) | (s->xmit_fifo.num ? 0 : LSR_THRE);
    } else {
        s->recv_fifo.num = s->xmit_fifo.num = 0;
        /* A byte in the holding register comes together with one in the shift register. */
        s->lsr |= s->tsr_retry ? 0 : LSR_THRE;
    }
    if (!s->recv_fifo.num) {
        s->timeout_ipending = 0;
        timer_del(s->fifo_timeout_timer);
    }
    irq_load_level(s->irq, update_iir(s));
    return 0;
}

static bool thr_pending_is_needed(void *opaque)
{
    SerialState *s = opaque;

    return (s->ier & IER_THRE) && ((s->iir & IIR_ID) == IIR_THRE) != s->thr_ipending;
}

static bool tsr_is_needed(void *opaque)
{
    return ((SerialState *)opaque)->tsr_retry;
}

static bool recv_fifo_is_needed(void *opaque)
{
    return ((SerialState *)opaque)->recv_fifo.num;
}

static bool xmit_fifo_is_needed(void *opaque)
{
    return ((SerialState *)opaque)->xmit_fifo.num;
}

static bool timer_is_needed(void *opaque)
{
    return timer_pending(((SerialState *)opaque)->fifo_timeout_timer);
}

static bool timeout_is_needed(void *opaque)
{
    return ((SerialState *)opaque)->timeout_ipending;
}

static bool poll_is_needed(void *opaque)
{
    return false;
}

static const VMStateField fifo_fields[] = {VMSTATE_BUFFER(data, SerialFifo),
                                           VMSTATE_UINT32(head, SerialFifo),
                                           VMSTATE_UINT32(num, SerialFifo), VMSTATE_END_OF_LIST()};
static const VMStateDescription vmstate_fifo = {
    .name = "Fifo8",
    .version_id = 1,
    .minimum_version_id = 1,
    .post_load = fifo_loaded,
    .fields = fifo_fields,
};

#define SUBSECTION(_symbol, _name, _needed, ...)                                         \
    static const VMStateField _symbol##_fields[] = {__VA_ARGS__, VMSTATE_END_OF_LIST()}; \
    static const VMStateDescription vmstate_##_symbol = {.name = "serial/" _name,        \
                                                         .version_id = 1,                \
                                                         .minimum_version_id = 1,        \
                                                         .needed = (_needed),            \
                                                         .fields = _symbol##_fields}

SUBSECTION(thr_pending, "thr_ipending", thr_pending_is_needed,
           VMSTATE_INT32(thr_ipending, SerialState));
SUBSECTION(tsr, "tsr", tsr_is_needed, VMSTATE_UINT32(tsr_retry, SerialState),
           VMSTATE_UINT8(thr, SerialState), VMSTATE_UINT8(tsr, SerialState));
SUBSECTION(recv_fifo, "recv_fifo", recv_fifo_is_needed,
           VMSTATE_STRUCT(recv_fifo, SerialState, 1, vmstate_fifo, SerialFifo));
SUBSECTION(xmit_fifo, "xmit_fifo", xmit_fifo_is_needed,
           VMSTATE_STRUCT(xmit_fifo, SerialState, 1, vmstate_fifo, SerialFifo));
SUBSECTION(timer, "fifo_timeout_timer", timer_is_needed,
           VMSTATE_TIMER_PTR(fifo_timeout_timer, SerialState));
SUBSECTION(timeout, "timeout_ipending", timeout_is_needed,
           VMSTATE_INT32(timeout_ipending, SerialState));
SUBSECTION(poll, "poll", poll_is_needed, VMSTATE_INT32(poll_msl, SerialState),
           VMSTATE_INT64(modem_status_poll, SerialState));

static const VMStateField chip_fields[] = {VMSTATE_UINT16(divider, SerialState),
                                           VMSTATE_UINT8(rbr, SerialState),
                                           VMSTATE_UINT8(ier, SerialState),
                                           VMSTATE_UINT8(iir, SerialState),
                                           VMSTATE_UINT8(lcr, SerialState),
                                           VMSTATE_UINT8(mcr, SerialState),
                                           VMSTATE_UINT8(lsr, SerialState),
                                           VMSTATE_UINT8(msr, SerialState),
                                           VMSTATE_UINT8(scr, SerialState),
                                           VMSTATE_UINT8(fcr_vmstate, SerialState),
                                           VMSTATE_END_OF_LIST()};

static const VMStateDescription *const chip_subsections[] = {
    &vmstate_thr_pending, &vmstate_tsr,     &vmstate_recv_fifo, &vmstate_xmit_fifo,
    &vmstate_timer,       &vmstate_timeout, &vmstate_poll,      NULL};

const VMStateDescription vmstate_serial_chip = {
    .name = "serial",
    .version_id = 3,
    .minimum_version_id = 3,
    .pre_load = before_load,
    .post_load = loaded,
    .fields = chip_fields,
    .subsections = chip_subsections,
};
