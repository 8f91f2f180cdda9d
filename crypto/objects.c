/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Secrets, TLS credentials and authorization as objects that users make. Disks and character
 * devices use them, so they are early.
 */
#include "crypto/objects.h"
#include "crypto/authz.h"
#include "crypto/secret.h"
#include "crypto/tlscreds-int.h"
#include "util/error.h"

/* --- secrets: each user reads them once, so they are never in use --- */

static void *coroutine_fn secret_co_create(const ObjectOptions *options, GError **errp)
{
    return qcrypto_secret_new(&options->u.secret, errp);
}

static void secret_destroy(void *object)
{
    qcrypto_secret_free(object);
}

const UserCreatableOps secret_object_ops = {
    .type = OBJECT_TYPE_SECRET,
    .co_create = secret_co_create,
    .destroy = secret_destroy,
    .early = true,
    .parent = "secret_common",
    .write_only = "data",
};

/* --- TLS credentials --- */

#define TLS_CREDS_DEFAULTS "{\"verify-peer\": true, \"sanity-check\": true}"

static void *tls_creds_named(QCryptoTLSCreds *creds, const ObjectOptions *options)
{
    if (creds) {
        creds->id = g_strdup(options->id);
    }
    return creds;
}

static void *coroutine_fn tls_creds_x509_co_create(const ObjectOptions *options, GError **errp)
{
    return tls_creds_named(qcrypto_tls_creds_x509_new(&options->u.tls_creds_x509, errp), options);
}

static void *coroutine_fn tls_creds_psk_co_create(const ObjectOptions *options, GError **errp)
{
    return tls_creds_named(qcrypto_tls_creds_psk_new(&options->u.tls_creds_psk, errp), options);
}

static void *coroutine_fn tls_creds_anon_co_create(const ObjectOptions *options, GError **errp)
{
    return tls_creds_named(qcrypto_tls_creds_anon_new(&options->u.tls_creds_anon, errp), options);
}

static void tls_creds_destroy(void *object)
{
    qcrypto_tls_creds_unref(object);
}

static bool tls_creds_can_be_deleted(void *object, GError **errp)
{
    QCryptoTLSCreds *creds = object;

    if (g_atomic_int_get(&creds->users)) {
        error_setg(errp, "object '%s' is in use, can not be deleted", creds->id);
        return false;
    }
    return true;
}

const UserCreatableOps tls_creds_x509_object_ops = {
    .type = OBJECT_TYPE_TLS_CREDS_X509,
    .co_create = tls_creds_x509_co_create,
    .destroy = tls_creds_destroy,
    .can_be_deleted = tls_creds_can_be_deleted,
    .early = true,
    .parent = "tls-creds",
    .defaults = TLS_CREDS_DEFAULTS,
};

const UserCreatableOps tls_creds_psk_object_ops = {
    .type = OBJECT_TYPE_TLS_CREDS_PSK,
    .co_create = tls_creds_psk_co_create,
    .destroy = tls_creds_destroy,
    .can_be_deleted = tls_creds_can_be_deleted,
    .early = true,
    .parent = "tls-creds",
    .defaults = TLS_CREDS_DEFAULTS,
};

const UserCreatableOps tls_creds_anon_object_ops = {
    .type = OBJECT_TYPE_TLS_CREDS_ANON,
    .co_create = tls_creds_anon_co_create,
    .destroy = tls_creds_destroy,
    .can_be_deleted = tls_creds_can_be_deleted,
    .early = true,
    .parent = "tls-creds",
    .defaults = TLS_CREDS_DEFAULTS,
};

/*
 * --- authorization: found by id each time, so it may be replaced; while it is missing no peer is
 * allowed ---
 */

static void *authz_published(QAuthZ *authz, const ObjectOptions *options)
{
    if (authz) {
        qauthz_publish(authz, options->id);
    }
    return authz;
}

static void *coroutine_fn authz_list_co_create(const ObjectOptions *options, GError **errp)
{
    return authz_published(qauthz_list_new(&options->u.authz_list, errp), options);
}

static void *coroutine_fn authz_listfile_co_create(const ObjectOptions *options, GError **errp)
{
    return authz_published(qauthz_listfile_new(&options->u.authz_listfile, errp), options);
}

static void *coroutine_fn authz_simple_co_create(const ObjectOptions *options, GError **errp)
{
    return authz_published(qauthz_simple_new(&options->u.authz_simple, errp), options);
}

static void authz_destroy(void *object)
{
    qauthz_free(object);
}

const UserCreatableOps authz_list_object_ops = {
    .type = OBJECT_TYPE_AUTHZ_LIST,
    .co_create = authz_list_co_create,
    .destroy = authz_destroy,
    .early = true,
    .parent = "authz",
};

const UserCreatableOps authz_listfile_object_ops = {
    .type = OBJECT_TYPE_AUTHZ_LISTFILE,
    .co_create = authz_listfile_co_create,
    .destroy = authz_destroy,
    .early = true,
    .parent = "authz",
};

const UserCreatableOps authz_simple_object_ops = {
    .type = OBJECT_TYPE_AUTHZ_SIMPLE,
    .co_create = authz_simple_co_create,
    .destroy = authz_destroy,
    .early = true,
    .parent = "authz",
};
