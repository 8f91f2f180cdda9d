/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The object types of this folder, for the table of types that users can make. */
#ifndef FERRY_CRYPTO_OBJECTS_H
#define FERRY_CRYPTO_OBJECTS_H

#include "qom/user-creatable.h"

extern const UserCreatableOps secret_object_ops;
extern const UserCreatableOps tls_creds_x509_object_ops;
extern const UserCreatableOps tls_creds_psk_object_ops;
extern const UserCreatableOps tls_creds_anon_object_ops;
extern const UserCreatableOps authz_list_object_ops;
extern const UserCreatableOps authz_listfile_object_ops;
extern const UserCreatableOps authz_simple_object_ops;

#endif
