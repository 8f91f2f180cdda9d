/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Zeroes beyond the end of a file, while other requests make it longer as well. */
#include <glib.h>
#include <string.h>

#include "block/block-backend.h"
#include "tests/unit/block-fixture.h"

enum { PIECE = 4096, STEP = 65536, PIECES = 64, ROUNDS = 40 };

static char *folder;

typedef struct Piece {
    BlockBackend *blk;
    int64_t offset;
    bool zeroes;
    int *running;
    Coroutine *waiter;
} Piece;

static void coroutine_fn piece_co_entry(void *opaque)
{
    Piece *p = opaque;
    uint8_t data[PIECE];
    int ret;

    memset(data, 0x5a, sizeof(data));
    ret = p->zeroes ? blk_co_pwrite_zeroes(p->blk, p->offset, PIECE, BDRV_REQ_MAY_UNMAP)
                    : blk_co_pwrite(p->blk, p->offset, PIECE, data, 0);
    g_assert_cmpint(ret, ==, 0);
    if (--*p->running == 0) {
        aio_co_wake(p->waiter);
    }
}

/* Zeroes and data by turns, all at once: each lies beyond the one before. */
static void coroutine_fn co_write_all(BlockBackend *blk)
{
    Piece pieces[2 * PIECES];
    int running = 2 * PIECES;

    for (int i = 0; i < 2 * PIECES; i++) {
        pieces[i] = (Piece){.blk = blk,
                            .offset = i * STEP,
                            .zeroes = i % 2 == 0,
                            .running = &running,
                            .waiter = qemu_coroutine_self()};
        qemu_coroutine_enter(qemu_coroutine_create(piece_co_entry, &pieces[i]));
    }
    qemu_coroutine_yield();
}

static void coroutine_fn grow_co(void *opaque)
{
    g_autofree char *path = g_strdup_printf("%s/file", folder);
    g_autofree char *json = g_strdup_printf(
        "{'driver': 'file', 'node-name': 'file', 'filename': '%s', 'discard': 'unmap'}", path);

    for (int round = 0; round < ROUNDS; round++) {
        BlockBackend *blk = blk_new(BLK_PERM_CONSISTENT_READ | BLK_PERM_WRITE, BLK_PERM_ALL);
        g_autofree char *contents = NULL;
        BlockDriverState *bs;
        gsize bytes;

        g_assert_true(g_file_set_contents(path, "", 0, NULL));
        bs = open_node(json);
        g_assert_true(blk_insert_bs(blk, bs, NULL));
        bdrv_co_unref(bs);
        blk_set_allow_write_beyond_eof(blk, true);
        co_write_all(blk);
        blk_unref(blk);
        bdrv_co_close_all();

        g_assert_true(g_file_get_contents(path, &contents, &bytes, NULL));
        g_assert_cmpint(bytes, ==, (2 * PIECES - 1) * STEP + PIECE);
        for (int i = 0; i < 2 * PIECES; i++) {
            g_assert_cmpint(contents[i * STEP], ==, i % 2 ? 0x5a : 0);
        }
    }
}

static void test_zeroes_beyond_the_end_cut_off_no_data_behind_them(void)
{
    aio_run_coroutine(grow_co, NULL);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    folder = image_folder_new();
    g_test_add_func("/file-zeroes/grow", test_zeroes_beyond_the_end_cut_off_no_data_behind_them);
    ret = g_test_run();
    image_folder_remove(folder);
    return ret;
}
