/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects for tests: made from JSON as a QMP client would write it. */
#ifndef FERRY_TESTS_CRYPTO_OBJECTS_H
#define FERRY_TESTS_CRYPTO_OBJECTS_H

#include "crypto/objects.h"
#include "util/aio.h"

typedef struct AddObject {
    const char *json;
    GError **errp;
    bool ok;
} AddObject;

static inline void coroutine_fn add_object_co_entry(void *opaque)
{
    AddObject *add = opaque;
    json_object *json = json_tokener_parse(add->json);
    g_autoptr(ObjectOptions) options = NULL;

    g_assert_nonnull(json);
    options = ObjectOptions_from_json(json, QAPI_DECODE_JSON, add->errp);
    add->ok = options && user_creatable_co_add(options, add->errp);
    json_object_put(json);
}

/* False and errp when it is refused. */
static inline bool try_add_object(const char *json, GError **errp)
{
    AddObject add = {json, errp, false};

    aio_run_coroutine(add_object_co_entry, &add);
    return add.ok;
}

static inline void add_object(const char *json)
{
    GError *err = NULL;

    (void)try_add_object(json, &err);
    g_assert_no_error(err);
}

/* The refusal's message contains `why`. */
static inline void assert_refused(const char *json, const char *why)
{
    g_autoptr(GError) err = NULL;

    g_assert_false(try_add_object(json, &err));
    g_assert_nonnull(err);
    if (!strstr(err->message, why)) {
        g_error("'%s' does not say '%s'", err->message, why);
    }
}

static inline void del_object(const char *id)
{
    GError *err = NULL;

    g_assert_true(user_creatable_del(id, &err));
    g_assert_no_error(err);
}

static inline void register_crypto_objects(void)
{
    user_creatable_register(&secret_object_ops);
    user_creatable_register(&tls_creds_x509_object_ops);
    user_creatable_register(&tls_creds_psk_object_ops);
    user_creatable_register(&tls_creds_anon_object_ops);
    user_creatable_register(&authz_list_object_ops);
    user_creatable_register(&authz_listfile_object_ops);
    user_creatable_register(&authz_simple_object_ops);
}

#endif
