# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory: what -m and memory backends make, and what QMP and HMP tell of it, compared with stock QEMU."""
import os
import random

import pytest

import ferry
from ferry import MIB

STOCK = '/usr/bin/qemu-system-x86_64'


def memdevs(vm):
    return sorted((sorted(dev.items(), key=str) for dev in vm.cmd('query-memdev')), key=str)


def facts(vm):
    """What a program can see of the memory."""
    return {
        'ramblock': vm.cmd('x-query-ramblock')['human-readable-text'],
        'hmp ramblock': vm.hmp('info ramblock'),
        'memdev': memdevs(vm),
        'summary': vm.cmd('query-memory-size-summary'),
        'hmp summary': vm.hmp('info memory_size_summary'),
        'mtree': sorted(vm.hmp('info mtree').split('address-space: ')),
        'owners': sorted(line for flags in ('-o', '-f -o') for line in vm.hmp(f'info mtree {flags}').splitlines()
                         if 'owner:' in line),
        'flat': sorted(part.split('\n', 1)[1] for part in vm.hmp('info mtree -f').split('FlatView ')[1:]),
    }


@pytest.mark.parametrize('args', [
    [],
    ['-m', '0'],
    ['-m', '1'],
    ['-m', '64M'],
    ['-m', 'size=5000k'],
    ['-m', '64,slots=2,maxmem=1G'],
    ['-m', '64M', '-mem-prealloc'],
    ['-m', '64M', '-machine', 'none,mem-merge=off,dump-guest-core=off'],
    ['-m', '64M', '-mem-path', '{work}'],
    ['-m', '64M', '-mem-path', '{work}/file'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-ram,id=m0,size=32M'],
    ['-machine', 'none,memory-backend=m0', '-m', '32M', '-object', 'memory-backend-ram,id=m0,size=32M,share=on'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-memfd,id=m0,size=32M'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-memfd,id=m0,size=32M,share=off,seal=off'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-file,id=m0,size=8M,mem-path={work}/f,share=on'],
    ['-machine', 'none,memory-backend=m0', '-object',
     'memory-backend-file,id=m0,size=8M,mem-path={work}/f,share=off,prealloc=on,discard-data=on'],
    ['-machine', 'none,memory-backend=m0', '-object',
     'memory-backend-ram,id=m0,size=8M,prealloc=on,prealloc-threads=3,merge=off,dump=off'],
    ['-machine', 'none,memory-backend=m0', '-object',
     'memory-backend-ram,id=m0,size=8M,x-use-canonical-path-for-ramblock-id=on'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-ram,id=m0,size=8M,reserve=off'],
    ['-machine', 'none,memory-backend=m0', '-object', 'memory-backend-ram,id=m0,size=8M,host-nodes=0,policy=bind'],
    ['-machine', 'none,memory-backend=m0', '-object',
     '{{"qom-type":"memory-backend-ram","id":"m0","size":8388608,"host-nodes":[0],"policy":"preferred"}}'],
    ['-object', 'memory-backend-ram,id=m0,size=4097'],
], ids=lambda args: ' '.join(args)[:60] or 'nothing')
def test_memory_looks_as_in_stock_qemu(vmm, need, work, args):
    need.tool(STOCK)
    args = [arg.format(work=work) for arg in args]
    ours = facts(vmm(*args))
    theirs = facts(vmm(*args, command=[STOCK]))
    assert ours == theirs


def free_huge_pages():
    with open('/proc/meminfo', encoding='ascii') as file:
        sizes = {line.split(':')[0]: int(line.split()[1]) for line in file}
    return sizes.get('HugePages_Free', 0) if sizes.get('Hugepagesize') == 2048 else 0


@pytest.mark.parametrize('options', ['size=4M', 'size=4M,hugetlbsize=2M,prealloc=on', 'size=4M,share=off'])
def test_huge_pages(vmm, need, options):
    need.tool(STOCK)
    need.that(free_huge_pages() >= 4, 'the host has no free huge pages of 2 MiB')
    args = ['-machine', 'none,memory-backend=m0', '-object', f'memory-backend-memfd,id=m0,hugetlb=on,{options}']
    ours = vmm(*args)
    assert '2 MiB' in ours.hmp('info ramblock')
    text = facts(ours)
    ours.quit()
    assert text == facts(vmm(*args, command=[STOCK]))


def test_huge_pages_that_are_not_there(vmm, need):
    need.that(free_huge_pages() < 1 << 20, 'the host has huge pages without end')
    with pytest.raises(RuntimeError, match="cannot (set up|preallocate).*'m'.*Cannot allocate memory"):
        vmm('-object', 'memory-backend-memfd,id=m,size=2T,hugetlb=on')


def test_several_backends_are_listed_largest_first(vmm, need, work):
    need.tool(STOCK)
    args = ['-object', 'memory-backend-ram,id=m0,size=8M', '-object', 'memory-backend-memfd,id=m1,size=32M',
            '-object', f'memory-backend-file,id=m2,mem-path={work}/f,size=16M,share=on',
            '-machine', 'none,memory-backend=m2']
    ours, theirs = vmm(*args), vmm(*args, command=[STOCK])

    def block_lines(vm):
        lines = vm.cmd('x-query-ramblock')['human-readable-text'].splitlines()
        return [[word for i, word in enumerate(line.split()) if not word.startswith('0x') or i == len(line.split()) - 1]
                for line in lines]

    # Where blocks lie among each other depends on the order in which objects are made.
    assert block_lines(ours) == block_lines(theirs)
    assert memdevs(ours) == memdevs(theirs)


@pytest.mark.parametrize('args, message', [
    (['-m', '64M', '-machine', 'none,memory-backend=m', '-object', 'memory-backend-ram,id=m,size=32M'],
     'does not match the size of the memory backend'),
    (['-machine', 'none,memory-backend=mm'], "Memory backend 'mm' not found"),
    (['-m', '64M,slots=2'], 'slots specified but no max-size'),
    (['-m', '64M,maxmem=32M'], 'maximum memory size (0x2000000) must be at least the initial memory size (0x4000000)'),
    (['-m', '64X'], 'size'),
    (['-m', '1000T'], "cannot set up guest memory 'ram' of 0.977 PiB: Cannot allocate memory"),
    (['-m', '7E'], "cannot set up guest memory 'ram' of 7 EiB"),
    (['-object', 'memory-backend-ram,id=m,size=0'], "property 'size' of memory-backend-ram doesn't take value '0'"),
    (['-object', 'memory-backend-ram,id=m'], "Parameter 'size' is missing"),
    (['-object', 'memory-backend-ram,id=m,size=18446744073709551615'], 'cannot set up guest memory'),
    (['-object', 'memory-backend-file,id=m,size=4M'], "Parameter 'mem-path' is missing"),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path=/nonexistent/x'],
     "can't open backing store /nonexistent/x for guest RAM: No such file or directory"),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path={work}/x,readonly=on'], 'No such file'),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path={work}/x,align=3'], 'must be multiples of page size 0x1000'),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path={work}/x,offset=1'], 'must be multiples of page size 0x1000'),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path={work}/x,pmem=on'], 'persistent memory is not supported'),
    (['-object', 'memory-backend-file,id=m,size=4M,mem-path={work}/small'],
     "backing store size 0x100000 does not match 'size' option 0x400000"),
    (['-object', 'memory-backend-file,id=m,size=18446744073709551615,mem-path={work}/x'], 'too large'),
    (['-object', 'memory-backend-file,id=m,size=1M,mem-path={work}/small,rom=on'], "'rom' = 'on' is not supported"),
    (['-object', 'memory-backend-memfd,id=m,size=4M,hugetlb=on,hugetlbsize=3M'], 'Hugepage size must be a power of 2'),
    (['-object', 'memory-backend-memfd,id=m,size=1000000T'], 'm'),
    (['-object', 'memory-backend-ram,id=m,size=4M,policy=bind'], 'host-nodes must be set for policy bind'),
    (['-object', 'memory-backend-ram,id=m,size=4M,host-nodes=0'], 'host-nodes needs a policy'),
    (['-object', 'memory-backend-ram,id=m,size=4M,host-nodes=100,policy=bind'], 'cannot bind memory'),
    (['-object', 'memory-backend-ram,id=m,size=4M,host-nodes=5000,policy=bind'], 'host-nodes'),
    (['-object', 'memory-backend-ram,id=m,size=4M,prealloc=on,prealloc-threads=0'], "doesn't take value '0'"),
    (['-object', 'memory-backend-ram,id=m,size=4M,prealloc=on,reserve=off'], 'are incompatible'),
])
def test_bad_memory_is_refused(vmm, work, args, message):
    (work / 'small').write_bytes(bytes(MIB))
    with pytest.raises(RuntimeError) as failure:
        vmm(*[arg.format(work=work) for arg in args])
    assert message in str(failure.value)
    assert not (work / 'x').exists()        # a file that was made for nothing is gone


def test_backends_come_and_go_at_run_time(vm, work):
    vm.cmd('object-add', {'qom-type': 'memory-backend-ram', 'id': 'm', 'size': 8 * MIB, 'prealloc': True})
    assert [dev['id'] for dev in vm.cmd('query-memdev')] == ['m']
    assert vm.cmd('qom-get', path='/objects/m', property='merge') is True
    vm.cmd('qom-set', path='/objects/m', property='merge', value=False)
    vm.cmd('qom-set', path='/objects/m', property='dump', value=False)
    assert vm.cmd('qom-get', path='/objects/m', property='merge') is False
    with pytest.raises(ferry.QMPError, match='cannot change property size of memory-backend-ram'):
        vm.cmd('qom-set', path='/objects/m', property='size', value=4096)
    with pytest.raises(ferry.QMPError, match='expected: boolean'):
        vm.cmd('qom-set', path='/objects/m', property='merge', value=3)
    vm.cmd('object-del', id='m')
    assert not vm.cmd('query-memdev')
    assert len(vm.cmd('x-query-ramblock')['human-readable-text'].splitlines()) == 1
    with pytest.raises(ferry.QMPError, match='backing store'):
        vm.cmd('object-add', {'qom-type': 'memory-backend-file', 'id': 'm', 'size': MIB, 'mem-path': '/nonexistent/x'})
    vm.cmd('object-add', {'qom-type': 'memory-backend-file', 'id': 'm', 'size': MIB, 'mem-path': str(work / 'new')})
    assert os.path.getsize(work / 'new') == MIB


def test_preallocation_takes_the_memory_with_any_number_of_threads(vm):
    for number, threads in enumerate((1, 3, 100000)):
        vm.cmd('object-add', {'qom-type': 'memory-backend-ram', 'id': f'm{number}', 'size': 32 * MIB, 'prealloc': True,
                              'prealloc-threads': threads})
    with open(f'/proc/{vm.process.pid}/statm', encoding='ascii') as file:
        assert int(file.read().split()[1]) * 4096 > 96 * MIB


def test_memory_in_use_is_not_deleted(vmm):
    vm = vmm('-m', '8M')
    with pytest.raises(ferry.QMPError, match='in use'):
        vm.cmd('object-del', id='ram')
    vm.quit()


def machine_with(vmm, work, *args):
    qtest = ferry.QTest(work)
    vm = vmm(*args, *qtest.args)
    qtest.accept()
    return vm, qtest


@pytest.mark.parametrize('args', [
    ['-m', '16M'],
    ['-machine', 'none,memory-backend=m', '-object', 'memory-backend-ram,id=m,size=16M,share=on'],
    ['-machine', 'none,memory-backend=m', '-object', 'memory-backend-memfd,id=m,size=16M'],
    ['-machine', 'none,memory-backend=m', '-object', 'memory-backend-file,id=m,size=16M,mem-path={work}/f,share=on'],
    ['-machine', 'none,memory-backend=m', '-object', 'memory-backend-file,id=m,size=16M,mem-path={work}/f,share=off'],
], ids=['ram', 'shared', 'memfd', 'file', 'private-file'])
def test_what_the_guest_writes_is_in_the_dump(vmm, work, args):
    vm, qtest = machine_with(vmm, work, *[arg.format(work=work) for arg in args])
    rand = random.Random(5)
    model = bytearray(16 * MIB)
    for _ in range(30):
        at, size = rand.randrange(16 * MIB), rand.randrange(1, 70000)
        size = min(size, 16 * MIB - at)
        if rand.random() < 0.5:
            data = rand.randbytes(size)
            qtest.write(at, data)
            model[at:at + size] = data
        else:
            qtest.memset(at, size, 0xa5)
            model[at:at + size] = b'\xa5' * size
    assert qtest.read(0, 16 * MIB) == model
    vm.cmd('pmemsave', val=0, size=16 * MIB, filename=str(work / 'dump'))
    assert (work / 'dump').read_bytes() == model
    vm.hmp(f'pmemsave 0x1001 4097 {work}/part')
    assert (work / 'part').read_bytes() == model[0x1001:0x1001 + 4097]
    # Behind the end there is nothing, which reads as zeroes.
    vm.cmd('pmemsave', val=16 * MIB - 100, size=5000, filename=str(work / 'end'))
    assert (work / 'end').read_bytes() == model[-100:] + bytes(4900)
    if 'share=on' in args[-1] and (work / 'f').exists():
        assert (work / 'f').read_bytes() == model
    elif (work / 'f').exists():
        assert not any((work / 'f').read_bytes())


@pytest.mark.parametrize('rom', [True, False])
def test_readonly_files_are_rom_or_copied(vmm, work, rom):
    (work / 'f').write_bytes(b'firmware' * (MIB // 8))
    vm, qtest = machine_with(vmm, work, '-machine', 'none,memory-backend=m', '-object',
                             f'memory-backend-file,id=m,size=1M,mem-path={work}/f,readonly=on' + ('' if rom else ',rom=off'))
    assert f'{"rom" if rom else "ram"}): m' in vm.hmp('info mtree')
    qtest.write(0, b'x' * 8)
    assert qtest.read(0, 8) == (b'firmware' if rom else b'x' * 8)
    qtest.memset(0, MIB, 1)
    assert qtest.read(8, 1) == (b'f' if rom else bytes([1]))
    assert (work / 'f').read_bytes() == b'firmware' * (MIB // 8)


def test_offset_into_a_file(vmm, work):
    (work / 'f').write_bytes(bytes(8192) + b'here' + bytes(MIB - 4))
    _vm, qtest = machine_with(vmm, work, '-machine', 'none,memory-backend=m', '-object',
                              f'memory-backend-file,id=m,size=1M,mem-path={work}/f,offset=8192,share=on')
    assert qtest.read(0, 4) == b'here'
    qtest.write(4096, b'there')
    assert (work / 'f').read_bytes()[12288:12293] == b'there'


def test_dumps_that_fail_say_why(vm, work):
    with pytest.raises(ferry.QMPError, match="Could not open '/nonexistent/o': No such file or directory"):
        vm.cmd('pmemsave', val=0, size=4096, filename='/nonexistent/o')
    with pytest.raises(ferry.QMPError, match='No space left'):
        vm.cmd('pmemsave', val=0, size=4096, filename='/dev/full')
    with pytest.raises(ferry.QMPError, match='expects a CPU number'):
        vm.cmd('memsave', val=0, size=4096, filename=str(work / 'o'))
    assert not os.path.exists(work / 'o')


@pytest.mark.parametrize('line', [
    'xp /4xw 0', 'xp /20xb 0x3ffff8', 'xp /3dh 0x10', 'xp /2ow 0x1000', 'xp /3uw 0x1000', 'xp /2xg 0x1000', 'xp 0',
    'xp /2xw 0x10000000', 'xp /zz 0', 'x /2xw 0', 'xp /3db 0x1000',
])
def test_xp_prints_what_stock_qemu_prints(vmm, need, work, line):
    need.tool(STOCK)
    content = work / 'f'
    content.write_bytes(bytes(4096) + bytes(range(256)) * 16 + bytes(4 * MIB - 8192))
    args = ['-machine', 'none,memory-backend=m', '-object', f'memory-backend-file,id=m,size=4M,mem-path={content}']
    ours, theirs = vmm(*args).hmp(line), vmm(*args, command=[STOCK]).hmp(line)
    assert ours.splitlines()[0] == theirs.splitlines()[0]
    if 'invalid' not in theirs:
        assert ours == theirs


def test_untouched_memory_costs_nothing(vmm):
    """Neither a huge guest nor looking at it takes memory of the host."""
    vm = vmm('-machine', 'none,memory-backend=m', '-object', 'memory-backend-ram,id=m,size=4096G,reserve=off')
    vm.hmp('info mtree -f')
    vm.cmd('x-query-ramblock')
    with open(f'/proc/{vm.process.pid}/statm', encoding='ascii') as file:
        resident = int(file.read().split()[1]) * 4096
    assert resident < 300 * MIB
    assert vm.cmd('query-memory-size-summary')['base-memory'] == 4096 << 30
