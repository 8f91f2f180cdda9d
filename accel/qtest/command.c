/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands of qtest. Whatever a line says, it is answered. */
#include <string.h>
#include "accel/qtest/qtest.h"
#include "memory/address-space.h"
#include "util/aio.h"
#include "util/cutils.h"
#include "util/timer.h"

#define WORDS_MAX 8

static const QTestIRQOps *irq_ops;

void qtest_set_irq_ops(const QTestIRQOps *ops)
{
    irq_ops = ops;
}

/* A command's words; words[0] is its name. Missing ones are "". */
typedef struct Line {
    char *words[WORDS_MAX];
    unsigned n;
    GString *answer;
} Line;

static void G_GNUC_PRINTF(2, 3) fail(Line *line, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    g_string_append(line->answer, "FAIL ");
    g_string_append_vprintf(line->answer, fmt, ap);
    g_string_append_c(line->answer, '\n');
    va_end(ap);
}

static void ok(Line *line)
{
    g_string_append(line->answer, "OK\n");
}

static bool number(Line *line, unsigned word, uint64_t *value)
{
    if (qemu_strtou64(line->words[word], NULL, 0, value) < 0) {
        fail(line, "argument %u of %s is not a number", word, line->words[0]);
        return false;
    }
    return true;
}

/* ADDR SIZE, words 1 and 2; SIZE is at most max. */
static bool extent(Line *line, uint64_t *addr, uint64_t *size, uint64_t max)
{
    if (!number(line, 1, addr) || !number(line, 2, size)) {
        return false;
    }
    if (*size > max) {
        fail(line, "size is above %" G_GUINT64_FORMAT, max);
        return false;
    }
    return true;
}

/* Bytes that the last letter of "outb" or "readq" stands for. */
static unsigned width(const char *name)
{
    switch (name[strlen(name) - 1]) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'l':
        return 4;
    default:
        return 8;
    }
}

/* --- single values --- */

static void value_access(Line *line, AddressSpace *as, uint64_t addr, bool is_write, int digits)
{
    uint64_t value = 0;
    unsigned bytes = width(line->words[0]);
    uint8_t buf[8] = {0};

    if (is_write) {
        if (!number(line, 2, &value)) {
            return;
        }
        for (unsigned i = 0; i < bytes; i++) {
            buf[i] = (uint8_t)(value >> (8 * i));
        }
        address_space_write(as, addr, MEMTXATTRS_UNSPECIFIED, buf, bytes);
        ok(line);
        return;
    }
    address_space_read(as, addr, MEMTXATTRS_UNSPECIFIED, buf, bytes);
    for (unsigned i = 0; i < bytes; i++) {
        value |= (uint64_t)buf[i] << (8 * i);
    }
    g_string_append_printf(line->answer, "OK 0x%0*" G_GINT64_MODIFIER "x\n", digits, value);
}

static void do_port(Line *line)
{
    uint64_t port;

    if (!number(line, 1, &port)) {
        return;
    }
    if (port > UINT16_MAX) {
        fail(line, "there is no such port");
        return;
    }
    value_access(line, get_address_space_io(), port, line->words[0][0] == 'o', 4);
}

static void do_value(Line *line)
{
    uint64_t addr;

    if (number(line, 1, &addr)) {
        value_access(line, get_address_space_memory(), addr, line->words[0][0] == 'w', 16);
    }
}

/* --- many bytes --- */

static uint8_t *read_memory(Line *line, uint64_t *size)
{
    uint64_t addr;
    uint8_t *buf;

    if (!extent(line, &addr, size, QTEST_DATA_MAX)) {
        return NULL;
    }
    buf = g_malloc(*size + 1);
    address_space_read(get_address_space_memory(), addr, MEMTXATTRS_UNSPECIFIED, buf, *size);
    return buf;
}

static void do_read(Line *line)
{
    static const char digits[] = "0123456789abcdef";
    uint64_t size;
    g_autofree uint8_t *buf = read_memory(line, &size);
    gsize at;

    if (!buf) {
        return;
    }
    g_string_append(line->answer, "OK 0x");
    at = line->answer->len;
    g_string_set_size(line->answer, at + 2 * size);
    for (uint64_t i = 0; i < size; i++) {
        line->answer->str[at++] = digits[buf[i] >> 4];
        line->answer->str[at++] = digits[buf[i] & 15];
    }
    g_string_append_c(line->answer, '\n');
}

static void do_b64read(Line *line)
{
    uint64_t size;
    g_autofree uint8_t *buf = read_memory(line, &size);
    g_autofree char *text = buf ? g_base64_encode(buf, size) : NULL;

    if (text) {
        g_string_append_printf(line->answer, "OK %s\n", text);
    }
}

static void do_write(Line *line)
{
    const char *hex = line->words[3];
    g_autofree uint8_t *buf = NULL;
    uint64_t addr, size;
    size_t len;

    if (!extent(line, &addr, &size, QTEST_DATA_MAX)) {
        return;
    }
    len = strlen(hex);
    if (len < 2 || hex[0] != '0' || hex[1] != 'x' || len % 2 || (len - 2) / 2 > size) {
        fail(line, "data is not 0x and two digits for each of at most %" G_GUINT64_FORMAT " bytes",
             size);
        return;
    }
    buf = g_malloc0(size + 1);
    for (size_t i = 0; i < (len - 2) / 2; i++) {
        int high = g_ascii_xdigit_value(hex[2 + 2 * i]), low = g_ascii_xdigit_value(hex[3 + 2 * i]);

        if (high < 0 || low < 0) {
            fail(line, "data is not hexadecimal");
            return;
        }
        buf[i] = (uint8_t)(high << 4 | low);
    }
    address_space_write(get_address_space_memory(), addr, MEMTXATTRS_UNSPECIFIED, buf, size);
    ok(line);
}

static void do_b64write(Line *line)
{
    uint64_t addr, size;
    gsize len = 0;

    if (!extent(line, &addr, &size, QTEST_DATA_MAX)) {
        return;
    }
    if (line->words[3][0]) {
        g_base64_decode_inplace(line->words[3], &len);
    }
    if (len != size) {
        fail(line, "data is %zu bytes, not %" G_GUINT64_FORMAT, len, size);
        return;
    }
    address_space_write(get_address_space_memory(), addr, MEMTXATTRS_UNSPECIFIED, line->words[3],
                        size);
    ok(line);
}

static void do_memset(Line *line)
{
    uint64_t addr, size, value;

    if (extent(line, &addr, &size, QTEST_SET_MAX) && number(line, 3, &value)) {
        address_space_set(get_address_space_memory(), addr, (uint8_t)value, size,
                          MEMTXATTRS_UNSPECIFIED);
        ok(line);
    }
}

/* --- time --- */

static void answer_time(Line *line)
{
    g_string_append_printf(line->answer, "OK %" G_GINT64_FORMAT "\n",
                           qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL));
}

static void go_to(Line *line, int64_t ns)
{
    if (qtest_clock_set_ns(ns)) {
        answer_time(line);
    } else {
        fail(line, "time does not go back");
    }
}

static void do_clock_step(Line *line)
{
    int64_t now = qemu_clock_get_ns(QEMU_CLOCK_VIRTUAL);
    int64_t next = aio_timer_deadline_ns(qemu_get_aio_context(), QEMU_CLOCK_VIRTUAL);
    uint64_t step;

    if (line->n < 2) {
        go_to(line, MAX(now, next));
    } else if (number(line, 1, &step)) {
        go_to(line, step > (uint64_t)(INT64_MAX - now) ? INT64_MAX : now + (int64_t)step);
    }
}

static void do_clock_set(Line *line)
{
    uint64_t ns;

    if (number(line, 1, &ns)) {
        go_to(line, (int64_t)MIN(ns, (uint64_t)INT64_MAX));
    }
}

/* --- interrupts and the rest --- */

static void done(Line *line, bool good, GError *err)
{
    if (good) {
        ok(line);
    } else {
        fail(line, "%s", err ? err->message : "Unknown device");
    }
    g_clear_error(&err);
}

static void do_intercept_in(Line *line)
{
    GError *err = NULL;
    bool good = irq_ops && irq_ops->intercept_in(line->words[1], &err);

    done(line, good, err);
}

static void do_intercept_out(Line *line)
{
    GError *err = NULL;
    const char *name = line->n > 2 ? line->words[2] : NULL;
    bool good = irq_ops && irq_ops->intercept_out(line->words[1], name, &err);

    done(line, good, err);
}

static void do_set_irq_in(Line *line)
{
    GError *err = NULL;
    uint64_t n, level;
    bool good;

    if (!number(line, 3, &n) || !number(line, 4, &level)) {
        return;
    }
    good = irq_ops && n <= UINT16_MAX &&
           irq_ops->set_in(line->words[1], line->words[2], (unsigned)n, level != 0, &err);
    done(line, good, err);
}

static void do_endianness(Line *line)
{
    g_string_append(line->answer, "OK little\n");
}

static void do_module_load(Line *line)
{
    fail(line, "there are no modules");
}

static const struct {
    const char *name;
    unsigned words; /* at least, the name counted */
    void (*run)(Line *line);
} commands[] = {
    {"outb", 3, do_port},
    {"outw", 3, do_port},
    {"outl", 3, do_port},
    {"inb", 2, do_port},
    {"inw", 2, do_port},
    {"inl", 2, do_port},
    {"writeb", 3, do_value},
    {"writew", 3, do_value},
    {"writel", 3, do_value},
    {"writeq", 3, do_value},
    {"readb", 2, do_value},
    {"readw", 2, do_value},
    {"readl", 2, do_value},
    {"readq", 2, do_value},
    {"read", 3, do_read},
    {"write", 4, do_write},
    {"b64read", 3, do_b64read},
    {"b64write", 4, do_b64write},
    {"memset", 4, do_memset},
    {"clock_step", 1, do_clock_step},
    {"clock_set", 2, do_clock_set},
    {"irq_intercept_in", 2, do_intercept_in},
    {"irq_intercept_out", 2, do_intercept_out},
    {"set_irq_in", 5, do_set_irq_in},
    {"endianness", 1, do_endianness},
    {"module_load", 3, do_module_load},
};

static void split(Line *line, char *text)
{
    static char empty[] = "";
    char *save = NULL;

    for (unsigned i = 0; i < WORDS_MAX; i++) {
        line->words[i] = empty;
    }
    for (char *word = strtok_r(text, " \t\r", &save); word && line->n < WORDS_MAX;
         word = strtok_r(NULL, " \t\r", &save)) {
        line->words[line->n++] = word;
    }
}

void qtest_command(char *text, size_t len, GString *answer)
{
    Line line = {.answer = answer};

    if (memchr(text, '\0', len)) {
        fail(&line, "a line has no NUL");
        return;
    }
    split(&line, text);
    if (!line.n) {
        fail(&line, "Unknown command ''");
        return;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(line.words[0], commands[i].name)) {
            if (line.n < commands[i].words) {
                fail(&line, "%s takes %u arguments", line.words[0], commands[i].words - 1);
            } else {
                commands[i].run(&line);
            }
            return;
        }
    }
    /* Answers are text whatever was asked. */
    for (char *p = line.words[0]; *p; p++) {
        *p = g_ascii_isprint(*p) ? *p : '?';
    }
    fail(&line, "Unknown command '%.64s'", line.words[0]);
}
