/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reads small files that users name. */
#include "crypto/read-file.h"
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "crypto/secret.h"
#include "util/error.h"
#include "util/open.h"

/* Fills buf as far as the file goes. Bytes or -errno. */
static ssize_t read_until_end(int fd, uint8_t *buf, size_t size)
{
    size_t done = 0;

    while (done < size) {
        ssize_t len = read(fd, buf + done, size - done);

        if (len < 0 && errno == EINTR) {
            continue;
        }
        if (len < 0) {
            return -errno;
        }
        if (len == 0) {
            break;
        }
        done += len;
    }
    return done;
}

bool crypto_read_file(const char *path, size_t max_bytes, uint8_t **data, size_t *bytes,
                      GError **errp)
{
    uint8_t *buf;
    ssize_t len;
    int fd = qemu_open(path, O_RDONLY | O_NOCTTY, 0, NULL);

    if (fd < 0) {
        error_setg_errno(errp, -fd, "Unable to read %s", path);
        return false;
    }
    buf = g_malloc(max_bytes + 1);
    len = read_until_end(fd, buf, max_bytes + 1);
    qemu_close(fd);
    if (len < 0 || (size_t)len > max_bytes) {
        if (len < 0) {
            error_setg_errno(errp, -len, "Unable to read %s", path);
        } else {
            error_setg(errp, "Unable to read %s: it has more than %zu bytes", path, max_bytes);
        }
        qcrypto_secret_wipe(buf, max_bytes + 1);
        return false;
    }
    buf[len] = 0;
    *data = g_memdup2(buf, len + 1);
    *bytes = len;
    qcrypto_secret_wipe(buf, max_bytes + 1);
    return true;
}
