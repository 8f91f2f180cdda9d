/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers as text: strict parsing of what users write, and sizes for people to read.
 *
 * The parsers return 0, -EINVAL (not a number, or something behind it) or -ERANGE (does not fit),
 * and set *result to 0 on error. `end`, when not NULL, receives where parsing stopped and permits
 * something to follow; on error it is the start of the string. White space and one sign may come
 * first, as strtol() has it.
 */
#ifndef FERRY_UTIL_CUTILS_H
#define FERRY_UTIL_CUTILS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * base as strtol(): 0 recognises 0x and 0. A negative number is out of range for the unsigned one.
 */
G_GNUC_WARN_UNUSED_RESULT int qemu_strtoi64(const char *str, const char **end, int base,
                                            int64_t *result);
G_GNUC_WARN_UNUSED_RESULT int qemu_strtou64(const char *str, const char **end, int base,
                                            uint64_t *result);

/*
 * A size as the command line takes it. Decimal may have a fraction and a suffix of either case (b,
 * k, M, G, T, P, E: powers of 1024). Hexadecimal ("0x1000") has neither. A fraction needs a suffix
 * above b and is rounded to the nearest byte.
 */
G_GNUC_WARN_UNUSED_RESULT int qemu_strtosz(const char *str, const char **end, uint64_t *result);
/* The same with M for a missing suffix: sizes of guest memory. */
G_GNUC_WARN_UNUSED_RESULT int qemu_strtosz_MiB(const char *str, const char **end, uint64_t *result);

/* True when word is one of "a|b|c". */
bool word_is_one_of(const char *names, const char *word);
/* on, yes, true, y; off, no, false, n. `name` is the parameter, for the message. */
G_GNUC_WARN_UNUSED_RESULT bool qemu_parse_bool(const char *name, const char *value, bool *result,
                                               GError **errp);

/* "512 B", "1.5 KiB", "10 GiB": three significant digits. Caller frees. */
char *size_to_str(uint64_t bytes);

/* Appends lines of 16 bytes: `PREFIXoooooooo: 48 65 .. He..`; offsets start at `offset`. */
void qemu_hexdump(GString *out, const char *prefix, uint64_t offset, const void *buf, size_t bytes);

#endif
