/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * multifd: both sides in one process over socket pairs. The main channel is played by the test: what
 * it would say at a barrier is that the other side waits for it as well.
 */
#include <errno.h>
#include <malloc.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "io/channel-socket.h"
#include "migration/multifd-codec.h"
#include "migration/multifd-packet.h"
#include "tests/unit/multifd-pair.h"
#include "util/bswap.h"
#include "util/error.h"

#define SEED 20261121
#define MIB  (1024 * 1024ull)

/* --- the wire format --- */

static void test_handshake(void)
{
    const MultiFDHandshake hs = {.uuid = {1, 2, 3, [15] = 9}, .channel = 7};
    MultiFDHandshake back;
    uint8_t buf[MULTIFD_HANDSHAKE_BYTES];

    multifd_handshake_encode(&hs, buf);
    g_assert_cmpmem(buf, 12, "\x11\x22\x33\x44\0\0\0\1\1\2\3\0", 12);
    g_assert_cmpuint(buf[23], ==, 9);
    g_assert_cmpuint(buf[24], ==, 7);
    for (unsigned i = 25; i < sizeof(buf); i++) {
        g_assert_cmpuint(buf[i], ==, 0);
    }
    g_assert_true(multifd_handshake_decode(buf, &back, NULL));
    g_assert_cmpmem(&back, sizeof(back), &hs, sizeof(hs));
    buf[0] ^= 1;
    g_assert_false(multifd_handshake_decode(buf, &back, NULL));
    buf[0] ^= 1;
    buf[7] = 2;
    g_assert_false(multifd_handshake_decode(buf, &back, NULL));
}

/* The bytes of a packet of QEMU 10.0: 47 normal and 81 zero pages of pc.ram. */
static void test_packet_bytes(void)
{
    MultiFDPacket packet = {
        .normal = 47, .zero = 81, .payload = 47 * 4096, .number = 2, .block = "pc.ram"};
    MultiFDPacket back;
    uint8_t buf[MULTIFD_HEADER_BYTES];

    for (unsigned i = 0; i < 128; i++) {
        packet.offsets[i] = 0x80000 + i * 0x1000;
    }
    multifd_packet_encode(&packet, buf);
    g_assert_cmpmem(buf, 36,
                    "\x11\x22\x33\x44\0\0\0\1\0\0\0\0\0\0\0\x80\0\0\0\x2f\0\x02\xf0\0"
                    "\0\0\0\0\0\0\0\2\0\0\0\x51",
                    36);
    for (unsigned i = 36; i < 64; i++) {
        g_assert_cmpuint(buf[i], ==, 0);
    }
    g_assert_cmpmem(buf + 64, 8, "pc.ram\0\0", 8);
    g_assert_cmphex(ldq_be_p(buf + 0x140), ==, 0x80000);
    g_assert_cmphex(ldq_be_p(buf + 0x2b8), ==, 0xaf000);
    g_assert_cmphex(ldq_be_p(buf + 0x2b8 + 8), ==, 0xb0000 - 0x1000 + 0x1000);
    g_assert_true(multifd_packet_decode(buf, &back, NULL));
    g_assert_cmpmem(&back, sizeof(back), &packet, sizeof(packet));
}

static void test_sync_packet_bytes(void)
{
    const MultiFDPacket packet = {.flags = MULTIFD_FLAG_SYNC, .number = 5};
    uint8_t buf[MULTIFD_HEADER_BYTES], want[MULTIFD_HEADER_BYTES] = {0x11, 0x22, 0x33, 0x44};

    want[7] = want[11] = 1;
    want[31] = 5;
    multifd_packet_encode(&packet, buf);
    g_assert_cmpmem(buf, sizeof(buf), want, sizeof(want));
}

/* Headers that are wrong by themselves, and such that look so. */
static void test_packet_checks(void)
{
    static const struct {
        unsigned at;
        uint32_t value;
        bool ok;
    } cases[] = {
        {0, 0x11223345, false},  {4, 2, false},
        {8, 0x40, false},       /* state of a device */
        {8, 0x80000000, false}, /* no such flag */
        {8, 0x3f, true},        /* whether that method is in use is looked at later */
        {12, 129, false},        {12, 1, false}, /* less room than there are pages */
        {12, 0xffffffff, false}, {12, 2, true},
        {16, 128, false}, /* and a zero page */
        {16, 129, false},        {16, 0xffffffff, false},
        {16, 0, true},           {20, MULTIFD_PAYLOAD_MAX + 1, false},
        {20, 0xffffffff, false}, {20, MULTIFD_PAYLOAD_MAX, true},
        {32, 128, false},        {32, 0xffffffff, false},
    };
    MultiFDPacket packet = {.normal = 1, .zero = 1, .payload = 4096, .block = "ram"};
    uint8_t good[MULTIFD_HEADER_BYTES], buf[MULTIFD_HEADER_BYTES];

    multifd_packet_encode(&packet, good);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *err = NULL;

        memcpy(buf, good, sizeof(buf));
        stl_be_p(buf + cases[i].at, cases[i].value);
        g_assert_true(multifd_packet_decode(buf, &packet, &err) == cases[i].ok);
        g_assert_true((err == NULL) == cases[i].ok);
        g_clear_error(&err);
    }
    memcpy(buf, good, sizeof(buf));
    memset(buf + 64, 'x', 256);
    g_assert_false(multifd_packet_decode(buf, &packet, NULL));
}

/* What QEMU 7.2 leaves in packets without pages is no length and no name. */
static void test_leftovers_are_ignored(void)
{
    MultiFDPacket packet = {.flags = MULTIFD_FLAG_SYNC};
    uint8_t buf[MULTIFD_HEADER_BYTES];

    multifd_packet_encode(&packet, buf);
    stl_be_p(buf + 12, 128);
    stl_be_p(buf + 20, 0xfffffff0);
    memset(buf + 64, 'x', MULTIFD_HEADER_BYTES - 64);
    g_assert_true(multifd_packet_decode(buf, &packet, NULL));
    g_assert_cmpuint(packet.payload, ==, 0);
    g_assert_cmpstr(packet.block, ==, "");
}

/* --- both sides --- */

static void fill(uint8_t *p, size_t n, GRand *rand)
{
    for (size_t i = 0; i < n; i += 4) {
        /* compressible, but not trivially */
        stl_le_p(p + i, i % 64 ? g_rand_int(rand) & 0x0f0f0f0f : g_rand_int(rand));
    }
}

typedef struct RoundsCase {
    const char *compression;
    unsigned channels;
    bool detect_zero;
} RoundsCase;

/* Rounds of random runs with barriers in between; pages change between rounds, some to zero. */
static void test_rounds(gconstpointer opaque)
{
    const RoundsCase *c = opaque;
    g_autoptr(GRand) rand = g_rand_new_with_seed(SEED);
    MultiFDPair *pair =
        multifd_pair_new(&(MultiFDPairOptions){c->compression, c->channels, 4 * MIB});
    uint64_t pages = 4 * MIB / 4096, sent = 0;

    g_test_message("seed %u", SEED);
    for (unsigned round = 0; round < 12; round++) {
        for (unsigned i = 0; i < 150; i++) {
            unsigned which = g_rand_int_range(rand, 0, 2);
            RAMRun run = {.sb = &pair->sb[which]};

            run.n = g_rand_int_range(rand, 1, i % 10 ? 20 : 300);
            run.first = g_rand_int_range(rand, 0, pages - run.n);
            /* once a round at most: two channels may have it otherwise */
            if (!multifd_pair_claim(pair, which, run.first, run.n)) {
                continue;
            }
            for (uint64_t page = run.first; page < run.first + run.n; page++) {
                uint8_t *p = pair->src[which]->host + page * 4096;

                if (g_rand_boolean(rand)) {
                    fill(p, 4096, rand);
                } else {
                    memset(p, 0, 4096);
                }
            }
            sent += run.n;
            g_assert_cmpint(multifd_send_run(&pair->s, &run, c->detect_zero), ==, 0);
        }
        multifd_pair_barrier(pair);
        multifd_pair_compare(pair);
    }
    g_assert_cmpuint(pair->s.counters.normal_pages + pair->s.counters.zero_pages, ==, sent);
    g_assert_true((pair->s.counters.zero_pages > 0) == c->detect_zero);
    g_assert_cmpuint(pair->s.counters.multifd_bytes, >, 0);
    multifd_pair_free(pair);
}

/* Pages known to be zero are sent as such and stay unallocated at the destination. */
static void test_untouched(void)
{
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){"none", 2, 4 * MIB});
    RAMRun run = {.sb = &pair->sb[0], .first = 0, .n = 1024, .untouched = true};
    unsigned char resident[1024];

    /* a look would tell otherwise */
    memset(pair->src[0]->host, 0xaa, 4096);
    g_assert_cmpint(multifd_send_run(&pair->s, &run, true), ==, 0);
    multifd_pair_barrier(pair);
    g_assert_cmpuint(pair->s.counters.zero_pages, ==, 1024);
    g_assert_cmpuint(pair->s.counters.multifd_bytes, ==, 2 * 64 + (2 + 8) * 1344);
    g_assert_cmpint(mincore(pair->dst[0]->host, 4 * MIB, resident), ==, 0);
    for (unsigned i = 0; i < 1024; i++) {
        g_assert_false(resident[i] & 1);
    }
    multifd_pair_free(pair);
}

/* What was handed over without a barrier after it is sent before the channels end. */
static void test_end_without_barrier(void)
{
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){"none", 1, 4 * MIB});
    RAMRun run = {.sb = &pair->sb[1], .first = 5, .n = 700};

    memset(pair->src[1]->host + 5 * 4096, 0x5a, 700 * 4096);
    g_assert_cmpint(multifd_send_run(&pair->s, &run, false), ==, 0);
    multifd_send_cleanup(&pair->s);
    g_assert_null(pair->s.multifd);
    g_assert_cmpuint(pair->s.counters.normal_pages, ==, 700);
    /* the channel ends, all of it having been read, without the barrier that the main channel has */
    multifd_pair_expect_recv_error(pair, "*closed it too early*");
    multifd_pair_compare(pair);
    multifd_pair_free(pair);
}

/* A destination that goes away fails the migration, and each thread that waits is told. */
static void test_peer_dies(void)
{
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){"none", 2, 4 * MIB});
    RAMRun run = {.sb = &pair->sb[0], .first = 0, .n = 1024};
    int ret = 0;

    memset(pair->src[0]->host, 0x5a, 4 * MIB);
    multifd_recv_shutdown(&pair->mis);
    for (unsigned i = 0; ret == 0 && i < 1000; i++) {
        ret = multifd_send_run(&pair->s, &run, false);
    }
    g_assert_cmpint(ret, <, 0);
    g_assert_cmpint(multifd_send_sync(&pair->s), <, 0);
    g_assert_true(g_str_has_prefix(pair->s.error->message, "multifd channel "));
    multifd_pair_free(pair);
}

/* No destination reads: the source's thread waits for room, until it is cancelled. */
static void *shut_down_later(void *opaque)
{
    MultiFDPair *pair = opaque;

    while (stat64_get(&pair->s.counters.multifd_bytes) < 2 * MULTIFD_HANDSHAKE_BYTES) {
        g_thread_yield();
    }
    g_mutex_lock(&pair->s.lock);
    pair->s.cancel_wanted = true;
    multifd_send_shutdown(&pair->s);
    g_mutex_unlock(&pair->s.lock);
    return NULL;
}

static void test_cancel_while_peer_is_stuck(void)
{
    MultiFDPair *pair =
        multifd_pair_new(&(MultiFDPairOptions){"none", 2, 4 * MIB, .nobody_reads = true});
    RAMRun run = {.sb = &pair->sb[0], .first = 0, .n = 16};
    GThread *thread = g_thread_new("cancel", shut_down_later, pair);
    int ret = 0;

    while (ret == 0) {
        ret = multifd_send_run(&pair->s, &run, false);
    }
    g_thread_join(thread);
    g_assert_cmpint(multifd_send_sync(&pair->s), <, 0);
    /* being cancelled is no error */
    g_assert_null(pair->s.error);
    multifd_pair_free(pair);
}

/* --- a hostile source --- */

typedef struct Hostile {
    const char *name;
    const char *error;
    const char *compression;
    MultiFDPacket packet;
    const char *payload;
    size_t payload_bytes;
    bool before_list; /* no list of RAM blocks has come yet */
} Hostile;

static const Hostile hostile_cases[] = {
    {"unknown block", "*Can't find block*", "none", {.normal = 1, .payload = 4096, .block = "nix"}},
    {"no block", "*Can't find block*", "none", {.zero = 1}},
    {"offset at the end", "*offset*", "none", {.zero = 1, .block = "dst0", .offsets = {4 * MIB}}},
    {"offset far away",
     "*offset*",
     "none",
     {.zero = 1, .block = "dst0", .offsets = {UINT64_MAX - 4095}}},
    {"offset within a page", "*offset*", "none", {.zero = 2, .block = "dst0", .offsets = {0, 1}}},
    {"last offset of many",
     "*offset*",
     "none",
     {.normal = 1, .zero = 1, .payload = 4096, .block = "dst0", .offsets = {0, 4 * MIB}}},
    {"payload too short",
     "*1000 bytes for*",
     "none",
     {.normal = 1, .payload = 1000, .block = "dst0"}},
    {"payload too long",
     "*for 4096 bytes*",
     "none",
     {.normal = 1, .payload = 8192, .block = "dst0"}},
    {"other method", "*method*", "none", {.flags = 2, .normal = 1, .payload = 9, .block = "dst0"}},
    {"no method", "*method*", "zlib", {.zero = 1, .block = "dst0"}},
    {"device", "*flags*", "none", {.flags = 0x40}},
    {"no zlib",
     "*zlib failed*",
     "zlib",
     {.flags = 2, .normal = 1, .payload = 4, .block = "dst0"},
     "abcd",
     4},
    {"no zstd",
     "*zstd failed*",
     "zstd",
     {.flags = 4, .normal = 1, .payload = 4, .block = "dst0"},
     "abcd",
     4},
    {"empty zlib",
     "*fewer pages*",
     "zlib",
     {.flags = 2, .normal = 1, .payload = 2, .block = "dst0"},
     "\x78\x01",
     2},
    {"end of the stream",
     "*end-of-file*",
     "none",
     {.normal = 1, .payload = 4096, .block = "dst0"},
     "abcd",
     4},
    {"before the list",
     "*outside of the time*",
     "none",
     {.zero = 1, .block = "dst0"},
     .before_list = true},
};

static void test_hostile(gconstpointer opaque)
{
    const Hostile *c = opaque;
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){
        c->compression, 2, 4 * MIB, .raw_source = true, .no_list = c->before_list});
    uint8_t buf[MULTIFD_HEADER_BYTES];
    g_autofree uint8_t *before = g_memdup2(pair->dst[0]->host, 4 * MIB);

    multifd_packet_encode(&c->packet, buf);
    g_assert_cmpint(write(pair->raw_fd[0], buf, sizeof(buf)), ==, sizeof(buf));
    if (c->payload_bytes) {
        g_assert_cmpint(write(pair->raw_fd[0], c->payload, c->payload_bytes), ==, c->payload_bytes);
    }
    shutdown(pair->raw_fd[0], SHUT_WR);
    multifd_pair_expect_recv_error(pair, c->error);
    g_assert_nonnull(pair->mis.error);
    if (!c->payload_bytes) {
        g_assert_cmpmem(before, 4 * MIB, pair->dst[0]->host, 4 * MIB);
    }
    multifd_pair_free(pair);
}

/* What QEMU 7.2 may do besides: a barrier in a packet with pages, and an empty packet after it. */
static void test_sync_with_pages(void)
{
    MultiFDPair *pair =
        multifd_pair_new(&(MultiFDPairOptions){"none", 1, 4 * MIB, .raw_source = true});
    MultiFDPacket packet = {
        .flags = 1, .normal = 2, .payload = 8192, .block = "dst0", .offsets = {8192, 4096}};
    uint8_t buf[MULTIFD_HEADER_BYTES], pages[8192];

    memset(pages, 1, 4096);
    memset(pages + 4096, 2, 4096);
    for (unsigned i = 0; i < 3; i++) {
        pages[0] = i;
        packet.flags = MULTIFD_FLAG_SYNC;
        packet.normal = 2;
        multifd_packet_encode(&packet, buf);
        g_assert_cmpint(write(pair->raw_fd[0], buf, sizeof(buf)), ==, sizeof(buf));
        g_assert_cmpint(write(pair->raw_fd[0], pages, sizeof(pages)), ==, sizeof(pages));
        packet.flags = packet.normal = 0;
        multifd_packet_encode(&packet, buf);
        stl_be_p(buf + 20, 8192);
        g_assert_cmpint(write(pair->raw_fd[0], buf, sizeof(buf)), ==, sizeof(buf));
        g_assert_cmpint(multifd_recv_sync(&pair->mis, NULL), ==, 0);
        g_assert_cmpmem(pair->dst[0]->host + 8192, 4096, pages, 4096);
        g_assert_cmpmem(pair->dst[0]->host + 4096, 4096, pages + 4096, 4096);
    }
    multifd_pair_free(pair);
}

/* A zero page clears what has come before, or was there before, and nothing else. */
static void test_zero_page_clears(void)
{
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){"none", 2, 4 * MIB});
    RAMRun run = {.sb = &pair->sb[0], .first = 3, .n = 2};

    memset(pair->src[0]->host + 3 * 4096, 7, 2 * 4096);
    g_assert_cmpint(multifd_send_run(&pair->s, &run, true), ==, 0);
    multifd_pair_barrier(pair);
    multifd_pair_compare(pair);
    memset(pair->src[0]->host + 3 * 4096, 0, 2 * 4096);
    g_assert_cmpint(multifd_send_run(&pair->s, &run, true), ==, 0);
    multifd_pair_barrier(pair);
    multifd_pair_compare(pair);
    g_assert_cmpuint(pair->s.counters.normal_pages, ==, 2);
    g_assert_cmpuint(pair->s.counters.zero_pages, ==, 2);
    multifd_pair_free(pair);
}

/* --- handshakes --- */

typedef struct BadHandshake {
    const char *name, *error;
    unsigned at;
    uint8_t value;
} BadHandshake;

static const BadHandshake bad_handshakes[] = {
    {"magic", "*magic*", 0, 0},      {"version", "*version*", 7, 2}, {"uuid", "*UUID*", 8, 1},
    {"id", "*channel id 2*", 24, 2}, {"twice", "*twice*", 24, 0},
};

static void test_bad_handshake(gconstpointer opaque)
{
    const BadHandshake *c = opaque;
    MultiFDPair *pair = multifd_pair_new(
        &(MultiFDPairOptions){"none", 2, MIB, .raw_source = true, .only_first = true});
    uint8_t buf[MULTIFD_HANDSHAKE_BYTES];
    g_autoptr(GError) err = NULL;

    multifd_handshake_encode(&(MultiFDHandshake){.channel = 1}, buf);
    buf[c->at] = c->value;
    g_assert_false(multifd_pair_offer(pair, buf, &err));
    g_assert_nonnull(err);
    g_assert_true(g_pattern_match_simple(c->error, err->message));
    g_assert_false(multifd_recv_all_channels_created(&pair->mis));
    multifd_pair_free(pair);
}

/* Whichever comes last: it is known by what it says. */
static void test_main_channel_comes_later(void)
{
    MultiFDPair *pair = multifd_pair_new(&(MultiFDPairOptions){
        "none", 3, MIB, .raw_source = true, .only_first = true, .no_main = true});
    uint8_t stream[MULTIFD_HANDSHAKE_BYTES] = "QEVM\0\0\0\3", buf[sizeof(stream)];
    g_autoptr(GError) err = NULL;

    g_assert_true(multifd_pair_offer(pair, stream, &err));
    g_assert_no_error(err);
    g_assert_nonnull(pair->mis.from_src);
    g_assert_cmpint(qemu_get_buffer(pair->mis.from_src, buf, sizeof(buf)), ==, 0);
    g_assert_cmpmem(buf, sizeof(buf), stream, sizeof(stream));
    g_assert_cmpuint(qemu_file_transferred(pair->mis.from_src), ==, sizeof(buf));
    multifd_handshake_encode(&(MultiFDHandshake){.channel = 2}, buf);
    g_assert_true(multifd_pair_offer(pair, buf, &err));
    g_assert_no_error(err);
    g_assert_false(multifd_recv_all_channels_created(&pair->mis));
    multifd_pair_free(pair);
}

/* --- the end --- */

static size_t bytes_in_use(void)
{
    struct mallinfo2 info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static unsigned descriptors_in_use(void)
{
    GDir *dir = g_dir_open("/proc/self/fd", 0, NULL);
    unsigned n = 0;

    while (g_dir_read_name(dir)) {
        n++;
    }
    g_dir_close(dir);
    return n;
}

static void hang_up(MultiFDPair *pair, unsigned first, unsigned end)
{
    for (unsigned i = first; i < end; i++) {
        close(pair->raw_fd[i]);
        pair->raw_fd[i] = -1;
        g_clear_pointer(&pair->dst_ioc[i], qio_channel_unref);
    }
}

/* The guest has arrived: memory and descriptors go with the channels, everything with the last one. */
static void test_nothing_is_left_when_the_last_channel_has_hung_up(void)
{
    MultiFDPair *pair = multifd_pair_new(
        &(MultiFDPairOptions){"zstd", 8, MIB, .raw_source = true, .no_list = true});
    size_t bytes = bytes_in_use();
    unsigned fds = descriptors_in_use();

    multifd_recv_finish(&pair->mis);
    hang_up(pair, 0, 7);
    while (descriptors_in_use() > fds - 7 * 3) { /* both ends, and a set that watches */
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_nonnull(pair->mis.multifd);
    hang_up(pair, 7, 8);
    while (pair->mis.multifd) {
        aio_poll(qemu_get_aio_context(), true);
    }
    g_assert_cmpuint(descriptors_in_use(), ==, fds - 8 * 3);
    if (bytes) { /* a sanitizer's heap is not counted */
        g_assert_cmpuint(bytes_in_use() + 8 * 100 * 1024, <, bytes); /* zstd's part alone */
    }
    multifd_pair_free(pair);
}

/* A source that keeps its channels open keeps nothing else. */
static void test_channels_that_linger_are_hung_up_on(void)
{
    MultiFDPair *pair = multifd_pair_new(
        &(MultiFDPairOptions){"none", 2, MIB, .raw_source = true, .no_list = true});

    multifd_recv_finish(&pair->mis);
    while (pair->mis.multifd) {
        aio_poll(qemu_get_aio_context(), true);
    }
    multifd_pair_free(pair);
}

int main(int argc, char **argv)
{
    static const RoundsCase rounds[] = {
        {"none", 1, true},  {"none", 2, false}, {"none", 4, true},  {"zlib", 2, true},
        {"zlib", 3, false}, {"zstd", 2, true},  {"zstd", 3, false},
    };

    g_test_init(&argc, &argv, NULL);
    multifd_pair_init();
    g_test_add_func("/multifd/handshake", test_handshake);
    g_test_add_func("/multifd/packet/bytes", test_packet_bytes);
    g_test_add_func("/multifd/packet/sync", test_sync_packet_bytes);
    g_test_add_func("/multifd/packet/checks", test_packet_checks);
    g_test_add_func("/multifd/packet/leftovers", test_leftovers_are_ignored);
    for (unsigned i = 0; i < G_N_ELEMENTS(rounds); i++) {
        g_autofree char *name =
            g_strdup_printf("/multifd/rounds/%s/%u%s", rounds[i].compression, rounds[i].channels,
                            rounds[i].detect_zero ? "/zero" : "");

        g_test_add_data_func(name, &rounds[i], test_rounds);
    }
    g_test_add_func("/multifd/untouched", test_untouched);
    g_test_add_func("/multifd/zero-page-clears", test_zero_page_clears);
    g_test_add_func("/multifd/end-without-barrier", test_end_without_barrier);
    g_test_add_func("/multifd/peer-dies", test_peer_dies);
    g_test_add_func("/multifd/cancel-while-stuck", test_cancel_while_peer_is_stuck);
    g_test_add_func("/multifd/sync-with-pages", test_sync_with_pages);
    for (unsigned i = 0; i < G_N_ELEMENTS(hostile_cases); i++) {
        g_autofree char *name = g_strdup_printf("/multifd/hostile/%s", hostile_cases[i].name);

        g_test_add_data_func(name, &hostile_cases[i], test_hostile);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_handshakes); i++) {
        g_autofree char *name =
            g_strdup_printf("/multifd/bad-handshake/%s", bad_handshakes[i].name);

        g_test_add_data_func(name, &bad_handshakes[i], test_bad_handshake);
    }
    g_test_add_func("/multifd/nothing-is-left",
                    test_nothing_is_left_when_the_last_channel_has_hung_up);
    g_test_add_func("/multifd/lingering", test_channels_that_linger_are_hung_up_on);
    g_test_add_func("/multifd/main-channel-comes-later", test_main_channel_comes_later);
    return g_test_run();
}
