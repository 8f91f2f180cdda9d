# SPDX-License-Identifier: GPL-2.0-or-later
"""Images are made, and their backing files renamed, while the process runs: judged by stock qemu-img."""
import itertools
import json

import pytest

import ferry

SIZE = 4 * ferry.MIB


def info(path):
    return json.loads(ferry.qemu_img('info', '-U', '--output=json', path))


_numbers = itertools.count(1)


def create(vm, **options):
    """Makes an image; returns the job as it concluded."""
    job_id = f'create{next(_numbers)}'
    vm.cmd('blockdev-create', job_id=job_id, options={k.replace('_', '-'): v for k, v in options.items()})
    vm.job_until(job_id, 'concluded')
    job = vm.job(job_id)
    vm.cmd('job-dismiss', id=job_id)
    return job


# --- blockdev-create ---

def test_qcow2_on_a_new_file_is_made_and_used(vm, work):
    path = work / 'new.qcow2'
    assert 'error' not in create(vm, driver='file', filename=str(path), size=0)
    vm.add('file', 'file', filename=str(path))
    assert 'error' not in create(vm, driver='qcow2', file='file', size=SIZE, cluster_size=4096, lazy_refcounts=True,
                                 refcount_bits=8, compression_type='zstd', extended_l2=False)
    vm.add('qcow2', 'disk', file='file')
    handle = ferry.nbd_connect(vm.export('disk'))
    handle.pwrite(b'n' * 65536, ferry.MIB)
    handle.shutdown()
    vm.quit()
    found = info(path)
    assert (found['format'], found['virtual-size'], found['cluster-size']) == ('qcow2', SIZE, 4096)
    data = found['format-specific']['data']
    assert (data['lazy-refcounts'], data['refcount-bits'], data['compression-type']) == (True, 8, 'zstd')
    ferry.check_qcow2(path)
    assert 'verification failed' not in ferry.qemu_io(path, 'read -P 110 1M 64k', 'read -P 0 0 1M', fmt='qcow2')


def test_qcow2_names_its_backing_file(vm, work):
    base = ferry.make_image(work / 'base.raw', SIZE, seed=1, data=SIZE)
    path = work / 'new.qcow2'
    create(vm, driver='file', filename=str(path), size=0)
    vm.add('file', 'file', filename=str(path))
    assert 'error' not in create(vm, driver='qcow2', file='file', size=SIZE, version='v2', backing_file=str(base), backing_fmt='raw')
    vm.cmd('blockdev-del', node_name='file')
    assert (info(path)['full-backing-filename'], info(path)['backing-filename-format']) == (str(base), 'raw')
    assert info(path)['format-specific']['data']['compat'] == '0.10'
    ferry.compare(base, path, b_fmt='qcow2')


@pytest.mark.parametrize('mode', ['off', 'falloc', 'full'])
def test_raw_file_is_preallocated_as_asked(vm, work, mode):
    path = work / 'new.raw'
    assert 'error' not in create(vm, driver='file', filename=str(path), size=SIZE, preallocation=mode)
    assert path.stat().st_size == SIZE
    assert ferry.allocated(path) >= SIZE if mode != 'off' else ferry.allocated(path) <= 4096
    assert path.read_bytes() == bytes(SIZE)


def test_no_image_is_made_over_a_file_in_use(vm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=2, data=SIZE)
    before = path.read_bytes()
    vm.add('file', 'file', filename=str(path))
    vm.add('raw', 'disk', file='file')
    vm.export('disk')
    error = create(vm, driver='qcow2', file='file', size=SIZE)['error']
    assert "'file'" in error and "'disk'" in error      # both sides of the conflict
    assert path.read_bytes() == before


def test_no_file_is_made_over_a_disk(vmm, work):
    """Neither one's own nor another process's."""
    path = ferry.make_image(work / 'disk.raw', SIZE, seed=2, data=SIZE)
    before = path.read_bytes()
    owner = vmm(name='owner')
    owner.add_file(path, node_name='disk')
    owner.export('disk')
    for one in (owner, vmm(name='other')):
        assert 'lock' in create(one, driver='file', filename=str(path), size=SIZE)['error']
    assert path.read_bytes() == before


OLD = 'supported with compatibility level 1.1 and above (use version=v3 or greater)'


@pytest.mark.parametrize('options, message', [
    ({'cluster-size': 1000}, 'Cluster size must be a power of two between 512 and 2048k'),
    ({'cluster-size': 4 << 20}, 'Cluster size must be a power of two between 512 and 2048k'),
    ({'extended-l2': True, 'cluster-size': 4096},
     'Extended L2 entries are only supported with cluster sizes of at least 16384 bytes'),
    ({'refcount-bits': 3}, 'Refcount width must be a power of two and may not exceed 64 bits'),
    ({'refcount-bits': 128}, 'Refcount width must be a power of two and may not exceed 64 bits'),
    ({'version': 'v2', 'refcount-bits': 8},
     'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)'),
    ({'version': 'v2', 'lazy-refcounts': True}, f'Lazy refcounts only {OLD}'),
    ({'version': 'v2', 'extended-l2': True}, f'Extended L2 entries are only {OLD}'),
    ({'version': 'v2', 'compression-type': 'zstd'}, f'Non-zlib compression type is only {OLD}'),
    ({'backing-fmt': 'raw'}, 'Backing format cannot be used without backing file'),
    ({'backing-file': 'base', 'preallocation': 'metadata'},
     'Backing file and preallocation can only be used at the same time if extended_l2 is on'),
    ({'data-file-raw': True}, 'data-file-raw requires data-file'),
])
def test_image_that_cannot_be_is_refused_in_the_words_of_stock(vm, work, options, message):
    path = work / 'new.qcow2'
    path.write_bytes(b'')
    vm.add('file', 'file', filename=str(path))
    job = create(vm, **{'driver': 'qcow2', 'file': 'file', 'size': SIZE, **options})
    assert job['error'] == message
    vm.cmd('blockdev-del', node_name='file')


def test_creation_can_fail_for_want_of_a_folder(vm, work):
    job = create(vm, driver='file', filename=str(work / 'none' / 'new.raw'), size=SIZE)
    assert 'No such file or directory' in job['error']


def test_job_id_and_driver_are_checked_at_once(vm, work):
    for options, job_id, message in (({'driver': 'null-co'}, 'c', 'driver'),
                                     ({'driver': 'file', 'filename': str(work / 'x'), 'size': 0}, '9', 'job')):
        with pytest.raises(ferry.QMPError, match=f'(?i){message}'):
            vm.cmd('blockdev-create', job_id=job_id, options=options)
    assert vm.cmd('query-jobs') == [] and not (work / 'x').exists()


# --- change-backing-file ---

@pytest.fixture
def chain(vm, work):
    """base <- mid <- top, whose nodes are called so."""
    base = ferry.make_image(work / 'base.raw', SIZE, seed=3, data=SIZE)
    mid = ferry.make_image(work / 'mid.qcow2', SIZE, 'qcow2', backing=base)
    ferry.make_image(work / 'top.qcow2', SIZE, 'qcow2', backing=mid, backing_fmt='qcow2')
    vm.add_file(base, node_name='base', read_only=True)
    vm.add_file(mid, 'qcow2', 'mid', backing='base')
    vm.add_file(work / 'top.qcow2', 'qcow2', 'top', backing='mid')
    return vm


def test_name_of_the_backing_file_is_changed_and_nothing_else(chain, work):
    (work / 'moved.qcow2').symlink_to(work / 'mid.qcow2')
    chain.cmd('change-backing-file', device='top', image_node_name='top', backing_file=str(work / 'moved.qcow2'))
    chain.quit()
    assert info(work / 'top.qcow2')['backing-filename'] == str(work / 'moved.qcow2')
    assert info(work / 'top.qcow2')['backing-filename-format'] == 'qcow2'
    assert info(work / 'mid.qcow2')['backing-filename'] == str(work / 'base.raw')
    ferry.compare(work / 'base.raw', work / 'top.qcow2', b_fmt='qcow2')
    ferry.check_qcow2(work / 'top.qcow2')


def test_backing_file_of_a_file_below_is_changed(chain, work):
    chain.cmd('change-backing-file', device='top', image_node_name='mid', backing_file='base.raw')
    chain.quit()
    assert info(work / 'mid.qcow2')['backing-filename'] == 'base.raw'
    assert info(work / 'mid.qcow2')['full-backing-filename'] == str(work / 'base.raw')


def test_backing_file_is_changed_under_writers(chain, work):
    model = ferry.Model(SIZE, work / 'base.raw')
    writers = ferry.run_writers(chain.export('top'), model, seed=5, count=2)
    for number in range(20):
        writers[0].wait_count(5)
        chain.cmd('change-backing-file', device='top', image_node_name='top', backing_file=f'{work}/{"./" * (number % 2)}mid.qcow2')
    for writer in writers:
        writer.stop()
    chain.quit()
    model.check(work / 'top.qcow2', 'qcow2')
    ferry.check_qcow2(work / 'top.qcow2')


def test_what_has_no_backing_file_is_refused(chain, work):
    ferry.make_image(work / 'other.qcow2', SIZE, 'qcow2')
    chain.add_file(work / 'other.qcow2', 'qcow2', 'other')
    for device, node, message in (('top', 'base', 'without a backing file'), ('top', 'none', 'none'), ('none', 'top', 'none'),
                                  ('top', 'other', 'not in the same chain|without a backing file')):
        with pytest.raises(ferry.QMPError, match=message):
            chain.cmd('change-backing-file', device=device, image_node_name=node, backing_file='x')
    with pytest.raises(ferry.QMPError):
        chain.cmd('change-backing-file', device='top', image_node_name='top', backing_file='x' * 1024)
    chain.quit()
    assert info(work / 'top.qcow2')['backing-filename'] == str(work / 'mid.qcow2')
