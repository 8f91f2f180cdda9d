/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The payload of a packet: the bytes of the pages as they are. */
#include "migration/multifd-codec.h"

#include <errno.h>
#include "migration/multifd-packet.h"
#include "util/error.h"

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
