/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The offsets, lengths and addresses that direct I/O on a file takes.
 *
 * The kernel tells them since Linux 6.1 (statx(2), STATX_DIOALIGN); a device tells its logical block
 * (BLKSSZGET). An older kernel is asked by reads of the file's data. A hole cannot be asked: file
 * systems answer such a read with zeroes, without the disk, whatever its length is.
 */
#include "block/file/file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* A sector that is smaller than this, or larger, is not used by any disk that Linux drives. */
#define MIN_SECTOR 512u
#define MAX_SECTOR 65536u
/* What every file system takes whose disk has sectors of at most a page. */
#define SAFE_ALIGN 4096u

static bool is_sector(uint64_t bytes)
{
    return bytes >= MIN_SECTOR && bytes <= MAX_SECTOR && (bytes & (bytes - 1)) == 0;
}

/* The smallest block that a direct read of data accepts; SAFE_ALIGN for a file without data. */
static uint32_t alignment_by_reading(int fd)
{
    uint32_t found = SAFE_ALIGN;
    off_t data = lseek(fd, 0, SEEK_DATA);
    void *buf;

    if (data < 0 || posix_memalign(&buf, SAFE_ALIGN, SAFE_ALIGN)) {
        return found;
    }
    data -= data % SAFE_ALIGN;
    for (uint32_t align = MIN_SECTOR; align < SAFE_ALIGN; align *= 2) {
        /* The second block: its offset is a multiple of `align` and of nothing larger. */
        if (pread(fd, buf, align, data + align) >= 0) {
            found = align;
            break;
        }
    }
    free(buf);
    return found;
}

static uint32_t logical_block(int fd)
{
    int sector;

    return ioctl(fd, BLKSSZGET, &sector) == 0 && is_sector(sector) ? (uint32_t)sector : MIN_SECTOR;
}

/* What the kernel tells about direct I/O on an open file; false when it tells nothing. */
static bool told_by_kernel(int fd, uint32_t *request, uint32_t *memory)
{
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) && is_sector(stx.stx_dio_offset_align)) {
        *request = stx.stx_dio_offset_align;
        *memory = MIN(stx.stx_dio_mem_align, MAX_SECTOR);
        return true;
    }
#endif
    return false;
}

void file_probe_alignment(BlockDriverState *bs)
{
    BDRVFileState *s = bs->opaque;
    uint32_t memory = 1;

    s->buf_align = s->vector_align = 1;
    s->request_align = s->is_device ? logical_block(s->fd) : 1;
    if (!(bs->open_flags & BDRV_O_NOCACHE) || s->fs_in_memory) {
        return;
    }
    if (!told_by_kernel(s->fd, &s->request_align, &memory) && !s->is_device) {
        s->request_align = alignment_by_reading(s->fd);
    }
    s->vector_align = MAX(memory, s->request_align);
    s->buf_align = MAX(s->vector_align, SAFE_ALIGN);
}
