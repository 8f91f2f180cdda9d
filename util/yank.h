/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Yank: connections that may hang register here how to cut them, so that the command yank can do it
 * when nothing else gets through any more.
 *
 * Instances and their functions come and go in any thread. While one mutex is held, the functions
 * are called: they must not block, nor call anything of this file; shutting a socket down is what
 * they are for. What follows is the usual handling of a lost connection, in its own thread.
 */
#ifndef FERRY_UTIL_YANK_H
#define FERRY_UTIL_YANK_H

#include <glib.h>
#include <stdbool.h>

typedef enum YankKind {
    YANK_BLOCK_NODE,
    YANK_CHARDEV,
    YANK_MIGRATION, /* has no name: "" */
} YankKind;

typedef struct Yankable Yankable;
typedef void YankFn(void *opaque);

/*
 * NULL and errp when there is one of that kind and name. The functions of an instance are called
 * in order of registration.
 */
Yankable *yank_register_instance(YankKind kind, const char *name, GError **errp);
/* Its functions are gone by then. NULL is allowed. */
void yank_unregister_instance(Yankable *instance);
void yank_register_function(Yankable *instance, YankFn *fn, void *opaque);
/* When this returns, `fn` does not run and will not. It must be registered. */
void yank_unregister_function(Yankable *instance, YankFn *fn, void *opaque);

typedef struct YankName {
    YankKind kind;
    const char *name;
} YankName;

/* Cuts all of them, or, when one does not exist, none: false and errp (DeviceNotFound). */
bool yank_run(const YankName *names, size_t n, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Calls fn for each instance, in order of registration, under the mutex. */
void yank_foreach(void (*fn)(YankKind kind, const char *name, void *opaque), void *opaque);

#endif
