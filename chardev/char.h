/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Character devices: named streams of bytes between the outside (a socket, a terminal, a file) and
 * one front end inside (a monitor, a serial port).
 *
 * Back ends never block: what the outside does not take is buffered up to the front end's limit.
 *
 * Threads. A chardev's back end runs in one AioContext: it reads, writes, accepts, reconnects and
 * shakes hands (TLS, WebSocket, telnet) there, and calls its front end there. That is the main
 * thread's context, until qemu_chr_co_move() moves the chardev, as QMP monitors do. A mux and its
 * base stay in the main thread, since their front ends may be devices of the guest. The list of
 * chardevs is the main thread's. A function below runs in the main thread, those on a front end in
 * the chardev's thread, unless it says otherwise.
 */
#ifndef FERRY_CHARDEV_CHAR_H
#define FERRY_CHARDEV_CHAR_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "qapi/qapi-types-char.h"
#include "util/aio.h"
#include "util/coroutine.h"
#include "util/queue.h"

typedef struct Chardev Chardev;
typedef struct CharFrontend CharFrontend;

/* Most bytes a front end is handed in one call. */
#define CHR_READ_BUF_LEN 8192
/* Most unsent bytes a chardev keeps unless its front end asks for more. */
#define CHR_OUTPUT_LIMIT (64 * 1024)

typedef enum QEMUChrEvent {
    CHR_EVENT_OPENED, /* a peer is at the other end */
    CHR_EVENT_EOF,    /* the other end will send nothing more, but may still read */
    CHR_EVENT_CLOSED, /* the peer is gone, and so is unsent output */
    /*
     * On a chardev that is shared (qemu_chr_is_shared()): input comes to this front end from now
     * on; input goes to another one. The first may follow OPENED only later, or never.
     */
    CHR_EVENT_MUX_IN,
    CHR_EVENT_MUX_OUT,
} QEMUChrEvent;

/*
 * What a front end does. Called from the event loop, never from inside qemu_chr_fe_*(),
 * qemu_chr_fe_init() excepted.
 */
typedef struct CharFrontendOps {
    /* Bytes it can take now. 0: none until it calls qemu_chr_fe_accept_input(). */
    size_t (*can_read)(void *opaque);
    /* 1..can_read() bytes. */
    void (*read)(void *opaque, const uint8_t *buf, size_t len);
    /*
     * Descriptors that came with the bytes of the next read(); ownership passes. NULL: they are
     * closed.
     */
    void (*receive_fds)(void *opaque, const int *fds, size_t nfds);
    void (*event)(void *opaque, QEMUChrEvent event); /* optional */
    /* Everything written so far has been sent. Optional. */
    void (*drained)(void *opaque);
    /*
     * The front end neither echoes nor edits the user's input: a terminal at the other end does,
     * from before CHR_EVENT_OPENED. Without it a terminal hands over each key, without echo. No
     * effect on a shared chardev.
     */
    bool line_mode;
} CharFrontendOps;

/* The link of a front end to its chardev; embedded in the owner. Only char.c uses the members. */
struct CharFrontend {
    Chardev *chr; /* NULL: not connected */
    const CharFrontendOps *ops;
    void *opaque;
    size_t output_limit;
};

/*
 * Connects a front end; fails when chr has one, unless it is shared. If the other end is there
 * already, CHR_EVENT_OPENED is delivered before this returns. output_limit 0: CHR_OUTPUT_LIMIT.
 */
bool qemu_chr_fe_init(CharFrontend *fe, Chardev *chr, const CharFrontendOps *ops, void *opaque,
                      size_t output_limit, GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Detaches the front end from the chardev, which calls it no more. */
void qemu_chr_fe_deinit(CharFrontend *fe);
/* can_read() may have become positive. */
void qemu_chr_fe_accept_input(CharFrontend *fe);
/*
 * Sends, or buffers as far as the limit allows; the bytes taken, which are fewer than len when the
 * limit is reached. Without a peer at the other end everything is taken and lost.
 */
size_t qemu_chr_fe_write(CharFrontend *fe, const void *buf, size_t len);
/* Bytes taken and not yet sent. */
size_t qemu_chr_fe_pending(const CharFrontend *fe);
/* Ends the conversation with the other end once everything is sent; stdio and files stay. */
void qemu_chr_fe_disconnect(CharFrontend *fe);
/* Ends it now, without sending what is pending. */
void qemu_chr_fe_abort(CharFrontend *fe);

/* Once, at start-up: the types of object that chardevs are. */
void qemu_chr_register_types(void);

/* Makes a chardev, which char.c owns. The backend is only read. NULL and errp: nothing was made. */
Chardev *coroutine_fn qemu_chr_co_new(const char *label, const ChardevBackend *backend,
                                      GError **errp);
/*
 * The same with a mux on top: "LABEL-base" is what the backend says, and LABEL shares it among
 * front ends. The mux; NULL and errp: neither was made.
 */
Chardev *coroutine_fn qemu_chr_co_new_shared(const char *label, const ChardevBackend *backend,
                                             GError **errp);
/*
 * Moves the back end, which has no front end and is not shared, to another context, with the
 * conversation that is under way. A handshake under way is waited for, or cut off (`at_once`); it has
 * a deadline. Called in the main thread; false: a coroutine of the chardev still ends in the old
 * context.
 */
bool coroutine_fn qemu_chr_co_move(Chardev *chr, AioContext *ctx, bool at_once);
/* What Ctrl-a x of a mux does. Once, at start-up; NULL: nothing. */
void qemu_chr_mux_set_exit(void (*exit_func)(void));
/* No chardev may use standard input and output; `option` is the reason. Once, at start-up. */
void qemu_chr_forbid_stdio(const char *option);
/* Removes an idle one; fails when it has a front end. */
bool qemu_chr_remove(const char *label, GError **errp);
Chardev *qemu_chr_find(const char *label);
/* The next in order of creation; NULL starts and ends. */
Chardev *qemu_chr_next(Chardev *chr);
const char *qemu_chr_label(const Chardev *chr);
/* "pty:/dev/pts/3", "disconnected:unix:/path,server=on". The caller frees. Any thread. */
char *qemu_chr_filename(const Chardev *chr);
/* The pty's path, or NULL. */
const char *qemu_chr_pty(const Chardev *chr);
bool qemu_chr_has_frontend(const Chardev *chr);
/* Several front ends may use it, and one of them at a time gets the input. */
bool qemu_chr_is_shared(const Chardev *chr);

/*
 * What a ringbuf chardev keeps: adds to it; takes up to `max` of the oldest bytes out, which the
 * caller frees. Errors: it is another kind.
 */
bool qemu_chr_ringbuf_write(Chardev *chr, const void *buf, size_t len, GError **errp);
GByteArray *qemu_chr_ringbuf_read(Chardev *chr, size_t max, GError **errp);

/*
 * Start of shutdown: a chardev that still waits for its peer while it opens fails, and so does
 * every one that is opened from now on.
 */
void qemu_chr_abandon_opening(void);

/*
 * Sends what can be sent without waiting and closes all of them, front ends or not: end of
 * shutdown.
 */
void qemu_chr_cleanup(void);

#endif
