/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The telnet layer of chardevs: what is written arrives by the rules of RFC 854, however it is cut.
 */
#include <errno.h>
#include <string.h>
#include "chardev/char-telnet.h"
#include "tests/unit/channel-pair.h"

#define SEED 854u

typedef struct Line {
    ChannelPair pair;
    QIOChannel *telnet;
} Line;

static Line line_new(unsigned kind, bool is_server)
{
    Line line = {.pair = channel_pair_new(&channel_kinds[kind])};

    line.telnet = char_telnet_new(line.pair.end[0], is_server);
    return line;
}

static void line_clear(Line *line)
{
    qio_channel_unref(line->telnet);
    channel_pair_clear(&line->pair);
}

/* What the peer has got; all of it is taken. */
static size_t peer_hears(Line *line, void *buf, size_t size)
{
    ssize_t len = qio_channel_read(line->pair.end[1], buf, size, NULL);

    return MAX(len, 0);
}

static void peer_says(Line *line, const char *bytes, size_t len)
{
    g_assert_cmpint(qio_channel_write_all(line->pair.end[1], bytes, len, NULL), ==, 0);
}

/* One byte at a time, so that every state is met at the end of a read. */
static void expect_input(const char *sent, size_t sent_len, const char *text, size_t text_len)
{
    for (size_t piece = 1; piece <= sent_len; piece++) {
        Line line = line_new(0, true);
        g_autoptr(GString) got = g_string_new(NULL);
        char buf[64];

        for (size_t pos = 0; pos < sent_len; pos += piece) {
            ssize_t len;

            peer_says(&line, sent + pos, MIN(piece, sent_len - pos));
            len = qio_channel_read(line.telnet, buf, sizeof(buf), NULL);
            g_assert_true(len > 0 || len == -EAGAIN);
            g_string_append_len(got, buf, MAX(len, 0));
        }
        g_assert_cmpmem(got->str, got->len, text, text_len);
        line_clear(&line);
    }
}

static void test_input(void)
{
#define EXPECT(sent, text) expect_input(sent, sizeof(sent) - 1, text, sizeof(text) - 1)
    EXPECT("plain\n", "plain\n");
    EXPECT("a\xff\xff"
           "b",
           "a\xff"
           "b");
    EXPECT("a\r\0b\r\nc\r\rd\0", "a\rb\r\nc\r\rd\0");
    EXPECT("\xff\xfb\0a\r\0", "a\r\0"); /* the peer sends bytes as they are */
    EXPECT("a\xff\xf1\xff\xf4\xff\xfd\x01"
           "b",
           "ab");
    EXPECT("a\xff\xfa\x18\0x\xff\xff\xf0y\xff\xf0"
           "b",
           "ab");
#undef EXPECT
}

static void test_proposals_are_declined_and_agreement_is_not_answered(void)
{
    static const char opening[] = "\xff\xfb\x01\xff\xfb\x03\xff\xfb\0\xff\xfd\0";
    Line line = line_new(0, true);
    char buf[4096], in[3000];

    g_assert_cmpmem(buf, peer_hears(&line, buf, sizeof(buf)), opening, sizeof(opening) - 1);
    peer_says(&line, "\xff\xfd\x01\xff\xfd\x03\xff\xfd\0\xff\xfb\0\xff\xfc\x22\xff\xfe\x22", 18);
    g_assert_cmpint(qio_channel_read(line.telnet, buf, sizeof(buf), NULL), ==, -EAGAIN);
    g_assert_cmpuint(peer_hears(&line, buf, sizeof(buf)), ==, 0);
    peer_says(&line, "\xff\xfd\x22\xff\xfb\x01", 6);
    g_assert_cmpint(qio_channel_read(line.telnet, buf, sizeof(buf), NULL), ==, -EAGAIN);
    g_assert_cmpmem(buf, peer_hears(&line, buf, sizeof(buf)), "\xff\xfc\x22\xff\xfe\x01", 6);
    /* a flood is answered as far as there is room */
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = "\xff\xfd\x22"[i % 3];
    }
    peer_says(&line, in, sizeof(in));
    g_assert_cmpint(qio_channel_read(line.telnet, buf, sizeof(buf), NULL), ==, -EAGAIN);
    g_assert_cmpuint(peer_hears(&line, buf, sizeof(buf)), <=, 200);
    line_clear(&line);
}

static void test_client_says_nothing_of_its_own(void)
{
    Line line = line_new(0, false);
    char buf[16];

    g_assert_cmpuint(peer_hears(&line, buf, sizeof(buf)), ==, 0);
    line_clear(&line);
}

/* Random bytes, half of them 255, into a socket that takes little at a time. */
static void test_output_is_doubled(void)
{
    enum { BYTES = 100000 };
    Line line = line_new(1, false);
    GRand *rand = g_rand_new_with_seed(SEED);
    g_autofree uint8_t *sent = g_malloc(BYTES), *heard = g_malloc(2 * BYTES);
    size_t done = 0, n = 0, at = 0;

    for (size_t i = 0; i < BYTES; i++) {
        sent[i] = g_rand_boolean(rand) ? 255 : g_rand_int_range(rand, 0, 256);
    }
    while (done < BYTES) {
        size_t len = MIN((size_t)g_rand_int_range(rand, 1, 5000), BYTES - done);
        struct iovec iov[2] = {{sent + done, len / 2}, {sent + done + len / 2, len - len / 2}};
        ssize_t ret = qio_channel_writev(line.telnet, iov, 2, NULL);

        g_assert_true(ret > 0 || ret == -EAGAIN);
        done += MAX(ret, 0);
        if (ret < 0) {
            n += peer_hears(&line, heard + n, g_rand_int_range(rand, 1, 5000));
        }
    }
    while ((at = peer_hears(&line, heard + n, 2 * BYTES - n)) > 0) {
        n += at;
    }
    at = 0;
    for (size_t i = 0; i < BYTES; i++) {
        g_assert_cmpuint(at, <, n);
        g_assert_cmphex(heard[at], ==, sent[i]);
        at++;
        if (sent[i] == 255) {
            g_assert_cmpuint(at, <, n);
            g_assert_cmphex(heard[at], ==, 255);
            at++;
        }
    }
    g_assert_cmpuint(at, ==, n);
    g_rand_free(rand);
    line_clear(&line);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    channel_pairs_init();
    g_test_add_func("/char-telnet/input", test_input);
    g_test_add_func("/char-telnet/proposals-are-declined",
                    test_proposals_are_declined_and_agreement_is_not_answered);
    g_test_add_func("/char-telnet/client-says-nothing-of-its-own",
                    test_client_says_nothing_of_its_own);
    g_test_add_func("/char-telnet/output-is-doubled", test_output_is_doubled);
    ret = g_test_run();
    channel_pairs_cleanup();
    return ret;
}
