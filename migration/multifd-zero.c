/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zero pages, found by the thread of the channel that would send them. */
#include "migration/multifd-int.h"

#include <string.h>
#include "util/bufferiszero.h"

static bool is_zero(const MultiFDBatch *batch, unsigned i)
{
    switch ((MultiFDPageKind)batch->kinds[i]) {
    case MULTIFD_PAGE_ZERO:
        return true;
    case MULTIFD_PAGE_LOOK:
        return buffer_is_zero(batch->block->host + batch->offsets[i], TARGET_PAGE_SIZE);
    default:
        return false;
    }
}

void multifd_zero_split(const MultiFDBatch *batch, MultiFDPacket *packet)
{
    uint64_t zero[MULTIFD_PACKET_PAGES];

    packet->normal = packet->zero = 0;
    for (unsigned i = 0; i < batch->n; i++) {
        if (is_zero(batch, i)) {
            zero[packet->zero++] = batch->offsets[i];
        } else {
            packet->offsets[packet->normal++] = batch->offsets[i];
        }
    }
    memcpy(packet->offsets + packet->normal, zero, packet->zero * sizeof(zero[0]));
}
