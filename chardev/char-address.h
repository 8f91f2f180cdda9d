/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Addresses of socket chardevs: from the schema's form, and to the words of query-chardev. */
#ifndef FERRY_CHARDEV_CHAR_ADDRESS_H
#define FERRY_CHARDEV_CHAR_ADDRESS_H

#include "qapi/qapi-types-sockets.h"
#include "util/sockaddr.h"

/* The caller frees. NULL and errp for numbers out of range. */
FerrySockAddr *chr_address_from_legacy(const SocketAddressLegacy *addr, GError **errp);
/* "tcp:127.0.0.1:80", "unix:/path", "unix:@name,abstract=on,tight=on", "fd:7". The caller frees. */
char *chr_address_name(const FerrySockAddr *addr);

#endif
