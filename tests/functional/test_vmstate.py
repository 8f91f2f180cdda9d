# SPDX-License-Identifier: GPL-2.0-or-later
"""-dump-vmstate writes what devices' states look like, in QEMU's layout, and ends."""
import json
import subprocess

import ferry


def dump(*args):
    return subprocess.run([*ferry.binary(), '-machine', 'none', *args], capture_output=True, text=True, timeout=60,
                          check=False)


def test_dump_is_written_and_the_process_ends(work):
    done = dump('-dump-vmstate', str(work / 'out.json'))
    assert (done.returncode, done.stdout) == (0, '')
    text = (work / 'out.json').read_text()
    assert text.startswith('{\n  "vmschkmachine": {\n    "Name": "none"\n  }')
    for name, entry in json.loads(text).items():
        if name == 'vmschkmachine':
            continue
        assert list(entry) == ['Name', 'version_id', 'minimum_version_id', 'Description']
        assert entry['Name'] == name
        assert list(entry['Description'])[:3] == ['name', 'version_id', 'minimum_version_id']


def test_a_file_that_cannot_be_written_is_an_error(work):
    done = dump('-dump-vmstate', str(work / 'missing' / 'out.json'))
    assert done.returncode == 1
    assert 'No such file or directory' in done.stderr
