/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP commands about character devices. */
#include <string.h>
#include "chardev/char.h"
#include "qapi/qapi-commands-char.h"
#include "util/error.h"

bool coroutine_fn qmp_query_chardev(ChardevInfoList **ret, GError **errp)
{
    for (Chardev *chr = qemu_chr_next(NULL); chr; chr = qemu_chr_next(chr)) {
        ChardevInfo *info = g_new0(ChardevInfo, 1);

        info->label = g_strdup(qemu_chr_label(chr));
        info->filename = qemu_chr_filename(chr);
        info->frontend_open = qemu_chr_has_frontend(chr);
        QAPI_LIST_APPEND(ret, info);
    }
    return true;
}

bool coroutine_fn qmp_query_chardev_backends(ChardevBackendInfoList **ret, GError **errp)
{
    for (int kind = 0; kind < CHARDEV_BACKEND_KIND__MAX; kind++) {
        ChardevBackendInfo *info = g_new0(ChardevBackendInfo, 1);

        info->name = g_strdup(ChardevBackendKind_str((ChardevBackendKind)kind));
        QAPI_LIST_APPEND(ret, info);
    }
    return true;
}

bool coroutine_fn qmp_chardev_add(const ChardevAddArg *arg, ChardevReturn **ret, GError **errp)
{
    Chardev *chr = qemu_chr_co_new(arg->id, arg->backend, errp);

    if (!chr) {
        return false;
    }
    *ret = g_new0(ChardevReturn, 1);
    (*ret)->pty = g_strdup(qemu_chr_pty(chr));
    return true;
}

bool coroutine_fn qmp_chardev_remove(const ChardevRemoveArg *arg, GError **errp)
{
    return qemu_chr_remove(arg->id, errp);
}

/*
 * The new one may need what the old one holds (an address, a file), so the old one goes first. No
 * front end can be moved from one to the other while it is in use.
 */
bool coroutine_fn qmp_chardev_change(const ChardevChangeArg *arg, ChardevReturn **ret,
                                     GError **errp)
{
    ChardevAddArg add = {.id = arg->id, .backend = arg->backend};
    Chardev *chr = qemu_chr_find(arg->id);
    GError *err = NULL;

    if (!chr) {
        error_setg(errp, "Chardev '%s' does not exist", arg->id);
        return false;
    }
    if (qemu_chr_has_frontend(chr)) {
        error_setg(errp, "Chardev user does not support chardev hotswap");
        return false;
    }
    if (!qemu_chr_remove(arg->id, errp)) {
        return false;
    }
    if (!qmp_chardev_add(&add, ret, &err)) {
        g_propagate_prefixed_error(errp, err, "Failed to add chardev '%s': ", arg->id);
        return false;
    }
    return true;
}

/* --- ring buffers --- */

static Chardev *find_device(const char *name, GError **errp)
{
    Chardev *chr = qemu_chr_find(name);

    if (!chr) {
        error_setg(errp, "Device '%s' not found", name);
    }
    return chr;
}

/* False unless the text is base64, whole and without anything else. */
static bool base64_valid(const char *text)
{
    size_t len = strlen(text);
    size_t body = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");

    return len % 4 == 0 && body + 2 >= len && strspn(text + body, "=") == len - body;
}

bool coroutine_fn qmp_ringbuf_write(const RingbufWriteArg *arg, GError **errp)
{
    Chardev *chr = find_device(arg->device, errp);
    g_autofree uint8_t *bytes = NULL;
    gsize len;

    if (!chr) {
        return false;
    }
    if (!arg->has_format || arg->format == DATA_FORMAT_UTF8) {
        return qemu_chr_ringbuf_write(chr, arg->data, strlen(arg->data), errp);
    }
    if (!base64_valid(arg->data)) {
        error_setg(errp, "Base64 data contains invalid characters");
        return false;
    }
    bytes = g_base64_decode(arg->data, &len);
    return qemu_chr_ringbuf_write(chr, bytes, len, errp);
}

bool coroutine_fn qmp_ringbuf_read(const RingbufReadArg *arg, char **ret, GError **errp)
{
    Chardev *chr = find_device(arg->device, errp);
    GByteArray *bytes;

    if (!chr) {
        return false;
    }
    if (arg->size <= 0) {
        error_setg(errp, "size must be greater than zero");
        return false;
    }
    bytes = qemu_chr_ringbuf_read(chr, (size_t)arg->size, errp);
    if (!bytes) {
        return false;
    }
    if (arg->has_format && arg->format == DATA_FORMAT_BASE64) {
        *ret = g_base64_encode(bytes->data, bytes->len);
    } else {
        /* as C has strings: what follows a NUL is lost; base64 is for such data */
        *ret = g_utf8_make_valid((const char *)bytes->data, bytes->len);
    }
    g_byte_array_unref(bytes);
    return true;
}
