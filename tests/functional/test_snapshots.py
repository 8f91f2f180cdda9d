# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots inside images are shown: what HMP lists and queries return is what qemu-img sees in them."""
import struct

import pytest

import ferry

HEADING = 'ID        TAG               VM SIZE                DATE     VM CLOCK     ICOUNT'


@pytest.fixture
def image(work):
    """image(name, snapshots...) makes one and returns its path."""
    def make(name, *snapshots):
        path = ferry.make_image(work / f'{name}.qcow2', ferry.MIB, 'qcow2')
        for snapshot in snapshots:
            ferry.qemu_img('snapshot', '-c', snapshot, path)
        return path
    return make


def listed(vm):
    return vm.hmp('info snapshots').replace('\r', '').splitlines()


def drive(path, name, more=''):
    return ['-drive', f'if=none,id={name},file={path},format=qcow2{more}']


def rows(path, ids=True):
    """The rows of qemu-img's table; without the numbers where the list is one of all disks."""
    lines = ferry.qemu_img('snapshot', '-U', '-l', path).splitlines()[2:]
    return lines if ids else ['--'.ljust(10) + line[10:] for line in lines]


def test_no_disk_that_could_have_one(vmm, work):
    assert listed(vmm()) == ['no block device can store vmstate for snapshot']
    raw = ferry.make_image(work / 'raw', ferry.MIB)
    assert listed(vmm('-drive', f'if=none,id=d,file={raw},format=raw')) == ['no block device can store vmstate for snapshot']


def test_none(vmm, image):
    assert listed(vmm(*drive(image('a'), 'd0'))) == ['There is no snapshot available.']


def test_one_disk(vmm, image):
    path = image('a', 'one', 'a name that is longer than its column', 'zwölf')
    vm = vmm(*drive(path, 'd0'))
    assert listed(vm) == ['List of snapshots present on all disks:', HEADING, *rows(path, ids=False)]


def test_on_all_disks_and_on_some(vmm, image, work):
    first, second = image('a', 'one', 'both'), image('b', 'both', 'two')
    vm = vmm(*drive(first, 'd0'))
    vm.add_file(second, 'qcow2', node_name='node')
    vm.add_file(image('c', 'read-only'), 'qcow2', node_name='ro', read_only=True)
    assert listed(vm) == ['List of snapshots present on all disks:', HEADING, rows(first, ids=False)[1],
                          '', "List of partial (non-loadable) snapshots on 'd0':", HEADING, rows(first)[0],
                          '', "List of partial (non-loadable) snapshots on 'node':", HEADING, rows(second)[1]]
    vm.add('null-co', 'raw')
    assert listed(vm)[:2] == ['List of snapshots present on all disks:', 'None']


def test_queries_tell_the_same(vmm, image):
    path = image('a', 'one', 'two')
    vm = vmm('-object', 'iothread,id=t', *drive(path, 'd0', ',node-name=disk'))
    told = [{'id': '1', 'name': 'one'}, {'id': '2', 'name': 'two'}]
    nodes = {n['node-name']: n['image'] for n in vm.cmd('query-named-block-nodes')}
    device = vm.cmd('query-block')[0]['inserted']['image']
    assert nodes['disk']['snapshots'] == device['snapshots']
    assert [{k: s[k] for k in ('id', 'name')} for s in device['snapshots']] == told
    assert all(s['vm-state-size'] == 0 and s['date-sec'] > 1.6e9 and s['icount'] == 0 for s in device['snapshots'])
    assert [n for n in nodes if 'snapshots' in nodes[n]] == ['disk']
    vm.cmd('blockdev-add', {'driver': 'qcow2', 'node-name': 'top', 'backing': 'disk',
                            'file': {'driver': 'file', 'filename': str(image('top'))}})
    chain = next(n for n in vm.cmd('query-named-block-nodes') if n['node-name'] == 'top')['image']
    assert 'snapshots' not in chain and chain['backing-image']['snapshots'] == device['snapshots']
    # in another thread
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': f'{vm.workdir}/nbd'}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', iothread='t')
    assert vm.cmd('query-block')[0]['inserted']['image']['snapshots'] == device['snapshots']


def test_fields_and_hostile_names(vmm, image):
    """The table of an image, rewritten by hand."""
    path = image('a', 'evil')
    with open(path, 'r+b') as file:
        file.seek(64)
        table = struct.unpack('>Q', file.read(8))[0]
        file.seek(table + 16)
        file.write(struct.pack('>IIQI', 1000000000, 5, 3600 * 10**9 * 123 + 61 * 10**9 + 7 * 10**6, 0))
        file.seek(table + 40)
        file.write(struct.pack('>Q', 5 << 20))                  # vm state
        file.seek(table + 56)
        file.write(struct.pack('>Q', 2**64 - 1))                # icount: none
        file.seek(table + 64 + 1)
        file.write(b'\x1b[\xff' + b'l')
    vm = vmm(*drive(path, 'd0'))
    info = vm.cmd('query-block')[0]['inserted']['image']['snapshots']
    assert info == [{'id': '1', 'name': '\x1b[\ufffdl', 'vm-state-size': 5 << 20, 'date-sec': 1000000000, 'date-nsec': 5,
                     'vm-clock-sec': 3600 * 123 + 61, 'vm-clock-nsec': 7000000}]
    row = listed(vm)[2]
    assert row.startswith('--        ?[\ufffdl ') and '   5 MiB 2001-09-09 ' in row and '123:01:01.007' in row
    assert row.endswith(' ' * 11)
