/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Authorization objects decide by name which peer may do something. `authz-simple` knows one
 * identity, `authz-list` a list of rules of which the first that matches decides, `authz-listfile`
 * such a list in a file, which may change meanwhile.
 *
 * An identity is the distinguished name of a verified certificate as text, its parts in the
 * certificate's order ("C=DE,O=Example,CN=alice"). With a pre-shared key it is the user name that
 * belongs to the key. Objects are made and freed in the main thread and asked by id in any thread.
 * Users keep the id, not the object, which may be replaced while they run. While the object is
 * missing no peer is allowed.
 */
#ifndef FERRY_CRYPTO_AUTHZ_H
#define FERRY_CRYPTO_AUTHZ_H

#include <glib.h>
#include <stdbool.h>
#include "qapi/qapi-types-crypto.h"

typedef struct QAuthZ QAuthZ;

QAuthZ *qauthz_simple_new(const AuthZSimpleProperties *props,
                          GError **errp) G_GNUC_WARN_UNUSED_RESULT;
QAuthZ *qauthz_list_new(const AuthZListProperties *props, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * Each question by id checks the file, and reads it again when it was changed or replaced, unless
 * refresh is off. While it cannot be read no peer is allowed.
 */
QAuthZ *qauthz_listfile_new(const AuthZListFileProperties *props,
                            GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void qauthz_free(QAuthZ *authz);
/* Lets others find it by id until it is freed. Once. */
void qauthz_publish(QAuthZ *authz, const char *id);
bool qauthz_is_allowed(const QAuthZ *authz, const char *identity);

/*
 * Asks the object `id`, in any thread. False with an error that says whether the object or the
 * permission is missing.
 */
bool qauthz_is_allowed_by_id(const char *id, const char *identity,
                             GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
