# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects and their types, as qom-list, qom-get, qom-set and their like show them."""
import pytest

import ferry


@pytest.fixture
def vm(vmm):
    return vmm('-object', 'secret,id=sec0,data=hush', '-object', 'iothread,id=io0',
               '-object', 'throttle-group,id=tg,x-iops-total=5', '-chardev', 'null,id=c0')


def names(properties):
    return {p['name']: p['type'] for p in properties}


def refused(vm, command, **arguments):
    with pytest.raises(ferry.QMPError) as error:
        vm.cmd(command, **arguments)
    return error.value


def test_tree_shows_objects_chardevs_and_the_machine(vm):
    top = names(vm.cmd('qom-list', path='/'))
    assert top['type'] == 'string'
    assert top['objects'] == top['chardevs'] == 'child<container>'
    assert top['machine'] == 'child<none-machine>'
    assert names(vm.cmd('qom-list', path='/objects')) == {
        'type': 'string', 'sec0': 'child<secret>', 'io0': 'child<iothread>', 'tg': 'child<throttle-group>'}
    assert names(vm.cmd('qom-list', path='/chardevs'))['c0'] == 'child<chardev-null>'
    machine = names(vm.cmd('qom-list', path='/machine'))
    assert {'peripheral', 'peripheral-anon', 'unattached'} < set(machine)
    assert vm.cmd('qom-get', path='/machine', property='type') == 'none-machine'
    assert vm.cmd('qom-get', path='/objects', property='io0') == '/objects/io0'


def test_tree_follows_what_is_made_and_removed(vm):
    vm.cmd('object-add', {'qom-type': 'iothread', 'id': 'later'})
    vm.cmd('chardev-add', id='c1', backend={'type': 'ringbuf', 'data': {}})
    assert vm.cmd('qom-get', path='/objects/later', property='type') == 'iothread'
    assert names(vm.cmd('qom-list', path='/chardevs'))['c1'] == 'child<chardev-ringbuf>'
    vm.cmd('object-del', id='later')
    vm.cmd('chardev-remove', id='c1')
    assert 'later' not in names(vm.cmd('qom-list', path='/objects'))
    assert 'c1' not in names(vm.cmd('qom-list', path='/chardevs'))


def test_part_of_a_path_finds_its_object(vm):
    assert vm.cmd('qom-list', path='sec0') == vm.cmd('qom-list', path='/objects/sec0')
    assert vm.cmd('qom-list', path='objects/io0') == vm.cmd('qom-list', path='//objects//io0/')
    assert refused(vm, 'qom-list', path='').cls == 'GenericError'
    error = refused(vm, 'qom-list', path='/backend')
    assert error.cls == 'DeviceNotFound' and error.desc == "Device '/backend' not found"


def test_ambiguous_part_is_refused(vm):
    vm.cmd('chardev-add', id='io0', backend={'type': 'null', 'data': {}})
    assert refused(vm, 'qom-list', path='io0').desc == "Path 'io0' is ambiguous"
    vm.cmd('qom-list', path='/objects/io0')


def test_properties_read_as_given_or_empty(vm):
    vm.cmd('object-add', {'qom-type': 'authz-list', 'id': 'acl', 'policy': 'allow',
                          'rules': [{'match': 'x', 'policy': 'deny'}]})
    assert vm.cmd('qom-get', path='/objects/acl', property='policy') == 'allow'
    assert vm.cmd('qom-get', path='/objects/acl', property='rules') == [{'match': 'x', 'policy': 'deny'}]
    assert vm.cmd('qom-get', path='/objects/sec0', property='format') == 'raw'
    assert vm.cmd('qom-get', path='/objects/sec0', property='keyid') == ''
    assert refused(vm, 'qom-get', path='/objects/io0', property='nope').desc == \
        "Property 'iothread.nope' not found"


def test_secrets_are_not_told(vm):
    error = refused(vm, 'qom-get', path='/objects/sec0', property='data')
    assert error.desc == "Property 'secret.data' is not readable"
    everything = vm.cmd('qom-list-get', paths=['/objects/sec0', '/objects/io0'])
    assert 'hush' not in str(everything)
    assert {'name': 'type', 'type': 'string', 'value': 'secret'} in everything[0]['properties']


def test_limits_of_a_throttle_group_change(vm):
    assert vm.cmd('qom-get', path='/objects/tg', property='limits')['iops-total'] == 5
    assert vm.cmd('qom-get', path='/objects/tg', property='x-iops-total') == 5
    vm.cmd('qom-set', path='/objects/tg', property='limits', value={'iops-total': 3, 'bps-read': 100})
    limits = vm.cmd('qom-get', path='/objects/tg', property='limits')
    assert (limits['iops-total'], limits['bps-read'], limits['iops-total-max-length']) == (3, 100, 1)
    for wrong in ({'iops-total': -1}, {'sugar': 1}, 'x', {'iops-total': 1, 'iops-read': 1}):
        refused(vm, 'qom-set', path='/objects/tg', property='limits', value=wrong)
    assert vm.cmd('qom-get', path='/objects/tg', property='limits') == limits


@pytest.mark.parametrize('path, name', [('/objects/io0', 'type'), ('/objects/sec0', 'data'), ('/objects', 'io0')])
def test_fixed_properties_are_not_writable(vm, path, name):
    assert 'not writable' in refused(vm, 'qom-set', path=path, property=name, value='x').desc


def test_types_are_listed_by_what_they_implement(vm):
    made = {t['name']: t['parent'] for t in vm.cmd('qom-list-types', implements='user-creatable')}
    assert made['iothread'] == 'event-loop-base'
    assert made['secret'] == 'secret_common'
    assert made['throttle-group'] == 'object'
    schema = next(e for e in vm.cmd('query-qmp-schema') if e['name'] == 'object-add')
    assert schema and not {'container', 'none-machine'} & set(made)
    creds = {t['name']: t.get('abstract') for t in vm.cmd('qom-list-types', implements='tls-creds', abstract=True)}
    assert creds['tls-creds'] is True and not creds['tls-creds-x509']
    assert 'tls-creds' not in {t['name'] for t in vm.cmd('qom-list-types')}
    assert [t['name'] for t in vm.cmd('qom-list-types', implements='machine')] == ['none-machine']
    assert vm.cmd('qom-list-types', implements='nope') == []


def test_properties_of_types(vm):
    assert names(vm.cmd('qom-list-properties', typename='secret')) == {
        'type': 'string', 'format': 'QCryptoSecretFormat', 'keyid': 'string', 'iv': 'string', 'data': 'string',
        'file': 'string'}
    limits = names(vm.cmd('qom-list-properties', typename='throttle-group'))
    assert limits['limits'] == 'ThrottleLimits' and limits['x-bps-total'] == 'int'
    assert names(vm.cmd('qom-list-properties', typename='authz-list'))['rules'] == 'QAuthZListRule'
    error = refused(vm, 'qom-list-properties', typename='nope')
    assert error.cls == 'DeviceNotFound' and error.desc == "Class 'nope' not found"


@pytest.mark.parametrize('typename', ['memory-backend-file', 'memory-backend-memfd', 'max-x86_64-cpu', 'none-machine',
                                      'generic-pc-machine'])
def test_types_that_libvirt_asks_about_are_no_errors(vm, typename):
    assert isinstance(vm.cmd('qom-list-properties', typename=typename), list)


def test_no_type_is_a_device(vm):
    error = refused(vm, 'device-list-properties', typename='virtio-blk-pci')
    assert error.cls == 'DeviceNotFound' and error.desc == "Device 'virtio-blk-pci' not found"
    assert refused(vm, 'device-list-properties', typename='iothread').cls == 'GenericError'
