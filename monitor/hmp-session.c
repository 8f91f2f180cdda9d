/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HMP sessions: lines from a chardev, edited as they come where a person types, and what the
 * commands print back.
 *
 * One line runs at a time; meanwhile nothing is read. A session on a chardev starts anew with each
 * connection.
 */
#include <string.h>
#include "accel/runstate.h"
#include "monitor/monitor-int.h"
#include "monitor/readline.h"
#include "util/aio.h"
#include "util/version.h"

#define HMP_OUTPUT_MAX (16 * 1024 * 1024)

#define PROMPT "(qemu) "

typedef struct MonitorHMP {
    CharFrontend fe;
    Readline *rl;
    bool running;      /* a line runs in a coroutine */
    bool gone;         /* cleaned up while a line ran: the coroutine frees */
    bool eof;          /* disconnect after the line that runs */
    bool greet_due;    /* on a shared chardev: when the input comes here first */
    unsigned session;  /* counts connections */
    GByteArray *input; /* read while a line was running */
    TAILQ_ENTRY(MonitorHMP) next;
} MonitorHMP;

static TAILQ_HEAD(, MonitorHMP) monitors = TAILQ_HEAD_INITIALIZER(monitors);

static void hmp_free(MonitorHMP *mon)
{
    readline_free(mon->rl);
    g_byte_array_unref(mon->input);
    g_free(mon);
}

static void put(MonitorHMP *mon, const char *text)
{
    qemu_chr_fe_write(&mon->fe, text, strlen(text));
}

static void put_opaque(void *opaque, const char *text)
{
    put(opaque, text);
}

static GStrv complete(void *opaque, const char *text)
{
    return hmp_complete(text);
}

static const ReadlineOps readline_ops = {.put = put_opaque, .complete = complete};

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
            if (qemu_shutdown_cause() == SHUTDOWN_CAUSE_NONE) {
                put(mon, PROMPT);
            }
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

    run->mon = mon;
    run->session = mon->session;
    run->line = readline_line(mon->rl);
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
        if (readline_take(mon->rl, byte)) {
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

static void greet(MonitorHMP *mon)
{
    mon->greet_due = false;
    put(mon, "QEMU " QEMU_VERSION " monitor - type 'help' for more information\r\n" PROMPT);
}

static void hmp_event(void *opaque, QEMUChrEvent event)
{
    MonitorHMP *mon = opaque;

    switch (event) {
    case CHR_EVENT_OPENED:
        mon->session++;
        mon->eof = false;
        readline_reset(mon->rl);
        g_byte_array_set_size(mon->input, 0);
        if (qemu_chr_is_shared(mon->fe.chr)) {
            mon->greet_due = true;
        } else {
            greet(mon);
        }
        break;
    case CHR_EVENT_MUX_IN:
        if (mon->greet_due) {
            greet(mon);
        } else if (!mon->running) {
            readline_show(mon->rl);
        }
        break;
    case CHR_EVENT_MUX_OUT:
        put(mon, "\r\n");
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

    mon->rl = readline_new(&readline_ops, mon, PROMPT, readline);
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
