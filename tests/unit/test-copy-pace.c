/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How large the requests of a copy become, told how long each took. */
#include <glib.h>
#include <string.h>
#include "block/copy/copy.h"

#define MIB (1 << 20)

static int64_t speed;

static void job_init(CopyEngine *s)
{
    memset(s, 0, sizeof(*s));
    s->buf_size = 64 * MIB;
    s->granularity = 64 << 10;
    speed = 0;
    s->speed = &speed;
    copy_pace_init(s);
}

/* So many requests of the present size, each of which took so long. */
static void took(CopyEngine *s, int n, int64_t ns)
{
    while (n--) {
        int64_t bytes = copy_request_bytes(s);

        copy_pace_started(s, bytes);
        copy_pace_ended(s, bytes, ns);
    }
}

static void test_quick(void)
{
    CopyEngine s;

    job_init(&s);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
    took(&s, 1, 9 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, 2 * MIB);
    took(&s, 10, 9 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, 16 * MIB);
}

static void test_neither(void)
{
    CopyEngine s;

    job_init(&s);
    took(&s, 10, 50 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
}

static void test_slow(void)
{
    CopyEngine s;

    job_init(&s);
    took(&s, 1, 101 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB / 2);
    took(&s, 10, 101 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, 64 << 10);
    took(&s, 20, SCALE_US);
    g_assert_cmpint(copy_request_bytes(&s), ==, 16 * MIB);
}

/* A server has to be quicker. */
static void test_server(void)
{
    CopyEngine s;

    job_init(&s);
    s.server_target = true;
    took(&s, 5, 9 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
    took(&s, 5, SCALE_MS / 2);
    g_assert_cmpint(copy_request_bytes(&s), ==, 16 * MIB);
}

/* One that is quick enough gets one long request, and then goes on as before. */
static void test_long(void)
{
    CopyEngine s;

    job_init(&s);
    s.server_target = true;
    took(&s, 3, 5 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
    took(&s, 1, 3 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, 16 * MIB);
    copy_pace_started(&s, MIB); /* an extent that ends early */
    g_assert_cmpint(copy_request_bytes(&s), ==, 16 * MIB);
    s.max_transfer = 8 * MIB;
    g_assert_cmpint(copy_request_bytes(&s), ==, 8 * MIB);
    took(&s, 1, 200 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
}

/* Requests through buffers leave room for a second one; a short request says little about a long. */
static void test_bounds(void)
{
    CopyEngine s;

    job_init(&s);
    s.buf_size = 8 * MIB;
    took(&s, 10, SCALE_US);
    g_assert_cmpint(copy_request_bytes(&s), ==, 4 * MIB);
    job_init(&s);
    copy_pace_started(&s, 64 << 10);
    copy_pace_ended(&s, 64 << 10, 9 * SCALE_MS);
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
}

static void test_speed(void)
{
    CopyEngine s;

    job_init(&s);
    took(&s, 10, SCALE_US);
    speed = 20 * MIB; /* 50 ms of it are 1 MiB */
    g_assert_cmpint(copy_request_bytes(&s), ==, MIB);
    speed = 1;
    g_assert_cmpint(copy_request_bytes(&s), ==, 64 << 10);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/copy/pace/quick", test_quick);
    g_test_add_func("/copy/pace/neither", test_neither);
    g_test_add_func("/copy/pace/slow", test_slow);
    g_test_add_func("/copy/pace/server", test_server);
    g_test_add_func("/copy/pace/long", test_long);
    g_test_add_func("/copy/pace/bounds", test_bounds);
    g_test_add_func("/copy/pace/speed", test_speed);
    return g_test_run();
}
