/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The types of object that users can make; the table in objects.c lists them. */
#ifndef FERRY_SYSTEM_OBJECTS_H
#define FERRY_SYSTEM_OBJECTS_H

void objects_register_types(void);
void objects_print_types(void);

#endif
