/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Life of an image: opened, handed over, described, closed. */
#ifndef FERRY_BLOCK_QCOW2_IMAGE_H
#define FERRY_BLOCK_QCOW2_IMAGE_H

#include "block/qcow2/qcow2.h"

/* Rewrites the header from s->header. Durable on return. */
int coroutine_fn qcow2_co_update_header(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/* Sets the dirty bit, durably, unless it is set. */
int coroutine_fn qcow2_co_mark_dirty(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
/*
 * What must be true before the first change to the image: clears autoclear bits that we do not keep
 * up.
 */
int coroutine_fn qcow2_co_prepare_write(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;

bool coroutine_fn qcow2_co_open(BlockDriverState *bs, const BlockdevOptions *opts, int flags,
                                GError **errp);
void coroutine_fn qcow2_co_close(BlockDriverState *bs);
/*
 * Another process takes the image over: everything is on disk, and nothing is written until it is
 * invalidated.
 */
int coroutine_fn qcow2_co_hand_over(BlockDriverState *bs);
/*
 * Another process has changed the image: everything is read anew. On failure all later requests
 * fail.
 */
bool coroutine_fn qcow2_co_take_over(BlockDriverState *bs, GError **errp);
/*
 * Nothing in flight: brings the file up to date with what is in memory and takes the dirty bit
 * away.
 */
int coroutine_fn qcow2_co_sync(BlockDriverState *bs) G_GNUC_WARN_UNUSED_RESULT;
bool coroutine_fn qcow2_co_format(const BlockdevCreateOptions *options, GError **errp);
ImageInfoSpecific *coroutine_fn qcow2_co_describe(BlockDriverState *bs, GError **errp);
bool coroutine_fn qcow2_co_say_geometry(BlockDriverState *bs, int64_t *cluster_size,
                                        bool *is_dirty);
int coroutine_fn qcow2_co_refer_to_backing(BlockDriverState *bs, const char *backing_file,
                                           const char *backing_fmt);

#endif
