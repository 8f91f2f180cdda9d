/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The types of object that users can make. A new type is one line here. */
#include "system/objects.h"

#include <stdio.h>
#include "accel/runstate.h"
#include "block/nbd/server.h"
#include "block/throttle/throttle-group-object.h"
#include "chardev/char.h"
#include "crypto/objects.h"
#include "memory/backend.h"
#include "qom/iothread.h"
#include "qom/user-creatable.h"

static const UserCreatableOps *const types[] = {
    &authz_list_object_ops,          &authz_listfile_object_ops,
    &authz_simple_object_ops,        &iothread_object_ops,
    &memory_backend_file_object_ops, &memory_backend_memfd_object_ops,
    &memory_backend_ram_object_ops,  &secret_object_ops,
    &throttle_group_object_ops,      &tls_creds_anon_object_ops,
    &tls_creds_psk_object_ops,       &tls_creds_x509_object_ops,
};

/* Ctrl-a x */
static void end_from_terminal(void)
{
    qemu_system_shutdown_request(SHUTDOWN_CAUSE_HOST_UI);
}

void objects_register_types(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        user_creatable_register(types[i]);
    }
    nbd_server_register();
    qemu_chr_register_types();
    qemu_chr_mux_set_exit(end_from_terminal);
}

void objects_print_types(void)
{
    printf("List of user creatable objects:\n");
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        printf("  %s\n", ObjectType_str(types[i]->type));
    }
    fflush(stdout);
}
