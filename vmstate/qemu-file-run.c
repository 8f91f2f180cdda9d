/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMUFile: tagged bodies that are expected to follow each other, read straight into place.
 *
 * A tag says where the body behind it belongs, so the reader needs the tag before it can read the
 * body into place. A read for each tag and body alone would cost a system call a page. Here the
 * tags are guessed: one vectored read takes
 *
 *     [rest of the certain body] [tag] [body] [tag] [body] ... [the file's buffer]
 *
 * and the tags are compared afterwards. Up to the first that differs everything is where it
 * belongs. What landed behind it goes back into the stream, and the memory is made zero again. How
 * far to guess follows from how well the guesses fared: doubled after each read that proved right,
 * down to what was right after one that did not.
 */
#include <errno.h>
#include <string.h>
#include "util/bswap.h"
#include "vmstate/qemu-file-int.h"
#include "vmstate/qemu-file.h"

#define RUN_TAG_SIZE 8
/* Bodies guessed at most, and their bytes: half of what can be put back. */
#define RUN_MAX_WINDOW 128
#define RUN_MAX_BYTES  (QEMU_FILE_UNREAD_MAX / 2)
#define RUN_MAX_BODY   (64 * 1024)

G_STATIC_ASSERT(1 + 2 * RUN_MAX_WINDOW + 1 <= QEMU_FILE_MAX_IOV);

/*
 * Where a run is: `done` bodies are complete. If certain > done, `have` bytes of the next one are
 * there; else its tag comes next.
 */
typedef struct RunState {
    QEMUFile *f;
    const QEMUFileRun *run;
    size_t done;
    size_t certain; /* done or done + 1 */
    size_t have;
} RunState;

static uint8_t *run_body(const RunState *s, size_t i)
{
    return (uint8_t *)s->run->base + i * s->run->body_size;
}

static bool run_tag_is_right(const RunState *s, const uint8_t *tag)
{
    return ldq_be_p(tag) == s->run->next_tag + s->run->tag_step * (s->certain - 1);
}

/* `bytes` more of the certain body are in place. */
static void run_landed(RunState *s, size_t bytes)
{
    qemu_file_count(&s->f->position, bytes);
    s->have += bytes;
    if (s->have == s->run->body_size) {
        s->done++;
        s->have = 0;
    }
}

static void run_tag_accepted(RunState *s)
{
    qemu_file_count(&s->f->position, RUN_TAG_SIZE);
    s->certain++;
}

/*
 * Serves the run from the file's buffer. False when it has ended: the buffer holds a tag of
 * something else, or a part of one.
 */
static bool run_from_buffer(RunState *s)
{
    QEMUFile *f = s->f;

    while (f->buf_pos < f->buf_end && s->done < s->run->max_bodies) {
        size_t n = f->buf_end - f->buf_pos;

        if (s->certain > s->done) {
            n = MIN(n, s->run->body_size - s->have);
            memcpy(run_body(s, s->done) + s->have, f->buf + f->buf_pos, n);
            f->buf_pos += n;
            run_landed(s, n);
        } else if (n >= RUN_TAG_SIZE && run_tag_is_right(s, f->buf + f->buf_pos)) {
            f->buf_pos += RUN_TAG_SIZE;
            run_tag_accepted(s);
            f->run_window = MAX(f->run_window, 1);
        } else {
            return false;
        }
    }
    return s->done < s->run->max_bodies;
}

/* How many bodies are guessed by the next read. */
static size_t run_guesses(const RunState *s)
{
    size_t n = MIN(s->f->run_window, s->run->max_bodies - s->certain);

    return MIN(n, RUN_MAX_BYTES / (s->run->body_size + RUN_TAG_SIZE));
}

static ssize_t run_read(RunState *s, size_t guesses)
{
    QEMUFile *f = s->f;
    size_t n = 0;

    if (s->certain > s->done) {
        f->iov[n++] = (struct iovec){run_body(s, s->done) + s->have, s->run->body_size - s->have};
    }
    for (size_t i = 0; i < guesses; i++) {
        f->iov[n++] = (struct iovec){f->run_tags[i], RUN_TAG_SIZE};
        f->iov[n++] = (struct iovec){run_body(s, s->certain + i), s->run->body_size};
    }
    f->buf_pos = f->buf_end = 0;
    f->iov[n++] = (struct iovec){f->buf, QEMU_FILE_BUFFER_SIZE};
    return qemu_file_readv(f, f->iov, n, s->certain > s->done);
}

/*
 * The tag of guess `i` is wrong. `bytes` have landed from there on: in the tag, in bodies and tags
 * behind it, and then in the file's buffer. The buffer's bytes are last in order and stay where
 * they are.
 */
static bool run_put_back(RunState *s, size_t i, size_t guesses, size_t bytes)
{
    const QEMUFileRun *run = s->run;
    size_t piece = RUN_TAG_SIZE + run->body_size;
    size_t guessed = MIN(bytes, (guesses - i) * piece);
    size_t first = s->certain;
    g_autofree uint8_t *back = g_malloc(guessed);
    size_t at = 0, spoilt = 0;

    for (size_t k = 0; at < guessed; k++) {
        size_t tag = MIN(guessed - at, RUN_TAG_SIZE);
        size_t body = MIN(guessed - at - tag, run->body_size);

        memcpy(back + at, s->f->run_tags[i + k], tag);
        memcpy(back + at + tag, run_body(s, first + k), body);
        at += tag + body;
        spoilt += body;
    }
    s->f->buf_end = bytes - guessed;
    /* they have not been got: unread wants them to be */
    qemu_file_count(&s->f->position, guessed);
    if (spoilt > 0) {
        if (run->restore) {
            run->restore(run->opaque, run_body(s, first), spoilt);
        } else {
            memset(run_body(s, first), 0, spoilt);
        }
    }
    return qemu_file_unread(s->f, back, guessed);
}

/*
 * Sorts out what a read of `guesses` guesses brought. False when the run has ended.
 */
static bool run_sort_out(RunState *s, size_t guesses, size_t bytes)
{
    QEMUFile *f = s->f;
    size_t n;

    if (s->certain > s->done) {
        n = MIN(bytes, s->run->body_size - s->have);
        run_landed(s, n);
        bytes -= n;
    }
    for (size_t i = 0; i < guesses && bytes > 0; i++) {
        if (bytes < RUN_TAG_SIZE || !run_tag_is_right(s, f->run_tags[i])) {
            f->run_window = bytes < RUN_TAG_SIZE ? f->run_window : i;
            (void)!run_put_back(s, i, guesses, bytes);
            return false;
        }
        bytes -= RUN_TAG_SIZE;
        run_tag_accepted(s);
        n = MIN(bytes, s->run->body_size);
        run_landed(s, n);
        bytes -= n;
    }
    f->buf_end = bytes;
    if (bytes > 0 || s->certain == s->done) {
        f->run_window = MIN(f->run_window * 2, RUN_MAX_WINDOW);
    }
    return true;
}

size_t qemu_get_run(QEMUFile *f, const QEMUFileRun *run)
{
    RunState s = {.f = f, .run = run, .certain = 1};

    g_assert(run->body_size > 0 && run->body_size <= RUN_MAX_BODY && run->max_bodies > 0);
    if (!f->run_tags) {
        f->run_tags = g_malloc(RUN_MAX_WINDOW * sizeof(f->run_tags[0]));
    }
    while (!qemu_file_failed(f) && run_from_buffer(&s)) {
        size_t guesses = run_guesses(&s);
        ssize_t len;

        if (s.certain == s.done && guesses == 0) {
            break;
        }
        len = run_read(&s, guesses);
        if (len == 0 && s.certain > s.done) {
            qemu_file_set_ended(f);
        }
        if (len <= 0 || !run_sort_out(&s, guesses, len)) {
            break;
        }
    }
    return qemu_file_failed(f) ? 0 : s.done;
}
