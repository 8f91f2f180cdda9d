/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * chardev mux: several front ends share another chardev, the base. All of them write. Input goes to
 * the one that has the focus, which Ctrl-a c moves on. Ctrl-a h lists the other keys.
 *
 * Input is kept for its front end until that takes it, so that a busy one does not hold up the keys
 * that lead away from it.
 */
#include <string.h>
#include <unistd.h>
#include "chardev/char-int.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/timer.h"

#define MUX_MAX 4
/* Unread bytes that are kept for one front end. */
#define MUX_INPUT_MAX 4096
#define MUX_ESCAPE    0x01 /* Ctrl-a */

/* A front end and the input that it has not taken yet. */
typedef struct MuxUser {
    CharFrontend *fe;
    GByteArray *input;
} MuxUser;

typedef struct MuxChardev {
    Chardev parent;
    CharFrontend base;
    MuxUser users[MUX_MAX];
    unsigned n;
    CharFrontend *told; /* knows that it has the focus, which parent.fe has */
    bool escaped;       /* the last byte was Ctrl-a */
    unsigned leaving;   /* front ends that have nothing more to say after the end of the input */
    bool eof;
    bool timestamps, within_line;
    int64_t start_ns;
    QEMUBH *bh; /* tells of the focus and hands out input */
} MuxChardev;

static void (*exit_hook)(void);

void qemu_chr_mux_set_exit(void (*exit_func)(void))
{
    exit_hook = exit_func;
}

/* --- to the front ends --- */

static void tell(CharFrontend *fe, QEMUChrEvent event)
{
    if (fe->ops->event) {
        fe->ops->event(fe->opaque, event);
    }
}

static void mux_tell_focus(MuxChardev *mux)
{
    CharFrontend *old = mux->told;

    if (old == mux->parent.fe || !mux->parent.open) {
        return;
    }
    mux->told = mux->parent.fe;
    if (old) {
        tell(old, CHR_EVENT_MUX_OUT);
    }
    if (mux->told) {
        tell(mux->told, CHR_EVENT_MUX_IN);
    }
}

/* To all; they may come and go meanwhile. */
static void mux_tell_all(MuxChardev *mux, QEMUChrEvent event)
{
    CharFrontend *fes[MUX_MAX];
    unsigned n = mux->n;

    for (unsigned i = 0; i < n; i++) {
        fes[i] = mux->users[i].fe;
    }
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < mux->n; j++) {
            if (mux->users[j].fe == fes[i]) {
                tell(fes[i], event);
                break;
            }
        }
    }
}

/* Hands a front end what it takes of its input. False: it may be gone. */
static bool mux_deliver(MuxUser *user)
{
    CharFrontend *fe = user->fe;
    uint8_t buf[MUX_INPUT_MAX];
    size_t len = MIN(MIN(user->input->len, sizeof(buf)), fe->ops->can_read(fe->opaque));

    if (!len) {
        return true;
    }
    memcpy(buf, user->input->data, len);
    g_byte_array_remove_range(user->input, 0, len);
    fe->ops->read(fe->opaque, buf, len);
    return false;
}

static void mux_run(void *opaque)
{
    MuxChardev *mux = opaque;

    mux_tell_focus(mux);
    for (unsigned i = 0; i < mux->n; i++) {
        if (!mux_deliver(&mux->users[i])) {
            qemu_bh_schedule(mux->bh);
        }
    }
    qemu_chr_fe_accept_input(&mux->base);
}

/* --- keys --- */

static void mux_print(MuxChardev *mux, const char *text)
{
    (void)qemu_chr_fe_write(&mux->base, text, strlen(text));
}

static void mux_help(MuxChardev *mux)
{
    mux_print(mux, "\r\n"
                   "Ctrl-a h    this list\r\n"
                   "Ctrl-a x    end the emulator\r\n"
                   "Ctrl-a t    times at the beginning of lines, on and off\r\n"
                   "Ctrl-a c    next user of this terminal: console, monitor\r\n"
                   "Ctrl-a Ctrl-a  send Ctrl-a\r\n");
}

static unsigned mux_focus(const MuxChardev *mux)
{
    unsigned i = 0;

    while (mux->users[i].fe != mux->parent.fe) {
        i++;
    }
    return i;
}

/* The key after Ctrl-a. True: it is the front end's. */
static bool mux_command(MuxChardev *mux, uint8_t key)
{
    switch (key) {
    case MUX_ESCAPE:
        return true;
    case 'h':
    case '?':
        mux_help(mux);
        break;
    case 'x':
        mux_print(mux, "QEMU: Terminated\r\n");
        if (exit_hook) {
            exit_hook();
        }
        break;
    case 't':
        mux->timestamps = !mux->timestamps;
        mux->within_line = false;
        mux->start_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        break;
    case 'c':
        mux->parent.fe = mux->users[(mux_focus(mux) + 1) % mux->n].fe;
        mux_tell_focus(mux);
        break;
    default:
        break;
    }
    return false;
}

/* --- the base's front end --- */

static size_t mux_can_read(void *opaque)
{
    MuxChardev *mux = opaque;

    size_t kept;

    if (!mux->n) {
        return 0;
    }
    kept = mux->users[mux_focus(mux)].input->len;
    return kept < MUX_INPUT_MAX ? MUX_INPUT_MAX - kept : mux->escaped;
}

static void mux_read(void *opaque, const uint8_t *buf, size_t len)
{
    MuxChardev *mux = opaque;

    for (size_t i = 0; i < len && mux->n; i++) {
        bool data = !mux->escaped && buf[i] != MUX_ESCAPE;

        if (mux->escaped) {
            mux->escaped = false;
            data = mux_command(mux, buf[i]);
        } else if (buf[i] == MUX_ESCAPE) {
            mux->escaped = true;
        }
        if (data && mux->n) {
            g_byte_array_append(mux->users[mux_focus(mux)].input, buf + i, 1);
        }
    }
    mux_run(mux);
}

static void mux_receive_fds(void *opaque, const int *fds, size_t nfds)
{
    MuxChardev *mux = opaque;
    CharFrontend *fe = mux->parent.fe;

    if (fe && fe->ops->receive_fds) {
        fe->ops->receive_fds(fe->opaque, fds, nfds);
        return;
    }
    for (size_t i = 0; i < nfds; i++) {
        close(fds[i]);
    }
}

static void mux_event(void *opaque, QEMUChrEvent event)
{
    MuxChardev *mux = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        mux->parent.open = true;
        mux->eof = mux->escaped = false;
        mux->leaving = 0;
        mux->told = NULL;
        for (unsigned i = 0; i < mux->n; i++) {
            g_byte_array_set_size(mux->users[i].input, 0);
        }
        mux_tell_all(mux, event);
        qemu_bh_schedule(mux->bh);
        break;
    case CHR_EVENT_CLOSED:
        mux->parent.open = false;
        mux_tell_all(mux, event);
        break;
    default:
        mux->eof = true;
        while (mux->parent.fe && !mux_deliver(&mux->users[mux_focus(mux)])) {
        }
        mux_tell_all(mux, event);
        break;
    }
}

static void mux_drained(void *opaque)
{
    MuxChardev *mux = opaque;

    for (unsigned i = 0; i < mux->n; i++) {
        if (mux->users[i].fe->ops->drained) {
            mux->users[i].fe->ops->drained(mux->users[i].fe->opaque);
        }
    }
}

static const CharFrontendOps mux_base_ops = {
    .can_read = mux_can_read,
    .read = mux_read,
    .receive_fds = mux_receive_fds,
    .event = mux_event,
    .drained = mux_drained,
};

/* --- the back end's table --- */

static bool coroutine_fn mux_co_open(Chardev *chr, const ChardevBackend *backend, GError **errp)
{
    MuxChardev *mux = (MuxChardev *)chr;
    const char *name = backend->u.mux.data->chardev;
    Chardev *base = qemu_chr_find(name);

    if (!base) {
        error_setg(errp, "mux: base chardev %s not found", name);
        return false;
    }
    chr->pty = g_strdup(qemu_chr_pty(base));
    mux->bh = aio_bh_new(qemu_get_aio_context(), mux_run, mux);
    return qemu_chr_fe_init(&mux->base, base, &mux_base_ops, mux, SIZE_MAX, errp);
}

static void mux_close(Chardev *chr)
{
    MuxChardev *mux = (MuxChardev *)chr;

    qemu_chr_fe_deinit(&mux->base);
    if (mux->bh) {
        qemu_bh_delete(mux->bh);
    }
}

static bool mux_attach(Chardev *chr, CharFrontend *fe)
{
    MuxChardev *mux = (MuxChardev *)chr;

    if (mux->n == MUX_MAX) {
        return false;
    }
    mux->users[mux->n++] = (MuxUser){fe, g_byte_array_new()};
    chr->fe = fe;
    qemu_bh_schedule(mux->bh); /* several that attach at once are told in one turn */
    return true;
}

static void mux_detach(Chardev *chr, CharFrontend *fe)
{
    MuxChardev *mux = (MuxChardev *)chr;
    unsigned i = 0;

    while (mux->users[i].fe != fe) {
        i++;
    }
    g_byte_array_unref(mux->users[i].input);
    mux->n--;
    memmove(&mux->users[i], &mux->users[i + 1], (mux->n - i) * sizeof(mux->users[0]));
    mux->told = mux->told == fe ? NULL : mux->told;
    if (chr->fe == fe) {
        chr->fe = mux->n ? mux->users[mux->n - 1].fe : NULL;
        qemu_bh_schedule(mux->bh);
    }
}

/* Each line begins with the time since times were switched on. */
static void mux_write_timed(MuxChardev *mux, const uint8_t *buf, size_t len)
{
    int64_t ms = (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - mux->start_ns) / SCALE_MS;
    g_autofree char *stamp =
        g_strdup_printf("[%02d:%02d:%02d.%03d] ", (int)(ms / 3600000), (int)(ms / 60000 % 60),
                        (int)(ms / 1000 % 60), (int)(ms % 1000));

    while (len) {
        const uint8_t *end = memchr(buf, '\n', len);
        size_t n = end ? (size_t)(end - buf) + 1 : len;

        if (!mux->within_line) {
            mux_print(mux, stamp);
        }
        (void)qemu_chr_fe_write(&mux->base, buf, n);
        mux->within_line = !end;
        buf += n;
        len -= n;
    }
}

static void mux_write(Chardev *chr, const uint8_t *buf, size_t len)
{
    MuxChardev *mux = (MuxChardev *)chr;

    if (mux->timestamps) {
        mux_write_timed(mux, buf, len);
    } else {
        (void)qemu_chr_fe_write(&mux->base, buf, len);
    }
}

static size_t mux_pending(const Chardev *chr)
{
    return qemu_chr_fe_pending(&((const MuxChardev *)chr)->base);
}

static void mux_update_read(Chardev *chr)
{
    MuxChardev *mux = (MuxChardev *)chr;

    if (mux->bh) {
        qemu_bh_schedule(mux->bh);
    }
}

/* After the end of the input each front end has its say before the conversation ends. */
static void mux_disconnect(Chardev *chr, bool at_once)
{
    MuxChardev *mux = (MuxChardev *)chr;

    if (at_once) {
        qemu_chr_fe_abort(&mux->base);
    } else if (!mux->eof || ++mux->leaving >= mux->n) {
        qemu_chr_fe_disconnect(&mux->base);
    }
}

const ChardevClass chardev_mux_class = {
    .kind = CHARDEV_BACKEND_KIND_MUX,
    .name = "mux",
    .instance_size = sizeof(MuxChardev),
    .co_open = mux_co_open,
    .close = mux_close,
    .write = mux_write,
    .pending = mux_pending,
    .update_read = mux_update_read,
    .disconnect = mux_disconnect,
    .attach = mux_attach,
    .detach = mux_detach,
};
