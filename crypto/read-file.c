/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads small files that users name. */
#include "crypto/read-file.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "crypto/secret.h"
#include "util/error.h"
#include "util/open.h"

/* Room for what a file usually has; grows as needed. */
#define READ_FIRST_BYTES 8192

/* Moves *buf to a block of twice the size, at most max. */
static void grow(uint8_t **buf, size_t *size, size_t max)
{
    size_t wanted = MIN(*size * 2, max);
    uint8_t *bigger = g_malloc(wanted);

    memcpy(bigger, *buf, *size);
    qcrypto_secret_wipe(*buf, *size);
    *buf = bigger;
    *size = wanted;
}

/*
 * Reads until the end or until there are `limit` bytes. Bytes or -errno; *buf is the caller's
 * either way, of *size bytes.
 */
static ssize_t read_until_end(int fd, uint8_t **buf, size_t *size, size_t limit)
{
    size_t done = 0;

    *size = MIN(READ_FIRST_BYTES, limit);
    *buf = g_malloc(*size);
    for (;;) {
        ssize_t len;

        if (done == *size && done < limit) {
            grow(buf, size, limit);
        }
        len = read(fd, *buf + done, *size - done);
        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len < 0) {
            return -errno;
        }
        if (len == 0) {
            return done;
        }
        done += len;
        if (done == limit) {
            return done;
        }
    }
}

bool crypto_read_file(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                      GError **errp)
{
    uint8_t *buf;
    size_t size;
    ssize_t len;
    int fd = qemu_open(path, O_RDONLY | O_NOCTTY, 0, NULL);

    if (fd < 0) {
        error_setg_errno(errp, -fd, "Unable to read %s", path);
        return false;
    }
    len = read_until_end(fd, &buf, &size, max_bytes + 1);
    qemu_close(fd);
    if (len < 0) {
        error_setg_errno(errp, -len, "Unable to read %s", path);
    } else if ((size_t)len > max_bytes) {
        error_setg(errp, "Unable to read %s: it has more than %zu bytes", path, max_bytes);
    } else {
        *data = g_malloc(len + 1);
        memcpy(*data, buf, len);
        (*data)[len] = 0;
        *bytes = len;
    }
    qcrypto_secret_wipe(buf, size);
    return len >= 0 && (size_t)len <= max_bytes;
}
