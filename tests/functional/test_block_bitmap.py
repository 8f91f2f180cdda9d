# SPDX-License-Identifier: GPL-2.0-or-later
"""Dirty bitmaps record writes, and transactions change them all or not at all."""
import pytest

import ferry

SIZE = 4 * ferry.MIB
GRAIN = 65536


@pytest.fixture
def disk(vm):
    vm.add('null-co', 'disk', size=SIZE)
    return vm


def bitmaps(vm, node='disk'):
    """The bitmaps of a node by name."""
    info = next(n for n in vm.cmd('query-named-block-nodes', flat=True) if n['node-name'] == node)
    return {b['name']: b for b in info.get('dirty-bitmaps', [])}


def add(vm, name, node='disk', **options):
    vm.cmd('block-dirty-bitmap-add', node=node, name=name, **options)


def action(kind, node='disk', **data):
    return {'type': kind, 'data': {'node': node, **data}}


def transaction(vm, *actions):
    vm.cmd('transaction', actions=list(actions))


ABORT = {'type': 'abort', 'data': {}}


def write(vm, uri, offset, length):
    handle = ferry.nbd_connect(uri)
    handle.pwrite(b'x' * length, offset)
    handle.shutdown()


def test_new_bitmap_is_clean_and_records(disk):
    add(disk, 'a')
    assert bitmaps(disk)['a'] == {'name': 'a', 'count': 0, 'granularity': GRAIN, 'recording': True, 'busy': False,
                                  'persistent': False}
    write(disk, disk.export('disk'), 3 * GRAIN - 1, 2)
    assert bitmaps(disk)['a']['count'] == 2 * GRAIN


def test_granularity_and_disabled_are_taken(disk):
    add(disk, 'fine', granularity=512)
    add(disk, 'off', granularity=1 << 20, disabled=True)
    write(disk, disk.export('disk'), 0, 1)
    found = bitmaps(disk)
    assert (found['fine']['granularity'], found['fine']['count']) == (512, 512)
    assert (found['off']['granularity'], found['off']['count'], found['off']['recording']) == (1 << 20, 0, False)


def test_default_granularity_follows_the_clusters(vm, work):
    for size, granularity in ((512, 4096), (8192, 8192), (2 << 20, 65536)):
        path = ferry.make_image(work / f'{size}.qcow2', SIZE, 'qcow2', options=f'cluster_size={size}')
        vm.add_file(path, 'qcow2', node_name=f'n{size}')
        add(vm, 'a', node=f'n{size}')
        assert bitmaps(vm, f'n{size}')['a']['granularity'] == granularity


@pytest.mark.parametrize('options, message', [
    ({'node': 'none'}, "Cannot find device='none' nor node-name='none'"),
    ({'name': ''}, 'Bitmap name cannot be empty'),
    ({'name': 'x' * 1024}, 'Bitmap name too long'),
    ({'name': 'taken'}, 'Bitmap already exists: taken'),
    ({'granularity': 0}, 'Granularity must be power of 2 and at least 512'),
    ({'granularity': 256}, 'Granularity must be power of 2 and at least 512'),
    ({'granularity': 1000}, 'Granularity must be power of 2 and at least 512'),
    ({'persistent': True}, "Can't store persistent bitmaps to disk"),
])
def test_bad_bitmaps_are_refused(disk, options, message):
    add(disk, 'taken')
    with pytest.raises(ferry.QMPError) as failure:
        add(disk, **{'name': 'new', **options})
    assert failure.value.desc.startswith(message)
    assert list(bitmaps(disk)) == ['taken']


@pytest.mark.parametrize('command', ['remove', 'clear', 'enable', 'disable'])
def test_unknown_bitmaps_are_named(disk, command):
    with pytest.raises(ferry.QMPError, match="Dirty bitmap 'none' not found"):
        disk.cmd(f'block-dirty-bitmap-{command}', node='disk', name='none')


def test_clear_disable_enable_remove(disk):
    uri = disk.export('disk')
    add(disk, 'a')
    write(disk, uri, 0, 1)
    disk.cmd('block-dirty-bitmap-disable', node='disk', name='a')
    write(disk, uri, GRAIN, 1)
    assert bitmaps(disk)['a']['count'] == GRAIN
    disk.cmd('block-dirty-bitmap-clear', node='disk', name='a')
    assert bitmaps(disk)['a']['count'] == 0
    disk.cmd('block-dirty-bitmap-enable', node='disk', name='a')
    write(disk, uri, GRAIN, 2 * GRAIN)
    assert bitmaps(disk)['a']['count'] == 2 * GRAIN
    disk.cmd('block-dirty-bitmap-remove', node='disk', name='a')
    assert bitmaps(disk) == {}


def test_merge_adds_bitmaps_of_any_node_and_granularity(disk):
    disk.add('null-co', 'other', size=SIZE)
    add(disk, 'sum', granularity=GRAIN)
    add(disk, 'fine', granularity=512)
    add(disk, 'coarse', granularity=1 << 20, node='other')
    disk.cmd('block-dirty-bitmap-disable', node='disk', name='sum')
    write(disk, disk.export('disk'), 0, 1)
    write(disk, disk.export('other', name='other'), 2 << 20, 1)
    disk.cmd('block-dirty-bitmap-merge', node='disk', target='sum',
             bitmaps=['fine', {'node': 'other', 'name': 'coarse'}, 'sum'])
    assert bitmaps(disk)['sum']['count'] == GRAIN + (1 << 20)
    disk.cmd('block-dirty-bitmap-merge', node='disk', target='fine', bitmaps=[])
    assert bitmaps(disk)['fine']['count'] == 512


def test_failed_merge_changes_nothing(disk):
    disk.add('null-co', 'large', size=2 * SIZE)
    add(disk, 'sum', disabled=True)
    add(disk, 'a')
    add(disk, 'large', node='large')
    write(disk, disk.export('disk'), 0, 1)
    for bad, message in ((['a', 'none'], "Dirty bitmap 'none' not found"),
                         (['a', {'node': 'none', 'name': 'a'}], "Cannot find device='none'"),
                         (['a', {'node': 'large', 'name': 'large'}],
                          f'different sizes .destination size is {SIZE}, source size is {2 * SIZE}')):
        with pytest.raises(ferry.QMPError, match=message):
            disk.cmd('block-dirty-bitmap-merge', node='disk', target='sum', bitmaps=bad)
        assert bitmaps(disk)['sum']['count'] == 0


def test_aborted_transaction_restores_every_bitmap(disk):
    uri = disk.export('disk')
    for name in ('cleared', 'merged', 'disabled', 'removed'):
        add(disk, name)
    add(disk, 'enabled', disabled=True)
    write(disk, uri, 0, 1)
    disk.cmd('block-dirty-bitmap-clear', node='disk', name='merged')
    before = bitmaps(disk)
    with pytest.raises(ferry.QMPError, match='Transaction aborted using Abort action'):
        transaction(disk,
                    action('block-dirty-bitmap-add', name='new'),
                    action('block-dirty-bitmap-clear', name='cleared'),
                    action('block-dirty-bitmap-merge', target='merged', bitmaps=['removed']),
                    action('block-dirty-bitmap-disable', name='disabled'),
                    action('block-dirty-bitmap-clear', name='disabled'),
                    action('block-dirty-bitmap-enable', name='enabled'),
                    action('block-dirty-bitmap-remove', name='removed'),
                    ABORT)
    assert bitmaps(disk) == before
    write(disk, uri, GRAIN, 1)      # all go on as before
    after = bitmaps(disk)
    assert {n: b['count'] - before[n]['count'] for n, b in after.items()} == \
        {'cleared': GRAIN, 'merged': GRAIN, 'disabled': GRAIN, 'removed': GRAIN, 'enabled': 0}


def test_transaction_swaps_bitmaps_at_one_point_in_time(disk):
    uri = disk.export('disk')
    add(disk, 'old')
    write(disk, uri, 0, 1)
    transaction(disk,
                action('block-dirty-bitmap-disable', name='old'),
                action('block-dirty-bitmap-add', name='new'),
                action('block-dirty-bitmap-add', name='sum', disabled=True),
                action('block-dirty-bitmap-merge', target='sum', bitmaps=['old']),
                action('block-dirty-bitmap-remove', name='old'))
    write(disk, uri, 4 * GRAIN, 1)
    assert {n: (b['count'], b['recording']) for n, b in bitmaps(disk).items()} == \
        {'new': (GRAIN, True), 'sum': (GRAIN, False)}


def test_bitmap_being_removed_is_not_for_others_in_the_transaction(disk):
    add(disk, 'a')
    for second, message in ((action('block-dirty-bitmap-clear', name='a'), 'currently in use'),
                            (action('block-dirty-bitmap-add', name='a'), 'already exists')):
        with pytest.raises(ferry.QMPError, match=message):
            transaction(disk, action('block-dirty-bitmap-remove', name='a'), second)
        assert not bitmaps(disk)['a']['busy']


def test_exported_bitmap_is_busy(disk):
    add(disk, 'a', disabled=True)
    disk.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(disk.workdir / 'nbd')}})
    disk.cmd('block-export-add', type='nbd', id='e', node_name='disk', bitmaps=['a'])
    assert bitmaps(disk)['a']['busy']
    for command in ('remove', 'clear', 'enable', 'disable'):
        with pytest.raises(ferry.QMPError, match="Bitmap 'a' is currently in use by another operation"):
            disk.cmd(f'block-dirty-bitmap-{command}', node='disk', name='a')
    disk.cmd('block-export-del', id='e')
    disk.wait('BLOCK_EXPORT_DELETED', id='e')
    disk.cmd('block-dirty-bitmap-remove', node='disk', name='a')


def test_transactions_of_two_sessions_do_not_mix(vmm, work):
    vm = vmm('-qmp', f'unix:{work}/second,server=on,wait=off')
    vm.add('null-co', 'disk', size=SIZE)
    second = ferry.QMPClient.connect(f'{work}/second')
    writers = ferry.run_writers(vm.export('disk'), ferry.Model(SIZE), seed=3, count=2, mix={'write': 1})
    actions = [action('block-dirty-bitmap-add', name='a'), action('block-dirty-bitmap-clear', name='a'),
               action('block-dirty-bitmap-remove', name='a')]
    failures = 0
    for _ in range(50):
        sent = [(c, c.send('transaction', actions=a)) for a in (actions, [*actions, ABORT]) for c in (vm.qmp, second)]
        for client, one in sent:
            try:
                client.reply(one)
            except ferry.QMPError as error:
                assert 'Transaction aborted' in error.desc
                failures += 1
    assert failures == 100
    assert bitmaps(vm) == {}
    for writer in writers:
        writer.stop()
    second.close()


def test_bitmaps_work_in_an_iothread(vmm):
    vm = vmm('-object', 'iothread,id=io0')
    vm.add('null-co', 'disk', size=SIZE)
    vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(vm.workdir / 'nbd')}})
    vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', writable=True, iothread='io0')
    model = ferry.Model(SIZE)
    writers = ferry.run_writers(f'nbd+unix:///disk?socket={vm.workdir / "nbd"}', model, seed=1, count=2,
                                mix={'write': 1})
    for round_ in range(20):
        writers[0].wait_count(10 * round_)
        transaction(vm, action('block-dirty-bitmap-add', name='a'), action('block-dirty-bitmap-clear', name='a'))
        writers[1].wait_count(10 * round_ + 5)
        vm.cmd('block-dirty-bitmap-remove', node='disk', name='a')
    for writer in writers:
        writer.stop()


@pytest.mark.parametrize('name', ['block-dirty-bitmap-add', 'block-dirty-bitmap-clear', 'abort'])
def test_actions_cannot_be_grouped(disk, name):
    """Grouping is about how jobs end; no action makes one, and nothing pretends to obey it."""
    schema = {entity['name']: entity for entity in disk.cmd('query-qmp-schema')}
    modes = [e['values'] for e in schema.values() if 'individual' in e.get('values', [])]
    assert modes == [['individual']]
    disk.cmd('block-dirty-bitmap-add', node='disk', name='old')
    grouped = {'completion-mode': 'grouped'}
    if name == 'abort':
        with pytest.raises(ferry.QMPError, match='grouped'):
            disk.cmd('transaction', actions=[{'type': 'abort', 'data': {}}], properties=grouped)
        return
    with pytest.raises(ferry.QMPError, match="'?grouped"):
        disk.cmd('transaction', actions=[action(name, name='old' if 'clear' in name else 'new')], properties=grouped)
    assert list(bitmaps(disk)) == ['old']
    disk.cmd('transaction', actions=[action(name, name='old' if 'clear' in name else 'new')],
             properties={'completion-mode': 'individual'})
