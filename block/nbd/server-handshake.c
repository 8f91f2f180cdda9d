/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server's side of the fixed newstyle handshake. Main thread, one coroutine a connection.
 *
 * It reads exactly what it parses, never ahead: what a client sends before STARTTLS cannot end up
 * behind it. A client learns nothing about exports before TLS where TLS is required, and nothing it
 * has negotiated in the clear survives STARTTLS.
 *
 * An option is answered by one of the table's functions. They return 0 to go on, NBD_HS_DONE when
 * transmission starts, or -errno when the connection is over.
 */
#include "block/nbd/server-int.h"
#include "trace/trace-block-nbd.h"
#include "util/error.h"
#include "util/int-math.h"

#define NBD_HS_DONE 1

/* An option as received, being parsed. */
typedef struct NbdOpt {
    uint32_t option;
    uint32_t length;
    const uint8_t *data;
    const uint8_t *p, *end; /* what is left to parse */
} NbdOpt;

/* --- answers --- */

static int coroutine_fn nbd_opt_co_reply(NbdConn *conn, const NbdOpt *opt, uint32_t type,
                                         const void *data, size_t bytes, GError **errp)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)data, bytes}};

    nbd_option_reply_encode(head, opt->option, type, bytes);
    return qio_channel_co_writev_all(conn->ioc, iov, bytes ? 2 : 1, errp);
}

static int coroutine_fn nbd_opt_co_ack(NbdConn *conn, const NbdOpt *opt, GError **errp)
{
    return nbd_opt_co_reply(conn, opt, NBD_REP_ACK, NULL, 0, errp);
}

static int coroutine_fn nbd_opt_co_refuse(NbdConn *conn, const NbdOpt *opt, uint32_t type,
                                          GError **errp, const char *fmt, ...) G_GNUC_PRINTF(5, 6);

static int coroutine_fn nbd_opt_co_refuse(NbdConn *conn, const NbdOpt *opt, uint32_t type,
                                          GError **errp, const char *fmt, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    text = g_strdup_vprintf(fmt, ap);
    va_end(ap);
    return nbd_opt_co_reply(conn, opt, type, text, MIN(strlen(text), NBD_MAX_STRING), errp);
}

static int coroutine_fn nbd_opt_co_invalid(NbdConn *conn, const NbdOpt *opt, GError **errp)
{
    return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_INVALID, errp,
                             "option %" PRIu32 " has an invalid length or content", opt->option);
}

/* --- parsing --- */

static bool nbd_opt_get16(NbdOpt *opt, uint16_t *v)
{
    if (opt->end - opt->p < 2) {
        return false;
    }
    *v = lduw_be_p(opt->p);
    opt->p += 2;
    return true;
}

static bool nbd_opt_get32(NbdOpt *opt, uint32_t *v)
{
    if (opt->end - opt->p < 4) {
        return false;
    }
    *v = ldul_be_p(opt->p);
    opt->p += 4;
    return true;
}

/* A string with its length in front; NULL when it does not fit, is too long or holds a NUL. */
static char *nbd_opt_get_string(NbdOpt *opt)
{
    uint32_t len;
    char *str;

    if (!nbd_opt_get32(opt, &len) || len > NBD_MAX_STRING || (size_t)(opt->end - opt->p) < len ||
        memchr(opt->p, 0, len)) {
        return NULL;
    }
    str = g_strndup((const char *)opt->p, len);
    opt->p += len;
    return str;
}

/* --- exports --- */

/* The export a client means; holds a reference. NULL: unknown. */
static NbdExport *nbd_conn_find_export(const char *name)
{
    NbdExport *exp = nbd_export_find(name);

    if (exp) {
        blk_exp_ref(&exp->common);
    }
    return exp;
}

static int coroutine_fn nbd_opt_co_list(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    if (opt->length) {
        return nbd_opt_co_invalid(conn, opt, errp);
    }
    /* gather first: the list may change while an answer is on its way */
    g_autoptr(GPtrArray) answers =
        g_ptr_array_new_with_free_func((GDestroyNotify)g_byte_array_unref);

    for (NbdExport *exp = nbd_export_next(NULL); exp; exp = nbd_export_next(exp)) {
        GByteArray *a = g_byte_array_new();
        uint8_t len[4];

        stl_be_p(len, strlen(exp->name));
        g_byte_array_append(a, len, sizeof(len));
        g_byte_array_append(a, (const uint8_t *)exp->name, strlen(exp->name));
        if (exp->description) {
            g_byte_array_append(a, (const uint8_t *)exp->description, strlen(exp->description));
        }
        g_ptr_array_add(answers, a);
    }
    for (unsigned i = 0; i < answers->len; i++) {
        GByteArray *a = g_ptr_array_index(answers, i);
        int ret = nbd_opt_co_reply(conn, opt, NBD_REP_SERVER, a->data, a->len, errp);

        if (ret < 0) {
            return ret;
        }
    }
    return nbd_opt_co_ack(conn, opt, errp);
}

/*
 * Contexts selected for another export than the one chosen do not count, nor do those of an export
 * of the same name that was removed since: its bitmaps were others.
 */
static void nbd_conn_enter_export(NbdConn *conn, NbdExport *exp)
{
    conn->exp = exp;
    if (!conn->structured || conn->contexts.export_serial != exp->serial) {
        conn->contexts.n = 0;
    }
}

static int coroutine_fn nbd_opt_co_export_name(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    uint8_t answer[NBD_EXPORT_NAME_BYTES + NBD_EXPORT_NAME_ZEROES] = {0};
    g_autofree char *name = g_strndup((const char *)opt->data, opt->length);
    bool valid = opt->length <= NBD_MAX_STRING && !memchr(opt->data, 0, opt->length);
    NbdExport *exp = valid ? nbd_conn_find_export(name) : NULL;
    int ret;

    if (!exp) {
        error_setg(errp, "Client asked for unknown export '%s'", name);
        return -ENOENT;
    }
    stq_be_p(answer, MAX(nbd_export_size(exp), 0));
    stw_be_p(answer + 8, nbd_export_flags(exp, conn->structured));
    ret = qio_channel_co_write_all(conn->ioc, answer,
                                   conn->no_zeroes ? NBD_EXPORT_NAME_BYTES : sizeof(answer), errp);
    if (ret < 0) {
        blk_exp_unref(&exp->common);
        return ret;
    }
    nbd_conn_enter_export(conn, exp);
    return NBD_HS_DONE;
}

/* --- INFO and GO --- */

static int coroutine_fn nbd_opt_co_info(NbdConn *conn, const NbdOpt *opt, uint16_t info,
                                        const void *data, size_t bytes, GError **errp)
{
    g_autofree uint8_t *payload = g_malloc(2 + bytes);

    stw_be_p(payload, info);
    memcpy(payload + 2, data, bytes);
    return nbd_opt_co_reply(conn, opt, NBD_REP_INFO, payload, 2 + bytes, errp);
}

/* Minimum, preferred and maximum: any byte range works, aligned ones without read-modify-write. */
static int coroutine_fn nbd_opt_co_info_sizes(NbdConn *conn, const NbdOpt *opt, NbdExport *exp,
                                              bool asked, GError **errp)
{
    BlockDriverState *bs = blk_bs(exp->common.blk);
    uint32_t align = bs ? bs->bl.request_alignment : 1;
    uint32_t preferred = MAX(align, 4096);
    uint8_t sizes[12];

    if (bs && bs->bl.opt_transfer > preferred && is_power_of_2(bs->bl.opt_transfer)) {
        preferred = MIN(bs->bl.opt_transfer, NBD_MAX_TRANSFER);
    }
    stl_be_p(sizes, asked ? MIN(MAX(align, 1), 65536) : 1);
    stl_be_p(sizes + 4, preferred);
    stl_be_p(sizes + 8, NBD_MAX_TRANSFER);
    return nbd_opt_co_info(conn, opt, NBD_INFO_BLOCK_SIZE, sizes, sizeof(sizes), errp);
}

static int coroutine_fn nbd_opt_co_send_info(NbdConn *conn, const NbdOpt *opt, NbdExport *exp,
                                             unsigned asked, GError **errp)
{
    uint8_t export[10];
    int ret = 0;

    if (asked & (1u << NBD_INFO_NAME)) {
        ret = nbd_opt_co_info(conn, opt, NBD_INFO_NAME, exp->name, strlen(exp->name), errp);
    }
    if (ret >= 0 && (asked & (1u << NBD_INFO_DESCRIPTION)) && exp->description) {
        ret = nbd_opt_co_info(conn, opt, NBD_INFO_DESCRIPTION, exp->description,
                              strlen(exp->description), errp);
    }
    if (ret >= 0) {
        ret = nbd_opt_co_info_sizes(conn, opt, exp, asked & (1u << NBD_INFO_BLOCK_SIZE), errp);
    }
    if (ret >= 0) {
        stq_be_p(export, MAX(nbd_export_size(exp), 0));
        stw_be_p(export + 8, nbd_export_flags(exp, conn->structured));
        ret = nbd_opt_co_info(conn, opt, NBD_INFO_EXPORT, export, sizeof(export), errp);
    }
    return ret < 0 ? ret : nbd_opt_co_ack(conn, opt, errp);
}

static int coroutine_fn nbd_opt_co_go(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    g_autofree char *name = nbd_opt_get_string(opt);
    unsigned asked = 0;
    uint16_t n, info;
    NbdExport *exp;
    int ret;

    if (!name || !nbd_opt_get16(opt, &n) || opt->end - opt->p != n * 2) {
        return nbd_opt_co_invalid(conn, opt, errp);
    }
    while (n-- && nbd_opt_get16(opt, &info)) {
        if (info < 32) {
            asked |= 1u << info;
        }
    }
    exp = nbd_conn_find_export(name);
    if (!exp) {
        return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_UNKNOWN, errp, "export '%s' not present",
                                 name);
    }
    ret = nbd_opt_co_send_info(conn, opt, exp, asked, errp);
    if (ret == 0 && opt->option == NBD_OPT_GO) {
        nbd_conn_enter_export(conn, exp);
        return NBD_HS_DONE;
    }
    blk_exp_unref(&exp->common);
    return ret;
}

/* --- metadata contexts --- */

static char *nbd_context_name(const NbdExport *exp, const NbdContext *ctx)
{
    switch (ctx->kind) {
    case NBD_CTX_ALLOCATION:
        return g_strdup(NBD_CONTEXT_ALLOCATION);
    case NBD_CTX_ALLOCATION_DEPTH:
        return g_strdup(NBD_CONTEXT_ALLOCATION_DEPTH);
    default:
        return g_strdup(exp->bitmaps[ctx->bitmap].context);
    }
}

/*
 * Whether a query (NULL: everything) selects a context; a wildcard ("qemu:") does so in a listing
 * only.
 */
static bool nbd_query_matches(const char *query, const char *context, bool listing)
{
    if (!query || !strcmp(query, context)) {
        return true;
    }
    return listing &&
           (!strcmp(query, "base:") || !strcmp(query, "qemu:") ||
            !strcmp(query, NBD_CONTEXT_DIRTY_BITMAP)) &&
           g_str_has_prefix(context, query);
}

static void nbd_contexts_add(NbdContexts *contexts, NbdContextKind kind, unsigned bitmap)
{
    for (unsigned i = 0; i < contexts->n; i++) {
        if (contexts->list[i].kind == kind && contexts->list[i].bitmap == bitmap) {
            return;
        }
    }
    if (contexts->n < NBD_MAX_CONTEXTS) {
        contexts->list[contexts->n++] = (NbdContext){kind, bitmap};
    }
}

static void nbd_contexts_query(NbdContexts *contexts, const NbdExport *exp, const char *query,
                               bool listing)
{
    if (nbd_query_matches(query, NBD_CONTEXT_ALLOCATION, listing)) {
        nbd_contexts_add(contexts, NBD_CTX_ALLOCATION, 0);
    }
    if (exp->allocation_depth && nbd_query_matches(query, NBD_CONTEXT_ALLOCATION_DEPTH, listing)) {
        nbd_contexts_add(contexts, NBD_CTX_ALLOCATION_DEPTH, 0);
    }
    for (unsigned i = 0; i < exp->n_bitmaps; i++) {
        if (nbd_query_matches(query, exp->bitmaps[i].context, listing)) {
            nbd_contexts_add(contexts, NBD_CTX_BITMAP, i);
        }
    }
}

/* Reads all queries; false: malformed. */
static bool nbd_opt_parse_queries(NbdOpt *opt, const NbdExport *exp, bool listing,
                                  NbdContexts *contexts)
{
    uint32_t n;

    if (!nbd_opt_get32(opt, &n)) {
        return false;
    }
    if (n == 0 && listing) {
        nbd_contexts_query(contexts, exp, NULL, true);
    }
    while (n--) {
        g_autofree char *query = nbd_opt_get_string(opt);

        if (!query) {
            return false;
        }
        nbd_contexts_query(contexts, exp, query, listing);
    }
    return opt->p == opt->end;
}

static int coroutine_fn nbd_opt_co_send_contexts(NbdConn *conn, const NbdOpt *opt,
                                                 const NbdExport *exp, bool listing,
                                                 const NbdContexts *contexts, GError **errp)
{
    for (unsigned i = 0; i < contexts->n; i++) {
        g_autofree char *name = nbd_context_name(exp, &contexts->list[i]);
        size_t len = strlen(name);
        g_autofree uint8_t *payload = g_malloc(4 + len);
        int ret;

        stl_be_p(payload, listing ? 0 : i);
        memcpy(payload + 4, name, len);
        ret = nbd_opt_co_reply(conn, opt, NBD_REP_META_CONTEXT, payload, 4 + len, errp);
        if (ret < 0) {
            return ret;
        }
    }
    return nbd_opt_co_ack(conn, opt, errp);
}

static int coroutine_fn nbd_opt_co_meta(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    bool listing = opt->option == NBD_OPT_LIST_META_CONTEXT;
    g_autofree char *name = nbd_opt_get_string(opt);
    NbdContexts found = {0};
    NbdExport *exp;
    int ret;

    if (!listing) {
        conn->contexts.n = 0; /* also when this fails */
    }
    if (!conn->structured) {
        return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_INVALID, errp,
                                 "metadata contexts need structured replies first");
    }
    if (!name) {
        return nbd_opt_co_invalid(conn, opt, errp);
    }
    exp = nbd_conn_find_export(name);
    if (!exp) {
        return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_UNKNOWN, errp, "export '%s' not present",
                                 name);
    }
    if (!nbd_opt_parse_queries(opt, exp, listing, &found)) {
        ret = nbd_opt_co_invalid(conn, opt, errp);
    } else {
        ret = nbd_opt_co_send_contexts(conn, opt, exp, listing, &found, errp);
        if (ret == 0 && !listing) {
            conn->contexts = found;
            conn->contexts.export_serial = exp->serial;
        }
    }
    blk_exp_unref(&exp->common);
    return ret;
}

/* --- the rest --- */

static int coroutine_fn nbd_opt_co_abort(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    (void)nbd_opt_co_ack(conn, opt, NULL); /* the client may be gone already */
    return -ESHUTDOWN;
}

static int coroutine_fn nbd_opt_co_structured(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    if (opt->length) {
        return nbd_opt_co_invalid(conn, opt, errp);
    }
    conn->structured = true;
    return nbd_opt_co_ack(conn, opt, errp);
}

static int coroutine_fn nbd_opt_co_starttls(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    int ret;

    if (opt->length || conn->tls) {
        return nbd_opt_co_invalid(conn, opt, errp);
    }
    if (!nbd_server_creds()) {
        return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_POLICY, errp, "TLS not configured");
    }
    ret = nbd_opt_co_ack(conn, opt, errp);
    return ret < 0 ? ret : nbd_conn_co_starttls(conn, errp);
}

/* What answers which option. */
static const struct {
    NbdOption option;
    bool before_tls; /* also where TLS is required and not there yet */
    int coroutine_fn (*answer)(NbdConn *conn, NbdOpt *opt, GError **errp);
} nbd_options[] = {
    {NBD_OPT_EXPORT_NAME, false, nbd_opt_co_export_name},
    {NBD_OPT_ABORT, true, nbd_opt_co_abort},
    {NBD_OPT_LIST, false, nbd_opt_co_list},
    {NBD_OPT_STARTTLS, true, nbd_opt_co_starttls},
    {NBD_OPT_INFO, false, nbd_opt_co_go},
    {NBD_OPT_GO, false, nbd_opt_co_go},
    {NBD_OPT_STRUCTURED_REPLY, false, nbd_opt_co_structured},
    {NBD_OPT_LIST_META_CONTEXT, false, nbd_opt_co_meta},
    {NBD_OPT_SET_META_CONTEXT, false, nbd_opt_co_meta},
};

static int coroutine_fn nbd_opt_co_answer(NbdConn *conn, NbdOpt *opt, GError **errp)
{
    bool need_tls = nbd_server_creds() && !conn->tls;

    for (unsigned i = 0; i < G_N_ELEMENTS(nbd_options); i++) {
        if (nbd_options[i].option != opt->option) {
            continue;
        }
        if (!need_tls || nbd_options[i].before_tls) {
            return nbd_options[i].answer(conn, opt, errp);
        }
        if (opt->option == NBD_OPT_EXPORT_NAME) {
            error_setg(errp, "Client asked for an export before TLS");
            return -EPERM;
        }
    }
    if (need_tls) {
        return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_TLS_REQD, errp,
                                 "option %" PRIu32 " not permitted before TLS", opt->option);
    }
    return nbd_opt_co_refuse(conn, opt, NBD_REP_ERR_UNSUP, errp, "Unsupported option %" PRIu32,
                             opt->option);
}

/* Reads over an option that is too large to look at. */
static int coroutine_fn nbd_opt_co_skip(NbdConn *conn, uint32_t bytes, GError **errp)
{
    uint8_t sink[4096];

    while (bytes) {
        uint32_t n = MIN(bytes, sizeof(sink));
        int ret = qio_channel_co_read_all(conn->ioc, sink, n, errp);

        if (ret < 0) {
            return ret;
        }
        bytes -= n;
    }
    return 0;
}

/* Takes one option off the wire and answers it. */
static int coroutine_fn nbd_conn_co_option(NbdConn *conn, GError **errp)
{
    uint8_t head[NBD_OPTION_BYTES];
    g_autofree uint8_t *data = NULL;
    NbdOpt opt = {0};
    int ret = qio_channel_co_read_all(conn->ioc, head, sizeof(head), errp);

    if (ret < 0) {
        return ret;
    }
    opt.option = ldul_be_p(head + 8);
    opt.length = ldul_be_p(head + 12);
    trace_nbd_server_option(conn->peer, opt.option, opt.length);
    if (ldq_be_p(head) != NBD_OPTS_MAGIC || opt.length > NBD_MAX_TRANSFER ||
        (!conn->fixed_newstyle && opt.option != NBD_OPT_EXPORT_NAME)) {
        error_setg(errp, "Client sent a malformed option");
        return -EINVAL;
    }
    if (opt.length > NBD_MAX_OPTION_PAYLOAD) {
        ret = nbd_opt_co_skip(conn, opt.length, errp);
        if (ret < 0 || opt.option == NBD_OPT_EXPORT_NAME) {
            return -EINVAL;
        }
        return nbd_opt_co_refuse(conn, &opt, NBD_REP_ERR_TOO_BIG, errp, "option is too big");
    }
    data = g_malloc(opt.length + 1);
    ret = qio_channel_co_read_all(conn->ioc, data, opt.length, errp);
    if (ret < 0) {
        return ret;
    }
    opt.data = opt.p = data;
    opt.end = data + opt.length;
    return nbd_opt_co_answer(conn, &opt, errp);
}

int coroutine_fn nbd_conn_co_handshake(NbdConn *conn, GError **errp)
{
    uint8_t greeting[NBD_GREETING_BYTES];
    uint8_t reply[4];
    uint32_t flags;
    int ret;

    stq_be_p(greeting, NBD_INIT_MAGIC);
    stq_be_p(greeting + 8, NBD_OPTS_MAGIC);
    stw_be_p(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    ret = qio_channel_co_write_all(conn->ioc, greeting, sizeof(greeting), errp);
    if (ret >= 0) {
        ret = qio_channel_co_read_all(conn->ioc, reply, sizeof(reply), errp);
    }
    if (ret < 0) {
        return ret;
    }
    flags = ldul_be_p(reply);
    if (flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        error_setg(errp, "Client sent unknown flags 0x%" PRIx32, flags);
        return -EINVAL;
    }
    conn->fixed_newstyle = flags & NBD_FLAG_FIXED_NEWSTYLE;
    conn->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    do {
        ret = nbd_conn_co_option(conn, errp);
    } while (ret == 0);
    return ret < 0 ? ret : 0;
}
