/* SPDX-License-Identifier: GPL-2.0-or-later */
/* chardev ringbuf: keeps the last bytes of output in memory. */
#include "chardev/char-int.h"
#include "util/error.h"

#define RINGBUF_DEFAULT_SIZE 65536
#define RINGBUF_MAX_SIZE     (16 * 1024 * 1024)

typedef struct RingBufChardev {
    Chardev parent;
    size_t size; /* a power of two */
    size_t end;  /* bytes ever written */
    uint8_t *data;
} RingBufChardev;

static bool coroutine_fn ringbuf_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    RingBufChardev *s = (RingBufChardev *)chr;
    const ChardevRingbuf *opts = backend->u.ringbuf.data;
    int64_t size = opts->has_size ? opts->size : RINGBUF_DEFAULT_SIZE;

    if (size <= 0 || (size & (size - 1)) || size > RINGBUF_MAX_SIZE) {
        error_setg(errp, "size of ringbuf chardev must be power of two, at most %d",
                   RINGBUF_MAX_SIZE);
        return false;
    }
    s->size = (size_t)size;
    s->data = g_malloc0(s->size);
    qemu_chr_be_opened(chr);
    return true;
}

static void ringbuf_close(Chardev *chr)
{
    g_free(((RingBufChardev *)chr)->data);
}

static void ringbuf_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    RingBufChardev *s = (RingBufChardev *)chr;

    for (size_t i = 0; i < len; i++) {
        s->data[s->end++ & (s->size - 1)] = buf[i];
    }
}

const ChardevClass chardev_ringbuf_class = {
    .kind = CHARDEV_BACKEND_KIND_RINGBUF,
    .name = "ringbuf",
    .instance_size = sizeof(RingBufChardev),
    .co_open = ringbuf_co_open,
    .close = ringbuf_close,
    .write = ringbuf_write,
};
