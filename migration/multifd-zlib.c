/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The payload of a packet as part of a zlib stream (RFC 1950) that lasts as long as the channel. Each
 * payload ends with a sync flush, so that its pages come out of it without the next one.
 */
#include "migration/multifd-codec.h"

#define ZLIB_CONST /* it does not write to what it reads */
#include <errno.h>
#include <zlib.h>
#include "migration/multifd-packet.h"
#include "util/error.h"

/* --- sending --- */

typedef struct ZlibSend {
    z_stream zs;
    uint8_t *out; /* MULTIFD_PAYLOAD_MAX */
} ZlibSend;

static const char *zlib_text(const z_stream *zs, int ret)
{
    return zs->msg ? zs->msg : zError(ret);
}

static void *zlib_send_new(const MigrationSettings *settings, GError **errp)
{
    ZlibSend *z = g_new0(ZlibSend, 1);
    int ret = deflateInit(&z->zs, settings->params.multifd_zlib_level);

    if (ret != Z_OK) {
        error_setg(errp, "cannot compress with zlib: %s", zlib_text(&z->zs, ret));
        g_free(z);
        return NULL;
    }
    z->out = g_malloc(MULTIFD_PAYLOAD_MAX);
    return z;
}

static void zlib_send_free(void *state)
{
    ZlibSend *z = state;

    if (z) {
        deflateEnd(&z->zs);
        g_free(z->out);
        g_free(z);
    }
}

static int zlib_encode_page(void *state, const uint8_t *page, bool last, GError **errp)
{
    ZlibSend *z = state;
    int ret;

    z->zs.next_in = page;
    z->zs.avail_in = TARGET_PAGE_SIZE;
    ret = deflate(&z->zs, last ? Z_SYNC_FLUSH : Z_NO_FLUSH);
    if (ret != Z_OK || z->zs.avail_in || !z->zs.avail_out) {
        error_setg(errp, "compressing with zlib failed: %s", zlib_text(&z->zs, ret));
        return -EIO;
    }
    return 0;
}

static int zlib_encode(void *state, const MultiFDPages *pages, MultiFDPages *out, GError **errp)
{
    ZlibSend *z = state;
    int ret;

    z->zs.next_out = z->out;
    z->zs.avail_out = MULTIFD_PAYLOAD_MAX;
    ret = multifd_encode_pages(pages, zlib_encode_page, z, errp);
    multifd_pages_set_buffer(out, z->out, MULTIFD_PAYLOAD_MAX - z->zs.avail_out);
    return ret;
}

/* --- receiving --- */

typedef struct ZlibRecv {
    z_stream zs;
    uint8_t *in; /* MULTIFD_PAYLOAD_MAX */
} ZlibRecv;

static void *zlib_recv_new(GError **errp)
{
    ZlibRecv *z = g_new0(ZlibRecv, 1);
    int ret = inflateInit(&z->zs);

    if (ret != Z_OK) {
        error_setg(errp, "cannot decompress with zlib: %s", zlib_text(&z->zs, ret));
        g_free(z);
        return NULL;
    }
    z->in = g_malloc(MULTIFD_PAYLOAD_MAX);
    return z;
}

static void zlib_recv_free(void *state)
{
    ZlibRecv *z = state;

    if (z) {
        inflateEnd(&z->zs);
        g_free(z->in);
        g_free(z);
    }
}

/* Takes `bytes` out of the stream. */
static int zlib_inflate_to(ZlibRecv *z, uint8_t *to, size_t bytes, GError **errp)
{
    z->zs.next_out = to;
    z->zs.avail_out = bytes;
    while (z->zs.avail_out) {
        uInt before = z->zs.avail_out;
        int ret = inflate(&z->zs, Z_SYNC_FLUSH);

        if (ret != Z_OK && ret != Z_BUF_ERROR) {
            error_setg(errp, "decompressing with zlib failed: %s", zlib_text(&z->zs, ret));
            return -EINVAL;
        }
        if (z->zs.avail_out == before && !z->zs.avail_in) {
            error_setg(errp, "a compressed packet has fewer pages than it says");
            return -EINVAL;
        }
    }
    return 0;
}

/* What is left is the flush at the end, which makes no bytes. */
static int zlib_inflate_end(ZlibRecv *z, GError **errp)
{
    uint8_t excess;
    int ret;

    z->zs.next_out = &excess;
    z->zs.avail_out = 1;
    ret = inflate(&z->zs, Z_SYNC_FLUSH);
    if ((ret != Z_OK && ret != Z_BUF_ERROR) || !z->zs.avail_out || z->zs.avail_in) {
        error_setg(errp, "a compressed packet has more than the pages that it says");
        return -EINVAL;
    }
    return 0;
}

static int zlib_receive(void *state, QIOChannel *ioc, uint32_t bytes, const MultiFDPages *pages,
                        GError **errp)
{
    ZlibRecv *z = state;
    int ret = qio_channel_read_all(ioc, z->in, bytes, errp);

    z->zs.next_in = z->in;
    z->zs.avail_in = bytes;
    for (unsigned i = 0; ret >= 0 && i < pages->niov; i++) {
        ret = zlib_inflate_to(z, pages->iov[i].iov_base, pages->iov[i].iov_len, errp);
    }
    return ret < 0 ? ret : zlib_inflate_end(z, errp);
}

const MultiFDCodec multifd_codec_zlib = {
    .flags = MULTIFD_FLAG_ZLIB,
    .send_new = zlib_send_new,
    .send_free = zlib_send_free,
    .encode = zlib_encode,
    .recv_new = zlib_recv_new,
    .recv_free = zlib_recv_free,
    .receive = zlib_receive,
};
