# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of all tests that drive the binary; docs/testing.md shows how to use them."""
import collections
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / 'lib'))

import ferry        # noqa: E402  the path is set just above
from ferry import journal, nbd_script   # noqa: E402

LAST_RESORT_S = 60      # a test that its own guards did not end is ended by pytest-timeout so much later


@pytest.fixture
def lab(request):
    """Everything a test starts; ended and checked afterwards. @pytest.mark.limit(seconds) moves its hang guard."""
    mark = request.node.get_closest_marker('limit')
    one = ferry.Lab(request.node.name, *(mark.args if mark else ()))
    yield one
    one.close()


@pytest.fixture
def work(lab):
    """A folder of the test's own, on tmpfs where there is one."""
    return lab.work


@pytest.fixture
def disk_work(lab):
    """A folder on a disk's file system."""
    return lab.disk_folder()


@pytest.fixture
def vmm(lab):
    """Starts a binary: vmm('-blockdev', ..., name='source')."""
    return lab.vmm


@pytest.fixture
def vm(lab):
    """A binary without any device."""
    return lab.vmm()


@pytest.fixture
def qemu_nbd(lab):
    """Starts stock qemu-nbd: qemu_nbd(image, 'qcow2')."""
    return lab.qemu_nbd


@pytest.fixture
def nbdkit(lab):
    """Starts nbdkit: nbdkit('memory', '1G')."""
    return lab.nbdkit


@pytest.fixture
def qtest(work):
    """Plays the guest of a binary: vmm(*qtest.args)."""
    one = ferry.QTest(work)
    yield one
    one.close()


@pytest.fixture
def odd_server(work):
    """Starts an NBD server that follows a script (ferry.nbd_script)."""
    servers = []

    def start(script):
        servers.append(nbd_script.Server(work / f'odd{len(servers)}', script))
        return servers[-1]
    yield start
    for server in servers:
        server.close()


@pytest.fixture
def need():
    """Skips with a reason: need.tool('nbdkit'), need.root(), need.that(condition, 'reason')."""
    class Need:
        @staticmethod
        def that(condition, reason):
            if not condition:
                pytest.skip(reason)

        @classmethod
        def tool(cls, *names):
            for name in names:
                cls.that(shutil.which(name), f'{name} is not installed')

        @classmethod
        def root(cls):
            cls.that(os.geteuid() == 0, 'needs root')
    return Need


def pytest_configure(config):
    config.addinivalue_line('markers', 'limit(seconds): hang guard of this test')
    config.addinivalue_line('markers', 'once: no binary takes part, so that the sanitized run leaves it out')
    journal.register(config)


def deadline_s(item):
    mark = item.get_closest_marker('limit')
    return ((mark.args[0] if mark else ferry.lab.TEST_LIMIT_S) + LAST_RESORT_S) * ferry.time_scale()


def sample(config, items, of):
    """Leaves one row in `of` of each test that has a table of rows, its first one always."""
    seen = collections.Counter()
    left_out = []
    for item in list(items):
        test = item.nodeid.split('[')[0]
        if seen[test] % of:
            items.remove(item)
            left_out.append(item)
        seen[test] += 1
    config.hook.pytest_deselected(items=left_out)


def pytest_collection_modifyitems(config, items):
    sample(config, items, int(os.environ.get('FERRY_SAMPLE', '1')))
    for item in items:
        if config.pluginmanager.hasplugin('timeout') and not item.get_closest_marker('timeout'):
            item.add_marker(pytest.mark.timeout(deadline_s(item), method='signal'))
        if 'ASAN_OPTIONS' in os.environ and item.get_closest_marker('once'):
            item.add_marker(pytest.mark.skip(reason='no binary takes part: passed with the ordinary build'))
    if not os.environ.get('FERRY_SLOW'):
        for item in items:
            if item.get_closest_marker('slow'):
                item.add_marker(pytest.mark.skip(reason='long: set FERRY_SLOW=1 (make check-slow)'))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    one = getattr(item, 'funcargs', {}).get('lab')
    if report.when == 'call' and report.failed and one:
        report.sections.append(('processes', one.describe()))
