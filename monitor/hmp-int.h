/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parts of HMP: hmp.c runs lines, hmp-session.c reads them, the others hold the commands. */
#ifndef FERRY_MONITOR_HMP_INT_H
#define FERRY_MONITOR_HMP_INT_H

void hmp_register_qmp_commands(void);       /* hmp-qmp.c */
void hmp_register_block_commands(void);     /* hmp-block.c */
void hmp_register_memory_commands(void);    /* hmp-memory.c */
void hmp_register_infos(void);              /* hmp-info.c */
void hmp_register_migration_commands(void); /* hmp-migration.c */
void hmp_register_snapshot_commands(void);  /* hmp-snapshots.c */
void hmp_register_device_commands(void);    /* hmp-device.c */

#endif
