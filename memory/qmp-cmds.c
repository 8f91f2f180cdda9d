/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about memory. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "memory/address-space.h"
#include "memory/info.h"
#include "memory/machine-ram.h"
#include "qapi/qapi-commands-memory.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/open.h"
#include "util/units.h"

/* Bytes of a dump that are copied before the loop gets its turn. */
#define SAVE_CHUNK (1 * MiB)

bool coroutine_fn qmp_query_memory_size_summary(MemoryInfo **ret, GError **errp)
{
    *ret = g_new0(MemoryInfo, 1);
    (*ret)->base_memory = machine_ram_size();
    (*ret)->has_plugged_memory = true;
    return true;
}

bool coroutine_fn qmp_x_query_ramblock(HumanReadableText **ret, GError **errp)
{
    *ret = g_new0(HumanReadableText, 1);
    (*ret)->human_readable_text = ram_block_info();
    return true;
}

bool coroutine_fn qmp_memsave(const MemsaveArg *arg, GError **errp)
{
    /* Virtual addresses are a CPU's, and no machine has one. */
    error_setg(errp, "Parameter 'cpu-index' expects a CPU number");
    return false;
}

/* --- pmemsave --- */

typedef struct SaveChunk {
    const char *filename;
    int fd;
    const uint8_t *buf;
    size_t bytes;
} SaveChunk;

static int save_open(void *opaque)
{
    SaveChunk *chunk = opaque;

    chunk->fd = qemu_open_at_once(chunk->filename, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    return MIN(chunk->fd, 0);
}

static int save_write(void *opaque)
{
    SaveChunk *chunk = opaque;
    size_t done = 0;

    while (done < chunk->bytes) {
        ssize_t n = write(chunk->fd, chunk->buf + done, chunk->bytes - done);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -ENOSPC;
        }
        done += (size_t)n;
    }
    return 0;
}

static int save_close(void *opaque)
{
    const SaveChunk *chunk = opaque;

    return close(chunk->fd) < 0 ? -errno : 0;
}

bool coroutine_fn qmp_pmemsave(const PmemsaveArg *arg, GError **errp)
{
    g_autofree uint8_t *buf = g_malloc(SAVE_CHUNK);
    SaveChunk chunk = {.filename = arg->filename, .buf = buf};
    uint64_t addr = arg->val, left = arg->size;
    int ret = thread_pool_submit_co(save_open, &chunk), closed;

    if (ret < 0) {
        error_setg_errno(errp, -ret, "Could not open '%s'", arg->filename);
        return false;
    }
    while (left && ret == 0) {
        chunk.bytes = MIN(left, (uint64_t)SAVE_CHUNK);
        address_space_read(get_address_space_memory(), addr, MEMTXATTRS_UNSPECIFIED, buf,
                           chunk.bytes);
        ret = thread_pool_submit_co(save_write, &chunk);
        addr += chunk.bytes;
        left -= chunk.bytes;
    }
    closed = thread_pool_submit_co(save_close, &chunk);
    ret = ret ? ret : closed;
    if (ret < 0) {
        error_setg_errno(errp, -ret, "writing memory to '%s' failed", arg->filename);
    }
    return ret == 0;
}
