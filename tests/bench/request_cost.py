#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""What one 4 KiB read costs, in Ferry and in stock QEMU by turns: requests a second, system calls, allocations.

Counts do not depend on how busy the machine is; requests a second do, so they are given as a ratio of runs by turns.
"""
import argparse
import json
import mmap
import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'lib'))
import ferry    # noqa: E402

BUILD = Path(os.environ.get('BUILD', ROOT / 'build'))
LOAD = BUILD / 'tests' / 'bench' / 'bench-block'
COUNTER = BUILD / 'tests' / 'bench' / 'libcount-allocations.so'
BYTES = 4096
SIZE = 64 << 20
LIMIT_S = 300


class Allocations:
    """The environment of a process whose allocations are counted, and their number so far."""

    def __init__(self, lab):
        path = lab.work / 'allocations'
        path.write_bytes(bytes(8))
        self.environment = {'LD_PRELOAD': str(COUNTER), 'COUNT_ALLOCATIONS': str(path)}
        with open(path, 'r+b') as file:
            self.map = mmap.mmap(file.fileno(), 8)

    def value(self):
        return int.from_bytes(self.map[:8], sys.byteorder)


class Calls:
    """Counts the system calls of a process that runs already, from here to total()."""

    def __init__(self, lab, pid):
        self.path = lab.work / 'calls'
        self.process = subprocess.Popen(['strace', '-f', '-c', '-o', self.path, '-p', str(pid)], stderr=subprocess.PIPE, text=True)
        self.process.stderr.readline()      # "Process N attached"

    def total(self):
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=LIMIT_S)
        return calls_in(self.path)


def calls_in(path):
    found = re.search(r'^ *[\d.]+ +[\d.]+ +(?:\d+ +)?(\d+)(?: +\d+)? total$', path.read_text(), re.M)
    return int(found.group(1)) if found else 0


def output(command, environment=None):
    done = subprocess.run([str(word) for word in command], env={**os.environ, **(environment or {})}, check=True,
                          capture_output=True, text=True, timeout=LIMIT_S)
    return done.stdout


def ferry_load(node):
    def command(depth, requests):
        return [LOAD, json.dumps(node), depth, requests]
    return command, lambda text, requests: float(text)


def stock_load(*args):
    def command(depth, requests):
        return ['qemu-img', 'bench', '-c', requests, '-d', depth, '-s', BYTES, *args]
    return command, lambda text, requests: requests / float(re.search(r'in ([\d.]+) seconds', text).group(1))


class InProcess:
    """A program that opens the disk itself. What starting costs falls out: two runs of N and 5 N requests."""

    def __init__(self, title, ours, stock):
        self.title, self.sides = title, {'ferry': ours, 'qemu': stock}

    def rate(self, lab, side, depth, requests):
        command, rate = self.sides[side]
        return rate(output(command(depth, requests)), requests)

    def counts(self, lab, side, depth, requests):
        command, _ = self.sides[side]
        calls, allocations = [], []
        for n in requests, 5 * requests:
            path = lab.work / 'calls'
            output(['strace', '-f', '-c', '-o', path, *command(depth, n)])
            calls.append(calls_in(path))
            counter = Allocations(lab)
            output(command(depth, n), counter.environment)
            allocations.append(counter.value())
        return tuple((after - before) / (4 * requests) for before, after in (calls, allocations))


class Export:
    """An NBD export in an iothread; the load is Ferry's client for both, and only the server is counted."""

    def __init__(self, title, image):
        self.title, self.image = title, image

    def server(self, lab, side, environment=None):
        """The process, and the node that a client opens."""
        path = lab.work / 'nbd.sock'
        path.unlink(missing_ok=True)
        node = {'driver': 'nbd', 'export': 'disk', 'server': {'type': 'unix', 'path': str(path)}}
        if side == 'ferry':
            vm = lab.vmm('-object', 'iothread,id=io', env=environment or {})
            vm.add('file', node_name='disk', filename=str(self.image))
            vm.cmd('nbd-server-start', addr={'type': 'unix', 'data': {'path': str(path)}})
            vm.cmd('block-export-add', type='nbd', id='e', node_name='disk', name='disk', iothread='io')
            return vm.process, node
        pid = lab.work / 'qsd.pid'
        pid.unlink(missing_ok=True)
        output(['qemu-storage-daemon', '--daemonize', '--pidfile', pid, '--object', 'iothread,id=io',
                '--blockdev', f'file,node-name=disk,filename={self.image}',
                '--nbd-server', f'addr.type=unix,addr.path={path}',
                '--export', 'nbd,id=e,node-name=disk,name=disk,iothread=io'], environment)
        return int(pid.read_text()), node

    def stop(self, server):
        if isinstance(server, int):
            os.kill(server, signal.SIGTERM)
        else:
            server.terminate()
            server.wait(LIMIT_S)

    def rate(self, lab, side, depth, requests):
        server, node = self.server(lab, side)
        try:
            command, rate = ferry_load(node)
            return rate(output(command(depth, requests)), requests)
        finally:
            self.stop(server)

    def counts(self, lab, side, depth, requests):
        counter = Allocations(lab)
        server, node = self.server(lab, side, counter.environment)
        command, _ = ferry_load(node)
        try:
            calls = Calls(lab, server if isinstance(server, int) else server.pid)
            before = counter.value()
            output(command(depth, requests))
            return calls.total() / requests, (counter.value() - before) / requests
        finally:
            self.stop(server)


def cases(lab):
    memory = ferry.make_image(lab.work / 'disk.raw', SIZE, seed=1, data=SIZE)
    direct = ferry.make_image(lab.disk_folder() / 'disk.raw', SIZE, seed=1, data=SIZE)
    null = {'driver': 'null-co', 'size': 1 << 30, 'read-zeroes': False}
    return [
        InProcess('null-co', ferry_load(null), stock_load('--image-opts', 'driver=null-co,size=1G,read-zeroes=off')),
        InProcess('file on tmpfs', ferry_load({'driver': 'file', 'filename': str(memory)}),
                  stock_load('-f', 'raw', '-i', 'io_uring', memory)),
        InProcess('O_DIRECT file', ferry_load({'driver': 'file', 'filename': str(direct), 'cache': {'direct': True}}),
                  stock_load('-f', 'raw', '-t', 'none', '-i', 'io_uring', direct)),
        Export('NBD export, file on tmpfs', memory),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--runs', type=int, default=int(os.environ.get('RUNS', 3)))
    parser.add_argument('--requests', type=int, default=20000)
    parser.add_argument('--depth', type=int, action='append')
    options = parser.parse_args()
    lab = ferry.Lab(limit_s=None)
    print(f'load {os.getloadavg()[0]:.1f}, {os.cpu_count()} processors; each cell Ferry / QEMU')
    print('| path | depth | requests a second, ratio | system calls a request | allocations a request |')
    print('| --- | --- | --- | --- | --- |')
    try:
        for case in cases(lab):
            for depth in options.depth or [1, 32]:
                rates = {'ferry': [], 'qemu': []}
                for turn in range(options.runs):
                    for side in sorted(rates, reverse=turn % 2):
                        rates[side].append(case.rate(lab, side, depth, options.requests))
                ours, stock = (statistics.median(rates[side]) for side in ('ferry', 'qemu'))
                counts = [case.counts(lab, side, depth, options.requests // 10) for side in ('ferry', 'qemu')]
                cells = [' / '.join(f'{count[i]:.2f}' for count in counts) for i in (0, 1)]
                print(f'| {case.title} | {depth} | {ours:.0f} / {stock:.0f}, {ours / stock:.2f} | {cells[0]} | {cells[1]} |',
                      flush=True)
    finally:
        lab.close()


if __name__ == '__main__':
    main()
