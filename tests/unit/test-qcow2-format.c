/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The pure parts of the qcow2 driver: header bytes, refcount widths, what L2 entries mean. */
#include <glib.h>
#include <string.h>

#include "block/qcow2/qcow2.h"
#include "block/qcow2/l2.h"
#include "block/qcow2/refcount.h"

#define CLUSTER 65536

/* A header as a new image of 1 GiB has it. */
static void sample(Qcow2Header *h)
{
    *h = (Qcow2Header){
        .version = 3,
        .cluster_bits = 16,
        .size = 1 << 30,
        .l1_size = 2,
        .l1_table_offset = 3 * CLUSTER,
        .refcount_table_offset = CLUSTER,
        .refcount_table_clusters = 1,
        .refcount_order = 4,
        .header_length = QCOW2_V3_HEADER_BYTES,
    };
}

static bool parse(const uint8_t *cluster, Qcow2Header *h, GError **errp)
{
    return qcow2_header_parse_fixed(cluster, QCOW2_V3_HEADER_BYTES, h, errp) &&
           qcow2_header_parse_extensions(cluster, h, errp);
}

static void test_header_round_trip(void)
{
    g_auto(Qcow2Header) h = {0}, back = {0};
    g_autofree uint8_t *a = g_malloc(CLUSTER), *b = g_malloc(CLUSTER);
    g_autoptr(GError) err = NULL;
    Qcow2UnknownExt ext = {.type = 0x12345678, .data = g_bytes_new("hello", 5)};

    sample(&h);
    h.backing_file = g_strdup("base.qcow2");
    h.backing_format = g_strdup("qcow2");
    h.compatible_features = QCOW2_COMPAT_LAZY_REFCOUNTS | 1 << 5;
    h.autoclear_features = QCOW2_AUTOCLEAR_BITMAPS;
    h.has_bitmaps_ext = true;
    h.nb_bitmaps = 1;
    h.bitmap_directory_size = 32;
    h.bitmap_directory_offset = 5 * CLUSTER;
    h.unknown_fields = g_bytes_new("12345678", 8);
    h.unknown_exts = g_array_new(FALSE, FALSE, sizeof(ext));
    g_array_append_val(h.unknown_exts, ext);
    g_assert_cmpint(qcow2_header_serialize(&h, a, &err), >, 0);
    g_assert_true(parse(a, &back, &err));
    g_assert_no_error(err);
    g_assert_cmpstr(back.backing_file, ==, "base.qcow2");
    g_assert_cmpstr(back.backing_format, ==, "qcow2");
    g_assert_cmpint(back.nb_bitmaps, ==, 1);
    g_assert_cmpint(back.unknown_exts->len, ==, 1);
    /* What is not understood is kept, byte for byte. */
    g_assert_cmpint(qcow2_header_serialize(&back, b, &err), >, 0);
    g_assert_cmpmem(a, CLUSTER, b, CLUSTER);
}

static void test_header_too_small_cluster(void)
{
    g_auto(Qcow2Header) h = {0}, back = {0};
    uint8_t cluster[512];
    g_autoptr(GError) err = NULL;

    sample(&h);
    h.cluster_bits = 9;
    h.size = 1 << 20;
    h.l1_size = 32;
    g_assert_cmpint(qcow2_header_serialize(&h, cluster, &err), >, 0);
    g_assert_true(parse(cluster, &back, &err));
    h.backing_file = g_strnfill(480, 'x');
    g_assert_cmpint(qcow2_header_serialize(&h, cluster, &err), <, 0);
    g_assert_nonnull(err);
}

/* One field of a good header replaced by what no image may have. */
static const struct {
    int offset, bytes;
    uint64_t value;
} hostile[] = {
    {QCOW2_OFS_MAGIC, 4, 0},
    {QCOW2_OFS_VERSION, 4, 0},
    {QCOW2_OFS_VERSION, 4, 4},
    {QCOW2_OFS_BACKING_OFFSET, 8, CLUSTER + 1},
    {QCOW2_OFS_BACKING_OFFSET, 8, UINT64_MAX},
    {QCOW2_OFS_CLUSTER_BITS, 4, 0},
    {QCOW2_OFS_CLUSTER_BITS, 4, 8},
    {QCOW2_OFS_CLUSTER_BITS, 4, 22},
    {QCOW2_OFS_CLUSTER_BITS, 4, 64},
    {QCOW2_OFS_SIZE, 8, UINT64_MAX},
    {QCOW2_OFS_SIZE, 8, INT64_MAX},
    {QCOW2_OFS_SIZE, 8, (1ULL << 30) + 1},
    {QCOW2_OFS_CRYPT_METHOD, 4, 1},
    {QCOW2_OFS_CRYPT_METHOD, 4, 3},
    {QCOW2_OFS_L1_SIZE, 4, 1},
    {QCOW2_OFS_L1_SIZE, 4, QCOW2_MAX_L1_BYTES / 8 + 1},
    {QCOW2_OFS_L1_SIZE, 4, UINT32_MAX},
    {QCOW2_OFS_L1_OFFSET, 8, 0},
    {QCOW2_OFS_L1_OFFSET, 8, 512},
    {QCOW2_OFS_L1_OFFSET, 8, 1ULL << 56},
    {QCOW2_OFS_L1_OFFSET, 8, UINT64_MAX - CLUSTER + 1},
    {QCOW2_OFS_REFTABLE_OFFSET, 8, 0},
    {QCOW2_OFS_REFTABLE_OFFSET, 8, 7},
    {QCOW2_OFS_REFTABLE_CLUSTERS, 4, 0},
    {QCOW2_OFS_REFTABLE_CLUSTERS, 4, QCOW2_MAX_REFTABLE_BYTES / CLUSTER + 1},
    {QCOW2_OFS_REFTABLE_CLUSTERS, 4, UINT32_MAX},
    {QCOW2_OFS_NB_SNAPSHOTS, 4, QCOW2_MAX_SNAPSHOTS + 1},
    {QCOW2_OFS_NB_SNAPSHOTS, 4, 1},
    {QCOW2_OFS_INCOMPATIBLE, 8, QCOW2_INCOMPAT_COMPRESSION},
    {QCOW2_OFS_REFCOUNT_ORDER, 4, 7},
    {QCOW2_OFS_REFCOUNT_ORDER, 4, UINT32_MAX},
    {QCOW2_OFS_HEADER_LENGTH, 4, 0},
    {QCOW2_OFS_HEADER_LENGTH, 4, 103},
    {QCOW2_OFS_HEADER_LENGTH, 4, 113},
    {QCOW2_OFS_HEADER_LENGTH, 4, CLUSTER + 8},
    {QCOW2_OFS_HEADER_LENGTH, 4, UINT32_MAX & ~7u},
    {QCOW2_OFS_COMPRESSION_TYPE, 1, 1},
    {QCOW2_OFS_COMPRESSION_TYPE, 1, 2},
    /* The length of the first extension. */
    {QCOW2_V3_HEADER_BYTES + 4, 4, CLUSTER},
    {QCOW2_V3_HEADER_BYTES + 4, 4, UINT32_MAX},
};

static void test_hostile_headers(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(hostile); i++) {
        g_auto(Qcow2Header) h = {0}, back = {0};
        g_autofree uint8_t *cluster = g_malloc(CLUSTER);
        g_autoptr(GError) err = NULL;
        uint8_t field[8];

        sample(&h);
        g_assert_cmpint(qcow2_header_serialize(&h, cluster, &err), >, 0);
        stq_be_p(field, hostile[i].value);
        memcpy(cluster + hostile[i].offset, field + 8 - hostile[i].bytes, hostile[i].bytes);
        if (parse(cluster, &back, &err) || !err) {
            g_error("accepted: field at %d = %#" G_GINT64_MODIFIER "x", hostile[i].offset,
                    hostile[i].value);
        }
    }
}

static void test_unknown_features_are_named(void)
{
    g_auto(Qcow2Header) h = {0}, back = {0};
    g_autofree uint8_t *cluster = g_malloc(CLUSTER);
    g_autofree char *names = NULL;
    g_autoptr(GError) err = NULL;

    sample(&h);
    g_assert_cmpint(qcow2_header_serialize(&h, cluster, &err), >, 0);
    stq_be_p(cluster + QCOW2_OFS_INCOMPATIBLE, 1 << 9 | 1 << 10);
    /* The name of the first feature becomes that of bit 9. */
    cluster[QCOW2_V3_HEADER_BYTES + 8 + 1] = 9;
    memcpy(cluster + QCOW2_V3_HEADER_BYTES + 8 + 2, "time travel", 12);
    g_assert_true(qcow2_header_parse_fixed(cluster, QCOW2_V3_HEADER_BYTES, &back, &err));
    names = qcow2_header_unknown_features(cluster, &back);
    g_assert_cmpstr(names, ==, "time travel, Unknown incompatible feature: 400");
}

static void test_refcount_widths(void)
{
    for (unsigned order = 0; order <= 6; order++) {
        uint64_t max = order == 6 ? UINT64_MAX : (1ULL << (1u << order)) - 1;
        uint8_t block[512] = {0};
        uint64_t n = sizeof(block) * 8 >> order;

        for (uint64_t i = 0; i < n; i++) {
            qcow2_refcount_store(block, order, i, (i * 0x9e3779b97f4a7c15ULL >> 7) & max);
        }
        qcow2_refcount_store(block, order, n / 2, max);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t expected = i == n / 2 ? max : (i * 0x9e3779b97f4a7c15ULL >> 7) & max;
            g_assert_cmpuint(qcow2_refcount_load(block, order, i), ==, expected);
        }
    }
    /* Bit order within a byte, as the format has it: the first entry is in the low bits. */
    uint8_t byte = 0;
    qcow2_refcount_store(&byte, 0, 3, 1);
    g_assert_cmpuint(byte, ==, 1 << 3);
    byte = 0;
    qcow2_refcount_store(&byte, 2, 1, 9);
    g_assert_cmpuint(byte, ==, 0x90);
}

static void test_l2_entries(void)
{
    BDRVQcow2State s = {
        .cluster_bits = 16, .cluster_size = CLUSTER, .subclusters = 1, .compressed_shift = 54};
    uint64_t offset, bytes;

    s.header.version = 3;
    s.compressed_offset_mask = (1ULL << 54) - 1;
    g_assert_cmpint(qcow2_entry_kind(&s, 0, 0, 0), ==, QCOW2_UNALLOCATED);
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_ZERO, 0, 0), ==, QCOW2_ZERO);
    g_assert_cmpint(qcow2_entry_kind(&s, CLUSTER | QCOW2_OFLAG_ZERO, 0, 0), ==, QCOW2_ZERO);
    g_assert_cmpint(qcow2_entry_kind(&s, CLUSTER, 0, 0), ==, QCOW2_NORMAL);
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_COMPRESSED | 12345, 0, 0), ==,
                    QCOW2_COMPRESSED);
    s.header.version = 2;
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_ZERO, 0, 0), ==, QCOW2_INVALID);
    s.header.version = 3;
    s.header.incompatible_features = QCOW2_INCOMPAT_DATA_FILE;
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_COPIED, 0, 0), ==, QCOW2_NORMAL);
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_COMPRESSED, 0, 0), ==, QCOW2_INVALID);
    s.header.incompatible_features = 0;
    g_assert_cmpint(qcow2_entry_kind(&s, QCOW2_OFLAG_COPIED, 0, 0), ==, QCOW2_UNALLOCATED);

    /* 100 bytes into a sector, three more sectors. */
    qcow2_parse_compressed(&s, QCOW2_OFLAG_COMPRESSED | 3ULL << 54 | (512 * 7 + 100), &offset,
                           &bytes);
    g_assert_cmpuint(offset, ==, 512 * 7 + 100);
    g_assert_cmpuint(bytes, ==, 512 * 4 - 100);

    s.has_subclusters = true;
    s.subclusters = 32;
    uint64_t bitmap = 0x0000ff0000000f0fULL;
    g_assert_cmpint(qcow2_entry_kind(&s, CLUSTER, bitmap, 0), ==, QCOW2_NORMAL);
    g_assert_cmpuint(qcow2_entry_run(&s, CLUSTER, bitmap, 0, QCOW2_NORMAL), ==, 4);
    g_assert_cmpint(qcow2_entry_kind(&s, CLUSTER, bitmap, 4), ==, QCOW2_UNALLOCATED);
    g_assert_cmpuint(qcow2_entry_run(&s, CLUSTER, bitmap, 5, QCOW2_UNALLOCATED), ==, 3);
    bitmap = 0xffffffff00000000ULL;
    g_assert_cmpuint(qcow2_entry_run(&s, 0, bitmap, 7, QCOW2_ZERO), ==, 25);
    g_assert_cmpint(qcow2_entry_kind(&s, CLUSTER, 0x0000000100000001ULL, 0), ==, QCOW2_INVALID);
    g_assert_cmpint(qcow2_entry_kind(&s, 0, 1, 0), ==, QCOW2_INVALID);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/format/header-round-trip", test_header_round_trip);
    g_test_add_func("/qcow2/format/header-too-small-cluster", test_header_too_small_cluster);
    g_test_add_func("/qcow2/format/hostile-headers", test_hostile_headers);
    g_test_add_func("/qcow2/format/unknown-features-are-named", test_unknown_features_are_named);
    g_test_add_func("/qcow2/format/refcount-widths", test_refcount_widths);
    g_test_add_func("/qcow2/format/l2-entries", test_l2_entries);
    return g_test_run();
}
