/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: how single values and bytes travel. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "util/error.h"
#include "util/int-math.h"
#include "util/timer.h"
#include "vmstate/vmstate-int.h"
#include "vmstate/vmstate.h"

/* Members may be packed: values are copied, not dereferenced. */
#define VMSTATE_SCALAR(_name, _type, _get, _put)                                            \
    static int read_##_name(QEMUFile *f, void *pv, size_t size, const VMStateField *field,  \
                            GError **errp)                                                  \
    {                                                                                       \
        _type v = _get(f);                                                                  \
                                                                                            \
        memcpy(pv, &v, sizeof(v));                                                          \
        return 0;                                                                           \
    }                                                                                       \
    static int write_##_name(QEMUFile *f, void *pv, size_t size, const VMStateField *field, \
                             JSONWriter *vmdesc, GError **errp)                             \
    {                                                                                       \
        _type v;                                                                            \
                                                                                            \
        memcpy(&v, pv, sizeof(v));                                                          \
        _put(f, v);                                                                         \
        return 0;                                                                           \
    }                                                                                       \
    const VMStateInfo vmstate_info_##_name = {#_name, read_##_name, write_##_name}

VMSTATE_SCALAR(int8, int8_t, qemu_get_byte, qemu_put_byte);
VMSTATE_SCALAR(int16, int16_t, qemu_get_be16, qemu_put_be16);
VMSTATE_SCALAR(int32, int32_t, qemu_get_be32, qemu_put_be32);
VMSTATE_SCALAR(int64, int64_t, qemu_get_be64, qemu_put_be64);
VMSTATE_SCALAR(uint8, uint8_t, qemu_get_byte, qemu_put_byte);
VMSTATE_SCALAR(uint16, uint16_t, qemu_get_be16, qemu_put_be16);
VMSTATE_SCALAR(uint32, uint32_t, qemu_get_be32, qemu_put_be32);
VMSTATE_SCALAR(uint64, uint64_t, qemu_get_be64, qemu_put_be64);

static int read_bool(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    *(bool *)pv = qemu_get_byte(f) != 0;
    return 0;
}

static int write_bool(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                      JSONWriter *vmdesc, GError **errp)
{
    qemu_put_byte(f, *(bool *)pv);
    return 0;
}

const VMStateInfo vmstate_info_bool = {"bool", read_bool, write_bool};

/* --- values that must suit what is here --- */

static int vmstate_differs(uint64_t here, uint64_t received, const VMStateField *field,
                           GError **errp)
{
    error_setg(errp, "0x%" PRIx64 " != 0x%" PRIx64 "%s%s", here, received,
               field->err_hint ? ": " : "", field->err_hint ? field->err_hint : "");
    return -EINVAL;
}

#define VMSTATE_EQUAL(_name, _type, _get)                                                  \
    static int read_##_name(QEMUFile *f, void *pv, size_t size, const VMStateField *field, \
                            GError **errp)                                                 \
    {                                                                                      \
        _type here, received = _get(f);                                                    \
                                                                                           \
        memcpy(&here, pv, sizeof(here));                                                   \
        return here == received ? 0 : vmstate_differs(here, received, field, errp);        \
    }                                                                                      \
    const VMStateInfo vmstate_info_##_name

VMSTATE_EQUAL(uint8_equal, uint8_t, qemu_get_byte) = {"uint8 equal", read_uint8_equal, write_uint8};
VMSTATE_EQUAL(uint16_equal, uint16_t, qemu_get_be16) = {"uint16 equal", read_uint16_equal,
                                                        write_uint16};
VMSTATE_EQUAL(uint32_equal, uint32_t, qemu_get_be32) = {"uint32 equal", read_uint32_equal,
                                                        write_uint32};
VMSTATE_EQUAL(int32_equal, uint32_t, qemu_get_be32) = {"int32 equal", read_int32_equal,
                                                       write_int32};
/* the JSON's word for it has no u */
VMSTATE_EQUAL(uint64_equal, uint64_t, qemu_get_be64) = {"int64 equal", read_uint64_equal,
                                                        write_uint64};

static int read_int32_le(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                         GError **errp)
{
    int32_t here, received = qemu_get_be32(f);

    memcpy(&here, pv, sizeof(here));
    if (received < 0 || received > here) {
        error_setg(errp, "%d is not between 0 and %d", received, here);
        return -EINVAL;
    }
    memcpy(pv, &received, sizeof(received));
    return 0;
}

const VMStateInfo vmstate_info_int32_le = {"int32 le", read_int32_le, write_int32};

G_STATIC_ASSERT(sizeof(double) == 8);
const VMStateInfo vmstate_info_cpudouble = {"CPU_Double_U", read_uint64, write_uint64};

/* --- timers --- */

static int read_timer(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    QEMUTimer *timer = *(QEMUTimer **)pv;
    uint64_t expire_ns = qemu_get_be64(f);

    if (!timer) {
        error_setg(errp, "the timer does not exist here");
        return -EINVAL;
    }
    if (qemu_file_get_error(f) < 0) {
        return qemu_file_get_error(f);
    }
    if (expire_ns == UINT64_MAX) {
        timer_del(timer);
    } else {
        timer_mod_ns(timer, expire_ns);
    }
    return 0;
}

static int write_timer(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                       JSONWriter *vmdesc, GError **errp)
{
    QEMUTimer *timer = *(QEMUTimer **)pv;

    if (!timer) {
        error_setg(errp, "the timer does not exist here");
        return -EINVAL;
    }
    qemu_put_be64(f, timer_expire_ns(timer));
    return 0;
}

const VMStateInfo vmstate_info_timer = {"timer", read_timer, write_timer};

/* --- bytes and bits --- */

static int read_buffer(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    return qemu_get_buffer(f, pv, size);
}

static int write_buffer(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                        JSONWriter *vmdesc, GError **errp)
{
    qemu_put_buffer(f, pv, size);
    return 0;
}

const VMStateInfo vmstate_info_buffer = {"buffer", read_buffer, write_buffer};

/* Bytes of a device that has no use for them any more: zero when they are sent. */
static int skip_unused(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    return qemu_file_skip(f, size);
}

static int send_unused(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                       JSONWriter *vmdesc, GError **errp)
{
    for (; size >= 8; size -= 8) {
        qemu_put_be64(f, 0);
    }
    for (; size > 0; size--) {
        qemu_put_byte(f, 0);
    }
    return 0;
}

const VMStateInfo vmstate_info_unused_buffer = {
    .name = "unused_buffer",
    .get = skip_unused,
    .put = send_unused,
};

/* The bits of the last word that do not exist are zero in memory, whatever the stream says. */
static int read_bitmap(QEMUFile *f, void *pv, size_t bits, const VMStateField *field, GError **errp)
{
    uint64_t *words = pv;

    for (size_t i = 0; i < DIV_ROUND_UP(bits, 64); i++) {
        words[i] = qemu_get_be64(f);
    }
    if (bits % 64) {
        words[bits / 64] &= (UINT64_C(1) << bits % 64) - 1;
    }
    return 0;
}

static int write_bitmap(QEMUFile *f, void *pv, size_t bits, const VMStateField *field,
                        JSONWriter *vmdesc, GError **errp)
{
    const uint64_t *words = pv;

    for (size_t i = 0; i < DIV_ROUND_UP(bits, 64); i++) {
        qemu_put_be64(f, words[i]);
    }
    return 0;
}

const VMStateInfo vmstate_info_bitmap = {"bitmap", read_bitmap, write_bitmap};

/* --- what is nothing, or cannot be --- */

static int read_nullptr(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                        GError **errp)
{
    uint8_t marker = qemu_get_byte(f);

    if (marker != VMS_NULLPTR_MARKER) {
        error_setg(errp, "the element does not exist here, but in the stream (byte 0x%02x)",
                   marker);
        return -EINVAL;
    }
    return 0;
}

static int write_nullptr(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                         JSONWriter *vmdesc, GError **errp)
{
    qemu_put_byte(f, VMS_NULLPTR_MARKER);
    return 0;
}

const VMStateInfo vmstate_info_nullptr = {"nullptr", read_nullptr, write_nullptr};

static int read_fd(QEMUFile *f, void *pv, size_t size, const VMStateField *field, GError **errp)
{
    error_setg(errp, "file descriptors do not travel in a migration stream");
    return -ENOTSUP;
}

static int write_fd(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                    JSONWriter *vmdesc, GError **errp)
{
    return read_fd(f, pv, size, field, errp);
}

const VMStateInfo vmstate_info_fd = {"fd", read_fd, write_fd};

/* --- structs that exist only while they travel --- */

/* Zeroed, but for its first member, which points to the device. The caller frees it. */
static void *new_traveller(const void *device, size_t size)
{
    void *traveller = g_malloc0(size);

    memcpy(traveller, &device, sizeof(device));
    return traveller;
}

static int load_traveller(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                          GError **errp)
{
    g_autofree void *traveller = new_traveller(pv, size);

    return vmstate_load_state(f, field->vmsd, traveller, field->version_id, errp);
}

static int save_traveller(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                          JSONWriter *vmdesc, GError **errp)
{
    g_autofree void *traveller = new_traveller(pv, size);

    return vmstate_save_state(f, field->vmsd, traveller, vmdesc, errp);
}

const VMStateInfo vmstate_info_tmp = {
    .name = "tmp",
    .get = load_traveller,
    .put = save_traveller,
};
