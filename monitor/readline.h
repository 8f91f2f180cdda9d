/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A line that a person types into a terminal: editing, history, completion. It takes bytes and
 * gives bytes; it does not know the terminal. Main thread only.
 *
 *   left, right, Ctrl-B, Ctrl-F   move              up, down, Ctrl-P, Ctrl-N   earlier, later lines
 *   home, end, Ctrl-A, Ctrl-E     to an end         Tab                        complete the word
 *   backspace, delete, Ctrl-D     remove a byte     Ctrl-C, Ctrl-U             empty the line
 *   Ctrl-W, Ctrl-K                remove the word before, the rest behind
 */
#ifndef FERRY_MONITOR_READLINE_H
#define FERRY_MONITOR_READLINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* The rest of a longer line is dropped. */
#define READLINE_MAX 4096

typedef struct Readline Readline;

typedef struct ReadlineOps {
    /* Sends text to the terminal. */
    void (*put)(void *opaque, const char *text);
    /*
     * What the last word of `text` may become: words, NULL-terminated, which the caller frees; NULL
     * for nothing.
     */
    GStrv (*complete)(void *opaque, const char *text);
} ReadlineOps;

/* `prompt` is what stands before the line; without `echo` nothing is shown and no key edits. */
Readline *readline_new(const ReadlineOps *ops, void *opaque, const char *prompt, bool echo);
void readline_free(Readline *rl);
/* True when the byte has ended the line. */
bool readline_take(Readline *rl, uint8_t byte);
/* The line that has ended, now the caller's; the next one is empty. */
char *readline_line(Readline *rl);
/* Shows the prompt and what has been typed: something else stands on the screen before it. */
void readline_show(Readline *rl);
/* Forgets the line, but not the history: another user types now. */
void readline_reset(Readline *rl);

#endif
