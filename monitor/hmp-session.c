/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HMP sessions: lines from a chardev, edited as they come where a person types, and what the
 * commands print back.
 *
 * One line runs at a time; meanwhile nothing is read. A session on a chardev starts anew with each
 * connection.
 */
#include <string.h>
#include "monitor/monitor-int.h"
#include "util/aio.h"
#include "util/version.h"

/* The rest of a longer line is dropped. */
#define HMP_LINE_MAX    4096
#define HMP_HISTORY_MAX 32
#define HMP_OUTPUT_MAX  (16 * 1024 * 1024)

#define PROMPT "(qemu) "

typedef struct MonitorHMP {
    CharFrontend fe;
    bool readline; /* echo and edit */
    GString *line;
    GPtrArray *history; /* char *, the oldest first */
    guint history_pos;  /* index of the line shown; history->len: a new one */
    int escape;         /* bytes of an escape sequence seen */
    bool running;       /* a line runs in a coroutine */
    bool gone;          /* cleaned up while a line ran: the coroutine frees */
    bool eof;           /* disconnect after the line that runs */
    unsigned session;   /* counts connections */
    GByteArray *input;  /* read while a line was running */
    TAILQ_ENTRY(MonitorHMP) next;
} MonitorHMP;

static TAILQ_HEAD(, MonitorHMP) monitors = TAILQ_HEAD_INITIALIZER(monitors);

static void hmp_free(MonitorHMP *mon)
{
    g_string_free(mon->line, TRUE);
    g_ptr_array_unref(mon->history);
    g_byte_array_unref(mon->input);
    g_free(mon);
}

static void put(MonitorHMP *mon, const char *text)
{
    qemu_chr_fe_write(&mon->fe, text, strlen(text));
}

static void echo(MonitorHMP *mon, const char *text)
{
    if (mon->readline) {
        put(mon, text);
    }
}

/* --- editing --- */

/* Shows another text in the place of the line. */
static void replace_line(MonitorHMP *mon, const char *text)
{
    for (size_t i = 0; i < mon->line->len; i++) {
        echo(mon, "\b \b");
    }
    g_string_assign(mon->line, text);
    echo(mon, text);
}

static void show_history(MonitorHMP *mon, int step)
{
    if ((step < 0 && !mon->history_pos) || (step > 0 && mon->history_pos >= mon->history->len)) {
        return;
    }
    mon->history_pos += (guint)step;
    replace_line(mon, mon->history_pos < mon->history->len
                          ? g_ptr_array_index(mon->history, mon->history_pos)
                          : "");
}

static void remember_line(MonitorHMP *mon)
{
    const char *last =
        mon->history->len ? g_ptr_array_index(mon->history, mon->history->len - 1) : "";

    if (mon->line->len && strcmp(last, mon->line->str) != 0) {
        g_ptr_array_add(mon->history, g_strdup(mon->line->str));
        if (mon->history->len > HMP_HISTORY_MAX) {
            g_ptr_array_remove_index(mon->history, 0);
        }
    }
    mon->history_pos = mon->history->len;
}

static void rub_out(MonitorHMP *mon)
{
    if (mon->line->len) {
        g_string_truncate(mon->line, mon->line->len - 1);
        echo(mon, "\b \b");
    }
}

/* ESC [ A and ESC [ B walk through the history; other sequences are swallowed. */
static void escape_byte(MonitorHMP *mon, uint8_t byte)
{
    if (mon->escape == 1) {
        mon->escape = byte == '[' || byte == 'O' ? 2 : 0;
        return;
    }
    if (byte >= '@' && byte <= '~') {
        mon->escape = 0;
        if (byte == 'A' || byte == 'B') {
            show_history(mon, byte == 'A' ? -1 : 1);
        }
    }
}

/* True when the byte ends the line. */
static bool edit(MonitorHMP *mon, uint8_t byte)
{
    char text[2] = {(char)byte, 0};

    if (mon->escape && mon->readline) {
        escape_byte(mon, byte);
        return false;
    }
    switch (byte) {
    case '\n':
    case '\r':
        echo(mon, "\r\n");
        return true;
    case '\b':
    case 127:
        rub_out(mon);
        return false;
    case 3:  /* Ctrl-C */
    case 21: /* Ctrl-U */
        replace_line(mon, "");
        return false;
    case 23: /* Ctrl-W */
        while (mon->line->len && mon->line->str[mon->line->len - 1] == ' ') {
            rub_out(mon);
        }
        while (mon->line->len && mon->line->str[mon->line->len - 1] != ' ') {
            rub_out(mon);
        }
        return false;
    case 27:
        mon->escape = 1;
        return false;
    default:
        if (byte >= ' ' && mon->line->len < HMP_LINE_MAX) {
            g_string_append_c(mon->line, (char)byte);
            echo(mon, text);
        }
        return false;
    }
}

/* --- running --- */

static void take_input(MonitorHMP *mon);

typedef struct HmpRun {
    MonitorHMP *mon;
    unsigned session;
    char *line;
} HmpRun;

static void coroutine_fn run_co(void *opaque)
{
    HmpRun *run = opaque;
    MonitorHMP *mon = run->mon;
    g_autofree char *text = hmp_co_run_line(run->line, true);

    mon->running = false;
    if (mon->gone) {
        hmp_free(mon);
    } else {
        if (mon->session == run->session) {
            put(mon, text);
            put(mon, PROMPT);
        }
        take_input(mon);
        qemu_chr_fe_accept_input(&mon->fe);
        if (mon->eof && !mon->running) {
            qemu_chr_fe_disconnect(&mon->fe);
        }
    }
    g_free(run->line);
    g_free(run);
}

static void run_line(MonitorHMP *mon)
{
    HmpRun *run = g_new0(HmpRun, 1);

    remember_line(mon);
    run->mon = mon;
    run->session = mon->session;
    run->line = g_strdup(mon->line->str);
    g_string_truncate(mon->line, 0);
    mon->running = true;
    /* From the loop: a line that ends at once must not recurse into the next one. */
    aio_co_schedule(qemu_get_aio_context(), qemu_coroutine_create(run_co, run));
}

static void take_input(MonitorHMP *mon)
{
    guint i = 0;

    while (i < mon->input->len && !mon->running) {
        uint8_t byte = mon->input->data[i++];

        /* "\r\n" ends one line. */
        if (byte == '\r' && i < mon->input->len && mon->input->data[i] == '\n') {
            i++;
        }
        if (edit(mon, byte)) {
            run_line(mon);
        }
    }
    g_byte_array_remove_range(mon->input, 0, i);
}

/* --- chardev --- */

static size_t hmp_can_read(void *opaque)
{
    MonitorHMP *mon = opaque;

    return mon->running || qemu_chr_fe_pending(&mon->fe) > CHR_OUTPUT_LIMIT ? 0 : CHR_READ_BUF_LEN;
}

static void hmp_read(void *opaque, const uint8_t *buf, size_t len)
{
    MonitorHMP *mon = opaque;

    g_byte_array_append(mon->input, buf, (guint)len);
    take_input(mon);
    qemu_chr_fe_accept_input(&mon->fe);
}

static void hmp_event(void *opaque, QEMUChrEvent event)
{
    MonitorHMP *mon = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        mon->session++;
        mon->eof = false;
        mon->escape = 0;
        g_string_truncate(mon->line, 0);
        g_byte_array_set_size(mon->input, 0);
        put(mon, "QEMU " QEMU_VERSION " monitor - type 'help' for more information\r\n" PROMPT);
        break;
    case CHR_EVENT_EOF:
        mon->eof = true;
        if (!mon->running) {
            qemu_chr_fe_disconnect(&mon->fe);
        }
        break;
    case CHR_EVENT_CLOSED:
        mon->session++;
        break;
    }
}

static void hmp_drained(void *opaque)
{
    qemu_chr_fe_accept_input(&((MonitorHMP *)opaque)->fe);
}

static const CharFrontendOps hmp_ops = {
    .can_read = hmp_can_read,
    .read = hmp_read,
    .event = hmp_event,
    .drained = hmp_drained,
};

bool monitor_new_hmp(Chardev *chr, bool readline, GError **errp)
{
    MonitorHMP *mon = g_new0(MonitorHMP, 1);

    mon->readline = readline;
    mon->line = g_string_new(NULL);
    mon->history = g_ptr_array_new_with_free_func(g_free);
    mon->input = g_byte_array_new();
    if (!qemu_chr_fe_init(&mon->fe, chr, &hmp_ops, mon, HMP_OUTPUT_MAX, errp)) {
        hmp_free(mon);
        return false;
    }
    TAILQ_INSERT_TAIL(&monitors, mon, next);
    return true;
}

void hmp_cleanup(void)
{
    MonitorHMP *mon;

    while ((mon = TAILQ_FIRST(&monitors))) {
        TAILQ_REMOVE(&monitors, mon, next);
        qemu_chr_fe_deinit(&mon->fe);
        if (mon->running) {
            mon->gone = true;
        } else {
            hmp_free(mon);
        }
    }
}
