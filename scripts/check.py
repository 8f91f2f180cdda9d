#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Build Ferry and pass every test; the last line is `N passed, N failed[, N skipped]`.

Called by scripts/check, which installs what is missing first. A stage that crashes, hangs or runs no test
counts as a failure. Logs are kept in build/check/.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / 'build' / 'check'
STAGE_LIMIT_S = 1500        # a hang guard, not an expectation
TAIL_LINES = 60
JOBS = min(os.cpu_count() or 1, 8)
PYTHON = '/usr/bin/python3'     # Debian's: the one that sees Debian's modules


class Result:
    """What a stage found. `skipped` holds (test, reason), `failures` (test, text)."""

    def __init__(self):
        self.passed = 0
        self.failures = []
        self.skipped = []

    def fail(self, name, text=''):
        self.failures.append((name, text))


def tail(path, lines=TAIL_LINES):
    try:
        text = Path(path).read_text(encoding='utf-8', errors='replace').splitlines()
    except OSError:
        return ''
    return '\n'.join(text[-lines:])


def run(command, log, env=None, limit_s=STAGE_LIMIT_S):
    """Runs a command with its output in `log`; returns its status, or 'no answer ...' when it had to be killed."""
    with open(log, 'ab') as out:
        out.write(f'$ {" ".join(map(str, command))}\n'.encode())
        out.flush()
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return f'no end within {limit_s} s'
        finally:
            # Also what the command left behind, and everything when we are interrupted.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()


def step(result, name, command, log, **kwargs):
    """One command that counts as one test."""
    log.unlink(missing_ok=True)
    status = run(command, log, **kwargs)
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
    step(result, 'codespell', ['codespell', '--ignore-words', '.codespell-ignore', *everything, 'README.md', 'CONTRIBUTING.md', 'docs'],
         LOGS / 'codespell.log')
    step(result, 'shellcheck', ['shellcheck', *shell], LOGS / 'shellcheck.log')
    step(result, 'clang-format', ['clang-format', '--dry-run', '-Werror', *c_files], LOGS / 'clang-format.log')
    scripts = [n for n in everything if n.endswith('.py') or is_script_of(n, b'python')]
    step(result, 'flake8', ['flake8', *scripts], LOGS / 'flake8.log')


def stage_tidy(result, options):
    """clang-tidy with the checks of .clang-tidy over what goes into the binary; a file is one command, so that a
    finding says whose it is."""
    files = [n for n in sources('.c') if not n.startswith('tests/')]
    log = LOGS / 'tidy.log'
    log.unlink(missing_ok=True)

    def tidy(name):
        done = subprocess.run(['clang-tidy', '-p', 'build', '--quiet', name], cwd=ROOT, capture_output=True,
                              text=True, errors='replace', stdin=subprocess.DEVNULL, timeout=STAGE_LIMIT_S, check=False)
        return done.returncode, done.stdout + done.stderr

    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool, open(log, 'w', encoding='utf-8') as out:
        for name, (status, text) in zip(files, pool.map(tidy, files)):
            out.write(f'== {name}\n{text}')
            if status == 0:
                continue
            result.fail(name, text)
    if not files:
        result.fail('tidy', 'no sources')
    elif not result.failures:
        result.passed += 1


def build(result, folder, *configure):
    log = LOGS / f'{folder}.log'
    ninja = ROOT / folder / 'build.ninja'
    if not ninja.exists() or configure:
        if not step(result, f'{folder}: configure', ['./configure', f'--build-dir={folder}', *configure], log):
            return
    log = LOGS / f'{folder}-ninja.log'
    step(result, f'{folder}: ninja', ['ninja', '-C', folder, '-j', str(JOBS)], log)


def stage_build(result, options):
    """The ordinary build; one that is there keeps its options, but warnings are errors here."""
    if (ROOT / 'build' / 'build.ninja').exists():
        step(result, 'build: werror', ['meson', 'configure', 'build', '-Dwerror=true'], LOGS / 'configure.log')
        build(result, 'build')
    else:
        build(result, 'build', '--enable-werror')


def stage_clang(result, options):
    build(result, 'build-clang', '--cc=clang', '--enable-werror')


def stage_asan_build(result, options):
    build(result, 'build-asan', '--enable-sanitizers', '--enable-werror')


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
    scale = ['-t', '6'] if env else ['-t', '3']
    status = run(['meson', 'test', '-C', folder, '--no-rebuild', '--num-processes', str(JOBS), '--print-errorlogs',
                  *scale], log, env=env)
    count_junit(result, report, status, log)
    reasons = tap_reasons(report.with_name('testlog.txt'))
    result.skipped = [(test, reasons.get(test.rsplit(' ', 1)[-1], reason)) for test, reason in result.skipped]


def stage_unit(result, options):
    unit(result, 'build', 'unit', None, options)


def stage_asan_unit(result, options):
    unit(result, 'build-asan', 'asan-unit', SANITIZER_ENV, options)


def functional(result, folder, name, env, options, *tests):
    log = LOGS / f'{name}.log'
    report = LOGS / f'{name}.xml'
    for path in (log, report):
        path.unlink(missing_ok=True)
    binary = options.binary or str(ROOT / folder / 'qemu-system-x86_64')
    command = [PYTHON, '-m', 'pytest', '-c', 'tests/pytest.ini', '--rootdir=tests', '-p', 'no:cacheprovider', '-q',
               '-ra', f'--junitxml={report}', '-n', str(JOBS)]
    if options.keyword:
        command += ['-k', options.keyword]
    status = run([*command, *tests], log, env={'FERRY_BINARY': binary, 'PYTHONDONTWRITEBYTECODE': '1', **(env or {})})
    count_junit(result, report, status, log)


def stage_functional(result, options):
    functional(result, 'build', 'functional', None, options, 'tests/functional')


def stage_interop(result, options):
    """With the stock QEMU of the distribution, and those in FERRY_PEERS."""
    functional(result, 'build', 'interop', None, options, 'tests/interop')


def stage_asan_functional(result, options):
    """Both, the latter with the distribution's QEMU only."""
    functional(result, 'build-asan', 'asan-functional', {**SANITIZER_ENV, 'FERRY_TIME_SCALE': '4', 'FERRY_PEERS': ''},
               options, 'tests/functional', 'tests/interop')


def stage_demo(result, options):
    """What a user runs first: a live disk mirrored under load, three ways."""
    step(result, 'demo', ['scripts/demo', '--size', '256'], LOGS / 'demo.log')


def stage_install(result, options):
    """What `ninja install` puts where."""
    folder = LOGS / 'install'
    shutil.rmtree(folder, ignore_errors=True)
    if step(result, 'install', ['meson', 'install', '-C', 'build', '--no-rebuild', '--destdir', str(folder)],
            LOGS / 'install.log'):
        found = {str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file()}
        for wanted in ('bin/qemu-system-x86_64', 'man1/qemu-system-x86_64.1', 'doc/ferry/README.md'):
            if any(name.endswith(wanted) for name in found):
                result.passed += 1
            else:
                result.fail(f'installed {wanted}', '\n'.join(sorted(found)))
    shutil.rmtree(folder, ignore_errors=True)


def stage_fuzz(result, options):
    """Each fuzzer for a few seconds from its seed corpus; scripts/fuzz prints one line a target."""
    log = LOGS / 'fuzz.log'
    report = LOGS / 'fuzz.json'
    for path in (log, report):
        path.unlink(missing_ok=True)
    status = run(['scripts/fuzz', '--seconds', '10', '--report', str(report)], log)
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
    # name, title, function, in --fast
    ('style', 'style and structure', stage_style, True),
    ('build', 'build with gcc, warnings are errors', stage_build, True),
    ('unit', 'unit tests', stage_unit, True),
    ('functional', 'tests of the real binary', stage_functional, True),
    ('interop', 'with stock QEMU, libnbd and nbdkit', stage_interop, True),
    ('demo', 'the demonstration', stage_demo, True),
    ('install', 'installation', stage_install, True),
    ('tidy', 'clang-tidy', stage_tidy, False),
    ('clang', 'build with clang, warnings are errors', stage_clang, False),
    ('asan-build', 'build with address and undefined behaviour sanitizers', stage_asan_build, False),
    ('asan-unit', 'unit tests, sanitized', stage_asan_unit, False),
    ('asan-functional', 'tests of the real binary, sanitized', stage_asan_functional, False),
    ('fuzz', 'fuzzers, briefly', stage_fuzz, False),
]
NEEDS = {'unit': 'build', 'functional': 'build', 'interop': 'build', 'demo': 'build', 'install': 'build', 'tidy': 'build',
         'asan-unit': 'asan-build', 'asan-functional': 'asan-build'}


def run_stage(name, title, function, options):
    print(f'== {name}: {title}', flush=True)
    result = Result()
    start = time.monotonic()
    try:
        function(result, options)
    except Exception as error:      # a stage that breaks is a failed test, never a silent one
        result.fail(name, f'{type(error).__name__}: {error}')
    for test, text in result.failures:
        print(f'-- FAILED {name}: {test}')
        lines = text.splitlines()
        if len(lines) > TAIL_LINES:
            lines = lines[:TAIL_LINES // 3] + ['   [...]'] + lines[-TAIL_LINES * 2 // 3:]
        print('\n'.join('   ' + line for line in lines))
    for test, reason in result.skipped:
        print(f'-- skipped {name}: {test}: {reason.splitlines()[0] if reason else "no reason given"}')
    skipped = f', {len(result.skipped)} skipped' if result.skipped else ''
    print(f'   {result.passed} passed, {len(result.failures)} failed{skipped} ({time.monotonic() - start:.0f} s)',
          flush=True)
    return result


def wanted(options):
    names = [s[0] for s in STAGES]
    for name in options.only:
        if name not in names:
            sys.exit(f'check: no stage {name}; stages: {", ".join(names)}')
    if not options.only:
        return [n for n, _, _, fast in STAGES if fast or not options.fast]
    return [n for n in names if n in options.only or any(NEEDS.get(o) == n for o in options.only)]


def main():
    parser = argparse.ArgumentParser(prog='scripts/check', description=__doc__.splitlines()[0])
    parser.add_argument('--fast', action='store_true', help='leave out clang, the sanitizers and the fuzzers')
    parser.add_argument('--only', metavar='STAGE', action='append', default=[],
                        help='run this stage and the build it needs; may be repeated: ' + ', '.join(s[0] for s in STAGES))
    parser.add_argument('-k', dest='keyword', metavar='EXPR', help='only tests of the real binary that match (pytest -k)')
    parser.add_argument('--binary', help='test this binary instead of the one built')
    options = parser.parse_args()
    os.chdir(ROOT)
    LOGS.mkdir(parents=True, exist_ok=True)

    stages = wanted(options)
    passed = failed = skipped = 0
    start = time.monotonic()
    broken = set()
    for name, title, function, _ in STAGES:
        if name not in stages:
            continue
        if NEEDS.get(name) in broken:
            print(f'== {name}: not run, its build failed')
            failed += 1
            continue
        result = run_stage(name, title, function, options)
        if result.failures:
            broken.add(name)
        passed += result.passed
        failed += len(result.failures)
        skipped += len(result.skipped)
    print(f'took {time.monotonic() - start:.0f} s; logs in build/check/')
    print(f'{passed} passed, {failed} failed' + (f', {skipped} skipped' if skipped else ''))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main())
