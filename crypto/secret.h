/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * `secret` objects: passwords and keys that others refer to by id, so that they stand on no command
 * line of their own.
 *
 * The value comes from `data` or from a file, as it is or in base64. With `keyid` it is encrypted:
 * AES-256 in CBC mode with PKCS#7 padding (RFC 5652, section 6.3), under the 32 bytes of another
 * secret, with the initialization vector `iv`.
 *
 * Main thread only. Values are wiped when they are freed.
 */
#ifndef FERRY_CRYPTO_SECRET_H
#define FERRY_CRYPTO_SECRET_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qapi/qapi-types-crypto.h"

/* Largest value in bytes, before and after decoding. */
#define QCRYPTO_SECRET_MAX_BYTES (64u << 10)

typedef struct QCryptoSecret QCryptoSecret;

/* Reads, decodes and decrypts the value, once. NULL and errp on failure. */
QCryptoSecret *qcrypto_secret_new(const SecretProperties *props,
                                  GError **errp) G_GNUC_WARN_UNUSED_RESULT;
void qcrypto_secret_free(QCryptoSecret *secret);

/*
 * The value of the secret object `id`: *data holds *bytes bytes and a NUL behind them; free it with
 * wipe_free(). False and errp when there is no such object.
 */
bool qcrypto_secret_lookup(const char *id, uint8_t **data, size_t *bytes,
                           GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/*
 * As text; fails when the value is not UTF-8 or holds a NUL. Free it with
 * wipe_free_text().
 */
char *qcrypto_secret_lookup_as_utf8(const char *id, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* In base64 (what librados takes as a key). Free it with wipe_free_text(). */
char *qcrypto_secret_lookup_as_base64(const char *id, GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
