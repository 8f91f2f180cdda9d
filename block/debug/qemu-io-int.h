/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of the qemu-io language: qemu-io.c runs lines, the others hold the commands. */
#ifndef FERRY_BLOCK_QEMU_IO_INT_H
#define FERRY_BLOCK_QEMU_IO_INT_H

#include "block/block_int.h"
#include "block/debug/qemu-io.h"

/* What a command works with. */
typedef struct QemuIO {
    BlockBackend *blk;
    GString *out;
} QemuIO;

#define QEMUIO_OPTIONS 128

/* The words behind the name, options taken apart. Strings belong to the line. */
typedef struct QemuIOArgs {
    bool has[QEMUIO_OPTIONS];          /* by letter */
    const char *value[QEMUIO_OPTIONS]; /* of options that take one */
    char **operands;                   /* NULL-terminated */
    int n;                             /* operands */
} QemuIOArgs;

typedef struct QemuIOCommand QemuIOCommand;
typedef void coroutine_fn QemuIOHandler(QemuIO *io, const QemuIOCommand *cmd,
                                        const QemuIOArgs *args);

struct QemuIOCommand {
    const char *name, *short_name; /* short_name may be NULL */
    QemuIOHandler *run;
    const char *
        /*
         * letters, a colon behind those with a value; NULL: words that start with '-' are operands
         */
        options;
    int min_words, max_words; /* behind the name, options included; max -1: any number */
    uint64_t perm;            /* BLK_PERM_* the command needs */
    bool in_graph;            /* runs in the thread of the graph, else in the main thread */
    bool background;          /* its requests outlive it, and so must the permission */
    const char *args, *help;  /* usage and one line */
};

extern const QemuIOCommand qemuio_rw_commands[];   /* qemu-io-rw.c; a NULL name ends each table */
extern const QemuIOCommand qemuio_aio_commands[];  /* qemu-io-aio.c */
extern const QemuIOCommand qemuio_node_commands[]; /* qemu-io-node.c */

/* Reminds of the command's arguments. */
void qemuio_usage(QemuIO *io, const QemuIOCommand *cmd);
/* A size or offset in bytes; says what is wrong with it and returns false. */
bool qemuio_parse_size(QemuIO *io, const char *text, int64_t *value);
/* The byte of -P. */
bool qemuio_parse_pattern(QemuIO *io, const char *text, int *pattern);
/* The lengths of a vectored request, at most BDRV_REQUEST_MAX_BYTES together. The caller frees. */
bool qemuio_parse_lengths(QemuIO *io, char **texts, int n, GArray **lengths, int64_t *total);
/* "1.500 KiB". */
void qemuio_append_size(GString *out, double bytes);

/* One request's buffer, as a vector over it. */
typedef struct QemuIOBuffer {
    uint8_t *data;
    int64_t bytes;
    QEMUIOVector qiov;
} QemuIOBuffer;

/* lengths NULL: one element of `bytes`. Says so and returns false when memory is short. */
bool qemuio_buffer_init(QemuIO *io, QemuIOBuffer *buf, const GArray *lengths, int64_t bytes,
                        int fill);
void qemuio_buffer_clear(QemuIOBuffer *buf);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(QemuIOBuffer, qemuio_buffer_clear)

#define QEMUIO_FILL_WRITE 0xcd /* what is written without -P */
#define QEMUIO_FILL_READ  0xab /* what a read is to replace */

/*
 * Compares bytes of a finished read with the pattern; says where they differ. `offset` is that of
 * data in the image.
 */
void qemuio_verify(GString *out, const uint8_t *data, int64_t offset, int64_t bytes, int pattern);
/* "VERB done/total bytes at offset N" and rates; or the machine-readable form. */
void qemuio_report(GString *out, const char *verb, int64_t offset, int64_t bytes,
                   int64_t elapsed_ns, bool machine);

#endif
