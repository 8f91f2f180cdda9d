# SPDX-License-Identifier: GPL-2.0-or-later
"""Job verbs in every state, and random schedules of them under load with a byte compare at the end."""
import random

import pytest

import ferry

MIB = ferry.MIB
SIZE = 16 * MIB


@pytest.fixture
def pair(vm, work):
    source = ferry.make_image(work / 'source.raw', SIZE, seed=1, data=SIZE // 2)
    target = ferry.make_image(work / 'target.raw', SIZE)
    vm.add_file(source, node_name='disk')
    vm.add_file(target, node_name='copy', discard='unmap')
    return source, target


def start(vm, **args):
    vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full', auto_dismiss=False, **args)


VERBS = {
    'cancel': ('block-job-cancel', {'device': 'm', 'force': True}),
    'pause': ('job-pause', {'id': 'm'}),
    'resume': ('job-resume', {'id': 'm'}),
    'set-speed': ('block-job-set-speed', {'device': 'm', 'speed': 0}),
    'complete': ('job-complete', {'id': 'm'}),
    'finalize': ('job-finalize', {'id': 'm'}),
    'dismiss': ('job-dismiss', {'id': 'm'}),
    'change': ('block-job-change', {'id': 'm', 'type': 'mirror', 'copy-mode': 'background'}),
}

# State: what it accepts (resume of a job that no user paused is refused with its own words).
ACCEPTS = {
    'running': {'cancel', 'pause', 'set-speed', 'change'},
    'paused': {'cancel', 'resume', 'set-speed', 'change'},
    'ready': {'cancel', 'pause', 'set-speed', 'complete', 'change'},
    'standby': {'cancel', 'resume', 'set-speed', 'complete', 'change'},
    'pending': {'cancel', 'finalize'},
    'concluded': {'dismiss'},
}


def bring_to(vm, state):
    start(vm, **({'speed': MIB} if state in ('running', 'paused') else {}), auto_finalize=state != 'pending')
    if state in ('paused', 'running'):
        vm.job_until('m', 'running')
    else:
        vm.wait('BLOCK_JOB_READY')
    if state in ('paused', 'standby'):
        vm.cmd('job-pause', id='m')
    if state in ('pending', 'concluded'):
        vm.cmd('job-complete', id='m')
    vm.job_until('m', state)


@pytest.mark.parametrize('verb', VERBS)
@pytest.mark.parametrize('state', ACCEPTS)
def test_each_state_takes_its_verbs_and_no_others(vm, pair, state, verb):
    bring_to(vm, state)
    command, args = VERBS[verb]
    if verb in ACCEPTS[state]:
        vm.cmd(command, args)
        return
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd(command, args)
    known = {'pause': 'Job is already paused', 'resume': "Can't resume a job that was not paused"}
    assert error.value.desc in (f"Job 'm' in state '{state}' cannot accept command verb '{verb}'", known.get(verb))


def test_verbs_on_no_job_say_so(vm):
    for command, args in VERBS.values():
        with pytest.raises(ferry.QMPError, match='not found') as error:
            vm.cmd(command, args)
        assert error.value.cls == ('DeviceNotActive' if command.startswith('block-job') else 'GenericError')


def test_forced_cancel_before_ready(vm, pair):
    start(vm, speed=MIB)
    vm.cmd('block-job-cancel', device='m')
    event = vm.wait('BLOCK_JOB_CANCELLED')['data']
    assert set(event) == {'type', 'device', 'len', 'offset', 'speed'}
    assert vm.job_until('m', 'concluded') and vm.job('m')['error'] == 'Operation canceled'


def test_progress_grows_as_writes_add_work(vm, pair):
    disk = ferry.nbd_connect(vm.export('disk'))
    start(vm)
    before = vm.wait('BLOCK_JOB_READY')['data']['len']
    disk.pwrite(b'\3' * MIB, 0)
    disk.shutdown()
    vm.cmd('block-job-cancel', device='m')
    after = vm.wait('BLOCK_JOB_COMPLETED')['data']
    assert after['len'] == after['offset'] >= before + MIB


def test_copy_mode_switches_on_and_off(vm, pair):
    disk = ferry.nbd_connect(vm.export('disk'))
    start(vm)
    vm.wait('BLOCK_JOB_READY')
    assert vm.block_job('m')['actively-synced'] is False
    vm.cmd('block-job-change', id='m', type='mirror', copy_mode='write-blocking')
    disk.pwrite(b'\1' * 65536, 0)
    assert vm.block_job('m')['actively-synced'] is True
    offset = vm.block_job('m')['offset']
    disk.pwrite(b'\2' * 65536, 0)
    assert vm.block_job('m')['offset'] == offset     # nothing was left to copy afterwards
    vm.cmd('block-job-change', id='m', type='mirror', copy_mode='background')
    disk.pwrite(b'\3' * 65536, 0)
    assert vm.block_job('m')['actively-synced'] is False
    disk.shutdown()
    vm.cmd('block-job-cancel', device='m')
    vm.wait('BLOCK_JOB_COMPLETED')
    vm.quit()
    ferry.compare(*pair)


def test_quit_with_a_running_job(vm, pair):
    start(vm, speed=MIB)
    vm.quit()


# --- random schedules ---

class Schedule:
    """One mirror under writers, steered at random; always the same for the same seed, but for timing."""

    def __init__(self, vmm, work, seed):
        print(f'schedule seed {seed}')
        self.rng = random.Random(seed)
        self.seed, self.work = seed, work
        self.source = ferry.make_image(work / f'{seed}-source.raw', SIZE, seed=seed, data=SIZE // 2)
        self.target = ferry.make_image(work / f'{seed}-target.raw', SIZE,
                                       **({'seed': seed + 1, 'data': SIZE} if seed % 3 == 0 else {}))
        self.model = ferry.Model(SIZE, self.source)
        self.vm = vmm(name=f'schedule{seed}')
        self.vm.add_file(self.source, node_name='disk', discard='unmap')
        self.vm.add_file(self.target, node_name='copy', discard='unmap')
        self.writers = ferry.run_writers(self.vm.export('disk'), self.model, seed=seed, count=self.rng.choice([1, 2, 4]),
                                         rate=self.rng.choice([4, 16, 64]) * MIB)

    def verb(self):
        """A verb at random; those that its state refuses are part of the schedule."""
        command, args = self.rng.choice([
            ('job-pause', {'id': 'm'}), ('job-resume', {'id': 'm'}), ('job-resume', {'id': 'm'}),
            ('block-job-set-speed', {'device': 'm', 'speed': self.rng.choice([0, 1, 8, 64]) * MIB}),
            ('block-job-change', {'id': 'm', 'type': 'mirror',
                                  'copy-mode': self.rng.choice(['background', 'write-blocking'])})])
        try:
            self.vm.cmd(command, args)
        except ferry.QMPError as error:
            assert 'cannot accept' in error.desc or 'paused' in error.desc

    def run(self):
        vm, rng = self.vm, self.rng
        vm.cmd('blockdev-mirror', job_id='m', device='disk', target='copy', sync='full',
               copy_mode=rng.choice(['background', 'write-blocking']), granularity=rng.choice([4096, 65536, MIB]),
               buf_size=rng.choice([0, 65536, MIB]))
        for _ in range(rng.randrange(2, 12)):
            rng.choice(self.writers).wait_count(rng.randrange(1, 12))
            self.verb()
        end = rng.choice(['complete', 'complete', 'cancel', 'cancel', 'force'])
        if end == 'force':
            vm.cmd('block-job-cancel', device='m', force=True)
            vm.wait('BLOCK_JOB_CANCELLED', device='m')
            return self.check(self.source)
        try:
            vm.cmd('job-resume', id='m')
        except ferry.QMPError as error:
            assert "Can't resume a job that was not paused" in error.desc
        vm.cmd('block-job-set-speed', device='m', speed=0)
        vm.wait('BLOCK_JOB_READY', device='m')
        if end == 'cancel':
            self.stop()                              # its copy is of one point in time: this one
            vm.cmd('block-job-cancel', device='m')
        else:
            vm.cmd('block-job-complete', device='m')
        vm.wait('BLOCK_JOB_COMPLETED', device='m', where=lambda d: 'error' not in d)
        if end == 'complete':
            self.writers[0].wait_count(5)            # they go on, on the copy
            return self.check(self.target)
        return self.check(self.source, self.target)

    def stop(self):
        for writer in self.writers:
            writer.stop()

    def check(self, *images):
        self.stop()
        self.vm.quit()
        for image in images:
            self.model.check(image)
        self.source.unlink()
        self.target.unlink()


@pytest.mark.parametrize('seeds', [range(i, i + 4) for i in range(0, 16, 4)], ids=str)
def test_random_schedules(vmm, work, seeds):
    for seed in seeds:
        Schedule(vmm, work, seed).run()


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.parametrize('seeds', [range(i, i + 20) for i in range(16, 216, 20)], ids=str)
def test_two_hundred_random_schedules(vmm, work, seeds):
    for seed in seeds:
        Schedule(vmm, work, seed).run()
