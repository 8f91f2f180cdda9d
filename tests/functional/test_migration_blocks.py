# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory of other kinds than usual moves as well: large pages at either side or both, and memory that is read only."""
import contextlib
from pathlib import Path

import pytest

import ferry
from ferry import faults
from ferry import migration as m

WAYS = [['return-path'], ['return-path', 'multifd'], ['return-path', 'xbzrle']]


@contextlib.contextmanager
def hugepages(need, count):
    """So many pages of 2 MiB that are free, for the test alone; what was reserved before stays so."""
    need.root()
    sizes = Path('/sys/kernel/mm/hugepages/hugepages-2048kB')
    need.that(sizes.exists(), 'there are no large pages of 2 MiB')
    before = int((sizes / 'nr_hugepages').read_text())
    free = int((sizes / 'free_hugepages').read_text())
    try:
        if free < count:
            with contextlib.suppress(OSError):
                (sizes / 'nr_hugepages').write_text(str(before + count - free))
        need.that(int((sizes / 'free_hugepages').read_text()) >= count, 'the kernel has no large pages to reserve')
        yield
    finally:
        if free < count:
            with contextlib.suppress(OSError):
                (sizes / 'nr_hugepages').write_text(str(before))


def memory(kind, work):
    """Arguments for a guest's memory under one name."""
    backend = {'huge': 'memory-backend-memfd,hugetlb=on,hugetlbsize=2M', 'huge-private': 'memory-backend-memfd,hugetlb=on,share=off',
               'usual': 'memory-backend-ram', 'file': f'memory-backend-file,share=on,mem-path={work}/memory'}[kind]
    return ['-object', f'{backend},id=pc.ram,size={faults.RAM}', '-machine', 'memory-backend=pc.ram']


@pytest.mark.parametrize('caps', WAYS, ids=['plain', 'multifd', 'xbzrle'])
@pytest.mark.parametrize('here, there', [('huge', 'huge'), ('huge', 'usual'), ('usual', 'huge'), ('huge-private', 'file')])
def test_large_pages(vmm, work, need, here, there, caps):
    """And what a destination fails at half way is forgotten, so that the next guest is not mixed with it."""
    with hugepages(need, 2 * faults.RAM // (2 * ferry.MIB)):
        one = faults.Mover(vmm, work, caps, params={'max-bandwidth': 0}, source_args=memory(here, work),
                           destination_args=memory(there, work))
        one.data = bytes(faults.RAM // 2) + one.data[faults.RAM // 2:faults.RAM - m.PAGE] + bytes(m.PAGE)
        one.source.qtest.write(0, one.data)
        one.start({(faults.MAIN, False): (60, 'cut')})
        assert one.outcome() == 'here'
        one.finish()
        for side in (one.source, one.destination):
            side.vm.quit()


def rom(path):
    return ['-object', f'memory-backend-file,id=rom,size={faults.RAM},mem-path={path},readonly=on', '-machine', 'memory-backend=rom']


class RomMover(faults.Mover):
    """The guest's memory is a file that no process can write to."""

    def __init__(self, vmm, work, content, caps, **options):
        self.content = content
        super().__init__(vmm, work, caps, **options)

    def new_source(self):
        super().new_source()        # what it writes there is ignored, as a guest's writes would be
        self.data = self.content


@pytest.mark.parametrize('caps', [['return-path'], ['return-path', 'multifd']], ids=['plain', 'multifd'])
def test_read_only_memory_must_be_the_same(vmm, work, caps):
    content = b'firmware' * (faults.RAM // 16) + bytes(faults.RAM // 2)
    (work / 'here').write_bytes(content)
    (work / 'there').write_bytes(content)
    (work / 'other').write_bytes(b'Firmware' + content[8:])
    one = RomMover(vmm, work, content, caps, params={'max-bandwidth': 0}, source_args=rom(work / 'here'),
                   destination_args=rom(work / 'other'))
    for _ in range(2):
        one.start()
        assert one.outcome(destination_causes=['rom']) == 'here'
    one.destination.vm.quit()
    one.destination, one.destination_args = None, rom(work / 'there')
    one.finish()
    assert (work / 'there').read_bytes() == content
