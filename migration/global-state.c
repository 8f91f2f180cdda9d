/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The entry "globalstate": in which run state the guest was when the source stopped it for its
 * migration, so that the destination puts it into the same.
 */
#include "migration/savevm.h"

#include <string.h>
#include "util/error.h"
#include "vmstate/register.h"
#include "vmstate/vmstate-fields.h"

/* The name once had 100 bytes; two members and room for more took the end of them. */
#define NAME_BYTES   32
#define UNUSED_BYTES (100 - NAME_BYTES - 2)

typedef struct GlobalState {
    uint32_t size;             /* bytes of the name with its NUL */
    char runstate[NAME_BYTES]; /* its name */
    uint8_t has_vm_was_suspended;
    uint8_t vm_was_suspended;
    uint8_t unused[UNUSED_BYTES];
    bool untold; /* the stream need not say it */
    bool arrived;
    RunState state;
} GlobalState;

static GlobalState global_state;

void global_state_store(RunState state, bool always)
{
    const char *name = RunState_str(state);

    memset(global_state.runstate, 0, sizeof(global_state.runstate));
    g_strlcpy(global_state.runstate, name, sizeof(global_state.runstate));
    global_state.size = strlen(name) + 1;
    global_state.has_vm_was_suspended = 1;
    global_state.vm_was_suspended = state == RUN_STATE_SUSPENDED;
    global_state.untold = !always && (state == RUN_STATE_RUNNING || state == RUN_STATE_PAUSED);
}

void global_state_forget(void)
{
    global_state.arrived = false;
}

bool global_state_arrived(RunState *state)
{
    *state = global_state.state;
    return global_state.arrived;
}

static int post_load(void *opaque, int version_id, GError **errp)
{
    GlobalState *gs = opaque;

    if (strnlen(gs->runstate, NAME_BYTES) == NAME_BYTES) {
        error_setg(errp, "the name of the run state is not terminated");
        return -EINVAL;
    }
    if (!RunState_parse(gs->runstate, &gs->state, NULL)) {
        error_setg(errp, "invalid parameter value: %s", gs->runstate);
        return -EINVAL;
    }
    gs->arrived = true;
    return 0;
}

static bool needed(void *opaque)
{
    return !((GlobalState *)opaque)->untold;
}

static const VMStateDescription vmstate_global_state = {
    .name = "globalstate",
    .version_id = 1,
    .minimum_version_id = 1,
    .needed = needed,
    .post_load = post_load,
    .fields =
        (const VMStateField[]){
            VMSTATE_UINT32(size, GlobalState),
            VMSTATE_BUFFER(runstate, GlobalState),
            VMSTATE_UINT8(has_vm_was_suspended, GlobalState),
            VMSTATE_UINT8(vm_was_suspended, GlobalState),
            VMSTATE_BUFFER(unused, GlobalState),
            VMSTATE_END_OF_LIST(),
        },
};

void global_state_init(void)
{
    vmstate_register(0, &vmstate_global_state, &global_state);
}
