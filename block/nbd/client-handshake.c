/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of the handshake. Everything the server says is checked against what was asked,
 * and bounded; nothing is read ahead.
 */
#include "block/nbd/client-int.h"
#include <inttypes.h>
#include "util/error.h"

/* A reply to an option. */
typedef struct OptReply {
    uint32_t option;
    uint32_t type; /* NBD_REP_* */
    uint32_t length;
    uint8_t *data; /* with a NUL behind it */
} OptReply;

static void opt_reply_clear(OptReply *r)
{
    g_clear_pointer(&r->data, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(OptReply, opt_reply_clear)

NbdTarget *nbd_target_ref(NbdTarget *target)
{
    g_atomic_int_inc(&target->refcount);
    return target;
}

void nbd_target_unref(NbdTarget *target)
{
    if (g_atomic_int_dec_and_test(&target->refcount)) {
        qapi_free_SocketAddress(target->addr);
        g_free(target->export);
        g_free(target->context);
        qcrypto_tls_creds_unref(target->tls_creds);
        g_free(target->tls_hostname);
        g_free(target);
    }
}

/* --- options --- */

static const char *opt_name(uint32_t option)
{
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        return "export name";
    case NBD_OPT_STARTTLS:
        return "starttls";
    case NBD_OPT_GO:
        return "go";
    case NBD_OPT_STRUCTURED_REPLY:
        return "structured reply";
    case NBD_OPT_SET_META_CONTEXT:
        return "set meta context";
    default:
        return "other";
    }
}

static int coroutine_fn opt_co_send(QIOChannel *ioc, uint32_t option, const void *data,
                                    uint32_t length, GError **errp)
{
    uint8_t head[NBD_OPTION_BYTES];
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)data, length}};

    nbd_option_encode(head, option, length);
    return qio_channel_co_writev_all(ioc, iov, length ? 2 : 1, errp);
}

/* Receives one reply to option. 0 or -errno when the server does not keep to the protocol. */
static int coroutine_fn opt_co_receive(QIOChannel *ioc, uint32_t option, OptReply *r, GError **errp)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    int ret = qio_channel_co_read_all(ioc, head, sizeof(head), errp);

    opt_reply_clear(r);
    if (ret < 0) {
        return ret;
    }
    if (ldq_be_p(head) != NBD_REP_MAGIC) {
        error_setg(errp, "Unexpected option reply magic");
        return -EINVAL;
    }
    r->option = ldul_be_p(head + 8);
    r->type = ldul_be_p(head + 12);
    r->length = ldul_be_p(head + 16);
    if (r->option != option) {
        error_setg(errp, "Server answered option %" PRIu32 " where %" PRIu32 " (%s) was asked",
                   r->option, option, opt_name(option));
        return -EINVAL;
    }
    if (r->length > NBD_MAX_OPTION_PAYLOAD) {
        error_setg(errp,
                   "Server sent %" PRIu32 " bytes in reply to option %" PRIu32 " (%s): too many",
                   r->length, option, opt_name(option));
        return -EINVAL;
    }
    r->data = g_malloc(r->length + 1);
    r->data[r->length] = 0;
    return qio_channel_co_read_all(ioc, r->data, r->length, errp);
}

static const char *rep_error_name(uint32_t type)
{
    switch (type) {
    case NBD_REP_ERR_UNSUP:
        return "the server does not support it";
    case NBD_REP_ERR_POLICY:
        return "denied by the server's policy";
    case NBD_REP_ERR_INVALID:
        return "the server found it invalid";
    case NBD_REP_ERR_PLATFORM:
        return "not supported on the server's platform";
    case NBD_REP_ERR_TLS_REQD:
        return "the server requires TLS";
    case NBD_REP_ERR_UNKNOWN:
        return "Requested export not available";
    case NBD_REP_ERR_SHUTDOWN:
        return "the server is shutting down";
    case NBD_REP_ERR_BLOCK_SIZE_REQD:
        return "the server requires block size negotiation";
    case NBD_REP_ERR_TOO_BIG:
        return "too big for the server";
    default:
        return "unknown error";
    }
}

/*
 * The client leaves because the server refuses r->option. It sends ABORT first, which the
 * specification demands where the server has kept to the protocol; an answer is not waited for.
 */
static int opt_refused(QIOChannel *ioc, const OptReply *r, const char *export, GError **errp)
{
    uint8_t bye[NBD_OPTION_BYTES];
    struct iovec iov = {bye, sizeof(bye)};
    g_autofree char *text = r->length && r->length <= NBD_MAX_STRING
                                ? g_utf8_make_valid((char *)r->data, r->length)
                                : NULL;

    error_setg(errp, "NBD server refused option '%s' for export '%s': %s%s%s", opt_name(r->option),
               export, rep_error_name(r->type), text ? ": " : "", text ? text : "");
    nbd_option_encode(bye, NBD_OPT_ABORT, 0);
    (void)qio_channel_writev(ioc, &iov, 1, NULL);
    return -EINVAL;
}

/* A refusal after which no other option can succeed. */
static bool opt_refusal_is_final(const OptReply *r)
{
    return r->type == NBD_REP_ERR_TLS_REQD || r->type == NBD_REP_ERR_SHUTDOWN;
}

/* An option answered by a plain ACK. 1: accepted; 0: refused, *r says how; -errno. */
static int coroutine_fn opt_co_simple(QIOChannel *ioc, uint32_t option, OptReply *r, GError **errp)
{
    int ret = opt_co_send(ioc, option, NULL, 0, errp);

    if (ret >= 0) {
        ret = opt_co_receive(ioc, option, r, errp);
    }
    if (ret < 0) {
        return ret;
    }
    if (r->type & NBD_REP_ERROR_BIT) {
        return 0;
    }
    if (r->type != NBD_REP_ACK || r->length) {
        error_setg(errp, "Server sent an unexpected reply to option '%s'", opt_name(option));
        return -EINVAL;
    }
    return 1;
}

/* --- metadata context --- */

/* Selects target->context where the server has it. 0 or -errno. */
static int coroutine_fn opt_co_context(QIOChannel *ioc, const NbdTarget *target,
                                       NbdExportInfo *info, GError **errp)
{
    size_t elen = strlen(target->export), clen = strlen(target->context);
    g_autofree uint8_t *req = g_malloc(4 + elen + 4 + 4 + clen);
    uint8_t *p = req;
    g_auto(OptReply) r = {0};
    int ret;

    stl_be_p(p, elen);
    memcpy(p + 4, target->export, elen);
    p += 4 + elen;
    stl_be_p(p, 1);
    stl_be_p(p + 4, clen);
    memcpy(p + 8, target->context, clen);
    ret = opt_co_send(ioc, NBD_OPT_SET_META_CONTEXT, req, 12 + elen + clen, errp);
    while (ret >= 0) {
        ret = opt_co_receive(ioc, NBD_OPT_SET_META_CONTEXT, &r, errp);
        if (ret < 0) {
            return ret;
        }
        if (opt_refusal_is_final(&r)) {
            return opt_refused(ioc, &r, target->export, errp);
        }
        if (r.type & NBD_REP_ERROR_BIT) {
            info->has_context = false; /* not an error: there just is no block status */
            return 0;
        }
        if (r.type == NBD_REP_ACK && !r.length) {
            return 0;
        }
        if (r.type == NBD_REP_ACK) {
            error_setg(errp, "Server sent an unexpected reply to option 'set meta context'");
            return -EINVAL;
        }
        if (r.type != NBD_REP_META_CONTEXT || r.length < 5 || info->has_context ||
            r.length - 4 != clen || memcmp(r.data + 4, target->context, clen) != 0) {
            error_setg(errp, "Server selected a metadata context that was not asked for");
            return -EINVAL;
        }
        info->has_context = true;
        info->context_id = ldul_be_p(r.data);
    }
    return ret;
}

/* --- the export --- */

static bool info_set_blocks(NbdExportInfo *info, const OptReply *r, GError **errp)
{
    uint32_t min, pref, max;

    if (r->length != 14) {
        error_setg(errp, "Server sent block sizes of a wrong length");
        return false;
    }
    min = ldul_be_p(r->data + 2);
    pref = ldul_be_p(r->data + 6);
    max = ldul_be_p(r->data + 10);
    if (min == 0 || (min & (min - 1)) || min > 65536) {
        error_setg(errp, "Server sent an invalid minimum block size of %" PRIu32, min);
        return false;
    }
    if (pref < min || (pref & (pref - 1))) {
        error_setg(errp, "Server sent an invalid preferred block size of %" PRIu32, pref);
        return false;
    }
    if (max < min) {
        error_setg(errp, "Server sent an invalid maximum block size of %" PRIu32, max);
        return false;
    }
    info->min_block = min;
    info->pref_block = pref;
    info->max_block = max / min * min;
    return true;
}

static bool info_set(NbdExportInfo *info, const OptReply *r, bool *have_export, GError **errp)
{
    if (r->length < 2) {
        error_setg(errp, "Server sent an information reply that is too short");
        return false;
    }
    switch (lduw_be_p(r->data)) {
    case NBD_INFO_EXPORT:
        if (r->length != 12) {
            error_setg(errp, "Server sent an export size of a wrong length");
            return false;
        }
        info->size = ldq_be_p(r->data + 2);
        info->flags = lduw_be_p(r->data + 10);
        *have_export = true;
        return true;
    case NBD_INFO_BLOCK_SIZE:
        return info_set_blocks(info, r, errp);
    default:
        return true; /* not asked for, not understood, not needed */
    }
}

/* 1: entered transmission; 0: the server does not know GO; -errno. */
static int coroutine_fn opt_co_go(QIOChannel *ioc, const NbdTarget *target, NbdExportInfo *info,
                                  GError **errp)
{
    size_t elen = strlen(target->export);
    g_autofree uint8_t *req = g_malloc(4 + elen + 4);
    g_auto(OptReply) r = {0};
    bool have_export = false;
    int ret;

    stl_be_p(req, elen);
    memcpy(req + 4, target->export, elen);
    stw_be_p(req + 4 + elen, 1);
    stw_be_p(req + 6 + elen, NBD_INFO_BLOCK_SIZE);
    info->min_block = 1;
    info->pref_block = 0;
    info->max_block = NBD_MAX_TRANSFER;
    ret = opt_co_send(ioc, NBD_OPT_GO, req, 8 + elen, errp);
    while (ret >= 0) {
        ret = opt_co_receive(ioc, NBD_OPT_GO, &r, errp);
        if (ret < 0) {
            return ret;
        }
        if (r.type == NBD_REP_ERR_UNSUP) {
            return 0;
        }
        if (r.type & NBD_REP_ERROR_BIT) {
            return opt_refused(ioc, &r, target->export, errp);
        }
        if (r.type == NBD_REP_ACK) {
            if (!have_export || r.length) {
                error_setg(errp, "Server did not say how large export '%s' is", target->export);
                return -EINVAL;
            }
            return 1;
        }
        if (r.type != NBD_REP_INFO) {
            error_setg(errp, "Server sent an unexpected reply to option 'go'");
            return -EINVAL;
        }
        if (!info_set(info, &r, &have_export, errp)) {
            return -EINVAL;
        }
    }
    return ret;
}

static int coroutine_fn opt_co_export_name(QIOChannel *ioc, const NbdTarget *target, bool zeroes,
                                           NbdExportInfo *info, GError **errp)
{
    uint8_t answer[NBD_EXPORT_NAME_BYTES + NBD_EXPORT_NAME_ZEROES];
    int ret = opt_co_send(ioc, NBD_OPT_EXPORT_NAME, target->export, strlen(target->export), errp);

    if (ret >= 0) {
        ret = qio_channel_co_read_all(ioc, answer, zeroes ? sizeof(answer) : NBD_EXPORT_NAME_BYTES,
                                      NULL);
        if (ret < 0) {
            error_setg(
                errp,
                "Requested export not available: server closed the connection when asked for '%s'",
                target->export);
        }
    }
    if (ret < 0) {
        return ret;
    }
    info->size = ldq_be_p(answer);
    info->flags = lduw_be_p(answer + 8);
    info->min_block = BDRV_SECTOR_SIZE; /* what every server takes that cannot say */
    info->pref_block = 0;
    info->max_block = NBD_MAX_TRANSFER;
    return 0;
}

static int coroutine_fn handshake_co_fixed(QIOChannel **ioc, const NbdTarget *target, bool zeroes,
                                           NbdExportInfo *info, GError **errp)
{
    g_auto(OptReply) r = {0};
    int ret;

    if (target->tls_creds) {
        ret = opt_co_simple(*ioc, NBD_OPT_STARTTLS, &r, errp);
        if (ret == 0) {
            return opt_refused(*ioc, &r, target->export, errp);
        }
        if (ret > 0) {
            ret = nbd_client_co_start_tls(ioc, target, errp);
        }
        if (ret < 0) {
            return ret;
        }
    }
    ret = opt_co_simple(*ioc, NBD_OPT_STRUCTURED_REPLY, &r, errp);
    if (ret < 0) {
        return ret;
    }
    if (ret == 0 && opt_refusal_is_final(&r)) {
        return opt_refused(*ioc, &r, target->export, errp);
    }
    info->structured = ret == 1;
    if (info->structured) {
        ret = opt_co_context(*ioc, target, info, errp);
        if (ret < 0) {
            return ret;
        }
    }
    ret = opt_co_go(*ioc, target, info, errp);
    if (ret == 0) {
        ret = opt_co_export_name(*ioc, target, zeroes, info, errp);
    }
    return ret < 0 ? ret : 0;
}

/* Servers from before named exports. */
static int coroutine_fn handshake_co_oldstyle(QIOChannel *ioc, const NbdTarget *target,
                                              NbdExportInfo *info, GError **errp)
{
    uint8_t rest[8 + 4 + NBD_EXPORT_NAME_ZEROES];
    int ret;

    if (*target->export) {
        error_setg(errp, "Server does not support non-empty export names");
        return -EINVAL;
    }
    if (target->tls_creds) {
        error_setg(errp, "Server does not support STARTTLS");
        return -EINVAL;
    }
    ret = qio_channel_co_read_all(ioc, rest, sizeof(rest), errp);
    if (ret < 0) {
        return ret;
    }
    info->size = ldq_be_p(rest);
    info->flags = ldul_be_p(rest + 8) & 0xffff;
    info->min_block = BDRV_SECTOR_SIZE;
    info->max_block = NBD_MAX_TRANSFER;
    return 0;
}

static int coroutine_fn handshake_co_newstyle(QIOChannel **ioc, const NbdTarget *target,
                                              NbdExportInfo *info, GError **errp)
{
    uint8_t buf[4];
    uint16_t flags;
    uint32_t reply;
    int ret = qio_channel_co_read_all(*ioc, buf, 2, errp);

    if (ret < 0) {
        return ret;
    }
    flags = lduw_be_p(buf);
    reply = flags & (NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    stl_be_p(buf, reply);
    ret = qio_channel_co_write_all(*ioc, buf, 4, errp);
    if (ret < 0) {
        return ret;
    }
    if (flags & NBD_FLAG_FIXED_NEWSTYLE) {
        return handshake_co_fixed(ioc, target, !(reply & NBD_FLAG_NO_ZEROES), info, errp);
    }
    if (target->tls_creds) {
        error_setg(errp, "Server does not support fixed newstyle");
        return -EINVAL;
    }
    return opt_co_export_name(*ioc, target, !(reply & NBD_FLAG_NO_ZEROES), info, errp);
}

static int info_check(const NbdTarget *target, NbdExportInfo *info, GError **errp)
{
    if (info->size > (uint64_t)BDRV_MAX_LENGTH) {
        error_setg(errp, "Export '%s' is too large: %" PRIu64 " bytes", target->export, info->size);
        return -EFBIG;
    }
    if (!(info->flags & NBD_FLAG_HAS_FLAGS)) {
        info->flags = 0;
    }
    if (info->size % info->min_block) {
        info->min_block = 1; /* the server contradicts itself; the last bytes must be reachable */
    }
    info->max_block = MIN(info->max_block, NBD_MAX_TRANSFER);
    if (target->context_required && !info->has_context) {
        error_setg(errp, "requested x-dirty-bitmap %s not found", target->context);
        return -EINVAL;
    }
    return 0;
}

int coroutine_fn nbd_client_co_handshake(QIOChannel **ioc, const NbdTarget *target,
                                         NbdExportInfo *info, GError **errp)
{
    uint8_t magic[16];
    int ret = qio_channel_co_read_all(*ioc, magic, sizeof(magic), NULL);

    memset(info, 0, sizeof(*info));
    if (ret < 0) {
        error_setg_errno(errp, -ret, "Failed to read initial magic");
        return ret;
    }
    if (ldq_be_p(magic) != NBD_INIT_MAGIC) {
        error_setg(errp, "Bad initial magic received: the peer is no NBD server");
        return -EINVAL;
    }
    if (ldq_be_p(magic + 8) == NBD_OPTS_MAGIC) {
        ret = handshake_co_newstyle(ioc, target, info, errp);
    } else if (ldq_be_p(magic + 8) == NBD_OLD_MAGIC) {
        ret = handshake_co_oldstyle(*ioc, target, info, errp);
    } else {
        error_setg(errp, "Bad server magic received");
        ret = -EINVAL;
    }
    if (ret < 0) {
        return ret;
    }
    ret = info_check(target, info, errp);
    if (ret < 0) {
        nbd_client_say_goodbye(*ioc);
    }
    return ret;
}
