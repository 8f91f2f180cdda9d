/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A store-load barrier whose price one side pays for both.
 *
 * Two threads each store to one variable and then load the one of the other; at least one of them
 * must see what the other has stored. C11 asks for a sequentially consistent fence on both sides.
 * Where one side runs millions of times for each time of the other, it uses barrier_light(), and
 * the other side uses barrier_heavy().
 *
 * Why that is right: barrier_light() keeps the compiler (also one that sees the whole program) from
 * moving accesses over it, atomic or not. barrier_heavy() makes every running thread of the process
 * execute a full barrier at some instruction between its call and its return (membarrier(2)). That
 * instruction lies before or behind the light side's barrier_light(), in program order. Before it:
 * the light side's load comes behind the full barrier and sees all that the heavy side stored
 * before the call. Behind it: the light side's store is complete, and the heavy side's load after
 * the call sees it.
 */
#ifndef FERRY_UTIL_BARRIER_H
#define FERRY_UTIL_BARRIER_H

static inline void barrier_light(void)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* A full barrier in the caller and in every other thread of the process. Any thread. */
void barrier_heavy(void);

#endif
