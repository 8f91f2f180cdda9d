# SPDX-License-Identifier: GPL-2.0-or-later
"""Random schedules of QMP verbs against one scene: a source, its destination, disks, clients, peers that hang or die.

A schedule follows from its number alone. After each verb every monitor answers, the processes live and at most one
side runs. At the end every command has been answered and the disk holds what its clients were told that it holds.
Schedule n has the n-th ordered pair of verbs in its middle, so pairs() schedules in a row issue every pair.
"""
import contextlib
import json
import os
import random
import signal
import socket
import time

from .guard import HangError, describe_process, time_scale
from .images import MIB, make_image
from .model import Model, run_writers
from .peers import qemu_nbd
from .qmp import QMPClient, QMPClosed, QMPError
from .qtest import QTest

SIZE = 4 * MIB
ANSWER_S = 5            # a monitor answers a query within this time, whatever hangs
COMMAND_S = 60          # a command is over within this time once the peers answer again
FREEZE_S = 30           # a guest write is over within this time, whatever hangs
SESSIONS = 3            # monitors of each process that verbs are sent to
MACHINE = ['-machine', 'none', '-display', 'none', '-nodefaults', '-m', '4M']
CAPABILITIES = ['return-path', 'pause-before-switchover', 'multifd', 'late-block-activate', 'auto-converge']
QUERIES = ['query-migrate', 'query-block-jobs', 'query-jobs', 'query-block-exports', 'query-yank', 'query-iothreads',
           'query-block', 'query-named-block-nodes']
OPENINGS = [(), ('blockdev_add', 'export_add'), ('blockdev_mirror',), ('migrate',), ('blockdev_mirror', 'migrate'),
            ('cont', 'migrate'), ('snapshot_sync', 'blockdev_mirror'), ('migrate', 'system_reset'),
            ('monitor_stops_reading', 'blockdev_mirror')]
ENDS = {'quit_source', 'terminate'}
VERBS = {}


def verb(function):
    """Registers a function(schedule) as the verb of its name."""
    VERBS[function.__name__] = function
    return function


def pairs():
    """How many ordered pairs of verbs there are."""
    return len(VERBS) ** 2


def pair(number):
    """The pair in the middle of schedule `number`."""
    names = sorted(VERBS)
    number %= pairs()
    return names[number // len(names)], names[number % len(names)]


class Session:
    """A QMP session whose answers are waited for later, or not at all."""

    def __init__(self, path):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self.qmp = QMPClient(sock)
        self.waiting = []

    def send(self, command, args):
        sent = self.qmp.send(command, args)
        self.waiting.append(sent)
        return sent

    def collect(self, sent, limit_s):
        """'ok', the sentence of an error, 'closed', or None when the answer has not come within limit_s."""
        try:
            self.qmp.reply(sent, limit_s / time_scale())
            outcome = 'ok'
        except QMPError as error:
            outcome = error.desc or 'an error without a sentence'
        except HangError:
            return None
        except QMPClosed:
            outcome = 'closed'
        self.waiting.remove(sent)
        return outcome


class Side:
    """One process: a monitor that only asks, SESSIONS monitors for verbs, a qtest guest and two exported disks."""

    def __init__(self, schedule, name, *args):
        self.name = name
        self.ended = False      # it was told to end, or has ended as it may
        self.deaf = None        # a socket of a monitor, of which nothing is read
        self.unsent = b''
        self.qtest = QTest(schedule.work, schedule.new_name(f'{name}-qtest'))
        paths = [schedule.path(f'{name}-qmp') for _ in range(SESSIONS + 1)]
        words = []
        for index, path in enumerate(paths):
            words += ['-chardev', f'socket,id=m{index},path={path},server=on,wait=off',
                      '-mon', f'chardev=m{index},mode=control']
        self.vm = schedule.vmm(*MACHINE, *self.qtest.args, *words, *args, defaults=False, name=name)
        self.qtest.accept()
        self.deaf_path = paths.pop()
        self.sessions = [Session(path) for path in paths]
        self.nbd = schedule.path(f'{name}-nbd')
        self.vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': self.nbd}})

    def alive(self):
        return not self.ended and self.vm.running()

    def ask(self, query, **args):
        """The answer to a query; AssertionError when it does not come in time, QMPClosed when the process has ended."""
        try:
            return self.vm.qmp.cmd(query, args, limit_s=ANSWER_S)
        except HangError as error:
            raise AssertionError(f'{self.name} did not answer {query}: {error}\n'
                                 f'{describe_process(self.vm.pid)}') from None

    def ask_if_alive(self, query, otherwise, **args):
        """The answer to a query; `otherwise` from a process that has ended, or ends before it answers."""
        try:
            return self.ask(query, **args) if self.alive() else otherwise
        except QMPClosed:
            return otherwise

    def runs(self):
        """Whether the guest runs here, as far as the process still answers."""
        try:
            return self.alive() and self.ask('query-status')['running']
        except QMPClosed:
            return False

    def ask_without_reading(self, queries):
        """Sends as much of so many queries as the monitor takes, whose answers are never read."""
        if not self.deaf:
            self.deaf = socket.socket(socket.AF_UNIX)
            self.deaf.setblocking(False)
            self.deaf.connect(self.deaf_path)
            self.unsent = b'{"execute": "qmp_capabilities"}'
        self.unsent += b'{"execute": "query-named-block-nodes"}' * queries
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.deaf.send(self.unsent):]

    def leave_deaf(self):
        if self.deaf:
            self.deaf.close()
            self.deaf = None

    def end(self):
        self.vm.kill()
        self.leave_deaf()
        for one in self.sessions:
            one.qmp.close()
        self.qtest.close()


class Schedule:
    """Schedule(vmm, work, number).run() raises AssertionError with the verbs that led there."""

    def __init__(self, vmm, work, number, length=14):
        self.vmm, self.work, self.number, self.length = vmm, work, number, length
        self.rng = random.Random(number)
        self.log, self.issued = [], []
        self.pairs = set()      # of verbs, that were issued while the source lived
        self.names = {}
        self.made = {'node': [], 'object': [], 'export': [], 'bitmap': [], 'client': []}
        self.channels = self.destination = None
        self.server_stopped = False
        self.server_taken = False       # a node to copy to was made of it
        self.capabilities = [c for c in CAPABILITIES if self.rng.random() < .4]
        self.may_leave = self.rng.random() < .7     # with its exports; otherwise they keep the guest here
        self.format = self.rng.choice(['raw', 'raw', 'qcow2'])
        self.disk = make_image(self.path('disk'), SIZE, self.format, seed=number, data=SIZE // 2)
        self.store = None       # a server of the disk that does not fail
        if self.rng.random() < .3:
            os.truncate(self.disk, max(os.path.getsize(self.disk), SIZE if self.format == 'raw' else 4 * SIZE))
            self.store = qemu_nbd(work, self.disk)
        self.shared = make_image(self.path('shared'), MIB, 'qcow2')
        self.target = make_image(self.path('target'), SIZE)
        self.model = Model(SIZE)
        self.model.load(self.disk, self.format)
        self.server = qemu_nbd(work, self.target)
        self.source = Side(self, 'source', '-object', 'iothread,id=io0', '-object', 'iothread,id=io1',
                           '-object', 'throttle-group,id=tg,x-bps-total=8388608')
        thread = {'iothread': self.rng.choice(['io0', 'io1'])} if self.rng.random() < .5 else {}
        self.add_disks(self.source, **thread)
        self.writers = run_writers(f'nbd+unix:///disk?socket={self.source.nbd}', self.model, number,
                                   self.rng.choice([1, 1, 3]), fatal=False,
                                   mix={'write': 12, 'zero': 1, 'trim': 1, 'flush': 2, 'read': 4},
                                   sizes=(512, 4096, 65536), rate=16 * MIB)

    # The scene

    def new_name(self, kind):
        self.names[kind] = self.names.get(kind, 0) + 1
        return f'{kind}{self.names[kind]}'

    def path(self, kind):
        return str(self.work / self.new_name(kind))

    def add_disks(self, side, **thread):
        """`disk`, which clients write, and `shared`, whose lock keeps the guest on one side: a raw image that is only
        exported may have two writers, a qcow2 image may not."""
        incoming = {'allow-inactive': True} if side.name == 'destination' or self.may_leave else {}
        side.vm.cmd('blockdev-add', self.disk_options(discard='unmap'))
        side.vm.add_file(self.shared, 'qcow2', node_name='shared')
        for node in ('disk', 'shared'):
            side.vm.cmd('block-export-add', {'type': 'nbd', 'id': f'export-{node}', 'node-name': node, 'name': node,
                                             'writable': True, **incoming, **(thread if node == 'disk' else {})})

    def disk_options(self, file_options=None, **options):
        """What blockdev-add and blockdev-reopen are told about `disk`."""
        file = {'driver': 'nbd', 'server': self.store.address} if self.store else \
            {'driver': 'file', 'filename': self.disk, **(file_options or {})}
        return {'driver': self.format, 'node-name': 'disk', 'file': file, **options}

    def new_destination(self):
        """A process that waits for the guest; the one before is ended."""
        if self.destination:
            self.destination.ended = True
            self.destination.end()
        self.incoming = self.path('incoming')
        self.destination = Side(self, 'destination', '-incoming', 'defer')
        self.destination.vm.expected.add(1)
        vm = self.destination.vm
        self.add_disks(self.destination)
        self.set_capabilities(vm)
        vm.cmd('migrate-incoming', uri=f'unix:{self.incoming}')

    def set_capabilities(self, vm):
        vm.cmd('migrate-set-capabilities', capabilities=[
            {'capability': 'xbzrle', 'state': False},       # a verb may have set it; multifd excludes it
            *({'capability': c, 'state': c in self.capabilities} for c in CAPABILITIES)])

    def send(self, side, command, **args):
        """Sends a command in one of the sessions; now and then its answer is waited for, for a moment. A process that
        was told to end takes commands until it has ended."""
        if not side or not side.vm.running():
            return
        args = {name.rstrip('_').replace('_', '-'): value for name, value in args.items()}
        session, wait = self.rng.choice(side.sessions), self.rng.choice([0, 0, .02, .2])
        try:
            sent = session.send(command, args)
            outcome = session.collect(sent, wait) if wait else None
        except QMPClosed:
            return
        self.log.append(f'{side.name} {side.sessions.index(session)}: {command} {json.dumps(args)}: '
                        f'{outcome or ("not yet" if wait else "not waited for")}')

    def one(self, kind):
        """One of the things of a kind that verbs made; a name that does not exist when there is none."""
        return self.rng.choice(self.made[kind]) if self.made[kind] else f'no-{kind}'

    def top(self):
        """The node that the disk's export writes to."""
        exports = self.source.ask_if_alive('query-block-exports', [])
        return next((e['node-name'] for e in exports if e['id'] == 'export-disk'), 'disk')

    def node(self, name):
        """The node's entry of query-named-block-nodes, or None."""
        nodes = self.source.ask_if_alive('query-named-block-nodes', [], flat=True)
        return next((n for n in nodes if n['node-name'] == name), None)

    # One run

    def run(self):
        try:
            self._run()
        except BaseException as error:
            raise AssertionError(f'schedule {self.number} ({", ".join(self.issued)}): {error}\n-- what was done:\n'
                                 + '\n'.join(self.log)) from error
        finally:
            self._end()

    def _run(self):
        names = sorted(VERBS)
        chosen = [self.rng.choice(names) for _ in range(self.length)]
        middle = self.rng.randrange(self.length - 1)
        chosen[middle:middle + 2] = pair(self.number)
        chosen[:middle] = [name for name in chosen[:middle] if name not in ENDS]
        chosen[:0] = self.rng.choice(OPENINGS)      # most verbs need something that is under way
        for name in chosen:
            if self.source.vm.running():
                self.pairs.add((self.issued[-1] if self.issued else '', name))
            self.issued.append(name)
            VERBS[name](self)
            self.check()
        if self.rng.random() < .1:
            self.check_not_frozen()
        self.settle()
        self.check()
        self.finish()

    def check(self):
        for side in (self.source, self.destination):
            if side and not side.ended and not side.vm.running():
                self.has_ended(side)
        if self.source.runs() and self.destination and self.destination.runs() and self.source.runs():
            # The guest never comes back. So when these three answers are "running", both sides run at the same time.
            assert not self.destination.runs(), 'the guest runs on both sides'
        for side in (self.source, self.destination):
            try:
                if side and side.alive():
                    side.ask(self.rng.choice(QUERIES))
            except QMPClosed:
                self.has_ended(side)

    def has_ended(self, side):
        """A process ends when it was told to, and a destination after a migration that failed."""
        status = side.vm.wait_exit()
        fair = side.ended or side is self.destination and status in (0, 1)
        assert fair, f'the {side.name} has ended with status {status}\n{side.vm.stderr()[-3000:]}'
        side.ended = True

    def check_not_frozen(self):
        """A client's write ends although peers hang: its disk is a file."""
        for writer in self.writers:
            if not self.source.alive() or not writer.is_alive():
                continue
            try:
                writer.wait_count(1, FREEZE_S)
            except HangError as error:
                raise AssertionError(f'the guest is frozen: {error}\n{describe_process(self.source.vm.pid)}') from None
            except AssertionError:
                pass        # the export was removed, or the guest has left

    def settle(self):
        """The peers answer again; then every command is answered."""
        self.log.append('-- the peers answer again')
        if self.server_stopped:
            self.server.signal(signal.SIGCONT)
            self.server_stopped = False
        if self.server.process.poll() is not None:
            self.server.start()
        if self.channels:
            self.channels.drop()
        end = time.monotonic() + COMMAND_S * time_scale()
        for side in (self.source, self.destination):
            for session in side.sessions if side else ():
                for sent in list(session.waiting):
                    outcome = session.collect(sent, max(.001, end - time.monotonic()))
                    assert outcome, f'the {side.name} did not answer {sent[0]}\n{describe_process(side.vm.pid)}'
                    self.log.append(f'{side.name} {side.sessions.index(session)}: {sent[0]}: {outcome}')
        self.end_jobs(end)

    def end_jobs(self, end):
        """A forced cancel ends every job."""
        while self.source.alive() and (jobs := self.source.ask('query-jobs')):
            assert time.monotonic() < end, f'jobs do not end: {jobs}\n{describe_process(self.source.vm.pid)}'
            for job in jobs:
                try:
                    if job['status'] == 'concluded':
                        self.source.vm.cmd('job-dismiss', id=job['id'])
                    elif job['type'] == 'mirror':
                        self.source.vm.cmd('block-job-cancel', device=job['id'], force=True)
                    else:
                        self.source.vm.cmd('job-cancel', id=job['id'])
                except QMPError:
                    pass        # it went on to its next state

    def finish(self):
        self.made['client'].clear()
        image = self.image() if self.source.alive() else None
        for writer in self.writers:
            writer.stop()
            assert not isinstance(writer.error, AssertionError), writer.error
        for side in (self.destination, self.source):
            if side and side.alive():
                side.ended = True
                side.vm.quit()
            elif side:
                side.vm.wait_exit()
        if image:
            self.model.check(*image)        # a snapshot's image may have the server below it
        self.server.close()
        if self.store:
            self.store.close()

    def image(self):
        """(path, format) of what the disk's export writes to; None when clients have no export any more."""
        exports = self.source.ask('query-block-exports')
        top = next((e['node-name'] for e in exports if e['id'] == 'export-disk'), None)
        nodes = {n['node-name']: n for n in self.source.ask('query-named-block-nodes', flat=True)}
        if top not in nodes:
            return None
        name = nodes[top]['image']['filename']
        if self.server.path in name:
            return self.target, 'raw'
        if self.store and self.store.path in name:
            return self.disk, self.format
        return name, nodes[top]['drv']

    def _end(self):
        if self.server_stopped:
            self.server.signal(signal.SIGCONT)
        if self.channels:
            self.channels.drop()
        for side in (self.destination, self.source):
            if side:
                side.ended = True
                side.end()
        self.server.close()
        if self.store:
            self.store.close()
