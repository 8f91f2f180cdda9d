/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Flattening: the view of a random tree against a model, and a listener that follows it. */
#include "memory/flatview.h"

#include "memory/address-space.h"
#include "memory/listener.h"

#define SPACE 256 /* bytes of the small spaces that random trees live in */
#define NODES 24
#define SEED  20240611

/* --- the model: what is seen at one address, found by asking the tree --- */

typedef struct Seen {
    MemoryRegion *mr;
    hwaddr offset;
    bool readonly;
} Seen;

/* `at` is an offset in mr. */
static Seen look(MemoryRegion *mr, hwaddr at, bool readonly)
{
    Seen seen = {0};
    MemoryRegion *sub;

    if (!mr->enabled || at >= mr->size) {
        return seen;
    }
    readonly |= mr->readonly;
    if (mr->alias) {
        return look(mr->alias, at + mr->alias_offset, readonly);
    }
    TAILQ_FOREACH(sub, &mr->subregions, link) {
        seen = at >= sub->addr ? look(sub, at - sub->addr, readonly) : (Seen){0};
        if (seen.mr) {
            return seen;
        }
    }
    return mr->ops || mr->ram_block ? (Seen){mr, at, readonly} : (Seen){0};
}

static void check_view(MemoryRegion *root, const FlatView *view)
{
    for (unsigned i = 1; i < view->n; i++) {
        g_assert_cmpuint(view->ranges[i - 1].last, <, view->ranges[i].first);
    }
    for (hwaddr at = 0; at < SPACE + 16; at++) {
        Seen seen = at >= root->addr ? look(root, at - root->addr, false) : (Seen){0};
        const FlatRange *range = flatview_find(view, at);

        g_assert_true(!range == !seen.mr);
        if (range) {
            g_assert_true(range->mr == seen.mr);
            g_assert_cmpuint(range->offset + (at - range->first), ==, seen.offset);
            g_assert_true(range->readonly == seen.readonly);
        }
    }
}

static const MemoryRegionOps nothing_ops = {0};

static bool is_below(const MemoryRegion *mr, const MemoryRegion *top)
{
    while (mr && mr != top) {
        mr = mr->container;
    }
    return mr;
}

/* Whether `mr` can be reached from `from`, through containers and aliases. */
static bool reaches(MemoryRegion *from, const MemoryRegion *mr)
{
    MemoryRegion *sub;

    if (from == mr || (from->alias && reaches(from->alias, mr))) {
        return true;
    }
    TAILQ_FOREACH(sub, &from->subregions, link) {
        if (reaches(sub, mr)) {
            return true;
        }
    }
    return false;
}

typedef struct Forest {
    GRand *rand;
    MemoryRegion nodes[NODES];
    unsigned n;
} Forest;

static unsigned pick(Forest *f, unsigned below)
{
    return (unsigned)g_rand_int_range(f->rand, 0, (int)below);
}

static void grow(Forest *f)
{
    MemoryRegion *mr = &f->nodes[f->n];
    MemoryRegion *at = &f->nodes[pick(f, f->n)];
    uint64_t size = 1 + pick(f, SPACE);
    g_autofree char *name = g_strdup_printf("r%u", f->n++);

    switch (pick(f, 3)) {
    case 0:
        memory_region_init(mr, NULL, name, size);
        break;
    case 1:
        memory_region_init_io(mr, NULL, &nothing_ops, NULL, name, size);
        break;
    default:
        memory_region_init_alias(mr, NULL, name, at, pick(f, SPACE), size);
        break;
    }
    mr->readonly = !pick(f, 4);
    at = &f->nodes[pick(f, f->n - 1)];
    if (!at->alias && !reaches(mr, at)) {
        memory_region_add_subregion_overlap(at, pick(f, SPACE), mr, (int)pick(f, 3) - 1);
    }
}

static void change(Forest *f)
{
    MemoryRegion *mr = &f->nodes[1 + pick(f, f->n - 1)];
    MemoryRegion *to = &f->nodes[pick(f, f->n)];

    switch (pick(f, 6)) {
    case 0:
        memory_region_set_enabled(mr, !mr->enabled);
        break;
    case 1:
        memory_region_set_address(mr, pick(f, SPACE));
        break;
    case 2:
        memory_region_set_size(mr, pick(f, SPACE));
        break;
    case 3:
        memory_region_set_readonly(mr, !mr->readonly);
        break;
    case 4:
        if (mr->alias) {
            memory_region_set_alias_offset(mr, pick(f, SPACE));
        }
        break;
    default:
        if (mr->container) {
            memory_region_del_subregion(mr->container, mr);
        }
        if (!to->alias && !reaches(mr, to) && !is_below(to, mr)) {
            memory_region_add_subregion_overlap(to, pick(f, SPACE), mr, (int)pick(f, 3) - 1);
        }
        break;
    }
}

/* --- a listener that keeps its own picture of the space --- */

typedef struct Follower {
    MemoryListener listener;
    GArray *have; /* MemoryRegionSection */
    unsigned nops;
    bool open;
} Follower;

static int find_section(Follower *f, const MemoryRegionSection *s)
{
    for (guint i = 0; i < f->have->len; i++) {
        const MemoryRegionSection *h = &g_array_index(f->have, MemoryRegionSection, i);

        if (h->mr == s->mr && h->offset_within_address_space == s->offset_within_address_space &&
            h->size == s->size && h->offset_within_region == s->offset_within_region &&
            h->readonly == s->readonly) {
            return (int)i;
        }
    }
    return -1;
}

static void follow_begin(MemoryListener *l)
{
    Follower *f = (Follower *)l;

    g_assert_false(f->open);
    f->open = true;
}

static void follow_commit(MemoryListener *l)
{
    Follower *f = (Follower *)l;

    g_assert_true(f->open);
    f->open = false;
}

static void follow_add(MemoryListener *l, const MemoryRegionSection *s)
{
    Follower *f = (Follower *)l;

    for (guint i = 0; i < f->have->len; i++) {
        const MemoryRegionSection *h = &g_array_index(f->have, MemoryRegionSection, i);

        g_assert_true(h->offset_within_address_space + h->size <= s->offset_within_address_space ||
                      s->offset_within_address_space + s->size <= h->offset_within_address_space);
    }
    g_array_append_vals(f->have, s, 1);
}

static void follow_del(MemoryListener *l, const MemoryRegionSection *s)
{
    Follower *f = (Follower *)l;
    int at = find_section(f, s);

    g_assert_cmpint(at, >=, 0);
    g_array_remove_index_fast(f->have, (guint)at);
}

static void follow_nop(MemoryListener *l, const MemoryRegionSection *s)
{
    Follower *f = (Follower *)l;

    g_assert_cmpint(find_section(f, s), >=, 0);
    f->nops++;
}

static void follower_init(Follower *f, AddressSpace *as)
{
    *f = (Follower){
        .listener = {.name = "follower",
                     .begin = follow_begin,
                     .commit = follow_commit,
                     .region_add = follow_add,
                     .region_del = follow_del,
                     .region_nop = follow_nop},
        .have = g_array_new(FALSE, FALSE, sizeof(MemoryRegionSection)),
    };
    memory_listener_register(&f->listener, as);
}

static void test_view_is_what_the_tree_shows_and_listeners_can_follow_it(void)
{
    for (unsigned round = 0; round < 60; round++) {
        Forest f = {.rand = g_rand_new_with_seed(SEED + round)};
        AddressSpace as;
        Follower follower;

        memory_region_init(&f.nodes[f.n++], NULL, "root", SPACE);
        address_space_init(&as, &f.nodes[0], "test");
        follower_init(&follower, &as);
        for (unsigned step = 0; step < 200; step++) {
            unsigned together = pick(&f, 4) ? 1 : 4;

            memory_region_transaction_begin();
            for (unsigned i = 0; i < together; i++) {
                if (f.n < NODES) {
                    grow(&f);
                } else {
                    change(&f);
                }
            }
            memory_region_transaction_commit();
            g_autoptr(FlatView) view = address_space_get_flatview(&as);

            check_view(&f.nodes[0], view);
            g_assert_cmpuint(follower.have->len, ==, view->n);
        }
        memory_listener_unregister(&follower.listener);
        g_assert_cmpuint(follower.have->len, ==, 0);
        g_array_free(follower.have, TRUE);
        address_space_destroy(&as);
        for (unsigned i = 0; i < f.n; i++) {
            if (f.nodes[i].container) {
                memory_region_del_subregion(f.nodes[i].container, &f.nodes[i]);
            }
        }
        for (unsigned i = f.n; i-- > 0;) {
            memory_region_destroy(&f.nodes[i]);
        }
        g_rand_free(f.rand);
    }
}

/*
 * Spaces with all kinds of roots: a commit renders only what it has changed, and spaces share views.
 * Each view is nevertheless what its tree shows now.
 */
static void test_views_of_all_spaces_follow_every_change(void)
{
    for (unsigned round = 0; round < 60; round++) {
        Forest f = {.rand = g_rand_new_with_seed(SEED + round)};
        AddressSpace as[NODES];
        Follower followers[NODES];

        for (f.n = 0; f.n < 2; f.n++) {
            memory_region_init(&f.nodes[f.n], NULL, "container", SPACE);
        }
        while (f.n < NODES) {
            grow(&f);
        }
        for (unsigned i = 0; i < NODES; i++) {
            address_space_init(&as[i], &f.nodes[i], "test");
            follower_init(&followers[i], &as[i]);
        }
        for (unsigned step = 0; step < 200; step++) {
            unsigned together = pick(&f, 4) ? 1 : 4;

            memory_region_transaction_begin();
            while (together--) {
                change(&f);
            }
            memory_region_transaction_commit();
            for (unsigned i = 0; i < NODES; i++) {
                g_autoptr(FlatView) view = address_space_get_flatview(&as[i]);
                g_autoptr(FlatView) fresh = flatview_render(&f.nodes[i]);

                g_assert_true(flatview_same(view, fresh));
                g_assert_cmpuint(followers[i].have->len, ==, view->n);
            }
        }
        for (unsigned i = 0; i < NODES; i++) {
            memory_listener_unregister(&followers[i].listener);
            g_array_free(followers[i].have, TRUE);
            address_space_destroy(&as[i]);
        }
        for (unsigned i = 0; i < NODES; i++) {
            if (f.nodes[i].container) {
                memory_region_del_subregion(f.nodes[i].container, &f.nodes[i]);
            }
        }
        for (unsigned i = NODES; i-- > 0;) {
            memory_region_destroy(&f.nodes[i]);
        }
        g_rand_free(f.rand);
    }
}

static void expect_seen(AddressSpace *as, const char *name)
{
    g_autoptr(FlatView) view = address_space_get_flatview(as);
    const FlatRange *range = flatview_find(view, 8);

    g_assert_cmpstr(range ? memory_region_name(range->mr) : "nothing", ==, name);
}

static void test_priority_decides_then_youth(void)
{
    static const struct {
        const char *name;
        int priority;
    } parts[] = {{"lowest", -1}, {"old", 0}, {"young", 0}, {"high", 1}};
    MemoryRegion root, mr[4];
    AddressSpace as;

    memory_region_init(&root, NULL, "root", SPACE);
    address_space_init(&as, &root, "test");
    /* The order of adding is not that of priorities. */
    for (unsigned i = 4; i-- > 0;) {
        memory_region_init_io(&mr[i], NULL, &nothing_ops, NULL, parts[i].name, 16);
    }
    for (unsigned i = 0; i < 4; i++) {
        unsigned k = (i + 3) % 4;

        memory_region_add_subregion_overlap(&root, 0, &mr[k], parts[k].priority);
        expect_seen(&as, "high");
    }
    memory_region_set_enabled(&mr[3], false);
    expect_seen(&as, "young");
    memory_region_set_address(&mr[1], 4); /* a region that moves is the youngest */
    expect_seen(&as, "old");
    memory_region_set_enabled(&mr[1], false);
    expect_seen(&as, "young");
    memory_region_del_subregion(&root, &mr[2]);
    expect_seen(&as, "lowest");
    memory_region_add_subregion_overlap(&root, 8, &mr[2], -2);
    expect_seen(&as, "lowest");
    memory_region_set_enabled(&mr[0], false);
    expect_seen(&as, "young");
    memory_region_set_enabled(&root, false);
    expect_seen(&as, "nothing");
    address_space_destroy(&as);
    for (unsigned i = 0; i < 4; i++) {
        memory_region_del_subregion(&root, &mr[i]);
        memory_region_destroy(&mr[i]);
    }
    memory_region_destroy(&root);
}

/*
 * Windows that touch show their region as one range; the last address and whole spaces can be said.
 */
static void test_ends_of_the_space(void)
{
    MemoryRegion root, all, low, high;
    AddressSpace as;

    memory_region_init(&root, NULL, "root", MEMORY_REGION_WHOLE);
    memory_region_init_io(&all, NULL, &nothing_ops, NULL, "all", MEMORY_REGION_WHOLE);
    memory_region_init_alias(&low, NULL, "low", &all, 0x1000, 0x1000);
    memory_region_init_alias(&high, NULL, "high", &all, 0x2000, MEMORY_REGION_WHOLE);
    memory_region_add_subregion(&root, 0x5000, &low);
    memory_region_add_subregion(&root, 0x6000, &high);
    address_space_init(&as, &root, "test");
    g_autoptr(FlatView) joined = address_space_get_flatview(&as);

    g_assert_cmpuint(joined->n, ==, 1);
    g_assert_cmphex(joined->ranges[0].first, ==, 0x5000);
    g_assert_cmphex(joined->ranges[0].last, ==, UINT64_MAX);
    g_assert_cmphex(joined->ranges[0].offset, ==, 0x1000);
    memory_region_set_readonly(&low, true);
    g_autoptr(FlatView) parted = address_space_get_flatview(&as);

    g_assert_cmpuint(parted->n, ==, 2);
    g_assert_true(parted->ranges[0].readonly && !parted->ranges[1].readonly);
    memory_region_del_subregion(&root, &low);
    memory_region_del_subregion(&root, &high);
    memory_region_add_subregion(&root, 0, &all);
    g_autoptr(FlatView) whole = address_space_get_flatview(&as);

    g_assert_cmpuint(whole->n, ==, 1);
    g_assert_cmphex(whole->ranges[0].first, ==, 0);
    g_assert_cmphex(whole->ranges[0].last, ==, UINT64_MAX);
    g_assert_true(flatview_find(whole, UINT64_MAX) == whole->ranges);
    address_space_destroy(&as);
    memory_region_del_subregion(&root, &all);
    memory_region_destroy(&low);
    memory_region_destroy(&high);
    memory_region_destroy(&all);
    memory_region_destroy(&root);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_message("seed %d", SEED);
    g_test_add_func("/flatview/model",
                    test_view_is_what_the_tree_shows_and_listeners_can_follow_it);
    g_test_add_func("/flatview/spaces", test_views_of_all_spaces_follow_every_change);
    g_test_add_func("/flatview/priority", test_priority_decides_then_youth);
    g_test_add_func("/flatview/ends", test_ends_of_the_space);
    return g_test_run();
}
