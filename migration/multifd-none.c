/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The payload of a packet: the bytes of the pages as they are, and the choice between methods. */
#include "migration/multifd-codec.h"

#include <errno.h>
#include "migration/multifd-packet.h"
#include "util/error.h"

void multifd_pages_from_offsets(MultiFDPages *pages, uint8_t *host, const uint64_t *offsets,
                                unsigned n)
{
    pages->niov = 0;
    pages->bytes = (size_t)n * TARGET_PAGE_SIZE;
    for (unsigned i = 0; i < n; i++) {
        if (i && offsets[i] == offsets[i - 1] + TARGET_PAGE_SIZE) {
            pages->iov[pages->niov - 1].iov_len += TARGET_PAGE_SIZE;
        } else {
            pages->iov[pages->niov++] = (struct iovec){host + offsets[i], TARGET_PAGE_SIZE};
        }
    }
}

const MultiFDCodec *multifd_codec_find(MultiFDCompression method, GError **errp)
{
    static const MultiFDCodec *const codecs[MULTIFD_COMPRESSION__MAX] = {
        [MULTIFD_COMPRESSION_NONE] = &multifd_codec_none,
        [MULTIFD_COMPRESSION_ZLIB] = &multifd_codec_zlib,
        [MULTIFD_COMPRESSION_ZSTD] = &multifd_codec_zstd,
    };

    if (method >= G_N_ELEMENTS(codecs) || !codecs[method]) {
        error_setg(errp, "multifd: compression method '%s' is not available",
                   MultiFDCompression_str(method));
        return NULL;
    }
    return codecs[method];
}

/* There is no state; this stands for one. */
static char no_state;

static void *none_send_new(const MigrationSettings *settings, GError **errp)
{
    return &no_state;
}

static void *none_recv_new(GError **errp)
{
    return &no_state;
}

static void none_free(void *state)
{
}

static int none_encode(void *state, const MultiFDPages *pages, MultiFDPages *out, GError **errp)
{
    *out = *pages;
    return 0;
}

static int none_receive(void *state, QIOChannel *ioc, uint32_t bytes, const MultiFDPages *pages,
                        GError **errp)
{
    if (bytes != pages->bytes) {
        error_setg(errp, "packet of %u bytes for %zu bytes of pages", bytes, pages->bytes);
        return -EINVAL;
    }
    return qio_channel_readv_all(ioc, pages->iov, pages->niov, errp);
}

const MultiFDCodec multifd_codec_none = {
    .flags = MULTIFD_FLAG_NONE,
    .send_new = none_send_new,
    .send_free = none_free,
    .encode = none_encode,
    .recv_new = none_recv_new,
    .recv_free = none_free,
    .receive = none_receive,
};
