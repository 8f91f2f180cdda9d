/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VMState: whatever a stream holds, a load ends in the state that was saved or in an error. */
#include <errno.h>
#include <glib.h>
#include <string.h>

#include "tests/unit/vmstate-rich.h"
#include "util/bswap.h"
#include "vmstate/vmstate-fields.h"
#include "vmstate/vmstate.h"

static GBytes *rich_save(RichState *s)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_output(1 << 20);
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(vmstate_save_state(f, &vmstate_rich, s, NULL, &err), ==, 0);
    g_assert_no_error(err);
    return qemu_file_memory_steal(f);
}

static int rich_load(RichState *s, GBytes *bytes, GError **errp)
{
    g_autoptr(QEMUFile) f = qemu_file_new_memory_input(bytes);

    return vmstate_load_state(f, &vmstate_rich, s, vmstate_rich.version_id, errp);
}

static void test_everything_arrives(void)
{
    for (guint32 seed = 1; seed <= 200; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        g_autoptr(GBytes) sent = NULL;
        g_autoptr(GBytes) again = NULL;
        g_autoptr(GError) err = NULL;
        RichState *from = rich_new(), *to = rich_new();

        g_test_message("seed %u", seed);
        rich_use(from, rand);
        sent = rich_save(from);
        g_assert_cmpint(rich_load(to, sent, &err), ==, 0);
        g_assert_no_error(err);
        rich_check(to);
        again = rich_save(to);
        g_assert_true(g_bytes_equal(sent, again));
        rich_free(from);
        rich_free(to);
    }
}

static void test_a_stream_that_ends_anywhere(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);
    g_autoptr(GBytes) whole = NULL;
    RichState *from = rich_new();
    size_t size, ended = 0;

    rich_use(from, rand);
    whole = rich_save(from);
    size = g_bytes_get_size(whole);
    for (size_t n = 0; n < size; n++) {
        g_autoptr(GBytes) part = g_bytes_new_from_bytes(whole, 0, n);
        g_autoptr(GError) err = NULL;
        RichState *to = rich_new();

        if (rich_load(to, part, &err) < 0) {
            g_assert_nonnull(err);
            g_test_message("%zu of %zu: %s", n, size, err->message);
            g_assert_true(g_str_has_prefix(err->message, "Failed to load rich"));
            ended += strstr(err->message, "Unexpected end of the migration stream") != NULL;
            g_assert_null(strstr(strstr(err->message, " at offset ") + 1, "Failed to load"));
        } else {
            /* what is optional at the end is missing as a whole */
            g_assert_cmpint(n, >=, size - 19);
        }
        rich_check(to);
        rich_free(to);
    }
    /* the head of a subsection, cut, is taken for the next field */
    g_assert_cmpint(ended, >, size * 3 / 4);
    rich_free(from);
}

/* Loads a stream that was tampered with. If it is accepted, it can be saved again. */
static void load_tampered(GBytes *bytes)
{
    g_autoptr(GError) err = NULL;
    RichState *to = rich_new();
    int ret = rich_load(to, bytes, &err);

    g_assert_true((ret < 0) == (err != NULL));
    rich_check(to);
    if (ret == 0) {
        g_bytes_unref(rich_save(to));
    }
    rich_free(to);
}

static void test_bits_that_flip(void)
{
    for (guint32 seed = 1; seed <= 20000; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed % 50);
        g_autoptr(GBytes) sent = NULL;
        g_autoptr(GBytes) tampered = NULL;
        RichState *from = rich_new();
        uint8_t *copy;
        size_t size;

        rich_use(from, rand);
        sent = rich_save(from);
        copy = g_bytes_unref_to_data(g_steal_pointer(&sent), &size);
        g_rand_set_seed(rand, seed);
        for (int n = g_rand_int_range(rand, 1, 4); n > 0; n--) {
            copy[g_rand_int_range(rand, 0, size)] ^= 1 << g_rand_int_range(rand, 0, 8);
        }
        tampered = g_bytes_new_take(copy, size);
        load_tampered(tampered);
        rich_free(from);
    }
}

static void test_noise(void)
{
    for (guint32 seed = 1; seed <= 5000; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        size_t size = g_rand_int_range(rand, 0, 1000);
        uint8_t *noise = g_malloc(size);
        g_autoptr(GBytes) bytes = NULL;

        for (size_t i = 0; i < size; i++) {
            noise[i] = g_rand_int_range(rand, 0, g_rand_boolean(rand) ? 4 : 256);
        }
        bytes = g_bytes_new_take(noise, size);
        load_tampered(bytes);
    }
}

typedef struct Blob {
    uint32_t len;
    uint8_t *bytes;
} Blob;

static const VMStateDescription vmstate_blob = {
    .name = "blob",
    .version_id = 1,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(len, Blob),
            VMSTATE_VBUFFER_ALLOC(bytes, Blob, 0, NULL, len, VMS_AT_MOST(1 << 30)),
            VMSTATE_END_OF_LIST(),
        },
};

/* Whatever a description allows, one field takes no more memory than VMSTATE_MAX_ALLOC. */
static void test_a_length_that_takes_too_much_memory(void)
{
    static const struct {
        uint32_t len;
        const char *error;
    } cases[] = {{VMSTATE_MAX_ALLOC, "Unexpected end"},
                 {VMSTATE_MAX_ALLOC + 1, "the limit is 67108864"},
                 {1 << 30, "the limit is 67108864"},
                 {(1 << 30) + 1, "1073741824"}};

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GBytes) sent = NULL;
        g_autoptr(QEMUFile) f = NULL;
        g_autoptr(GError) err = NULL;
        uint8_t len[4];
        Blob blob = {0};

        stl_be_p(len, cases[i].len);
        sent = g_bytes_new(len, sizeof(len));
        f = qemu_file_new_memory_input(sent);
        g_assert_cmpint(vmstate_load_state(f, &vmstate_blob, &blob, 1, &err), <, 0);
        g_test_message("%u: %s", cases[i].len, err->message);
        g_assert_nonnull(strstr(err->message, cases[i].error));
        g_free(blob.bytes);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/vmstate/hostile/everything-arrives", test_everything_arrives);
    g_test_add_func("/vmstate/hostile/a-stream-that-ends-anywhere",
                    test_a_stream_that_ends_anywhere);
    g_test_add_func("/vmstate/hostile/bits-that-flip", test_bits_that_flip);
    g_test_add_func("/vmstate/hostile/noise", test_noise);
    g_test_add_func("/vmstate/hostile/too-much-memory", test_a_length_that_takes_too_much_memory);
    return g_test_run();
}
