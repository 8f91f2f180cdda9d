/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What memory looks like, as text for people. */
#include "memory/info.h"

#include <inttypes.h>
#include <string.h>
#include "memory/address-space.h"
#include "memory/memory-int.h"
#include "util/cutils.h"

char *ram_block_info(void)
{
    g_autoptr(RAMBlockList) list = ram_block_list_get();
    GString *text = g_string_new(NULL);

    g_string_append_printf(text, "%24s %8s  %18s %18s %18s\n", "Block Name", "PSize", "Offset",
                           "Used", "Total");
    for (unsigned i = 0; i < list->n; i++) {
        const RAMBlock *block = list->blocks[i];
        g_autofree char *page = size_to_str(block->page_size);

        g_string_append_printf(text,
                               "%24s %8s  0x%016" PRIx64 " 0x%016" PRIx64 " 0x%016" PRIx64 "\n",
                               ram_block_flags(block) & RAM_NAMED ? block->idstr : "", page,
                               block->offset, ram_block_used_length(block), block->max_length);
    }
    return g_string_free(text, FALSE);
}

/* --- trees --- */

typedef struct TreeInfo {
    GString *text;
    const MemoryInfoOptions *options;
    GPtrArray *aliased; /* MemoryRegion: targets of aliases, each once */
} TreeInfo;

static gint by_address(gconstpointer a, gconstpointer b)
{
    const MemoryRegion *x = *(MemoryRegion *const *)a, *y = *(MemoryRegion *const *)b;

    if (x->addr != y->addr) {
        return x->addr < y->addr ? -1 : 1;
    }
    return x->priority == y->priority ? 0 : x->priority > y->priority ? -1 : 1;
}

static const char *tree_kind(const MemoryRegion *mr)
{
    const MemoryRegion *shown = mr;

    while (shown->alias) {
        shown = shown->alias;
    }
    return shown->ram_block && mr->readonly ? "rom" : memory_region_kind(shown);
}

static void print_owner(GString *text, const MemoryInfoOptions *options, const MemoryRegion *mr)
{
    if (options->owners && mr->owner) {
        g_string_append_printf(text, " owner:{obj path=%s}", mr->owner);
    }
}

static void print_line(TreeInfo *info, const MemoryRegion *mr, hwaddr base, unsigned depth)
{
    uint64_t last = mr->size ? (uint64_t)(mr->size - 1) : 0;

    g_string_append_printf(info->text,
                           "%*s%016" PRIx64 "-%016" PRIx64 " (prio %d, %s): ", 2 * (int)depth, "",
                           base, base + last, mr->priority, tree_kind(mr));
    if (mr->alias) {
        g_string_append_printf(info->text, "alias %s @%s %016" PRIx64 "-%016" PRIx64, mr->name,
                               mr->alias->name, mr->alias_offset, mr->alias_offset + last);
        if (!g_ptr_array_find(info->aliased, mr->alias, NULL)) {
            g_ptr_array_add(info->aliased, mr->alias);
        }
    } else {
        g_string_append(info->text, mr->name);
    }
    g_string_append(info->text, mr->enabled ? "" : " [disabled]");
    print_owner(info->text, info->options, mr);
    g_string_append_c(info->text, '\n');
}

static void print_tree(TreeInfo *info, const MemoryRegion *mr, hwaddr base, unsigned depth)
{
    g_autoptr(GPtrArray) subs = g_ptr_array_new();
    MemoryRegion *sub;

    base += mr->addr;
    if (mr->enabled || info->options->disabled) {
        print_line(info, mr, base, depth);
    }
    if (mr->alias) {
        return;
    }
    TAILQ_FOREACH(sub, &mr->subregions, link) {
        g_ptr_array_add(subs, sub);
    }
    g_ptr_array_sort(subs, by_address);
    for (guint i = 0; i < subs->len; i++) {
        print_tree(info, g_ptr_array_index(subs, i), base, depth + 1);
    }
}

char *memory_tree_info(const MemoryInfoOptions *options)
{
    g_autoptr(GPtrArray) aliased = g_ptr_array_new();
    TreeInfo info = {.text = g_string_new(NULL), .options = options, .aliased = aliased};

    for (AddressSpace *as = address_space_next(NULL); as; as = address_space_next(as)) {
        g_string_append_printf(info.text, "address-space: %s\n", as->name);
        print_tree(&info, as->root, 0, 1);
        g_string_append_c(info.text, '\n');
    }
    for (guint i = 0; i < aliased->len; i++) {
        const MemoryRegion *mr = g_ptr_array_index(aliased, i);

        g_string_append_printf(info.text, "memory-region: %s\n", mr->name);
        print_tree(&info, mr, 0, 1);
        g_string_append_c(info.text, '\n');
    }
    return g_string_free(info.text, FALSE);
}

/* --- views --- */

/* A container that only shows its one child is not printed. */
static const MemoryRegion *view_root(const MemoryRegion *mr)
{
    for (;;) {
        const MemoryRegion *only = NULL, *sub;
        unsigned n = 0;

        if (mr->ops || mr->ram_block) {
            return mr;
        }
        TAILQ_FOREACH(sub, &mr->subregions, link) {
            if (sub->enabled) {
                only = sub;
                n++;
            }
        }
        if (n != 1 || only->addr || only->alias) {
            return mr;
        }
        mr = only;
    }
}

static void print_range(GString *text, const MemoryInfoOptions *options, const FlatRange *range)
{
    bool rom = range->readonly && range->block && !range->romd;

    g_string_append_printf(text, "  %016" PRIx64 "-%016" PRIx64 " (prio %d, %s): %s", range->first,
                           range->last, range->mr->priority,
                           rom ? "rom" : memory_region_kind(range->mr), range->mr->name);
    if (range->offset) {
        g_string_append_printf(text, " @%016" PRIx64, range->offset);
    }
    print_owner(text, options, range->mr);
    g_string_append_c(text, '\n');
}

/* The spaces that share a view, from `first` on. */
static void print_spaces(GString *text, AddressSpace *first)
{
    for (AddressSpace *as = first; as; as = address_space_next(as)) {
        if (as->current == first->current) {
            g_string_append_printf(text, " AS \"%s\", root: %s\n", as->name, as->root->name);
        }
    }
}

static void print_view(GString *text, const MemoryInfoOptions *options, AddressSpace *as)
{
    const FlatView *view = as->current;

    print_spaces(text, as);
    g_string_append_printf(text, " Root memory region: %s\n",
                           view->n ? view_root(as->root)->name : "(none)");
    if (!view->n) {
        g_string_append(text, "  No rendered FlatView\n");
    }
    for (unsigned i = 0; i < view->n; i++) {
        print_range(text, options, &view->ranges[i]);
    }
    if (options->dispatch) {
        g_string_append_printf(text, "  Dispatch\n    binary search in %u ranges\n", view->n);
    }
    g_string_append_c(text, '\n');
}

char *memory_view_info(const MemoryInfoOptions *options)
{
    GString *text = g_string_new(NULL);
    g_autoptr(GHashTable) printed = g_hash_table_new(NULL, NULL);
    unsigned number = 0;

    for (AddressSpace *as = address_space_next(NULL); as; as = address_space_next(as)) {
        if (g_hash_table_add(printed, as->current)) {
            g_string_append_printf(text, "FlatView #%u\n", number++);
            print_view(text, options, as);
        }
    }
    return g_string_free(text, FALSE);
}
