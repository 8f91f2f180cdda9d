/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * isa-debugcon: a port whose bytes go to a character device; reading it gives a constant, by which a guest
 * finds out that it is there.
 */
#include "hw/isa/isa.h"
#include "hw/types.h"
#include "util/aio.h"
#include "util/error.h"

/* Output that waits for a slow reader; beyond it bytes are lost, the guest never waits. */
#define DEBUGCON_OUTPUT_LIMIT (1024 * 1024)

/* What a vCPU has written since the main loop sent the last; beyond it bytes are lost as well. */
#define DEBUGCON_PENDING_LIMIT (64 * 1024)

typedef struct DebugconState {
    ISADevice parent;
    uint32_t iobase, readback;
    CharFrontend chr;
    RegisterBank bank;
    GByteArray *pending; /* from vCPUs: the chardev is called in its thread alone */
    QEMUBH *send_bh;
} DebugconState;

static uint64_t data_read(void *state, unsigned index, uint64_t stored, uint64_t mask)
{
    DebugconState *s = state;

    return s->readback & 0xff;
}

static void send_pending(void *opaque)
{
    DebugconState *s = opaque;

    (void)qemu_chr_fe_write(&s->chr, s->pending->data, s->pending->len);
    g_byte_array_set_size(s->pending, 0);
}

static void data_write(void *state, const RegisterWrite *write)
{
    DebugconState *s = state;
    uint8_t byte = (uint8_t)write->data;

    if (s->pending->len < DEBUGCON_PENDING_LIMIT) {
        g_byte_array_append(s->pending, &byte, 1);
    }
    if (aio_context_in_own_thread(qemu_get_aio_context())) {
        send_pending(s);
    } else {
        qemu_bh_schedule(s->send_bh);
    }
}

static const RegisterRow debugcon_rows[] = {
    REGISTER_HOOKS(0, 1, "DATA", .read = data_read, .write = data_write),
};

static const RegisterTable debugcon_table = {"isa-debugcon", debugcon_rows,
                                             G_N_ELEMENTS(debugcon_rows)};

/* Nothing comes in: what is typed at the other end is not read. */
static size_t takes_nothing(void *opaque)
{
    return 0;
}

static void reads_nothing(void *opaque, const uint8_t *buf, size_t len)
{
}

static const CharFrontendOps debugcon_chr_ops = {.can_read = takes_nothing, .read = reads_nothing};

/* The last output of a guest that ends the process: the loop may not turn again. */
static void run_state_changed(DeviceState *dev, bool running)
{
    send_pending(dev);
}

static void debugcon_finalize(DeviceState *dev)
{
    DebugconState *s = (DebugconState *)dev;

    qemu_bh_delete(s->send_bh);
    g_byte_array_unref(s->pending);
}

static void debugcon_init(DeviceState *dev)
{
    DebugconState *s = (DebugconState *)dev;

    s->pending = g_byte_array_new();
    s->send_bh = aio_bh_new(qemu_get_aio_context(), send_pending, s);
}

static bool coroutine_fn debugcon_co_realize(DeviceState *dev, GError **errp)
{
    DebugconState *s = (DebugconState *)dev;
    g_autofree char *path = device_path(dev);

    if (!s->chr.chr) {
        error_setg(errp, "Can't create debugcon device, empty char device");
        return false;
    }
    if (!property_chardev_connect(&s->chr, &debugcon_chr_ops, s, DEBUGCON_OUTPUT_LIMIT, errp)) {
        return false;
    }
    register_bank_init(&s->bank, path, &debugcon_table, s, 1);
    return isa_register_ioport(dev, &s->bank.region, s->iobase, errp);
}

static const Property debugcon_properties[] = {
    DEFINE_PROP_UINT32("iobase", DebugconState, iobase, 0xe9),
    DEFINE_PROP_CHR("chardev", DebugconState, chr),
    DEFINE_PROP_UINT32("readback", DebugconState, readback, 0xe9),
    {0},
};

DEFINE_DEVICE(isa_debugcon_device, DebugconState, NO_VMSTATE, .name = "isa-debugcon",
              .parent = TYPE_ISA_DEVICE, .category = DEVICE_CATEGORY_MISC,
              .properties = debugcon_properties, .init = debugcon_init,
              .co_realize = debugcon_co_realize, .finalize = debugcon_finalize,
              .run_state_changed = run_state_changed);
