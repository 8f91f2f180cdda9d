/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Descriptors that the process was started with. */
#include "util/inherited-fds.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "util/cutils.h"
#include "util/error.h"

static struct {
    GMutex lock;
    GHashTable *numbers; /* those that no user has taken; NULL: nothing was recorded */
} inherited;

static void add_if_inherited(const char *name, int own_fd)
{
    int64_t fd;

    if (qemu_strtoi64(name, NULL, 10, &fd) < 0 || fd <= STDERR_FILENO || fd == own_fd) {
        return;
    }
    /* What a library opened before main() is close-on-exec; what came through exec cannot be. */
    if (!(fcntl((int)fd, F_GETFD) & FD_CLOEXEC)) {
        g_hash_table_add(inherited.numbers, GINT_TO_POINTER((int)fd));
    }
}

void inherited_fds_record(void)
{
    DIR *folder = opendir("/proc/self/fd");
    struct dirent *entry;

    g_mutex_lock(&inherited.lock);
    g_clear_pointer(&inherited.numbers, g_hash_table_unref);
    inherited.numbers = g_hash_table_new(NULL, NULL);
    while (folder && (entry = readdir(folder))) {
        add_if_inherited(entry->d_name, dirfd(folder));
    }
    g_mutex_unlock(&inherited.lock);
    if (folder) {
        closedir(folder);
    }
}

static int find(const char *number, bool take, GError **errp)
{
    gpointer key = NULL;
    int64_t fd;
    bool found;

    if (!g_ascii_isdigit(number[0]) || qemu_strtoi64(number, NULL, 10, &fd) < 0 || fd > INT_MAX) {
        error_setg(errp, "Invalid file descriptor number '%s'", number);
        return -1;
    }
    key = GINT_TO_POINTER((int)fd);
    g_mutex_lock(&inherited.lock);
    found = inherited.numbers && (take ? g_hash_table_remove(inherited.numbers, key)
                                       : g_hash_table_contains(inherited.numbers, key));
    g_mutex_unlock(&inherited.lock);
    if (!found || fcntl((int)fd, F_SETFD, take ? FD_CLOEXEC : 0) < 0) {
        error_setg(
            errp,
            "File descriptor '%s' was not inherited at the start of the process, or is in use; "
            "one that is passed with getfd is named by its name",
            number);
        return -1;
    }
    return (int)fd;
}

int inherited_fd_take(const char *number, GError **errp)
{
    return find(number, true, errp);
}

int inherited_fd_look(const char *number, GError **errp)
{
    return find(number, false, errp);
}
