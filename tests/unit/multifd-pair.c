/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Both sides of multifd in one process. */
#include "tests/unit/multifd-pair.h"

#include <json-c/json.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-socket.h"
#include "migration/savevm.h"
#include "util/aio.h"

static MultiFDPair *connecting; /* whose source makes its channels */

static void set_params(const MultiFDPairOptions *options)
{
    json_object *json = json_object_new_object();
    g_autoptr(MigrationParameters) params = NULL;
    GError *err = NULL;

    json_object_object_add(json, "multifd-channels", json_object_new_int(options->channels));
    json_object_object_add(json, "multifd-compression",
                           json_object_new_string(options->compression));
    params = MigrationParameters_from_json(json, QAPI_DECODE_JSON, &err);
    json_object_put(json);
    g_assert_no_error(err);
    g_assert_true(migration_settings_change_params(params, &err));
}

static QIOChannel *connect_source(MigrationState *s, GError **errp)
{
    MultiFDPair *pair = connecting;
    int *fd = &pair->raw_fd[pair->connected++];
    QIOChannel *ioc = QIO_CHANNEL(qio_channel_socket_new_fd(*fd, errp));

    *fd = -1;
    return ioc;
}

void multifd_pair_init(void)
{
    static const MigrationIdentity identity = {.machine = "none"};

    g_assert_true(qemu_init_main_loop(NULL));
    migration_set_identity(&identity);
    multifd_send_set_connect(connect_source);
}

/* --- memory --- */

/* A block that no list has: its name is taken by its counterpart. */
static RAMBlock *make_source_block(const char *name, uint64_t bytes)
{
    RAMBlock *block = g_new0(RAMBlock, 1);

    block->refs = 1;
    block->used_length = block->max_length = bytes;
    block->page_size = 4096;
    block->host = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert_true(block->host != MAP_FAILED);
    g_strlcpy(block->idstr, name, sizeof(block->idstr));
    return block;
}

static RAMBlock *make_block(const char *name, uint64_t bytes)
{
    const RAMBlockOptions options = {.what = name, .size = bytes, .fd = -1, .no_hugepages = true};
    RAMBlock *block = ram_block_new(&options, NULL);

    g_assert_nonnull(block);
    g_assert_true(ram_block_set_idstr(block, name, NULL));
    ram_block_set_migratable(block, true);
    return block;
}

static void make_memory(MultiFDPair *pair)
{
    for (unsigned i = 0; i < 2; i++) {
        const char *name = i ? "dst1" : "dst0";

        pair->src[i] = make_source_block(name, pair->bytes);
        pair->dst[i] = make_block(name, pair->bytes);
        pair->sb[i].block = pair->src[i];
        pair->sb[i].pages = pair->bytes / 4096;
        pair->claimed[i] = g_malloc0(pair->bytes / 4096);
    }
    pair->recv = ram_recv_new(pair->mis.settings, NULL);
    g_assert_nonnull(pair->recv);
}

static void free_memory(MultiFDPair *pair)
{
    ram_recv_free(pair->recv);
    for (unsigned i = 0; i < 2; i++) {
        /* batches and packets have given theirs back */
        g_assert_cmpint(pair->src[i]->refs, ==, 1);
        munmap(pair->src[i]->host, pair->bytes);
        g_free(pair->src[i]);
        ram_block_free(pair->dst[i]);
        g_free(pair->claimed[i]);
    }
}

/* --- channels --- */

/* What incoming.c does with a channel that has said what it is. */
static bool offer(MultiFDPair *pair, unsigned channel, GError **errp)
{
    uint8_t hello[MULTIFD_HANDSHAKE_BYTES];
    QIOChannel *ioc = pair->dst_ioc[channel];
    int ret;

    g_assert_true(qio_channel_set_blocking(ioc, true, NULL));
    ret = qio_channel_read_all(ioc, hello, sizeof(hello), NULL);
    g_assert_cmpint(ret, ==, 0);
    if (!memcmp(hello, "QEVM", 4)) {
        g_assert_null(pair->mis.from_src);
        pair->mis.from_src = qemu_file_new_input_behind(ioc, hello, sizeof(hello));
        return true;
    }
    return multifd_recv_take_channel(&pair->mis, ioc, hello, errp);
}

bool multifd_pair_offer(MultiFDPair *pair, const uint8_t handshake[MULTIFD_HANDSHAKE_BYTES],
                        GError **errp)
{
    unsigned channel = pair->connected++;

    g_assert_cmpint(write(pair->raw_fd[channel], handshake, MULTIFD_HANDSHAKE_BYTES), ==,
                    MULTIFD_HANDSHAKE_BYTES);
    return offer(pair, channel, errp);
}

static void connect_raw(MultiFDPair *pair, bool only_first)
{
    for (unsigned i = 0; i < (only_first ? 1 : pair->channels); i++) {
        const MultiFDHandshake hs = {.channel = i};
        uint8_t buf[MULTIFD_HANDSHAKE_BYTES];

        multifd_handshake_encode(&hs, buf);
        g_assert_true(multifd_pair_offer(pair, buf, NULL));
    }
    g_assert_true(multifd_recv_all_channels_created(&pair->mis) == !only_first);
}

static void connect_both(MultiFDPair *pair, bool nobody_reads)
{
    GError *err = NULL;

    connecting = pair;
    g_assert_true(multifd_send_setup(&pair->s, &err));
    for (unsigned i = 0; !nobody_reads && i < pair->channels; i++) {
        g_assert_false(multifd_recv_all_channels_created(&pair->mis));
        g_assert_true(offer(pair, i, &err));
    }
}

MultiFDPair *multifd_pair_new(const MultiFDPairOptions *options)
{
    MultiFDPair *pair = g_new0(MultiFDPair, 1);

    pair->channels = options->channels;
    pair->bytes = options->bytes;
    set_params(options);
    g_mutex_init(&pair->s.lock);
    g_cond_init(&pair->s.changed);
    g_mutex_init(&pair->mis.lock);
    pair->s.settings = migration_settings_get();
    pair->mis.settings = migration_settings_get();
    for (unsigned i = 0; i < options->channels; i++) {
        int fds[2];

        g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==, 0);
        pair->raw_fd[i] = fds[0];
        pair->dst_ioc[i] = QIO_CHANNEL(qio_channel_socket_new_fd(fds[1], NULL));
    }
    make_memory(pair);
    if (!options->no_main) {
        g_autoptr(GBytes) nothing = g_bytes_new_static("", 0);

        pair->mis.from_src = qemu_file_new_memory_input(nothing);
    }
    pair->mis.multifd = multifd_recv_new(&pair->mis);
    if (options->raw_source) {
        connect_raw(pair, options->only_first);
    } else {
        connect_both(pair, options->nobody_reads);
    }
    if (!options->no_list) {
        multifd_recv_set_ram(&pair->mis, pair->recv);
    }
    return pair;
}

void multifd_pair_free(MultiFDPair *pair)
{
    if (pair->s.multifd) {
        multifd_send_cleanup(&pair->s);
    }
    if (pair->mis.multifd) {
        multifd_recv_set_ram(&pair->mis, NULL);
        multifd_recv_free(&pair->mis);
    }
    while (aio_poll(qemu_get_aio_context(), false)) { /* threads that have ended tell */
    }
    g_assert_null(pair->mis.multifd);
    for (unsigned i = 0; i < pair->channels; i++) {
        if (pair->raw_fd[i] >= 0) {
            close(pair->raw_fd[i]);
        }
        qio_channel_unref(pair->dst_ioc[i]);
    }
    if (pair->mis.from_src) {
        (void)qemu_fclose(pair->mis.from_src);
    }
    free_memory(pair);
    migration_settings_unref(pair->s.settings);
    migration_settings_unref(pair->mis.settings);
    migration_settings_reset();
    g_clear_error(&pair->s.error);
    g_clear_error(&pair->mis.error);
    g_mutex_clear(&pair->s.lock);
    g_cond_clear(&pair->s.changed);
    g_mutex_clear(&pair->mis.lock);
    g_free(pair);
}

/* --- rounds --- */

bool multifd_pair_claim(MultiFDPair *pair, unsigned which, uint64_t first, uint64_t n)
{
    if (memchr(pair->claimed[which] + first, 1, n)) {
        return false;
    }
    memset(pair->claimed[which] + first, 1, n);
    return true;
}

void multifd_pair_barrier(MultiFDPair *pair)
{
    GError *err = NULL;
    int ret = multifd_send_sync(&pair->s);

    g_assert_no_error(pair->s.error);
    g_assert_cmpint(ret, ==, 0);
    ret = multifd_recv_sync(&pair->mis, &err);
    g_assert_no_error(err);
    g_assert_cmpint(ret, ==, 0);
    memset(pair->claimed[0], 0, pair->bytes / 4096);
    memset(pair->claimed[1], 0, pair->bytes / 4096);
}

void multifd_pair_compare(MultiFDPair *pair)
{
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(memcmp(pair->src[i]->host, pair->dst[i]->host, pair->bytes), ==, 0);
    }
}

void multifd_pair_expect_recv_error(MultiFDPair *pair, const char *pattern)
{
    g_autoptr(GError) err = NULL;

    g_assert_cmpint(multifd_recv_sync(&pair->mis, &err), <, 0);
    g_assert_nonnull(err);
    g_test_message("%s", err->message);
    g_assert_true(g_pattern_match_simple(pattern, err->message));
}
