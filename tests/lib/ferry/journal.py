# SPDX-License-Identifier: GPL-2.0-or-later
"""A plugin of pytest that writes down what begins and what has ended, as it happens: a run that is cut off has told all.

FERRY_JOURNAL names the file: one JSON object a line, {"total": N}, {"begun": test, "at": time} and
{"ended": test, "outcome": "passed", "failed" or "skipped", "text": why}.
"""
import json
import os
import time

TEXT_MAX = 30000


class Journal:
    def __init__(self, path):
        self.file = open(path, 'a', encoding='utf-8')       # for as long as pytest runs
        self.outcomes = {}

    def write(self, entry):
        self.file.write(json.dumps(entry) + '\n')
        self.file.flush()

    def pytest_collection_finish(self, session):
        if session.items:
            self.write({'total': len(session.items)})

    def pytest_xdist_node_collection_finished(self, node, ids):
        self.write({'total': len(ids)})

    def pytest_runtest_logstart(self, nodeid, location):
        self.write({'begun': nodeid, 'at': time.time()})

    def pytest_runtest_logreport(self, report):
        """A test has up to three reports; the first that is not good counts."""
        outcome, text = self.outcomes.get(report.nodeid, ('passed', ''))
        if outcome != 'failed' and report.outcome != 'passed':
            outcome = report.outcome
            text = report.longrepr[2].removeprefix('Skipped: ') if report.skipped and isinstance(report.longrepr, tuple) \
                else '\n'.join([report.longreprtext, *(f'-- {name}\n{body}' for name, body in report.sections)])
        self.outcomes[report.nodeid] = (outcome, text)
        # A worker that crashed has no teardown.
        if report.when == 'teardown' or report.when not in ('setup', 'call'):
            self.outcomes.pop(report.nodeid)
            self.write({'ended': report.nodeid, 'outcome': outcome, 'text': text[-TEXT_MAX:]})

    def pytest_sessionfinish(self, session):
        for name, (outcome, text) in self.outcomes.items():
            self.write({'ended': name, 'outcome': outcome, 'text': text[-TEXT_MAX:]})
        self.outcomes = {}


def register(config):
    """In the process that the user started, not in its workers."""
    path = os.environ.get('FERRY_JOURNAL')
    if path and not hasattr(config, 'workerinput'):
        config.pluginmanager.register(Journal(path), 'ferry-journal')
