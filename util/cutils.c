/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Numbers as text. */
#include "util/cutils.h"

#include <errno.h>
#include <string.h>

#include "util/error.h"
#include "util/int-math.h"

/* Digits of a fraction that are looked at; more would overflow the scale, and change nothing. */
#define FRACTION_DIGITS 18

static int finish(const char *str, const char *stop, const char **end, int ret)
{
    if (ret == 0 && !end && *stop) {
        ret = -EINVAL;
    }
    if (end) {
        *end = ret < 0 ? str : stop;
    }
    return ret;
}

int qemu_strtoi64(const char *str, const char **end, int base, int64_t *result)
{
    char *stop = NULL;
    int ret = 0;

    errno = 0;
    *result = g_ascii_strtoll(str, &stop, base);
    if (stop == str) {
        ret = -EINVAL;
    } else if (errno) {
        ret = -errno;
    }
    ret = finish(str, stop, end, ret);
    if (ret < 0) {
        *result = 0;
    }
    return ret;
}

int qemu_strtou64(const char *str, const char **end, int base, uint64_t *result)
{
    const char *digits = str;
    char *stop = NULL;
    int ret = 0;

    while (g_ascii_isspace(*digits)) {
        digits++;
    }
    errno = 0;
    *result = g_ascii_strtoull(str, &stop, base);
    if (stop == str) {
        ret = -EINVAL;
    } else if (errno) {
        ret = -errno;
    } else if (*digits == '-' && *result != 0) {
        ret = -ERANGE;
    }
    ret = finish(str, stop, end, ret);
    if (ret < 0) {
        *result = 0;
    }
    return ret;
}

/* 1024 to the power that the suffix stands for; 0 when it is none. */
static uint64_t suffix_scale(char suffix)
{
    static const char suffixes[] = "BKMGTPE";
    const char *found = suffix ? strchr(suffixes, g_ascii_toupper(suffix)) : NULL;
    uint64_t scale = 1;

    if (!found) {
        return 0;
    }
    for (; found > suffixes; found--) {
        scale *= 1024;
    }
    return scale;
}

/* The digits behind a decimal point as numerator and denominator (a power of ten). */
static const char *parse_fraction(const char *p, uint64_t *num, uint64_t *den)
{
    int digits = 0;

    *num = 0;
    *den = 1;
    for (; g_ascii_isdigit(*p); p++) {
        if (digits++ < FRACTION_DIGITS) {
            *num = *num * 10 + (*p - '0');
            *den *= 10;
        }
    }
    return p;
}

static int parse_size(const char *str, const char **stop, char default_suffix, uint64_t *result)
{
    uint64_t scale, num = 0, den = 1, whole;
    unsigned __int128 part;
    char *p;

    while (g_ascii_isspace(*str)) {
        str++;
    }
    str += *str == '+';
    *stop = str;
    if (!g_ascii_isdigit(*str)) {
        return -EINVAL;
    }
    errno = 0;
    if (str[0] == '0' && (str[1] == 'x' || str[1] == 'X')) {
        *result = g_ascii_strtoull(str, &p, 16);
        *stop = p;
        /* Digits and suffixes share letters, and "0x.8" is no number. */
        if (p <= str + 2 || *p == '.' || suffix_scale(*p)) {
            return -EINVAL;
        }
        return -errno;
    }
    whole = g_ascii_strtoull(str, &p, 10);
    *stop = p;
    if (errno) {
        return -errno;
    }
    if (**stop == '.') {
        *stop = parse_fraction(*stop + 1, &num, &den);
    }
    scale = suffix_scale(**stop);
    if (scale) {
        (*stop)++;
    } else {
        scale = suffix_scale(default_suffix);
    }
    if (num > 0 && scale == 1) {
        return -EINVAL;
    }
    part = ((unsigned __int128)num * scale + den / 2) / den;
    if (!mul_u64(whole, scale, &whole) || !add_u64(whole, part, result)) {
        return -ERANGE;
    }
    return 0;
}

static int strtosz(const char *str, const char **end, char default_suffix, uint64_t *result)
{
    const char *stop;
    int ret = parse_size(str, &stop, default_suffix, result);

    ret = finish(str, stop, end, ret);
    if (ret < 0) {
        *result = 0;
    }
    return ret;
}

int qemu_strtosz(const char *str, const char **end, uint64_t *result)
{
    return strtosz(str, end, 'B', result);
}

int qemu_strtosz_MiB(const char *str, const char **end, uint64_t *result)
{
    return strtosz(str, end, 'M', result);
}

bool word_is_one_of(const char *names, const char *word)
{
    size_t len = strlen(word);

    while (names) {
        if (!strncmp(names, word, len) && (names[len] == '|' || !names[len])) {
            return true;
        }
        names = strchr(names, '|');
        names = names ? names + 1 : NULL;
    }
    return false;
}

bool qemu_parse_bool(const char *name, const char *value, bool *result, GError **errp)
{
    /* Pairs: a word that switches on, then its opposite. */
    static const char *const words[] = {"on", "off", "yes", "no", "true", "false", "y", "n"};

    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (g_str_equal(value, words[i])) {
            *result = i % 2 == 0;
            return true;
        }
    }
    error_setg(errp, "Parameter '%s' expects 'on' or 'off'", name);
    return false;
}

char *size_to_str(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = bytes;
    unsigned power = 0;

    /* What three digits would show as 1000 moves to the next unit: 1000 KiB is 0.977 MiB. */
    for (; v >= 999.5 && power < G_N_ELEMENTS(units) - 1; power++) {
        v /= 1024;
    }
    return g_strdup_printf("%.3g %s", v, units[power]);
}

void qemu_hexdump(GString *out, const char *prefix, uint64_t offset, const void *buf, size_t bytes)
{
    const uint8_t *p = buf;

    for (size_t line = 0; line < bytes; line += 16) {
        size_t n = MIN((size_t)16, bytes - line);

        g_string_append_printf(out, "%s%08" G_GINT64_MODIFIER "x: ", prefix, offset + line);
        for (size_t i = 0; i < n; i++) {
            g_string_append_printf(out, " %02x", p[line + i]);
        }
        g_string_append(out, "  ");
        for (size_t i = 0; i < n; i++) {
            g_string_append_c(out, g_ascii_isalnum(p[line + i]) ? p[line + i] : '.');
        }
        g_string_append_c(out, '\n');
    }
}
