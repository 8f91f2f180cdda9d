/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a chardev back end implements, and what it may ask of the core. */
#ifndef FERRY_CHARDEV_CHAR_INT_H
#define FERRY_CHARDEV_CHAR_INT_H

#include "chardev/char.h"
#include "qom/object.h"

typedef struct ChardevClass {
    ChardevBackendKind kind;
    const char *name;     /* as in the schema */
    size_t instance_size; /* Chardev is the first member; zeroed */

    /*
     * Opens. The label is set. When the peer is there from the start, this function calls
     * qemu_chr_be_opened(). On failure the core calls close() on the parts that exist.
     */
    bool coroutine_fn (*co_open)(Chardev *chr, const ChardevBackend *backend, GError **errp);
    /* `abandoned` was set while co_open() waits, which is to fail soon. Needed where it waits. */
    void (*abandon)(Chardev *chr);
    /* Releases everything; sends nothing to the front end. */
    void (*close)(Chardev *chr);
    /* Takes all of it (the core has checked the limit); called only while open. */
    void (*write)(Chardev *chr, const uint8_t *buf, size_t len);
    size_t (*pending)(const Chardev *chr); /* optional: 0 */
    /* The front end came, went or can read again. Optional. */
    void (*update_read)(Chardev *chr);
    /*
     * The other end sends no more, but the front end may still write: another peer may take its
     * place. Optional.
     */
    void (*eof)(Chardev *chr);
    /*
     * If the other end is a terminal, it shall echo and edit lines itself: the front end does
     * neither. Optional.
     */
    void (*line_mode)(Chardev *chr);
    /* Ends the conversation: after sending what is pending, or at once. Optional. */
    void (*disconnect)(Chardev *chr, bool at_once);
    /*
     * The back end goes from one context to another. co_leave() gives up what belongs to the old
     * one, in its thread. It may yield, but not for long, and less if `at_once`. It returns false
     * when a coroutine that no longer uses the chardev still ends there. enter() then sets up the
     * same in `ctx` of the chardev, in that thread. No front end is attached meanwhile. Both or
     * neither.
     */
    bool coroutine_fn (*co_leave)(Chardev *chr, bool at_once);
    void (*enter)(Chardev *chr);
    /*
     * Shared by several front ends; both or neither. attach: fe joins and `fe` of the chardev is
     * the one that input goes to; false: no more fit. detach: fe leaves.
     */
    bool (*attach)(Chardev *chr, CharFrontend *fe);
    void (*detach)(Chardev *chr, CharFrontend *fe);
    /* As qemu_chr_filename(): any thread. */
    char *(*filename)(const Chardev *chr);
} ChardevClass;

struct Chardev {
    const ChardevClass *klass;
    char *label;
    AioContext *ctx; /* where the back end runs; a reference */
    CharFrontend *fe;
    bool open;       /* a peer is at the other end */
    bool abandoned;  /* co_open() waits for no peer any longer */
    char *pty;       /* path, for pty */
    int log_fd;      /* -1: no log file */
    QomObject *face; /* /chardevs/LABEL */
    TAILQ_ENTRY(Chardev) next;
};

/* A peer has come / gone. Not for callers inside write(), update_read() or disconnect(). */
void qemu_chr_be_opened(Chardev *chr);
void qemu_chr_be_closed(Chardev *chr);
/* No more input. True when the front end wants to go on writing; it will then disconnect. */
bool qemu_chr_be_eof(Chardev *chr);
/* Bytes the front end takes now, at most CHR_READ_BUF_LEN; without one, none. */
size_t qemu_chr_be_can_read(Chardev *chr);
/* Hands over input, with the descriptors that came with it; these are consumed. */
void qemu_chr_be_read(Chardev *chr, const uint8_t *buf, size_t len, const int *fds, size_t nfds);
void qemu_chr_be_drained(Chardev *chr);

/* The back ends. */
extern const ChardevClass chardev_file_class;
extern const ChardevClass chardev_mux_class;
extern const ChardevClass chardev_null_class;
extern const ChardevClass chardev_pipe_class;
extern const ChardevClass chardev_pty_class;
extern const ChardevClass chardev_ringbuf_class;
extern const ChardevClass chardev_socket_class;
extern const ChardevClass chardev_stdio_class;

#endif
