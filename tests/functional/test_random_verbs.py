# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever verbs users send in whatever order, while peers hang and die: monitors answer, one side runs, data is right.

FERRY_SCHEDULES=N runs the first N schedules of make check-slow (10000 without it).
"""
import os

import pytest

import ferry
from ferry import schedule, verbs   # noqa: F401  verbs registers what schedules are made of

SHORT, PART = 96, 8
LONG, LONG_PART = int(os.environ.get('FERRY_SCHEDULES', '10000')), 50


def run(lab, numbers):
    print(f'schedules {", ".join(map(str, numbers))}')
    for number in numbers:
        one = schedule.Schedule(lab.vmm, lab.folder(ferry.lab.fast_folder()), number)
        one.run()
        if schedule.pair(number) not in one.pairs:
            print('not issued:', *schedule.pair(number), f'(the source of schedule {number} had ended)')


@pytest.mark.limit(300)
@pytest.mark.parametrize('first', range(0, SHORT, PART))
def test_short_schedules(lab, first):
    """Spread over all pairs of verbs."""
    step = schedule.pairs() // SHORT
    run(lab, [number * step for number in range(first, first + PART)])


@pytest.mark.slow
@pytest.mark.limit(1800)
@pytest.mark.parametrize('first', range(0, LONG, LONG_PART))
def test_long_schedules(lab, first):
    run(lab, range(first, min(first + LONG_PART, LONG)))


def test_every_pair_of_verbs_is_in_a_long_run():
    seen = {schedule.pair(number) for number in range(LONG)}
    for missing in sorted({schedule.pair(n) for n in range(schedule.pairs())} - seen):
        print('not in this run:', *missing)
    assert len(seen) == min(LONG, schedule.pairs())
