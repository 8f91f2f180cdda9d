/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Only in builds with the thread sanitizer: GLib is not built with it, so the sanitizer does not see
 * that GLib's locks, queues and one-time initialisation order what threads do. The linker leads calls
 * of them through here (--wrap, the list in meson.build), where it is told.
 */
#include <glib.h>
#include <sanitizer/tsan_interface.h>

const char *__tsan_default_suppressions(void);

/* What libraries without the sanitizer do among themselves is not judged. */
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libglib-2.0.so\n"
           "called_from_lib:libgnutls.so\n"
           "race:libglib-2.0.so\n"
           "race:libgnutls.so\n";
}

#define WRAP(type, name, ...)        \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

WRAP(void, g_mutex_lock, GMutex *mutex);
WRAP(gboolean, g_mutex_trylock, GMutex *mutex);
WRAP(void, g_mutex_unlock, GMutex *mutex);
WRAP(void, g_cond_wait, GCond *cond, GMutex *mutex);
WRAP(gboolean, g_cond_wait_until, GCond *cond, GMutex *mutex, gint64 end_time);
WRAP(void, g_async_queue_push, GAsyncQueue *queue, gpointer data);
WRAP(gpointer, g_async_queue_pop, GAsyncQueue *queue);
WRAP(gboolean, g_once_init_enter, void *location);
WRAP(void, g_once_init_leave, void *location, gsize result);

void __wrap_g_mutex_lock(GMutex *mutex)
{
    __real_g_mutex_lock(mutex);
    __tsan_acquire(mutex);
}

gboolean __wrap_g_mutex_trylock(GMutex *mutex)
{
    gboolean locked = __real_g_mutex_trylock(mutex);

    if (locked) {
        __tsan_acquire(mutex);
    }
    return locked;
}

void __wrap_g_mutex_unlock(GMutex *mutex)
{
    __tsan_release(mutex);
    __real_g_mutex_unlock(mutex);
}

void __wrap_g_cond_wait(GCond *cond, GMutex *mutex)
{
    __tsan_release(mutex);
    __real_g_cond_wait(cond, mutex);
    __tsan_acquire(mutex);
}

gboolean __wrap_g_cond_wait_until(GCond *cond, GMutex *mutex, gint64 end_time)
{
    gboolean signalled;

    __tsan_release(mutex);
    signalled = __real_g_cond_wait_until(cond, mutex, end_time);
    __tsan_acquire(mutex);
    return signalled;
}

void __wrap_g_async_queue_push(GAsyncQueue *queue, gpointer data)
{
    __tsan_release(queue);
    __real_g_async_queue_push(queue, data);
}

gpointer __wrap_g_async_queue_pop(GAsyncQueue *queue)
{
    gpointer data = __real_g_async_queue_pop(queue);

    __tsan_acquire(queue);
    return data;
}

gboolean __wrap_g_once_init_enter(void *location)
{
    gboolean first = __real_g_once_init_enter(location);

    __tsan_acquire(location);
    return first;
}

void __wrap_g_once_init_leave(void *location, gsize result)
{
    __tsan_release(location);
    __real_g_once_init_leave(location, result);
}
