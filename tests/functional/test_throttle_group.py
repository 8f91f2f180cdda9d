# SPDX-License-Identifier: GPL-2.0-or-later
"""throttle-group objects: both notations, checks, and that one in use stays."""
import pytest

import ferry


def test_group_limits_a_node_and_stays_while_in_use(vm):
    vm.cmd('object-add', {'qom-type': 'throttle-group', 'id': 'g', 'limits': {'bps-total': 1 << 20, 'iops-write': 10}})
    vm.add('null-co', 'disk', size=1 << 20)
    vm.add('throttle', 'slow', throttle_group='g', file='disk')
    with pytest.raises(ferry.QMPError, match="'g' is in use"):
        vm.cmd('object-del', id='g')
    vm.cmd('blockdev-del', node_name='slow')
    vm.cmd('object-del', id='g')
    with pytest.raises(ferry.QMPError, match="'g'"):
        vm.add('throttle', 'slow', throttle_group='g', file='disk')


def test_group_on_the_command_line(vmm):
    vm = vmm('-object', 'throttle-group,id=a,x-bps-total=1000000,x-bps-total-max=2000000,x-bps-total-max-length=2',
             '-object', 'throttle-group,id=b,limits.iops-total=5',
             '-blockdev', 'driver=null-co,node-name=n,size=65536',
             '-blockdev', 'driver=throttle,node-name=t,throttle-group=a,file=n')
    assert {'n', 't'} <= {n['node-name'] for n in vm.cmd('query-named-block-nodes')}


@pytest.mark.parametrize('limits', [
    {'bps-total': 1, 'bps-read': 1},
    {'bps-total': -1},
    {'bps-total-max': 5},
    {'iops-total': 10, 'iops-total-max': 5},
])
def test_limits_that_make_no_sense_are_refused(vm, limits):
    with pytest.raises(ferry.QMPError):
        vm.cmd('object-add', {'qom-type': 'throttle-group', 'id': 'g', 'limits': limits})
    with pytest.raises(ferry.QMPError, match='not found'):
        vm.cmd('object-del', id='g')
