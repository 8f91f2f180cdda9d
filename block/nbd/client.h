/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The NBD client as the rest of the block layer sees it: names. The driver itself is bdrv_nbd. */
#ifndef FERRY_BLOCK_NBD_CLIENT_H
#define FERRY_BLOCK_NBD_CLIENT_H

#include <glib.h>
#include <stdbool.h>
#include "block/block.h"
#include "qapi/qapi-types.h"

extern const BlockDriver bdrv_nbd;

/*
 * Understands the names of NBD exports:
 *   nbd:HOST:PORT[:exportname=NAME]      nbd:unix:PATH[:exportname=NAME]
 *   nbd://HOST[:PORT][/NAME]             nbd+tcp://...
 *   nbd+unix:///[NAME]?socket=PATH
 * Fills the members of *out, which the caller has zeroed and frees as part of the struct it belongs
 * to. Main thread or any other.
 */
bool nbd_parse_filename(const char *filename, BlockdevOptionsNbd *out, GError **errp);

/*
 * The shortest of these names that says what opts say, or NULL when only a json: name would. The
 * caller frees.
 */
char *nbd_make_filename(const BlockdevOptionsNbd *opts);

#endif
