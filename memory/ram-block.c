/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM blocks and their list.
 *
 * The list is immutable: each change makes a new one and swaps it in, so a thread that took the old
 * one goes on undisturbed. The lock covers only the swap and the taking of a reference.
 */
#include "memory/ram-block.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "memory/ram-map.h"
#include "trace/trace-memory.h"
#include "util/cutils.h"
#include "util/error.h"
#include "util/units.h"

/*
 * Blocks start at multiples of this in ram_addr_t space: a word of a bitmap belongs to one block.
 */
#define RAM_ADDR_ALIGN (64 * TARGET_PAGE_SIZE)
/* Transparent huge pages can back memory that is aligned like them. */
#define THP_ALIGN (2 * MiB)

static struct {
    pthread_mutex_t lock;
    RAMBlockList *current; /* NULL: empty, never changed */
    GPtrArray *freed;      /* RAMBlock: out of the list, and still referenced */
} ram_list = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* --- the list --- */

static RAMBlockList *list_alloc(unsigned n, uint64_t generation)
{
    RAMBlockList *list = g_malloc0(sizeof(*list) + n * sizeof(list->blocks[0]));

    list->generation = generation;
    list->refs = 1;
    return list;
}

/* Makes the list without `removed` and with `added` (either NULL) the current one. Main thread. */
static void list_change(RAMBlock *added, const RAMBlock *removed)
{
    RAMBlockList *old = ram_list.current, *list;
    bool placed = !added;

    list = list_alloc((old ? old->n : 0) + 1, old ? old->generation + 1 : 1);
    for (unsigned i = 0; old && i < old->n; i++) {
        if (!placed && old->blocks[i]->max_length < added->max_length) {
            list->blocks[list->n++] = added;
            placed = true;
        }
        if (old->blocks[i] != removed) {
            list->blocks[list->n++] = old->blocks[i];
        }
    }
    if (!placed) {
        list->blocks[list->n++] = added;
    }
    for (unsigned i = 0; i < list->n; i++) {
        ram_block_ref(list->blocks[i]);
    }
    pthread_mutex_lock(&ram_list.lock);
    ram_list.current = list;
    pthread_mutex_unlock(&ram_list.lock);
    if (old) {
        ram_block_list_unref(old);
    }
}

RAMBlockList *ram_block_list_get(void)
{
    RAMBlockList *list;

    pthread_mutex_lock(&ram_list.lock);
    if (!ram_list.current) {
        ram_list.current = list_alloc(0, 0);
    }
    list = ram_list.current;
    __atomic_fetch_add(&list->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&ram_list.lock);
    return list;
}

void ram_block_list_unref(RAMBlockList *list)
{
    if (list && __atomic_sub_fetch(&list->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        for (unsigned i = 0; i < list->n; i++) {
            ram_block_unref(list->blocks[i]);
        }
        g_free(list);
    }
}

uint64_t ram_block_list_generation(void)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    return list->generation;
}

RAMBlock *ram_block_list_find(const RAMBlockList *list, const char *name)
{
    for (unsigned i = 0; i < list->n; i++) {
        RAMBlock *block = list->blocks[i];

        if ((ram_block_flags(block) & RAM_NAMED) && !strcmp(block->idstr, name)) {
            return block;
        }
    }
    return NULL;
}

static RAMBlock *referenced(RAMBlock *block)
{
    if (block) {
        ram_block_ref(block);
    }
    return block;
}

RAMBlock *ram_block_by_name(const char *name)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    return referenced(ram_block_list_find(list, name));
}

RAMBlock *ram_block_from_host(const void *host, uint64_t *offset)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    for (unsigned i = 0; i < list->n; i++) {
        uint64_t at = (uintptr_t)host - (uintptr_t)list->blocks[i]->host;

        if (at < list->blocks[i]->max_length) {
            *offset = at;
            return referenced(list->blocks[i]);
        }
    }
    return NULL;
}

RAMBlock *ram_block_from_mapping(const void *host, uint64_t *offset)
{
    RAMBlock *block = ram_block_from_host(host, offset);

    pthread_mutex_lock(&ram_list.lock);
    for (guint i = 0; !block && ram_list.freed && i < ram_list.freed->len; i++) {
        RAMBlock *freed = g_ptr_array_index(ram_list.freed, i);

        *offset = (uintptr_t)host - (uintptr_t)freed->host;
        block = *offset < freed->max_length ? referenced(freed) : NULL;
    }
    pthread_mutex_unlock(&ram_list.lock);
    return block;
}

RAMBlock *ram_block_from_ram_addr(ram_addr_t addr, uint64_t *offset)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();

    for (unsigned i = 0; i < list->n; i++) {
        uint64_t at = addr - list->blocks[i]->offset;

        if (at < list->blocks[i]->max_length) {
            *offset = at;
            return referenced(list->blocks[i]);
        }
    }
    return NULL;
}

uint64_t ram_block_bytes_total(void)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();
    uint64_t sum = 0;

    for (unsigned i = 0; i < list->n; i++) {
        if (ram_block_is_migratable(list->blocks[i])) {
            sum += ram_block_used_length(list->blocks[i]);
        }
    }
    return sum;
}

/* The lowest end of the smallest gap between blocks that holds `size` bytes. */
static ram_addr_t find_ram_addr(uint64_t size)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();
    ram_addr_t best = 0;
    uint64_t best_gap = UINT64_MAX;

    for (unsigned i = 0; i <= list->n; i++) {
        /* A gap begins at 0 or behind a block. */
        ram_addr_t start = i < list->n ? list->blocks[i]->offset + list->blocks[i]->max_length : 0;
        uint64_t gap = UINT64_MAX;
        bool taken = false;

        start = (start + RAM_ADDR_ALIGN - 1) & ~(RAM_ADDR_ALIGN - 1);
        for (unsigned k = 0; k < list->n; k++) {
            const RAMBlock *other = list->blocks[k];

            if (other->offset >= start) {
                gap = MIN(gap, other->offset - start);
            } else if (other->offset + other->max_length > start) {
                taken = true;
            }
        }
        if (!taken && gap >= size && gap < best_gap) {
            best = start;
            best_gap = gap;
        } else if (!taken && gap == UINT64_MAX && best_gap == UINT64_MAX) {
            best = start;
        }
    }
    return best;
}

/* --- making and freeing --- */

void ram_block_ref(RAMBlock *block)
{
    __atomic_fetch_add(&block->refs, 1, __ATOMIC_RELAXED);
}

void ram_block_unref(RAMBlock *block)
{
    if (!block || __atomic_sub_fetch(&block->refs, 1, __ATOMIC_ACQ_REL) > 0) {
        return;
    }
    pthread_mutex_lock(&ram_list.lock);
    g_ptr_array_remove_fast(ram_list.freed, block);
    pthread_mutex_unlock(&ram_list.lock);
    if (!block->foreign) {
        ram_unmap(block->host, ram_block_mapped_bytes(block));
    }
    if (block->fd >= 0) {
        close(block->fd);
    }
    ram_block_dirty_free(block);
    g_free(block);
}

void ram_block_free(RAMBlock *block)
{
    if (block) {
        trace_ram_block_free(block->idstr);
        block->resized = NULL;
        pthread_mutex_lock(&ram_list.lock);
        if (!ram_list.freed) {
            ram_list.freed = g_ptr_array_new();
        }
        g_ptr_array_add(ram_list.freed, block);
        pthread_mutex_unlock(&ram_list.lock);
        list_change(NULL, block);
        ram_block_unref(block);
    }
}

static RAMBlock *block_add(RAMBlock *block)
{
    block->refs = 1;
    block->offset = find_ram_addr(block->max_length);
    list_change(block, NULL);
    /* Only now: logging that starts for all blocks meanwhile finds it in one of the two ways. */
    ram_block_dirty_init(block);
    return block;
}

static void advise(const RAMBlock *block, const RAMBlockOptions *options)
{
    /* None of these is needed for anything to work: the kernel may lack them. */
    (void)madvise(block->host, ram_block_mapped_bytes(block),
                  options->no_hugepages ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
    if (options->merge) {
        (void)madvise(block->host, ram_block_mapped_bytes(block), MADV_MERGEABLE);
    }
    if (options->no_dump) {
        (void)madvise(block->host, ram_block_mapped_bytes(block), MADV_DONTDUMP);
    }
    /* A child that was forked to run a command has no use for it. */
    (void)madvise(block->host, ram_block_mapped_bytes(block), MADV_DONTFORK);
}

/* Fills in sizes; false: errp. */
static bool block_size(RAMBlock *block, const RAMBlockOptions *options, GError **errp)
{
    uint64_t mask = block->page_size - 1, max = MAX(options->size, options->max_size);

    if (!options->size || max > INT64_MAX - mask) {
        error_setg(errp, "cannot set up guest memory '%s': invalid size %" PRIu64, options->what,
                   options->size);
        return false;
    }
    if (options->fd >= 0 && (options->fd_offset & mask)) {
        error_setg(errp,
                   "cannot set up guest memory '%s': offset %" PRIu64
                   " is not a multiple of the page size %zu",
                   options->what, options->fd_offset, block->page_size);
        return false;
    }
    block->max_length = (max + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
    block->used_length = (options->size + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
    return true;
}

/*
 * The file to map; -1: none. Shared memory without a file gets a nameless one: the kernel tells of
 * files, not of shared anonymous mappings, which pages exist.
 */
static int block_file(const RAMBlockOptions *options)
{
    uint64_t size = MAX(options->size, options->max_size);
    int fd = options->fd;

    if (fd < 0 && (options->flags & RAM_SHARED) && size <= INT64_MAX - TARGET_PAGE_SIZE) {
        fd = memfd_create(options->what, MFD_CLOEXEC);
        size = (size + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
        if (fd >= 0 && ftruncate(fd, (off_t)size) < 0) {
            close(fd);
            fd = -1;
        }
    }
    return fd;
}

RAMBlock *ram_block_new(const RAMBlockOptions *options, GError **errp)
{
    RAMBlock *block = g_new0(RAMBlock, 1);
    int fd = block_file(options);
    RAMMapOptions map = {
        .fd = fd,
        .fd_offset = options->fd_offset,
        .shared = options->flags & RAM_SHARED,
        .readonly = options->flags & RAM_READONLY,
        .noreserve = options->flags & RAM_NORESERVE,
    };

    block->fd = fd;
    block->fd_offset = options->fd_offset;
    block->flags = options->flags | (options->fd < 0 || options->fd_zeroed ? RAM_ZEROED : 0);
    block->page_size = ram_map_page_size(fd);
    if (!block->page_size) {
        error_setg_errno(errp, errno, "cannot set up guest memory '%s'", options->what);
        goto fail;
    }
    if (!block_size(block, options, errp)) {
        goto fail;
    }
    map.size = ram_block_mapped_bytes(block);
    map.align = MAX(options->align, block->page_size);
    if (map.size >= THP_ALIGN) {
        map.align = MAX(map.align, THP_ALIGN);
    }
    block->host = ram_map(&map);
    if (!block->host) {
        g_autofree char *size = size_to_str(map.size);

        error_setg_errno(errp, errno, "cannot set up guest memory '%s' of %s", options->what, size);
        goto fail;
    }
    advise(block, options);
    trace_ram_block_new(options->what, block->used_length, block->max_length, block->flags);
    return block_add(block);

fail:
    if (fd >= 0) {
        close(fd);
    }
    g_free(block);
    return NULL;
}

RAMBlock *ram_block_new_from_ptr(const char *what, void *host, uint64_t size, uint32_t flags,
                                 GError **errp)
{
    RAMBlock *block;

    if (!size || size > INT64_MAX || (size & ~TARGET_PAGE_MASK) ||
        ((uintptr_t)host & ~TARGET_PAGE_MASK)) {
        error_setg(errp, "cannot set up guest memory '%s': invalid size %" PRIu64, what, size);
        return NULL;
    }
    block = g_new0(RAMBlock, 1);
    block->host = host;
    block->foreign = true;
    block->fd = -1;
    block->flags = flags;
    block->page_size = ram_map_page_size(-1);
    block->max_length = block->used_length = size;
    return block_add(block);
}

/* --- names --- */

bool ram_block_set_idstr(RAMBlock *block, const char *name, GError **errp)
{
    g_autoptr(RAMBlock) other = ram_block_by_name(name);
    size_t len = strlen(name);

    g_assert(!(block->flags & RAM_NAMED));
    if (!len || len > RAM_BLOCK_NAME_MAX) {
        error_setg(errp, "the name of a RAM block has 1 to %d bytes, not %zu", RAM_BLOCK_NAME_MAX,
                   len);
        return false;
    }
    if (other) {
        error_setg(errp, "RAMBlock \"%s\" already registered", name);
        return false;
    }
    trace_ram_block_named(name, block->offset);
    memcpy(block->idstr, name, len + 1);
    __atomic_fetch_or(&block->flags, RAM_NAMED, __ATOMIC_RELEASE);
    list_change(NULL, NULL);
    return true;
}

void ram_block_unset_idstr(RAMBlock *block)
{
    /* The text stays: a thread that holds an old list may be reading it. */
    __atomic_fetch_and(&block->flags, ~(uint32_t)RAM_NAMED, __ATOMIC_RELEASE);
    list_change(NULL, NULL);
}

void ram_block_set_migratable(RAMBlock *block, bool migratable)
{
    if (migratable) {
        __atomic_fetch_or(&block->flags, RAM_MIGRATABLE, __ATOMIC_RELEASE);
    } else {
        __atomic_fetch_and(&block->flags, ~(uint32_t)RAM_MIGRATABLE, __ATOMIC_RELEASE);
    }
}

/* --- size and content --- */

void ram_block_set_resized(RAMBlock *block,
                           void (*resized)(void *opaque, RAMBlock *block, uint64_t old_length),
                           void *opaque)
{
    block->resized = resized;
    block->resized_opaque = opaque;
}

bool ram_block_resize(RAMBlock *block, uint64_t length, GError **errp)
{
    uint64_t old = block->used_length, mask = block->page_size - 1, keep;

    if (length <= block->max_length) {
        length = (length + TARGET_PAGE_SIZE - 1) & TARGET_PAGE_MASK;
    }
    if (length == old) {
        return true;
    }
    if (!(block->flags & RAM_RESIZEABLE) || !length) {
        error_setg(errp, "Size mismatch: %s: 0x%" PRIx64 " != 0x%" PRIx64, block->idstr, length,
                   old);
        return false;
    }
    if (length > block->max_length) {
        error_setg(errp, "Size too large: %s: 0x%" PRIx64 " > 0x%" PRIx64, block->idstr, length,
                   block->max_length);
        return false;
    }
    keep = (length + mask) & ~mask;
    if (length < old) {
        memset(block->host + length, 0, MIN(keep, old) - length);
        if (keep < old && ram_block_discard(block, keep, ((old + mask) & ~mask) - keep) < 0) {
            memset(block->host + keep, 0, old - keep);
        }
    }
    trace_ram_block_resize(block->idstr, old, length);
    __atomic_store_n(&block->used_length, length, __ATOMIC_RELEASE);
    if (block->resized) {
        block->resized(block->resized_opaque, block, old);
    }
    return true;
}

int ram_block_discard(RAMBlock *block, uint64_t offset, uint64_t bytes)
{
    uint64_t mask = block->page_size - 1;

    if ((offset & mask) || (bytes & mask) || offset > ram_block_mapped_bytes(block) ||
        bytes > ram_block_mapped_bytes(block) - offset) {
        return -EINVAL;
    }
    if (!bytes) {
        return 0;
    }
    if (block->fd < 0) {
        /* Shared anonymous memory lives in the kernel's file: only a hole in that frees it. */
        int advice = block->flags & RAM_SHARED ? MADV_REMOVE : MADV_DONTNEED;

        return madvise(block->host + offset, bytes, advice) < 0 ? -errno : 0;
    }
    if (!(block->flags & RAM_SHARED)) {
        return -EINVAL;
    }
    return fallocate(block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                     (off_t)(block->fd_offset + offset), (off_t)bytes) < 0
               ? -errno
               : 0;
}
