# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of migration fails: either side dies at every stage of it, or the destination does not fit the guest.
Each time the guest is on exactly one side, and another migration succeeds."""
import os
import random
import subprocess

import pytest

import ferry
from ferry import stock as stock_qemu
from ferry import faults
from ferry import migration as m
from ferry import tls

SLOW = pytest.mark.slow
PAUSE = 'pause-before-switchover'


def tls_args(work):
    folder = work / 'psk'
    if not folder.exists():
        tls.psk_creds(folder, ferry='00112233445566778899aabbccddeeff')
    base = f'tls-creds-psk,id=tls0,dir={folder}'
    return {'source_args': ['-object', f'{base},endpoint=client,username=ferry'],
            'destination_args': ['-object', f'{base},endpoint=server']}


KINDS = {
    'plain': {'caps': ['return-path']},
    'one-way': {'caps': []},
    'xbzrle': {'caps': ['xbzrle', 'return-path']},
    'multifd': {'caps': ['multifd', 'return-path']},
    'multifd-one-way': {'caps': ['multifd']},
    'tls': {'caps': ['return-path'], 'tls': True},
    'tls-multifd': {'caps': ['multifd', 'return-path'], 'tls': True},
    'tcp': {'caps': ['return-path'], 'tcp': True},
}


@pytest.fixture
def mover(vmm, work):
    def start(kind, caps=(), params=None, **options):
        kind = dict(KINDS[kind])
        params = {'max-bandwidth': 0, **(params or {})}
        if kind.pop('tls', False):
            options = {**tls_args(work), **options}
            params['tls-creds'] = 'tls0'
        return faults.Mover(vmm, work, [*kind.pop('caps'), *caps], params=params, **kind, **options)
    return start


# A side dies

class Stage:
    """Brings a migration to a stage of its life, where it stays."""

    def __init__(self, mover, kind):
        self.mover, self.kind = mover, kind
        self.caps = []

    @property
    def source(self):
        return self.mover.source.vm

    def stall(self, link, at, back=False):
        self.channels = self.mover.start({(link, back): (at, 'stall')})
        assert self.channels.stalled.wait(m.LIMIT_S)
        self.channels.wait_known()

    def data_link(self):
        return 1 if 'multifd' in self.kind else faults.MAIN

    def setup(self):
        """In the handshake of TLS, or of a channel."""
        self.stall(self.data_link(), 50)
        m.wait_status(self.source, 'setup', 'active')

    def active(self):
        self.stall(self.data_link(), 50000)
        m.wait_status(self.source, 'active', 'device')

    def pre_switchover(self):
        self.pause(True)
        self.channels = self.mover.start()
        m.wait_status(self.source, 'pre-switchover')

    def device(self):
        """The guest is stopped, its memory is on its way."""
        self.pre_switchover()
        self.mover.source.qtest.write(0, self.mover.data)       # all of it is to be sent once more
        links = (1, 2) if 'multifd' in self.kind else (faults.MAIN,)     # which of them gets how much is chance
        self.channels.hold.update((link, False) for link in links)
        self.source.cmd('migrate-continue', state='pre-switchover')
        assert self.channels.stalled.wait(m.LIMIT_S)
        m.wait_status(self.source, 'device')

    def verdict(self):
        """The guest has arrived, which the source does not hear: nothing comes back to it any more."""
        self.pre_switchover()
        self.channels.hold.add((faults.MAIN, True))
        self.source.cmd('migrate-continue', state='pre-switchover')
        assert self.channels.stalled.wait(m.LIMIT_S)
        assert self.mover.destination_is_over() == 'completed'
        m.wait_status(self.source, 'device')

    def pause(self, on):
        m.set_caps(self.source, **{PAUSE: on})

    def again(self):
        self.pause(False)
        self.source.cmd('migrate-set-parameters', {'avail-switchover-bandwidth': 0, 'downtime-limit': 300})


STAGES = ['setup', 'active', 'pre-switchover', 'device', 'verdict']
IN_CHECK = ('plain', 'multifd', 'tls', 'one-way')


def kinds():
    return [pytest.param(kind, marks=[] if kind in IN_CHECK else SLOW) for kind in KINDS]


def may_have_left(kind, name):
    """The kernel's buffers for TCP may have taken the rest of the guest."""
    return kind == 'tcp' and name in ('active', 'device')


def reach(stage, name):
    getattr(stage, name.replace('-', '_'))()


@pytest.mark.parametrize('kind', kinds())
def test_a_destination_dies(mover, kind):
    """At each stage; the source goes on as before, or, when it cannot know, is stopped and says so."""
    one = mover(kind)
    stage = Stage(one, kind)
    for name in STAGES:
        if name == 'verdict' and 'return-path' not in one.caps:
            continue
        reach(stage, name)
        one.kill_destination()
        stage.channels.drop()
        if name == 'pre-switchover' and 'return-path' not in one.caps:
            one.source.vm.cmd('migrate-continue', state=name)       # no command arrives until then
        maybe = {'unknown'} if may_have_left(kind, name) else set()
        assert one.outcome() in maybe | {'unknown' if name == 'verdict' else 'here'}, name
        stage.again()
    one.finish()


@pytest.mark.parametrize('kind', kinds())
def test_a_source_dies(mover, kind):
    """At each stage; a destination that has not got everything fails, and waits for another source."""
    one = mover(kind)
    for name in STAGES:
        if name == 'verdict' and 'return-path' not in one.caps:
            continue
        stage = Stage(one, kind)
        reach(stage, name)
        one.source.vm.kill()
        stage.channels.drop()
        if name == 'verdict':
            assert one.destination_is_over() == 'completed'
            assert m.run_state(one.destination.vm) == 'running' and one.destination.memory() == one.data
            one.destination.vm.quit()
            one.destination = None
        else:
            one.destination_failed('tls' in kind, [])
        one.new_source()
    one.finish()


@pytest.mark.parametrize('kind', kinds())
def test_a_destination_that_only_hangs(mover, kind):
    """SIGSTOP, and the user cancels: the guest is here again at once. The destination fails when it wakes."""
    one = mover(kind)
    stage = Stage(one, kind)
    for name in STAGES[1:4]:
        reach(stage, name)
        one.destination.vm.process.send_signal(19)
        one.source.vm.cmd('migrate_cancel')
        assert m.wait_over(one.source.vm)['status'] == 'cancelled'
        left = may_have_left(kind, name) and m.run_state(one.source.vm) == 'postmigrate'
        assert left or m.run_state(one.source.vm) == 'running'
        one.destination.vm.process.send_signal(18)
        stage.channels.drop()
        assert one.outcome() == ('unknown' if left else 'here'), name
        stage.again()
    one.finish()


# XBZRLE: later passes

@pytest.mark.parametrize('how', ['cut', 'reset', 'kill'])
@pytest.mark.parametrize('return_path', [True, False])
def test_differences_break(mover, return_path, how):
    """The stream stands still in the first pass, in the second, which has whole pages, and then among differences."""
    one = mover('xbzrle', params={'downtime-limit': 0})
    if not return_path:
        m.set_caps(one.source.vm, return_path=False)
        one.caps = ('xbzrle',)
    data = bytearray(one.data)

    def rewrite(count, seed):
        """1500 bytes of each of so many pages: too much for what the sockets hold."""
        rng = random.Random(seed)
        for at in range(0, count * m.PAGE, m.PAGE):
            data[at:at + 1500] = rng.randbytes(1500)
            one.source.qtest.write(at, data[at:at + 1500])
    first = faults.RAM + faults.RAM // m.PAGE * 8
    channels = one.start({(faults.MAIN, False): [(first // 2, 'stall'), (first + 800000, 'stall'), (first + 1300000, 'stall')]})
    for i in range(2):
        assert channels.stalled.wait(m.LIMIT_S)
        rewrite(300 if i == 0 else 250, 50 + i)
        channels.release()
    assert channels.stalled.wait(m.LIMIT_S)
    assert one.source.vm.cmd('query-migrate')['xbzrle-cache']['pages'] > 0
    one.data = bytes(data)
    if how == 'kill':
        one.kill_destination()
        channels.drop()
    else:
        channels.drop(how)
    assert one.outcome() in ('here', 'unknown')
    one.source.vm.cmd('migrate-set-parameters', {'downtime-limit': 300})
    one.finish()


# Programs

def fails_by_program(one, command, cause):
    one.source.vm.cmd('migrate', uri=f'exec:{command}')
    assert one.outcome(source_causes=[cause]) in ('here', 'unknown')
    one.destination = None


def test_programs_that_end_early(mover):
    one = mover('one-way')
    for command, cause in (('exit 3', 'status 3'), ('head -c 100000 > /dev/null', 'status 0'), ('head -c 1 >/dev/null; exit 7', 'status 7'),
                           ('cat > /dev/null; exit 5', 'status 5'), ('cat > /dev/null; kill -9 $$', 'signal 9'),
                           ('no-such-program', 'status 127')):
        fails_by_program(one, command, cause)
    one.finish()


@pytest.mark.parametrize('command, cause', [
    ('true', 'Unexpected end'), ('head -c 5000 {}', 'Unexpected end'), ('cat {}; exit 3', None),
    ('exit 4', 'Unexpected end'), ('kill -9 $$', 'Unexpected end')])
def test_programs_that_bring_too_little(mover, vmm, work, command, cause):
    """How a program ends is not looked at when the guest is complete: it has arrived."""
    one = mover('one-way')
    saved = work / 'saved'
    one.source.vm.cmd('migrate', uri=f'file:{saved}')
    assert m.wait_over(one.source.vm)['status'] == 'completed'
    one.new_destination()
    vm = one.destination.vm
    vm.cmd('migrate-incoming', {'uri': f'exec:{command.format(saved)}', 'exit-on-error': False})
    status = one.destination_is_over()
    if cause is None:
        assert status == 'completed' and one.destination.memory() == one.data
        return
    assert status == 'failed' and m.run_state(vm) == 'inmigrate'
    lines = one.destination.new_errors()
    assert len(lines) == 1 and cause in lines[0]
    vm.cmd('migrate-incoming', {'uri': f'exec:cat {saved}', 'exit-on-error': False})
    assert one.destination_is_over() == 'completed' and one.destination.memory() == one.data


def test_a_program_between_is_killed(mover, work):
    """The pipe to the destination breaks in the middle."""
    one = mover('one-way', params={'max-bandwidth': 8 * ferry.MIB, 'downtime-limit': 50})
    one.new_destination()
    os.mkfifo(work / 'pipe')
    one.destination.vm.cmd('migrate-incoming', {'uri': f'exec:cat {work}/pipe', 'exit-on-error': False})
    one.source.vm.cmd('migrate', uri=f'exec:exec > {work}/pipe; echo $$ > {work}/new; mv {work}/new {work}/pid; exec cat')
    guard = ferry.Guard(m.LIMIT_S)
    while not (work / 'pid').exists():      # it has opened the pipe, too
        guard.left()
    while m.wait_status(one.source.vm, 'setup', 'active').get('ram', {}).get('normal', 0) < 20:
        guard.left()
    os.kill(int((work / 'pid').read_text()), 9)
    assert one.outcome(destination_causes=['Unexpected end']) == 'here'
    one.finish()


# A destination that is another one

def refused(one, *causes):
    """By a real destination, whatever the stream is changed into on its way; twice."""
    for _ in range(2):
        one.start()
        assert one.outcome(destination_causes=causes) == 'here'


def places(one):
    """Offsets of the structures of this guest's stream, and the stream."""
    one.start()
    assert one.outcome() == 'there'
    stream = bytes(one.channels.links[faults.MAIN].record)
    return stream


@pytest.mark.parametrize('kind', ['plain', 'one-way', 'multifd', 'tls'])
def test_other_memory_is_refused(mover, vmm, kind):
    one = mover(kind)
    small = ['-m', '8M']
    one.destination_args = [*one.destination_args, *small]
    refused(one, 'Size mismatch')
    one.destination.vm.quit()
    one.destination, one.destination_args = None, one.destination_args[:-2]
    one.finish()


@pytest.mark.parametrize('kind', ['plain', 'multifd'])
def test_a_block_of_another_name_is_refused(mover, kind):
    def backend(name):
        return ['-object', f'memory-backend-ram,id={name},size={faults.RAM}', '-machine', f'memory-backend={name}']
    one = mover(kind, source_args=backend('here'), destination_args=backend('there'))
    refused(one, 'Unknown ramblock "here"')
    one.destination.vm.quit()
    one.destination, one.destination_args = None, backend('here')
    one.finish()


EDITS = {   # what is looked for in the stream, what stands there instead, and what the destination says
    'machine': (b'\x00\x00\x00\x04none', b'\x00\x00\x00\x04nonx', "Machine type received is 'nonx' and local is 'none'"),
    'newer-section': (b'\x05timer' + m.be32(0) + m.be32(2), b'\x05timer' + m.be32(0) + m.be32(3), "unsupported version 3 for 'timer' v2"),
    'newer-ram': (b'\x03ram' + m.be32(0) + m.be32(4), b'\x03ram' + m.be32(0) + m.be32(5), "unsupported version 5 for 'ram' v4"),
    'unknown-section': (b'\x05timer' + m.be32(0), b'\x05toner' + m.be32(0), "section or instance 'toner' 0"),
    'unknown-instance': (b'\x05timer' + m.be32(0), b'\x05timer' + m.be32(1), "section or instance 'timer' 1"),
    'unknown-block': (b'\x03ram' + m.be64(faults.RAM), b'\x03rom' + m.be64(faults.RAM), 'Unknown ramblock "rom"'),
    'unknown-command': (b'\x08\x00\x02\x00\x04', b'\x08\x00\x63\x00\x04', 'MIG_CMD 0x63 unknown'),
    'run-state': (b'running\0', b'runninX\0', 'runninX'),
}


@pytest.mark.parametrize('what', EDITS)
def test_what_is_unknown_is_refused(mover, what):
    """The source and the destination are real; between them the stream becomes that of another source."""
    one = mover('plain')
    stream = places(one)
    old, new, cause = EDITS[what]
    at = stream.index(old)
    for _ in range(2):
        one.start(edit={faults.MAIN: [(at, new)]})
        assert one.outcome(destination_causes=[cause]) == 'here'
    one.finish()


def test_an_unknown_capability_is_refused(mover):
    """x-ignore-shared travels in the configuration: that name, or another one."""
    one = mover('plain', ['x-ignore-shared'])
    stream = places(one)
    at = stream.index(b'x-ignore-shared')
    one.start(edit={faults.MAIN: [(at, b'x-ignore-shores')]})
    assert one.outcome(destination_causes=['Received unknown capability x-ignore-shores']) == 'here'
    m.set_caps(one.destination.vm, x_ignore_shared=False)
    refused(one, 'Capability x-ignore-shared is off, but received capability is on')
    m.set_caps(one.destination.vm, 'x-ignore-shared')
    one.finish()


@pytest.mark.parametrize('kind', ['plain', 'one-way', 'tls'])
def test_another_uuid_is_refused(mover, kind):
    uuids = ['-uuid', '11223344-5566-7788-99aa-bbccddeeff00'], ['-uuid', '99999999-5566-7788-99aa-bbccddeeff00']
    one = mover(kind, ['validate-uuid'])
    own = {'source_args': list(one.source_args), 'destination_args': list(one.destination_args)}
    one.source.vm.quit()
    one.source_args, one.destination_args = own['source_args'] + uuids[0], own['destination_args'] + uuids[1]
    one.new_source()
    refused(one, 'UUID')
    one.destination.vm.quit()
    one.destination, one.destination_args = None, own['destination_args'] + uuids[0]
    one.finish()


def test_only_migratable_lets_a_guest_go(mover):
    """Nothing of machine `none` keeps a guest here, so the switch forbids nothing."""
    one = mover('plain', source_args=['-only-migratable'], destination_args=['-only-migratable'])
    assert 'blocked-reasons' not in one.source.vm.cmd('query-migrate')
    one.finish()


def test_stock_of_another_machine_is_refused_and_refuses(mover, vmm, work, need):
    need.that(stock_qemu.distribution(), 'no stock QEMU here')
    stock = [*stock_qemu.distribution(), '-machine', 'isapc,accel=tcg', '-display', 'none', '-nodefaults', '-m', '4M', '-S']
    one = mover('plain')
    theirs = vmm('-incoming', f'unix:{work}/theirs', command=stock, defaults=False, name='stock')
    theirs.expected = {0, 1}
    one.source.vm.cmd('migrate', uri=f'unix:{work}/theirs')
    assert one.outcome() == 'here'
    assert theirs.wait_exit() == 1
    theirs = vmm(command=stock, defaults=False, name='stock')
    where = one.listen()
    theirs.cmd('migrate', uri=f'unix:{where}')
    one.destination_failed(False, ["Machine type received is 'isapc' and local is 'none'"])
    theirs.quit()
    one.finish()


def test_a_full_disk_in_the_middle(mover, work, need):
    """file: and exec: to a disk that fills up, without the capability that needs a way back."""
    need.root()
    small = work / 'small'
    small.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', str(small)], check=False, capture_output=True)
    need.that(done.returncode == 0, 'no tmpfs can be mounted')
    try:
        one = mover('one-way')
        for uri in (f'file:{small}/a', f'file:{small}/a,offset=4096', f'exec:cat > {small}/b'):
            one.source.vm.cmd('migrate', uri=uri)
            assert one.outcome() == 'here'
            for path in small.iterdir():
                path.unlink()
        one.finish()
    finally:
        subprocess.run(['umount', str(small)], check=False)
