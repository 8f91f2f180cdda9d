/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Channels over descriptors, programs and files. */
#include "migration/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io/channel-command.h"
#include "io/channel-fd.h"
#include "io/channel-file.h"
#include "migration/address.h"
#include "util/error.h"
#include "util/open.h"

/* What a new file lets others do: nothing, for guest memory is in it. */
#define FILE_MODE 0600

/* --- descriptors --- */

QIOChannel *migration_open_fd(int fd, GError **errp)
{
    QIOChannel *ioc = qio_channel_new_fd(fd, errp);

    if (!ioc) {
        close(fd);
    }
    return ioc;
}

/* --- programs --- */

QIOChannel *migration_open_exec(const MigrationExecCommand *command, int flags, GError **errp)
{
    g_autoptr(GPtrArray) argv = g_ptr_array_new();

    for (const strList *arg = command->args; arg; arg = arg->next) {
        g_ptr_array_add(argv, arg->value);
    }
    g_ptr_array_add(argv, NULL);
    return (QIOChannel *)qio_channel_command_new_spawn((const char *const *)argv->pdata, flags,
                                                       errp);
}

bool migration_needs_both_ways(const MigrationSettings *settings)
{
    return migrate_return_path(settings) || migrate_tls(settings);
}

/* --- files --- */

/* Cuts a regular file off at the offset, so that nothing old is behind what will be written. */
static bool file_prepare(int fd, const FileMigrationArgs *file, bool write, GError **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0) {
        error_setg_errno(errp, errno, "Could not examine '%s'", file->filename);
        return false;
    }
    if (write && S_ISREG(st.st_mode) && ftruncate(fd, (off_t)file->offset) < 0) {
        error_setg_errno(errp, errno, "Could not truncate '%s' to offset %" G_GUINT64_FORMAT,
                         file->filename, file->offset);
        return false;
    }
    if (lseek(fd, (off_t)file->offset, SEEK_SET) < 0 && (file->offset || errno != ESPIPE)) {
        error_setg_errno(errp, errno, "Could not seek to offset %" G_GUINT64_FORMAT " of '%s'",
                         file->offset, file->filename);
        return false;
    }
    return true;
}

/* Whether pages can have places in the file behind fd. */
static bool check_mapped_fd(int fd, const char *what, GError **errp)
{
    struct stat st;

    if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
        error_setg(errp, "Migration requires seekable transport (e.g. file)");
        return false;
    }
    if (fcntl(fd, F_GETFL) & O_APPEND) {
        error_setg(errp,
                   "'%s' was opened to append (O_APPEND): with mapped-ram pages have places of "
                   "their own",
                   what);
        return false;
    }
    return true;
}

/* A failure to open with O_DIRECT says EINVAL, and nothing of what to do. */
static void explain_no_direct(const char *what, GError **errp)
{
    g_clear_error(errp);
    error_setg(errp,
               "Could not open '%s' with O_DIRECT, which its file system does not have: switch the "
               "parameter direct-io off, or save to another one",
               what);
}

/* The same file with flags of its own. */
static int reopen(int fd, const char *what, int flags, GError **errp)
{
    g_autofree char *path = g_strdup_printf("/proc/self/fd/%d", fd);
    int again = open(path, flags | O_CLOEXEC);

    if (again < 0 && errno == EINVAL && flags & O_DIRECT) {
        explain_no_direct(what, errp);
    } else if (again < 0) {
        error_setg_errno(errp, errno, "Could not open '%s' again %s O_DIRECT", what,
                         flags & O_DIRECT ? "with" : "without");
    }
    return again;
}

/* What may be different in a descriptor that was passed, and matters. */
#define FD_FLAGS (O_DIRECT | O_APPEND)

/*
 * Whether reads or writes with these flags can be done by fd, which was passed. Its position may be
 * shared, which does not matter to pread(2) and pwrite(2).
 */
static bool fd_fits(int fd, int flags)
{
    int have = fcntl(fd, F_GETFL), mode = have & O_ACCMODE;

    return have >= 0 && (mode == O_RDWR || mode == (flags & O_ACCMODE)) &&
           (have & FD_FLAGS) == (flags & FD_FLAGS);
}

/* As qemu_open(); a descriptor of an fd set that does not fit is opened once more. */
static int open_fitting(const char *path, int flags, GError **errp)
{
    int fd = qemu_open(path, flags, FILE_MODE, errp), again;
    int64_t fdset_id;

    if (!qemu_is_fdset_path(path, &fdset_id)) {
        if (fd == -EINVAL && flags & O_DIRECT) {
            explain_no_direct(path, errp);
        }
        return fd;
    }
    if (fd < 0 || fd_fits(fd, flags)) {
        return fd;
    }
    again = reopen(fd, path, flags & ~O_CREAT, errp);
    qemu_close(fd);
    return again;
}

QIOChannel *migration_open_file(const FileMigrationArgs *file, bool write, bool mapped,
                                GError **errp)
{
    int fd = open_fitting(file->filename, write ? O_WRONLY | O_CREAT : O_RDONLY, errp);
    QIOChannelFile *fioc = NULL;

    if (fd < 0) {
        return NULL;
    }
    if (file_prepare(fd, file, write, errp) &&
        (!mapped || check_mapped_fd(fd, file->filename, errp))) {
        fioc = qio_channel_file_new_fd(fd, errp);
    }
    if (!fioc) {
        qemu_close(fd);
    }
    return (QIOChannel *)fioc;
}

int migration_open_file_extra(const FileMigrationArgs *file, bool write, bool direct, GError **errp)
{
    return open_fitting(file->filename, (write ? O_WRONLY : O_RDONLY) | (direct ? O_DIRECT : 0),
                        errp);
}

int migration_keep_mapped_fd(int fd, const char *name, GError **errp)
{
    int kept;

    if (!check_mapped_fd(fd, name, errp)) {
        return -1;
    }
    kept = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (kept < 0) {
        error_setg_errno(errp, errno, "Could not duplicate the descriptor '%s'", name);
    }
    return kept;
}

int migration_open_fd_extra(int fd, const char *name, bool write, bool direct, GError **errp)
{
    int flags = (write ? O_WRONLY : O_RDONLY) | (direct ? O_DIRECT : 0), again;

    if (!fd_fits(fd, flags)) {
        return reopen(fd, name, flags, errp);
    }
    again = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (again < 0) {
        error_setg_errno(errp, errno, "Could not duplicate the descriptor '%s'", name);
    }
    return again;
}

/* --- what goes with what --- */

bool migration_transport_check(const MigrationAddress *addr, const MigrationSettings *s,
                               GError **errp)
{
    bool seekable = migration_address_is_seekable(addr);

    if (migrate_mapped_ram(s)) {
        /* what a descriptor is shows when it is there */
        if (!seekable && !migration_address_is_fd(addr)) {
            error_setg(errp, "Migration requires seekable transport (e.g. file)");
            return false;
        }
        if (migrate_tls(s)) {
            error_setg(errp, "Cannot use TLS with mapped-ram");
            return false;
        }
        if (migrate_multifd(s) && migrate_multifd_compression(s) != MULTIFD_COMPRESSION_NONE) {
            error_setg(errp, "Cannot use compression with mapped-ram");
            return false;
        }
        if (migrate_zero_copy_send(s)) {
            error_setg(errp, "Cannot use zero-copy-send with mapped-ram: it is for connections");
            return false;
        }
    } else if (migrate_multifd(s) && !migration_address_is_multi_channel(addr)) {
        error_setg(errp, "Migration requires multi-channel URIs (e.g. tcp)");
        return false;
    } else if (migrate_tls(s) && seekable) {
        error_setg(errp, "Cannot use TLS with a file");
        return false;
    }
    return true;
}
