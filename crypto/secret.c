/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `secret` objects: reading, decoding and decrypting, and finding them by id. */
#include "crypto/secret.h"
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include "qom/user-creatable.h"
#include "util/error.h"
#include "util/read-file.h"
#include "util/wipe.h"

#define SECRET_KEY_BYTES   32 /* AES-256 */
#define SECRET_BLOCK_BYTES 16

struct QCryptoSecret {
    uint8_t *data; /* with a NUL behind it */
    size_t bytes;
};

/* --- base64 --- */

/* g_base64_decode() skips unknown characters; here they are an error. White space is allowed. */
static bool base64_is_valid(const char *text, size_t bytes)
{
    size_t digits = 0, padding = 0;

    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];

        if (g_ascii_isspace(c)) {
            continue;
        }
        if (c == '=') {
            padding++;
        } else if (padding || !(g_ascii_isalnum(c) || c == '+' || c == '/')) {
            return false;
        }
        digits++;
    }
    return padding <= 2 && digits % 4 == 0;
}

static bool base64_decode(const char *text, size_t bytes, uint8_t **data, size_t *data_bytes,
                          GError **errp)
{
    gsize len = 0;
    uint8_t *raw;

    if (!base64_is_valid(text, bytes)) {
        error_setg(errp, "Base64 data contains invalid characters or is incomplete");
        return false;
    }
    raw = g_base64_decode(text, &len);
    *data = g_malloc(len + 1);
    if (len) {
        memcpy(*data, raw, len);
    }
    (*data)[len] = 0;
    *data_bytes = len;
    wipe_free(raw, len);
    return true;
}

/* --- decrypting --- */

/* The number of PKCS#7 padding bytes at the end; 0 when they are not what they should be. */
static size_t padding_bytes(const uint8_t *data, size_t bytes)
{
    size_t n = data[bytes - 1];

    if (n == 0 || n > SECRET_BLOCK_BYTES) {
        return 0;
    }
    for (size_t i = bytes - n; i < bytes; i++) {
        if (data[i] != n) {
            return 0;
        }
    }
    return n;
}

static bool decrypt_with(const uint8_t *key, const uint8_t *iv, uint8_t *data, size_t *bytes,
                         GError **errp)
{
    gnutls_datum_t key_datum = {(uint8_t *)key, SECRET_KEY_BYTES};
    gnutls_datum_t iv_datum = {(uint8_t *)iv, SECRET_BLOCK_BYTES};
    gnutls_cipher_hd_t cipher;
    size_t padding;
    int ret;

    if (*bytes == 0 || *bytes % SECRET_BLOCK_BYTES) {
        error_setg(errp,
                   "Encrypted secret has %zu bytes, which is no multiple of the block size %d",
                   *bytes, SECRET_BLOCK_BYTES);
        return false;
    }
    ret = gnutls_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key_datum, &iv_datum);
    if (ret >= 0) {
        ret = gnutls_cipher_decrypt(cipher, data, *bytes);
        gnutls_cipher_deinit(cipher);
    }
    if (ret < 0) {
        error_setg(errp, "Unable to decrypt secret: %s", gnutls_strerror(ret));
        return false;
    }
    padding = padding_bytes(data, *bytes);
    if (!padding) {
        error_setg(errp,
                   "Unable to decrypt secret: the padding is wrong, which means that the key, "
                   "the IV or the data is");
        return false;
    }
    *bytes -= padding;
    data[*bytes] = 0;
    return true;
}

/* Decrypts the value in place. */
static bool secret_decrypt(QCryptoSecret *secret, const SecretProperties *props, GError **errp)
{
    uint8_t *key = NULL, *iv = NULL;
    size_t key_bytes = 0, iv_bytes = 0;
    bool ok = false;

    if (!props->iv) {
        error_setg(errp, "IV is required to decrypt secret");
        return false;
    }
    if (!qcrypto_secret_lookup(props->keyid, &key, &key_bytes, errp)) {
        return false;
    }
    if (key_bytes != SECRET_KEY_BYTES) {
        error_setg(errp, "Key '%s' should be %d bytes in length, not %zu", props->keyid,
                   SECRET_KEY_BYTES, key_bytes);
    } else if (base64_decode(props->iv, strlen(props->iv), &iv, &iv_bytes, errp)) {
        if (iv_bytes != SECRET_BLOCK_BYTES) {
            error_setg(errp, "IV should be %d bytes in length, not %zu", SECRET_BLOCK_BYTES,
                       iv_bytes);
        } else {
            ok = decrypt_with(key, iv, secret->data, &secret->bytes, errp);
        }
    }
    wipe_free(key, key_bytes);
    g_free(iv);
    return ok;
}

/* --- life --- */

/* The value as it was given. */
static bool secret_load(QCryptoSecret *secret, const SecretProperties *props, GError **errp)
{
    if (props->data && props->file) {
        error_setg(errp, "'file' and 'data' are mutually exclusive");
        return false;
    }
    if (props->file) {
        return qemu_read_file(props->file, QCRYPTO_SECRET_MAX_BYTES, &secret->data, &secret->bytes,
                              errp);
    }
    if (!props->data) {
        error_setg(errp, "Either 'file' or 'data' must be provided");
        return false;
    }
    secret->bytes = strlen(props->data);
    if (secret->bytes > QCRYPTO_SECRET_MAX_BYTES) {
        error_setg(errp, "A secret has at most %u bytes", QCRYPTO_SECRET_MAX_BYTES);
        return false;
    }
    secret->data = g_memdup2(props->data, secret->bytes + 1);
    return true;
}

static bool secret_decode(QCryptoSecret *secret, GError **errp)
{
    uint8_t *data;
    size_t bytes;

    if (!base64_decode((char *)secret->data, secret->bytes, &data, &bytes, errp)) {
        return false;
    }
    wipe_free(secret->data, secret->bytes);
    secret->data = data;
    secret->bytes = bytes;
    return true;
}

QCryptoSecret *qcrypto_secret_new(const SecretProperties *props, GError **errp)
{
    QCryptoSecret *secret = g_new0(QCryptoSecret, 1);

    if (!secret_load(secret, props, errp) ||
        (props->has_format && props->format == QCRYPTO_SECRET_FORMAT_BASE64 &&
         !secret_decode(secret, errp)) ||
        (props->keyid && !secret_decrypt(secret, props, errp))) {
        qcrypto_secret_free(secret);
        return NULL;
    }
    return secret;
}

void qcrypto_secret_free(QCryptoSecret *secret)
{
    wipe_free(secret->data, secret->bytes);
    g_free(secret);
}

/* --- by id --- */

static QCryptoSecret *secret_find(const char *id, GError **errp)
{
    UserCreatable *object = user_creatable_find(id, OBJECT_TYPE_SECRET, NULL);

    if (!object) {
        error_setg(errp, "No secret with id '%s'", id);
        return NULL;
    }
    return user_creatable_get(object);
}

bool qcrypto_secret_lookup(const char *id, uint8_t **data, size_t *bytes, GError **errp)
{
    QCryptoSecret *secret = secret_find(id, errp);

    if (!secret) {
        return false;
    }
    *data = g_memdup2(secret->data, secret->bytes + 1);
    *bytes = secret->bytes;
    return true;
}

char *qcrypto_secret_lookup_as_utf8(const char *id, GError **errp)
{
    QCryptoSecret *secret = secret_find(id, errp);

    if (!secret) {
        return NULL;
    }
    if (!g_utf8_validate_len((char *)secret->data, secret->bytes, NULL)) {
        error_setg(errp, "Data from secret '%s' is not valid UTF-8 text", id);
        return NULL;
    }
    return g_strndup((char *)secret->data, secret->bytes);
}

char *qcrypto_secret_lookup_as_base64(const char *id, GError **errp)
{
    QCryptoSecret *secret = secret_find(id, errp);

    return secret ? g_base64_encode(secret->data, secret->bytes) : NULL;
}
