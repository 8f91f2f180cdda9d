/* SPDX-License-Identifier: GPL-2.0-or-later */
/* qcow2 header: bytes to struct and back, with every field checked. */
#include "block/qcow2/header.h"

#include "util/error.h"

#define EXT_HEADER_BYTES    8
#define FEATURE_ENTRY_BYTES 48
#define FEATURE_NAME_BYTES  46
#define BITMAPS_EXT_BYTES   24
#define HOST_OFFSET_LIMIT   (1ULL << 56) /* tables must lie below this */

typedef struct FeatureName {
    uint8_t type; /* 0 incompatible, 1 compatible, 2 autoclear */
    uint8_t bit;
    const char *name;
} FeatureName;

static const FeatureName feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

void qcow2_header_clear(Qcow2Header *h)
{
    g_free(h->backing_file);
    g_free(h->backing_format);
    g_free(h->data_file_name);
    g_clear_pointer(&h->unknown_fields, g_bytes_unref);
    if (h->unknown_exts) {
        for (guint i = 0; i < h->unknown_exts->len; i++) {
            g_bytes_unref(g_array_index(h->unknown_exts, Qcow2UnknownExt, i).data);
        }
        g_array_free(h->unknown_exts, TRUE);
    }
    memset(h, 0, sizeof(*h));
}

/*
 * A table of `bytes` bytes at `offset`: aligned to clusters, below the limit, not over the header.
 */
static bool check_table(const Qcow2Header *h, uint64_t offset, uint64_t bytes, const char *name,
                        GError **errp)
{
    uint64_t mask = (1ULL << h->cluster_bits) - 1;

    if ((offset & mask) || offset >= HOST_OFFSET_LIMIT || bytes > HOST_OFFSET_LIMIT - offset) {
        error_setg(errp, "%s offset invalid", name);
        return false;
    }
    if (bytes && offset == 0) {
        error_setg(errp, "%s offset invalid: it lies on the image header", name);
        return false;
    }
    return true;
}

static void load_fields(const uint8_t *buf, Qcow2Header *h)
{
    h->version = ldul_be_p(buf + QCOW2_OFS_VERSION);
    h->cluster_bits = ldul_be_p(buf + QCOW2_OFS_CLUSTER_BITS);
    h->size = ldq_be_p(buf + QCOW2_OFS_SIZE);
    h->crypt_method = ldul_be_p(buf + QCOW2_OFS_CRYPT_METHOD);
    h->l1_size = ldul_be_p(buf + QCOW2_OFS_L1_SIZE);
    h->l1_table_offset = ldq_be_p(buf + QCOW2_OFS_L1_OFFSET);
    h->refcount_table_offset = ldq_be_p(buf + QCOW2_OFS_REFTABLE_OFFSET);
    h->refcount_table_clusters = ldul_be_p(buf + QCOW2_OFS_REFTABLE_CLUSTERS);
    h->nb_snapshots = ldul_be_p(buf + QCOW2_OFS_NB_SNAPSHOTS);
    h->snapshots_offset = ldq_be_p(buf + QCOW2_OFS_SNAPSHOTS_OFFSET);
    h->refcount_order = 4;
    h->header_length = QCOW2_V2_HEADER_BYTES;
}

static bool load_v3_fields(const uint8_t *buf, size_t len, Qcow2Header *h, GError **errp)
{
    if (len < QCOW2_V3_MIN_HEADER_BYTES) {
        error_setg(errp, "qcow2 header too short");
        return false;
    }
    h->incompatible_features = ldq_be_p(buf + QCOW2_OFS_INCOMPATIBLE);
    h->compatible_features = ldq_be_p(buf + QCOW2_OFS_COMPATIBLE);
    h->autoclear_features = ldq_be_p(buf + QCOW2_OFS_AUTOCLEAR);
    h->refcount_order = ldul_be_p(buf + QCOW2_OFS_REFCOUNT_ORDER);
    h->header_length = ldul_be_p(buf + QCOW2_OFS_HEADER_LENGTH);
    if (h->header_length < QCOW2_V3_MIN_HEADER_BYTES) {
        error_setg(errp, "qcow2 header too short");
        return false;
    }
    if (h->header_length > (1u << h->cluster_bits)) {
        error_setg(errp, "qcow2 header exceeds cluster size");
        return false;
    }
    if (h->header_length % 8) {
        error_setg(errp, "qcow2 header length %u is not a multiple of 8", h->header_length);
        return false;
    }
    if (h->header_length > QCOW2_OFS_COMPRESSION_TYPE) {
        if (len <= QCOW2_OFS_COMPRESSION_TYPE) {
            error_setg(errp, "qcow2 header too short");
            return false;
        }
        h->compression_type = buf[QCOW2_OFS_COMPRESSION_TYPE];
    }
    return true;
}

static bool check_features(const Qcow2Header *h, GError **errp)
{
    bool bit = h->incompatible_features & QCOW2_INCOMPAT_COMPRESSION;

    if (bit != (h->compression_type != QCOW2_COMPRESSION_ZLIB)) {
        error_setg(errp, "qcow2: %s",
                   bit ? "Compression type incompatible feature bit must not be set"
                       : "Compression type incompatible feature bit must be set");
        return false;
    }
    if (h->compression_type > QCOW2_COMPRESSION_ZSTD) {
        error_setg(errp, "qcow2: unknown compression type: %u", h->compression_type);
        return false;
    }
    if ((h->incompatible_features & QCOW2_INCOMPAT_EXTL2) &&
        h->cluster_bits < QCOW2_MIN_EXT_CLUSTER_BITS) {
        error_setg(errp,
                   "Extended L2 entries are only supported with cluster sizes of at least %u bytes",
                   1u << QCOW2_MIN_EXT_CLUSTER_BITS);
        return false;
    }
    if (h->refcount_order > QCOW2_MAX_REFCOUNT_ORDER) {
        error_setg(errp, "Reference count entry width too large; may not exceed 64 bits");
        return false;
    }
    return true;
}

/* L1 table entries needed for `size` bytes of disk. */
static uint64_t l1_entries_needed(const Qcow2Header *h, uint64_t size)
{
    bool ext = h->incompatible_features & QCOW2_INCOMPAT_EXTL2;
    unsigned shift = h->cluster_bits + (h->cluster_bits - (ext ? 4 : 3));

    return (size >> shift) + !!(size & ((1ULL << shift) - 1));
}

static bool check_tables(const Qcow2Header *h, GError **errp)
{
    uint64_t cluster_size = 1ULL << h->cluster_bits;
    uint64_t reftable_bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;

    if (h->size > INT64_MAX) {
        error_setg(errp, "Image is too large: %" G_GUINT64_FORMAT " bytes", h->size);
        return false;
    }
    if (reftable_bytes > QCOW2_MAX_REFTABLE_BYTES) {
        error_setg(
            errp,
            "Image does not contain a reference count table or it is too large (%" G_GUINT64_FORMAT
            " bytes)",
            reftable_bytes);
        return false;
    }
    if (reftable_bytes == 0 && !(h->incompatible_features & QCOW2_INCOMPAT_DIRTY)) {
        error_setg(errp, "Image does not contain a reference count table");
        return false;
    }
    if (!check_table(h, h->refcount_table_offset, reftable_bytes, "Reference count table", errp)) {
        return false;
    }
    if ((uint64_t)h->l1_size * 8 > QCOW2_MAX_L1_BYTES) {
        error_setg(errp, "Active L1 table too large");
        return false;
    }
    if (l1_entries_needed(h, h->size) > h->l1_size) {
        error_setg(errp, "L1 table is too small");
        return false;
    }
    if (!check_table(h, h->l1_table_offset, (uint64_t)h->l1_size * 8, "Active L1 table", errp)) {
        return false;
    }
    if (h->nb_snapshots > QCOW2_MAX_SNAPSHOTS) {
        error_setg(errp, "Snapshot table too large");
        return false;
    }
    if (h->nb_snapshots && !check_table(h, h->snapshots_offset, (uint64_t)h->nb_snapshots * 40,
                                        "Snapshot table", errp)) {
        return false;
    }
    if (h->nb_snapshots && (h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE)) {
        error_setg(errp, "Internal snapshots are not possible with an external data file");
        return false;
    }
    return cluster_size > 0;
}

static bool check_geometry(const Qcow2Header *h, GError **errp)
{
    if (h->version < 2 || h->version > 3) {
        error_setg(errp, "Unsupported qcow2 version %u", h->version);
        return false;
    }
    if (h->cluster_bits < QCOW2_MIN_CLUSTER_BITS || h->cluster_bits > QCOW2_MAX_CLUSTER_BITS) {
        error_setg(errp, "Unsupported cluster size: 2^%u", h->cluster_bits);
        return false;
    }
    return true;
}

bool qcow2_header_parse_fixed(const uint8_t *buf, size_t len, Qcow2Header *h, GError **errp)
{
    g_auto(Qcow2Header) t = {0};

    memset(h, 0, sizeof(*h));
    if (len < QCOW2_V2_HEADER_BYTES || ldul_be_p(buf) != QCOW2_MAGIC) {
        error_setg(errp, "Image is not in qcow2 format");
        return false;
    }
    load_fields(buf, &t);
    if (!check_geometry(&t, errp)) {
        return false;
    }
    if (t.version >= 3 && !load_v3_fields(buf, len, &t, errp)) {
        return false;
    }
    /* Unknown incompatible features are the caller's to report: their names are in an extension. */
    if (t.incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_KNOWN) {
        *h = t;
        memset(&t, 0, sizeof(t));
        return true;
    }
    if (!check_features(&t, errp) || !check_tables(&t, errp)) {
        return false;
    }
    if (t.crypt_method) {
        error_setg(errp, "%s-encrypted qcow2 images are not supported",
                   t.crypt_method == 1   ? "AES"
                   : t.crypt_method == 2 ? "LUKS"
                                         : "Unknown-method");
        return false;
    }
    *h = t;
    memset(&t, 0, sizeof(t));
    return true;
}

static char *dup_string(const uint8_t *data, uint32_t len, uint32_t max, const char *what,
                        GError **errp)
{
    if (len > max) {
        error_setg(errp, "%s too long: %u bytes (at most %u)", what, len, max);
        return NULL;
    }
    if (memchr(data, 0, len)) {
        error_setg(errp, "%s contains a NUL byte", what);
        return NULL;
    }
    return g_strndup((const char *)data, len);
}

static bool parse_bitmaps_ext(const uint8_t *data, uint32_t len, Qcow2Header *h, GError **errp)
{
    if (len != BITMAPS_EXT_BYTES) {
        error_setg(errp, "bitmaps_ext: Invalid extension length");
        return false;
    }
    /*
     * Without its feature bit the extension describes a state of the past: the program that wrote
     * the image last did not keep it up.
     */
    if (!(h->autoclear_features & QCOW2_AUTOCLEAR_BITMAPS)) {
        return true;
    }
    h->nb_bitmaps = ldul_be_p(data);
    h->bitmap_directory_size = ldq_be_p(data + 8);
    h->bitmap_directory_offset = ldq_be_p(data + 16);
    if (ldul_be_p(data + 4) != 0) {
        error_setg(errp, "bitmaps_ext: Reserved field is not zero");
        return false;
    }
    if (h->nb_bitmaps == 0 || h->nb_bitmaps > QCOW2_MAX_BITMAPS) {
        error_setg(errp, "bitmaps_ext: image has %u bitmaps, must be 1 to %u", h->nb_bitmaps,
                   QCOW2_MAX_BITMAPS);
        return false;
    }
    if (h->bitmap_directory_size > QCOW2_MAX_BITMAP_DIR_BYTES ||
        h->bitmap_directory_size < (uint64_t)h->nb_bitmaps * 24) {
        error_setg(errp,
                   "bitmaps_ext: bitmap directory size (%" G_GUINT64_FORMAT ") is out of range",
                   h->bitmap_directory_size);
        return false;
    }
    if (!check_table(h, h->bitmap_directory_offset, h->bitmap_directory_size,
                     "bitmaps_ext: bitmap directory", errp)) {
        return false;
    }
    h->has_bitmaps_ext = true;
    return true;
}

static bool replace_string(char **field, const uint8_t *data, uint32_t len, uint32_t max,
                           const char *what, GError **errp)
{
    char *str = dup_string(data, len, max, what, errp);

    if (!str) {
        return false;
    }
    g_free(*field);
    *field = str;
    return true;
}

static bool parse_one_ext(uint32_t type, const uint8_t *data, uint32_t len, Qcow2Header *h,
                          GError **errp)
{
    switch (type) {
    case QCOW2_EXT_BACKING_FORMAT:
        return replace_string(&h->backing_format, data, len, QCOW2_MAX_FORMAT_NAME,
                              "Backing file format name", errp);
    case QCOW2_EXT_DATA_FILE:
        return replace_string(&h->data_file_name, data, len, QCOW2_MAX_DATA_FILE_NAME,
                              "Data file name", errp);
    case QCOW2_EXT_FEATURE_TABLE:
        return true;
    case QCOW2_EXT_BITMAPS:
        return parse_bitmaps_ext(data, len, h, errp);
    case QCOW2_EXT_CRYPTO:
        error_setg(errp, "CRYPTO header extension only expected with LUKS encryption method");
        return false;
    default: {
        Qcow2UnknownExt ext = {.type = type, .data = g_bytes_new(data, len)};
        if (!h->unknown_exts) {
            h->unknown_exts = g_array_new(FALSE, FALSE, sizeof(Qcow2UnknownExt));
        }
        g_array_append_val(h->unknown_exts, ext);
        return true;
    }
    }
}

/*
 * Steps to the extension at *pos: false at the end of the area. *data is NULL when it does not fit
 * below `end`.
 */
static bool next_ext(const uint8_t *cluster, uint64_t *pos, uint64_t end, uint32_t *type,
                     uint32_t *len, const uint8_t **data)
{
    *data = NULL;
    if (*pos + EXT_HEADER_BYTES > end) {
        return false;
    }
    *type = ldul_be_p(cluster + *pos);
    *len = ldul_be_p(cluster + *pos + 4);
    if (*type == QCOW2_EXT_END) {
        return false;
    }
    if (*len > end - *pos - EXT_HEADER_BYTES) {
        return true;
    }
    *data = cluster + *pos + EXT_HEADER_BYTES;
    *pos += EXT_HEADER_BYTES + (((uint64_t)*len + 7) & ~7ULL);
    return true;
}

bool qcow2_header_parse_extensions(const uint8_t *cluster, Qcow2Header *h, GError **errp)
{
    uint64_t cluster_size = 1ULL << h->cluster_bits;
    uint64_t backing_offset = ldq_be_p(cluster + QCOW2_OFS_BACKING_OFFSET);
    uint32_t backing_size = ldul_be_p(cluster + QCOW2_OFS_BACKING_SIZE);
    uint64_t pos = h->header_length, end = cluster_size;
    uint32_t type, len;
    const uint8_t *data;

    if (backing_offset) {
        if (backing_offset > cluster_size || backing_size > cluster_size - backing_offset) {
            error_setg(errp, "Invalid backing file offset");
            return false;
        }
        if (backing_size > 0) {
            h->backing_file = dup_string(cluster + backing_offset, backing_size,
                                         QCOW2_MAX_BACKING_NAME, "Backing file name", errp);
            if (!h->backing_file) {
                return false;
            }
        }
        end = backing_offset;
    }
    if (h->header_length > QCOW2_V3_HEADER_BYTES) {
        h->unknown_fields =
            g_bytes_new(cluster + QCOW2_V3_HEADER_BYTES, h->header_length - QCOW2_V3_HEADER_BYTES);
    }
    while (next_ext(cluster, &pos, end, &type, &len, &data)) {
        if (!data) {
            error_setg(errp, "Header extension too large");
            return false;
        }
        if (!parse_one_ext(type, data, len, h, errp)) {
            return false;
        }
    }
    if (!(h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE)) {
        h->autoclear_features &= ~(uint64_t)QCOW2_AUTOCLEAR_DATA_FILE_RAW;
    }
    return true;
}

char *qcow2_header_unknown_features(const uint8_t *cluster, const Qcow2Header *h)
{
    uint64_t unknown = h->incompatible_features & ~(uint64_t)QCOW2_INCOMPAT_KNOWN;
    uint64_t pos = h->header_length, end = 1ULL << h->cluster_bits;
    GString *out = g_string_new(NULL);
    uint32_t type, len;
    const uint8_t *data;

    while (next_ext(cluster, &pos, end, &type, &len, &data) && data) {
        for (uint32_t i = 0; type == QCOW2_EXT_FEATURE_TABLE && i + FEATURE_ENTRY_BYTES <= len;
             i += FEATURE_ENTRY_BYTES) {
            unsigned bit = data[i + 1];
            if (data[i] == 0 && bit < 64 && (unknown & (1ULL << bit))) {
                g_autofree char *name = g_strndup((const char *)data + i + 2, FEATURE_NAME_BYTES);
                g_autofree char *safe = g_utf8_make_valid(name, -1);
                g_string_append_printf(out, "%s%s", out->len ? ", " : "", safe);
                unknown &= ~(1ULL << bit);
            }
        }
    }
    if (unknown) {
        g_string_append_printf(out, "%sUnknown incompatible feature: %" G_GINT64_MODIFIER "x",
                               out->len ? ", " : "", unknown);
    }
    return g_string_free(out, FALSE);
}

typedef struct Writer {
    uint8_t *buf;
    size_t pos, size;
    bool overflow;
} Writer;

static uint8_t *writer_take(Writer *w, size_t bytes)
{
    if (w->overflow || bytes > w->size - w->pos) {
        w->overflow = true;
        return NULL;
    }
    w->pos += bytes;
    return w->buf + w->pos - bytes;
}

static uint8_t *writer_ext(Writer *w, uint32_t type, const void *data, size_t len)
{
    uint8_t *p = writer_take(w, EXT_HEADER_BYTES + ((len + 7) & ~(size_t)7));

    if (!p) {
        return NULL;
    }
    stl_be_p(p, type);
    stl_be_p(p + 4, len);
    if (data) {
        memcpy(p + EXT_HEADER_BYTES, data, len);
    }
    return p + EXT_HEADER_BYTES;
}

static void write_string_ext(Writer *w, uint32_t type, const char *str)
{
    if (str) {
        writer_ext(w, type, str, strlen(str));
    }
}

static void write_feature_table(Writer *w)
{
    uint8_t *p = writer_ext(w, QCOW2_EXT_FEATURE_TABLE, NULL,
                            G_N_ELEMENTS(feature_names) * FEATURE_ENTRY_BYTES);

    for (size_t i = 0; p && i < G_N_ELEMENTS(feature_names); i++, p += FEATURE_ENTRY_BYTES) {
        p[0] = feature_names[i].type;
        p[1] = feature_names[i].bit;
        memcpy(p + 2, feature_names[i].name, strlen(feature_names[i].name));
    }
}

static void write_bitmaps_ext(Writer *w, const Qcow2Header *h)
{
    uint8_t *p;

    if (!h->has_bitmaps_ext) {
        return;
    }
    p = writer_ext(w, QCOW2_EXT_BITMAPS, NULL, BITMAPS_EXT_BYTES);
    if (p) {
        stl_be_p(p, h->nb_bitmaps);
        stq_be_p(p + 8, h->bitmap_directory_size);
        stq_be_p(p + 16, h->bitmap_directory_offset);
    }
}

static void store_fields(const Qcow2Header *h, uint8_t *buf, uint32_t header_length)
{
    stl_be_p(buf + QCOW2_OFS_MAGIC, QCOW2_MAGIC);
    stl_be_p(buf + QCOW2_OFS_VERSION, h->version);
    stl_be_p(buf + QCOW2_OFS_CLUSTER_BITS, h->cluster_bits);
    stq_be_p(buf + QCOW2_OFS_SIZE, h->size);
    stl_be_p(buf + QCOW2_OFS_CRYPT_METHOD, h->crypt_method);
    stl_be_p(buf + QCOW2_OFS_L1_SIZE, h->l1_size);
    stq_be_p(buf + QCOW2_OFS_L1_OFFSET, h->l1_table_offset);
    stq_be_p(buf + QCOW2_OFS_REFTABLE_OFFSET, h->refcount_table_offset);
    stl_be_p(buf + QCOW2_OFS_REFTABLE_CLUSTERS, h->refcount_table_clusters);
    stl_be_p(buf + QCOW2_OFS_NB_SNAPSHOTS, h->nb_snapshots);
    stq_be_p(buf + QCOW2_OFS_SNAPSHOTS_OFFSET, h->snapshots_offset);
    if (h->version < 3) {
        return;
    }
    stq_be_p(buf + QCOW2_OFS_INCOMPATIBLE, h->incompatible_features);
    stq_be_p(buf + QCOW2_OFS_COMPATIBLE, h->compatible_features);
    stq_be_p(buf + QCOW2_OFS_AUTOCLEAR, h->autoclear_features);
    stl_be_p(buf + QCOW2_OFS_REFCOUNT_ORDER, h->refcount_order);
    stl_be_p(buf + QCOW2_OFS_HEADER_LENGTH, header_length);
    buf[QCOW2_OFS_COMPRESSION_TYPE] = h->compression_type;
}

/* Bytes used, or -1 when the cluster is too small. */
static int serialize(const Qcow2Header *h, uint8_t *buf, bool feature_table)
{
    size_t cluster_size = (size_t)1 << h->cluster_bits;
    size_t unknown_len = h->unknown_fields ? g_bytes_get_size(h->unknown_fields) : 0;
    uint32_t header_length =
        h->version < 3 ? QCOW2_V2_HEADER_BYTES : QCOW2_V3_HEADER_BYTES + unknown_len;
    Writer w = {.buf = buf, .pos = header_length, .size = cluster_size};

    memset(buf, 0, cluster_size);
    store_fields(h, buf, header_length);
    if (h->version >= 3 && unknown_len) {
        memcpy(buf + QCOW2_V3_HEADER_BYTES, g_bytes_get_data(h->unknown_fields, NULL), unknown_len);
    }
    write_string_ext(&w, QCOW2_EXT_BACKING_FORMAT, h->backing_format);
    write_string_ext(&w, QCOW2_EXT_DATA_FILE, h->data_file_name);
    if (h->version >= 3 && feature_table) {
        write_feature_table(&w);
    }
    write_bitmaps_ext(&w, h);
    for (guint i = 0; h->unknown_exts && i < h->unknown_exts->len; i++) {
        const Qcow2UnknownExt *ext = &g_array_index(h->unknown_exts, Qcow2UnknownExt, i);
        gsize len;
        const void *data = g_bytes_get_data(ext->data, &len);
        writer_ext(&w, ext->type, data, len);
    }
    writer_ext(&w, QCOW2_EXT_END, NULL, 0);
    if (h->backing_file) {
        size_t len = strlen(h->backing_file);
        uint8_t *p = writer_take(&w, len);
        if (p) {
            memcpy(p, h->backing_file, len);
            stq_be_p(buf + QCOW2_OFS_BACKING_OFFSET, p - buf);
            stl_be_p(buf + QCOW2_OFS_BACKING_SIZE, len);
        }
    }
    return w.overflow ? -1 : (int)w.pos;
}

int qcow2_header_serialize(const Qcow2Header *h, uint8_t *buf, GError **errp)
{
    int used = serialize(h, buf, true);

    if (used < 0) {
        used = serialize(h, buf, false); /* the names of features are a courtesy */
    }
    if (used < 0) {
        error_setg(errp, "The image header does not fit its cluster of %u bytes",
                   1u << h->cluster_bits);
    }
    return used;
}
