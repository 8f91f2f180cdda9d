/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the methods share: the vector of pages, the way through it, and the choice between them. */
#include "migration/multifd-codec.h"

#include <string.h>
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

int multifd_encode_pages(const MultiFDPages *pages, MultiFDEncodePage *encode, void *opaque,
                         GError **errp)
{
    uint8_t copy[TARGET_PAGE_SIZE];
    size_t left = pages->bytes;
    int ret = 0;

    for (unsigned i = 0; i < pages->niov; i++) {
        const struct iovec *iov = &pages->iov[i];

        for (size_t at = 0; at < iov->iov_len && ret == 0; at += TARGET_PAGE_SIZE) {
            memcpy(copy, (const uint8_t *)iov->iov_base + at, TARGET_PAGE_SIZE);
            left -= TARGET_PAGE_SIZE;
            ret = encode(opaque, copy, left == 0, errp);
        }
    }
    return ret;
}

void multifd_pages_set_buffer(MultiFDPages *pages, void *buf, size_t bytes)
{
    pages->iov[0] = (struct iovec){buf, bytes};
    pages->niov = 1;
    pages->bytes = bytes;
}
