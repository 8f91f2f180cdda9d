# SPDX-License-Identifier: GPL-2.0-or-later
"""Capabilities and parameters of migrations: what they are at first, what they take, what excludes what."""
import random
import subprocess

import pytest

import ferry
from ferry import stock as stock_qemu
from ferry import faults
from ferry import migration as m

CAPABILITIES = ['xbzrle', 'auto-converge', 'events', 'return-path', 'pause-before-switchover', 'multifd',
                'late-block-activate', 'x-ignore-shared', 'validate-uuid', 'zero-copy-send',
                'switchover-ack', 'mapped-ram']
ZERO_COPY = 'Zero copy only available for non-compressed non-TLS multifd migration'


def caps(vm, **states):
    vm.cmd('migrate-set-capabilities', capabilities=[
        {'capability': name.replace('_', '-'), 'state': state} for name, state in states.items()])


def caps_on(vm):
    return [c['capability'] for c in vm.cmd('query-migrate-capabilities') if c['state']]


def test_capabilities_are_off_and_in_order(vm):
    assert vm.cmd('query-migrate-capabilities') == [{'capability': c, 'state': False} for c in CAPABILITIES]


def test_what_stock_has_too_has_its_default(vm, vmm, need):
    need.that(stock_qemu.distribution(), 'no stock QEMU here')
    stock = vmm(name='stock', command=stock_qemu.distribution())
    theirs = stock.cmd('query-migrate-parameters')
    ours = vm.cmd('query-migrate-parameters')
    common = theirs.keys() & ours.keys()
    assert len(common) > 15
    assert {k: ours[k] for k in common - {'zero-page-detection'}} == \
        {k: theirs[k] for k in common - {'zero-page-detection'}}
    known = [c for c in stock.cmd('query-migrate-capabilities') if c['capability'] in CAPABILITIES]
    mine = [c for c in vm.cmd('query-migrate-capabilities')
            if c['capability'] in {k['capability'] for k in known}]
    assert mine == known


def test_own_defaults(vm):
    params = vm.cmd('query-migrate-parameters')
    assert params['zero-page-detection'] == 'legacy'
    assert params['avail-switchover-bandwidth'] == 0
    assert params['direct-io'] is False


@pytest.mark.parametrize('name, good, bad', [
    ('announce-initial', [0, 100000], [100001, -1, 'x']),
    ('announce-max', [0, 100000], [100001]),
    ('announce-rounds', [0, 1000], [1001]),
    ('announce-step', [1, 10000], [0, 10001]),
    ('throttle-trigger-threshold', [1, 100], [0, 101, 256]),
    ('cpu-throttle-initial', [1, 99], [0, 100]),
    ('cpu-throttle-increment', [1, 99], [0, 100]),
    ('cpu-throttle-tailslow', [True, False], [1, 'on']),
    ('tls-creds', ['x', ''], [1]),
    ('tls-hostname', ['x', ''], [True]),
    ('tls-authz', ['x', ''], [{}]),
    ('max-bandwidth', [0, 1, 2**63, 2**64 - 1], [2**64, 'x', 1.5]),
    ('avail-switchover-bandwidth', [0, 2**64 - 1], [2**64]),
    ('downtime-limit', [0, 2000000], [2000001]),
    ('multifd-channels', [1, 255], [0, 256, -1]),
    ('xbzrle-cache-size', [4096, 2**30], [0, 2048, 4097, 12288]),
    ('max-cpu-throttle', [20, 99], [19, 100]),
    ('multifd-compression', ['zlib', 'zstd', 'none'], ['lz4', 0, 'qpl']),
    ('multifd-zlib-level', [0, 9], [10]),
    ('multifd-zstd-level', [0, 20], [21]),
    ('zero-page-detection', ['none', 'legacy', 'multifd'], ['all']),
    ('direct-io', [True, False], ['on']),
])
def test_parameter_takes_its_range_and_nothing_else(vm, name, good, bad):
    for value in good:
        vm.cmd('migrate-set-parameters', {name: value})
        assert vm.cmd('query-migrate-parameters')[name] == value
    before = vm.cmd('query-migrate-parameters')
    for value in bad:
        with pytest.raises(ferry.QMPError) as error:
            vm.cmd('migrate-set-parameters', {'direct-io': True, name: value})
        assert name in str(error.value)
        assert vm.cmd('query-migrate-parameters') == before


def test_everything_that_is_read_can_be_set_again(vm):
    """libvirt restores what it found."""
    before = vm.cmd('query-migrate-parameters')
    vm.cmd('migrate-set-parameters', before)
    assert vm.cmd('query-migrate-parameters') == before
    vm.cmd('migrate-set-parameters', {'tls-creds': 'a', 'tls-hostname': 'b', 'tls-authz': 'c'})
    vm.cmd('migrate-set-parameters', {'tls-creds': None, 'tls-hostname': None, 'tls-authz': None})
    assert vm.cmd('query-migrate-parameters') == before


@pytest.mark.parametrize('states, error', [
    ({'zero_copy_send': True}, ZERO_COPY),
    ({'zero_copy_send': True, 'multifd': True, 'xbzrle': True}, ZERO_COPY),
    ({'multifd': True, 'xbzrle': True}, 'Multifd is not compatible with xbzrle'),
    ({'mapped_ram': True, 'xbzrle': True}, 'Mapped-ram migration is incompatible with xbzrle'),
    ({'switchover_ack': True}, "Capability 'switchover-ack' requires capability 'return-path'"),
    ({'postcopy_ram': True}, 'postcopy-ram'),
])
def test_exclusion_changes_nothing(vm, states, error):
    caps(vm, events=True)
    with pytest.raises(ferry.QMPError, match=error):
        caps(vm, **{'validate-uuid': True}, **states)
    assert caps_on(vm) == ['events']


@pytest.mark.parametrize('params', [{'multifd-compression': 'zlib'}, {'tls-creds': 't'}])
def test_zero_copy_excludes_compression_and_tls_in_either_order(vm, params):
    caps(vm, multifd=True, zero_copy_send=True)
    with pytest.raises(ferry.QMPError, match=ZERO_COPY):
        vm.cmd('migrate-set-parameters', params)
    caps(vm, zero_copy_send=False)
    vm.cmd('migrate-set-parameters', params)
    with pytest.raises(ferry.QMPError, match=ZERO_COPY):
        caps(vm, zero_copy_send=True)
    assert caps_on(vm) == ['multifd']


def test_the_last_of_several_values_counts_and_the_result_is_checked(vm):
    vm.cmd('migrate-set-capabilities', capabilities=[
        {'capability': 'switchover-ack', 'state': True}, {'capability': 'return-path', 'state': True},
        {'capability': 'xbzrle', 'state': True}, {'capability': 'xbzrle', 'state': False}])
    assert caps_on(vm) == ['return-path', 'switchover-ack']


def test_globals_set_what_clients_read(vmm):
    vm = vmm('-global', 'migration.x-multifd=on', '-global', 'migration.multifd-channels=7',
             '-global', 'migration.x-max-bandwidth=3M', '-global', 'migration.mapped-ram=on',
             '-global', 'driver=migration,property=x-events,value=on',
             '-global', 'migration.zero-page-detection=multifd',
             '-global', 'migration.send-configuration=off', '-global', 'migration.x-preempt-pre-7-2=on')
    assert caps_on(vm) == ['events', 'multifd', 'mapped-ram']
    params = vm.cmd('query-migrate-parameters')
    assert params['multifd-channels'] == 7
    assert params['max-bandwidth'] == 3 * ferry.MIB
    assert params['zero-page-detection'] == 'multifd'


@pytest.mark.parametrize('events', [False, True])
def test_events_are_sent_only_with_the_capability(vm, events):
    caps(vm, events=events)
    vm.cmd('migrate', uri='exec:cat >/dev/null')
    assert m.wait_over(vm)['status'] == 'completed'
    assert bool(vm.seen('MIGRATION')) == bool(vm.seen('MIGRATION_PASS')) == events


def saved(vmm, work, switch=None, start='running'):
    """What a guest without memory leaves in a file."""
    vm = vmm(*(['-global', f'migration.{switch}'] if switch else []), name=f'source-{switch}')   # starts with -S
    for command in {'prelaunch': (), 'running': ('cont',), 'paused': ('cont', 'stop')}[start]:
        vm.cmd(command)
    vm.cmd('migrate', uri=f'file:{work}/guest')
    assert m.wait_over(vm)['status'] == 'completed'
    stream = (work / 'guest').read_bytes()
    vm.quit()
    return stream[:stream.rindex(b'\x06', 0, stream.rindex(b'{"configuration"'))]     # the description apart


CONFIGURATION, FOOTER, SWITCHOVER_START = m.configuration(), m.footer(0)[:4], m.command(m.SWITCHOVER_START)


@pytest.mark.parametrize('switch, piece, there', [
    ('send-configuration=off', CONFIGURATION, False), (None, CONFIGURATION, True),
    ('send-section-footer=off', FOOTER, False), (None, FOOTER, True),
    ('send-switchover-start=on', SWITCHOVER_START, True), (None, SWITCHOVER_START, False),
])
def test_switches_shape_the_stream(vmm, work, switch, piece, there):
    assert (piece in saved(vmm, work, switch)) == there


@pytest.mark.parametrize('start, told', [('running', False), ('paused', False), ('prelaunch', True)])
def test_the_run_state_is_left_out_where_it_says_nothing(vmm, work, start, told):
    assert b'globalstate' in saved(vmm, work, None, start)
    assert (b'globalstate' in saved(vmm, work, 'store-global-state=off', start)) == told


@pytest.mark.parametrize('value, words', [
    ('migration.x-foo=1', "Property 'migration.x-foo' not found"),
    ('migration.help=on', 'not found'),
    ('migration.multifd-channels=0', 'expects a value between 1 and 255'),
    ('migration.multifd-channels=300', 'multifd-channels'),
    ('migration.x-zero-copy-send=on', ZERO_COPY),
    ('migration.store-global-state=bla', "expects 'on' or 'off'"),
    ('driver=migration,property=x-events', 'DRIVER.PROPERTY=VALUE'),
])
def test_wrong_global_ends_the_start(value, words):
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none',
                           '-global', value], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize('arg, words', [
    ('foo:bar', 'unknown migration protocol: foo:bar'),
    ('tcp:', 'tcp'),
    ('{"channel-type":"main"}', "'addr' is missing"),
    ('file:', 'empty'),
])
def test_wrong_incoming_ends_the_start(arg, words):
    done = subprocess.run([*ferry.binary(), '-machine', 'none', '-nodefaults', '-display', 'none',
                           '-incoming', arg], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_last_incoming_counts(vmm, work):
    vm = vmm('-incoming', 'defer', '-incoming', f'unix:{work}/mig')
    assert vm.cmd('query-migrate')['socket-address'] == [{'type': 'unix', 'path': f'{work}/mig'}]
    vm = vmm('-incoming', f'unix:{work}/mig2', '-incoming', 'defer', name='other')
    assert vm.cmd('query-migrate') == {}
    assert not (work / 'mig2').exists()


def test_two_clients_that_ask_for_a_guest_at_once(vmm, work):
    """While the name of the first is looked up, the second is told that it is late."""
    vm = vmm('-incoming', 'defer', '-qmp', f'unix:{work}/second.qmp,server=on,wait=off')
    second = ferry.QMPClient.connect(f'{work}/second.qmp')
    sent = [(client, client.send('migrate-incoming', {'uri': 'tcp:127.0.0.1:0'})) for client in (vm, second)]
    answers = []
    for client, number in sent:
        try:
            client.reply(number)
            answers.append('')
        except ferry.QMPError as error:
            answers.append(error.desc)
    assert sorted(answers) == ['', 'The incoming migration has already been started']
    second.close()


def test_a_guest_that_is_waited_for_does_not_run(vmm):
    vm = vmm('-incoming', 'defer')
    assert vm.cmd('query-status') == {'running': False, 'status': 'inmigrate'}
    vm.cmd('cont')
    assert vm.cmd('query-status')['status'] == 'inmigrate'
    vm.cmd('stop')
    assert vm.cmd('query-status')['status'] == 'inmigrate'
    vm.cmd('quit')


def test_hmp_settings(vm):
    assert vm.hmp('migrate_set_capability multifd on') == ''
    assert 'multifd: on\r\n' in vm.hmp('info migrate_capabilities')
    assert vm.hmp('migrate_set_parameter max-bandwidth 5') == ''
    assert 'max-bandwidth: 5242880 bytes/second\r\n' in vm.hmp('info migrate_parameters')
    assert vm.hmp('migrate_set_parameter max-bandwidth 100k') == ''
    assert vm.hmp('migrate_set_parameter tls-creds x') == ''
    text = vm.hmp('info migrate_parameters')
    assert 'max-bandwidth: 102400 bytes/second\r\n' in text
    assert "tls-creds: 'x'\r\n" in text
    for line, words in (('migrate_set_parameter foo 1', 'foo'), ('migrate_set_parameter', 'usage'),
                        ('migrate_set_parameter multifd-channels 0', 'between 1 and 255'),
                        ('migrate_set_capability foo on', 'foo'),
                        ('migrate_set_capability multifd perhaps', "'on' or 'off'"),
                        ('migrate', 'usage')):
        answer = vm.hmp(line)
        assert answer.startswith('Error: ') and words in answer, line
    assert 'extraneous characters' in vm.hmp('migrate_cancel now')


# What each of them does


@pytest.fixture
def mover(vmm, work):
    """Random memory that goes from here to there; faults.RAM of it."""
    return lambda *caps, **options: faults.Mover(vmm, work, ['return-path', *caps], **options)


def figures(one, **params):
    """query-migrate after a migration with these parameters at both sides; the guest is here again."""
    one.source.vm.cmd('migrate-set-parameters', params)
    one.listen()
    one.destination.vm.cmd('migrate-set-parameters', params)
    one.start()
    assert m.wait_over(one.source.vm)['status'] == 'completed'
    info = one.source.vm.cmd('query-migrate')
    assert one.outcome() == 'there'
    return info


def test_every_figure_of_a_completed_migration(mover):
    one = mover()
    info = figures(one)
    ram = info['ram']
    assert set(info) == {'status', 'ram', 'total-time', 'downtime', 'setup-time', 'x-downtime'}
    assert info['total-time'] >= info['downtime'] >= 0 and info['setup-time'] >= 0
    assert set(info['x-downtime']) == {'stop', 'last-sync', 'last-pages', 'device-state', 'peer-load'}
    assert all(part > 0 for part in info['x-downtime'].values())
    assert sum(info['x-downtime'].values()) <= info['downtime'] + 1
    assert ram['total'] == faults.RAM and ram['remaining'] == 0 and ram['page-size'] == 4096
    assert ram['normal'] >= faults.RAM // 4096 and ram['normal-bytes'] == ram['normal'] * 4096
    assert ram['duplicate'] == 0 and ram['multifd-bytes'] == 0
    assert ram['transferred'] >= ram['precopy-bytes'] + ram['downtime-bytes'] > faults.RAM
    assert ram['dirty-sync-count'] >= 2 and ram['mbps'] > 0
    assert ram['postcopy-requests'] == ram['postcopy-bytes'] == 0        # there is no postcopy
    assert ram['dirty-sync-missed-zero-copy'] == 0 and ram['dirty-pages-rate'] == 0


def test_figures_of_a_running_migration(mover):
    one = mover('events')
    one.source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 2 * ferry.MIB, 'downtime-limit': 1})
    one.start()
    guard = ferry.Guard(60)
    while not (info := m.wait_status(one.source.vm, 'active'))['ram']['pages-per-second']:
        guard.left()
    assert {'remaining', 'expected-downtime', 'total-time', 'setup-time'} <= set(info)
    assert 0 < info['remaining'] <= faults.RAM and info['ram']['remaining'] <= faults.RAM
    assert info['expected-downtime'] > 1 and info['ram']['mbps'] > 0
    one.source.vm.cmd('migrate_cancel')
    assert one.outcome() == 'here'
    assert 'error-desc' not in one.source.vm.cmd('query-migrate')


def test_dirty_pages_have_a_rate(mover):
    one = mover('pause-before-switchover')
    one.source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 4 * ferry.MIB, 'downtime-limit': 0})
    one.start()
    guard, seen = ferry.Guard(60), 0
    while not seen:
        one.source.qtest.write(0, one.data[:ferry.MIB])
        seen = m.wait_status(one.source.vm, 'active', 'pre-switchover')['ram']['dirty-pages-rate']
        guard.left()
    one.source.vm.cmd('migrate_cancel')
    assert one.outcome() == 'here'


def test_max_bandwidth_takes_effect_at_once(mover):
    """At 64 KiB a second it would take a minute."""
    one = mover()
    one.source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 65536, 'downtime-limit': 0})
    one.start()
    m.wait_status(one.source.vm, 'active')
    one.channels.stalled.wait(0.3)
    slow = one.source.vm.cmd('query-migrate')
    assert slow['status'] == 'active' and slow['ram']['transferred'] < ferry.MIB
    one.source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 0})
    assert one.outcome() == 'there'


@pytest.mark.parametrize('params', [{'downtime-limit': 2000000}, {'avail-switchover-bandwidth': 1 << 40}])
def test_what_lets_the_guest_go_takes_effect_at_once(mover, params):
    one = mover('pause-before-switchover')
    one.source.vm.cmd('migrate-set-parameters', {'max-bandwidth': 1 << 20, 'downtime-limit': 10,
                                                 'avail-switchover-bandwidth': 1000})
    one.start()
    assert m.wait_status(one.source.vm, 'active')['remaining'] > 0
    one.source.vm.cmd('migrate-set-parameters', {'avail-switchover-bandwidth': 1 << 20, **params})
    info = m.wait_status(one.source.vm, 'pre-switchover')
    assert info['ram']['remaining'] > 0
    one.source.vm.cmd('migrate-continue', state='pre-switchover')
    assert one.outcome() == 'there'


def test_zero_page_detection(mover):
    one = mover()
    one.data = one.data[:faults.RAM // 2] + bytes(faults.RAM // 2)
    one.source.qtest.write(0, one.data)
    pages = faults.RAM // 4096
    assert figures(one)['ram']['duplicate'] == pages // 2
    ram = figures(one, **{'zero-page-detection': 'none'})['ram']
    assert (ram['duplicate'], ram['normal']) == (0, pages)
    for who in ('legacy', 'multifd'):
        m.set_caps(one.source.vm, 'multifd')
        one.caps = ('return-path', 'multifd')
        ram = figures(one, **{'zero-page-detection': who})['ram']
        assert ram['duplicate'] == pages // 2
        assert ram['transferred'] - ram['multifd-bytes'] > 4000 if who == 'legacy' else True


def words(size, seed):
    """Text of few words: the higher the level of compression, the shorter it gets."""
    rng = random.Random(seed)
    some = [rng.randbytes(rng.randrange(2, 9)) for _ in range(500)]
    return b''.join(rng.choice(some) for _ in range(size // 2))[:size]


def test_channels_and_what_they_compress(mover):
    one = mover('multifd')
    one.data = words(faults.RAM, seed=7)
    one.source.qtest.write(0, one.data)
    plain = figures(one, **{'multifd-channels': 3})['ram']['multifd-bytes']
    assert len(one.channels.links) == 4
    assert plain == sum(link.count[False] for link in one.channels.links[1:])
    # which channel gets what is a matter of chance, so levels are compared with one
    for method, worst, best in (('zlib', 0, 9), ('zstd', 1, 19)):
        sent = [figures(one, **{'multifd-channels': 1, 'multifd-compression': method, f'multifd-{method}-level': level})
                ['ram']['multifd-bytes'] for level in (worst, best)]
        assert sent[1] < sent[0], method
        assert sent[1] < plain


def test_xbzrle_cache_size_takes_effect_in_a_running_migration(mover):
    """From one page to all of them: then nothing misses any more."""
    one = mover('xbzrle', 'pause-before-switchover')
    one.source.vm.cmd('migrate-set-parameters', {'xbzrle-cache-size': 4096, 'max-bandwidth': 4 * ferry.MIB,
                                                 'downtime-limit': 0})
    one.start()
    info = m.wait_status(one.source.vm, 'active')['xbzrle-cache']
    assert info['cache-size'] == 4096
    assert set(info) == {'cache-size', 'bytes', 'pages', 'cache-miss', 'cache-miss-rate', 'encoding-rate', 'overflow'}
    one.source.vm.cmd('migrate-set-parameters', {'xbzrle-cache-size': 8 * ferry.MIB})
    guard = ferry.Guard(60)
    data = bytearray(one.data)
    while True:
        for at in range(0, 100 * 4096, 4096):
            data[at] = (data[at] + 1) & 0xff
            one.source.qtest.write(at, data[at:at + 1])
        info = m.wait_status(one.source.vm, 'active', 'pre-switchover')
        if info['xbzrle-cache']['cache-size'] == 8 * ferry.MIB:
            break
        guard.left()
    one.data = bytes(data)
    m.wait_status(one.source.vm, 'pre-switchover')
    one.data = one.source.memory()
    one.source.vm.cmd('migrate-continue', state='pre-switchover')
    assert one.outcome() == 'there'


def test_no_throttle_is_shown_where_no_vcpu_can_be_slowed(mover):
    one = mover('auto-converge')
    assert 'cpu-throttle-percentage' not in figures(one)


# switchover-ack

def test_the_guest_does_not_stop_before_the_destination_agrees(mover):
    """What the destination says is held on its way; the source goes on sending what changes."""
    one = mover('switchover-ack', 'pause-before-switchover')
    one.source.vm.cmd('migrate-set-parameters', {'downtime-limit': 0})
    channels = one.start({(faults.MAIN, True): (0, 'stall')})
    assert channels.stalled.wait(60)
    guard = ferry.Guard(60)
    for value in range(1, 4):       # each is sent while the guest runs
        before = m.wait_status(one.source.vm, 'active')['ram']['normal']
        one.source.qtest.memset(0, 65536, value)
        while m.wait_status(one.source.vm, 'active')['ram']['normal'] < before + 16:
            guard.left()
    assert m.run_state(one.source.vm) == 'running' and not one.source.vm.seen('STOP')
    one.data = bytes([3]) * 65536 + one.data[65536:]
    channels.release()
    m.wait_status(one.source.vm, 'pre-switchover')
    one.source.vm.cmd('migrate-continue', state='pre-switchover')
    assert one.outcome() == 'there'


@pytest.mark.parametrize('early', [True, False])
def test_a_destination_that_agrees_late(mover, work, early):
    ack = bytes.fromhex('0007 0000')
    one = mover('switchover-ack')
    sink = m.Sink(work / 'sink', message=ack if early else b'')
    one.source.vm.cmd('migrate', uri=sink.uri)
    if not early:
        guard = ferry.Guard(60)
        m.wait_status(one.source.vm, 'active')
        while m.wait_status(one.source.vm, 'active')['remaining']:
            guard.left()
        one.source.qtest.write(0, bytes(4096))
        while m.wait_status(one.source.vm, 'active')['ram']['duplicate'] < 1:
            guard.left()
        sink.conn.sendall(ack)
    assert m.wait_over(one.source.vm)['status'] == 'completed'
    sink.result()


def test_without_the_capability_the_destination_never_agrees(mover):
    """Both sides need it: the source would wait for ever, and is told to stop."""
    one = mover('switchover-ack')
    one.new_destination()
    m.set_caps(one.destination.vm, switchover_ack=False)
    one.start()
    guard = ferry.Guard(60)
    while m.wait_status(one.source.vm, 'setup', 'active').get('remaining', 1):
        guard.left()
    one.source.vm.cmd('migrate_cancel')
    assert one.outcome() == 'here'
    m.set_caps(one.destination.vm, 'switchover-ack')
    one.finish()


# Where the guest is now

def test_the_network_is_told_on_request(vm):
    """Without a network card there is none to announce; the rounds are those of the command."""
    rounds = {'initial': 50, 'max': 550, 'rounds': 5, 'step': 50}
    assert vm.cmd('announce-self', rounds) == {}
    assert vm.cmd('announce-self', {**rounds, 'interfaces': ['vn2', 'vn3'], 'id': 'bob'}) == {}
    assert vm.hmp('announce_self') == '' and vm.hmp('announce_self vn2,vn3 bob') == ''
    with pytest.raises(ferry.QMPError, match="'initial' expects a value between 0 and 100000"):
        vm.cmd('announce-self', {**rounds, 'initial': 100001})
    with pytest.raises(ferry.QMPError, match="'max' is missing"):
        vm.cmd('announce-self', initial=50)
