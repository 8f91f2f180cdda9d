/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The qtest server: lines from a character device, answers to it, and the log of both. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "accel/qtest/qtest.h"
#include "util/aio.h"
#include "util/error.h"
#include "util/timer.h"

/* Bytes of a line that the log shows. */
#define LOG_BYTES 256
/* Bytes of answers after which others have their turn in the main loop. */
#define TURN_BYTES (1 << 20)

static struct {
    CharFrontend fe;
    GString *input;  /* bytes of lines that were not carried out yet */
    gsize scanned;   /* of input: no end of a line among these */
    bool overlong;   /* skipping to the end of a line that was too long */
    GString *output; /* what the chardev did not take yet; meanwhile no line is carried out */
    gsize sent;      /* of output */
    uint64_t said;   /* bytes of answers, ever */
    QEMUBH *more;    /* carries out the lines that the last turn left */
    FILE *log;       /* NULL: none */
    int64_t opened_ns;
} server;

static void log_line(char kind, const char *text, size_t len)
{
    int64_t us = (qemu_clock_get_ns(QEMU_CLOCK_REALTIME) - server.opened_ns) / SCALE_US;

    if (server.log) {
        fprintf(server.log, "[%c +%" PRId64 ".%06" PRId64 "] %.*s%s\n", kind, us / 1000000,
                us % 1000000, (int)MIN(len, LOG_BYTES), text, len > LOG_BYTES ? "..." : "");
        fflush(server.log);
    }
}

static bool output_pending(void)
{
    return server.output->len > 0;
}

/* Hands on what the chardev takes: it tells when that has left only if something had to wait. */
static void flush_output(void)
{
    size_t taken;

    do {
        taken = qemu_chr_fe_write(&server.fe, server.output->str + server.sent,
                                  server.output->len - server.sent);
        server.sent += taken;
    } while (taken && server.sent < server.output->len);
    if (server.sent == server.output->len) {
        /* Free what a long answer took. */
        g_string_free(server.output, TRUE);
        server.output = g_string_new(NULL);
        server.sent = 0;
    }
}

/* `text` ends with a newline. */
static void send(const char *text, size_t len)
{
    log_line('S', text, len - 1);
    server.said += len;
    g_string_append_len(server.output, text, (gssize)len);
    flush_output();
}

/* Lines that are complete wait for their turn. */
static bool lines_left(void)
{
    return server.scanned < server.input->len;
}

static size_t can_read(void *opaque)
{
    return output_pending() || lines_left() ? 0 : CHR_READ_BUF_LEN;
}

static void run_line(char *line, size_t len)
{
    g_autoptr(GString) answer = g_string_new(NULL);

    if (server.overlong) {
        server.overlong = false;
        g_string_assign(answer, "FAIL the line is too long\n");
    } else {
        log_line('R', line, len);
        qtest_command(line, len, answer);
    }
    send(answer->str, answer->len);
}

/* Carries out the lines that are complete, until an answer or the rest of the lines has to wait. */
static void run_lines(void)
{
    uint64_t begin = server.said;
    gsize done = 0;

    while (!output_pending() && server.said - begin < TURN_BYTES) {
        char *line = server.input->str + done;
        char *end =
            memchr(server.input->str + server.scanned, '\n', server.input->len - server.scanned);

        if (!end) {
            server.scanned = server.input->len;
            break;
        }
        *end = '\0';
        server.scanned = done = (gsize)(end - server.input->str) + 1;
        run_line(line, (size_t)(end - line));
    }
    g_string_erase(server.input, 0, (gssize)done);
    server.scanned -= done;
    if (server.input->len > QTEST_LINE_MAX && server.scanned == server.input->len) {
        server.overlong = true;
    }
    if (server.overlong || !server.input->len) {
        g_string_free(server.input, TRUE);
        server.input = g_string_new(NULL);
        server.scanned = 0;
    }
    if (lines_left() && !output_pending()) {
        qemu_bh_schedule(server.more);
    }
}

static void read_bytes(void *opaque, const uint8_t *buf, size_t len)
{
    g_string_append_len(server.input, (const char *)buf, (gssize)len);
    run_lines();
}

static void drained(void *opaque)
{
    if (output_pending()) {
        flush_output();
    }
    if (!output_pending()) {
        run_lines();
    }
    if (can_read(NULL)) {
        qemu_chr_fe_accept_input(&server.fe);
    }
}

static void event(void *opaque, QEMUChrEvent what)
{
    if (what == CHR_EVENT_OPENED) {
        server.opened_ns = qemu_clock_get_ns(QEMU_CLOCK_REALTIME);
        log_line('I', "OPENED", strlen("OPENED"));
    } else if (what == CHR_EVENT_CLOSED) {
        log_line('I', "CLOSED", strlen("CLOSED"));
    }
    if (what == CHR_EVENT_OPENED || what == CHR_EVENT_CLOSED) {
        g_string_set_size(server.input, 0);
        g_string_set_size(server.output, 0);
        server.scanned = server.sent = 0;
        server.overlong = false;
    }
}

void qtest_irq_changed(unsigned number, bool level)
{
    g_autofree char *text = g_strdup_printf("IRQ %s %u\n", level ? "raise" : "lower", number);

    if (server.fe.chr) {
        send(text, strlen(text));
    }
}

static bool open_log(const char *log, GError **errp)
{
    if (!log) {
        server.log = stderr;
        return true;
    }
    if (!strcmp(log, "none")) {
        return true;
    }
    server.log = fopen(log, "we");
    if (!server.log) {
        error_setg_errno(errp, errno, "could not open qtest's log '%s'", log);
    }
    return server.log;
}

bool qtest_server_start(Chardev *chr, const char *log, GError **errp)
{
    static const CharFrontendOps ops = {
        .can_read = can_read, .read = read_bytes, .event = event, .drained = drained};

    if (!open_log(log, errp)) {
        return false;
    }
    server.input = g_string_new(NULL);
    server.output = g_string_new(NULL);
    server.more = aio_bh_new(qemu_get_aio_context(), drained, NULL);
    if (!qemu_chr_fe_init(&server.fe, chr, &ops, NULL, 0, errp)) {
        qtest_server_stop();
        return false;
    }
    return true;
}

void qtest_server_stop(void)
{
    if (!server.input) {
        return;
    }
    if (server.fe.chr) {
        qemu_chr_fe_deinit(&server.fe);
    }
    g_clear_pointer(&server.more, qemu_bh_delete);
    g_string_free(server.input, TRUE);
    g_string_free(server.output, TRUE);
    server.input = server.output = NULL;
    if (server.log && server.log != stderr) {
        fclose(server.log);
    }
    server.log = NULL;
}
