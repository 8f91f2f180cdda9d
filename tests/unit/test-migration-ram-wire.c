/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * RAM in a migration, on the wire: the records that are written, the barriers of the channels, and
 * what hostile records can do.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory/address-space.h"
#include "tests/unit/migration-ram-world.h"
#include "util/bswap.h"

/* --- the wire --- */

static void put_name(GByteArray *out, const char *name)
{
    uint8_t len = (uint8_t)strlen(name);

    g_byte_array_append(out, &len, 1);
    g_byte_array_append(out, (const uint8_t *)name, len);
}

static void put_word(GByteArray *out, uint64_t word)
{
    uint8_t buf[8];

    stq_be_p(buf, word);
    g_byte_array_append(out, buf, 8);
}

static void put_filled(GByteArray *out, uint8_t value, size_t n)
{
    g_autofree uint8_t *buf = g_malloc(n);

    memset(buf, value, n);
    g_byte_array_append(out, buf, n);
}

static void test_records_on_the_wire(void)
{
    RAMBlock *a = make_block("a", 4 * PAGE, 0), *bb = make_block("bb", PAGE, 0);
    g_autoptr(GByteArray) want = g_byte_array_new();
    g_autoptr(GBytes) got = NULL;

    guest_fill(a, PAGE, 0xa1, 2 * PAGE);
    guest_fill(bb, 0, 0xb0, PAGE);
    got = save_all(NULL);
    put_word(want, 5 * PAGE | RAM_SAVE_FLAG_MEM_SIZE);
    put_name(want, "a");
    put_word(want, 4 * PAGE);
    put_name(want, "bb");
    put_word(want, PAGE);
    put_word(want, RAM_SAVE_FLAG_EOS);
    put_word(want, RAM_SAVE_FLAG_ZERO);
    put_name(want, "a");
    put_filled(want, 0, 1);
    put_word(want, PAGE | RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0xa1, PAGE);
    put_word(want, 2 * PAGE | RAM_SAVE_FLAG_PAGE | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0xa1, PAGE);
    put_word(want, 3 * PAGE | RAM_SAVE_FLAG_ZERO | RAM_SAVE_FLAG_CONTINUE);
    put_filled(want, 0, 1);
    put_word(want, RAM_SAVE_FLAG_PAGE);
    put_name(want, "bb");
    put_filled(want, 0xb0, PAGE);
    put_word(want, RAM_SAVE_FLAG_EOS);
    put_word(want, RAM_SAVE_FLAG_EOS);
    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), want->data, want->len);
    ram_block_free(a);
    ram_block_free(bb);
}

/* --- channels: which pages they get, and where the barriers are --- */

static GBytes *save_to_channels(ChangeSettings *change, GString **told)
{
    RAMBlock *block = make_block("ram", 8 * PAGE, 0);
    GBytes *bytes;
    Source src;

    g_string_truncate(world.channels, 0);
    fill_pages(block, 2, 3, 1);
    source_begin(&src, change);
    src.s.multifd = (MultiFDSend *)&src;
    source_setup(&src);
    g_assert_cmpint(source_iterate(&src), ==, 1);
    fill_pages(block, 3, 1, 2);
    bytes = source_end(&src);
    *told = world.channels;
    ram_block_free(block);
    return bytes;
}

static void assert_words(GBytes *bytes, size_t at, const uint64_t *words, size_t n)
{
    size_t size;
    const uint8_t *data = g_bytes_get_data(bytes, &size);

    g_assert_cmpuint(size, ==, at + n * 8);
    for (size_t i = 0; i < n; i++) {
        g_assert_cmphex(ldq_be_p(data + at + i * 8), ==, words[i]);
    }
}

/* Bytes of the list of the one block: the word, the name, the length. */
#define LIST_SIZE (8 + 4 + 8)

static void per_round(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_MULTIFD;
    settings->compat.multifd_flush_after_each_section = false;
}

static void test_channels_with_a_barrier_each_round(void)
{
    const uint64_t words[] = {
        RAM_SAVE_FLAG_MULTIFD_FLUSH, RAM_SAVE_FLAG_EOS,           /* START */
        RAM_SAVE_FLAG_EOS,                                        /* PART: the walk is at the end */
        RAM_SAVE_FLAG_MULTIFD_FLUSH, RAM_SAVE_FLAG_MULTIFD_FLUSH, /* END: round it goes, */
        RAM_SAVE_FLAG_EOS,                                        /* and after the last page */
    };
    g_autoptr(GBytes) bytes = NULL;
    GString *told;

    bytes = save_to_channels(per_round, &told);
    assert_words(bytes, LIST_SIZE, words, G_N_ELEMENTS(words));
    g_assert_cmpstr(told->str, ==,
                    "sync@20;ram 0+2 detect untouched;ram 2+3 detect;ram 5+3 detect untouched;"
                    "sync@44;ram 3+1 detect;sync@52;");
}

static void per_section(MigrationSettings *settings)
{
    settings->params.zero_page_detection = ZERO_PAGE_DETECTION_LEGACY;
    settings->compat.multifd_flush_after_each_section = true;
}

static void test_channels_with_a_barrier_each_section(void)
{
    g_autoptr(GBytes) bytes = NULL;
    GString *told;

    bytes = save_to_channels(per_section, &told);
    /* 5 zero pages, the first with the name, are on the main channel */
    g_assert_cmpuint(g_bytes_get_size(bytes), ==, LIST_SIZE + 3 * 8 + 5 * 9 + 4);
    g_assert_cmpstr(told->str, ==, "sync@20;ram 2+3;sync@77;ram 3+1;sync@85;");
}

/* --- hostile streams --- */

/* Eight pages of "ram" are at the destination; a resizable block may have two to eight. */
typedef struct Hostile {
    const char *what;
    const char *stream; /* hex, with x as "the rest of a page"; the list is not sent */
    const char *error;  /* part of it; NULL: loads */
} Hostile;

#define NAME "0372616d" /* "ram" */
#define EOS  "0000000000000010"

static const Hostile hostile[] = {
    {"a page", "0000000000001008" NAME "x" EOS, NULL},
    {"the last page", "0000000000007008" NAME "x" EOS, NULL},
    {"continued without a block", "0000000000001028x" EOS, "Ack, bad migration stream!"},
    {"behind the end", "0000000000008008" NAME "x" EOS, "Illegal RAM offset 8000"},
    {"far behind the end", "fffffffffffff008" NAME "x" EOS, "Illegal RAM offset fffffffffffff000"},
    {"zeroes behind the end", "0000000000008002" NAME "00" EOS, "Illegal RAM offset 8000"},
    {"unknown block", "0000000000001008037a7a7ax" EOS, "Can't find block zzz"},
    {"no name", "000000000000100800x" EOS, "Can't find block "},
    {"zeroes that go on behind the end",
     "0000000000006002" NAME "00"
     "000000000000702200"
     "000000000000802200" EOS,
     "Illegal RAM offset 8000"},
    {"zeroes, and a fill byte",
     "0000000000005002" NAME "00"
     "000000000000602200"
     "000000000000702255" EOS,
     "Found a zero page with value 85"},
    {"fill byte", "0000000000001002" NAME "55" EOS, "Found a zero page with value 85"},
    {"zero and page", "000000000000100a" NAME "x" EOS, "flags: 0xa"},
    {"compressed", "0000000000001100" NAME EOS, "flags: 0x100"},
    {"full", "0000000000000001" EOS, "flags: 0x1"},
    {"nothing", "0000000000000000" EOS, "flags: 0x0"},
    {"continued end", "0000000000000030", "flags: 0x30"},
    {"hook", "0000000000000080" EOS, NULL},
    {"flush without channels", "0000000000000200" EOS, NULL},
    {"delta",
     "0000000000001040" NAME "010004"
     "0302aabb" EOS,
     NULL},
    {"no delta", "0000000000001040" NAME "010000" EOS, NULL},
    {"other encoding", "0000000000001040" NAME "020000" EOS, "wrong compression"},
    {"malformed delta",
     "0000000000001040" NAME "010002"
     "0000" EOS,
     "decode error"},
    {"delta beyond the page",
     "0000000000001040" NAME "010005"
     "ff1f02aabb" EOS,
     "decode error"},
    {"long delta", "0000000000001040" NAME "011001" EOS, "len overflow"},
    {"unknown block listed", "000000000000100403666f6f0000000000001000" EOS,
     "Unknown ramblock \"foo\", cannot accept migration"},
    {"too large", "0000000000010004" NAME "0000000000010000" EOS,
     "Size mismatch: ram: 0x10000 != 0x8000"},
    {"more than the total", "0000000000001004" NAME "0000000000008000" EOS, "Invalid length"},
    {"no length", "0000000000008004" NAME "0000000000000000" EOS, "Invalid length"},
    {"no page", "0000000000008004" NAME "0000000000000800" EOS, "Invalid length"},
    {"resized",
     "0000000000003004"
     "03726573"
     "0000000000003000" EOS,
     NULL},
    {"resized too far",
     "0000000000009004"
     "03726573"
     "0000000000009000" EOS,
     "Size too large: res: 0x9000 > 0x8000"},
    {"resized, then used",
     "0000000000003004"
     "03726573"
     "0000000000003000"
     "0000000000002002"
     "03726573"
     "00" EOS,
     NULL},
    {"used, not resized",
     "0000000000002002"
     "03726573"
     "00" EOS,
     "Illegal RAM offset 2000"},
};

/* The hex of a table above as bytes. */
static GBytes *from_hex(const char *hex)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    for (; *hex; hex++) {
        if (*hex == 'x') {
            put_filled(out, 0xcc, PAGE);
        } else {
            uint8_t byte =
                (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));

            g_byte_array_append(out, &byte, 1);
            hex++;
        }
    }
    return g_byte_array_free_to_bytes(g_steal_pointer(&out));
}

static void test_hostile_records(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(hostile); i++) {
        RAMBlock *ram = make_block("ram", 8 * PAGE, 0);
        RAMBlock *res = make_block("res", 2 * PAGE, RAM_RESIZEABLE);
        g_autoptr(GBytes) bytes = from_hex(hostile[i].stream);
        g_autoptr(GError) err = NULL;
        int ret;

        g_test_message("%s", hostile[i].what);
        ret = load_all(bytes, NULL, &err);
        if (hostile[i].error) {
            g_assert_cmpint(ret, <, 0);
            g_assert_nonnull(err);
            g_test_message("%s", err->message);
            g_assert_nonnull(strstr(err->message, hostile[i].error));
        } else {
            g_assert_no_error(err);
            g_assert_cmpint(ret, ==, 0);
        }
        ram_block_free(ram);
        ram_block_free(res);
    }
}

static void test_version_is_checked(void)
{
    MigrationIncomingState mis = {.settings = changed_settings(NULL)};
    g_autoptr(GBytes) bytes = from_hex(EOS);
    g_autoptr(GError) err = NULL;
    QEMUFile *f = qemu_file_new_memory_input(bytes);
    RAMLoadState *rl = ram_load_new(&mis, &err);

    g_assert_cmpint(ram_load_section(rl, f, 3, &err), <, 0);
    g_assert_nonnull(strstr(err->message, "Version 3"));
    ram_load_free(rl);
    (void)!qemu_fclose(f);
    g_free(mis.settings);
}

/* Cut off anywhere, a stream is an error, whose text says so, and nothing else happens. */
static void test_truncated_anywhere(void)
{
    RAMBlock *block = make_block("ram", 5 * PAGE, 0), *twin;
    g_autoptr(GBytes) bytes = NULL;
    size_t size;
    Source src;

    fill_pages(block, 1, 3, 1);
    source_begin(&src, xbzrle);
    source_setup(&src);
    (void)source_iterate(&src);
    for (unsigned i = 0; i < 2; i++) {
        guest_fill(block, 2 * PAGE, (uint8_t)i, 5);
        ram_sync_dirty_log(src.rs, false);
        (void)source_iterate(&src);
    }
    guest_fill(block, 2 * PAGE, 7, 5);
    bytes = source_end(&src);
    g_assert_cmpuint(stat64_get(&src.s.counters.xbzrle_pages), >, 0);
    twin = make_twin(block, 0);
    size = g_bytes_get_size(bytes);
    for (size_t cut = 0; cut < size; cut++) {
        g_autoptr(GBytes) part = g_bytes_new_from_bytes(bytes, 0, cut);
        g_autoptr(GError) err = NULL;
        g_autofree MigrationSettings *settings = changed_settings(NULL);
        MigrationIncomingState mis = {.settings = settings};
        QEMUFile *f = qemu_file_new_memory_input(part);
        RAMLoadState *rl = ram_load_new(&mis, NULL);
        int ret = 0;

        while (ret == 0 && qemu_file_transferred(f) < size) {
            ret = ram_load_section(rl, f, RAM_SAVE_VERSION, &err);
        }
        g_assert_cmpint(ret, ==, -EIO);
        g_assert_nonnull(strstr(err->message, "Unexpected end"));
        ram_load_free(rl);
        (void)!qemu_fclose(f);
    }
    load_ok(bytes, NULL);
    assert_same(block, twin);
    ram_block_free(block);
    ram_block_free(twin);
}

/* --- memory that can't be written --- */

static void test_readonly_memory_is_compared(void)
{
    int fd = memfd_create("ro", MFD_CLOEXEC);
    RAMBlockOptions options = {.what = "rom", .size = 3 * PAGE, .flags = RAM_READONLY};
    static const char *const streams[] = {"0000000000001008"
                                          "03726f6d"
                                          "x" EOS,
                                          "0000000000002002"
                                          "03726f6d"
                                          "00" EOS,
                                          "0000000000002008"
                                          "03726f6d"
                                          "x" EOS,
                                          "0000000000001002"
                                          "03726f6d"
                                          "00" EOS,
                                          "0000000000001040"
                                          "03726f6d"
                                          "010004"
                                          "0302aabb" EOS};
    g_autofree uint8_t *page = g_malloc(PAGE);
    RAMBlock *block;

    memset(page, 0xcc, PAGE);
    g_assert_cmpint(ftruncate(fd, 3 * PAGE), ==, 0);
    g_assert_cmpint(pwrite(fd, page, PAGE, PAGE), ==, (ssize_t)PAGE);
    options.fd = fd;
    block = ram_block_new(&options, NULL);
    g_assert_true(ram_block_set_idstr(block, "rom", NULL));
    ram_block_set_migratable(block, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(streams); i++) {
        g_autoptr(GBytes) bytes = from_hex(streams[i]);
        g_autoptr(GError) err = NULL;
        int ret = load_all(bytes, NULL, &err);

        if (i < 2) {
            g_assert_no_error(err);
            g_assert_cmpint(ret, ==, 0);
        } else {
            g_assert_cmpint(ret, <, 0);
            g_assert_nonnull(strstr(err->message, "read-only"));
        }
    }
    ram_block_free(block);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    world.channels = g_string_new("");
    (void)get_address_space_memory();
    g_test_add_func("/migration/ram/records", test_records_on_the_wire);
    g_test_add_func("/migration/ram/channels/round", test_channels_with_a_barrier_each_round);
    g_test_add_func("/migration/ram/channels/section", test_channels_with_a_barrier_each_section);
    g_test_add_func("/migration/ram/hostile", test_hostile_records);
    g_test_add_func("/migration/ram/version", test_version_is_checked);
    g_test_add_func("/migration/ram/truncated", test_truncated_anywhere);
    g_test_add_func("/migration/ram/read-only", test_readonly_memory_is_compared);
    return g_test_run();
}
