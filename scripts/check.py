#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Ferry and pass every test; the last line is `N passed, N failed[, N skipped]`.

Called by scripts/check, which installs what is missing first. A stage that crashes, hangs or runs no test
counts as a failure. Logs are kept in build/check/.
"""
import argparse
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import check_tidy
from check_run import (ROOT, TAIL_LINES, Board, Journal, Result, Scratch, adopt_orphans, end_children, run, stopping,
                       tail)

LOGS = ROOT / 'build' / 'check'
JOBS = min(os.cpu_count() or 1, 8)
PYTHON = '/usr/bin/python3'     # Debian's: the one that sees Debian's modules
LINE_SHOWN = 400
BACKGROUND_NICE = 10            # compilers beside tests take what these leave idle
TEST_WORKERS = 2 * JOBS         # tests of the real binary wait for peers and timers half of their time
SANITIZED_SAMPLE = 3            # one row in so many of a test's table runs sanitized

board = Board()
scratch = Scratch()


def step(result, name, command, log, **kwargs):
    """One command that counts as one test."""
    log.unlink(missing_ok=True)
    status = run(result, command, log, **kwargs)
    if status == 0:
        result.passed += 1
        return True
    result.fail(name, f'{" ".join(map(str, command))[:200]}: status {status}\n{tail(log)}')
    return False


def count_junit(result, path, status, log):
    """Adds the cases of a JUnit report; a runner that failed without a failed case is a failure itself."""
    try:
        cases = list(ET.parse(path).iter('testcase'))
    except (OSError, ET.ParseError):
        cases = []
    before = len(result.failures)
    for case in cases:
        name = f'{case.get("classname", "")}::{case.get("name", "")}'
        bad = case.find('failure')
        bad = case.find('error') if bad is None else bad
        skip = case.find('skipped')
        if bad is not None:
            result.fail(name, ((bad.get('message') or '') + '\n' + (bad.text or '')).strip())
        elif skip is not None:
            result.skipped.append((name, (skip.get('message') or skip.text or 'no reason given').strip()))
        else:
            result.passed += 1
    if not cases:
        result.fail('runner', f'it ran no test (status {status})\n{tail(log)}')
    elif status != 0 and len(result.failures) == before:
        result.fail('runner', f'status {status}\n{tail(log)}')


def sources(*suffixes):
    names = subprocess.run(['scripts/check-floors', '--list'], cwd=ROOT, capture_output=True, text=True,
                           check=True).stdout.split()
    return [n for n in names if n.endswith(suffixes)] if suffixes else names


def is_script_of(name, *interpreters):
    """Whether the first line of a file without a suffix names one of the interpreters."""
    if '.' in Path(name).name:
        return False
    with open(ROOT / name, 'rb') as file:
        first = file.readline().strip()
    return first.startswith(b'#!') and any(i in first for i in interpreters)


def stage_style(result, options):
    everything = sources()
    c_files = sources('.c', '.h')
    shell = [n for n in everything if n.endswith('.sh') or is_script_of(n, b'/sh', b'bash')]
    step(result, 'floors', ['scripts/check-floors'], LOGS / 'floors.log')
    step(result, 'words', ['scripts/check-words'], LOGS / 'words.log')
    step(result, 'codespell', ['codespell', '--ignore-words', '.codespell-ignore', *everything, 'README.md', 'CONTRIBUTING.md', 'docs'],
         LOGS / 'codespell.log')
    step(result, 'shellcheck', ['shellcheck', *shell], LOGS / 'shellcheck.log')
    step(result, 'clang-format', ['clang-format', '--dry-run', '-Werror', *c_files], LOGS / 'clang-format.log')
    scripts = [n for n in everything if n.endswith('.py') or is_script_of(n, b'python')]
    step(result, 'flake8', ['flake8', *scripts], LOGS / 'flake8.log')


def stage_tidy(result, options):
    """clang-tidy with the checks of .clang-tidy over what goes into the binary; a file is one command, so that a
    finding says whose it is. A file that was found clean is not read again while nothing that it includes changes."""
    files = [n for n in sources('.c') if not n.startswith('tests/')]
    run_of_files = check_tidy.Tidy('build', LOGS / 'tidy.log', JOBS, BACKGROUND_NICE)
    board.describe('tidy', run_of_files.words)
    for name, text in run_of_files.check(files):
        result.fail(name, text)
    if not files:
        result.fail('tidy', 'no sources')
    elif not result.failures:
        result.passed += 1


def last_count(log, pattern):
    """Words for how far a command is that prints NUMBER/TOTAL as it goes."""
    def words():
        found = re.findall(pattern, tail(log, 400), re.MULTILINE)
        return '{} of {}'.format(*found[-1]) if found else ''
    return words


def build(result, stage, folder, *configure, nice=BACKGROUND_NICE):
    log = LOGS / f'{folder}.log'
    ninja = ROOT / folder / 'build.ninja'
    if not ninja.exists() or configure:
        if not step(result, f'{folder}: configure', ['./configure', f'--build-dir={folder}', *configure], log):
            return
    log = LOGS / f'{folder}-ninja.log'
    board.describe(stage, last_count(log, r'^\[(\d+)/(\d+)\]'))
    step(result, f'{folder}: ninja', ['ninja', '-C', folder, '-j', str(JOBS)], log, nice=nice)


def stage_build(result, options):
    """The ordinary build; one that is there keeps its options, but warnings are errors here."""
    if (ROOT / 'build' / 'build.ninja').exists():
        step(result, 'build: werror', ['meson', 'configure', 'build', '-Dwerror=true'], LOGS / 'configure.log')
        build(result, 'build', 'build', nice=0)
    else:
        build(result, 'build', 'build', '--enable-werror', nice=0)


def stage_clang(result, options):
    """Everything with clang and with what the fuzzers need, which takes nothing away from the warnings."""
    build(result, 'clang', 'build-fuzz', '--enable-fuzzing', '--cc=clang', '--enable-werror')


def stage_asan_build(result, options):
    build(result, 'asan-build', 'build-asan', '--enable-sanitizers', '--enable-werror')


SANITIZER_ENV = {
    'ASAN_OPTIONS': 'detect_leaks=1:detect_stack_use_after_return=0:abort_on_error=0:exitcode=99',
    'UBSAN_OPTIONS': 'print_stacktrace=1:halt_on_error=1',
    'G_SLICE': 'always-malloc',
}


def tap_reasons(path):
    """Why tests were skipped, from the output meson kept: its JUnit report leaves that out."""
    try:
        text = path.read_text(encoding='utf-8', errors='replace')
    except OSError:
        return {}
    return dict(re.findall(r'^ok \d+ (\S+) # SKIP (.+)$', text, re.MULTILINE))


def unit(result, folder, name, env, options):
    log = LOGS / f'{name}.log'
    log.unlink(missing_ok=True)
    report = ROOT / folder / 'meson-logs' / 'testlog.junit.xml'
    report.unlink(missing_ok=True)
    scale = ['-t', '6'] if env else ['-t', '3']     # each test has 30 s times that
    board.describe(name, last_count(log, r'^ *(\d+)/(\d+) '))
    command = ['meson', 'test', '-C', folder, '--no-rebuild', '--num-processes', str(JOBS), '--print-errorlogs', *scale]
    status = run(result, command, log, env={**scratch.make(), **(env or {})})
    # The report has no case for a program that crashed or ran out of time; the log names it.
    text = log.read_text(encoding='utf-8', errors='replace')
    for test, how in dict(re.findall(r'^ *\d+/\d+ (\S+) +((?:FAIL|ERROR|TIMEOUT)\b.*)$', text, re.MULTILINE)).items():
        told = re.search(rf'^ *\d+/\d+ {re.escape(test)} .*\n(?:.*\n){{0,40}}', text, re.MULTILINE)
        result.fail(test, f'{how}\n{told.group() if told else ""}')
    count_junit(result, report, 0 if result.failures else status, log)
    reasons = tap_reasons(report.with_name('testlog.txt'))
    result.skipped = [(test, reasons.get(test.rsplit(' ', 1)[-1], reason)) for test, reason in result.skipped]


def stage_unit(result, options):
    unit(result, 'build', 'unit', None, options)


def stage_asan_unit(result, options):
    unit(result, 'build-asan', 'asan-unit', SANITIZER_ENV, options)


def functional(result, folder, name, env, options, *tests):
    log, report, journal = (LOGS / f'{name}.{kind}' for kind in ('log', 'xml', 'journal'))
    for path in (log, report, journal):
        path.unlink(missing_ok=True)
    binary = options.binary or str(ROOT / folder / 'qemu-system-x86_64')
    command = [PYTHON, '-m', 'pytest', '-c', 'tests/pytest.ini', '--rootdir=tests', '-p', 'no:cacheprovider', '-q',
               '-ra', f'--junitxml={report}', '-n', str(TEST_WORKERS)]
    if options.keyword:
        command += ['-k', options.keyword]
    told = Journal(journal)
    board.describe(name, told.words)
    status = run(result, [*command, *tests], log, journal=journal,
                 env={'FERRY_BINARY': binary, 'PYTHONDONTWRITEBYTECODE': '1', 'FERRY_JOURNAL': str(journal),
                      **scratch.make(), **(env or {})})
    told.count(result, status, log)


def stage_functional(result, options):
    functional(result, 'build', 'functional', None, options, 'tests/functional')


def stage_interop(result, options):
    """With the stock QEMU of the distribution, and those in FERRY_PEERS."""
    functional(result, 'build', 'interop', None, options, 'tests/interop')


def stage_asan_functional(result, options):
    """Both, the latter with the distribution's QEMU only; of each table of rows a part, FERRY_SLOW=1 for all."""
    whole = os.environ.get('FERRY_SLOW') or options.keyword
    functional(result, 'build-asan', 'asan-functional',
               {**SANITIZER_ENV, 'FERRY_TIME_SCALE': '4', 'FERRY_PEERS': '',
                'FERRY_SAMPLE': '1' if whole else str(SANITIZED_SAMPLE)},
               options, 'tests/functional', 'tests/interop')


def stage_demo(result, options):
    """What a user runs first: a live disk mirrored under load, three ways."""
    step(result, 'demo', ['scripts/demo', '--size', '256'], LOGS / 'demo.log', env=scratch.make())


def stage_install(result, options):
    """What `ninja install` puts where."""
    folder = LOGS / 'install'
    shutil.rmtree(folder, ignore_errors=True)
    if step(result, 'install', ['meson', 'install', '-C', 'build', '--no-rebuild', '--destdir', str(folder)],
            LOGS / 'install.log'):
        found = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}
        for wanted_file in ('bin/qemu-system-x86_64', 'man1/qemu-system-x86_64.1', 'doc/ferry/README.md', 'doc/ferry/CONTRIBUTING.md',
                            'doc/ferry/docs/chardev.md', 'doc/ferry/docs/qmp-reference.md'):
            if any(name.endswith(wanted_file) for name in found):
                result.passed += 1
            else:
                result.fail(f'installed {wanted_file}', '\n'.join(sorted(found)))
        for path in folder.rglob('*.md'):
            broken = [link for link in re.findall(r'\]\((?!https?:|#)([^)#]+)', path.read_text(encoding='utf-8'))
                      if not (path.parent / link).exists()]
            if broken:
                result.fail(f'links of {path.relative_to(folder)}', f'lead nowhere: {", ".join(broken)}')
            else:
                result.passed += 1
    shutil.rmtree(folder, ignore_errors=True)


def stage_fuzz(result, options):
    """Each fuzzer for a few seconds from its seed corpus; scripts/fuzz prints one line a target."""
    log = LOGS / 'fuzz.log'
    report = LOGS / 'fuzz.json'
    for path in (log, report):
        path.unlink(missing_ok=True)
    status = run(result, ['scripts/fuzz', '--seconds', '10', '--report', str(report)], log)
    try:
        targets = json.loads(report.read_text())
    except (OSError, ValueError) as error:
        result.fail('fuzz', f'no report ({error}), status {status}\n{tail(log)}')
        return
    for name, text in targets.items():
        if text:
            result.fail(name, text)
        else:
            result.passed += 1
    if status != 0 and not result.failures:
        result.fail('fuzz', f'status {status}\n{tail(log)}')


STAGES = [
    # name, title, function, in --fast, lane
    ('style', 'style and structure', stage_style, True, 'tests'),
    ('build', 'build with gcc, warnings are errors', stage_build, True, 'tests'),
    ('unit', 'unit tests', stage_unit, True, 'tests'),
    ('functional', 'tests of the real binary', stage_functional, True, 'tests'),
    ('interop', 'with stock QEMU, libnbd and nbdkit', stage_interop, True, 'tests'),
    ('demo', 'the demonstration', stage_demo, True, 'tests'),
    ('install', 'installation', stage_install, True, 'tests'),
    ('asan-build', 'build with address and undefined behaviour sanitizers', stage_asan_build, False, 'compilers'),
    ('clang', 'build with clang, warnings are errors', stage_clang, False, 'compilers'),
    ('tidy', 'clang-tidy', stage_tidy, False, 'compilers'),
    ('asan-unit', 'unit tests, sanitized', stage_asan_unit, False, 'tests'),
    ('asan-functional', 'tests of the real binary, sanitized', stage_asan_functional, False, 'tests'),
    ('fuzz', 'fuzzers, briefly', stage_fuzz, False, 'tests'),
]
NEEDS = {'unit': 'build', 'functional': 'build', 'interop': 'build', 'demo': 'build', 'install': 'build', 'tidy': 'build',
         'asan-build': 'build', 'clang': 'build', 'asan-unit': 'asan-build', 'asan-functional': 'asan-build', 'fuzz': 'clang'}


def words_of_failures(name, result):
    """Lines that say which tests of a stage failed, each with the beginning and the end of its output."""
    lines = []
    for test, text in result.failures:
        lines.append(f'-- FAILED {name}: {test}')
        words = text.splitlines()
        if len(words) > TAIL_LINES:
            words = words[:TAIL_LINES // 3] + ['   [...]'] + words[-TAIL_LINES * 2 // 3:]
        lines += ['   ' + word[:LINE_SHOWN] for word in words]
    return lines


def words_of_skips(name, result):
    """A line for each reason: the tests that were skipped for it, a table of rows as one with their number."""
    reasons = {}
    for test, reason in result.skipped:
        tests = reasons.setdefault(reason.splitlines()[0] if reason else 'no reason given', {})
        table = test.split('[')[0]
        tests[table] = tests.get(table, 0) + 1
    return [f'-- skipped {name}: {reason}: ' + ', '.join(test + (f' ({rows} rows)' if rows > 1 else '')
                                                         for test, rows in tests.items())
            for reason, tests in reasons.items()]


def report(name, title, result, took_s):
    """One piece of text, as other stages may be going on."""
    lines = [f'== {name}: {title}', *words_of_failures(name, result), *words_of_skips(name, result)]
    skipped = f', {len(result.skipped)} skipped' if result.skipped else ''
    cpu = f', {result.cpu_s:.0f} s of CPU' if result.cpu_s else ''
    lines.append(f'   {result.passed} passed, {len(result.failures)} failed{skipped} ({took_s:.0f} s{cpu})')
    board.line('\n'.join(lines))


def run_stage(name, title, function, options):
    board.begin(name)
    result = Result()
    start = time.monotonic()
    try:
        function(result, options)
    except Exception as error:      # a stage that breaks is a failed test, never a silent one
        result.fail(name, f'{type(error).__name__}: {error}')
    board.end(name)
    report(name, title, result, time.monotonic() - start)
    return result


class Lanes:
    """Stages of one lane run one after the other; the two lanes run side by side, as tests leave a core idle now and
    then and compilers do not."""

    def __init__(self, stages, options):
        self.stages, self.options = stages, options
        self.results = {}
        self.done = {name: threading.Event() for name, *_ in stages}

    def lane(self, which):
        for name, title, function, _, lane in self.stages:
            if lane != which:
                continue
            need = NEEDS.get(name)
            if need in self.done:
                self.done[need].wait()
            if stopping.is_set():
                return
            if need in self.done and self.results[need].failures:
                result = Result()
                result.fail(name, f'not run: {need} failed')
                report(name, title, result, 0)
            else:
                result = run_stage(name, title, function, self.options)
            self.results[name] = result
            self.done[name].set()

    def run(self):
        """All stages; ends early, with every thread ended, once `stopping` is set."""
        threads = [threading.Thread(target=self.lane, args=(which,), daemon=True) for which in ('tests', 'compilers')]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            if stopping.is_set():
                for event in self.done.values():
                    event.set()
            time.sleep(1)
            board.tick()


def wanted(options):
    names = [s[0] for s in STAGES]
    for name in options.only:
        if name not in names:
            sys.exit(f'check: no stage {name}; stages: {", ".join(names)}')
    if not options.only:
        return [n for n, _, _, fast, _ in STAGES if fast or not options.fast]
    chosen = list(options.only)
    for name in chosen:             # grows: a build may need another one
        if NEEDS.get(name) not in (None, *chosen):
            chosen.append(NEEDS[name])
    return [n for n in names if n in chosen]


def main():
    parser = argparse.ArgumentParser(prog='scripts/check', description=__doc__.splitlines()[0])
    parser.add_argument('--fast', action='store_true', help='leave out clang, the sanitizers and the fuzzers')
    parser.add_argument('--only', metavar='STAGE', action='append', default=[],
                        help='run this stage and the build it needs; may be repeated: ' + ', '.join(s[0] for s in STAGES))
    parser.add_argument('-k', dest='keyword', metavar='EXPR', help='only tests of the real binary that match (pytest -k)')
    parser.add_argument('--binary', help='test this binary instead of the one built')
    options = parser.parse_args()
    stages = wanted(options)
    if os.environ.get('PARSE_ONLY'):        # scripts/parse-first
        return 0
    os.chdir(ROOT)
    LOGS.mkdir(parents=True, exist_ok=True)
    ended_by = []

    def end(number, frame):
        ended_by.append(signal.Signals(number).name)
        stopping.set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)

    adopt_orphans()
    start = time.monotonic()
    lanes = Lanes([s for s in STAGES if s[0] in stages], options)
    try:
        lanes.run()
    finally:
        end_children()
        scratch.remove()
    for name, result in lanes.results.items():      # again: a log that was cut short keeps its end
        for line in words_of_failures(name, result):
            board.line(line)
    results = lanes.results.values()
    passed, failed, skipped = (sum(n) for n in ([r.passed for r in results], [len(r.failures) for r in results],
                                                [len(r.skipped) for r in results]))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    board.line(f'took {time.monotonic() - start:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of CPU; logs in build/check/')
    if ended_by:
        board.line(f'check: ended by {ended_by[0]} before it was done')
        failed += 1
    board.line(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
