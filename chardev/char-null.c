/* SPDX-License-Identifier: GPL-2.0-or-later */
/* chardev null: takes everything, gives nothing. */
#include "chardev/char-int.h"

static bool coroutine_fn null_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    qemu_chr_be_opened(chr);
    return true;
}

static void null_close(Chardev *chr)
{
}

static void null_write(Chardev *chr, const uint8_t *buf, size_t len)
{
}

const ChardevClass chardev_null_class = {
    .kind = CHARDEV_BACKEND_KIND_NULL,
    .name = "null",
    .instance_size = sizeof(Chardev),
    .co_open = null_co_open,
    .close = null_close,
    .write = null_write,
};
