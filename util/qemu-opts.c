/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flat options of the command line. */
#include "util/qemu-opts.h"

#include <string.h>
#include "util/cutils.h"
#include "util/error.h"

typedef struct QemuOpt {
    char *key, *value;
    bool bare; /* written without '=' */
    bool known;
} QemuOpt;

struct QemuOpts {
    GArray *items; /* QemuOpt */
    bool help;
};

static void opt_clear(void *opaque)
{
    QemuOpt *opt = opaque;

    g_free(opt->key);
    g_free(opt->value);
}

/*
 * The text up to a single comma, with double ones made single; *text moves behind the comma or to
 * the end.
 */
static char *next_item(const char **text)
{
    g_autoptr(GString) item = g_string_new(NULL);
    const char *p = *text;

    for (; *p; p++) {
        if (*p == ',') {
            if (p[1] != ',') {
                break;
            }
            p++;
        }
        g_string_append_c(item, *p);
    }
    *text = *p ? p + 1 : p;
    return g_string_free(g_steal_pointer(&item), FALSE);
}

QemuOpts *qemu_opts_parse(const char *text, const char *implied)
{
    QemuOpts *opts = g_new0(QemuOpts, 1);
    bool first = true;

    opts->items = g_array_new(FALSE, TRUE, sizeof(QemuOpt));
    g_array_set_clear_func(opts->items, opt_clear);
    for (; *text; first = false) {
        g_autofree char *item = next_item(&text);
        char *equals = strchr(item, '=');
        QemuOpt opt = {0};

        if (!equals && (!strcmp(item, "help") || !strcmp(item, "?"))) {
            opts->help = true;
            continue;
        }
        if (equals) {
            opt.key = g_strndup(item, (size_t)(equals - item));
            opt.value = g_strdup(equals + 1);
        } else if (first && implied) {
            opt.key = g_strdup(implied);
            opt.value = g_strdup(item);
        } else {
            opt.key = g_strdup(item);
            opt.value = g_strdup("on");
            opt.bare = true;
        }
        g_array_append_val(opts->items, opt);
    }
    return opts;
}

void qemu_opts_free(QemuOpts *opts)
{
    if (opts) {
        g_array_unref(opts->items);
        g_free(opts);
    }
}

bool qemu_opts_wants_help(const QemuOpts *opts)
{
    return opts->help;
}

const char *qemu_opts_get(QemuOpts *opts, const char *key)
{
    const char *value = NULL;

    for (guint i = 0; i < opts->items->len; i++) {
        QemuOpt *opt = &g_array_index(opts->items, QemuOpt, i);

        if (!strcmp(opt->key, key)) {
            opt->known = true;
            value = opt->value;
        }
    }
    return value;
}

bool qemu_opts_get_bool(QemuOpts *opts, const char *key, bool *has, bool *value, GError **errp)
{
    const char *text = NULL;

    *has = false;
    for (guint i = 0; i < opts->items->len; i++) {
        QemuOpt *opt = &g_array_index(opts->items, QemuOpt, i);

        if (!strcmp(opt->key, key)) {
            opt->known = true;
            text = opt->value;
        } else if (opt->bare && g_str_has_prefix(opt->key, "no") && !strcmp(opt->key + 2, key)) {
            opt->known = true;
            text = "off";
        }
    }
    if (!text) {
        return true;
    }
    *has = true;
    return qemu_parse_bool(key, text, value, errp);
}

bool qemu_opts_get_int(QemuOpts *opts, const char *key, bool *has, int64_t *value, GError **errp)
{
    const char *text = qemu_opts_get(opts, key);

    *has = text != NULL;
    if (text && !g_ascii_string_to_signed(text, 10, INT64_MIN, INT64_MAX, value, NULL)) {
        error_setg(errp, "Parameter '%s' expects a number", key);
        return false;
    }
    return true;
}

bool qemu_opts_check_known(const QemuOpts *opts, GError **errp)
{
    for (guint i = 0; i < opts->items->len; i++) {
        const QemuOpt *opt = &g_array_index(opts->items, QemuOpt, i);

        if (!opt->known) {
            error_setg(errp, "Invalid parameter '%s'", opt->key);
            return false;
        }
    }
    return true;
}
