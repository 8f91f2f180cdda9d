# SPDX-License-Identifier: GPL-2.0-or-later
"""The verbs of random schedules (schedule.py): what users, management tools and failing peers do, at any time."""
import contextlib
import json
import signal

from .faults import Channels
from .images import MIB, make_image
from .peers import nbd_connect
from .qmp import QMPClosed
from .schedule import SIZE, verb

JOB = 'job0'


def sends(name, side, command, **arguments):
    """A verb that only sends a command to the source or to the destination."""
    def send(s):
        s.send(getattr(s, side), command, **arguments)
    send.__name__ = name
    verb(send)


# --- the guest ---

sends('stop', 'source', 'stop')
sends('cont', 'source', 'cont')
sends('system_reset', 'source', 'system_reset')


@verb
def guest_writes(s):
    if s.source.alive():
        s.source.qtest.memset(s.rng.randrange(0, 3 * MIB), s.rng.choice([1, 4096, 262144]), s.rng.randrange(256))


@verb
def quit_source(s):
    s.source.ended = True
    try:
        s.rng.choice(s.source.sessions).send('quit', {})
    except QMPClosed:
        pass


@verb
def terminate(s):
    if s.source.alive():
        s.source.ended = True
        s.source.vm.process.send_signal(signal.SIGTERM)


# --- migration ---

@verb
def migrate(s):
    if not s.source.alive():
        return
    waiting = s.destination and s.destination.ask_if_alive('query-migrate', {}).get('status') == 'setup'
    if not waiting:
        status = s.source.ask_if_alive('query-migrate', {}).get('status')
        if status not in (None, 'failed', 'cancelled', 'completed'):
            s.send(s.source, 'migrate', uri='unix:' + s.path('nowhere'))
            return
        if status == 'completed':
            return
        s.new_destination()
        s.set_capabilities(s.source.vm)
    if s.channels:
        s.channels.drop()
    s.channels = Channels(s.path('gate'), s.incoming)
    s.send(s.source, 'migrate-set-parameters', max_bandwidth=s.rng.choice([0, MIB, 16 * MIB]))
    s.send(s.source, 'migrate', uri=s.channels.uri)


sends('migrate_cancel', 'source', 'migrate_cancel')


@verb
def migrate_continue(s):
    s.send(s.source, 'migrate-continue', state=s.rng.choice(['pre-switchover', 'device']))


@verb
def change_capability(s):
    s.send(s.source, 'migrate-set-capabilities', capabilities=[
        {'capability': s.rng.choice(['events', 'xbzrle', 'multifd']), 'state': s.rng.random() < .5}])


@verb
def change_parameter(s):
    s.send(s.source, 'migrate-set-parameters', max_bandwidth=s.rng.choice([0, 65536, 64 * MIB]))


@verb
def yank(s):
    side = s.rng.choice([x for x in (s.source, s.destination) if x])
    s.send(side, 'yank', instances=[i for i in side.ask_if_alive('query-yank', []) if i['type'] != 'chardev'])


sends('destination_cont', 'destination', 'cont')
sends('destination_stop', 'destination', 'stop')
sends('destination_reset', 'destination', 'system_reset')


@verb
def destination_quits(s):
    if s.destination and s.destination.alive():
        s.destination.ended = True
        with contextlib.suppress(QMPClosed):
            s.destination.sessions[0].send('quit', {})


@verb
def network_stalls(s):
    if s.channels:
        s.channels.hold.update({(0, False), (0, True), (1, False)})


@verb
def network_goes_on(s):
    if s.channels:
        s.channels.hold.clear()
        s.channels.release()


@verb
def network_breaks(s):
    if s.channels:
        s.channels.drop(s.rng.choice(['cut', 'reset']))


@verb
def dirty_rate(s):
    s.send(s.source, 'calc-dirty-rate', calc_time=1, sample_pages=128)


# --- the peer that disks are copied to ---

@verb
def target_hangs(s):
    if s.server.process.poll() is None and not s.server_stopped:
        s.server.signal(signal.SIGSTOP)
        s.server_stopped = True


@verb
def target_goes_on(s):
    if s.server_stopped:
        s.server.signal(signal.SIGCONT)
        s.server_stopped = False


@verb
def target_dies(s):
    s.server_stopped = False
    s.server.kill()


@verb
def target_returns(s):
    if s.server.process.poll() is not None:
        s.server.start()


# --- jobs ---

def target_node(s):
    """A node to copy to: a file, a qcow2 file or the NBD server, which has room for one copy: the disk may lie there."""
    node = s.new_name('copy')
    kind = s.rng.choice(['raw', 'qcow2'] if s.server_taken else ['raw', 'qcow2', 'nbd', 'nbd'])
    if kind == 'nbd':
        s.server_taken = True
        child = {'driver': 'nbd', 'server': s.server.address, 'reconnect-delay': s.rng.choice([0, 1])}
        s.send(s.source, 'blockdev-add', driver='raw', node_name=node, file=child)
    else:
        path = make_image(s.path('copy-file'), SIZE, kind)
        s.send(s.source, 'blockdev-add', driver=kind, node_name=node, discard='unmap',
               file={'driver': 'file', 'filename': path})
    s.made['node'].append(node)
    return node


@verb
def blockdev_mirror(s):
    node = target_node(s)
    s.send(s.source, 'blockdev-mirror', job_id=JOB, device=s.top(), target=node, sync='full',
           copy_mode=s.rng.choice(['background', 'write-blocking']), speed=s.rng.choice([0, 0, MIB]),
           on_target_error=s.rng.choice(['report', 'ignore', 'stop']), auto_dismiss=s.rng.random() < .8,
           auto_finalize=s.rng.random() < .8)


@verb
def drive_mirror(s):
    fmt = s.rng.choice(['raw', 'qcow2'])
    s.send(s.source, 'drive-mirror', job_id=JOB, device=s.top(), target=s.path('drive-copy'), format=fmt, sync='full',
           mode='absolute-paths', node_name=s.new_name('mirrored'))


sends('job_pause', 'source', 'job-pause', id=JOB)
sends('job_resume', 'source', 'job-resume', id=JOB)
sends('job_complete', 'source', 'job-complete', id=JOB)
sends('job_cancel', 'source', 'job-cancel', id=JOB)


@verb
def block_job_cancel(s):
    s.send(s.source, 'block-job-cancel', device=JOB, force=s.rng.random() < .5)


sends('job_finalize', 'source', 'job-finalize', id=JOB)
sends('job_dismiss', 'source', 'job-dismiss', id=JOB)


@verb
def job_speed(s):
    s.send(s.source, 'block-job-set-speed', device=JOB, speed=s.rng.choice([0, 65536, 8 * MIB]))


@verb
def job_change(s):
    s.send(s.source, 'block-job-change', id=JOB, type='mirror', copy_mode='write-blocking')


@verb
def blockdev_create(s):
    path = s.path('created')
    make_image(path, 0)
    node, job = s.new_name('protocol'), s.new_name('create')
    s.send(s.source, 'blockdev-add', driver='file', node_name=node, filename=path)
    s.send(s.source, 'blockdev-create', job_id=job, options={'driver': 'qcow2', 'file': node, 'size': SIZE})
    s.send(s.source, 'job-dismiss', id=job)


# --- nodes and objects ---

@verb
def blockdev_add(s):
    node = s.new_name('node')
    path = make_image(s.path('node-file'), SIZE, 'qcow2')
    driver = s.rng.choice(['qcow2', 'throttle', 'blkdebug', 'copy-on-read', 'null-co'])
    file = {'driver': 'file', 'filename': path}
    options = {'qcow2': {'file': file}, 'throttle': {'file': file, 'throttle-group': 'tg'}, 'blkdebug': {'image': file},
               'copy-on-read': {'file': file}, 'null-co': {'size': SIZE}}[driver]
    s.send(s.source, 'blockdev-add', driver=driver, node_name=node, **options)
    s.made['node'].append(node)


@verb
def blockdev_del(s):
    s.send(s.source, 'blockdev-del', node_name=s.one('node'))


@verb
def reopen_disk(s):
    s.send(s.source, 'blockdev-reopen', options=[
        s.disk_options({'aio': s.rng.choice(['threads', 'io_uring'])}, discard=s.rng.choice(['unmap', 'ignore']))])


@verb
def reopen_to_another_file(s):
    """The node's file child becomes another node, which must not change what clients read: it is refused or equal."""
    s.send(s.source, 'blockdev-reopen', options=[{
        'driver': 'qcow2', 'node-name': s.one('node'), 'file': {'driver': 'file', 'filename': s.disk}}])


@verb
def snapshot_sync(s):
    s.send(s.source, 'blockdev-snapshot-sync', node_name=s.top(), snapshot_file=s.path('overlay'),
           snapshot_node_name=s.new_name('overlay-node'), format='qcow2')


@verb
def snapshot(s):
    node, top = s.new_name('overlay-node'), s.top()
    base = s.node(top)
    if base is None or not base['image']['filename'].startswith('/'):
        return
    path = make_image(s.path('overlay'), SIZE, 'qcow2', backing=base['image']['filename'], backing_fmt=base['drv'])
    s.send(s.source, 'blockdev-add', driver='qcow2', node_name=node, backing=None,
           file={'driver': 'file', 'filename': path})
    s.send(s.source, 'blockdev-snapshot', node=top, overlay=node)


@verb
def change_backing_file(s):
    """What the top records becomes what it has: another name, or a chain cut short, would be the user's own loss.

    While a snapshot may be under way below the top its backing file is not known, and the command is one that is refused.
    """
    top = s.top()
    node = s.node(top)
    backing = node and node['image'].get('backing-filename')
    if any(session.waiting for session in s.source.sessions):
        backing = None
    s.send(s.source, 'change-backing-file', device=top, image_node_name=top if backing else 'shared',
           backing_file=backing or s.disk)


@verb
def resize(s):
    s.send(s.source, 'block_resize', node_name=s.rng.choice(['disk', s.one('node')]), size=s.rng.choice([SIZE, 2 * SIZE]))


@verb
def set_active(s):
    s.send(s.source, 'blockdev-set-active', active=s.rng.random() < .7, node_name=s.rng.choice(['disk', s.one('node')]))


@verb
def object_add(s):
    name = s.new_name('object')
    s.send(s.source, 'object-add', qom_type=s.rng.choice(['iothread', 'throttle-group']), id=name)
    s.made['object'].append(name)


@verb
def object_del(s):
    s.send(s.source, 'object-del', id=s.rng.choice(['io0', 'io1', 'tg', s.one('object')]))


@verb
def iothread_move(s):
    """An export takes a node's graph to an iothread."""
    name = s.new_name('export')
    s.send(s.source, 'block-export-add', type='nbd', id=name, name=name, node_name=s.rng.choice([s.top(), s.one('node')]),
           iothread=s.rng.choice(['io0', 'io1', s.one('object')]), fixed_iothread=s.rng.random() < .5)
    s.made['export'].append(name)


@verb
def export_add(s):
    name = s.new_name('export')
    s.send(s.source, 'block-export-add', type='nbd', id=name, name=name, writable=s.rng.random() < .5,
           node_name=s.rng.choice([s.top(), s.one('node')]))
    s.made['export'].append(name)


@verb
def export_del(s):
    s.send(s.source, 'block-export-del', id=s.rng.choice([s.one('export'), s.one('export'), 'export-disk']),
           mode=s.rng.choice(['safe', 'hard']))


sends('nbd_server_stops', 'source', 'nbd-server-stop')


@verb
def nbd_server_starts(s):
    s.send(s.source, 'nbd-server-start', addr={'type': 'unix', 'data': {'path': s.path('again-nbd')}})


@verb
def client_connects(s):
    """A client reads the disk through the server and stays connected."""
    if s.source.alive():
        try:
            client = nbd_connect(f'nbd+unix:///disk?socket={s.source.nbd}')
            s.made['client'].append(client)
        except Exception as error:     # libnbd's error: the export is gone
            s.log.append(f'client: {error}')


@verb
def client_leaves(s):
    if s.made['client']:
        s.made['client'].pop()


# --- bitmaps and transactions ---

@verb
def bitmap_add(s):
    name = s.new_name('bitmap')
    s.send(s.source, 'block-dirty-bitmap-add', node=s.top(), name=name)
    s.made['bitmap'].append(name)


@verb
def bitmap_remove(s):
    s.send(s.source, 'block-dirty-bitmap-remove', node=s.top(), name=s.one('bitmap'))


@verb
def bitmap_merge(s):
    s.send(s.source, 'block-dirty-bitmap-merge', node=s.top(), target=s.one('bitmap'), bitmaps=[s.one('bitmap')])


@verb
def transaction(s):
    top = s.top()
    s.send(s.source, 'transaction', actions=[
        {'type': 'block-dirty-bitmap-clear', 'data': {'node': top, 'name': s.one('bitmap')}},
        {'type': 'blockdev-snapshot-sync', 'data': {'node-name': top, 'snapshot-file': s.path('overlay'),
                                                    'snapshot-node-name': s.new_name('overlay-node'), 'format': 'qcow2'}}])


# --- what people look at ---

@verb
def hmp(s):
    s.send(s.source, 'human-monitor-command', command_line=s.rng.choice(
        ['info block', 'info block-jobs', 'info snapshots', 'info migrate', 'info status', 'info mtree', 'info network']))


@verb
def monitor_stops_reading(s):
    """The queries of a client that reads no answer; their answers, and events, wait for it."""
    side = s.rng.choice([x for x in (s.source, s.destination) if x])
    with contextlib.suppress(OSError):      # the process ends
        side.ask_without_reading(s.rng.choice([1, 30, 300]))


@verb
def monitor_leaves(s):
    for side in (s.source, s.destination):
        if side:
            side.leave_deaf()


@verb
def chardev(s):
    name = s.new_name('chardev')
    s.send(s.source, 'chardev-add', id=name, backend={'type': 'ringbuf', 'data': {'size': 4096}})
    s.send(s.source, 'ringbuf-write', device=name, data=json.dumps(s.number))
    s.send(s.source, 'chardev-remove', id=name)
