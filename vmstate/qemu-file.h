/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMUFile: one direction of a migration stream, over a channel or in memory.
 *
 * A writer gathers the data that is put into it and hands it on in large vectored writes. Memory
 * can be put by reference, so that guest pages go to the kernel without a copy. A reader fetches
 * ahead into a buffer of its own and reads bodies straight into the caller's memory.
 *
 * Integers are big endian on the wire (QEMU's migration stream, version 3).
 *
 * Threads: one thread at a time uses a file, a plain thread that may block. The calls wait in
 * poll(2) until the channel takes or gives bytes. A reader and a writer over the same channel are
 * two files and may be used by two threads. While the file lives, any thread may call
 * qemu_file_shutdown(), qemu_file_stop_reading(), qemu_file_get_error(), the counters and
 * qemu_file_get_ioc().
 *
 * Errors stick: the first one, with its text, is kept; after it puts do nothing and gets give
 * zeroes, so a caller may check once after a group of calls. Values are 0 and -errno.
 */
#ifndef FERRY_VMSTATE_QEMU_FILE_H
#define FERRY_VMSTATE_QEMU_FILE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include "io/channel.h"

typedef struct QEMUFile QEMUFile;

/* Bytes that a writer gathers and a reader fetches ahead; the most that can be peeked at. */
#define QEMU_FILE_BUFFER_SIZE (32 * 1024)

/* The most bytes a reader holds after qemu_file_unread(). */
#define QEMU_FILE_UNREAD_MAX (2 * 1024 * 1024)

/* --- making and closing --- */

/* Take a reference of their own on the channel. */
QEMUFile *qemu_file_new_output(QIOChannel *ioc);
QEMUFile *qemu_file_new_input(QIOChannel *ioc);
/* A reader of a channel from which its first n bytes, at most QEMU_FILE_BUFFER_SIZE, were read before. */
QEMUFile *qemu_file_new_input_behind(QIOChannel *ioc, const void *first, size_t n);
/* The other direction over the same channel: the return path. NULL for a file in memory. */
QEMUFile *qemu_file_get_return(QEMUFile *f);

/* Writes into memory; more than max_bytes is the error -ENOSPC. */
QEMUFile *qemu_file_new_memory_output(size_t max_bytes);
/* Flushes, and takes the bytes out: the file is empty then and may go on. NULL after an error. */
GBytes *qemu_file_memory_steal(QEMUFile *f);
/* Reads `bytes`, on which it takes a reference. */
QEMUFile *qemu_file_new_memory_input(GBytes *bytes);

/*
 * Flushes a writer, drops the channel and frees the file; NULL is allowed. Returns the first error
 * of its life. The channel closes when its last reference goes. A caller that must know how a
 * command or a disk has ended calls qio_channel_close() before that.
 */
int qemu_fclose(QEMUFile *f);

static inline void qemu_file_cleanup(QEMUFile *f)
{
    (void)!qemu_fclose(f);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QEMUFile, qemu_file_cleanup)

/*
 * Ends the conversation in both directions from any thread: a call that waits returns, and the file
 * has the error -EIO. The peer sees the end of the stream.
 */
void qemu_file_shutdown(QEMUFile *f);
/* The same for reading alone: bytes that are written to the channel still reach the peer. */
void qemu_file_stop_reading(QEMUFile *f);

/* Borrowed; NULL for a file in memory. */
QIOChannel *qemu_file_get_ioc(const QEMUFile *f);
bool qemu_file_is_writable(const QEMUFile *f);

/*
 * Called around a wait that really happens, never when bytes move at once. So a thread that holds a
 * lock may drop it while the peer is slow. In the file's thread. Unset with NULL.
 */
typedef void QEMUFileWaitFunc(void *opaque);
void qemu_file_set_wait_hooks(QEMUFile *f, QEMUFileWaitFunc *before, QEMUFileWaitFunc *after,
                              void *opaque);

/*
 * Waits from now on end at deadline_ns (QEMU_CLOCK_REALTIME), with the error -ETIMEDOUT; 0: they do not.
 * The file's thread.
 */
void qemu_file_set_deadline(QEMUFile *f, int64_t deadline_ns);

/*
 * The place of the next byte in a file (feature SEEKABLE), in bytes from its start; a writer is
 * flushed. The counters below still count only the bytes that are put and got. -errno is the file's
 * error.
 */
off_t qemu_get_offset(QEMUFile *f);
int qemu_set_offset(QEMUFile *f, off_t offset);

/* --- errors --- */

/* 0 or the first error, -errno. */
int qemu_file_get_error(const QEMUFile *f);
/* The same, and a copy of its text in errp. */
int qemu_file_get_error_obj(QEMUFile *f, GError **errp);
/* Makes it the file's error unless there is one. ret < 0; takes over err, which may be NULL. */
void qemu_file_set_error_obj(QEMUFile *f, int ret, GError *err);
void qemu_file_set_error(QEMUFile *f, int ret);

/* --- counters, bytes --- */

/* A writer: everything put so far. A reader: everything got so far (the offset in the stream). */
uint64_t qemu_file_transferred(const QEMUFile *f);
/* A writer: what the channel has taken. A reader: what the channel has given. */
uint64_t qemu_file_moved(const QEMUFile *f);

/* --- writing --- */

void qemu_put_byte(QEMUFile *f, uint8_t v);
void qemu_put_be16(QEMUFile *f, uint16_t v);
void qemu_put_be32(QEMUFile *f, uint32_t v);
void qemu_put_be64(QEMUFile *f, uint64_t v);
/* Copies. */
void qemu_put_buffer(QEMUFile *f, const void *buf, size_t size);
/*
 * References: buf stays readable until the next flush, by qemu_fflush() or by a put that fills the
 * file up. Bytes that change meanwhile are sent as they are when the kernel copies them.
 */
void qemu_put_buffer_async(QEMUFile *f, const void *buf, size_t size);
/* A length byte and the bytes, without a terminator; str has at most 255. */
void qemu_put_counted_string(QEMUFile *f, const char *str);
/* Everything put so far has been taken by the channel. Returns the file's error. */
int qemu_fflush(QEMUFile *f);

/* --- reading --- */

uint8_t qemu_get_byte(QEMUFile *f);
uint16_t qemu_get_be16(QEMUFile *f);
uint32_t qemu_get_be32(QEMUFile *f);
uint64_t qemu_get_be64(QEMUFile *f);

/*
 * Exactly `size` bytes: 0, or the file's error (-EIO when the stream ends), then the contents of
 * buf are undefined. The kernel reads bytes that are not in the file's buffer straight into buf,
 * and in the same call the bytes behind them into the file's buffer.
 */
int qemu_get_buffer(QEMUFile *f, void *buf, size_t size);
/* The same into several places, in order. */
int qemu_get_buffer_vec(QEMUFile *f, const struct iovec *iov, size_t niov);
/* Reads and drops. */
int qemu_file_skip(QEMUFile *f, uint64_t size);
/* A length byte and so many bytes, NUL-terminated into buf. Returns the length or the error. */
int qemu_get_counted_string(QEMUFile *f, char buf[256]);

/*
 * Looks at the next bytes without taking them. `size` is at most QEMU_FILE_BUFFER_SIZE; waits for
 * them. Returns how many there are; fewer than asked for mean the end of the stream or an error.
 * The end alone is no error. *buf is valid until the next call.
 */
size_t qemu_peek_buffer(QEMUFile *f, const uint8_t **buf, size_t size);
/* The same without waiting: what has been fetched already, which may be nothing. */
size_t qemu_peek_buffered(QEMUFile *f, const uint8_t **buf);
/* Waits for a byte: true if the stream ends here, or the file has an error. */
bool qemu_file_at_end(QEMUFile *f);

/*
 * Puts bytes back: they are what the next get returns. False (and the error -EOVERFLOW) when the
 * file would hold more than QEMU_FILE_UNREAD_MAX. Never more than was read.
 */
bool qemu_file_unread(QEMUFile *f, const void *data, size_t size) G_GNUC_WARN_UNUSED_RESULT;

/*
 * Bodies of equal size with a be64 tag between them, expected to follow each other: RAM pages,
 * whose headers hold the page's address.
 *
 *     body 0 | next_tag | body 1 | next_tag + tag_step | body 2 | ...
 *
 * Body 0 is next in the stream and read for certain. The rest is read as far as it is there and the
 * tags are the expected ones, straight into place. So bodies 1, 2, ... may be written to before
 * their tag has been seen. If a tag proves to be another one, the bytes behind it are put back into
 * the stream and the memory is restored.
 */
typedef struct QEMUFileRun {
    void *base;        /* body i is at base + i * body_size */
    size_t body_size;  /* 1 .. 64 KiB */
    size_t max_bodies; /* at least 1; bodies beyond the first hold zeroes that are not read */
    uint64_t next_tag;
    uint64_t tag_step; /* the tags count modulo 2^64 */
    /*
     * Optional: makes [base, base + size) read as zeroes again, where bytes of something else have
     * landed; size need not be a multiple of body_size. NULL: memset().
     */
    void (*restore)(void *opaque, void *base, size_t size);
    void *opaque;
} QEMUFileRun;

/*
 * Returns the number of bodies that are complete, at least 1; the stream is at the tag that follows
 * the last of them. 0: the file has an error.
 */
size_t qemu_get_run(QEMUFile *f, const QEMUFileRun *run);

#endif
