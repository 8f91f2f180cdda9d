# SPDX-License-Identifier: GPL-2.0-or-later
"""Throttle groups, limits of drives, latency histograms, and the debugging view of the graph."""
import pytest

import ferry

SIZE = 4 * ferry.MIB
SLOW = 1        # bytes or operations a second: what must wait is still waiting when we look
OLD_DRIVE = {f'{a}{b}': 0 for a in ('bps', 'iops') for b in ('', '_rd', '_wr')}


def group(vm, name='g', **limits):
    vm.cmd('object-add', qom_type='throttle-group', id=name, limits={k.replace('_', '-'): v for k, v in limits.items()})


@pytest.fixture
def drive(vmm, work):
    def start(*options):
        path = ferry.make_image(work / 'disk.raw', SIZE)
        return vmm('-drive', ','.join(['if=none', 'id=d0', f'file={path}', 'format=raw', 'node-name=disk', *options]))
    return start


def limits(vm, device='d0'):
    info = next(b for b in vm.cmd('query-block') if b['device'] == device)['inserted']
    return {k: v for k, v in info.items() if k.startswith(('bps', 'iops')) or k == 'group'}


def ended(vm, since=0):
    """How many background requests have ended."""
    return vm.stderr()[since:].count('bytes at offset')


def test_group_holds_requests_until_limits_are_lifted(vm):
    group(vm, iops_total=SLOW)
    vm.add('null-co', 'disk', size=SIZE)
    vm.add('throttle', 'slow', throttle_group='g', file='disk')
    for _ in range(4):      # the first passes the rim of the bucket, the others wait for seconds
        vm.qemu_io('slow', 'aio_write 0 64k')
    vm.add('null-co', 'second', size=SIZE)
    vm.add('throttle', 'other', throttle_group='g', file='second')
    vm.qemu_io('other', 'aio_read 0 64k')       # the limit is shared
    assert ended(vm) <= 2
    # Leaving a group is a drained section, in which what waits goes on without limits.
    group(vm, 'free')
    for node, file in (('slow', 'disk'), ('other', 'second')):
        vm.cmd('blockdev-reopen', options=[{'driver': 'throttle', 'node-name': node, 'throttle-group': 'free',
                                            'file': file}])
    vm.qemu_io('slow', 'aio_flush')
    assert ended(vm) == 5


@pytest.mark.parametrize('options, message', [
    ({'limits': {'bps-total': -1}}, 'must be within'),
    ({'limits': {'bps-total': 5, 'bps-read': 5}}, 'cannot be used at the same time'),
    ({'limits': {'iops-total-max': 5}}, 'require'),
    ({'limits': {'iops-size': 5}}, 'iops'),
    ({'x-bps-total': -1}, 'must be within'),
    ({'limits': {'unknown': 1}}, 'unknown'),
    ({'qom-type': 'throttle-grp'}, 'throttle-grp'),
])
def test_bad_groups_are_refused(vm, options, message):
    with pytest.raises(ferry.QMPError, match=message):
        vm.cmd('object-add', {'qom-type': 'throttle-group', 'id': 'g', **options})
    group(vm)       # the name was not taken


def test_group_in_use_stays(vm):
    group(vm, bps_total=1 << 30)
    vm.add('null-co', 'disk', size=SIZE)
    vm.add('throttle', 'slow', throttle_group='g', file='disk')
    with pytest.raises(ferry.QMPError, match="in use"):
        vm.cmd('object-del', id='g')
    with pytest.raises(ferry.QMPError, match="'none' does not exist"):
        vm.add('throttle', 'other', throttle_group='none', file='disk')
    vm.cmd('blockdev-del', node_name='slow')
    vm.cmd('object-del', id='g')


def test_groups_come_before_disks_on_the_command_line(vmm):
    vm = vmm('-blockdev', 'driver=throttle,node-name=t,throttle-group=g,file.driver=null-co,file.size=1048576',
             '-object', 'throttle-group,id=g,x-iops-total=100', '-object',
             '{"qom-type":"throttle-group","id":"h","limits":{"bps-read":5000}}')
    vm.cmd('object-del', id='h')
    assert 'wrote' in vm.qemu_io('t', 'write 0 512')


def test_drive_limits_are_shown_changed_and_lifted(drive):
    vm = drive()
    assert limits(vm) == OLD_DRIVE
    vm.cmd('block_set_io_throttle', {'device': 'd0', **OLD_DRIVE, 'bps_rd': 1000, 'iops': 7, 'iops_max': 20,
                                     'iops_max_length': 3, 'iops_size': 4096})
    assert limits(vm) == {**OLD_DRIVE, 'bps_rd': 1000, 'iops': 7, 'iops_max': 20, 'iops_max_length': 3,
                          'iops_size': 4096, 'group': 'd0'}
    vm.cmd('block_set_io_throttle', {'id': 'd0', **OLD_DRIVE, 'bps': 5, 'group': 'shared'})
    assert limits(vm) == {**OLD_DRIVE, 'bps': 5, 'group': 'shared'}
    vm.cmd('block_set_io_throttle', {'id': 'd0', **OLD_DRIVE})
    assert limits(vm) == OLD_DRIVE


def test_drive_requests_wait_until_limits_are_lifted(drive):
    vm = drive()
    vm.cmd('block_set_io_throttle', {'id': 'd0', **OLD_DRIVE, 'iops': SLOW})
    for _ in range(4):
        vm.qemu_io('d0', 'aio_write 0 64k')
    assert ended(vm) <= 2
    vm.cmd('block_set_io_throttle', {'id': 'd0', **OLD_DRIVE})
    vm.qemu_io('d0', 'aio_flush')
    assert ended(vm) == 4


def test_drain_does_not_wait_for_limits(drive):
    vm = drive()
    vm.cmd('block_set_io_throttle', {'id': 'd0', **OLD_DRIVE, 'bps_wr': SLOW})
    vm.qemu_io('d0', 'aio_write 0 1M')
    vm.qemu_io('d0', 'aio_write 0 1M')      # for days
    vm.cmd('block_resize', device='d0', size=2 * SIZE)
    vm.qemu_io('d0', 'aio_flush')
    assert ended(vm) == 2


@pytest.mark.parametrize('arguments, message', [
    ({'device': 'none'}, "Device 'none' not found"),
    ({}, 'exactly one'),
    ({'id': 'd0', 'bps': 1, 'bps_rd': 1}, 'cannot be used at the same time'),
    ({'id': 'd0', 'bps': -1}, 'must be within'),
    ({'id': 'd0', 'iops_size': 1}, 'iops'),
])
def test_bad_limits_change_nothing(drive, arguments, message):
    vm = drive('throttling.bps-total=99')
    with pytest.raises(ferry.QMPError, match=message):
        vm.cmd('block_set_io_throttle', {**OLD_DRIVE, **arguments})
    assert limits(vm) == {**OLD_DRIVE, 'bps': 99, 'group': 'd0'}


def test_drive_options_set_limits(drive):
    vm = drive('throttling.bps-read=10', 'throttling.bps-read-max=20', 'throttling.bps-read-max-length=2',
               'throttling.iops-total=5', 'throttling.iops-size=512', 'throttling.group=g')
    assert limits(vm) == {**OLD_DRIVE, 'bps_rd': 10, 'bps_rd_max': 20, 'bps_rd_max_length': 2, 'iops': 5,
                          'iops_size': 512, 'group': 'g'}


def test_older_drive_options_set_limits(drive):
    vm = drive('bps_wr=10', 'iops_rd=5', 'iops_rd_max=9')
    assert limits(vm) == {**OLD_DRIVE, 'bps_wr': 10, 'iops_rd': 5, 'iops_rd_max': 9, 'iops_rd_max_length': 1,
                          'group': 'd0'}


@pytest.mark.parametrize('option', ['throttling.bps-total=-1', 'throttling.bps-total=x', 'throttling.what=1',
                                    'throttling.bps-total-max=1', 'throttling=1'])
def test_bad_drive_options_are_refused(drive, option):
    with pytest.raises(RuntimeError, match='exit status 1'):
        drive(option)


def histograms(vm):
    stats = vm.cmd('query-blockstats')[0]['stats']
    return {k.split('_')[0]: v for k, v in stats.items() if k.endswith('_latency_histogram')}


def test_histograms_count_requests(drive):
    vm = drive()
    top = 1 << 62
    vm.cmd('block-latency-histogram-set', id='d0', boundaries=[1, top], boundaries_write=[top])
    assert histograms(vm) == {'rd': {'boundaries': [1, top], 'bins': [0, 0, 0]},
                              'wr': {'boundaries': [top], 'bins': [0, 0]},
                              'flush': {'boundaries': [1, top], 'bins': [0, 0, 0]}}
    for command in ('aio_write 0 4k', 'aio_write 0 4k', 'aio_read 0 512', 'aio_flush'):
        vm.qemu_io('d0', command)
    assert histograms(vm)['wr']['bins'] == [2, 0]
    assert histograms(vm)['rd']['bins'] == [0, 1, 0]
    vm.cmd('block-latency-histogram-set', id='d0', boundaries_read=[5])
    assert histograms(vm)['rd'] == {'boundaries': [5], 'bins': [0, 0]}
    assert histograms(vm)['wr']['bins'] == [2, 0]
    for bad in ([5, 4], [0], [5, 5]):
        with pytest.raises(ferry.QMPError, match='read boundaries'):
            vm.cmd('block-latency-histogram-set', id='d0', boundaries=bad)
    assert histograms(vm)['wr']['bins'] == [2, 0]
    vm.cmd('block-latency-histogram-set', id='d0')
    assert histograms(vm) == {}
    with pytest.raises(ferry.QMPError, match="Device 'none' not found"):
        vm.cmd('block-latency-histogram-set', id='none', boundaries=[1])


def test_graph_shows_users_and_permissions(drive, work):
    vm = drive()
    vm.add_file(ferry.make_image(work / 'copy.raw', SIZE), node_name='copy')
    vm.cmd('blockdev-mirror', job_id='j', device='d0', target='copy', sync='full', filter_node_name='top')
    vm.wait('BLOCK_JOB_READY', device='j')
    graph = vm.cmd('x-debug-query-block-graph')
    nodes = {n['id']: n for n in graph['nodes']}
    assert len(nodes) == len(graph['nodes'])
    by_name = {(n['type'], n['name']): n['id'] for n in graph['nodes']}
    edges = {(e['parent'], e['child']): e for e in graph['edges']}
    assert all(e['parent'] in nodes and e['child'] in nodes for e in graph['edges'])
    drive_edge = edges[by_name['block-backend', 'd0'], by_name['block-driver', 'top']]
    assert drive_edge['name'] == 'root'
    assert 'write' in drive_edge['perm'] and 'consistent-read' in drive_edge['perm']
    assert (by_name['block-driver', 'top'], by_name['block-driver', 'disk']) in edges
    assert any(nodes[p]['type'] == 'block-job' and nodes[p]['name'] == 'j' for p, _ in edges)
