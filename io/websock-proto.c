/* SPDX-License-Identifier: GPL-2.0-or-later */
/* WebSocket: requests, answers and heads of frames. */
#include "io/websock-proto.h"
#include <errno.h>
#include <string.h>
#include "util/bswap.h"
#include "util/error.h"

/* What a key is hashed with (RFC 6455, section 1.3), and how long one is. */
#define WEBSOCK_GUID      "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
#define WEBSOCK_KEY_BYTES 16
#define WEBSOCK_VERSION   "13"

/* --- header fields (RFC 9110 and 9112) --- */

/*
 * What a request says that matters here. Values of a field that is repeated are joined by commas.
 */
typedef struct Request {
    char *host, *upgrade, *connection, *version, *key, *protocol;
    unsigned keys; /* how often the key came */
} Request;

static void request_clear(Request *req)
{
    g_free(req->host);
    g_free(req->upgrade);
    g_free(req->connection);
    g_free(req->version);
    g_free(req->key);
    g_free(req->protocol);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Request, request_clear)

static bool is_token(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!g_ascii_isalnum(text[i]) && !strchr("!#$%&'*+-.^_`|~", text[i])) {
            return false;
        }
    }
    return len > 0;
}

/* One "Name: value", without its end of line. */
static bool request_add_field(Request *req, char *line)
{
    const struct {
        const char *name;
        char **value;
    } fields[] = {
        {"Host", &req->host},
        {"Upgrade", &req->upgrade},
        {"Connection", &req->connection},
        {"Sec-WebSocket-Version", &req->version},
        {"Sec-WebSocket-Key", &req->key},
        {"Sec-WebSocket-Protocol", &req->protocol},
    };
    char *colon = strchr(line, ':');

    if (!colon || !is_token(line, colon - line)) {
        return false;
    }
    *colon = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++) {
        char **value = fields[i].value;

        if (!g_ascii_strcasecmp(line, fields[i].name)) {
            g_autofree char *old = *value;
            const char *text = g_strstrip(colon + 1);

            *value = old ? g_strconcat(old, ",", text, NULL) : g_strdup(text);
            req->keys += value == &req->key;
        }
    }
    return true;
}

/* A comma-separated list has this word, in whatever case. */
static bool list_has(const char *list, const char *word, bool any_case)
{
    g_auto(GStrv) items = g_strsplit(list ? list : "", ",", -1);

    for (char **item = items; *item; item++) {
        g_strstrip(*item);
        if (any_case ? !g_ascii_strcasecmp(*item, word) : !strcmp(*item, word)) {
            return true;
        }
    }
    return false;
}

/* --- the request --- */

static bool request_line_valid(const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", -1);

    return g_strv_length(words) == 3 && !strcmp(words[0], "GET") && words[1][0] == '/' &&
           g_str_has_prefix(words[2], "HTTP/1.") && g_ascii_isdigit(words[2][7]) &&
           words[2][7] != '0' && !words[2][8];
}

static bool key_valid(const char *key)
{
    g_autofree guchar *bytes = NULL;
    g_autofree char *again = NULL;
    gsize len;

    if (strlen(key) != (WEBSOCK_KEY_BYTES + 2) / 3 * 4) {
        return false;
    }
    bytes = g_base64_decode(key, &len);
    again = g_base64_encode(bytes, len);
    return len == WEBSOCK_KEY_BYTES && !strcmp(again, key);
}

/*
 * head: the request without its empty line, as a string that is taken apart. What is wrong, or
 * NULL.
 */
static const char *request_read(Request *req, char *head)
{
    g_auto(GStrv) lines = g_strsplit(head, "\r\n", -1);

    if (!request_line_valid(lines[0])) {
        return "it does not begin with a GET over HTTP/1.1";
    }
    for (char **line = lines + 1; *line; line++) {
        if (strpbrk(*line, "\r\n") || !request_add_field(req, *line)) {
            return "a header field is malformed";
        }
    }
    return NULL;
}

/* Section 4.2.1. What is wrong, or NULL. */
static const char *request_check(const Request *req)
{
    if (!req->host) {
        return "there is no Host";
    }
    if (!list_has(req->upgrade, "websocket", true) || !list_has(req->connection, "upgrade", true)) {
        return "it does not ask for an upgrade to websocket";
    }
    if (req->keys != 1 || !key_valid(req->key)) {
        return "Sec-WebSocket-Key is not the base64 of 16 bytes";
    }
    if (req->protocol && !list_has(req->protocol, WEBSOCK_SUBPROTOCOL, false)) {
        return "Sec-WebSocket-Protocol does not offer '" WEBSOCK_SUBPROTOCOL "'";
    }
    return NULL;
}

/* --- the answer --- */

static char *reply_accept(const Request *req)
{
    g_autoptr(GChecksum) sha1 = g_checksum_new(G_CHECKSUM_SHA1);
    g_autofree char *accept = NULL;
    uint8_t digest[20];
    gsize len = sizeof(digest);

    g_checksum_update(sha1, (const guchar *)req->key, -1);
    g_checksum_update(sha1, (const guchar *)WEBSOCK_GUID, -1);
    g_checksum_get_digest(sha1, digest, &len);
    accept = g_base64_encode(digest, len);
    return g_strdup_printf(
        "HTTP/1.1 101 Switching Protocols\r\n"
        "Upgrade: websocket\r\n"
        "Connection: Upgrade\r\n"
        "Sec-WebSocket-Accept: %s\r\n"
        "%s\r\n",
        accept, req->protocol ? "Sec-WebSocket-Protocol: " WEBSOCK_SUBPROTOCOL "\r\n" : "");
}

static char *reply_refuse(const char *status)
{
    return g_strdup_printf("HTTP/1.1 %s\r\n"
                           "Sec-WebSocket-Version: " WEBSOCK_VERSION "\r\n"
                           "Connection: close\r\n"
                           "Content-Length: 0\r\n\r\n",
                           status);
}

WebsockVerdict websock_request_parse(const uint8_t *bytes, size_t len, size_t *used, char **reply,
                                     GError **errp)
{
    const uint8_t *end = memmem(bytes, MIN(len, WEBSOCK_REQUEST_MAX), "\r\n\r\n", 4);
    g_auto(Request) req = {0};
    g_autofree char *head = NULL;
    const char *wrong, *status = "400 Bad Request";

    if (!end && len < WEBSOCK_REQUEST_MAX) {
        return WEBSOCK_REQUEST_PARTIAL;
    }
    if (!end) {
        status = "431 Request Header Fields Too Large";
        wrong = "it is longer than 8 KiB";
    } else if (memchr(bytes, 0, end - bytes)) {
        wrong = "it is not text";
    } else {
        head = g_strndup((const char *)bytes, end - bytes);
        wrong = request_read(&req, head);
        wrong = wrong ? wrong : request_check(&req);
        if (!wrong && g_strcmp0(req.version, WEBSOCK_VERSION) != 0) {
            status = "426 Upgrade Required";
            wrong = "it is not of version " WEBSOCK_VERSION;
        }
    }
    if (wrong) {
        error_setg(errp, "WebSocket request refused: %s", wrong);
        *reply = reply_refuse(status);
        return WEBSOCK_REQUEST_REFUSED;
    }
    *used = end + 4 - bytes;
    *reply = reply_accept(&req);
    return WEBSOCK_REQUEST_ACCEPTED;
}

/* --- frames --- */

/*
 *  0               1               2
 *  fin rsv opcode  mask length     extended length: 2 bytes after 126, 8 after 127; then 4 of mask
 */
#define FRAME_FIN    0x80
#define FRAME_RSV    0x70
#define FRAME_OPCODE 0x0f
#define FRAME_MASKED 0x80
#define FRAME_LEN    0x7f
#define FRAME_LEN_16 126
#define FRAME_LEN_64 127

static bool opcode_known(unsigned opcode)
{
    return opcode <= WEBSOCK_OP_BINARY || (opcode >= WEBSOCK_OP_CLOSE && opcode <= WEBSOCK_OP_PONG);
}

/* What of the first two bytes no client may send; NULL: nothing. */
static const char *first_bytes_wrong(const uint8_t *bytes)
{
    unsigned opcode = bytes[0] & FRAME_OPCODE;

    if ((bytes[0] & FRAME_RSV) || !opcode_known(opcode)) {
        return "a frame has an unknown opcode or reserved bits";
    }
    if (!(bytes[1] & FRAME_MASKED)) {
        return "a client's frame is not masked";
    }
    if (opcode >= WEBSOCK_OP_CLOSE &&
        (!(bytes[0] & FRAME_FIN) || (bytes[1] & FRAME_LEN) > WEBSOCK_CONTROL_MAX)) {
        return "a control frame is fragmented or too long";
    }
    return NULL;
}

int websock_frame_decode(const uint8_t *bytes, size_t len, WebsockFrame *frame, GError **errp)
{
    const char *wrong;
    size_t at = 2;

    if (len < at) {
        return 0;
    }
    wrong = first_bytes_wrong(bytes);
    frame->opcode = bytes[0] & FRAME_OPCODE;
    frame->fin = bytes[0] & FRAME_FIN;
    frame->bytes = bytes[1] & FRAME_LEN;
    at += frame->bytes == FRAME_LEN_16 ? 2 : frame->bytes == FRAME_LEN_64 ? 8 : 0;
    if (!wrong && len < at + WEBSOCK_MASK_BYTES) {
        return 0;
    }
    if (!wrong && at == 4) {
        frame->bytes = lduw_be_p(bytes + 2);
        wrong = frame->bytes < FRAME_LEN_16 ? "a length is not in its shortest form" : NULL;
    } else if (!wrong && at == 10) {
        frame->bytes = ldq_be_p(bytes + 2);
        wrong = frame->bytes <= UINT16_MAX || frame->bytes > INT64_MAX
                    ? "a length is not in its shortest form, or out of range"
                    : NULL;
    }
    if (wrong) {
        error_setg(errp, "WebSocket peer broke the protocol: %s", wrong);
        return -EPROTO;
    }
    memcpy(frame->mask, bytes + at, WEBSOCK_MASK_BYTES);
    return at + WEBSOCK_MASK_BYTES;
}

size_t websock_frame_encode(uint8_t head[WEBSOCK_HEAD_MAX], WebsockOpcode opcode, size_t bytes)
{
    head[0] = FRAME_FIN | opcode;
    if (bytes < FRAME_LEN_16) {
        head[1] = bytes;
        return 2;
    }
    if (bytes <= UINT16_MAX) {
        head[1] = FRAME_LEN_16;
        stw_be_p(head + 2, bytes);
        return 4;
    }
    head[1] = FRAME_LEN_64;
    stq_be_p(head + 2, bytes);
    return 10;
}

void websock_frame_mask(const WebsockFrame *frame, uint64_t pos, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        buf[i] ^= frame->mask[(pos + i) % WEBSOCK_MASK_BYTES];
    }
}

/*
 * Section 7.4: those that are defined for the wire, and the ranges of libraries and applications.
 */
static bool status_valid(unsigned status)
{
    return (status >= 1000 && status <= 1003) || (status >= 1007 && status <= 1014) ||
           (status >= 3000 && status <= 4999);
}

bool websock_close_valid(const uint8_t *payload, size_t len)
{
    return len == 0 || (len >= 2 && status_valid(lduw_be_p(payload)) &&
                        g_utf8_validate((const char *)payload + 2, len - 2, NULL));
}
