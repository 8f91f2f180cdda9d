# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever breaks during a migration, the guest is on exactly one side, and can go another time."""
import itertools
import random
import socket
import subprocess

import pytest

import ferry
from ferry import migration as m

numbers = itertools.count()
RAM = 4 * ferry.MIB
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '4M']


class Guest:
    def __init__(self, vmm, work, name, *args, caps=()):
        self.qtest = ferry.QTest(work, f'{name}{next(numbers)}')
        self.vm = vmm(*MACHINE, *self.qtest.args, *args, defaults=False, name=name)
        m.set_caps(self.vm, 'events', *caps)

    def memory(self):
        return self.qtest.read(0, RAM)


@pytest.fixture
def guest(vmm, work):
    return lambda name, *args, **options: Guest(vmm, work, name, *args, **options)


def source_with_data(guest, caps=('return-path',)):
    source = guest('source', caps=caps)
    data = bytearray(RAM)
    rng = random.Random(1)
    for at in range(0, RAM, 16 * m.PAGE):
        data[at:at + 5 * m.PAGE] = rng.randbytes(5 * m.PAGE)
        source.qtest.write(at, data[at:at + 5 * m.PAGE])
    return source, bytes(data)


def go_again(guest, work, source, data, name='again'):
    destination = guest(name, '-incoming', f'unix:{work}/{name}')
    source.vm.cmd('migrate', uri=f'unix:{work}/{name}')
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert destination.memory() == data
    assert m.run_state(source.vm) == 'postmigrate' and m.run_state(destination.vm) == 'running'
    return destination


def check_one_owner(guest, work, source, destination, data, name='again', waits=False):
    """
    Which side has the guest after a failure: never both; then it can go on. waits: the source may have said too little
    to be known as one; then the destination waits for another.
    """
    info = m.wait_over(source.vm)
    if info['status'] == 'completed':
        assert m.wait_over(destination.vm)['status'] == 'completed'
        assert m.run_state(destination.vm) == 'running' and m.run_state(source.vm) == 'postmigrate'
        assert destination.memory() == data
        return 'completed'
    assert info['error-desc']
    assert len(m.error_lines(source.vm)) == 1
    state = m.run_state(source.vm)
    if state == 'postmigrate':      # no verdict came: the destination may have started the guest, or not
        destination.vm.expected = {0, 1}
        try:
            m.wait_status(destination.vm, *m.OVER)
            assert m.run_state(destination.vm) == 'running'
            assert destination.memory() == data
            destination.vm.kill()   # only a user can tell, and only after that take the guest back
        except (ferry.QMPClosed, AssertionError):
            assert destination.vm.wait_exit() == 1
        source.vm.cmd('cont')
    elif waits:
        assert state == 'running'
        destination.vm.expected = {1}
        destination.vm.kill()
    else:
        assert state == 'running'
        destination.vm.expected = {1}
        assert destination.vm.wait_exit() == 1
        assert len(m.error_lines(destination.vm)) == 1, m.error_lines(destination.vm)
        assert 'load of migration failed' in m.error_lines(destination.vm)[0]
    assert source.memory() == data
    go_again(guest, work, source, data, name)
    return state


# Where the connection breaks

STRUCTURES = ['header', 'configuration', 'command', 'start ram', 'blocks', 'page', 'part ram', 'end ram', 'full timer',
              'full globalstate', 'footer', 'eof', 'description', 'end']


@pytest.fixture(scope='module')
def layout(tmp_path_factory):
    """Offsets of the structures of the stream that the source of these tests sends, from a run to a file by hand."""
    return {}


def offsets(layout, guest, work):
    if not layout:
        source, _ = source_with_data(guest)
        sink = m.Sink(work / 'layout')
        source.vm.cmd('migrate', uri=sink.uri)
        assert m.wait_over(source.vm)['status'] == 'completed'
        for at, what in sink.result().marks:
            layout.setdefault(what, []).append(at)
        source.vm.quit()
    return layout


@pytest.mark.parametrize('how', ['cut', 'reset', 'stall'])
@pytest.mark.parametrize('what', STRUCTURES)
def test_the_connection_breaks(guest, work, layout, what, how):
    places = offsets(layout, guest, work)
    at = places[what][-1 if what in ('page', 'part ram', 'footer') else 0]
    if what == 'header':
        at += 4     # with fewer bytes it is not known for a source
    # The verdict cannot come back through a proxy that broke before it; the very end lets it through.
    for inside in (0, 2):
        tag = f'{inside}'
        source, data = source_with_data(guest)
        destination = guest('destination', '-incoming', f'unix:{work}/in{tag}')
        proxy = m.Proxy(work / f'proxy{tag}', work / f'in{tag}', at=at + inside, how=how)
        source.vm.cmd('migrate', uri=proxy.uri)
        if how == 'stall' and what != 'end':
            assert proxy.stalled.wait(60)
            assert m.run_state(destination.vm) == 'inmigrate'
            proxy.release()
        check_one_owner(guest, work, source, destination, data, f'again{tag}')
        source.vm.quit()
        if what == 'end':
            break


@pytest.mark.parametrize('how', ['cut', 'reset'])
@pytest.mark.parametrize('at', [0, 3, 8, 12, 15])
def test_the_return_path_breaks(guest, work, at, how):
    """PONG is bytes 0 to 7, the verdict 8 to 15."""
    source, data = source_with_data(guest)
    destination = guest('destination', '-incoming', f'unix:{work}/in')
    proxy = m.Proxy(work / 'proxy', work / 'in', at=at, how=how, back=True)
    source.vm.cmd('migrate', uri=proxy.uri)
    check_one_owner(guest, work, source, destination, data, waits=at == 0)


@pytest.mark.parametrize('return_path', [True, False])
def test_a_destination_killed_at_any_point(guest, work, return_path):
    seed = 30
    print(f'seed {seed}')
    rng = random.Random(seed)
    source, data = source_with_data(guest, caps=['return-path'] if return_path else [])
    for i in range(8):
        destination = guest(f'destination{i}', '-incoming', f'unix:{work}/in{i}')
        proxy = m.Proxy(work / f'proxy{i}', work / f'in{i}', at=rng.randrange(20, RAM // 4), how='stall')
        source.vm.cmd('migrate', uri=proxy.uri)
        assert proxy.stalled.wait(60)
        destination.vm.kill()
        proxy.release()
        assert m.wait_over(source.vm)['status'] == 'failed'
        assert len(m.error_lines(source.vm)) == i + 1
        assert m.run_state(source.vm) == 'running'
        assert source.memory() == data
    go_again(guest, work, source, data)


def test_a_source_killed_at_any_point(guest, work):
    seed = 31
    print(f'seed {seed}')
    rng = random.Random(seed)
    for i in range(6):
        source, _ = source_with_data(guest)
        destination = guest(f'destination{i}', '-incoming', f'unix:{work}/in{i}')
        proxy = m.Proxy(work / f'proxy{i}', work / f'in{i}', at=rng.randrange(0, RAM // 4), how='stall')
        source.vm.cmd('migrate', uri=proxy.uri)
        assert proxy.stalled.wait(60)
        source.vm.kill()
        proxy.release()
        destination.vm.expected = {1}
        assert destination.vm.wait_exit() == 1
        assert len(m.error_lines(destination.vm)) == 1


# Files

@pytest.fixture
def saved(guest, work):
    source, data = source_with_data(guest, caps=[])
    source.vm.cmd('migrate', uri=f'file:{work}/saved')
    assert m.wait_over(source.vm)['status'] == 'completed'
    source.vm.quit()
    return (work / 'saved').read_bytes(), data


def restore(vmm, path):
    """Loads a file; the process and whether it took it."""
    vm = vmm(*MACHINE, '-incoming', 'defer', defaults=False, name='restore')
    vm.expected = {0, 1}
    try:
        vm.cmd('migrate-incoming', uri=f'file:{path}', exit_on_error=False)
        info = m.wait_over(vm)
    except ferry.QMPError as error:
        return vm, str(error)
    return vm, '' if info['status'] == 'completed' else info['error-desc']


def structures(work, *but):
    """Where the first of each kind begins in the saved file."""
    first = {}
    for at, what in m.read_stream(work / 'saved').marks:
        first.setdefault(what, at)
    return [(at, what) for what, at in first.items() if what not in but]


def test_truncated_files_are_refused(vmm, work, saved):
    stream, _ = saved
    for at, what in structures(work, 'description', 'end'):     # the guest arrives without them
        for cut in {at, at + 1, at + 3} if what != 'eof' else {at}:
            (work / 'cut').write_bytes(stream[:cut])
            vm, error = restore(vmm, work / 'cut')
            assert error, f'{what} at {at}, cut at {cut}'
            assert m.run_state(vm) == 'inmigrate' and len(m.error_lines(vm)) == 1
            vm.quit()


def test_files_that_a_crash_left_full_of_zeroes_are_refused(vmm, work, saved):
    """The byte that ends a stream is a zero, too: what is before it has to be whole."""
    stream, _ = saved
    for at, what in structures(work, 'end'):
        for cut in {at, at + 1} if what != 'description' else {at}:
            (work / 'cut').write_bytes(stream[:cut].ljust(len(stream), b'\0'))
            vm, error = restore(vmm, work / 'cut')
            assert error, f'{what} at {at}, zeroes from {cut} on'
            assert m.run_state(vm) == 'inmigrate'
            vm.quit()


def test_a_bad_file_ends_the_process_with_status_1(vmm, work, saved):
    (work / 'cut').write_bytes(saved[0][:1000])
    vm = vmm(*MACHINE, '-incoming', f'file:{work}/cut', defaults=False, qmp=False)
    vm.expected = {1}
    assert vm.wait_exit() == 1
    assert len(m.error_lines(vm)) == 1 and 'load of migration failed' in vm.stderr()


def test_flipped_bits_never_crash(vmm, work, saved):
    """A flipped bit is refused, or was in what is not checked (bytes of pages, the clock); the process lives."""
    stream, _ = saved
    seed = 40
    print(f'seed {seed}')
    rng = random.Random(seed)
    places = structures(work, 'end')
    refused = 0
    for at, what in places:
        for _ in range(3):
            bad = bytearray(stream)
            byte = at + rng.randrange(min(9, len(bad) - at))
            bad[byte] ^= 1 << rng.randrange(8)
            (work / 'bad').write_bytes(bad)
            vm, error = restore(vmm, work / 'bad')
            refused += bool(error)
            assert m.run_state(vm) == ('inmigrate' if error else m.run_state(vm)), what
            vm.quit()
    assert refused > len(places)


@pytest.fixture(name='small')
def small_fixture(work, need):
    """A file system of 256 KiB. A process that still uses it at the end keeps it; no other sees it any more."""
    need.root()
    folder = work / 'small'
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', str(folder)], check=False,
                          capture_output=True)
    need.that(done.returncode == 0, 'no tmpfs can be mounted')
    yield folder
    subprocess.run(['umount', '-l', str(folder)], check=False)


def test_a_full_disk_leaves_the_guest_here(guest, work, small):
    source, data = source_with_data(guest)
    m.set_caps(source.vm, return_path=False)
    for uri, cause in ((f'file:{small}/saved', 'No space left'), (f'exec:cat > {small}/other', 'status 1')):
        source.vm.cmd('migrate', uri=uri)
        info = m.wait_over(source.vm)
        assert info['status'] == 'failed' and cause in info['error-desc'], info
        assert m.run_state(source.vm) == 'running'
    assert source.memory() == data
    go_again(guest, work, source, data)


def test_a_full_file_system_of_the_destination_leaves_the_guest_here(guest, work, small):
    """Memory that is a file there, and no room for it: an error that says so, and no signal."""
    source, data = source_with_data(guest)
    destination = guest('destination', '-incoming', 'defer', '-machine', 'memory-backend=ram', '-object',
                        f'memory-backend-file,id=ram,size=4M,mem-path={small}/ram,share=on')
    destination.vm.cmd('migrate-incoming', uri=f'unix:{work}/in', exit_on_error=False)
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    info = m.wait_over(destination.vm)
    assert info['status'] == 'failed' and 'No space left' in info['error-desc'], info
    assert m.wait_over(source.vm)['status'] == 'failed'
    assert m.run_state(source.vm) == 'running' and source.memory() == data
    destination.vm.quit()
    go_again(guest, work, source, data)


def test_other_peers_that_connect_do_not_end_the_wait(guest, work):
    """One that goes without a word was no source."""
    destination = guest('destination', '-incoming', 'defer')
    destination.vm.cmd('migrate-incoming', uri=f'unix:{work}/in', exit_on_error=False)
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(f'{work}/in')
    source, data = source_with_data(guest)
    source.vm.cmd('migrate', uri=f'unix:{work}/in')
    assert m.wait_over(source.vm)['status'] == 'completed'
    assert m.wait_over(destination.vm)['status'] == 'completed'
    assert destination.memory() == data
