# SPDX-License-Identifier: GPL-2.0-or-later
"""The name of the backing file that a new overlay records leads to the image from wherever the overlay lies."""
import json
import os

import pytest

import ferry
from ferry.vmm import binary

MIB = ferry.MIB


@pytest.fixture
def vm(vmm, work):
    """Runs in `work`, where the images lie in folders 1 and 2; the disk is named relative to it."""
    for name in ('1', '2'):
        (work / name).mkdir()
    ferry.make_image(work / '1/base.raw', MIB, seed=1)
    ferry.make_image(work / '1/disk.qcow2', MIB, 'qcow2', backing='base.raw')
    os.symlink('1', work / 'link')
    machine = vmm(command=['env', '-C', str(work), *binary()])
    machine.cmd('blockdev-add', {'driver': 'qcow2', 'node-name': 'disk', 'file': {
        'driver': 'file', 'filename': '1/disk.qcow2'}})
    return machine


def recorded(path):
    return json.loads(ferry.qemu_img('info', '-U', '--output=json', path))['backing-filename']


def snapshot(vm, work, target):
    vm.cmd('blockdev-snapshot-sync', node_name='disk', snapshot_file=target, snapshot_node_name='top', format='qcow2')


def mirror(vm, sync, target):
    vm.cmd('drive-mirror', job_id='m', device='disk', target=target, sync=sync, format='qcow2')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)


@pytest.mark.parametrize('target', ['2/top.qcow2', '1/top.qcow2', 'link/top.qcow2', 'top.qcow2', 'absolute'])
def test_of_a_snapshot(vm, work, target):
    target = str(work / '2/absolute.qcow2') if target == 'absolute' else target
    snapshot(vm, work, target)
    vm.quit()
    ferry.compare(work / '1/base.raw', work / target, 'raw', 'qcow2')


def test_is_kept_as_it_was_given_where_it_works(vm, work):
    snapshot(vm, work, 'top.qcow2')
    vm.quit()
    assert recorded(work / 'top.qcow2') == '1/disk.qcow2'


@pytest.mark.parametrize('sync', ['top', 'none'])
@pytest.mark.parametrize('target', ['2/copy.qcow2', 'copy.qcow2'])
def test_of_a_mirrors_target(vm, work, sync, target):
    mirror(vm, sync, target)
    vm.quit()
    ferry.compare(work / '1/base.raw', work / target, 'raw', 'qcow2')


def test_that_leads_nowhere_is_refused(vm, work):
    """The image was renamed while it is in use."""
    (work / '1/disk.qcow2').rename(work / '1/renamed.qcow2')
    with pytest.raises(ferry.QMPError, match="Cannot record '1/disk.qcow2', the image of node 'disk', in '2/top.qcow2'"):
        snapshot(vm, work, '2/top.qcow2')
    assert not (work / '2/top.qcow2').exists()
