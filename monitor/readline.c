/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Editing a line in a terminal (control sequences of ECMA-48). */
#include "monitor/readline.h"

#include <stdlib.h>
#include <string.h>

#define HISTORY_MAX 32

#define KEY_CTRL(c) ((c)&0x1f)
#define KEY_ESCAPE  27
#define KEY_RUB_OUT 127

typedef enum EscapeState {
    ESCAPE_NONE,
    ESCAPE_BEGUN,    /* ESC was seen */
    ESCAPE_SEQUENCE, /* ESC [ or ESC O; parameters follow, then a letter or ~ */
} EscapeState;

struct Readline {
    const ReadlineOps *ops;
    void *opaque;
    char *prompt;
    bool echo;
    GString *line;
    size_t cursor;      /* index into line */
    GPtrArray *history; /* char *, the oldest first */
    guint shown;        /* index of the line shown; history->len: a new one */
    EscapeState escape;
    unsigned parameter; /* of the escape sequence: its last number */
};

/* --- the screen --- */

static void put(Readline *rl, const char *text)
{
    if (rl->echo && *text) {
        rl->ops->put(rl->opaque, text);
    }
}

/* Moves the screen's cursor by n columns: left when negative. */
static void move_screen(Readline *rl, long n)
{
    g_autofree char *text = g_strdup_printf("\033[%ld%c", labs(n), n < 0 ? 'D' : 'C');

    if (n) {
        put(rl, text);
    }
}

/* The line has changed from the cursor on: shows that part anew. */
static void show_tail(Readline *rl)
{
    put(rl, rl->line->str + rl->cursor);
    put(rl, "\033[K");
    move_screen(rl, -(long)(rl->line->len - rl->cursor));
}

static void move_to(Readline *rl, size_t cursor)
{
    move_screen(rl, (long)cursor - (long)rl->cursor);
    rl->cursor = cursor;
}

/* --- the line --- */

static void insert(Readline *rl, const char *text, size_t len)
{
    g_autofree char *bytes = NULL;

    len = MIN(len, READLINE_MAX - rl->line->len);
    bytes = g_strndup(text, len);
    g_string_insert_len(rl->line, (gssize)rl->cursor, bytes, (gssize)len);
    rl->cursor += len;
    put(rl, bytes);
    if (rl->cursor < rl->line->len) {
        show_tail(rl);
    }
}

static void erase(Readline *rl, size_t from, size_t to)
{
    if (from < to) {
        move_to(rl, from);
        g_string_erase(rl->line, (gssize)from, (gssize)(to - from));
        show_tail(rl);
    }
}

static void replace(Readline *rl, const char *text)
{
    erase(rl, 0, rl->line->len);
    insert(rl, text, strlen(text));
}

/* Where the word before the cursor begins. */
static size_t word_start(const Readline *rl)
{
    size_t at = rl->cursor;

    while (at && rl->line->str[at - 1] == ' ') {
        at--;
    }
    while (at && rl->line->str[at - 1] != ' ') {
        at--;
    }
    return at;
}

/* --- history --- */

static void show_history(Readline *rl, int step)
{
    if ((step < 0 && !rl->shown) || (step > 0 && rl->shown >= rl->history->len)) {
        return;
    }
    rl->shown += (guint)step;
    replace(rl, rl->shown < rl->history->len ? g_ptr_array_index(rl->history, rl->shown) : "");
}

static void remember(Readline *rl, const char *line)
{
    const char *last = rl->history->len ? g_ptr_array_index(rl->history, rl->history->len - 1) : "";

    if (*line && strcmp(last, line) != 0) {
        g_ptr_array_add(rl->history, g_strdup(line));
        if (rl->history->len > HISTORY_MAX) {
            g_ptr_array_remove_index(rl->history, 0);
        }
    }
    rl->shown = rl->history->len;
}

/* --- completion --- */

static size_t common_length(GStrv words)
{
    size_t len = strlen(words[0]);

    for (char **word = words + 1; *word; word++) {
        size_t same = 0;

        while (same < len && (*word)[same] == words[0][same]) {
            same++;
        }
        len = same;
    }
    return len;
}

void readline_show(Readline *rl)
{
    put(rl, rl->prompt);
    put(rl, rl->line->str);
    move_screen(rl, (long)rl->cursor - (long)rl->line->len);
}

static void complete(Readline *rl)
{
    g_autofree char *before = g_strndup(rl->line->str, rl->cursor);
    g_auto(GStrv) words = rl->ops->complete(rl->opaque, before);
    const char *space = strrchr(before, ' ');
    size_t typed = strlen(space ? space + 1 : before), common;

    if (!words || !words[0]) {
        return;
    }
    common = common_length(words);
    if (common > typed) {
        insert(rl, words[0] + typed, common - typed);
    }
    if (!words[1]) {
        insert(rl, " ", 1);
    } else if (common <= typed) {
        put(rl, "\r\n");
        for (char **word = words; *word; word++) {
            put(rl, *word);
            put(rl, word[1] ? "  " : "\r\n");
        }
        readline_show(rl);
    }
}

/* --- keys --- */

static void sequence_ended(Readline *rl, uint8_t byte)
{
    static const uint8_t letters[] = {
        ['A'] = KEY_CTRL('P'), ['B'] = KEY_CTRL('N'), ['C'] = KEY_CTRL('F'),
        ['D'] = KEY_CTRL('B'), ['F'] = KEY_CTRL('E'), ['H'] = KEY_CTRL('A')};
    static const uint8_t numbers[] = {
        [1] = KEY_CTRL('A'), [3] = KEY_CTRL('D'), [4] = KEY_CTRL('E'),
        [7] = KEY_CTRL('A'), [8] = KEY_CTRL('E'),
    };
    uint8_t key = 0;

    if (byte == '~') {
        key = rl->parameter < G_N_ELEMENTS(numbers) ? numbers[rl->parameter] : 0;
    } else if (byte < G_N_ELEMENTS(letters)) {
        key = letters[byte];
    }
    if (key) {
        (void)readline_take(rl, key);
    }
}

static void take_escape(Readline *rl, uint8_t byte)
{
    if (rl->escape == ESCAPE_BEGUN) {
        rl->escape = byte == '[' || byte == 'O' ? ESCAPE_SEQUENCE : ESCAPE_NONE;
        rl->parameter = 0;
    } else if (g_ascii_isdigit(byte)) {
        rl->parameter = rl->parameter > 99 ? 99 : rl->parameter * 10 + (byte - '0');
    } else if (byte == ';') {
        rl->parameter = 0;
    } else if (byte >= '@' && byte <= '~') {
        rl->escape = ESCAPE_NONE;
        sequence_ended(rl, byte);
    }
}

static void take_key(Readline *rl, uint8_t byte)
{
    char text = (char)byte;

    switch (byte) {
    case KEY_CTRL('A'):
        move_to(rl, 0);
        break;
    case KEY_CTRL('E'):
        move_to(rl, rl->line->len);
        break;
    case KEY_CTRL('B'):
        move_to(rl, rl->cursor - (rl->cursor > 0));
        break;
    case KEY_CTRL('F'):
        move_to(rl, rl->cursor + (rl->cursor < rl->line->len));
        break;
    case KEY_CTRL('P'):
        show_history(rl, -1);
        break;
    case KEY_CTRL('N'):
        show_history(rl, 1);
        break;
    case '\b':
    case KEY_RUB_OUT:
        erase(rl, rl->cursor - (rl->cursor > 0), rl->cursor);
        break;
    case KEY_CTRL('D'):
        erase(rl, rl->cursor, rl->cursor + (rl->cursor < rl->line->len));
        break;
    case KEY_CTRL('C'):
    case KEY_CTRL('U'):
        replace(rl, "");
        break;
    case KEY_CTRL('K'):
        erase(rl, rl->cursor, rl->line->len);
        break;
    case KEY_CTRL('W'):
        erase(rl, word_start(rl), rl->cursor);
        break;
    case '\t':
        complete(rl);
        break;
    case KEY_ESCAPE:
        rl->escape = ESCAPE_BEGUN;
        break;
    default:
        if (byte >= ' ') {
            insert(rl, &text, 1);
        }
        break;
    }
}

bool readline_take(Readline *rl, uint8_t byte)
{
    if (byte == '\n' || byte == '\r') {
        rl->escape = ESCAPE_NONE;
        put(rl, "\r\n");
        return true;
    }
    if (!rl->echo) {
        if (byte >= ' ' && rl->line->len < READLINE_MAX) {
            g_string_append_c(rl->line, (char)byte);
        }
    } else if (rl->escape) {
        take_escape(rl, byte);
    } else {
        take_key(rl, byte);
    }
    return false;
}

/* --- life --- */

char *readline_line(Readline *rl)
{
    char *line = g_strdup(rl->line->str);

    remember(rl, line);
    readline_reset(rl);
    return line;
}

void readline_reset(Readline *rl)
{
    g_string_truncate(rl->line, 0);
    rl->cursor = 0;
    rl->escape = ESCAPE_NONE;
    rl->shown = rl->history->len;
}

Readline *readline_new(const ReadlineOps *ops, void *opaque, const char *prompt, bool echo)
{
    Readline *rl = g_new0(Readline, 1);

    rl->ops = ops;
    rl->opaque = opaque;
    rl->prompt = g_strdup(prompt);
    rl->echo = echo;
    rl->line = g_string_new(NULL);
    rl->history = g_ptr_array_new_with_free_func(g_free);
    return rl;
}

void readline_free(Readline *rl)
{
    g_string_free(rl->line, TRUE);
    g_ptr_array_unref(rl->history);
    g_free(rl->prompt);
    g_free(rl);
}
