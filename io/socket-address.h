/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The schema's SocketAddress as util/sockets.h takes it. */
#ifndef FERRY_IO_SOCKET_ADDRESS_H
#define FERRY_IO_SOCKET_ADDRESS_H

#include "qapi/qapi-types.h"
#include "util/sockaddr.h"

/* The caller frees. NULL and errp where a number does not parse. */
FerrySockAddr *socket_address_convert(const SocketAddress *addr,
                                      GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The same for the older form. */
FerrySockAddr *socket_address_convert_legacy(const SocketAddressLegacy *addr,
                                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* The other way round: fills a zeroed address, whose strings belong to it. */
void socket_address_fill(SocketAddress *to, const FerrySockAddr *from);
/* The other way; qapi_free_SocketAddress(). */
SocketAddress *socket_address_from_native(const FerrySockAddr *addr);
/* For messages; the caller frees. */
char *socket_address_to_string(const SocketAddress *addr);

#endif
