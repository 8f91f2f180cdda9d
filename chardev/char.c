/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Character devices: their list, and the meeting of front and back end. */
#include "chardev/char-int.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "util/error.h"
#include "util/open.h"

TAILQ_HEAD(ChardevList, Chardev);

static struct {
    struct ChardevList list;
    struct ChardevList opening; /* not yet in the list: co_open() runs */
    bool abandoned;             /* what opens fails, and so does every later one */
} chardevs = {TAILQ_HEAD_INITIALIZER(chardevs.list), TAILQ_HEAD_INITIALIZER(chardevs.opening)};

static const ChardevClass *const classes[] = {
    &chardev_file_class, &chardev_mux_class,     &chardev_null_class,   &chardev_pipe_class,
    &chardev_pty_class,  &chardev_ringbuf_class, &chardev_socket_class, &chardev_stdio_class,
};

static const QomType base_type = {.name = "chardev", .abstract = true};
static QomType types[G_N_ELEMENTS(classes)];

void qemu_chr_register_types(void)
{
    qom_type_register(&base_type);
    for (size_t i = 0; i < G_N_ELEMENTS(classes); i++) {
        types[i].name = g_strconcat("chardev-", classes[i]->name, NULL);
        types[i].parent = base_type.name;
        qom_type_register(&types[i]);
    }
}

static const QomType *object_type(const ChardevClass *klass)
{
    size_t i = 0;

    while (classes[i] != klass) {
        i++;
    }
    return &types[i];
}

/* --- back ends call --- */

void qemu_chr_be_opened(Chardev *chr)
{
    chr->open = true;
    if (chr->fe && chr->fe->ops->event) {
        chr->fe->ops->event(chr->fe->opaque, CHR_EVENT_OPENED);
    }
}

void qemu_chr_be_closed(Chardev *chr)
{
    if (!chr->open) {
        return;
    }
    chr->open = false;
    if (chr->fe && chr->fe->ops->event) {
        chr->fe->ops->event(chr->fe->opaque, CHR_EVENT_CLOSED);
    }
}

bool qemu_chr_be_eof(Chardev *chr)
{
    if (!chr->open || !chr->fe || !chr->fe->ops->event) {
        return false;
    }
    if (chr->klass->eof) {
        chr->klass->eof(chr);
    }
    chr->fe->ops->event(chr->fe->opaque, CHR_EVENT_EOF);
    return true;
}

size_t qemu_chr_be_can_read(Chardev *chr)
{
    return chr->fe ? MIN(chr->fe->ops->can_read(chr->fe->opaque), CHR_READ_BUF_LEN) : 0;
}

void qemu_chr_be_read(Chardev *chr, const uint8_t *buf, size_t len, const int *fds, size_t nfds)
{
    if (nfds) {
        if (chr->fe && chr->fe->ops->receive_fds) {
            chr->fe->ops->receive_fds(chr->fe->opaque, fds, nfds);
        } else {
            for (size_t i = 0; i < nfds; i++) {
                close(fds[i]);
            }
        }
    }
    if (chr->fe && len) {
        chr->fe->ops->read(chr->fe->opaque, buf, len);
    }
}

void qemu_chr_be_drained(Chardev *chr)
{
    if (chr->fe && chr->fe->ops->drained) {
        chr->fe->ops->drained(chr->fe->opaque);
    }
}

/* --- front ends call --- */

static void update_read(Chardev *chr)
{
    if (chr->klass->update_read) {
        chr->klass->update_read(chr);
    }
}

bool qemu_chr_fe_init(CharFrontend *fe, Chardev *chr, const CharFrontendOps *ops, void *opaque,
                      size_t output_limit, GError **errp)
{
    if (chr->klass->attach ? !chr->klass->attach(chr, fe) : chr->fe != NULL) {
        error_setg(errp, "Device '%s' is in use", chr->label);
        return false;
    }
    *fe = (CharFrontend){
        .chr = chr,
        .ops = ops,
        .opaque = opaque,
        .output_limit = output_limit ? output_limit : CHR_OUTPUT_LIMIT,
    };
    if (!chr->klass->attach) {
        chr->fe = fe;
        if (ops->line_mode && chr->klass->line_mode) {
            chr->klass->line_mode(chr);
        }
    }
    if (chr->open && ops->event) {
        ops->event(opaque, CHR_EVENT_OPENED);
    }
    update_read(chr);
    return true;
}

static void detach(CharFrontend *fe)
{
    Chardev *chr = fe->chr;

    g_assert(chr);
    fe->chr = NULL;
    if (chr->klass->detach) {
        chr->klass->detach(chr, fe);
    } else {
        chr->fe = NULL;
    }
}

void qemu_chr_fe_deinit(CharFrontend *fe)
{
    Chardev *chr = fe->chr;

    if (chr) {
        detach(fe);
        update_read(chr);
    }
}

void qemu_chr_fe_accept_input(CharFrontend *fe)
{
    if (fe->chr) {
        update_read(fe->chr);
    }
}

static void log_output(Chardev *chr, const uint8_t *buf, size_t len)
{
    while (len) {
        ssize_t n = write(chr->log_fd, buf, len);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return; /* the log is a convenience; the device goes on without it */
        }
        buf += n;
        len -= (size_t)n;
    }
}

size_t qemu_chr_fe_write(CharFrontend *fe, const void *buf, size_t len)
{
    Chardev *chr = fe->chr;
    size_t pending = qemu_chr_fe_pending(fe), n;

    if (!chr) {
        return len;
    }
    n = pending >= fe->output_limit ? 0 : MIN(len, fe->output_limit - pending);
    if (!n) {
        return 0;
    }
    if (chr->log_fd >= 0) {
        log_output(chr, buf, n);
    }
    if (!chr->open) {
        return len;
    }
    chr->klass->write(chr, buf, n);
    return n;
}

size_t qemu_chr_fe_pending(const CharFrontend *fe)
{
    return fe->chr && fe->chr->klass->pending ? fe->chr->klass->pending(fe->chr) : 0;
}

static void disconnect(CharFrontend *fe, bool at_once)
{
    if (fe->chr && fe->chr->open && fe->chr->klass->disconnect) {
        fe->chr->klass->disconnect(fe->chr, at_once);
    }
}

void qemu_chr_fe_disconnect(CharFrontend *fe)
{
    disconnect(fe, false);
}

void qemu_chr_fe_abort(CharFrontend *fe)
{
    disconnect(fe, true);
}

/* --- life --- */

/* The members every kind has. */
static const ChardevCommon *backend_common(const ChardevBackend *backend)
{
    switch (backend->type) {
    case CHARDEV_BACKEND_KIND_FILE:
        return (const ChardevCommon *)backend->u.file.data;
    case CHARDEV_BACKEND_KIND_PIPE:
        return (const ChardevCommon *)backend->u.pipe.data;
    case CHARDEV_BACKEND_KIND_SOCKET:
        return (const ChardevCommon *)backend->u.socket.data;
    case CHARDEV_BACKEND_KIND_PTY:
        return (const ChardevCommon *)backend->u.pty.data;
    case CHARDEV_BACKEND_KIND_NULL:
        return backend->u.null.data;
    case CHARDEV_BACKEND_KIND_STDIO:
        return (const ChardevCommon *)backend->u.stdio.data;
    case CHARDEV_BACKEND_KIND_MUX:
        return (const ChardevCommon *)backend->u.mux.data;
    case CHARDEV_BACKEND_KIND_RINGBUF:
        return (const ChardevCommon *)backend->u.ringbuf.data;
    default:
        return NULL;
    }
}

static bool open_log(Chardev *chr, const ChardevCommon *common, GError **errp)
{
    int flags = O_WRONLY | O_CREAT | O_NONBLOCK; /* a full pipe loses output; nothing waits */

    if (!common || !common->logfile) {
        return true;
    }
    flags |= common->has_logappend && common->logappend ? O_APPEND : O_TRUNC;
    chr->log_fd = qemu_open(common->logfile, flags, 0666, errp);
    return chr->log_fd >= 0;
}

static void chr_free(Chardev *chr)
{
    chr->klass->close(chr);
    qom_object_free(chr->face);
    if (chr->log_fd >= 0) {
        close(chr->log_fd);
    }
    aio_context_unref(chr->ctx);
    g_free(chr->pty);
    g_free(chr->label);
    g_free(chr);
}

static bool coroutine_fn co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    g_autoptr(GError) err = NULL;
    bool opened;

    chr->abandoned = chardevs.abandoned;
    TAILQ_INSERT_TAIL(&chardevs.opening, chr, next);
    opened = !chr->abandoned && open_log(chr, backend_common(backend), &err) &&
             chr->klass->co_open(chr, backend, &err);
    TAILQ_REMOVE(&chardevs.opening, chr, next);
    if (chr->abandoned) {
        error_setg(errp, "Chardev '%s' was given up: the process is ending", chr->label);
        return false;
    }
    if (!opened) {
        g_propagate_error(errp, g_steal_pointer(&err));
    }
    return opened;
}

void qemu_chr_abandon_opening(void)
{
    Chardev *chr;

    chardevs.abandoned = true;
    TAILQ_FOREACH(chr, &chardevs.opening, next) {
        chr->abandoned = true;
        if (chr->klass->abandon) {
            chr->klass->abandon(chr);
        }
    }
}

Chardev *coroutine_fn qemu_chr_co_new(const char *label, const ChardevBackend *backend,
                                      GError **errp)
{
    const ChardevClass *klass = NULL;
    Chardev *chr;

    if (qemu_chr_find(label)) {
        error_setg(errp, "Chardev with id '%s' already exists", label);
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(classes) && !klass; i++) {
        klass = classes[i]->kind == backend->type ? classes[i] : NULL;
    }
    if (!klass) {
        error_setg(errp, "chardev driver '%s' is not supported",
                   ChardevBackendKind_str(backend->type));
        return NULL;
    }
    chr = g_malloc0(klass->instance_size);
    chr->klass = klass;
    chr->label = g_strdup(label);
    chr->ctx = aio_context_ref(qemu_get_aio_context());
    chr->log_fd = -1;
    if (!co_open(chr, backend, errp)) {
        chr_free(chr);
        return NULL;
    }
    /* Opening may have waited: the name may be taken by now. */
    if (qemu_chr_find(label)) {
        error_setg(errp, "Chardev with id '%s' already exists", label);
        chr_free(chr);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&chardevs.list, chr, next);
    chr->face = qom_object_new(qom_container("chardevs"), label, object_type(klass), chr);
    return chr;
}

Chardev *coroutine_fn qemu_chr_co_new_shared(const char *label, const ChardevBackend *backend,
                                             GError **errp)
{
    g_autofree char *base = g_strconcat(label, "-base", NULL);
    ChardevMux data = {.chardev = base};
    ChardevBackend mux = {.type = CHARDEV_BACKEND_KIND_MUX, .u.mux.data = &data};
    Chardev *chr;

    if (!qemu_chr_co_new(base, backend, errp)) {
        return NULL;
    }
    chr = qemu_chr_co_new(label, &mux, errp);
    if (!chr) {
        (void)qemu_chr_remove(base, NULL);
    }
    return chr;
}

bool coroutine_fn qemu_chr_co_move(Chardev *chr, AioContext *ctx, bool at_once)
{
    AioContext *home = qemu_get_current_aio_context();
    bool whole = true;

    g_assert(!chr->fe && !qemu_chr_is_shared(chr));
    if (chr->ctx == ctx) {
        return true;
    }
    aio_co_reschedule_self(chr->ctx);
    if (chr->klass->co_leave) {
        whole = chr->klass->co_leave(chr, at_once);
    }
    aio_co_reschedule_self(ctx);
    aio_context_unref(chr->ctx);
    chr->ctx = aio_context_ref(ctx);
    if (chr->klass->enter) {
        chr->klass->enter(chr);
    }
    aio_co_reschedule_self(home);
    return whole;
}

bool qemu_chr_remove(const char *label, GError **errp)
{
    Chardev *chr = qemu_chr_find(label);

    if (!chr) {
        error_setg(errp, "Chardev '%s' not found", label);
        return false;
    }
    if (chr->fe) {
        error_setg(errp, "Chardev '%s' is busy", label);
        return false;
    }
    TAILQ_REMOVE(&chardevs.list, chr, next);
    chr_free(chr);
    return true;
}

Chardev *qemu_chr_find(const char *label)
{
    Chardev *chr;

    TAILQ_FOREACH(chr, &chardevs.list, next) {
        if (!strcmp(chr->label, label)) {
            return chr;
        }
    }
    return NULL;
}

Chardev *qemu_chr_next(Chardev *chr)
{
    return chr ? TAILQ_NEXT(chr, next) : TAILQ_FIRST(&chardevs.list);
}

const char *qemu_chr_label(const Chardev *chr)
{
    return chr->label;
}

char *qemu_chr_filename(const Chardev *chr)
{
    return chr->klass->filename ? chr->klass->filename(chr) : g_strdup(chr->klass->name);
}

const char *qemu_chr_pty(const Chardev *chr)
{
    return chr->pty;
}

bool qemu_chr_has_frontend(const Chardev *chr)
{
    return chr->fe;
}

bool qemu_chr_is_shared(const Chardev *chr)
{
    return chr->klass->attach;
}

void qemu_chr_cleanup(void)
{
    Chardev *chr;

    while ((chr = TAILQ_FIRST(&chardevs.list))) {
        TAILQ_REMOVE(&chardevs.list, chr, next);
        while (chr->fe) {
            detach(chr->fe);
        }
        chr_free(chr);
    }
}
