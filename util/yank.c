/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Yank: the registry. */
#include "util/yank.h"

#include <string.h>
#include "util/error.h"
#include "util/queue.h"

typedef struct YankFunction {
    YankFn *fn;
    void *opaque;
    TAILQ_ENTRY(YankFunction) next;
} YankFunction;

struct Yankable {
    YankKind kind;
    char *name;
    TAILQ_HEAD(, YankFunction) functions;
    TAILQ_ENTRY(Yankable) next;
};

static GMutex lock;
static TAILQ_HEAD(, Yankable) instances = TAILQ_HEAD_INITIALIZER(instances);

/* Under the lock. */
static Yankable *find(YankKind kind, const char *name)
{
    Yankable *instance;

    TAILQ_FOREACH(instance, &instances, next) {
        if (instance->kind == kind && !strcmp(instance->name, name)) {
            return instance;
        }
    }
    return NULL;
}

Yankable *yank_register_instance(YankKind kind, const char *name, GError **errp)
{
    Yankable *instance = NULL;

    g_mutex_lock(&lock);
    if (!find(kind, name)) {
        instance = g_new0(Yankable, 1);
        instance->kind = kind;
        instance->name = g_strdup(name);
        TAILQ_INIT(&instance->functions);
        TAILQ_INSERT_TAIL(&instances, instance, next);
    }
    g_mutex_unlock(&lock);
    if (!instance) {
        error_setg(errp, "duplicate yank instance");
    }
    return instance;
}

void yank_unregister_instance(Yankable *instance)
{
    if (!instance) {
        return;
    }
    g_mutex_lock(&lock);
    g_assert(TAILQ_EMPTY(&instance->functions));
    TAILQ_REMOVE(&instances, instance, next);
    g_mutex_unlock(&lock);
    g_free(instance->name);
    g_free(instance);
}

void yank_register_function(Yankable *instance, YankFn *fn, void *opaque)
{
    YankFunction *function = g_new0(YankFunction, 1);

    function->fn = fn;
    function->opaque = opaque;
    g_mutex_lock(&lock);
    TAILQ_INSERT_TAIL(&instance->functions, function, next);
    g_mutex_unlock(&lock);
}

void yank_unregister_function(Yankable *instance, YankFn *fn, void *opaque)
{
    YankFunction *function;

    g_mutex_lock(&lock);
    TAILQ_FOREACH(function, &instance->functions, next) {
        if (function->fn == fn && function->opaque == opaque) {
            break;
        }
    }
    g_assert(function);
    TAILQ_REMOVE(&instance->functions, function, next);
    g_mutex_unlock(&lock);
    g_free(function);
}

bool yank_run(const YankName *names, size_t n, GError **errp)
{
    bool ok = true;

    g_mutex_lock(&lock);
    for (size_t i = 0; i < n; i++) {
        ok = ok && find(names[i].kind, names[i].name);
    }
    for (size_t i = 0; ok && i < n; i++) {
        YankFunction *function;

        TAILQ_FOREACH(function, &find(names[i].kind, names[i].name)->functions, next) {
            function->fn(function->opaque);
        }
    }
    g_mutex_unlock(&lock);
    if (!ok) {
        error_set_class(errp, FERRY_ERROR_DEVICE_NOT_FOUND, "Instance not found");
    }
    return ok;
}

void yank_foreach(void (*fn)(YankKind kind, const char *name, void *opaque), void *opaque)
{
    Yankable *instance;

    g_mutex_lock(&lock);
    TAILQ_FOREACH(instance, &instances, next) {
        fn(instance->kind, instance->name, opaque);
    }
    g_mutex_unlock(&lock);
}
