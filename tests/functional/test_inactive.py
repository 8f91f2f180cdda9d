# SPDX-License-Identifier: GPL-2.0-or-later
"""Images change owners between two processes; at every moment one owns them, and nothing is lost on the way."""
import json
import os
import shutil

import pytest

import ferry

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 16 * MIB
FORMATS = ('raw', 'qcow2')


def nodes(vm):
    return {n['node-name']: n for n in vm.cmd('query-named-block-nodes', flat=True)}


def set_active(vm, active, node=None):
    vm.cmd('blockdev-set-active', active=active, **({'node_name': node} if node else {}))


def refuses(vm, match, active, node=None):
    with pytest.raises(ferry.QMPError, match=match) as failure:
        set_active(vm, active, node)
    assert '\n' not in failure.value.desc
    return failure.value.desc


def write(vm, pattern, offset, size=64 * KIB, node='disk'):
    answer = vm.qemu_io(node, f'write -P {pattern} {offset} {size}')
    assert 'wrote' in answer, answer


def holds(vm, pattern, offset, size=64 * KIB, node='disk'):
    answer = vm.qemu_io(node, f'read -P {pattern} {offset} {size}')
    assert 'read' in answer and 'fail' not in answer.lower(), answer


def locks(path):
    """The bytes of the file that any process has locked."""
    inode, held = os.stat(path).st_ino, []
    with open('/proc/locks', encoding='ascii') as lines:
        for words in map(str.split, lines):
            if words[1] == 'OFDLCK' and int(words[5].rsplit(':', 1)[1]) == inode:
                held += range(int(words[6]), int(words[7]) + 1)
    return sorted(set(held))


WRITER = [100, 101, 103, 201, 203]


@pytest.fixture
def image(work):
    def make(fmt):
        path = ferry.make_image(work / f'disk.{fmt}', SIZE, fmt)
        return path
    return make


@pytest.fixture
def pair(vmm):
    """Two processes on one image: the first one owns it."""
    def start(path, fmt, **options):
        here, there = vmm(name='here'), vmm(name='there')
        here.add_file(path, fmt, 'disk', **options)
        there.add_file(path, fmt, 'disk', active=False, **options)
        return here, there
    return start


def hand_over(giver, taker):
    set_active(giver, False)
    set_active(taker, True)


@pytest.mark.parametrize('fmt', FORMATS)
def test_image_goes_back_and_forth(pair, image, work, fmt):
    path = image(fmt)
    here, there = pair(path, fmt)
    owner, other = here, there
    for turn in range(6):
        assert nodes(owner)['disk']['active'] and not nodes(other)['disk']['active']
        for past in range(turn):
            holds(owner, past + 1, past * MIB)
        write(owner, turn + 1, turn * MIB)
        holds(owner, 0, 8 * MIB)
        set_active(owner, False)
        assert locks(path) == []
        # A copy of what is on disk now is the whole disk.
        shutil.copy(path, work / 'copy')
        if fmt == 'qcow2':
            ferry.check_qcow2(work / 'copy')
        for past in range(turn + 1):
            ferry.qemu_io(work / 'copy', f'read -P {past + 1} {past * MIB} 64k', fmt=fmt, options=['-r'])
        ferry.qemu_io(path, f'write -P {64 + turn} {12 * MIB} 64k', fmt=fmt)     # no lock forbids it
        owner, other = other, owner
        set_active(owner, True)
        holds(owner, 64 + turn, 12 * MIB)
        if fmt == 'qcow2':
            assert locks(path) == WRITER


def test_locks_decide_which_process_may_use_it(pair, image):
    path = image('qcow2')
    here, there = pair(path, 'qcow2')
    error = refuses(there, 'lock', True)
    assert str(path) in error and "Could not activate node '" in error
    assert not any(n['active'] for n in nodes(there).values())
    write(here, 1, 0)
    hand_over(here, there)
    refuses(here, 'lock', True)
    holds(there, 1, 0)
    hand_over(there, here)
    holds(here, 1, 0)


def test_changes_are_idempotent(vm, image):
    vm.add_file(image('qcow2'), 'qcow2', 'disk')
    set_active(vm, True)
    for _ in range(2):
        set_active(vm, False)
    for _ in range(2):
        set_active(vm, True, 'disk')
    write(vm, 1, 0)
    refuses(vm, 'nothing', False, 'nothing')


def test_inactive_node_refuses_whatever_needs_the_image(vm, image, work):
    path = image('qcow2')
    before = path.read_bytes()
    vm.add_file(path, 'qcow2', 'disk', active=False)
    vm.add('null-co', 'null', size=SIZE)
    for command in ('read 0 64k', 'write 0 64k', 'flush', 'write -z 0 64k', 'discard 0 64k'):
        assert 'not permitted' in vm.qemu_io('disk', command), command
    for command, arguments in (
            ('block_resize', {'node_name': 'disk', 'size': 2 * SIZE}),
            ('blockdev-mirror', {'job_id': 'j', 'device': 'disk', 'target': 'null', 'sync': 'full'}),
            ('blockdev-mirror', {'job_id': 'j', 'device': 'null', 'target': 'disk', 'sync': 'full'}),
            ('block-dirty-bitmap-add', {'node': 'disk', 'name': 'b', 'persistent': True}),
            ('blockdev-add', {'driver': 'raw', 'node_name': 'above', 'file': 'disk'}),
            ('blockdev-snapshot-sync', {'node_name': 'disk', 'snapshot_file': str(work / 'o'), 'snapshot_node_name': 'o'})):
        if command == 'blockdev-add':
            arguments['active'] = True
        with pytest.raises(ferry.QMPError, match='[Ii]nactive'):
            vm.cmd(command, **arguments)
    vm.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'file': nodes(vm)['disk']['children'][0]['node-name'],
                                        'discard': 'unmap'}])
    assert not nodes(vm)['disk']['active']
    vm.quit()
    assert path.read_bytes() == before


def test_job_keeps_its_nodes(vm, image):
    path = image('qcow2')
    vm.add_file(path, 'qcow2', 'disk')
    vm.add('null-co', 'target', size=SIZE)
    vm.cmd('blockdev-mirror', job_id='job0', device='disk', target='target', sync='full', filter_node_name='filter')
    vm.wait('BLOCK_JOB_READY', device='job0')
    for node in (None, 'disk', 'target', 'filter'):
        assert "mirror job 'job0'" in refuses(vm, 'node', False, node)
    assert all(n['active'] for n in nodes(vm).values())
    write(vm, 1, 0)
    vm.cmd('block-job-cancel', device='job0')
    vm.wait('BLOCK_JOB_COMPLETED', device='job0')
    set_active(vm, False)
    assert locks(path) == []


def test_writing_export_keeps_its_node(vm, image):
    vm.add_file(image('qcow2'), 'qcow2', 'disk')
    uri = vm.export('disk', name='exp')
    assert "export 'exp'" in refuses(vm, 'disk', False)
    assert all(n['active'] for n in nodes(vm).values())
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'x' * 512, 0)
    handle.shutdown()
    vm.cmd('nbd-server-stop')
    set_active(vm, False)


def start_nbd(vm):
    path = str(vm.workdir / 'nbd.sock')
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': path}})
    return f'nbd+unix:///disk?socket={path}'


def test_export_that_allows_it_lives_through_a_hand_over(pair, image):
    here, there = pair(image('qcow2'), 'qcow2')
    handles = {}
    for vm in (here, there):
        uri = start_nbd(vm)
        vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True, allow_inactive=True)
        handles[vm] = ferry.nbd_connect(uri, 'base:allocation')
    assert not nodes(there)['disk']['active']
    for turn, (owner, other) in enumerate(((here, there), (there, here), (here, there))):
        def each(handle):
            yield lambda: handle.pread(65536, 0)
            yield lambda: handle.pwrite(b'x' * 512, 0)
            yield lambda: handle.flush()
            yield lambda: handle.zero(512, 0)
            yield lambda: handle.block_status(65536, 0, lambda *_: 0)
        for request in each(handles[other]):
            with pytest.raises(Exception, match='Operation not permitted'):
                request()
        if turn:
            assert handles[owner].pread(512, 0) == bytes([turn]) * 512
        handles[owner].pwrite(bytes([turn + 1]) * 512, 0)
        hand_over(owner, other)
    for handle in handles.values():
        handle.shutdown()


def test_persistent_bitmaps_go_with_the_image(pair, image, vmm):
    path = image('qcow2')
    here, there = pair(path, 'qcow2')
    here.cmd('block-dirty-bitmap-add', node='disk', name='kept', persistent=True, granularity=64 * KIB)
    here.cmd('block-dirty-bitmap-add', node='disk', name='own')
    write(here, 1, 0)
    set_active(here, False)
    assert [b['name'] for b in nodes(here)['disk']['dirty-bitmaps']] == ['own']
    info = json.loads(ferry.qemu_img('info', '--output=json', path))['format-specific']['data']
    assert [(b['name'], b['flags']) for b in info['bitmaps']] == [('kept', ['auto'])]
    set_active(there, True)

    def count(vm):
        bitmap = next(b for b in nodes(vm)['disk']['dirty-bitmaps'] if b['name'] == 'kept')
        assert not bitmap.get('inconsistent')
        return bitmap['count']
    assert count(there) == 64 * KIB
    write(there, 2, MIB)
    hand_over(there, here)
    assert count(here) == 128 * KIB
    # One that is in use does not go.
    start_nbd(here)
    here.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', bitmaps=['kept'], writable=True, allow_inactive=True)
    assert "'kept'" in refuses(here, 'in use', False)
    assert count(here) == 128 * KIB
    here.quit()
    there.quit()
    ferry.check_qcow2(path)


def test_growth_by_the_other_owner_is_seen(pair, image, vmm):
    for fmt in FORMATS:
        here, there = pair(image(fmt), fmt)
        here.cmd('block-dirty-bitmap-add', node='disk', name='own')
        write(here, 1, 0)
        hand_over(here, there)
        there.cmd('block_resize', node_name='disk', size=2 * SIZE)
        write(there, 2, SIZE)
        hand_over(there, here)
        assert nodes(here)['disk']['image']['virtual-size'] == 2 * SIZE
        holds(here, 2, SIZE)
        write(here, 3, 2 * SIZE - 64 * KIB)
        here.quit()
        there.quit()


def chain(vm, work, **options):
    for name in ('base', 'top'):
        if not (work / name).exists():
            if name == 'base':
                ferry.make_image(work / name, SIZE)
                ferry.qemu_io(work / name, 'write -P 9 0 1M')
            else:
                ferry.make_image(work / name, SIZE, 'qcow2', backing=work / 'base')
    vm.add_file(work / 'base', node_name='base', read_only=True, **options)
    vm.add_file(work / 'top', 'qcow2', 'top', backing='base', **options)


def test_backing_files_go_with_what_stands_on_them(vmm, work):
    here, there = vmm(name='here'), vmm(name='there')
    chain(here, work)
    chain(there, work, active=False)
    assert "node 'top'" in refuses(here, 'base', False, 'base')
    write(here, 1, 0, node='top')
    set_active(here, False, 'top')
    assert not any(n['active'] for n in nodes(here).values())
    assert locks(work / 'base') == [] and locks(work / 'top') == []
    set_active(there, True, 'top')
    assert all(n['active'] for n in nodes(there).values())
    holds(there, 1, 0, node='top')
    holds(there, 9, 64 * KIB, node='top')


def test_shared_backing_file_stays_with_the_other_disk(vm, work):
    chain(vm, work)
    ferry.make_image(work / 'second', SIZE, 'qcow2', backing=work / 'base')
    vm.add_file(work / 'second', 'qcow2', 'second', backing='base')
    set_active(vm, False, 'top')
    state = {name: node['active'] for name, node in nodes(vm).items()}
    assert state['base'] and state['second'] and not state['top']
    holds(vm, 9, 0, node='second')
    set_active(vm, True)
    holds(vm, 9, 0, node='top')


def test_all_or_none_become_active(vmm, work):
    here, there = vmm(name='here'), vmm(name='there')
    for name in ('a', 'b', 'c'):
        ferry.make_image(work / name, SIZE, 'qcow2')
        here.add_file(work / name, 'qcow2', name)
        there.add_file(work / name, 'qcow2', name, active=False)
        write(here, 1, 0, node=name)
    for name in ('a', 'c'):
        set_active(here, False, name)
    assert str(work / 'b') in refuses(there, 'lock', True)
    assert not any(n['active'] for n in nodes(there).values())
    assert locks(work / 'a') == [] and locks(work / 'c') == []
    set_active(here, False)
    # One that cannot be read: the others, read already or not, are given up again, whole.
    good = (work / 'b').read_bytes()
    (work / 'b').write_bytes(b'nothing' + good[7:])
    assert "node 'b'" in refuses(there, 'qcow2', True)
    assert not any(n['active'] for n in nodes(there).values())
    for name in ('a', 'b', 'c'):
        assert locks(work / name) == []
    (work / 'b').write_bytes(good)
    set_active(there, True)
    for name in ('a', 'b', 'c'):
        holds(there, 1, 0, node=name)
        write(there, 2, 0, node=name)
    there.quit()
    for name in ('a', 'b', 'c'):
        ferry.check_qcow2(work / name)


def test_failed_write_back_leaves_everything_active(vm, work):
    """The flush of one disk fails: those written back before it are in use again, bitmaps included."""
    for name in ('a', 'b'):
        ferry.make_image(work / name, SIZE, 'qcow2')
        vm.add('file', f'{name}-file', filename=str(work / name))
    vm.add('qcow2', 'a', file='a-file')
    vm.add('blkdebug', 'debug', image='b-file', inject_error=[{'event': 'flush_to_disk', 'errno': 5, 'once': True}])
    vm.add('qcow2', 'b', file='debug')
    for name in ('a', 'b'):
        vm.cmd('block-dirty-bitmap-add', node=name, name='kept', persistent=True)
        write(vm, 1, 0, node=name)
    assert 'Input/output error' in refuses(vm, "node '(b|debug|b-file)'", False)
    assert all(n['active'] for n in nodes(vm).values())
    for name in ('a', 'b'):
        assert nodes(vm)[name]['dirty-bitmaps'][0]['count'] == 64 * KIB
        write(vm, 2, MIB, node=name)
        assert nodes(vm)[name]['dirty-bitmaps'][0]['count'] == 128 * KIB
    vm.cmd('blockdev-set-active', active=False)
    vm.quit()
    for name in ('a', 'b'):
        ferry.check_qcow2(work / name)
        ferry.qemu_io(work / name, 'read -P 1 0 64k', 'read -P 2 1M 64k', fmt='qcow2', options=['-r'])


def test_cont_takes_the_disks_back_or_keeps_the_guest_stopped(pair, image):
    here, there = pair(image('qcow2'), 'qcow2')
    here.cmd('stop')
    write(here, 1, 0)
    hand_over(here, there)
    with pytest.raises(ferry.QMPError, match='lock'):
        here.cmd('cont')
    assert here.cmd('query-status')['status'] == 'paused'
    set_active(there, False)
    here.cmd('cont')
    assert here.cmd('query-status')['running'] and nodes(here)['disk']['active']
    holds(here, 1, 0)


def test_incoming_opens_inactive_beside_the_owner(vmm, image, work):
    path, other = image('qcow2'), ferry.make_image(work / 'other', SIZE)
    here = vmm(name='here')
    here.add_file(path, 'qcow2', 'disk')
    write(here, 1, 0)
    there = vmm('-incoming', 'defer', '-blockdev', f'driver=file,node-name=file,filename={path}',
                '-blockdev', 'driver=qcow2,node-name=disk,file=file',
                '-drive', f'if=none,id=drive,format=raw,file={other}', name='there')
    there.add_file(other, node_name='late')
    assert not any(n['active'] for n in nodes(there).values())
    assert not there.cmd('query-block')[0]['inserted']['active']
    assert locks(other) == []
    holds(here, 1, 0)
    # `active` says otherwise.
    there.add('null-co', 'null', size=MIB, active=True)
    assert nodes(there)['null']['active']
    set_active(here, False)
    set_active(there, True)
    assert all(n['active'] for n in nodes(there).values())
    holds(there, 1, 0)
    there.add('null-co', 'after', size=MIB)
    assert nodes(there)['after']['active']


@pytest.mark.parametrize('options', ['', ',format=qcow2', ',snapshot=on', ',copy-on-read=on', ',throttling.iops-total=1000'])
def test_drives_of_a_destination_wait_in_all_their_layers(vmm, image, options):
    path = image('qcow2')
    here = vmm(name='here')
    here.add_file(path, 'qcow2', 'disk')
    there = vmm('-incoming', 'defer', '-drive', f'if=none,id=drive,file={path}{options}', name='there')
    assert not any(n['active'] for n in nodes(there).values())
    write(here, 1, 0)
    refuses(there, 'lock', True)
    hand_over(here, there)
    assert all(n['active'] for n in nodes(there).values())
    holds(there, 1, 0, node='drive')
    write(there, 2, 0, node='drive')
    set_active(there, False)
    assert 'not permitted' in there.qemu_io('drive', 'write 0 512')
    assert locks(path) == []
    set_active(here, True)
    holds(here, 1 if 'snapshot' in options else 2, 0)


@pytest.mark.parametrize('command', ['nbd-server-add', 'block-export-add'])
def test_export_of_a_destination_activates_its_node_only(vmm, image, work, command):
    path, other = image('qcow2'), ferry.make_image(work / 'other', SIZE, 'qcow2')
    there = vmm('-incoming', 'defer', '-blockdev', f'driver=qcow2,node-name=disk,file.driver=file,file.filename={path}',
                '-blockdev', f'driver=qcow2,node-name=other,file.driver=file,file.filename={other}')
    uri = start_nbd(there)
    if command == 'nbd-server-add':
        there.cmd(command, device='disk', writable=True)
    else:
        there.cmd(command, type='nbd', id='e', node_name='disk', name='disk', writable=True)
    assert nodes(there)['disk']['active'] and not nodes(there)['other']['active']
    assert locks(path) == WRITER and locks(other) == []
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'\7' * 65536, 0)
    assert handle.pread(65536, 0) == b'\7' * 65536
    handle.shutdown()


def test_export_cannot_take_what_another_process_has(vmm, image):
    path = image('qcow2')
    here = vmm(name='here')
    here.add_file(path, 'qcow2', 'disk')
    there = vmm('-incoming', 'defer', '-blockdev', f'driver=qcow2,node-name=disk,file.driver=file,file.filename={path}', name='there')
    start_nbd(there)
    with pytest.raises(ferry.QMPError, match='lock'):
        there.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True)
    assert not nodes(there)['disk']['active'] and there.cmd('query-block-exports') == []


def test_nbd_nodes_change_hands(vmm, work, qemu_nbd):
    server = qemu_nbd(ferry.make_image(work / 'disk', SIZE), 'raw', '-e', '2', '-t')
    here, there = vmm(name='here'), vmm(name='there')
    here.add(**server.node('disk'))
    there.add(**server.node('disk'), active=False)
    write(here, 1, 0)
    hand_over(here, there)
    holds(there, 1, 0)
    assert 'not permitted' in here.qemu_io('disk', 'read 0 512')
    write(there, 2, 0)
    hand_over(there, here)
    holds(here, 2, 0)


def test_requests_in_flight_end_before_the_image_goes(vm, work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    vm.add_file(path, 'qcow2', 'disk')
    uri = start_nbd(vm)
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True, allow_inactive=True)
    handle = ferry.nbd_connect(uri)
    written = []
    for turn in range(20):
        cookies = [handle.aio_pwrite(ferry_buffer(turn * 16 + i), ((turn * 16 + i) % 200) * 64 * KIB) for i in range(16)]
        set_active(vm, False)
        copy = work / 'copy'
        shutil.copy(path, copy)
        done = 0
        for i, cookie in enumerate(cookies):
            while True:
                try:
                    if handle.aio_command_completed(cookie):
                        written.append(((turn * 16 + i) % 200, turn * 16 + i))
                        done += 1
                        break
                except Exception as error:
                    assert 'not permitted' in str(error)
                    break
                handle.poll(-1)
        set_active(vm, True)
        ferry.check_qcow2(copy)
        # What was acknowledged is in the image that the next owner gets.
        latest = dict(written)
        data = ferry.read_raw(copy, 'qcow2')
        for slot, value in latest.items():
            assert data[slot * 64 * KIB:(slot + 1) * 64 * KIB] == bytes([value % 251 + 1]) * 64 * KIB
    assert written
    handle.shutdown()


def ferry_buffer(value):
    import nbd
    return nbd.Buffer.from_bytearray(bytearray(bytes([value % 251 + 1]) * 64 * KIB))


@pytest.mark.parametrize('fmt', FORMATS)
def test_nodes_of_an_iothread_change_hands(vmm, image, fmt):
    path = image(fmt)
    here, there = vmm('-object', 'iothread,id=t', name='here'), vmm(name='there')
    here.add_file(path, fmt, 'disk')
    there.add_file(path, fmt, 'disk', active=False)
    uri = start_nbd(here)
    here.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', writable=True, allow_inactive=True, iothread='t')
    handle = ferry.nbd_connect(uri)
    for turn in range(1, 4):
        handle.pwrite(bytes([turn]) * 65536, 0)
        hand_over(here, there)
        holds(there, turn, 0)
        write(there, 100 + turn, MIB)
        hand_over(there, here)
        assert handle.pread(65536, MIB) == bytes([100 + turn]) * 65536
    handle.shutdown()
