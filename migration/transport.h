/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels that are there at once: descriptors, programs, files. Main thread unless said otherwise.
 * NULL (-1) with an error.
 */
#ifndef FERRY_MIGRATION_TRANSPORT_H
#define FERRY_MIGRATION_TRANSPORT_H

#include "io/channel.h"
#include "migration/options.h"
#include "qapi/qapi-types-migration.h"

/* Takes over fd (a socket, a pipe or a file), also on failure. */
QIOChannel *migration_open_fd(int fd, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Starts a program: writing goes to its standard input, reading gets what it prints. flags: O_RDONLY,
 * O_WRONLY, O_RDWR.
 */
QIOChannel *migration_open_exec(const MigrationExecCommand *command, int flags,
                                GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Bytes go both ways on the main channel. */
bool migration_needs_both_ways(const MigrationSettings *settings);
/*
 * The file at its offset; write: it is made if need be, and cut off there. mapped: pages will have
 * places in it.
 */
QIOChannel *migration_open_file(const FileMigrationArgs *file, bool write, bool mapped,
                                GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * A descriptor of the same file for pread(2) and pwrite(2), whose position may be shared; direct: with
 * O_DIRECT. Any thread.
 */
int migration_open_file_extra(const FileMigrationArgs *file, bool write, bool direct,
                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * For mapped-ram by a descriptor that was passed: a duplicate, if pages can have places in what it is.
 * `name` is for errors.
 */
int migration_keep_mapped_fd(int fd, const char *name, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* As migration_open_file_extra(), of such a duplicate. Any thread. */
int migration_open_fd_extra(int fd, const char *name, bool write, bool direct,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;

/* Whether the address can do what the settings ask for. */
bool migration_transport_check(const MigrationAddress *addr, const MigrationSettings *settings,
                               GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
