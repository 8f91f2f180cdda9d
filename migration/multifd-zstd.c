/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The payload of a packet as part of a Zstandard frame (RFC 8878) that lasts as long as the channel.
 * Each payload ends with a flush, so that its pages come out of it without the next one.
 */
#include "migration/multifd-codec.h"

#include <errno.h>
#include <zstd.h>
#include "migration/multifd-packet.h"
#include "util/error.h"

/*
 * log2 of the largest window that a source may ask for: level 20, the highest that a source can be
 * set to, has that one. A receiver spends as much memory on each channel.
 */
#define ZSTD_WINDOW_LOG_MAX 25

/* --- sending --- */

typedef struct ZstdSend {
    ZSTD_CCtx *ctx;
    ZSTD_outBuffer out; /* MULTIFD_PAYLOAD_MAX */
} ZstdSend;

static void zstd_send_free(void *state)
{
    ZstdSend *z = state;

    if (z) {
        ZSTD_freeCCtx(z->ctx);
        g_free(z->out.dst);
        g_free(z);
    }
}

static void *zstd_send_new(const MigrationSettings *settings, GError **errp)
{
    ZstdSend *z = g_new0(ZstdSend, 1);
    size_t ret;

    z->ctx = ZSTD_createCCtx();
    z->out = (ZSTD_outBuffer){.dst = g_malloc(MULTIFD_PAYLOAD_MAX), .size = MULTIFD_PAYLOAD_MAX};
    if (!z->ctx) {
        error_setg(errp, "cannot compress with zstd: out of memory");
        zstd_send_free(z);
        return NULL;
    }
    ret = ZSTD_CCtx_setParameter(z->ctx, ZSTD_c_compressionLevel,
                                 settings->params.multifd_zstd_level);
    if (ZSTD_isError(ret)) {
        error_setg(errp, "cannot compress with zstd: %s", ZSTD_getErrorName(ret));
        zstd_send_free(z);
        return NULL;
    }
    return z;
}

static int zstd_encode_page(void *state, const uint8_t *page, bool last, GError **errp)
{
    ZstdSend *z = state;
    ZSTD_inBuffer in = {.src = page, .size = TARGET_PAGE_SIZE};
    size_t ret;

    do {
        ret = ZSTD_compressStream2(z->ctx, &z->out, &in, last ? ZSTD_e_flush : ZSTD_e_continue);
        if (ZSTD_isError(ret)) {
            error_setg(errp, "compressing with zstd failed: %s", ZSTD_getErrorName(ret));
            return -EIO;
        }
        if (z->out.pos == z->out.size) {
            error_setg(errp, "compressing with zstd failed: the packet is too large");
            return -EIO;
        }
    } while (in.pos < in.size || (last && ret));
    return 0;
}

static int zstd_encode(void *state, const MultiFDPages *pages, MultiFDPages *out, GError **errp)
{
    ZstdSend *z = state;
    int ret;

    z->out.pos = 0;
    ret = multifd_encode_pages(pages, zstd_encode_page, z, errp);
    multifd_pages_set_buffer(out, z->out.dst, z->out.pos);
    return ret;
}

/* --- receiving --- */

typedef struct ZstdRecv {
    ZSTD_DCtx *ctx;
    uint8_t *in; /* MULTIFD_PAYLOAD_MAX */
} ZstdRecv;

static void zstd_recv_free(void *state)
{
    ZstdRecv *z = state;

    if (z) {
        ZSTD_freeDCtx(z->ctx);
        g_free(z->in);
        g_free(z);
    }
}

static void *zstd_recv_new(GError **errp)
{
    ZstdRecv *z = g_new0(ZstdRecv, 1);
    size_t ret;

    z->ctx = ZSTD_createDCtx();
    z->in = g_malloc(MULTIFD_PAYLOAD_MAX);
    if (!z->ctx) {
        error_setg(errp, "cannot decompress with zstd: out of memory");
        zstd_recv_free(z);
        return NULL;
    }
    ret = ZSTD_DCtx_setParameter(z->ctx, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
    if (ZSTD_isError(ret)) {
        error_setg(errp, "cannot decompress with zstd: %s", ZSTD_getErrorName(ret));
        zstd_recv_free(z);
        return NULL;
    }
    return z;
}

/* One step; 1: it moved something, 0: it did not. */
static int zstd_step(ZstdRecv *z, ZSTD_outBuffer *out, ZSTD_inBuffer *in, GError **errp)
{
    size_t before = out->pos + in->pos;
    size_t ret = ZSTD_decompressStream(z->ctx, out, in);

    if (ZSTD_isError(ret)) {
        error_setg(errp, "decompressing with zstd failed: %s", ZSTD_getErrorName(ret));
        return -EINVAL;
    }
    return out->pos + in->pos != before;
}

/* Takes `bytes` out of the stream. */
static int zstd_decompress_to(ZstdRecv *z, ZSTD_inBuffer *in, uint8_t *to, size_t bytes,
                              GError **errp)
{
    ZSTD_outBuffer out = {.dst = to, .size = bytes};

    while (out.pos < out.size) {
        int ret = zstd_step(z, &out, in, errp);

        if (ret < 0) {
            return ret;
        }
        if (ret == 0) {
            error_setg(errp, "a compressed packet has fewer pages than it says");
            return -EINVAL;
        }
    }
    return 0;
}

/* What is left, if anything, is the end of the last block, which makes no bytes. */
static int zstd_decompress_end(ZstdRecv *z, ZSTD_inBuffer *in, GError **errp)
{
    uint8_t excess;
    ZSTD_outBuffer out = {.dst = &excess, .size = 1};
    int ret;

    do {
        ret = zstd_step(z, &out, in, errp);
    } while (ret == 1 && !out.pos);
    if (ret >= 0 && (out.pos || in->pos < in->size)) {
        error_setg(errp, "a compressed packet has more than the pages that it says");
        return -EINVAL;
    }
    return ret < 0 ? ret : 0;
}

static int zstd_receive(void *state, QIOChannel *ioc, uint32_t bytes, const MultiFDPages *pages,
                        GError **errp)
{
    ZstdRecv *z = state;
    ZSTD_inBuffer in = {.src = z->in, .size = bytes};
    int ret = qio_channel_read_all(ioc, z->in, bytes, errp);

    for (unsigned i = 0; ret >= 0 && i < pages->niov; i++) {
        ret = zstd_decompress_to(z, &in, pages->iov[i].iov_base, pages->iov[i].iov_len, errp);
    }
    return ret < 0 ? ret : zstd_decompress_end(z, &in, errp);
}

const MultiFDCodec multifd_codec_zstd = {
    .flags = MULTIFD_FLAG_ZSTD,
    .send_new = zstd_send_new,
    .send_free = zstd_send_free,
    .encode = zstd_encode,
    .recv_new = zstd_recv_new,
    .recv_free = zstd_recv_free,
    .receive = zstd_receive,
};
