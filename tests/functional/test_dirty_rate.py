# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast memory changes is measured without disturbing the guest, or its untouched memory."""
import itertools

import pytest

import ferry
from ferry import MIB


@pytest.fixture
def guest(vmm, work):
    """A guest of 64 MiB and the test that plays it."""
    qtest = ferry.QTest(work)
    vm = vmm('-m', '64M', *qtest.args)
    qtest.accept()
    yield vm, qtest
    qtest.close()


def measure(vm, during=lambda: None, **args):
    """Measures for 100 ms, or longer where that is asked for; calls `during` again and again meanwhile."""
    vm.cmd('calc-dirty-rate', **{'calc_time': 100, 'calc_time_unit': 'millisecond', **args})
    while True:
        during()
        info = vm.cmd('query-dirty-rate', calc_time_unit='millisecond')
        if info['status'] != 'measuring':
            return info


def test_before_the_first(vm):
    assert vm.cmd('query-dirty-rate') == {
        'status': 'unstarted', 'start-time': 0, 'calc-time': 0, 'calc-time-unit': 'second', 'sample-pages': 0,
        'mode': 'page-sampling'}


@pytest.mark.parametrize('mode', ['page-sampling', 'dirty-bitmap'])
def test_idle_guest_changes_nothing(guest, mode):
    vm, qtest = guest
    qtest.raw('memset 0 0x1000000 7')
    info = measure(vm, mode=mode)
    assert info['status'] == 'measured' and info['dirty-rate'] == 0
    assert info['mode'] == mode and info['calc-time'] == 100


@pytest.mark.parametrize('mode', ['page-sampling', 'dirty-bitmap'])
def test_rewriting_guest_is_seen(guest, mode):
    vm, qtest = guest
    values = itertools.cycle(range(1, 250))
    info = measure(vm, lambda: qtest.raw(f'memset 0 0x4000000 {next(values)}'), mode=mode)
    assert info['status'] == 'measured'
    assert info['dirty-rate'] > 0


def test_one_at_a_time(guest):
    vm, _ = guest
    vm.cmd('calc-dirty-rate', calc_time=60)
    assert vm.cmd('query-dirty-rate')['status'] == 'measuring'
    with pytest.raises(ferry.QMPError, match='already'):
        vm.cmd('calc-dirty-rate', calc_time=1)
    vm.cmd('quit')                      # in the middle of it


def test_untouched_memory_stays_untouched(vmm, work):
    qtest = ferry.QTest(work)
    vm = vmm('-object', 'memory-backend-memfd,id=m,size=1G,share=on', '-machine', 'memory-backend=m', '-m', '1G',
             *qtest.args)
    qtest.accept()
    before = vm.memory_kib('RssShmem')
    assert measure(vm, sample_pages=16384)['dirty-rate'] == 0
    assert vm.memory_kib('RssShmem') - before < MIB // 1024
    qtest.close()


@pytest.mark.parametrize('args, words', [
    ({'calc_time': 0}, 'out of range'), ({'calc_time': 61}, 'out of range'), ({'calc_time': -1}, 'out of range'),
    ({'calc_time': 49, 'calc_time_unit': 'millisecond'}, 'out of range'),
    ({'calc_time': 60001, 'calc_time_unit': 'millisecond'}, 'out of range'),
    ({'calc_time': 1, 'sample_pages': 127}, 'sample-pages'), ({'calc_time': 1, 'sample_pages': 16385}, 'sample-pages'),
    ({'calc_time': 1, 'sample_pages': 512, 'mode': 'dirty-bitmap'}, 'sample-pages'),
    ({'calc_time': 1, 'mode': 'dirty-ring'}, 'mode'),
])
def test_refused(vm, args, words):
    with pytest.raises(ferry.QMPError, match=words):
        vm.cmd('calc-dirty-rate', **args)
    assert vm.cmd('query-dirty-rate')['status'] == 'unstarted'


def test_hmp(guest):
    vm, _ = guest
    assert 'Status: unstarted' in vm.hmp('info dirty_rate')
    assert 'period 1 seconds' in vm.hmp('calc_dirty_rate -b 1')
    text = vm.hmp('info dirty_rate')
    assert 'Status: measuring' in text and 'Mode: dirty-bitmap' in text and '(not ready)' in text
    assert vm.hmp('calc_dirty_rate 99').startswith('Error: ')
