/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory backends: the objects memory-backend-ram, -file and -memfd, each of which is one RAM block
 * that a machine or a DIMM shows to the guest. Main thread.
 */
#ifndef FERRY_MEMORY_BACKEND_H
#define FERRY_MEMORY_BACKEND_H

#include <glib.h>
#include <json-c/json.h>
#include "memory/memory.h"
#include "qapi/qapi-types-memory.h"
#include "qom/user-creatable.h"

typedef struct HostMemoryBackend HostMemoryBackend;

/* The backend of that id, which the registry of objects owns; NULL and errp. */
HostMemoryBackend *host_memory_backend_find(const char *id, GError **errp);
/*
 * Takes it into use: the region that shows it, whose block migrates from now on under the backend's
 * name. Only one user at a time; until it unmaps, the object can't be deleted. NULL and errp.
 */
MemoryRegion *host_memory_backend_map(HostMemoryBackend *backend, GError **errp);
/* The region is in no container any more. */
void host_memory_backend_unmap(HostMemoryBackend *backend);
/* The defaults of `merge` and `dump` for backends that are made from now on. */
void host_memory_backend_set_defaults(bool merge, bool dump);
/* Bytes, as given: the block may be up to a page larger. */
uint64_t host_memory_backend_size(const HostMemoryBackend *backend);

/*
 * The command line's short form of host-nodes, "2" or "0-3", becomes the list that the schema has.
 * Anything else is left for the decoder to judge. `options` is a JSON object.
 */
void host_memory_expand_nodes(json_object *options);

extern const UserCreatableOps memory_backend_file_object_ops;
extern const UserCreatableOps memory_backend_memfd_object_ops;
extern const UserCreatableOps memory_backend_ram_object_ops;

#endif
