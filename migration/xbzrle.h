/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * XBZRLE: a page as the difference to what was sent before.
 *
 *   encoded := ( zrun nzrun data )*      zrun: bytes that stay;  nzrun: bytes that follow in data
 *   varint  := one byte if < 128, else (v & 0x7f) | 0x80, v >> 7
 *
 * The first zrun may be 0, all other runs are at least 1, a last run of bytes that stay is left out.
 *
 * The source keeps the pages it sent in a cache of one place for each hash; the destination needs
 * none, it has them in guest memory.
 */
#ifndef FERRY_MIGRATION_XBZRLE_H
#define FERRY_MIGRATION_XBZRLE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "migration/migration.h"

/* The byte in front of the length in a record. */
#define XBZRLE_ENCODING 1

/*
 * Bytes written to out; 0: nothing differs; -1: it would not fit. size is at most 16383, what a varint
 * can say; any thread.
 */
int xbzrle_encode(const uint8_t *old, const uint8_t *page, size_t size, uint8_t *out,
                  size_t out_size);
/*
 * Applies what was encoded to page. False: it is malformed or goes beyond the page, which may have
 * changed in part.
 */
bool xbzrle_decode(const uint8_t *in, size_t in_size, uint8_t *page,
                   size_t size) G_GNUC_WARN_UNUSED_RESULT;

/* --- the cache; the source's thread --- */

typedef struct XBZRLECache XBZRLECache;

/* `bytes` is rounded down to a power of two of pages, at least one. NULL with an error. */
XBZRLECache *xbzrle_cache_new(uint64_t bytes, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void xbzrle_cache_free(XBZRLECache *cache); /* NULL is allowed */
/*
 * Another size, rounded as above; pages stay as far as there are places for them. Without memory for it
 * the cache stays as it is, which is said once.
 */
void xbzrle_cache_resize(XBZRLECache *cache, uint64_t bytes);
uint64_t xbzrle_cache_bytes(const XBZRLECache *cache);

/* What was last sent of the page at this address (ram_addr_t, page aligned); NULL: not known. */
uint8_t *xbzrle_cache_find(XBZRLECache *cache, uint64_t addr);
/*
 * A place for the page, whose contents the caller fills with what it sends; NULL: another page that is
 * used more has it.
 */
uint8_t *xbzrle_cache_insert(XBZRLECache *cache, uint64_t addr);
/* A pass has ended: pages grow older, and the rates of the counters are made from it. */
void xbzrle_cache_next_pass(XBZRLECache *cache, MigrationState *s);

#endif
