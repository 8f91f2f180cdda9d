/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that a management tool passes in: by name for one monitor (getfd), and in numbered
 * sets for the whole process (add-fd, `-add-fd`). A set is opened as "/dev/fdset/N", which takes
 * the descriptor with the access mode that fits.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "monitor/fds.h"
#include "monitor/monitor-int.h"
#include "qapi/qapi-commands-misc.h"
#include "util/error.h"
#include "util/open.h"

/* --- by name --- */

struct NamedFds {
    GMutex lock;
    GHashTable *fds; /* name: fd; lock */
};

static void close_value(void *value)
{
    close(GPOINTER_TO_INT(value));
}

NamedFds *named_fds_new(void)
{
    NamedFds *named = g_atomic_rc_box_new0(NamedFds);

    g_mutex_init(&named->lock);
    named->fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_value);
    return named;
}

NamedFds *named_fds_ref(NamedFds *named)
{
    return g_atomic_rc_box_acquire(named);
}

static void named_fds_clear(void *opaque)
{
    NamedFds *named = opaque;

    g_hash_table_unref(named->fds);
    g_mutex_clear(&named->lock);
}

void named_fds_unref(NamedFds *named)
{
    g_atomic_rc_box_release_full(named, named_fds_clear);
}

/* Takes the descriptor of that name out: the caller's, or -1. NULL has none. */
static int named_fds_take(NamedFds *named, const char *name)
{
    gpointer value;
    char *key = NULL;
    int fd = -1;

    if (!named) {
        return -1;
    }
    g_mutex_lock(&named->lock);
    if (g_hash_table_steal_extended(named->fds, name, (gpointer *)&key, &value)) {
        fd = GPOINTER_TO_INT(value);
    }
    g_mutex_unlock(&named->lock);
    g_free(key);
    return fd;
}

bool coroutine_fn qmp_getfd(const GetfdArg *arg, GError **errp)
{
    NamedFds *named = qmp_current_named_fds();
    int fd = monitor_take_fd();

    if (fd < 0 || !named) {
        error_setg(errp, "No file descriptor supplied via SCM_RIGHTS");
        return false;
    }
    if (g_ascii_isdigit(arg->fdname[0])) {
        error_setg(errp, "Parameter 'fdname' expects a name not starting with a digit");
        close(fd);
        return false;
    }
    g_mutex_lock(&named->lock);
    g_hash_table_replace(named->fds, g_strdup(arg->fdname), GINT_TO_POINTER(fd));
    g_mutex_unlock(&named->lock);
    return true;
}

bool coroutine_fn qmp_closefd(const ClosefdArg *arg, GError **errp)
{
    int fd = named_fds_take(qmp_current_named_fds(), arg->fdname);

    if (fd < 0) {
        error_setg(errp, "File descriptor named '%s' not found", arg->fdname);
        return false;
    }
    close(fd);
    return true;
}

int monitor_get_fd(const char *name, GError **errp)
{
    int fd = named_fds_take(qmp_current_named_fds(), name);

    if (fd >= 0) {
        return fd;
    }
    error_setg(errp, "File descriptor named '%s' has not been found", name);
    return -1;
}

/* --- fd sets --- */

typedef struct FdsetFd {
    int fd;
    char *opaque;
} FdsetFd;

typedef struct Fdset {
    int64_t id;
    GArray *fds;  /* FdsetFd */
    GArray *dups; /* int: opened duplicates */
} Fdset;

/* Files are opened and closed in any thread. */
static struct {
    GMutex lock;
    GPtrArray *sets; /* Fdset, by id */
} fdsets;

static Fdset *fdset_find(int64_t id)
{
    for (guint i = 0; i < fdsets.sets->len; i++) {
        Fdset *set = g_ptr_array_index(fdsets.sets, i);

        if (set->id == id) {
            return set;
        }
    }
    return NULL;
}

static void fdset_fd_clear(void *opaque)
{
    FdsetFd *item = opaque;

    close(item->fd);
    g_free(item->opaque);
}

static void fdset_free(void *opaque)
{
    Fdset *set = opaque;

    g_array_unref(set->fds);
    g_array_unref(set->dups);
    g_free(set);
}

static int by_id(gconstpointer a, gconstpointer b)
{
    const Fdset *x = *(Fdset *const *)a, *y = *(Fdset *const *)b;

    return x->id < y->id ? -1 : x->id > y->id;
}

/* The set, made when it does not exist; id -1: a new one with the lowest free id. */
static Fdset *fdset_get(int64_t id)
{
    Fdset *set;

    if (id < 0) {
        for (id = 0; fdset_find(id); id++) {
        }
    }
    set = fdset_find(id);
    if (!set) {
        set = g_new0(Fdset, 1);
        set->id = id;
        set->fds = g_array_new(FALSE, FALSE, sizeof(FdsetFd));
        g_array_set_clear_func(set->fds, fdset_fd_clear);
        set->dups = g_array_new(FALSE, FALSE, sizeof(int));
        g_ptr_array_add(fdsets.sets, set);
        g_ptr_array_sort(fdsets.sets, by_id);
    }
    return set;
}

static void fdset_drop_if_unused(Fdset *set)
{
    if (!set->fds->len && !set->dups->len) {
        g_ptr_array_remove(fdsets.sets, set);
    }
}

int64_t monitor_fdset_add_fd(int64_t id, int fd, const char *opaque)
{
    FdsetFd item = {.fd = fd, .opaque = g_strdup(opaque)};
    Fdset *set;

    g_mutex_lock(&fdsets.lock);
    set = fdset_get(id);
    g_array_append_val(set->fds, item);
    id = set->id;
    g_mutex_unlock(&fdsets.lock);
    return id;
}

/*
 * How well a descriptor opened with `have` serves for `want`: 0 not at all, 2 with the same
 * O_DIRECT, which decides how the user must align its requests.
 */
static int mode_fits(int have, int want)
{
    if (have < 0 || (have & O_ACCMODE) != (want & O_ACCMODE)) {
        return 0;
    }
    return (have & O_DIRECT) == (want & O_DIRECT) ? 2 : 1;
}

/* The first of those that fit best; -1: none. */
static int fdset_choose(const Fdset *set, int flags)
{
    int chosen = -1, best = 0;

    for (guint i = 0; i < set->fds->len; i++) {
        int fd = g_array_index(set->fds, FdsetFd, i).fd;
        int fit = mode_fits(fcntl(fd, F_GETFL), flags);

        if (fit > best) {
            best = fit;
            chosen = fd;
        }
    }
    return chosen;
}

static int fdset_dup(int64_t id, int flags, GError **errp)
{
    Fdset *set;
    int ret = -EACCES, fd;

    g_mutex_lock(&fdsets.lock);
    set = fdset_find(id);
    if (!set || !set->fds->len) {
        ret = -ENOENT;
    } else if ((fd = fdset_choose(set, flags)) >= 0) {
        ret = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (ret < 0) {
            ret = -errno;
        } else {
            g_array_append_val(set->dups, ret);
        }
    }
    g_mutex_unlock(&fdsets.lock);
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not open '/dev/fdset/%" PRId64 "'", id);
    }
    return ret;
}

static bool fdset_forget_dup(int fd)
{
    bool found = false;

    g_mutex_lock(&fdsets.lock);
    for (guint i = 0; !found && i < fdsets.sets->len; i++) {
        Fdset *set = g_ptr_array_index(fdsets.sets, i);

        for (guint j = 0; !found && j < set->dups->len; j++) {
            if (g_array_index(set->dups, int, j) == fd) {
                found = true;
                g_array_remove_index_fast(set->dups, j);
            }
        }
        if (found) {
            fdset_drop_if_unused(set);
        }
    }
    g_mutex_unlock(&fdsets.lock);
    return found;
}

void fdsets_init(void)
{
    static const QemuFdsetOps ops = {.dup = fdset_dup, .forget_dup = fdset_forget_dup};

    fdsets.sets = g_ptr_array_new_with_free_func(fdset_free);
    qemu_register_fdsets(&ops);
}

bool coroutine_fn qmp_add_fd(const AddFdArg *arg, AddfdInfo **ret, GError **errp)
{
    int fd = monitor_take_fd();

    if (fd < 0) {
        error_setg(errp, "No file descriptor supplied via SCM_RIGHTS");
        return false;
    }
    if (arg->has_fdset_id && arg->fdset_id < 0) {
        error_setg(errp, "Parameter 'fdset-id' expects a non-negative value");
        close(fd);
        return false;
    }
    *ret = g_new0(AddfdInfo, 1);
    (*ret)->fd = fd;
    (*ret)->fdset_id =
        monitor_fdset_add_fd(arg->has_fdset_id ? arg->fdset_id : -1, fd, arg->opaque);
    return true;
}

bool coroutine_fn qmp_remove_fd(const RemoveFdArg *arg, GError **errp)
{
    bool found = false;
    Fdset *set;

    g_mutex_lock(&fdsets.lock);
    set = fdset_find(arg->fdset_id);
    for (guint i = 0; set && i < set->fds->len;) {
        if (arg->has_fd && g_array_index(set->fds, FdsetFd, i).fd != arg->fd) {
            i++;
            continue;
        }
        found = true;
        g_array_remove_index(set->fds, i);
    }
    if (set) {
        fdset_drop_if_unused(set);
    }
    g_mutex_unlock(&fdsets.lock);
    if (!found) {
        g_autofree char *fd = arg->has_fd ? g_strdup_printf(", fd:%" PRId64, arg->fd) : NULL;

        error_setg(errp, "File descriptor named 'fdset-id:%" PRId64 "%s' not found", arg->fdset_id,
                   fd ? fd : "");
    }
    return found;
}

bool coroutine_fn qmp_query_fdsets(FdsetInfoList **ret, GError **errp)
{
    g_mutex_lock(&fdsets.lock);
    for (guint i = 0; i < fdsets.sets->len; i++) {
        const Fdset *set = g_ptr_array_index(fdsets.sets, i);
        FdsetInfo *info = g_new0(FdsetInfo, 1);
        FdsetFdInfoList **tail = &info->fds;

        info->fdset_id = set->id;
        for (guint j = 0; j < set->fds->len; j++) {
            const FdsetFd *item = &g_array_index(set->fds, FdsetFd, j);
            FdsetFdInfo *fd = g_new0(FdsetFdInfo, 1);

            fd->fd = item->fd;
            fd->opaque = g_strdup(item->opaque);
            QAPI_LIST_APPEND(tail, fd);
        }
        QAPI_LIST_APPEND(ret, info);
    }
    g_mutex_unlock(&fdsets.lock);
    return true;
}
