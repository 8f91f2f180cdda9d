/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Option strings of the command line and names of disks, as far as they are only read: the first
 * byte chooses what the rest is taken for. What was understood is written out again, and must be
 * understood again.
 */
#include <glib.h>
#include <stdint.h>
#include <string.h>

#include "block/block.h"
#include "chardev/char-opts.h"
#include "qapi/keyval.h"
#include "qapi/qapi-types.h"
#include "util/qemu-opts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_blockdev(const char *text)
{
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    bool help;
    json_object *json = keyval_parse_or_json(text, "driver", &help, &flags, NULL);
    g_autoptr(BlockdevOptions) options = NULL;

    if (!json) {
        return;
    }
    options = BlockdevOptions_from_json(json, flags, NULL);
    json_object_put(json);
    if (options) {
        g_autoptr(BlockdevOptions) again = NULL;

        json = BlockdevOptions_to_json(options);
        again = BlockdevOptions_from_json(json, QAPI_DECODE_JSON, NULL);
        json_object_put(json);
        g_assert_nonnull(again);
    }
}

static void read_object(const char *text)
{
    QapiDecodeFlags flags = QAPI_DECODE_JSON;
    json_object *json = keyval_parse_or_json(text, "qom-type", NULL, &flags, NULL);

    if (json) {
        qapi_free_ObjectOptions(ObjectOptions_from_json(json, flags, NULL));
        json_object_put(json);
    }
}

static void read_chardev(const char *text)
{
    g_autofree char *id = NULL;
    bool shared;

    qapi_free_ChardevBackend(chardev_parse_option(text, &id, &shared, NULL));
}

static void read_chardev_short(const char *text)
{
    bool shared;

    qapi_free_ChardevBackend(chardev_parse_short(text, &shared, NULL));
}

static void read_disk_name(const char *text)
{
    qapi_free_BlockdevOptions(bdrv_filename_to_options(text, NULL, NULL));
}

static void read_flat(const char *text)
{
    g_autoptr(QemuOpts) opts = qemu_opts_parse(text, "fd");
    bool has_bool, has_int, on;
    int64_t number;

    (void)qemu_opts_wants_help(opts);
    (void)!qemu_opts_get_bool(opts, "on", &has_bool, &on, NULL);
    (void)!qemu_opts_get_int(opts, "fd", &has_int, &number, NULL);
    (void)!qemu_opts_check_known(opts, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(const char *) = {
        read_blockdev, read_object, read_chardev, read_chardev_short, read_disk_name, read_flat};
    g_autofree char *text = NULL;

    if (size < 1) {
        return -1;
    }
    text = g_strndup((const char *)data + 1, size - 1);
    readers[data[0] % G_N_ELEMENTS(readers)](text);
    return 0;
}
