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

QIOChannel *migration_open_file(const FileMigrationArgs *file, bool write, GError **errp)
{
    int fd = qemu_open(file->filename, write ? O_WRONLY | O_CREAT : O_RDONLY, FILE_MODE, errp);
    QIOChannelFile *fioc;

    if (fd < 0) {
        return NULL;
    }
    fioc = file_prepare(fd, file, write, errp) ? qio_channel_file_new_fd(fd, errp) : NULL;
    if (!fioc) {
        qemu_close(fd);
        return NULL;
    }
    return (QIOChannel *)fioc;
}

/*
 * A descriptor of an fd set shares its position and its flags with whoever passed it: opened once more
 * through /proc it has its own. It is used as it is where that is not allowed and its flags fit.
 */
static int reopen_fdset(const FileMigrationArgs *file, int flags, GError **errp)
{
    int fd = qemu_open(file->filename, flags, 0, errp), again, err;
    g_autofree char *path = NULL;

    if (fd < 0) {
        return -1;
    }
    path = g_strdup_printf("/proc/self/fd/%d", fd);
    again = open(path, flags | O_CLOEXEC);
    err = errno;
    if (again < 0 && (fcntl(fd, F_GETFL) & O_DIRECT) == (flags & O_DIRECT)) {
        return fd;
    }
    qemu_close(fd);
    if (again < 0) {
        error_setg_errno(errp, err, "Could not open '%s' again", file->filename);
    }
    return again;
}

int migration_open_file_extra(const FileMigrationArgs *file, bool write, bool direct, GError **errp)
{
    int flags = (write ? O_WRONLY : O_RDONLY) | (direct ? O_DIRECT : 0), fd;
    int64_t fdset_id;

    if (qemu_is_fdset_path(file->filename, &fdset_id)) {
        return reopen_fdset(file, flags, errp);
    }
    fd = qemu_open(file->filename, flags, 0, errp);
    return fd < 0 ? -1 : fd;
}

/* --- what goes with what --- */

bool migration_transport_check(const MigrationAddress *addr, const MigrationSettings *s,
                               GError **errp)
{
    bool seekable = migration_address_is_seekable(addr);

    if (migrate_mapped_ram(s)) {
        if (!seekable) {
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
    } else if (migrate_multifd(s) && !migration_address_is_multi_channel(addr)) {
        error_setg(errp, "Migration requires multi-channel URIs (e.g. tcp)");
        return false;
    } else if (migrate_tls(s) && seekable) {
        error_setg(errp, "Cannot use TLS with a file");
        return false;
    }
    return true;
}
