# SPDX-License-Identifier: GPL-2.0-or-later
"""qcow2 images whose metadata contradicts itself: noticed, reported, and never made worse."""
import json
import os
import struct

import pytest

import ferry
from disk_io import Disk

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 8 * MIB
CLUSTER = 65536
CORRUPT = 2     # in the incompatible features


def word(path, offset, value=None, fmt='>Q'):
    """Reads, or writes, one big-endian field of a file."""
    with open(path, 'r+b') as file:
        file.seek(offset)
        if value is not None:
            file.write(struct.pack(fmt, value))
            return value
        return struct.unpack(fmt, file.read(struct.calcsize(fmt)))[0]


@pytest.fixture
def image(work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_io(path, 'write -P 1 0 128k', fmt='qcow2')
    return path


def l1_table(path):
    return word(path, 40)


def l2_table(path):
    return word(path, l1_table(path)) & 0x00fffffffffffe00


def event(vm):
    return vm.wait('BLOCK_IMAGE_CORRUPTED')['data']


def test_write_over_metadata_is_stopped(vm, image):
    """A data cluster that claims to be where the refcount block is: the write does not happen, the image is marked."""
    block = word(image, word(image, 48))
    before = open(image, 'rb').read()[block:block + CLUSTER]
    word(image, l2_table(image), block | 1 << 63)
    vm.add_file(image, 'qcow2', 'disk')
    disk = Disk(vm)
    assert not disk.write(2, 0, 64 * KIB)
    data = event(vm)
    assert data['fatal'] and data['node-name'] == 'disk' and data['offset'] == block and data['size'] == CLUSTER
    assert data['msg'] == 'Preventing invalid write on metadata (overlaps with refcount block)'
    # Nothing works any more: what is in memory can't be trusted.
    assert not disk.write(2, MIB, 64 * KIB)
    assert disk.holds(1, 64 * KIB, 64 * KIB) is None
    vm.quit()
    assert open(image, 'rb').read()[block:block + CLUSTER] == before
    assert word(image, 72) & CORRUPT


TEMPLATES = [({'overlap-check': 'none'}, False), ({'overlap-check': 'constant'}, False), ({'overlap-check': 'cached'}, True),
             ({'overlap-check': 'all'}, True), ({'overlap-check': {'template': 'none', 'refcount-block': True}}, True),
             ({'overlap-check': {'template': 'all', 'refcount-block': False}}, False)]


@pytest.mark.parametrize('options,stopped', TEMPLATES, ids=str)
def test_overlap_check_templates(vm, image, options, stopped):
    block = word(image, word(image, 48))
    word(image, l2_table(image), block | 1 << 63)
    vm.add('qcow2', 'disk', file={'driver': 'file', 'filename': str(image)}, **options)
    assert Disk(vm).write(2, 0, 64 * KIB) != stopped
    vm.cmd('query-name')        # what was told before the client's answer is here now
    assert bool(vm.seen('BLOCK_IMAGE_CORRUPTED')) == stopped


def test_unaligned_l2_table(vm, image):
    word(image, l1_table(image), l2_table(image) + 512 | 1 << 63)
    vm.add_file(image, 'qcow2', 'disk')
    assert Disk(vm).holds(1, 0, 64 * KIB) is None
    data = event(vm)
    assert data['fatal'] and 'unaligned' in data['msg'] and 'offset' not in data


def test_unaligned_data_cluster_read_only(vm, image):
    """On a read-only node corruption is reported, not fatal, and nothing is written."""
    word(image, l2_table(image), word(image, l2_table(image)) + 512)
    before = open(image, 'rb').read()
    vm.add_file(image, 'qcow2', 'disk', read_only=True)
    disk = Disk(vm, writable=False)
    assert disk.holds(1, 0, 64 * KIB) is None
    data = event(vm)
    assert not data['fatal'] and 'unaligned' in data['msg']
    assert disk.holds(1, 64 * KIB, 64 * KIB)
    vm.quit()
    assert open(image, 'rb').read() == before


def test_free_header_cluster_is_never_handed_out(vm, image):
    """Refcounts that say that the header is free: allocation stops."""
    word(image, word(image, word(image, 48)), 0, '>H')
    vm.add_file(image, 'qcow2', 'disk')
    assert not Disk(vm).write(2, 4 * MIB, 64 * KIB)
    assert event(vm)['fatal']
    vm.quit()
    assert word(image, 0, fmt='>I') == 0x514649fb


def test_corrupt_images_open_read_only(vm, image):
    word(image, 72, CORRUPT)
    with pytest.raises(ferry.QMPError, match='Image is corrupt; cannot be opened read/write'):
        vm.add_file(image, 'qcow2', 'disk')
    vm.add_file(image, 'qcow2', 'disk', read_only=True)
    assert Disk(vm, writable=False).holds(1, 0, 128 * KIB)
    info = vm.cmd('query-named-block-nodes')
    node = next(n for n in info if n['node-name'] == 'disk')
    assert node['image']['format-specific']['data']['corrupt']


HEADER_FAULTS = [
    (4, '>I', 1, 'version'), (4, '>I', 4, 'version'), (20, '>I', 8, 'cluster size'), (20, '>I', 22, 'cluster size'),
    (20, '>I', 63, 'cluster size'), (24, '>Q', 1 << 63, 'large'), (24, '>Q', 1 << 62, 'L1 table is too small'),
    (32, '>I', 1, 'AES'), (32, '>I', 2, 'LUKS'), (36, '>I', 0xffffffff, 'L1 table too large'),
    (36, '>I', 0, 'L1 table is too small'), (40, '>Q', 12345, 'L1 table'), (40, '>Q', 1 << 62, 'L1 table'),
    (48, '>Q', 1, 'efcount|eference count'), (48, '>Q', 0, 'eference count'), (56, '>I', 0xffffffff, 'eference count'),
    (56, '>I', 0, 'eference count'), (60, '>I', 65537, 'Snapshot'), (60, '>I', 1, 'napshot'), (72, '>Q', 1 << 9, 'feature'),
    (96, '>I', 7, 'eference count'), (100, '>I', 96, 'header too short'), (100, '>I', 105, 'multiple of 8'),
    (100, '>I', 1 << 30, 'exceeds cluster size'), (104, '>B', 1, 'ompression type'), (8, '>Q', 1 << 40, 'backing file offset'),
]


@pytest.mark.parametrize('offset,fmt,value,message', HEADER_FAULTS, ids=str)
def test_header_faults_are_named(vm, image, offset, fmt, value, message):
    word(image, offset, value, fmt)
    before = open(image, 'rb').read()
    with pytest.raises(ferry.QMPError, match=message) as error:
        vm.add_file(image, 'qcow2', 'disk')
    assert '\n' not in error.value.desc
    vm.quit()
    assert open(image, 'rb').read() == before


@pytest.mark.parametrize('size', (0, 4, 71, 103, 512, 65536))
def test_short_files(vm, work, image, size):
    short = work / 'short.qcow2'
    short.write_bytes(open(image, 'rb').read()[:size])
    try:
        vm.add_file(short, 'qcow2', 'disk', read_only=True)
        Disk(vm, writable=False).holds(1, 0, 64 * KIB)
    except ferry.QMPError as error:
        assert error.desc


@pytest.fixture
def with_data(work):
    """(image, data file): the image gives a plain name."""
    path, data = work / 'named.qcow2', work / 'named.raw'
    ferry.qemu_img('create', '-q', '-f', 'qcow2', '-o', f'data_file={data}', path, '1M')
    ferry.qemu_img('amend', '-q', '-f', 'qcow2', '-o', 'data_file=named.raw', path)
    return path, data


def in_folder(path, *command):
    """A stock tool on an image; it looks for data files where it runs."""
    return ferry.images.run_tool('env', '-C', path.parent, *command, path)


def test_data_file_beside_the_image_is_found(vm, with_data):
    path, data = with_data
    in_folder(path, 'qemu-io', '-f', 'qcow2', '-c', 'write -P 7 0 64k')
    vm.add_file(path, 'qcow2', 'disk')
    disk = Disk(vm)
    assert disk.holds(7, 0, 64 * KIB)
    assert disk.write(8, 0, 64 * KIB)
    vm.quit()
    assert data.read_bytes()[:4] == b'\x08' * 4


def test_mirror_copies_into_an_existing_image_with_a_data_file(vm, work, with_data):
    path, _ = with_data
    vm.add_file(ferry.make_image(work / 'source.raw', ferry.MIB, seed=1), node_name='disk')
    vm.cmd('drive-mirror', job_id='m', device='disk', target=str(path), mode='existing', sync='full', format='qcow2')
    vm.wait('BLOCK_JOB_READY', device='m')
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
    vm.quit()
    in_folder(path, 'qemu-img', 'compare', '-f', 'raw', '-F', 'qcow2', work / 'source.raw')


@pytest.mark.parametrize('kind', ['link', 'folder', 'fifo', 'itself', 'missing'])
def test_data_file_that_is_no_file_of_its_own_is_not_opened(vm, work, with_data, kind):
    path, data = with_data
    data.rename(work / 'elsewhere')
    if kind == 'link':
        data.symlink_to(work / 'elsewhere')
    elif kind == 'folder':
        data.mkdir()
    elif kind == 'fifo':
        os.mkfifo(data)
    elif kind == 'itself':
        os.link(path, data)
    with pytest.raises(ferry.QMPError, match="'data-file' is required.*named.raw.*data-file.filename="):
        vm.add_file(path, 'qcow2', 'disk')


def test_data_file_with_a_path_is_opened_only_when_the_option_grants_it(vm, work):
    """An image from outside must not make us open or connect to anything."""
    path = work / 'named.qcow2'
    data = work / 'named.raw'
    ferry.qemu_img('create', '-q', '-f', 'qcow2', '-o', f'data_file={data}', path, '1M')
    with pytest.raises(ferry.QMPError, match="'data-file' is required.*named.raw"):
        vm.add_file(path, 'qcow2', 'disk')
    vm.add('qcow2', 'disk', file={'driver': 'file', 'filename': str(path)}, data_file={'driver': 'file', 'filename': str(data)})


def test_image_cannot_name_a_protocol_as_data_file(vm, work):
    """An image from outside must not make us connect anywhere."""
    path = work / 'evil.qcow2'
    data = work / 'data.raw'
    ferry.qemu_img('create', '-q', '-f', 'qcow2', '-o', f'data_file={data}', path, '1M')
    contents = bytearray(path.read_bytes())
    at = contents.index(struct.pack('>I', 0x44415441))
    name = b'nbd:unix:/tmp/x'
    length = struct.unpack('>I', contents[at + 4:at + 8])[0]
    assert length >= len(name)
    contents[at + 4:at + 8] = struct.pack('>I', len(name))
    room = -(-length // 8) * 8
    contents[at + 8:at + 8 + room] = name.ljust(-(-len(name) // 8) * 8, b'\0') + contents[at + 8 + room:at + 8 + 2 * room][:0] \
        + b'\0' * (room - -(-len(name) // 8) * 8)
    path.write_bytes(contents)
    with pytest.raises(ferry.QMPError, match='data file'):
        vm.add_file(path, 'qcow2', 'disk')
    vm.add('qcow2', 'disk', file={'driver': 'file', 'filename': str(path)}, data_file={'driver': 'file', 'filename': str(data)})
    assert Disk(vm).write(3, 0, 64 * KIB)
    vm.quit()
    assert json.loads(ferry.qemu_img('map', '--output=json', f'json:{{"driver":"qcow2","file":{{"driver":"file","filename":"{path}"}},'
                      f'"data-file":{{"driver":"file","filename":"{data}"}}}}'))[0]['data']


@pytest.mark.parametrize('where', ['directory', 'table'])
def test_broken_bitmaps_do_not_make_a_disk_unreadable(vm, image, where):
    ferry.qemu_img('bitmap', '--add', image, 'b')
    contents = image.read_bytes()
    extension = contents.index(struct.pack('>I', 0x23852875))
    directory = word(image, extension + 24)
    if where == 'directory':
        word(image, directory + 16, 0xff, '>B')         # a type that does not exist
    else:
        word(image, word(image, directory), 0x1ff)      # reserved bits of the first entry of the table
    vm.add_file(image, 'qcow2', 'disk', read_only=True)
    Disk(vm, writable=False).holds(1, 0, 64 * KIB)
    vm.add_file(ferry.make_image(image.with_suffix('.other'), MIB), node_name='other')
    with pytest.raises(ferry.QMPError, match="'disk' cannot be written: the bitmaps of its image are broken|is read-only|read-only"):
        vm.cmd('blockdev-reopen', options=[{'driver': 'qcow2', 'node-name': 'disk', 'read-only': False,
                                            'file': vm.cmd('query-named-block-nodes', flat=True)[0]['node-name']}])
    vm.quit()
    assert word(image, directory + 16, fmt='>B') == (0xff if where == 'directory' else 1)
