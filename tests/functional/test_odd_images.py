# SPDX-License-Identifier: GPL-2.0-or-later
"""Every field of a qcow2 image at its extremes and with its kinds of damage: read, or refused with a text.

A row changes an image that holds 0x01 in its first two clusters and says what must happen. Stock qemu-io opens the same
image: it finds the guest's data where Ferry does, and not where Ferry opens an image and does not find it.
"""
import struct
import subprocess

import pytest

import ferry
from disk_io import Disk
from test_qcow2_corruption import l1_table, l2_table, word

KIB, MIB = 1 << 10, ferry.MIB
SIZE = 8 * MIB
CLUSTER = 65536
READS = None            # it opens, and the guest's data is there


def header(offset, value, fmt='>I'):
    return lambda path: word(path, offset, value, fmt)


def extension(kind, payload, length=None):
    """One extension behind the header; what was there is gone."""
    def change(path):
        data = struct.pack('>II', kind, len(payload) if length is None else length) + payload
        with open(path, 'r+b') as file:
            file.seek(word(path, 100, fmt='>I'))
            file.write(data + bytes(-len(data) % 8 + 16))
    return change


def backing(offset, length):
    def change(path):
        word(path, 8, offset)
        word(path, 16, length, '>I')
    return change


def l1(value):
    return lambda path: word(path, l1_table(path), value)


def l2(value):
    return lambda path: word(path, l2_table(path), value)


def refcount_entry(value):
    return lambda path: word(path, word(path, 48), value)


def snapshots(count, offset, table=b''):
    def change(path):
        word(path, 60, count, '>I')
        word(path, 64, offset)
        if table:
            with open(path, 'r+b') as file:
                file.seek(offset)
                file.write(table)
    return change


def snapshot(**changed):
    """An entry of the snapshot table, of a snapshot without data."""
    f = {'l1': 0, 'l1_size': 0, 'id': b'1', 'name': b's', 'extra': struct.pack('>QQ', 0, SIZE), **changed}
    return struct.pack('>QIHHIIQII', f['l1'], f['l1_size'], len(f['id']), len(f['name']), 0, 0, 0, 0, len(f['extra'])) + \
        f['extra'] + f['id'] + f['name']


def bitmaps(path, directory=0x500000, size=32, count=1, reserved=0, length=24, feature=1):
    word(path, 88, feature)
    extension(0x23852875, struct.pack('>IIQQ', count, reserved, size, directory)[:length] + b'\0' * (length - 24), length)(path)


def bitmap_directory(**changed):
    """An image with one bitmap, whose entry in the directory has other fields."""
    f = {'table': 0x510000, 'entries': 1, 'flags': 0, 'kind': 1, 'granularity': 16, 'name': b'bm', 'extra': 0, **changed}

    def change(path):
        with open(path, 'r+b') as file:
            file.truncate(0x600000)
            file.seek(0x500000)
            file.write(struct.pack('>QIIBBHI', f['table'], f['entries'], f['flags'], f['kind'], f['granularity'],
                                   len(f['name']), f['extra']) + f['name'].ljust(8, b'\0'))
        bitmaps(path)
    return change


HEADER = {
    'as it is': (lambda path: None, READS),
    'magic': (header(0, 0x514649fc), 'not in qcow2 format'),
    'version 0': (header(4, 0), 'Unsupported qcow2 version 0'),
    'version 4': (header(4, 4), 'Unsupported qcow2 version 4'),
    'version 2 ignores the later fields': (header(4, 2), READS),
    'clusters of 256 bytes': (header(20, 8), 'Unsupported cluster size'),
    'clusters of 4 MiB': (header(20, 22), 'Unsupported cluster size'),
    'cluster bits of all ones': (header(20, 0xffffffff), 'Unsupported cluster size'),
    'the largest number of bytes': (header(24, 1 << 63, '>Q'), 'too large|too small'),
    'a size beyond the L1 table': (header(24, 1 << 40, '>Q'), 'L1 table is too small'),
    'AES': (header(32, 1), 'AES-encrypted'),
    'LUKS': (header(32, 2), 'LUKS-encrypted|CRYPTO'),
    'an unknown cipher': (header(32, 3), 'Unknown-method'),
    'no L1 table': (header(36, 0), 'L1 table is too small'),
    'an L1 table without end': (header(36, 0xffffffff), 'Active L1 table too large'),
    'an L1 table inside a cluster': (header(40, 0x10200, '>Q'), 'Active L1 table'),
    'an L1 table nowhere': (header(40, 1 << 62, '>Q'), 'Active L1 table'),
    'a refcount table inside a cluster': (header(48, 0x10200, '>Q'), '[Rr]eference count table'),
    'a refcount table nowhere': (header(48, 1 << 63, '>Q'), '[Rr]eference count table'),
    'no refcount table': (header(56, 0), 'does not contain a reference count table'),
    'a refcount table without end': (header(56, 0xffffffff), '[Rr]eference count table'),
    'an unknown incompatible feature': (header(72, 1 << 62, '>Q'), r'Unsupported qcow2 feature\(s\)'),
    'unknown compatible features': (header(80, (1 << 64) - 2, '>Q'), READS),
    'unknown autoclear features': (header(88, (1 << 64) - 4, '>Q'), READS),
    'refcounts of 128 bits': (header(96, 7), 'Reference count entry width too large'),
    'a header of 100 bytes': (header(100, 100), '[Hh]eader'),
    'a header longer than a cluster': (header(100, 1 << 20), '[Hh]eader'),
    'a header of no multiple of eight': (header(100, 107), '[Hh]eader'),
    'a backing file name behind the cluster': (backing(1 << 20, 4), 'Invalid backing file offset'),
    'a backing file name that is too long': (backing(0x8000, 2000), 'too long'),
    'a backing file name without end': (backing(0x8000, 0xffffffff), 'backing file|Backing file'),
    'a backing file name of no bytes': (backing(0x8000, 0), READS),
}

EXTENSIONS = {
    'unknown': (extension(0x12345678, b'anything'), READS),
    'empty and unknown': (extension(0x12345678, b''), READS),
    'longer than the cluster': (extension(0x12345678, b'', 1 << 20), 'extension'),
    'without end': (extension(0x12345678, b'', 0xffffffff), 'extension'),
    'a format name of all lengths': (extension(0xe2792aca, b'x' * 100), 'format name too long'),
    'a format name without a backing file': (extension(0xe2792aca, b'raw'), READS),
    'a feature table of odd length': (extension(0x6803f857, b'x' * 47), READS),
    'a crypto header': (extension(0x0537be77, bytes(16)), 'CRYPTO'),
    'a data file that is not used': (extension(0x44415441, b'name'), READS),
    'a short bitmaps extension': (lambda path: bitmaps(path, length=16), 'bitmaps_ext: Invalid extension length'),
    'no bitmaps': (lambda path: bitmaps(path, count=0), 'bitmaps_ext: image has 0 bitmaps'),
    'bitmaps without number': (lambda path: bitmaps(path, count=0xffffffff), 'bitmaps_ext: image has 4294967295'),
    'a reserved field': (lambda path: bitmaps(path, reserved=1), 'Reserved field is not zero'),
    'a bitmap directory without end': (lambda path: bitmaps(path, size=1 << 62), 'bitmap directory size'),
    'a bitmap directory inside a cluster': (lambda path: bitmaps(path, directory=0x500200), 'bitmap directory'),
    'bitmaps without their autoclear bit': (lambda path: bitmaps(path, count=0, feature=0), READS),
}

TABLES = {
    'no L2 table': (l1(0), ''),
    'an L2 table inside a cluster': (l1(0x50200 | 1 << 63), ''),
    'an L2 table behind the end of the file': (l1(1 << 40 | 1 << 63), ''),
    'reserved bits of an L1 entry': (lambda path: word(path, l1_table(path), word(path, l1_table(path)) | 0x1fe), READS),
    'a cluster inside a cluster': (l2(0x50200 | 1 << 63), ''),
    'a cluster behind the end of the file': (l2(1 << 40 | 1 << 63), ''),
    'a cluster that reads as zeroes': (l2(1), ''),
    'a compressed cluster behind the end': (l2(1 << 62 | 1 << 40), ''),
    'all ones': (l2((1 << 64) - 1), ''),
    'a refcount block inside a cluster': (refcount_entry(0x20200), READS),
    'a refcount block nowhere': (refcount_entry(1 << 50), READS),
    'no refcount block': (refcount_entry(0), READS),
}

SNAPSHOTS = {
    'more than are possible': (snapshots(1 << 20, 0x500000), 'Snapshot table too large'),
    'inside a cluster': (snapshots(1, 0x500200), 'Snapshot table'),
    'behind the end of the file': (snapshots(1, 1 << 40), READS),
    'one without data': (snapshots(1, 0x500000, snapshot()), READS),
    'an id of no bytes': (snapshots(1, 0x500000, snapshot(id=b'')), READS),
    'a name of 65535 bytes': (snapshots(1, 0x500000, snapshot(name=b'n' * 65535)), READS),
    'extra data that is not known': (snapshots(1, 0x500000, snapshot(extra=bytes(8) + struct.pack('>Q', SIZE) + bytes(64))), READS),
    'an L1 table without end': (snapshots(1, 0x500000, snapshot(l1=0x10000, l1_size=0xffffffff)), '[Ss]napshot'),
}

# Broken bitmaps matter to a writer only. Without write access the disk is read, and a warning says so.
BITMAPS = {
    'as they should be': (bitmap_directory(), False),
    'of an unknown kind': (bitmap_directory(kind=2), True),
    'of no kind': (bitmap_directory(kind=0), True),
    'unknown flags': (bitmap_directory(flags=1 << 31), True),
    'granularity of one byte': (bitmap_directory(granularity=0), True),
    'granularity of 2^255': (bitmap_directory(granularity=255), True),
    'a table inside a cluster': (bitmap_directory(table=0x510200), True),
    'a table at the header': (bitmap_directory(table=0), True),
    'a table nowhere': (bitmap_directory(table=1 << 60), True),
    'a table without end': (bitmap_directory(entries=0xffffffff), True),
    'no name': (bitmap_directory(name=b''), True),
    'extra data without end': (bitmap_directory(extra=0xffffffff), True),
}


@pytest.fixture
def image(work):
    path = ferry.make_image(work / 'disk.qcow2', SIZE, 'qcow2')
    ferry.qemu_io(path, 'write -P 1 0 128k', fmt='qcow2')
    return path


def stock_reads(path):
    """Whether stock finds the guest's data, without write access."""
    done = subprocess.run(['qemu-io', '-U', '-r', '-f', 'qcow2', '-c', 'read -P 1 0 128k', str(path)], capture_output=True, text=True,
                          errors='replace', check=False, timeout=60 * ferry.time_scale())
    return done.returncode == 0 and 'failed' not in done.stdout + done.stderr


def check(vm, path, expected):
    if expected:
        with pytest.raises(ferry.QMPError, match=expected):
            vm.add_file(path, 'qcow2', 'disk', read_only=True)
    else:
        stock = stock_reads(path)
        vm.add_file(path, 'qcow2', 'disk', read_only=True)
        assert bool(Disk(vm, writable=False).holds(1, 0, 128 * KIB)) == (expected is READS)
        assert stock == (expected is READS)
    vm.quit()


@pytest.mark.parametrize('change, expected', [
    pytest.param(*row, id=f'{place}-{what}')
    for place, rows in (('header', HEADER), ('extension', EXTENSIONS), ('table', TABLES), ('snapshot', SNAPSHOTS))
    for what, row in rows.items()])
def test_odd_image_is_refused_or_read_as_stock_reads_it(vm, image, change, expected):
    change(image)
    check(vm, image, expected)


@pytest.mark.parametrize('what', BITMAPS)
def test_bitmap(vm, image, what):
    change, broken = BITMAPS[what]
    change(image)
    if broken:
        with pytest.raises(ferry.QMPError, match='bitmap'):
            vm.add_file(image, 'qcow2', 'writer')
    vm.add_file(image, 'qcow2', 'disk', read_only=True)
    assert Disk(vm, writable=False).holds(1, 0, 128 * KIB)
    assert ("'disk' is read without its bitmaps" in vm.stderr()) == broken
    vm.quit()
