# SPDX-License-Identifier: GPL-2.0-or-later
"""blockdev-reopen changes options of nodes in use, all at once, or leaves everything as it was."""
import pytest

import ferry

SIZE = ferry.MIB


def node(vm, name):
    return next(n for n in vm.cmd('query-named-block-nodes', flat=True) if n['node-name'] == name)


def children(vm, name):
    return {c['child']: c['node-name'] for c in node(vm, name)['children']}


def reopen(vm, *options):
    vm.cmd('blockdev-reopen', options=[{k.replace('_', '-'): v for k, v in o.items()} for o in options])


def shown(vm):
    """Everything that a failed reopen must leave alone."""
    nodes = {}
    for n in vm.cmd('query-named-block-nodes', flat=True):
        n['image'].pop('actual-size', None)
        nodes[n['node-name']] = n
    return nodes


@pytest.fixture
def disk(vm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    vm.path = str(path)
    vm.add('file', 'file', filename=vm.path)
    vm.add('raw', 'disk', file='file')
    return vm


def file_node(vm, **options):
    return {'driver': 'file', 'node_name': 'file', 'filename': vm.path, **options}


def raw_node(**options):
    return {'driver': 'raw', 'node_name': 'disk', 'file': 'file', **options}


def test_read_only_and_back(disk):
    reopen(disk, raw_node(read_only=True), file_node(disk, read_only=True))
    assert node(disk, 'disk')['ro'] and node(disk, 'file')['ro']
    assert 'read-only' in disk.qemu_io('disk', 'write 0 512')
    reopen(disk, file_node(disk), raw_node())
    assert not node(disk, 'disk')['ro']
    assert 'wrote' in disk.qemu_io('disk', 'write -P 1 0 512')


def test_read_only_node_lets_others_write(disk):
    """What a node in use gives up by becoming read-only, it gives up to the kernel's locks too."""
    reopen(disk, raw_node(read_only=True), file_node(disk, read_only=True))
    ferry.qemu_io(disk.path, 'read 0 512', options=['-r'])
    ferry.qemu_img('info', disk.path)


def test_writer_keeps_its_node_writable(disk):
    uri = disk.export('disk')
    before = shown(disk)
    with pytest.raises(ferry.QMPError) as failure:
        reopen(disk, raw_node(read_only=True))
    assert 'disk' in failure.value.desc
    assert shown(disk) == before
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'x' * 512, 0)
    handle.shutdown()


def test_format_cannot_write_over_a_read_only_file(vm, work):
    path = str(ferry.make_image(work / 'disk.raw', SIZE))
    vm.add('file', 'file', filename=path, read_only=True)
    vm.add('raw', 'disk', file='file', read_only=True)
    before = shown(vm)
    with pytest.raises(ferry.QMPError, match='read-only'):
        reopen(vm, raw_node())
    assert shown(vm) == before


def test_cache_and_discard_and_detect_zeroes(vm, disk_work):
    vm.path = str(ferry.make_image(disk_work / 'disk.raw', SIZE))
    vm.add('file', 'file', filename=vm.path)
    vm.add('raw', 'disk', file='file')
    writer = ferry.run_writers(vm.export('disk'), ferry.Model(SIZE), seed=1, count=1, align=4096)[0]
    for number, direct in enumerate((True, False, True)):
        reopen(vm, file_node(vm, cache={'direct': direct, 'no-flush': not direct}, discard='unmap'),
               raw_node(detect_zeroes='unmap' if direct else 'off', discard='unmap'))
        assert node(vm, 'file')['cache'] == {'writeback': True, 'direct': direct, 'no-flush': not direct}
        assert node(vm, 'disk')['detect_zeroes'] == ('unmap' if direct else 'off')
        writer.wait_count(50 * (number + 1))
    writer.stop()
    vm.quit()
    writer.model.check(vm.path)


@pytest.fixture
def chain(vm, work):
    """top -> base, and another base; nodes are separate, so that edges can change."""
    for name in ('base', 'other'):
        ferry.make_image(work / name, SIZE)
        ferry.qemu_io(work / name, f'write -P {1 if name == "base" else 2} 0 1M')
        vm.add_file(work / name, node_name=name, read_only=True)
    ferry.make_image(work / 'top', SIZE, 'qcow2')
    vm.add('file', 'top-file', filename=str(work / 'top'))
    vm.add('qcow2', 'top', file='top-file', backing=None)
    return vm


def top(**options):
    return {'driver': 'qcow2', 'node_name': 'top', 'file': 'top-file', **options}


def test_backing_is_set_changed_and_removed(chain):
    for backing, pattern in (('base', 1), ('other', 2), (None, 0), ('base', 1)):
        reopen(chain, top(backing=backing))
        assert children(chain, 'top') == {'file': 'top-file', **({'backing': backing} if backing else {})}
        assert 'failed' not in chain.qemu_io('top', f'read -P {pattern} 0 1M')
    with pytest.raises(ferry.QMPError, match='in use'):
        chain.cmd('blockdev-del', node_name='base')
    chain.cmd('blockdev-del', node_name='other')


def test_cycles_and_unknown_nodes_change_nothing(chain, work):
    reopen(chain, top(backing='base'))
    ferry.make_image(work / 'upper', SIZE, 'qcow2')
    chain.add('qcow2', 'upper', file={'driver': 'file', 'filename': str(work / 'upper')}, backing='top')
    before = shown(chain)
    for backing, message in (('none', 'none'), ('upper', 'cycle'), ('top', 'cycle|own')):
        with pytest.raises(ferry.QMPError, match=message):
            reopen(chain, top(backing=backing))
        assert shown(chain) == before
    assert 'failed' not in chain.qemu_io('upper', 'read -P 1 0 1M')


def test_one_failure_undoes_all(chain):
    reopen(chain, top(backing='base'))
    before = shown(chain)
    for bad in ({'driver': 'qcow2', 'node_name': 'none', 'file': 'x'},
                {'driver': 'raw', 'node_name': 'other', 'file': 'none'},
                {'driver': 'qcow2', 'node_name': 'other', 'file': 'x'}):
        with pytest.raises(ferry.QMPError):
            reopen(chain, top(backing='other', detect_zeroes='on'), bad)
        assert shown(chain) == before
        assert 'failed' not in chain.qemu_io('top', 'read -P 1 0 1M')


def test_backing_of_a_running_mirror_stays(chain, work):
    reopen(chain, top(backing='base'))
    ferry.make_image(work / 'copy', SIZE)
    chain.add_file(work / 'copy', node_name='copy')
    chain.cmd('blockdev-mirror', job_id='j', device='top', target='copy', sync='full')
    chain.wait('BLOCK_JOB_READY', device='j')
    chain.cmd('block-job-complete', device='j')
    chain.wait('BLOCK_JOB_COMPLETED', device='j')
    chain.quit()
    ferry.qemu_io(work / 'copy', 'read -P 1 0 1M')


def test_file_moves_to_another_node(vm, work):
    for name, pattern in (('a', 1), ('b', 2)):
        ferry.make_image(work / name, SIZE)
        ferry.qemu_io(work / name, f'write -P {pattern} 0 1M')
        vm.add('file', name, filename=str(work / name))
    vm.add('raw', 'disk', file='a')
    assert 'failed' not in vm.qemu_io('disk', 'read -P 1 0 1M')
    reopen(vm, raw_node(file='b'))
    assert 'failed' not in vm.qemu_io('disk', 'read -P 2 0 1M')
    vm.cmd('blockdev-del', node_name='a')


@pytest.mark.parametrize('options, message', [
    ({'driver': 'raw', 'file': 'file'}, 'node-name not specified'),
    ({'driver': 'raw', 'node_name': 'none', 'file': 'file'}, "Failed to find node with node-name='none'"),
    ({'driver': 'qcow2', 'node_name': 'disk', 'file': 'file'}, "Cannot change the option 'driver'"),
    ({'driver': 'raw', 'node_name': 'disk', 'file': 'file', 'detect_zeroes': 'unmap'}, 'setting detect-zeroes to unmap'),
])
def test_mistakes_are_named(disk, options, message):
    before = shown(disk)
    with pytest.raises(ferry.QMPError, match=message):
        reopen(disk, options)
    assert shown(disk) == before


def test_node_named_twice_is_refused(disk):
    before = shown(disk)
    with pytest.raises(ferry.QMPError, match="Node 'disk' is to be reopened twice"):
        reopen(disk, raw_node(), raw_node(read_only=True))
    assert shown(disk) == before


def node_over(vm, work, name, size):
    ferry.make_image(work / name, size)
    return vm.add('file', name, filename=str(work / name))


def test_another_file_brings_its_size(vm, work):
    node_over(vm, work, 'small', SIZE)
    node_over(vm, work, 'large', 2 * SIZE)
    vm.add('raw', 'disk', file='small')
    vm.add('copy-on-read', 'filter', file='disk')
    for name, size in (('large', 2 * SIZE), ('small', SIZE)):
        reopen(vm, raw_node(file=name))
        assert [node(vm, n)['image']['virtual-size'] for n in ('disk', 'filter')] == [size, size]
        assert 'wrote' in vm.qemu_io('disk', f'write -P 1 {size - 512} 512')
        assert 'failed' in vm.qemu_io('disk', f'write -P 1 {size} 512')
    vm.quit()
    assert (work / 'small').stat().st_size == SIZE


def test_size_that_a_client_was_told_stays(vm, work):
    node_over(vm, work, 'small', SIZE)
    node_over(vm, work, 'large', 2 * SIZE)
    vm.add('raw', 'disk', file='large')
    vm.export('disk')
    before = shown(vm)
    with pytest.raises(ferry.QMPError, match="Node 'disk' cannot change its size .* NBD export 'disk'"):
        reopen(vm, raw_node(file='small'))
    assert shown(vm) == before
