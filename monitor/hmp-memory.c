/* SPDX-License-Identifier: GPL-2.0-or-later */
/* HMP commands about memory. */
#include <inttypes.h>
#include <string.h>
#include "memory/address-space.h"
#include "memory/info.h"
#include "monitor/hmp-int.h"
#include "monitor/hmp.h"
#include "util/cutils.h"

/* Most items that xp prints at once: more is for pmemsave. */
#define DUMP_ITEMS_MAX 65536

static void print_text(HMPOutput *out, char *text)
{
    hmp_printf(out, "%s", text);
    g_free(text);
}

static void coroutine_fn info_ramblock(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    print_text(out, ram_block_info());
}

static void coroutine_fn info_mtree(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    MemoryInfoOptions options = {0};
    bool flat = false;

    for (int i = 0; i < argc; i++) {
        bool letters = argv[i][0] == '-' && strspn(argv[i] + 1, "fdDo") == strlen(argv[i] + 1);

        if (!letters) {
            hmp_printf(out, "unsupported option %s\n", argv[i]);
            return;
        }
        flat |= strchr(argv[i], 'f') != NULL;
        options.disabled |= strchr(argv[i], 'D') != NULL;
        options.dispatch |= strchr(argv[i], 'd') != NULL;
        options.owners |= strchr(argv[i], 'o') != NULL;
    }
    print_text(out, flat ? memory_view_info(&options) : memory_tree_info(&options));
}

static const char *member(json_object *json, const char *name)
{
    json_object *value;

    return json_object_object_get_ex(json, name, &value) ? json_object_get_string(value) : "";
}

static void coroutine_fn info_memdev(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    static const char *const members[] = {"size",  "merge",   "dump",  "prealloc",
                                          "share", "reserve", "policy"};
    json_object *list = hmp_co_qmp(out, "query-memdev", NULL);
    size_t n = list ? json_object_array_length(list) : 0;

    for (size_t i = 0; i < n; i++) {
        json_object *dev = json_object_array_get_idx(list, i), *nodes;

        hmp_printf(out, "memory backend: %s\n", member(dev, "id"));
        for (size_t k = 0; k < G_N_ELEMENTS(members); k++) {
            hmp_printf(out, "  %s: %s%s\n", members[k], k ? "" : " ", member(dev, members[k]));
        }
        hmp_printf(out, "  host nodes: ");
        if (json_object_object_get_ex(dev, "host-nodes", &nodes)) {
            for (size_t k = 0; k < json_object_array_length(nodes); k++) {
                hmp_printf(out, "%s%s", k ? ", " : "",
                           json_object_get_string(json_object_array_get_idx(nodes, k)));
            }
        }
        hmp_printf(out, "\n");
    }
    hmp_printf(out, "\n");
    json_object_put(list);
}

static void coroutine_fn info_memory_size(HMPOutput *out, const HMPCommand *cmd, int argc,
                                          char **argv)
{
    json_object *info = hmp_co_qmp(out, "query-memory-size-summary", NULL);

    if (info) {
        hmp_printf(out, "base memory: %s\n", member(info, "base-memory"));
        hmp_printf(out, "plugged memory: %s\n", member(info, "plugged-memory"));
    }
    json_object_put(info);
}

/* --- xp --- */

typedef struct DumpFormat {
    unsigned count;
    unsigned size; /* bytes of an item */
    char letter;   /* x, d, u, o, c */
} DumpFormat;

/* "/4xw": a count, a base and a size, in any order after the count. */
static bool parse_format(HMPOutput *out, const char *text, DumpFormat *format)
{
    uint64_t count = 1;
    const char *p = text + 1;

    *format = (DumpFormat){.count = 1, .size = 4, .letter = 'x'};
    if (g_ascii_isdigit(*p) && qemu_strtou64(p, &p, 10, &count) < 0) {
        count = DUMP_ITEMS_MAX;
    }
    format->count = (unsigned)MIN(count, DUMP_ITEMS_MAX);
    for (; *p; p++) {
        const char *sizes = "bhwg", *size = strchr(sizes, *p);

        if (size) {
            format->size = 1u << (size - sizes);
        } else if (strchr("xduoc", *p)) {
            format->letter = *p;
        } else {
            hmp_printf(out, "invalid char in format: '%c'\n", *p);
            return false;
        }
    }
    return true;
}

static void print_item(HMPOutput *out, const DumpFormat *format, uint64_t value)
{
    static const int octal_digits[] = {[1] = 3, [2] = 6, [4] = 11, [8] = 22};
    static const int decimal_digits[] = {[1] = 3, [2] = 5, [4] = 10, [8] = 20};
    unsigned shift = 64 - 8 * format->size;

    switch (format->letter) {
    case 'x':
        hmp_printf(out, " 0x%0*" PRIx64, 2 * (int)format->size, value);
        break;
    case 'o':
        hmp_printf(out, " %#*" PRIo64, octal_digits[format->size], value);
        break;
    case 'u':
        hmp_printf(out, " %*" PRIu64, decimal_digits[format->size], value);
        break;
    case 'd':
        hmp_printf(out, " %*" PRId64, decimal_digits[format->size],
                   (int64_t)(value << shift) >> shift);
        break;
    default:
        if (g_ascii_isprint((char)value)) {
            hmp_printf(out, " '%c'", (char)value);
        } else {
            hmp_printf(out, " '\\x%02x'", (unsigned)(value & 0xff));
        }
        break;
    }
}

static void coroutine_fn hmp_co_xp(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    DumpFormat format = {.count = 1, .size = 4, .letter = 'x'};
    bool formatted = argc && argv[0][0] == '/';
    unsigned per_line;
    uint64_t addr;

    if (formatted && !parse_format(out, argv[0], &format)) {
        return;
    }
    if (argc != 1 + formatted || qemu_strtou64(argv[formatted], NULL, 0, &addr) < 0) {
        hmp_printf(out, "Error: usage: %s %s\n", cmd->name, cmd->args);
        return;
    }
    per_line = format.size == 1 ? 8 : 16 / format.size;
    for (unsigned done = 0; done < format.count;) {
        unsigned n = MIN(per_line, format.count - done);
        uint8_t line[16];

        hmp_printf(out, "%016" PRIx64 ":", addr);
        if (address_space_read(get_address_space_memory(), addr, MEMTXATTRS_UNSPECIFIED, line,
                               n * format.size) != MEMTX_OK) {
            hmp_printf(out, " Cannot access memory\n");
            return;
        }
        for (unsigned i = 0; i < n; i++) {
            uint64_t value = 0;

            memcpy(&value, line + i * format.size, format.size);
            print_item(out, &format, value);
        }
        hmp_printf(out, "\n");
        done += n;
        addr += n * format.size;
    }
}

static void coroutine_fn hmp_co_x(HMPOutput *out, const HMPCommand *cmd, int argc, char **argv)
{
    hmp_printf(out, "Can not dump without CPU\n");
}

void hmp_register_memory_commands(void)
{
    static const HMPCommand commands[] = {
        {"xp", "[/format] address", "show physical memory: /4xw is 4 hexadecimal words", hmp_co_xp},
        {"x", "[/format] address", "show a CPU's virtual memory", hmp_co_x},
    };
    static const HMPCommand infos[] = {
        {"mtree", "[-f] [-d] [-o] [-D]",
         "regions of memory; -f: as the guest sees them; -o: with their owners; -D: disabled ones "
         "too; with -f -d: how they are found",
         info_mtree},
        {"ramblock", "", "blocks of RAM", info_ramblock},
        {"memdev", "", "memory backends", info_memdev},
        {"memory_size_summary", "", "how much memory the guest has", info_memory_size},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        hmp_register_command(&commands[i]);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(infos); i++) {
        hmp_register_info(&infos[i]);
    }
}
