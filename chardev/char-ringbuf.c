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
    size_t next; /* the first of them that was neither read nor overwritten */
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
    if (s->end - s->next > s->size) {
        s->next = s->end - s->size;
    }
}

static RingBufChardev *as_ringbuf(Chardev *chr, GError **errp)
{
    if (chr->klass != &chardev_ringbuf_class) {
        error_setg(errp, "%s is not a ringbuf device", chr->label);
        return NULL;
    }
    return (RingBufChardev *)chr;
}

bool qemu_chr_ringbuf_write(Chardev *chr, const void *buf, size_t len, GError **errp)
{
    if (!as_ringbuf(chr, errp)) {
        return false;
    }
    ringbuf_write(chr, buf, len);
    return true;
}

GByteArray *qemu_chr_ringbuf_read(Chardev *chr, size_t max, GError **errp)
{
    RingBufChardev *s = as_ringbuf(chr, errp);
    GByteArray *bytes;

    if (!s) {
        return NULL;
    }
    bytes = g_byte_array_new();
    while (s->next != s->end && bytes->len < max) {
        g_byte_array_append(bytes, &s->data[s->next++ & (s->size - 1)], 1);
    }
    return bytes;
}

const ChardevClass chardev_ringbuf_class = {
    .kind = CHARDEV_BACKEND_KIND_RINGBUF,
    .name = "ringbuf",
    .instance_size = sizeof(RingBufChardev),
    .co_open = ringbuf_co_open,
    .close = ringbuf_close,
    .write = ringbuf_write,
};
