/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory backends: the objects that users make, and their use. */
#include "memory/backend.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "memory/backend-file.h"
#include "memory/ram-map.h"
#include "qapi/qapi-commands-memory.h"
#include "util/aio.h"
#include "util/cutils.h"
#include "util/error.h"

/* Host NUMA nodes that can be named: 0 up to this. */
#define HOST_NODES_MAX 128

struct HostMemoryBackend {
    ObjectType type;
    char *id;
    uint64_t size;
    bool merge, dump, prealloc, share, reserve;
    bool canonical_name;
    bool discard_data;
    unsigned prealloc_threads;
    HostMemPolicy policy;
    uint16_t *nodes;
    unsigned n_nodes;
    json_object *properties; /* as qom-get shows them */

    RAMBlock *block;
    MemoryRegion mr;       /* while mapped */
    UserCreatable *in_use; /* while mapped: a reference to this object */
};

static bool default_merge = true, default_dump = true;

void host_memory_backend_set_defaults(bool merge, bool dump)
{
    default_merge = merge;
    default_dump = dump;
}

static const char *type_name(const HostMemoryBackend *backend)
{
    return ObjectType_str(backend->type);
}

static bool zero_refused(const HostMemoryBackend *backend, const char *property, uint64_t value,
                         GError **errp)
{
    if (!value) {
        error_setg(errp, "property '%s' of %s doesn't take value '0'", property,
                   type_name(backend));
    }
    return !value;
}

/* --- properties --- */

static bool take_nodes(HostMemoryBackend *backend, const MemoryBackendProperties *p, GError **errp)
{
    unsigned n = 0;

    for (const uint16List *node = p->host_nodes; node; node = node->next) {
        if (node->value >= HOST_NODES_MAX) {
            error_setg(errp, "Invalid host-nodes value: %d", node->value);
            return false;
        }
        n++;
    }
    backend->nodes = g_new0(uint16_t, n + 1);
    for (const uint16List *node = p->host_nodes; node; node = node->next) {
        backend->nodes[backend->n_nodes++] = node->value;
    }
    backend->policy = p->has_policy ? p->policy : HOST_MEM_POLICY_DEFAULT;
    if (n && backend->policy == HOST_MEM_POLICY_DEFAULT) {
        error_setg(errp,
                   "host-nodes needs a policy: with the policy default, memory of %s is "
                   "bound to no node",
                   type_name(backend));
        return false;
    }
    if (!n && backend->policy != HOST_MEM_POLICY_DEFAULT) {
        error_setg(errp, "host-nodes must be set for policy %s",
                   HostMemPolicy_str(backend->policy));
        return false;
    }
    return true;
}

static bool take_properties(HostMemoryBackend *backend, const MemoryBackendProperties *p,
                            bool share, GError **errp)
{
    backend->size = p->size;
    backend->merge = p->has_merge ? p->merge : default_merge;
    backend->dump = p->has_dump ? p->dump : default_dump;
    backend->prealloc = p->has_prealloc && p->prealloc;
    backend->prealloc_threads = p->has_prealloc_threads ? p->prealloc_threads : 1;
    backend->share = p->has_share ? p->share : share;
    backend->reserve = !p->has_reserve || p->reserve;
    backend->canonical_name =
        p->has_x_use_canonical_path_for_ramblock_id && p->x_use_canonical_path_for_ramblock_id;
    if (zero_refused(backend, "size", backend->size, errp) ||
        zero_refused(backend, "prealloc-threads", backend->prealloc_threads, errp)) {
        return false;
    }
    if (backend->prealloc && !backend->reserve) {
        error_setg(errp, "'prealloc=on' and 'reserve=off' are incompatible");
        return false;
    }
    return take_nodes(backend, p, errp);
}

void host_memory_expand_nodes(json_object *options)
{
    json_object *text, *list;
    uint64_t first, last;
    const char *end;

    if (!json_object_object_get_ex(options, "host-nodes", &text) ||
        !json_object_is_type(text, json_type_string) ||
        qemu_strtou64(json_object_get_string(text), &end, 10, &first) < 0) {
        return;
    }
    last = first;
    if ((*end == '-' && qemu_strtou64(end + 1, &end, 10, &last) < 0) || *end ||
        first >= HOST_NODES_MAX || last >= HOST_NODES_MAX) {
        return;
    }
    list = json_object_new_array();
    for (uint64_t node = first; node <= last; node++) {
        json_object_array_add(list, json_object_new_uint64(node));
    }
    json_object_object_add(options, "host-nodes", list);
}

/* --- the block --- */

/* mbind(2): says where the pages come from; those that exist already move. */
static bool bind_nodes(const HostMemoryBackend *backend, GError **errp)
{
    static const int modes[] = {
        [HOST_MEM_POLICY_DEFAULT] = 0,
        [HOST_MEM_POLICY_PREFERRED] = 1,
        [HOST_MEM_POLICY_BIND] = 2,
        [HOST_MEM_POLICY_INTERLEAVE] = 3,
    };
    const unsigned long strict = 1, move = 2, bits = 8 * sizeof(unsigned long);
    unsigned long mask[HOST_NODES_MAX / 8 / sizeof(unsigned long) + 1] = {0};

    if (!backend->n_nodes) {
        return true;
    }
    for (unsigned i = 0; i < backend->n_nodes; i++) {
        mask[backend->nodes[i] / bits] |= 1ul << (backend->nodes[i] % bits);
    }
    if (syscall(SYS_mbind, backend->block->host, ram_block_mapped_bytes(backend->block),
                modes[backend->policy], mask, (unsigned long)HOST_NODES_MAX + 1,
                strict | move) < 0) {
        error_setg_errno(errp, errno, "cannot bind memory of '%s' to host NUMA nodes", backend->id);
        return false;
    }
    return true;
}

static int prealloc_in_worker(void *opaque)
{
    const HostMemoryBackend *backend = opaque;

    return ram_prealloc(backend->block->host, ram_block_mapped_bytes(backend->block),
                        backend->block->page_size, backend->prealloc_threads);
}

/* The loop goes on while pages are made. */
static bool coroutine_fn co_prealloc(HostMemoryBackend *backend, GError **errp)
{
    int ret = thread_pool_submit_co(prealloc_in_worker, backend);

    if (ret < 0) {
        error_setg_errno(errp, -ret, "cannot preallocate %" G_GUINT64_FORMAT " bytes for '%s'",
                         backend->block->max_length, backend->id);
        return false;
    }
    return true;
}

static bool coroutine_fn co_make_block(HostMemoryBackend *backend, const BackendFile *file,
                                       RAMBlockOptions *options, GError **errp)
{
    options->what = backend->id;
    options->size = backend->size;
    options->fd = file->fd;
    options->fd_zeroed = file->fresh;
    options->merge = backend->merge;
    options->no_dump = !backend->dump;
    options->flags |= (backend->share ? RAM_SHARED : 0) | (file->named ? RAM_NAMED_FILE : 0) |
                      (backend->reserve ? 0 : RAM_NORESERVE);
    backend->block = ram_block_new(options, errp);
    return backend->block && bind_nodes(backend, errp) &&
           (!backend->prealloc || co_prealloc(backend, errp));
}

static void destroy(void *object)
{
    HostMemoryBackend *backend = object;
    RAMBlock *block = backend->block;

    g_assert(!backend->in_use);
    if (block && backend->discard_data) {
        /* Keeps pages that are not looked at any more from being written to the disk. */
        (void)madvise(block->host, ram_block_mapped_bytes(block), MADV_REMOVE);
    }
    ram_block_free(block);
    json_object_put(backend->properties);
    g_free(backend->nodes);
    g_free(backend->id);
    g_free(backend);
}

static HostMemoryBackend *backend_new(const ObjectOptions *options)
{
    HostMemoryBackend *backend = g_new0(HostMemoryBackend, 1);

    backend->type = options->qom_type;
    backend->id = g_strdup(options->id);
    return backend;
}

/* What properties are that were not given. */
static void show_default(HostMemoryBackend *backend, const char *name, json_object *value)
{
    if (json_object_object_get_ex(backend->properties, name, NULL)) {
        json_object_put(value);
    } else {
        json_object_object_add(backend->properties, name, value);
    }
}

static HostMemoryBackend *show(HostMemoryBackend *backend, const ObjectOptions *options)
{
    backend->properties = ObjectOptions_to_json(options);
    show_default(backend, "merge", json_object_new_boolean(backend->merge));
    show_default(backend, "dump", json_object_new_boolean(backend->dump));
    show_default(backend, "reserve", json_object_new_boolean(true));
    show_default(backend, "share", json_object_new_boolean(backend->share));
    show_default(backend, "prealloc-threads", json_object_new_int(1));
    show_default(backend, "policy", json_object_new_string("default"));
    return backend;
}

static void *coroutine_fn ram_co_create(const ObjectOptions *options, GError **errp)
{
    HostMemoryBackend *backend = backend_new(options);
    RAMBlockOptions ram = {0};
    BackendFile file = {.fd = -1};

    if (!take_properties(backend, &options->u.memory_backend_ram, false, errp) ||
        !co_make_block(backend, &file, &ram, errp)) {
        destroy(backend);
        return NULL;
    }
    return show(backend, options);
}

static void *coroutine_fn memfd_co_create(const ObjectOptions *options, GError **errp)
{
    const MemoryBackendMemfdProperties *p = &options->u.memory_backend_memfd;
    HostMemoryBackend *backend = backend_new(options);
    RAMBlockOptions ram = {0};
    BackendFile file;

    if (!take_properties(backend, (const MemoryBackendProperties *)p, true, errp) ||
        !backend_memfd_open(p, backend->id, &file, errp) ||
        !co_make_block(backend, &file, &ram, errp)) {
        destroy(backend);
        return NULL;
    }
    return show(backend, options);
}

/* Whether the guest may write, from readonly and rom. False: errp. */
static bool file_rom(const MemoryBackendFileProperties *p, bool share, bool *rom, GError **errp)
{
    bool readonly = p->has_readonly && p->readonly;
    OnOffAuto value = p->has_rom ? p->rom : ON_OFF_AUTO_AUTO;

    *rom = value == ON_OFF_AUTO_AUTO ? readonly : value == ON_OFF_AUTO_ON;
    if (!readonly && value == ON_OFF_AUTO_ON) {
        error_setg(errp, "property 'rom' = 'on' is not supported with 'readonly' = 'off'");
        return false;
    }
    if (readonly && !*rom && share) {
        error_setg(errp, "property 'rom' = 'off' is incompatible with 'readonly' = 'on' and "
                         "'share' = 'on'");
        return false;
    }
    return true;
}

static void *coroutine_fn file_co_create(const ObjectOptions *options, GError **errp)
{
    const MemoryBackendFileProperties *p = &options->u.memory_backend_file;
    HostMemoryBackend *backend = backend_new(options);
    RAMBlockOptions ram = {.fd_offset = p->has_offset ? p->offset : 0,
                           .align = p->has_align ? p->align : 0};
    BackendFile file;
    bool rom;

    if (p->has_pmem && p->pmem) {
        error_setg(errp, "persistent memory is not supported: 'pmem' can't be on");
        destroy(backend);
        return NULL;
    }
    backend->discard_data = p->has_discard_data && p->discard_data;
    if (!take_properties(backend, (const MemoryBackendProperties *)p, false, errp) ||
        !file_rom(p, backend->share, &rom, errp) ||
        !backend_file_open(p, backend->id, &file, errp)) {
        destroy(backend);
        return NULL;
    }
    ram.flags = rom ? RAM_READONLY : 0;
    if (!co_make_block(backend, &file, &ram, errp)) {
        if (file.fresh && file.named) {
            unlink(p->mem_path);
        }
        destroy(backend);
        return NULL;
    }
    return show(backend, options);
}

/* --- as an object --- */

static bool can_be_deleted(void *object, GError **errp)
{
    const HostMemoryBackend *backend = object;

    if (backend->in_use) {
        error_setg(errp, "object '%s' is in use, can not be deleted", backend->id);
    }
    return !backend->in_use;
}

static json_object *get_properties(void *object)
{
    const HostMemoryBackend *backend = object;

    return json_object_get(backend->properties);
}

static bool set_property(void *object, const char *property, json_object *value, GError **errp)
{
    HostMemoryBackend *backend = object;
    bool merge = !strcmp(property, "merge"), on = json_object_get_boolean(value);
    RAMBlock *block = backend->block;

    if (!merge && strcmp(property, "dump") != 0) {
        error_setg(errp, "cannot change property %s of %s", property, type_name(backend));
        return false;
    }
    if (!json_object_is_type(value, json_type_boolean)) {
        error_setg(errp, "Invalid parameter type for '%s', expected: boolean", property);
        return false;
    }
    json_object_object_add(backend->properties, property, json_object_new_boolean(on));
    if (merge) {
        backend->merge = on;
        /* EINVAL: the host has no such thing, and so does not do it. */
        (void)madvise(block->host, ram_block_mapped_bytes(block),
                      on ? MADV_MERGEABLE : MADV_UNMERGEABLE);
    } else {
        backend->dump = on;
        (void)madvise(block->host, ram_block_mapped_bytes(block), on ? MADV_DODUMP : MADV_DONTDUMP);
    }
    return true;
}

#define MEMORY_BACKEND_OPS(kind, create)                                                         \
    {                                                                                            \
        .type = kind, .co_create = create, .destroy = destroy, .can_be_deleted = can_be_deleted, \
        .early = true, .parent = "memory-backend", .get = get_properties, .set = set_property,   \
    }

const UserCreatableOps memory_backend_file_object_ops =
    MEMORY_BACKEND_OPS(OBJECT_TYPE_MEMORY_BACKEND_FILE, file_co_create);
const UserCreatableOps memory_backend_memfd_object_ops =
    MEMORY_BACKEND_OPS(OBJECT_TYPE_MEMORY_BACKEND_MEMFD, memfd_co_create);
const UserCreatableOps memory_backend_ram_object_ops =
    MEMORY_BACKEND_OPS(OBJECT_TYPE_MEMORY_BACKEND_RAM, ram_co_create);

/* --- use --- */

static const ObjectType backend_types[] = {OBJECT_TYPE_MEMORY_BACKEND_FILE,
                                           OBJECT_TYPE_MEMORY_BACKEND_MEMFD,
                                           OBJECT_TYPE_MEMORY_BACKEND_RAM};

static UserCreatable *find_object(const char *id)
{
    UserCreatable *object = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(backend_types) && !object; i++) {
        object = user_creatable_find(id, backend_types[i], NULL);
    }
    return object;
}

HostMemoryBackend *host_memory_backend_find(const char *id, GError **errp)
{
    UserCreatable *object = find_object(id);

    if (!object) {
        error_setg(errp, "Memory backend '%s' not found", id);
        return NULL;
    }
    return user_creatable_get(object);
}

MemoryRegion *host_memory_backend_map(HostMemoryBackend *backend, GError **errp)
{
    g_autofree char *path = g_strconcat("/objects/", backend->id, NULL);

    if (backend->in_use) {
        error_setg(errp, "memory backend '%s' can't be used multiple times", backend->id);
        return NULL;
    }
    if (!ram_block_set_idstr(backend->block, backend->canonical_name ? path : backend->id, errp)) {
        return NULL;
    }
    ram_block_set_migratable(backend->block, true);
    memory_region_init_ram_from_block(&backend->mr, path, backend->block->idstr, backend->block);
    backend->in_use = find_object(backend->id);
    user_creatable_ref(backend->in_use);
    return &backend->mr;
}

void host_memory_backend_unmap(HostMemoryBackend *backend)
{
    UserCreatable *object = backend->in_use;

    memory_region_destroy(&backend->mr);
    ram_block_set_migratable(backend->block, false);
    ram_block_unset_idstr(backend->block);
    backend->in_use = NULL;
    user_creatable_unref(object);
}

uint64_t host_memory_backend_size(const HostMemoryBackend *backend)
{
    return backend->size;
}

static void add_info(UserCreatable *object, void *opaque)
{
    MemdevList ***tail = opaque;
    const HostMemoryBackend *backend = user_creatable_get(object);
    Memdev *info = g_new0(Memdev, 1);
    uint16List **nodes = &info->host_nodes;

    info->id = g_strdup(backend->id);
    info->size = backend->size;
    info->merge = backend->merge;
    info->dump = backend->dump;
    info->prealloc = backend->prealloc;
    info->share = backend->share;
    info->has_reserve = true;
    info->reserve = backend->reserve;
    info->policy = backend->policy;
    for (unsigned i = 0; i < backend->n_nodes; i++) {
        QAPI_LIST_APPEND(nodes, backend->nodes[i]);
    }
    QAPI_LIST_APPEND(*tail, info);
}

bool coroutine_fn qmp_query_memdev(MemdevList **ret, GError **errp)
{
    for (size_t i = 0; i < G_N_ELEMENTS(backend_types); i++) {
        user_creatable_foreach(backend_types[i], add_info, &ret);
    }
    return true;
}
