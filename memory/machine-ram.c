/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The RAM a machine starts with. */
#include "memory/machine-ram.h"

#include <string.h>
#include "memory/backend.h"
#include "qapi/qapi-types-qom.h"
#include "qom/user-creatable.h"
#include "util/error.h"

static HostMemoryBackend *machine_backend; /* NULL: no RAM */
static MemoryRegion *machine_ram;

/* The backend of a machine that asks for a size and not for a backend. */
static bool coroutine_fn co_make_default(const MachineRAMOptions *options, GError **errp)
{
    g_autoptr(ObjectOptions) object = g_new0(ObjectOptions, 1);

    object->id = g_strdup(options->default_id);
    if (options->mem_path) {
        MemoryBackendFileProperties *file = &object->u.memory_backend_file;

        object->qom_type = OBJECT_TYPE_MEMORY_BACKEND_FILE;
        file->mem_path = g_strdup(options->mem_path);
        file->size = options->size;
        file->has_prealloc = file->prealloc = options->prealloc;
    } else {
        MemoryBackendProperties *ram = &object->u.memory_backend_ram;

        object->qom_type = OBJECT_TYPE_MEMORY_BACKEND_RAM;
        ram->size = options->size;
        ram->has_prealloc = ram->prealloc = options->prealloc;
    }
    return user_creatable_co_add(object, errp);
}

bool coroutine_fn machine_ram_co_init(const MachineRAMOptions *options, MemoryRegion **ram,
                                      GError **errp)
{
    HostMemoryBackend *backend;

    *ram = NULL;
    if (options->backend && options->mem_path) {
        error_setg(errp, "'-mem-path' can't be used together with '-machine memory-backend'");
        return false;
    }
    if (!options->backend) {
        if (!options->size) {
            return true;
        }
        if (!co_make_default(options, errp)) {
            return false;
        }
    }
    backend =
        host_memory_backend_find(options->backend ? options->backend : options->default_id, errp);
    if (!backend) {
        return false;
    }
    if (options->has_size && options->size != host_memory_backend_size(backend)) {
        error_setg(errp, "Machine memory size does not match the size of the memory backend");
        return false;
    }
    machine_ram = host_memory_backend_map(backend, errp);
    if (!machine_ram) {
        return false;
    }
    machine_backend = backend;
    *ram = machine_ram;
    return true;
}

void machine_ram_cleanup(void)
{
    if (!machine_backend) {
        return;
    }
    if (machine_ram->container) {
        memory_region_del_subregion(machine_ram->container, machine_ram);
    }
    host_memory_backend_unmap(machine_backend);
    machine_backend = NULL;
    machine_ram = NULL;
}

uint64_t machine_ram_size(void)
{
    return machine_backend ? host_memory_backend_size(machine_backend) : 0;
}
