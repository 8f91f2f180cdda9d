/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hw/core/loader.h"

#include <inttypes.h>
#include "hw/core/reset.h"
#include "hw/core/sysbus.h"
#include "memory/address-space.h"
#include "util/error.h"
#include "util/int-math.h"

typedef struct Blob {
    char *name;
    hwaddr addr;
    GBytes *bytes;
} Blob;

static GArray *blobs; /* Blob; NULL: none */

static uint64_t blob_end(const Blob *blob)
{
    return blob->addr + g_bytes_get_size(blob->bytes);
}

/* The blob that has one of these addresses; NULL: none. */
static const Blob *find_overlap(hwaddr addr, uint64_t bytes)
{
    for (guint i = 0; blobs && i < blobs->len; i++) {
        const Blob *blob = &g_array_index(blobs, Blob, i);

        if (addr < blob_end(blob) && blob->addr < addr + bytes) {
            return blob;
        }
    }
    return NULL;
}

bool loader_add(const char *name, hwaddr addr, GBytes *bytes, GError **errp)
{
    const Blob *other = find_overlap(addr, g_bytes_get_size(bytes));
    const Blob blob = {g_strdup(name), addr, bytes};

    blobs = blobs ? blobs : g_array_new(FALSE, FALSE, sizeof(Blob));
    if (other) {
        error_setg(errp, "%s does not fit at 0x%" PRIx64 ": %s is there", name, (uint64_t)addr,
                   other->name);
        g_free(blob.name);
        g_bytes_unref(bytes);
        return false;
    }
    g_array_append_val(blobs, blob);
    return true;
}

hwaddr loader_room(hwaddr addr, uint64_t bytes, uint64_t align)
{
    const Blob *other;

    addr = ROUND_UP(addr, align);
    while ((other = find_overlap(addr, bytes))) {
        addr = ROUND_UP(blob_end(other), align);
    }
    return addr;
}

static void write_blobs(DeviceState *dev)
{
    for (guint i = 0; blobs && i < blobs->len; i++) {
        const Blob *blob = &g_array_index(blobs, Blob, i);
        gsize len;
        gconstpointer data = g_bytes_get_data(blob->bytes, &len);

        (void)address_space_write_rom(get_address_space_memory(), blob->addr,
                                      MEMTXATTRS_UNSPECIFIED, data, len);
    }
}

static DEFINE_DEVICE(loader_device, SysBusDevice, NO_VMSTATE, .name = "loader-blobs",
                     .parent = "sys-bus-device", .internal = true, .reset_exit = write_blobs);

bool coroutine_fn loader_co_start(GError **errp)
{
    return sysbus_co_new(loader_device.name, errp) != NULL;
}

void loader_register_types(void)
{
    device_class_register(&loader_device);
}
