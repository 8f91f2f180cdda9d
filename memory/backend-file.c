/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files behind memory backends: by path, in a directory, or without a name. */
#include "memory/backend-file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "memory/ram-map.h"
#include "util/error.h"
#include "util/open.h"

#ifndef MFD_HUGE_SHIFT
#define MFD_HUGE_SHIFT 26
#endif

/* A new, nameless file in a directory (of hugetlbfs, as a rule). */
static int open_in_directory(const char *dir, const char *id)
{
    g_autofree char *path = g_strdup_printf("%s/qemu_back_mem.%s.XXXXXX", dir, id);
    int fd = g_mkstemp_full(path, O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0) {
        unlink(path);
    }
    return fd;
}

static bool open_path(const MemoryBackendFileProperties *p, const char *id, BackendFile *file,
                      GError **errp)
{
    bool readonly = p->has_readonly && p->readonly;
    struct stat st;

    file->named = true;
    file->fd = qemu_open_at_once(p->mem_path, readonly ? O_RDONLY : O_RDWR, 0);
    errno = -MIN(file->fd, 0);
    if (file->fd < 0 && errno == EISDIR && !readonly) {
        file->named = false;
        file->fresh = true;
        file->fd = open_in_directory(p->mem_path, id);
    } else if (file->fd < 0 && errno == ENOENT && !readonly) {
        file->fresh = true;
        file->fd = open(p->mem_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    }
    if (file->fd >= 0 && fstat(file->fd, &st) == 0 && S_ISDIR(st.st_mode)) {
        close(file->fd);
        file->fd = -1;
        errno = EISDIR;
    }
    if (file->fd < 0) {
        error_setg_errno(errp, errno, "can't open backing store %s for guest RAM", p->mem_path);
        return false;
    }
    return true;
}

static bool check_alignment(const MemoryBackendFileProperties *p, const BackendFile *file,
                            GError **errp)
{
    uint64_t mask = file->page_size - 1;

    if (p->has_align && ((p->align & mask) || (p->align & (p->align - 1)))) {
        error_setg(errp, "alignment 0x%" PRIx64 " must be multiples of page size 0x%zx", p->align,
                   file->page_size);
        return false;
    }
    if (p->has_offset && (p->offset & mask)) {
        error_setg(errp, "offset 0x%" PRIx64 " must be multiples of page size 0x%zx", p->offset,
                   file->page_size);
        return false;
    }
    if (p->size < file->page_size) {
        error_setg(errp,
                   "memory size 0x%" PRIx64 " must be equal to or larger than page size 0x%zx",
                   p->size, file->page_size);
        return false;
    }
    return true;
}

/*
 * The file holds offset + size bytes: one that is empty gets them. Devices have no size to check.
 */
static bool check_size(const MemoryBackendFileProperties *p, BackendFile *file, GError **errp)
{
    uint64_t mask = file->page_size - 1, need;
    struct stat st;

    if (__builtin_add_overflow(p->size, mask, &need) ||
        __builtin_add_overflow(need & ~mask, p->has_offset ? p->offset : 0, &need) ||
        need > INT64_MAX) {
        error_setg(errp, "memory backend is too large for its backing store %s", p->mem_path);
        return false;
    }
    if (fstat(file->fd, &st) < 0) {
        error_setg_errno(errp, errno, "can't get size of backing store %s", p->mem_path);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        return true;
    }
    if (st.st_size == 0 && !(p->has_readonly && p->readonly)) {
        file->fresh = true;
        if (ftruncate(file->fd, (off_t)need) < 0) {
            error_setg_errno(errp, errno, "can't resize backing store %s to %" PRIu64 " bytes",
                             p->mem_path, need);
            return false;
        }
    } else if ((uint64_t)st.st_size < need) {
        error_setg(errp, "backing store size 0x%" PRIx64 " does not match 'size' option 0x%" PRIx64,
                   (uint64_t)st.st_size, p->size);
        return false;
    }
    return true;
}

bool backend_file_open(const MemoryBackendFileProperties *properties, const char *id,
                       BackendFile *file, GError **errp)
{
    bool created;

    *file = (BackendFile){.fd = -1};
    if (!open_path(properties, id, file, errp)) {
        return false;
    }
    created = file->fresh && file->named;
    file->page_size = ram_map_page_size(file->fd);
    if (!file->page_size) {
        error_setg_errno(errp, errno, "can't find the page size of %s", properties->mem_path);
    }
    if (!file->page_size || !check_alignment(properties, file, errp) ||
        !check_size(properties, file, errp)) {
        close(file->fd);
        if (created) {
            unlink(properties->mem_path);
        }
        return false;
    }
    return true;
}

bool backend_memfd_open(const MemoryBackendMemfdProperties *properties, const char *id,
                        BackendFile *file, GError **errp)
{
    g_autofree char *name = g_strdup_printf("memory-backend-memfd-%s", id);
    bool huge = properties->has_hugetlb && properties->hugetlb;
    bool seal = !properties->has_seal || properties->seal;
    uint64_t huge_size = properties->has_hugetlbsize ? properties->hugetlbsize : 0, mask, bytes;
    unsigned flags = MFD_CLOEXEC | (seal ? MFD_ALLOW_SEALING : 0);

    *file = (BackendFile){.fd = -1, .fresh = true};
    if (huge_size & (huge_size - 1)) {
        error_setg(errp, "Hugepage size must be a power of 2");
        return false;
    }
    if (huge) {
        flags |= MFD_HUGETLB;
        flags |= huge_size ? (unsigned)__builtin_ctzll(huge_size) << MFD_HUGE_SHIFT : 0;
    }
    file->fd = memfd_create(name, flags);
    file->page_size = file->fd < 0 ? 0 : ram_map_page_size(file->fd);
    mask = file->page_size - 1;
    if (!file->page_size || __builtin_add_overflow(properties->size, mask, &bytes) ||
        (bytes & ~mask) > INT64_MAX || ftruncate(file->fd, (off_t)(bytes & ~mask)) < 0 ||
        (seal && fcntl(file->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)) {
        error_setg_errno(errp, errno, "failed to create memfd of %" PRIu64 " bytes%s",
                         properties->size, huge ? " of huge pages" : "");
        if (file->fd >= 0) {
            close(file->fd);
        }
        return false;
    }
    return true;
}
