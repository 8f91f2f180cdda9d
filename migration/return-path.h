/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The return path: what the destination tells the source, on the reverse direction of the main
 * channel. A thread at the source reads it from the start of the migration to its verdict.
 */
#ifndef FERRY_MIGRATION_RETURN_PATH_H
#define FERRY_MIGRATION_RETURN_PATH_H

#include <glib.h>
#include <stdbool.h>
#include "migration/migration.h"

/* Starts the reader of s->to_dst's way back. NULL with an error. The source's thread. */
ReturnPath *return_path_open(MigrationState *s, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Waits for the verdict: true when the destination has loaded everything. False: it has not, or its answer did
 * not arrive, or the migration was cancelled; the migration has an error then. The source's thread.
 */
bool return_path_wait(ReturnPath *rp);
/* Whether the destination has said, in so many words, that it failed. After return_path_wait(). */
bool return_path_refused(const ReturnPath *rp);
/* The channel was shut down or the verdict has come: joins the thread and frees. NULL is allowed. */
void return_path_free(ReturnPath *rp);

#endif
