/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first cluster of a qcow2 image: fixed fields, header extensions, backing file name. Pure
 * functions between bytes and a host-endian struct; no I/O. Format: "qcow2" in the interoperability
 * documents published with QEMU.
 */
#ifndef FERRY_BLOCK_QCOW2_HEADER_H
#define FERRY_BLOCK_QCOW2_HEADER_H

#include <endian.h>
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "util/bswap.h"

#define QCOW2_MAGIC 0x514649fbU /* "QFI" 0xfb */

/* Limits of what is accepted, each the largest that stock tools write or read. */
#define QCOW2_MIN_CLUSTER_BITS     9
#define QCOW2_MAX_CLUSTER_BITS     21
#define QCOW2_MIN_EXT_CLUSTER_BITS 14 /* with extended L2 entries */
#define QCOW2_MAX_L1_BYTES         (32u << 20)
#define QCOW2_MAX_REFTABLE_BYTES   (8u << 20)
#define QCOW2_MAX_SNAPSHOTS        65536u
#define QCOW2_MAX_BITMAPS          65535u
#define QCOW2_MAX_BACKING_NAME     1023u
#define QCOW2_MAX_FORMAT_NAME      15u
#define QCOW2_MAX_DATA_FILE_NAME   1023u
#define QCOW2_MAX_REFCOUNT_ORDER   6
#define QCOW2_MAX_BITMAP_DIR_BYTES (QCOW2_MAX_BITMAPS * (24u + 1024u))

/* Byte positions of the fixed fields. */
enum {
    QCOW2_OFS_MAGIC = 0,
    QCOW2_OFS_VERSION = 4,
    QCOW2_OFS_BACKING_OFFSET = 8,
    QCOW2_OFS_BACKING_SIZE = 16,
    QCOW2_OFS_CLUSTER_BITS = 20,
    QCOW2_OFS_SIZE = 24,
    QCOW2_OFS_CRYPT_METHOD = 32,
    QCOW2_OFS_L1_SIZE = 36,
    QCOW2_OFS_L1_OFFSET = 40,
    QCOW2_OFS_REFTABLE_OFFSET = 48,
    QCOW2_OFS_REFTABLE_CLUSTERS = 56,
    QCOW2_OFS_NB_SNAPSHOTS = 60,
    QCOW2_OFS_SNAPSHOTS_OFFSET = 64,
    QCOW2_V2_HEADER_BYTES = 72,
    QCOW2_OFS_INCOMPATIBLE = 72,
    QCOW2_OFS_COMPATIBLE = 80,
    QCOW2_OFS_AUTOCLEAR = 88,
    QCOW2_OFS_REFCOUNT_ORDER = 96,
    QCOW2_OFS_HEADER_LENGTH = 100,
    QCOW2_V3_MIN_HEADER_BYTES = 104,
    QCOW2_OFS_COMPRESSION_TYPE = 104,
    QCOW2_V3_HEADER_BYTES = 112, /* what is written: the fields above and padding */
};

enum {
    QCOW2_INCOMPAT_DIRTY = 1u << 0,
    QCOW2_INCOMPAT_CORRUPT = 1u << 1,
    QCOW2_INCOMPAT_DATA_FILE = 1u << 2,
    QCOW2_INCOMPAT_COMPRESSION = 1u << 3,
    QCOW2_INCOMPAT_EXTL2 = 1u << 4,
    QCOW2_INCOMPAT_KNOWN = (1u << 5) - 1,

    QCOW2_COMPAT_LAZY_REFCOUNTS = 1u << 0,

    QCOW2_AUTOCLEAR_BITMAPS = 1u << 0,
    QCOW2_AUTOCLEAR_DATA_FILE_RAW = 1u << 1,
    QCOW2_AUTOCLEAR_KNOWN = (1u << 2) - 1,
};

enum {
    QCOW2_EXT_END = 0,
    QCOW2_EXT_BACKING_FORMAT = 0xe2792acaU,
    QCOW2_EXT_FEATURE_TABLE = 0x6803f857U,
    QCOW2_EXT_BITMAPS = 0x23852875U,
    QCOW2_EXT_CRYPTO = 0x0537be77U,
    QCOW2_EXT_DATA_FILE = 0x44415441U,
};

enum { QCOW2_COMPRESSION_ZLIB = 0, QCOW2_COMPRESSION_ZSTD = 1 };

/* An extension this code does not know, kept as it is. */
typedef struct Qcow2UnknownExt {
    uint32_t type;
    GBytes *data;
} Qcow2UnknownExt;

typedef struct Qcow2Header {
    uint32_t version; /* 2 or 3 */
    uint32_t cluster_bits;
    uint64_t size; /* virtual disk, bytes */
    uint32_t crypt_method;
    uint32_t l1_size; /* entries */
    uint64_t l1_table_offset;
    uint64_t refcount_table_offset;
    uint32_t refcount_table_clusters;
    uint32_t nb_snapshots;
    uint64_t snapshots_offset;
    uint64_t incompatible_features, compatible_features, autoclear_features;
    uint32_t refcount_order;
    uint32_t header_length;
    uint8_t compression_type;
    GBytes *unknown_fields; /* header bytes from 112 on; NULL without */

    char *backing_file;   /* NULL: no backing file; "" never */
    char *backing_format; /* NULL: not recorded */
    char *data_file_name; /* NULL: not recorded */
    bool has_bitmaps_ext;
    uint32_t nb_bitmaps;
    uint64_t bitmap_directory_size, bitmap_directory_offset;
    GArray *unknown_exts; /* of Qcow2UnknownExt */
} Qcow2Header;

/*
 * Reads the fixed fields alone from the first `len` bytes of the image (at least
 * QCOW2_V2_HEADER_BYTES) and checks each against the limits above and against the others. On
 * failure *h is empty.
 */
bool qcow2_header_parse_fixed(const uint8_t *buf, size_t len, Qcow2Header *h,
                              GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Then extensions and the backing file name, from the whole first cluster. On failure *h is to be
 * cleared.
 */
bool qcow2_header_parse_extensions(const uint8_t *cluster, Qcow2Header *h,
                                   GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Writes the header with everything that belongs to it to buf (cluster_size bytes, zeroed first).
 * Returns the bytes used; -1 with errp when it does not fit the cluster.
 */
int qcow2_header_serialize(const Qcow2Header *h, uint8_t *buf,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * "dirty bit, feature 7": the names of incompatible features this code does not know. The caller
 * frees.
 */
char *qcow2_header_unknown_features(const uint8_t *cluster, const Qcow2Header *h);
/* Frees what it owns and zeroes it. */
void qcow2_header_clear(Qcow2Header *h);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Qcow2Header, qcow2_header_clear)

#endif
