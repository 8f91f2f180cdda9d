# SPDX-License-Identifier: GPL-2.0-or-later
"""clang-tidy for scripts/check: files side by side, and no file twice with the same content.

What a file's result depends on is its preprocessed text, comments included (NOLINT), the compiler's flags, .clang-tidy
and clang-tidy itself. A file found clean leaves its digest in a cache of empty files; findings are never cached.
"""
import concurrent.futures
import hashlib
import json
import os
import shlex
import subprocess
import time
from pathlib import Path

from check_run import ROOT, stopping

FILE_LIMIT_S = 900          # hang guard of one file
CACHE_MAX_AGE_S = 30 * 86400


def cache_folder():
    base = os.environ.get('XDG_CACHE_HOME') or os.path.expanduser('~/.cache')
    return Path(base) / 'ferry-tidy'


# The analyzer follows paths and takes most of the time, 4 CPU seconds a file and more: `make check-slow` runs it.
CHECKS = [] if os.environ.get('FERRY_SLOW') else ['--checks=-clang-analyzer-*']


class Tidy:
    def __init__(self, build, log, jobs, nice):
        self.build, self.log, self.jobs, self.nice = build, log, jobs, nice
        self.done = self.known = self.total = 0
        self.cache = cache_folder()
        self.commands = {}      # file: (folder, words of the compiler)
        self.salt = b''

    def words(self):
        """How far it is, for people."""
        return f'{self.done} of {self.total} files, {self.known} of them unchanged since they were found clean'

    def _prepare(self):
        self.cache.mkdir(parents=True, exist_ok=True)
        for old in self.cache.iterdir():
            if time.time() - old.stat().st_mtime > CACHE_MAX_AGE_S:
                old.unlink(missing_ok=True)
        for entry in json.loads((ROOT / self.build / 'compile_commands.json').read_text(encoding='utf-8')):
            name = os.path.relpath(os.path.join(entry['directory'], entry['file']), ROOT)
            self.commands[name] = (entry['directory'], shlex.split(entry['command']))
        version = subprocess.run(['clang-tidy', '--version'], capture_output=True, check=True).stdout
        self.salt = version + (ROOT / '.clang-tidy').read_bytes() + ' '.join(CHECKS).encode()

    def _digest(self, name):
        """What the result of a file depends on; None where that cannot be told."""
        if name not in self.commands:
            return None
        folder, words = self.commands[name]
        flags = [w for w in words if w.startswith(('-D', '-I', '-std', '-f', '-W', '-m', '-O', '-U'))]
        # -C keeps comments, -dD macros: both can change what the checks say.
        done = subprocess.run(['clang', *flags, '-E', '-C', '-dD', '-w', str(ROOT / name)], cwd=folder, capture_output=True,
                              stdin=subprocess.DEVNULL, timeout=FILE_LIMIT_S, check=False)
        if done.returncode != 0:
            return None
        return hashlib.sha256(b'\0'.join([self.salt, ' '.join(flags).encode(), name.encode(), done.stdout])).hexdigest()

    def _one(self, name):
        """'' for a clean file, else what clang-tidy printed."""
        if stopping.is_set():
            return 'the check was ended'
        digest = self._digest(name)
        mark = self.cache / digest if digest else None
        if mark and mark.exists():
            os.utime(mark)
            self.known += 1
            self.done += 1
            return ''
        done = subprocess.run(['nice', '-n', str(self.nice), 'clang-tidy', '-p', self.build, '--quiet', *CHECKS, name], cwd=ROOT,
                              capture_output=True, text=True, errors='replace', stdin=subprocess.DEVNULL,
                              timeout=FILE_LIMIT_S, check=False)
        self.done += 1
        if done.returncode != 0:
            return (done.stdout + done.stderr).strip() or f'status {done.returncode}'
        if mark:
            mark.touch()
        return ''

    def check(self, files):
        """(file, text) for each file with findings."""
        self._prepare()
        self.total = len(files)
        # Long files first, so that both ends come at the same time.
        files = sorted(files, key=lambda n: -(ROOT / n).stat().st_size)
        found = []
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool, open(self.log, 'w', encoding='utf-8') as out:
            for name, text in zip(files, pool.map(self._one, files)):
                out.write(f'== {name}\n{text}\n')
                if text:
                    found.append((name, text))
        return found
