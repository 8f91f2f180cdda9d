/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest's processors as the run state sees them: a list of vCPUs, and the table by which an
 * accelerator kicks them, fetches their registers and pushes them back.
 *
 * A vCPU is a thread. It holds the big lock except while it runs guest code:
 *
 *   bql_lock();
 *   while (cpu_wait_to_run(cpu)) {        stands here while the guest is stopped
 *       bql_unlock();
 *       if (!cpu_should_leave(cpu)) {     the last look before guest code
 *           enter guest code              returns after an exit, or a kick
 *       }
 *       bql_lock();
 *       handle the exit                   MMIO of devices, under the big lock
 *   }
 *   bql_unlock();
 *
 * Stopping sets a flag, kicks, and waits until every vCPU stands in cpu_wait_to_run(). A vCPU that
 * stands has finished its exit: no device access of it is half done.
 */
#ifndef FERRY_ACCEL_CPUS_H
#define FERRY_ACCEL_CPUS_H

#include <glib.h>
#include <stdbool.h>
#include "util/bql.h"
#include "util/coroutine.h"
#include "util/queue.h"

typedef struct CPUState CPUState;

/* An accelerator's operations on one vCPU. All but kick are optional. */
typedef struct AccelCPUOps {
    /*
     * Brings the vCPU out of guest code soon. Any thread. A kick before the entry into guest code
     * is kept: the next entry returns at once.
     */
    void (*kick)(CPUState *cpu);
    /* Copies the registers from the accelerator into the struct that travels. The vCPU stands. */
    bool (*fetch)(CPUState *cpu, GError **errp);
    /* The other way, after that struct was loaded or reset. The vCPU stands. */
    bool (*push)(CPUState *cpu, GError **errp);
    /* Keeps the vCPU out of guest code for this part of the time; 0: it runs freely. Big lock. */
    void (*throttle)(CPUState *cpu, unsigned percent);
} AccelCPUOps;

/* Embedded in the accelerator's or the model's own struct. */
struct CPUState {
    const AccelCPUOps *ops; /* constant */
    /* The model's: puts the struct that travels to what a reset gives. NULL: nothing to reset. Constant. */
    void (*reset)(CPUState *cpu);
    int leave; /* atomic: guest code is not to be entered; the thread looks at it */
    /* Under the big lock. */
    bool stands;
    bool ends;
    BQLCond go; /* the vCPU waits here while it stands */
    TAILQ_ENTRY(CPUState) link;
};

/* Adds a vCPU. It counts as standing until its thread runs. Big lock. */
void cpu_add(CPUState *cpu, const AccelCPUOps *ops);
/* Its thread has ended, or never ran. Big lock. */
void cpu_remove(CPUState *cpu);
/* Asks its thread to leave its loop; the caller joins it, without the big lock. Big lock. */
void cpu_end(CPUState *cpu);

/*
 * Waits until the guest may run. False: the thread is to end. The vCPU's thread, with the big lock,
 * which it gives up while it waits.
 */
bool cpu_wait_to_run(CPUState *cpu);
/* Whether the vCPU has to go back to cpu_wait_to_run() instead of into guest code. Any thread. */
bool cpu_should_leave(const CPUState *cpu);
/*
 * Keeps the vCPU whose thread this is from another instruction of the guest until cpus_start().
 * Does nothing in a thread that is no vCPU's. Any thread.
 */
void cpu_leave_self(void);

/* Lets all vCPUs run. Big lock. */
void cpus_start(void);
/* Stops all vCPUs and waits until they stand. Main loop; one caller at a time. */
void coroutine_fn cpus_co_stop(void);
/* No vCPU runs, or there is none. Big lock. */
bool cpus_stand(void);

/*
 * Throttle of every vCPU, also of those that are added later; 0 to 99 percent. False: no vCPU can be
 * slowed down. Big lock.
 */
bool cpus_throttle(unsigned percent);

/* Resets every vCPU's struct; cpus_push() follows. All stand. Big lock. */
void cpus_reset(void);
/* Fetch of every vCPU, before devices are saved. All stand. Big lock. False with an error. */
bool cpus_fetch(GError **errp) G_GNUC_WARN_UNUSED_RESULT;
/* Push of every vCPU, after devices were loaded or reset. All stand. Big lock. */
bool cpus_push(GError **errp) G_GNUC_WARN_UNUSED_RESULT;

#endif
