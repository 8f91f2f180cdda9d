/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports: nodes that others outside the process read and write. The generic part owns the
 * BlockBackend, the reference count and the life cycle (running -> shutting down -> deleted with
 * BLOCK_EXPORT_DELETED); a driver (block/nbd/server) does the rest.
 */
#ifndef FERRY_BLOCK_EXPORT_H
#define FERRY_BLOCK_EXPORT_H

#include "block/block-backend.h"
#include "util/queue.h"

typedef struct BlockExport BlockExport;

typedef struct BlockExportDriver {
    BlockExportType type;
    size_t instance_size; /* BlockExport is its first member */
    /* Main thread. exp->blk is set up, exp->ctx chosen. */
    bool coroutine_fn (*create)(BlockExport *exp, const BlockExportOptions *opts, GError **errp);
    /*
     * Asks users to go: no new connections, the present ones are closed. References are dropped as
     * they end.
     */
    void (*request_shutdown)(BlockExport *exp);
    /* The last reference is gone: release everything. Main thread. */
    void (*delete)(BlockExport *exp);
} BlockExportDriver;

struct BlockExport {
    const BlockExportDriver *drv;
    char *id;
    int refcount;       /* atomic; a connection holds one */
    bool user_owned;    /* still in the list of exports */
    bool shutting_down; /* atomic: the main thread sets it, connections look */
    AioContext *ctx;
    BlockBackend *blk;
    TAILQ_ENTRY(BlockExport) next;
};

/* Makes a type of export known; `drv` lives on. Start-up, before the first export. */
void blk_exp_register_driver(const BlockExportDriver *drv);
BlockExport *coroutine_fn blk_exp_co_add(const BlockExportOptions *opts, GError **errp);
BlockExport *blk_exp_find(const char *id);
BlockExport *blk_exp_next(BlockExport *exp);
void blk_exp_ref(BlockExport *exp);
void blk_exp_unref(BlockExport *exp); /* any thread */
void blk_exp_request_shutdown(BlockExport *exp);
/*
 * Shuts down every export (of a type; BLOCK_EXPORT_TYPE__MAX: all) and waits until they are gone.
 */
void coroutine_fn blk_exp_co_close_all(BlockExportType type);

#endif
