# SPDX-License-Identifier: GPL-2.0-or-later
"""No command waits for ever for a request that hangs: it is refused, says why, and leaves everything as it was."""
import pytest

import ferry

SIZE = 4 * ferry.MIB


def commands():
    """By name: what needs the disk to be idle. Its top node is `disk`, over blkdebug `hangs`; the drive is `d0`."""
    return {
        'bitmap': ('block-dirty-bitmap-add', {'node': 'disk', 'name': 'new'}),
        'merge from another node': ('block-dirty-bitmap-merge', {
            'node': 'calm', 'target': 'sum', 'bitmaps': [{'node': 'disk', 'name': 'old'}]}),
        'transaction': ('transaction', {'actions': [
            {'type': 'block-dirty-bitmap-add', 'data': {'node': 'calm', 'name': 'undone'}},
            {'type': 'block-dirty-bitmap-clear', 'data': {'node': 'disk', 'name': 'old'}}]}),
        'limits': ('block_set_io_throttle', {'id': 'd0', 'bps': 0, 'bps_rd': 0, 'bps_wr': 0, 'iops': 1000, 'iops_rd': 0,
                                             'iops_wr': 0}),
        'histogram': ('block-latency-histogram-set', {'id': 'd0', 'boundaries': [10, 20]}),
        'backing': ('change-backing-file', {'device': 'disk', 'image-node-name': 'disk', 'backing-file': 'x'}),
        'mirror from it': ('blockdev-mirror', {'job-id': 'j', 'device': 'disk', 'target': 'calm', 'sync': 'full'}),
        'mirror to it': ('blockdev-mirror', {'job-id': 'j', 'device': 'calm', 'target': 'disk', 'sync': 'full'}),
        'reopen': ('blockdev-reopen', {'options': [{'driver': 'raw', 'node-name': 'user', 'file': 'disk'}]}),
        'snapshot': ('blockdev-snapshot', {'node': 'disk', 'overlay': 'overlay'}),
        'resize': ('block_resize', {'node-name': 'disk', 'size': 2 * SIZE}),
    }


def graph(vm):
    """What commands change: nodes, their files and bitmaps, limits."""
    return [(n['node-name'], n['file'], n.get('backing_file'), n['image']['virtual-size'], n['iops'],
             [(b['name'], b['count']) for b in n.get('dirty-bitmaps', [])])
            for n in sorted(vm.cmd('query-named-block-nodes', flat=True), key=lambda n: n['node-name'])]


IN_A_ROW = ('bitmap', 'merge from another node', 'snapshot')      # transactions too, which wait for each other


@pytest.mark.parametrize('left_out', [IN_A_ROW, pytest.param((), marks=pytest.mark.slow)], ids=['together', 'all'])
def test_commands_give_up_on_a_request_that_hangs(vmm, work, left_out):
    """Each on a monitor of its own, all at once: commands of one monitor are done one after the other."""
    base = ferry.make_image(work / 'base.raw', SIZE)
    ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2', backing=base)
    ferry.make_image(work / 'overlay.qcow2', SIZE, 'qcow2')
    todo = {what: command for what, command in commands().items() if what not in left_out}
    sockets = [f'{work}/{number}.qmp' for number in range(len(todo))]
    vm = vmm('-drive', f'if=none,id=d0,file={work}/disk.qcow2,format=qcow2,node-name=disk,file.node-name=file',
             *(word for path in sockets for word in ('-qmp', f'unix:{path},server=on,wait=off')))
    vm.add('null-co', 'calm', size=SIZE)
    vm.add('null-co', 'other', size=SIZE)
    vm.add('raw', 'user', file='other')
    vm.add_file(work / 'overlay.qcow2', 'qcow2', 'overlay', backing=None)
    vm.cmd('block-dirty-bitmap-add', node='disk', name='old')
    vm.cmd('block-dirty-bitmap-add', node='calm', name='sum')
    vm.cmd('blockdev-add', {'driver': 'blkdebug', 'node-name': 'hangs', 'image': 'file'})
    vm.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': 'hangs'}])
    vm.qemu_io('hangs', 'break write_aio A')
    vm.qemu_io('disk', 'aio_write -P 1 1M 64k')
    vm.qemu_io('hangs', 'wait_break A')
    before = graph(vm)      # the write has made room for a table in the file
    others = [ferry.QMPClient.connect(path) for path in sockets]
    sent = [one.send(name, arguments) for one, (name, arguments) in zip(others, todo.values())]
    for what, one, number in zip(todo, others, sent):
        with pytest.raises(ferry.QMPError, match="did not become idle in time; still waiting for: .*write of") as refused:
            one.reply(number)
        print(f'{what}: {refused.value}')
    assert graph(vm) == before and vm.cmd('query-jobs') == []
    vm.qemu_io('hangs', 'resume A')
    vm.qemu_io('disk', 'aio_flush')
    for one in others:
        one.close()
