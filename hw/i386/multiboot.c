/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hw/i386/multiboot.h"

#include <elf.h>
#include <string.h>
#include "hw/core/loader.h"
#include "util/bswap.h"
#include "util/error.h"
#include "util/read-file.h"

/* 3.1: the header is in the first 8 KiB, at a multiple of 4. */
#define HEADER_SEARCH 8192u
#define HEADER_MAGIC  0x1badb002u
#define HEADER_BYTES  12u
/* With FLAG_ADDRESSES five more words follow. */
#define FLAG_ADDRESSES      0x10000u
#define ADDRESSES_BYTES     20u
#define FLAGS_NOT_SUPPORTED 0xfff8u /* of those that must be understood (bits 0 to 15) */

/* 3.3: the parts of the information that are there. */
enum {
    INFO_MEMORY = 1 << 0,
    INFO_CMDLINE = 1 << 2,
    INFO_MODULES = 1 << 3,
    INFO_MMAP = 1 << 6,
    INFO_LOADER_NAME = 1 << 9,
};

#define LOW_MEMORY_END UINT32_C(0x9fc00)
#define HIGH_MEMORY    UINT32_C(0x100000)
/* Where the information goes: free in every kernel that expects a PC's memory. */
#define INFO_ADDR    0x9000u
#define PAGE         4096u
#define MODULE_BYTES UINT64_C(0x80000000)

typedef struct Header {
    size_t offset; /* in the file */
    uint32_t flags;
} Header;

static bool find_header(const uint8_t *file, size_t bytes, Header *header)
{
    for (size_t i = 0; i + HEADER_BYTES <= MIN(bytes, HEADER_SEARCH); i += 4) {
        uint32_t magic = ldl_le_p(file + i), flags = ldl_le_p(file + i + 4);

        if (magic == HEADER_MAGIC && magic + flags + ldl_le_p(file + i + 8) == 0) {
            *header = (Header){i, flags};
            return true;
        }
    }
    return false;
}

bool multiboot_detect(const uint8_t *file, size_t bytes)
{
    Header header;

    return find_header(file, bytes, &header);
}

/* --- the kernel --- */

typedef struct Kernel {
    const char *name;
    const uint8_t *file;
    size_t bytes;
    uint64_t low_ram;
    uint32_t eip;
} Kernel;

/* One piece of the file, with zeroes behind it. */
static bool add_piece(const Kernel *k, uint64_t offset, uint64_t file_bytes, uint64_t addr,
                      uint64_t memory_bytes, GError **errp)
{
    uint8_t *data;

    if (!memory_bytes) {
        return true;
    }
    if (file_bytes > memory_bytes || offset > k->bytes || file_bytes > k->bytes - offset) {
        error_setg(errp, "could not load kernel '%s': a part lies outside of the file", k->name);
        return false;
    }
    if (addr > k->low_ram || memory_bytes > k->low_ram - addr) {
        error_setg(errp, "could not load kernel '%s': it does not fit into the memory", k->name);
        return false;
    }
    data = g_try_malloc0(memory_bytes);
    if (!data) {
        error_setg(errp, "could not load kernel '%s': no memory", k->name);
        return false;
    }
    memcpy(data, k->file + offset, file_bytes);
    return loader_add("the kernel", addr, g_bytes_new_take(data, memory_bytes), errp);
}

/* 3.1.3: the header has the addresses. */
static bool load_by_addresses(Kernel *k, const Header *header, GError **errp)
{
    const uint8_t *words = k->file + header->offset + HEADER_BYTES;
    uint32_t header_addr, load, load_end, bss_end, before;
    uint64_t offset, file_bytes, memory_bytes;

    if (header->offset + HEADER_BYTES + ADDRESSES_BYTES > k->bytes) {
        error_setg(errp, "could not load kernel '%s': its Multiboot header is cut", k->name);
        return false;
    }
    header_addr = ldl_le_p(words);
    load = ldl_le_p(words + 4);
    load_end = ldl_le_p(words + 8);
    bss_end = ldl_le_p(words + 12);
    k->eip = ldl_le_p(words + 16);
    before = header_addr - load;
    if (load > header_addr || before > header->offset || (load_end && load_end < load) ||
        (bss_end && bss_end < load_end)) {
        error_setg(errp,
                   "could not load kernel '%s': the addresses of its Multiboot header "
                   "contradict each other",
                   k->name);
        return false;
    }
    offset = header->offset - before;
    file_bytes = load_end ? load_end - load : k->bytes - offset;
    memory_bytes = bss_end ? MAX(file_bytes, bss_end - load) : file_bytes;
    return add_piece(k, offset, file_bytes, load, memory_bytes, errp);
}

static bool load_elf(Kernel *k, GError **errp)
{
    Elf32_Ehdr elf;
    Elf32_Phdr ph;

    if (k->bytes < sizeof(elf) || memcmp(k->file, ELFMAG, SELFMAG) != 0 ||
        k->file[EI_CLASS] != ELFCLASS32 || k->file[EI_DATA] != ELFDATA2LSB) {
        error_setg(errp,
                   "could not load kernel '%s': neither its Multiboot header has addresses, "
                   "nor is it a 32-bit ELF file",
                   k->name);
        return false;
    }
    memcpy(&elf, k->file, sizeof(elf));
    if (elf.e_machine != EM_386 || elf.e_phentsize != sizeof(ph) || elf.e_phoff > k->bytes ||
        (k->bytes - elf.e_phoff) / sizeof(ph) < elf.e_phnum) {
        error_setg(errp, "could not load kernel '%s': its ELF header is broken", k->name);
        return false;
    }
    k->eip = elf.e_entry;
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        memcpy(&ph, k->file + elf.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type == PT_LOAD &&
            !add_piece(k, ph.p_offset, ph.p_filesz, ph.p_paddr, ph.p_memsz, errp)) {
            return false;
        }
    }
    return true;
}

/* --- modules and information --- */

/* Words of 32 bits, and texts behind them, at fixed addresses. */
typedef struct Info {
    GByteArray *data;
} Info;

static uint32_t info_here(const Info *info)
{
    return INFO_ADDR + info->data->len;
}

static void info_word(Info *info, uint32_t value)
{
    uint8_t bytes[4];

    stl_le_p(bytes, value);
    g_byte_array_append(info->data, bytes, sizeof(bytes));
}

static uint32_t info_text(Info *info, const char *text)
{
    uint32_t addr = info_here(info);

    g_byte_array_append(info->data, (const guint8 *)text, (guint)strlen(text) + 1);
    while (info->data->len % 4) {
        g_byte_array_append(info->data, (const guint8 *)"", 1);
    }
    return addr;
}

static void info_set(Info *info, unsigned index, uint32_t value)
{
    stl_le_p(info->data->data + 4 * index, value);
}

static bool add_module(const char *words, uint64_t low_ram, uint32_t *start, uint32_t *end,
                       GError **errp)
{
    g_autofree char *path = g_strndup(words, strcspn(words, " "));
    uint8_t *data;
    size_t bytes;
    hwaddr addr;

    if (!qemu_read_file(path, MODULE_BYTES, &data, &bytes, errp)) {
        return false;
    }
    addr = loader_room(HIGH_MEMORY, bytes, PAGE);
    if (addr > low_ram || bytes > low_ram - addr) {
        error_setg(errp, "could not load module '%s': it does not fit into the memory", path);
        g_free(data);
        return false;
    }
    *start = (uint32_t)addr;
    *end = (uint32_t)(addr + bytes);
    return loader_add("a module", addr, g_bytes_new_take(data, bytes), errp);
}

static bool add_modules(Info *info, const char *modules, uint64_t low_ram, GError **errp)
{
    g_auto(GStrv) list = g_strsplit(modules ? modules : "", ",", -1);
    g_autoptr(GArray) words = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    uint32_t n = g_strv_length(list), table;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t row[4] = {0};

        if (!add_module(list[i], low_ram, &row[0], &row[1], errp)) {
            return false;
        }
        row[2] = info_text(info, list[i]);
        g_array_append_vals(words, row, G_N_ELEMENTS(row));
    }
    table = info_here(info);
    for (guint i = 0; i < words->len; i++) {
        info_word(info, g_array_index(words, uint32_t, i));
    }
    info_set(info, 5, n);
    info_set(info, 6, table);
    return true;
}

static void add_range(Info *info, uint64_t base, uint64_t bytes)
{
    info_word(info, 20); /* of what follows */
    info_word(info, (uint32_t)base);
    info_word(info, (uint32_t)(base >> 32));
    info_word(info, (uint32_t)bytes);
    info_word(info, (uint32_t)(bytes >> 32));
    info_word(info, 1); /* RAM */
}

static void add_map(Info *info, uint64_t low_ram, uint64_t high_ram)
{
    uint32_t start = info_here(info);

    add_range(info, 0, MIN(low_ram, LOW_MEMORY_END));
    if (low_ram > HIGH_MEMORY) {
        add_range(info, HIGH_MEMORY, low_ram - HIGH_MEMORY);
    }
    if (high_ram) {
        add_range(info, UINT64_C(1) << 32, high_ram);
    }
    info_set(info, 11, info_here(info) - start);
    info_set(info, 12, start);
}

static bool add_info(const Kernel *k, const char *cmdline, const char *modules, uint64_t high_ram,
                     GError **errp)
{
    Info info = {.data = g_byte_array_new()};
    g_autofree char *line = g_strdup_printf("%s%s%s", k->name, *cmdline ? " " : "", cmdline);
    GBytes *bytes;

    for (int i = 0; i < 22; i++) {
        info_word(&info, 0);
    }
    info_set(&info, 0, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MMAP | INFO_LOADER_NAME);
    info_set(&info, 1, MIN(k->low_ram, LOW_MEMORY_END) / 1024);
    info_set(&info, 2, (uint32_t)(MAX(k->low_ram, HIGH_MEMORY) - HIGH_MEMORY) / 1024);
    info_set(&info, 4, info_text(&info, line));
    info_set(&info, 16, info_text(&info, "Ferry"));
    if (!add_modules(&info, modules, k->low_ram, errp)) {
        g_byte_array_unref(info.data);
        return false;
    }
    add_map(&info, k->low_ram, high_ram);
    bytes = g_byte_array_free_to_bytes(info.data);
    if (INFO_ADDR + g_bytes_get_size(bytes) > MIN(k->low_ram, LOW_MEMORY_END)) {
        error_setg(errp,
                   "could not load kernel '%s': its command line and its modules' are too long",
                   k->name);
        g_bytes_unref(bytes);
        return false;
    }
    return loader_add("Multiboot information", INFO_ADDR, bytes, errp);
}

bool multiboot_load(const char *name, const uint8_t *file, size_t bytes, const char *cmdline,
                    const char *modules, uint64_t low_ram, uint64_t high_ram, MultibootEntry *entry,
                    GError **errp)
{
    Kernel k = {.name = name, .file = file, .bytes = bytes, .low_ram = low_ram};
    Header header = {0};

    if (!find_header(file, bytes, &header)) {
        error_setg(errp, "could not load kernel '%s': it has no Multiboot header", name);
        return false;
    }
    if (header.flags & FLAGS_NOT_SUPPORTED) {
        error_setg(errp,
                   "could not load kernel '%s': it needs what this loader does not know "
                   "(Multiboot flags 0x%x)",
                   name, header.flags);
        return false;
    }
    if (!(header.flags & FLAG_ADDRESSES ? load_by_addresses(&k, &header, errp)
                                        : load_elf(&k, errp)) ||
        !add_info(&k, cmdline, modules, high_ram, errp)) {
        return false;
    }
    *entry = (MultibootEntry){.eip = k.eip, .info = INFO_ADDR};
    return true;
}
