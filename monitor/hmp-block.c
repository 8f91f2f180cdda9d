/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP commands about disks that are no QMP commands. */
#include <stdio.h>
#include <string.h>
#include "block/debug/qemu-io.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "util/error.h"

static char *qemu_io_get_desc(void *opaque)
{
    return g_strdup("qemu-io");
}

static const BlockDevOps qemu_io_ops = {.get_desc = qemu_io_get_desc};

/* A drive by its name, or a node, to which a backend of its own is attached; one reference. */
static BlockBackend *find_disk(const char *name, GError **errp)
{
    BlockBackend *blk = blk_by_name(name);
    BlockDriverState *bs;

    if (blk) {
        if (!blk_bs(blk)) {
            error_setg(errp, "Device '%s' has no medium", name);
            return NULL;
        }
        blk_ref(blk);
        return blk;
    }
    bs = bdrv_lookup_bs(NULL, name, errp);
    if (!bs) {
        return NULL;
    }
    blk = blk_new(0, BLK_PERM_ALL);
    blk_set_dev_ops(blk, &qemu_io_ops, NULL);
    if (!blk_insert_bs(blk, bs, errp)) {
        blk_unref(blk);
        return NULL;
    }
    return blk;
}

/*
 * Results go to standard output and not into the reply: clients tell failures of the command from
 * those of the request by that.
 */
static void coroutine_fn hmp_co_qemu_io(HMPOutput *out, const HMPCommand *cmd, int argc,
                                        char **argv)
{
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError) err = NULL;
    BlockBackend *blk;

    if (argc == 3 && !strcmp(argv[0], "-d")) { /* "NAME is a device", which it may be anyway */
        argc--;
        argv++;
    }
    if (argc != 2) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
        return;
    }
    blk = find_disk(argv[0], &err);
    if (!blk) {
        hmp_printf(out, "Error: %s\n", err->message);
        return;
    }
    if (!qemuio_co_command(blk, argv[1], text, &err)) {
        hmp_printf(out, "%s\n", err->message);
    }
    blk_unref(blk);
    fputs(text->str, stdout);
    fflush(stdout);
}

void hmp_register_block_commands(void)
{
    static const HMPCommand commands[] = {
        {"qemu-io", "[-d] device \"command\"", "run a request on a disk; \"help\" lists them",
         hmp_co_qemu_io},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        hmp_register_command(&commands[i]);
    }
}
