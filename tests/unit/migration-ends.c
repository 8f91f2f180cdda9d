/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Both ends of a migration's connections, for tests. */
#include "tests/unit/migration-ends.h"

#include <glib/gstdio.h>
#include <string.h>
#include "util/aio.h"

char *test_dir;

char *path_in_dir(const char *name)
{
    return g_build_filename(test_dir, name, NULL);
}

void write_file(const char *name, const char *text)
{
    g_autofree char *path = path_in_dir(name);

    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

void run_until(const bool *done)
{
    while (!__atomic_load_n(done, __ATOMIC_ACQUIRE)) {
        aio_poll(qemu_get_aio_context(), true);
    }
}

void set_param(const char *name, const char *value)
{
    json_object *json = json_object_new_object();
    g_autoptr(MigrationParameters) params = NULL;
    GError *err = NULL;

    json_object_object_add(json, name, json_object_new_string(value));
    params = MigrationParameters_from_json(json, QAPI_DECODE_KEYVAL, &err);
    json_object_put(json);
    g_assert_no_error(err);
    g_assert_true(migration_settings_change_params(params, &err));
}

void set_cap(MigrationCapability cap)
{
    MigrationCapabilityStatus status = {.capability = cap, .state = true};
    MigrationCapabilityStatusList list = {.value = &status};

    g_assert_true(migration_settings_change_caps(&list, false, NULL));
}

/* --- the destination --- */

static void on_channel(QIOChannel *ioc, const MigrationHello *hello, GError *err, void *opaque)
{
    Destination *dst = opaque;

    g_assert_cmpint(ioc == NULL, ==, err != NULL);
    g_assert_cmpint(ioc == NULL, ==, hello == NULL);
    dst->hello = hello ? *hello : (MigrationHello){0};
    g_assert_false(qemu_in_coroutine());
    if (ioc) {
        g_assert_cmpuint(dst->n, <, ARRIVALS_MAX);
        dst->channels[dst->n++] = ioc;
    } else {
        dst->error = err;
    }
    dst->arrived = true;
    if (dst->stop) {
        migration_listener_free(g_steal_pointer(&dst->listener));
    }
}

typedef struct ListenCall {
    const MigrationAddress *addr;
    Destination *dst;
    GError **errp;
} ListenCall;

static void coroutine_fn listen_co(void *opaque)
{
    ListenCall *call = opaque;

    call->dst->listener = migration_listener_co_new(call->addr, on_channel, call->dst, call->errp);
    g_assert_cmpuint(call->dst->n, ==, 0);
}

bool try_listen(Destination *dst, const char *uri, GError **errp)
{
    g_autoptr(MigrationAddress) addr = migration_uri_parse(uri, NULL);
    ListenCall call = {addr, dst, errp};

    g_assert_nonnull(addr);
    aio_run_coroutine(listen_co, &call);
    return dst->listener != NULL;
}

void listen_at(Destination *dst, const char *uri)
{
    GError *err = NULL;

    (void)try_listen(dst, uri, &err);
    g_assert_no_error(err);
}

void destination_clear(Destination *dst)
{
    migration_listener_free(dst->listener);
    while (aio_poll(qemu_get_aio_context(), false)) { /* its socket file is removed from there */
    }
    for (unsigned i = 0; i < dst->n; i++) {
        qio_channel_unref(dst->channels[i]);
    }
    g_clear_error(&dst->error);
    memset(dst, 0, sizeof(*dst));
}

char *listener_uri(const Destination *dst)
{
    g_autoptr(MigrationAddress) addr = g_new0(MigrationAddress, 1);
    SocketAddressList *list = migration_listener_addresses(dst->listener);
    SocketAddress *one;
    char *uri;

    g_assert_nonnull(list);
    one = QAPI_CLONE(SocketAddress, list->value);
    addr->u.socket = *one;
    g_free(one);
    uri = migration_address_to_uri(addr);
    qapi_free_SocketAddressList(list);
    return uri;
}

/* --- the source --- */

MigrationConnector *try_connector(const char *uri, GError **errp)
{
    g_autoptr(MigrationAddress) addr = migration_uri_parse(uri, NULL);
    g_autoptr(MigrationSettings) settings = migration_settings_get();

    g_assert_nonnull(addr);
    return migration_connector_new(addr, settings, errp);
}

MigrationConnector *new_connector(const char *uri)
{
    GError *err = NULL;
    MigrationConnector *c = try_connector(uri, &err);

    g_assert_no_error(err);
    return c;
}

static void coroutine_fn connect_co(void *opaque)
{
    ConnectCall *call = opaque;

    call->ioc = migration_connector_co_connect(call->c, &call->err);
    __atomic_store_n(&call->done, true, __ATOMIC_RELEASE);
}

void start_connect(ConnectCall *call)
{
    qemu_coroutine_enter(qemu_coroutine_create(connect_co, call));
}

QIOChannel *connect_to(MigrationConnector *c)
{
    ConnectCall call = {.c = c};

    start_connect(&call);
    run_until(&call.done);
    g_assert_no_error(call.err);
    return call.ioc;
}

void say_hello(QIOChannel *ioc)
{
    send_bytes(ioc, "QEVM");
}

/* --- bytes --- */

typedef struct Bytes {
    QIOChannel *ioc;
    const char *expected;
    bool done;
} Bytes;

static void coroutine_fn read_co(void *opaque)
{
    Bytes *bytes = opaque;
    size_t len = strlen(bytes->expected);
    g_autofree char *buf = g_malloc0(len + 1);
    GError *err = NULL;

    g_assert_cmpint(qio_channel_co_read_all(bytes->ioc, buf, len, &err), ==, 0);
    g_assert_no_error(err);
    g_assert_cmpstr(buf, ==, bytes->expected);
    qio_channel_detach_aio_context(bytes->ioc);
    bytes->done = true;
}

void expect_bytes(QIOChannel *ioc, const char *expected)
{
    Bytes bytes = {ioc, expected};

    qemu_coroutine_enter(qemu_coroutine_create(read_co, &bytes));
    run_until(&bytes.done);
}

void send_bytes(QIOChannel *ioc, const char *text)
{
    GError *err = NULL;

    g_assert_cmpint(qio_channel_write_all(ioc, text, strlen(text), &err), ==, 0);
    g_assert_no_error(err);
}

/* --- the program --- */

static void remove_dir(void)
{
    GDir *d = g_dir_open(test_dir, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = path_in_dir(name);

        g_unlink(path);
    }
    g_dir_close(d);
    g_rmdir(test_dir);
    g_free(test_dir);
}

void migration_ends_init(int *argc, char ***argv)
{
    g_test_init(argc, argv, NULL);
    g_assert_true(qemu_init_main_loop(NULL));
    test_dir = g_dir_make_tmp("ferry-migration-XXXXXX", NULL);
}

int migration_ends_run(void)
{
    int ret = g_test_run();

    remove_dir();
    return ret;
}
