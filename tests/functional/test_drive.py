# SPDX-License-Identifier: GPL-2.0-or-later
"""-drive makes a node and a named device from one line, with the words and mistakes of QEMU."""
import subprocess

import pytest

import ferry

SIZE = ferry.MIB


@pytest.fixture
def drive(vmm, work):
    """Starts with one drive over a raw (or other) image: drive('cache=none') -> (vm, its entry of query-block)."""
    def start(*options, fmt='raw', path=None, id_='d0'):
        path = path or ferry.make_image(work / f'disk.{fmt}', SIZE, fmt)
        vm = vmm('-drive', ','.join(['if=none', f'id={id_}', f'file={path}', *options]))
        return vm, next(b for b in vm.cmd('query-block') if b['device'] == id_)['inserted']
    return start


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_format_is_taken(drive, fmt):
    vm, info = drive(f'format={fmt}', 'node-name=n', fmt=fmt)
    assert (info['drv'], info['node-name'], info['ro'], info['image']['virtual-size']) == (fmt, 'n', False, SIZE)
    assert 'wrote' in vm.qemu_io('d0', 'write 0 4k')


def test_format_is_guessed(drive):
    assert drive(fmt='qcow2')[1]['drv'] == 'qcow2'


def test_guessed_raw_disk_refuses_to_become_another_format(drive, work):
    vm, info = drive()
    assert info['drv'] == 'raw'
    ferry.make_image(work / 'header', SIZE, 'qcow2')
    assert 'Operation not permitted' in vm.qemu_io('d0', f'write -s {work}/header 0 512')
    assert 'wrote' in vm.qemu_io('d0', 'write 512 512')


@pytest.mark.parametrize('mode, writeback, direct, no_flush', [
    ('writeback', True, False, False), ('none', True, True, False), ('off', True, True, False),
    ('unsafe', True, False, True), ('writethrough', False, False, False), ('directsync', False, True, False),
])
def test_cache_modes(drive, disk_work, mode, writeback, direct, no_flush):
    path = ferry.make_image(disk_work / 'disk.raw', SIZE)
    vm, info = drive('format=raw', f'cache={mode}', path=path)
    assert info['cache'] == {'writeback': writeback, 'direct': direct, 'no-flush': no_flush}
    assert 'wrote' in vm.qemu_io('d0', 'write -P 5 4k 4k')
    assert 'failed' not in vm.qemu_io('d0', 'read -P 5 4k 4k')


@pytest.mark.parametrize('options', [('aio=threads',), ('aio=io_uring',), ('aio=native', 'cache=none')])
def test_aio_engines(drive, disk_work, options):
    path = ferry.make_image(disk_work / 'disk.raw', SIZE)
    vm, _ = drive('format=raw', *options, path=path)
    assert 'wrote' in vm.qemu_io('d0', 'write -P 5 0 64k')
    assert 'failed' not in vm.qemu_io('d0', 'read -P 5 0 64k')


@pytest.mark.parametrize('word', ['readonly', 'read-only'])
def test_read_only(drive, word):
    vm, info = drive('format=raw', f'{word}=on')
    assert info['ro']
    assert 'read-only' in vm.qemu_io('d0', 'write 0 512')
    assert 'read 512/512' in vm.qemu_io('d0', 'read 0 512')


@pytest.mark.parametrize('discard, left', [('unmap', False), ('on', False), ('ignore', True), ('off', True)])
def test_discard(drive, work, discard, left):
    vm, _ = drive('format=raw', f'discard={discard}')
    vm.qemu_io('d0', 'write 0 1M')
    assert 'discard' in vm.qemu_io('d0', 'discard 0 1M')
    assert (ferry.allocated(work / 'disk.raw') >= SIZE) == left


@pytest.mark.parametrize('options, shown, left', [
    (('detect-zeroes=off',), 'off', True), (('detect-zeroes=on',), 'on', True),
    (('detect-zeroes=unmap', 'discard=unmap'), 'unmap', False),
])
def test_detect_zeroes(drive, work, options, shown, left):
    vm, info = drive('format=raw', *options)
    assert info['detect_zeroes'] == shown
    vm.qemu_io('d0', 'write -P 1 0 1M')
    assert 'wrote' in vm.qemu_io('d0', 'write -P 0 0 1M')
    assert 'failed' not in vm.qemu_io('d0', 'read -P 0 0 1M')
    assert (ferry.allocated(work / 'disk.raw') >= SIZE) == left


@pytest.mark.parametrize('fmt', ['raw', 'qcow2'])
def test_snapshot_leaves_the_image_alone(drive, work, fmt):
    path = ferry.make_image(work / 'disk', SIZE, fmt, seed=1)
    before = path.read_bytes()
    vm, info = drive(f'format={fmt}', 'snapshot=on', path=path)
    assert not info['ro'] and info['backing_file_depth'] == 1
    assert 'wrote' in vm.qemu_io('d0', 'write -P 7 0 64k')
    assert 'failed' not in vm.qemu_io('d0', 'read -P 7 0 64k')
    vm.quit()
    assert path.read_bytes() == before
    assert not list(work.glob('*overlay*'))


def test_json_and_dotted_names(vmm, work):
    path = ferry.make_image(work / 'disk.raw', SIZE)
    other = ferry.make_image(work / 'other.raw', 2 * SIZE)
    text = f'json:{{"driver":"raw","file":{{"driver":"file","filename":"{path}"}}}}'.replace(',', ',,')
    vm = vmm('-drive', f'if=none,id=a,file={text}', '-drive', f'if=none,id=b,driver=raw,file.filename={other}',
             '-drive', 'if=none,id=c,driver=null-co,size=4096', '-drive', 'if=none,id=empty', '-drive', 'if=none')
    sizes = {b['device']: b.get('inserted', {}).get('image', {}).get('virtual-size') for b in vm.cmd('query-block')}
    assert sizes == {'a': SIZE, 'b': 2 * SIZE, 'c': 4096, 'empty': None, 'none4': None}


@pytest.mark.parametrize('options', [
    'file={work}/d.raw,format=raw,size=64k', 'file={work}/d.raw,size=64k', 'file={work}/d.raw,format=raw,size=0x10000',
    'file={work}/d.raw,format=raw,size=64k,file.locking=off', 'file.filename={work}/d.raw,format=raw,size=64k',
    'driver=raw,file={work}/d.raw,size=65536', 'driver=null-co,size=64k', 'file=null-co://,file.size=64k',
    'file={work}/a,,file=b,size=64k',
])
def test_options_of_the_format_stand_beside_the_name(vmm, work, options):
    ferry.make_image(work / 'd.raw', SIZE)
    ferry.make_image(work / 'a,file=b', SIZE)
    vm = vmm('-drive', 'if=none,id=d,' + options.format(work=work))
    assert vm.cmd('query-block')[0]['inserted']['image']['virtual-size'] == 64 << 10


@pytest.mark.parametrize('fmt', ['format=qcow2,', ''])
def test_caches_and_locks_are_set_beside_the_name(vmm, work, fmt):
    """Two processes' worth of drives on one image: what file.locking=off allows."""
    path = ferry.make_image(work / 'd.qcow2', SIZE, 'qcow2')
    options = f'if=none,file={path},{fmt}file.locking=off,l2-cache-size=1M,lazy-refcounts=on,node-name=n'
    first, second = vmm('-drive', options), vmm('-drive', options)
    assert 'wrote' in first.qemu_io('n', 'write 0 4k')
    assert second.cmd('query-block')[0]['inserted']['node-name'] == 'n'


def test_error_policies_are_taken(drive):
    drive('format=raw', 'rerror=stop', 'werror=ignore')


def run(*options):
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-display', 'none', '-nodefaults', '-S', '-drive',
                           ','.join(options)], capture_output=True, text=True, timeout=60, check=False,
                          stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout + done.stderr


def test_format_help_lists_drivers():
    status, text = run('if=none', 'format=help')
    assert status == 0
    assert text.startswith('Supported formats: ')
    assert {'raw', 'qcow2', 'file', 'nbd', 'throttle', 'blkdebug', 'copy-on-read'} <= set(text.split())


@pytest.mark.parametrize('options, message', [
    ('file={work}/none', "Could not open '{work}/none': No such file or directory"),
    ('file={raw},format=bogus', "Unknown driver 'bogus'"),
    ('file={raw},format=qcow2', 'Image is not in qcow2 format'),
    ('file={raw},format=raw,driver=raw', "Cannot specify both 'driver' and 'format'"),
    ('file={raw},format=raw,cache=bogus', 'invalid cache option'),
    ('file={raw},format=raw,aio=bogus', 'invalid aio option'),
    ('file={raw},format=raw,aio=native', 'aio=native was specified, but it requires cache.direct=on'),
    ('file={raw},format=raw,discard=bogus', 'nvalid discard option'),
    ('file={raw},format=raw,detect-zeroes=bogus', 'invalid parameter value: bogus'),
    ('file={raw},format=raw,readonly=bogus', "expects 'on' or 'off'"),
    ('file={raw},format=raw,snapshot=maybe', "Parameter 'snapshot' expects 'on' or 'off'"),
    ('file={raw},format=raw,cache.writeback=maybe', "Parameter 'cache.writeback' expects 'on' or 'off'"),
    ('file={raw},format=raw,id.part=1', "Invalid parameter type for 'id', expected: string"),
    ('file={raw},format=raw,unit=many', "Parameter 'unit' expects"),
    ('file={raw},format=raw,werror=bogus', "'bogus' invalid write error action"),
    ('file={raw},format=raw,rerror=enospc', "'enospc' invalid read error action"),
    ('file={raw},format=raw,media=bogus', "'bogus' invalid media"),
    ('file={raw},format=raw,serial=5', "Parameter 'serial' is unexpected"),
    ('file={raw},format=qcow2,l2-cache-size=1Q', "Parameter 'l2-cache-size' expects"),
    ('file=null-co://x', "The only allowed filename for this driver is 'null-co://'"),
    ('file={raw},file.bogus=1', "Parameter 'bogus' is unexpected"),
    ('file={raw},format=raw,node-name=1x', "Invalid node-name: '1x'"),
    ('file={raw},format=raw,if=bogus', "unsupported bus type 'bogus'"),
    ('format=raw', 'A block device must be specified for "file"'),
    ('file=,format=raw', 'A block device must be specified for "file"'),
    ('file=json:{{bad', 'Could not parse the JSON options'),
    ('file=nbd:unix:{work}/none:exportname=x', 'No such file or directory'),
])
def test_mistakes_are_named(work, options, message):
    raw = ferry.make_image(work / 'disk.raw', SIZE)
    options = options.format(work=work, raw=raw)
    status, text = run('if=none,' * ('if=' not in options) + options)
    assert status == 1
    assert message.format(work=work) in text


def test_two_drives_of_one_name_are_refused(vmm):
    with pytest.raises(RuntimeError, match="(?s)exit status 1.*'d'"):
        vmm('-drive', 'if=none,id=d,driver=null-co', '-drive', 'if=none,id=d,driver=null-co')


@pytest.mark.parametrize('option, message', [
    ('if=virtio', 'machine type does not support if=virtio,bus=0,unit=0'),
    ('if=ide,index=3', 'machine type does not support if=ide,bus=1,unit=1'),
    ('if=scsi,bus=2,unit=6', 'machine type does not support if=scsi,bus=2,unit=6'),
    ('if=pflash', 'machine type does not support if=pflash,bus=0,unit=0'),
    ('if=floppy,werror=stop', 'werror is not supported by this bus type'),
    ('if=ide,unit=2', 'unit 2 too big (max is 1)'),
    ('if=none,index=1,unit=1', 'index cannot be used with bus and unit'),
    ('if=none,index=-1', "Parameter 'index' expects a number below"),
])
def test_places_that_no_machine_has_are_refused(work, option, message):
    """The disk itself is fine, but no device would ever use it."""
    raw = ferry.make_image(work / 'disk.raw', SIZE)
    status, text = run(f'file={raw},format=raw,{option}')
    assert status == 1 and message in text
    status, text = run(f'file={work}/none,format=raw,{option}')
    assert status == 1 and ('No such file' in text or 'machine type' not in text)


def test_places_give_names_and_are_taken_once(vmm, work):
    raw = ferry.make_image(work / 'disk.raw', SIZE)
    options = f'file={raw},format=raw,readonly=on'
    vm = vmm('-drive', options, '-drive', f'{options},index=5', '-drive', f'{options},if=none', '-drive', 'if=none,id=x,unit=9')
    assert [b['device'] for b in vm.cmd('query-block')] == ['none0', 'none5', 'none1', 'x']
    with pytest.raises(RuntimeError, match=r'drive with bus=0, unit=5 \(index=5\) exists'):
        vmm('-drive', f'{options},index=5', '-drive', f'{options},unit=5')


def test_copy_on_read_fills_the_image(drive, work):
    base = ferry.make_image(work / 'base.raw', SIZE, seed=1, data=SIZE)
    top = ferry.make_image(work / 'top.qcow2', SIZE, 'qcow2', backing=base, backing_fmt='raw')
    vm, _ = drive('format=qcow2', 'copy-on-read=on', path=top)
    assert 'failed' not in vm.qemu_io('d0', 'read 64k 64k')
    vm.quit()
    own = [e for e in ferry.map_image(top, 'qcow2') if e['depth'] == 0 and e['data']]
    assert sum(e['length'] for e in own) == 64 << 10


def test_copy_on_read_of_a_read_only_disk_is_a_warning(drive):
    vm, info = drive('format=raw', 'copy-on-read=on', 'readonly=on')
    assert info['ro'] and info['drv'] == 'raw'
    assert 'disabling copy-on-read on read-only drive' in vm.stderr()


def test_mode_and_members_of_the_cache_stand_together(drive):
    _, info = drive('format=raw', 'cache=writethrough', 'cache.no-flush=on')
    assert info['cache'] == {'writeback': False, 'direct': False, 'no-flush': True}


@pytest.mark.parametrize('value', [True, False])
def test_cache_writeback_belongs_to_the_device(drive, value):
    _, info = drive('format=raw', f'cache.writeback={"on" if value else "off"}')
    assert info['cache']['writeback'] is value


def test_accounting_is_chosen(drive):
    vm, _ = drive('format=raw', 'stats-account-invalid=off', 'stats-account-failed=on')
    stats = vm.cmd('query-blockstats')[0]['stats']
    assert (stats['account_invalid'], stats['account_failed']) == (False, True)


def test_group_has_an_older_name(drive):
    assert drive('format=raw', 'bps=1000000', 'group=g')[1]['group'] == 'g'


def test_short_options_for_disks(vmm, work):
    odd = ferry.make_image(work / 'a,b.raw', SIZE)
    vm = vmm('-hda', odd, '-cdrom', ferry.make_image(work / 'cd.raw', SIZE))
    disks = {b['device']: b['inserted'] for b in vm.cmd('query-block')}
    assert disks['none0']['file'] == str(odd) and not disks['none0']['ro']
    assert disks['none2']['ro']


def test_snapshot_is_for_all_drives_that_do_not_say_otherwise(vmm, work):
    images = [ferry.make_image(work / f'{n}.raw', SIZE) for n in 'ab']
    vm = vmm('-drive', f'file={images[0]},format=raw,if=none,id=a', '-snapshot',
             '-drive', f'file={images[1]},format=raw,if=none,id=b,snapshot=off')
    for name in 'ab':
        assert 'wrote' in vm.qemu_io(name, 'write -P 7 0 4k')
    vm.quit()
    assert [open(i, 'rb').read(1) for i in images] == [b'\0', b'\7']


def test_a_guessed_raw_disk_never_becomes_another_format_byte_by_byte(vmm, work):
    path = ferry.make_image(work / 'raw', ferry.MIB)
    vm = vmm('-drive', f'if=none,id=d,file={path}')
    refused = ''
    for offset, byte in enumerate(b'QFI\xfb\0\0\0\x03'):
        refused += vm.qemu_io('d', f'write -P {byte} {offset} 1')
    assert 'Operation not permitted' in refused
    for size in (1, 511, 512, 513, 4096):       # all else is written as ever, next to the bytes that are there
        assert 'wrote' in vm.qemu_io('d', f'write -P 9 512 {size}')
    vm.quit()
    assert ferry.qemu_img('info', path).count('file format: raw')


def test_the_name_of_a_file_belongs_to_the_innermost_file(vmm, work):
    ferry.qemu_img('create', '-f', 'qcow2', work / 'd.qcow2', '8M')
    vm = vmm('-drive', f'if=none,id=d,driver=raw,file.driver=qcow2,file={work}/d.qcow2')
    inserted = next(b for b in vm.cmd('query-block') if b['device'] == 'd')['inserted']
    assert inserted['image']['virtual-size'] == 8 * ferry.MIB
    assert inserted['drv'] == 'raw'


def test_a_guessed_raw_format_is_warned_of_and_a_given_one_is_not(vmm, work):
    ferry.make_image(work / 'disk.raw', ferry.MIB)
    guessed = vmm('-drive', f'if=none,id=d,file={work}/disk.raw')
    assert f"The format of '{work}/disk.raw' was not given and was guessed as raw" in guessed.stderr()
    guessed.quit()
    given = vmm('-drive', f'if=none,id=d,file={work}/disk.raw,format=raw')
    assert given.stderr() == ''
