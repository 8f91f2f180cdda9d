/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads small files that users name. */
#include "util/read-file.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "util/aio.h"
#include "util/error.h"
#include "util/open.h"
#include "util/wipe.h"

/* Room for what a file usually has; grows as needed. */
#define READ_FIRST_BYTES 8192
#define FIFO_SILENCE_MS  10000

typedef struct FileRead {
    int fd;
    bool fifo;
    int silence_ms; /* how long a FIFO may bring nothing */
    size_t limit;
    uint8_t *buf;
    size_t size; /* of buf */
    ssize_t len; /* the result: bytes or -errno */
} FileRead;

/* Moves *buf to a block of twice the size, at most max. */
static void grow(uint8_t **buf, size_t *size, size_t max)
{
    size_t wanted = MIN(*size * 2, max);
    uint8_t *bigger = g_malloc(wanted);

    memcpy(bigger, *buf, *size);
    wipe_free(*buf, *size);
    *buf = bigger;
    *size = wanted;
}

/* What read(2) gives, or -errno. A FIFO that no process has opened to write yet is not at its end. */
static ssize_t read_some(const FileRead *file, uint8_t *buf, size_t bytes)
{
    struct pollfd pfd = {.fd = file->fd, .events = POLLIN};
    ssize_t len;

    do {
        int ready = file->fifo ? poll(&pfd, 1, file->silence_ms) : 1;

        len = ready > 0 ? read(file->fd, buf, bytes) : ready;
        if (ready == 0) {
            return -ETIMEDOUT;
        }
    } while (len < 0 && errno == EINTR);
    return len < 0 ? -errno : len;
}

/* Reads until the end or until there are `limit` bytes. The buffer is the caller's. */
static int read_until_end(void *opaque)
{
    FileRead *file = opaque;
    size_t done = 0;

    file->size = MIN(READ_FIRST_BYTES, file->limit);
    file->buf = g_malloc(file->size);
    do {
        if (done == file->size) {
            grow(&file->buf, &file->size, file->limit);
        }
        file->len = read_some(file, file->buf + done, file->size - done);
        done += MAX(file->len, 0);
    } while (file->len > 0 && done < file->limit);
    file->len = file->len < 0 ? file->len : (ssize_t)done;
    return 0;
}

static void read_all(FileRead *file)
{
    struct stat st;

    file->fifo = fstat(file->fd, &st) == 0 && S_ISFIFO(st.st_mode);
    if (file->fifo && file->silence_ms && qemu_in_coroutine()) {
        (void)thread_pool_submit_co(read_until_end, file);
    } else {
        (void)read_until_end(file);
    }
}

static bool read_path(const char *path, size_t max_bytes, int silence_ms, uint8_t **data,
                      size_t *bytes, GError **errp)
{
    FileRead file = {.fd = qemu_open(path, O_RDONLY | O_NOCTTY, 0, NULL),
                     .silence_ms = silence_ms,
                     .limit = max_bytes + 1};
    bool ok;

    if (file.fd < 0) {
        error_setg_errno(errp, -file.fd, "Unable to read %s", path);
        return false;
    }
    read_all(&file);
    qemu_close(file.fd);
    ok = file.len >= 0 && (size_t)file.len <= max_bytes;
    if (file.len < 0) {
        error_setg_errno(errp, (int)-file.len, "Unable to read %s", path);
    } else if (!ok) {
        error_setg(errp, "Unable to read %s: it has more than %zu bytes", path, max_bytes);
    } else {
        *data = g_malloc((size_t)file.len + 1);
        memcpy(*data, file.buf, (size_t)file.len);
        (*data)[file.len] = 0;
        *bytes = (size_t)file.len;
    }
    wipe_free(file.buf, file.size);
    return ok;
}

bool qemu_read_file(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                    GError **errp)
{
    return read_path(path, max_bytes, FIFO_SILENCE_MS, data, bytes, errp);
}

bool qemu_read_file_at_once(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                            GError **errp)
{
    return read_path(path, max_bytes, 0, data, bytes, errp);
}
