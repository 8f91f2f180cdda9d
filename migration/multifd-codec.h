/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the bytes of pages become the payload of a packet and are taken out of it again. Each method
 * has one table; each channel has one state a direction, which lives as long as the channel. A
 * state is used by its channel's thread only.
 *
 * Pages come as a vector: each element is one page or several that follow each other.
 */
#ifndef FERRY_MIGRATION_MULTIFD_CODEC_H
#define FERRY_MIGRATION_MULTIFD_CODEC_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>
#include "io/channel.h"
#include "migration/multifd.h"
#include "migration/options.h"

typedef struct MultiFDPages {
    struct iovec iov[MULTIFD_PACKET_PAGES];
    unsigned niov;
    size_t bytes; /* of all elements; whole pages */
} MultiFDPages;

/* The pages at offsets[0..n) of a block's memory, neighbours in one element. */
void multifd_pages_from_offsets(MultiFDPages *pages, uint8_t *host, const uint64_t *offsets,
                                unsigned n);

/* One piece of memory as the only element; not necessarily whole pages. */
void multifd_pages_set_buffer(MultiFDPages *pages, void *buf, size_t bytes);

/* Takes a page of TARGET_PAGE_SIZE bytes into the payload; `last`: none follows in it. 0 or -errno. */
typedef int MultiFDEncodePage(void *opaque, const uint8_t *page, bool last, GError **errp);
/*
 * Has each page encoded from a copy: what is being compressed must not change, and the guest may be
 * writing to its memory. The copy is the caller's again after each call. 0 or -errno.
 */
int multifd_encode_pages(const MultiFDPages *pages, MultiFDEncodePage *encode, void *opaque,
                         GError **errp);

typedef struct MultiFDCodec {
    uint32_t flags; /* in each packet with pages: MULTIFD_FLAG_* */

    /* A new state for sending; NULL with an error. */
    void *(*send_new)(const MigrationSettings *settings, GError **errp);
    void (*send_free)(void *state); /* NULL is allowed */
    /*
     * Makes the payload of `pages`, which the guest may be writing to: out, at most
     * MULTIFD_PAYLOAD_MAX bytes, is valid until the next call. 0 or -errno.
     */
    int (*encode)(void *state, const MultiFDPages *pages, MultiFDPages *out, GError **errp);

    /* A new state for receiving; NULL with an error. */
    void *(*recv_new)(GError **errp);
    void (*recv_free)(void *state); /* NULL is allowed */
    /*
     * Reads a payload of `bytes`, at most MULTIFD_PAYLOAD_MAX, from the channel into the pages, and
     * fails unless it is that of exactly these pages. 0 or -errno.
     */
    int (*receive)(void *state, QIOChannel *ioc, uint32_t bytes, const MultiFDPages *pages,
                   GError **errp);
} MultiFDCodec;

extern const MultiFDCodec multifd_codec_none, multifd_codec_zlib, multifd_codec_zstd;

/* The one of a method; NULL with an error if this program has none. */
const MultiFDCodec *multifd_codec_find(MultiFDCompression method, GError **errp);

#endif
