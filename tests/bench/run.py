#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Compare Ferry with stock QEMU by turns on the same images; medians, ratios, goals, a chart (docs/performance.md)."""
import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from cases import CASES as MIRROR_CASES, Unsupported, peers
import ferry
from migrate_cases import MIGRATE_CASES
from mirror_cases import COPYING, HARD_CASES, Busy

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / 'build' / 'bench'
CASES = [*MIRROR_CASES, *HARD_CASES, *(Busy(case) for case in MIRROR_CASES if case.name in COPYING), *MIGRATE_CASES]
FIGURES = {
    'ready_s': 'seconds to READY', 'cpu_s_per_gib': 'CPU s/GiB', 'peak_mib': 'peak memory, MiB',
    'startup_ms': 'start-up, ms', 'idle_mib': 'idle memory, MiB', 'alone_p99_us': 'p99 alone, µs',
    'total_s': 'seconds', 'cpu_s': 'CPU s, both sides', 'downtime_ms': 'downtime, ms', 'held_mib': 'memory held, MiB',
    'pairs': 'time/plain write+read',
    'background_p99_us': 'p99 background, µs', 'write_blocking_p99_us': 'p99 write-blocking, µs',
}


def measure(case, binaries, options):
    """Runs of one case by turns: {binary: {figure: [values]}}, and what went wrong: {binary: text}."""
    values = {name: {figure: [] for figure in case.goals()} for name in binaries}
    errors = {}
    lab = ferry.Lab(limit_s=None)
    try:
        case.prepare(lab, options)
        names = list(binaries)
        for turn in range(-1, options.runs):        # turn -1 warms caches and does not count
            # The order changes, so that no binary always finds in the caches what another left there.
            for name in names[turn % len(names):] + names[:turn % len(names)]:
                if name in errors:
                    continue
                try:
                    for figure, value in case.run(lab, binaries[name]).items():
                        if turn >= 0:
                            values[name][figure].append(value)
                except Exception as error:      # one binary's failure is a result, too
                    errors[name] = str(error).splitlines()[0][:160]
    except Unsupported as error:
        errors['this machine'] = str(error)
    finally:
        lab.close()
    return values, errors


def rows_of(case, values, peer_names):
    """One row a figure with its medians, Ferry's ratio to each peer, and the one that its goal is about."""
    rows = []
    limits = case.limits() if hasattr(case, 'limits') else {}
    for figure, goal in case.goals().items():
        medians = {name: statistics.median(v[figure]) for name, v in values.items() if v[figure]}
        ratios = {p: medians['ferry'] / medians[p] for p in peer_names if p in medians and medians[p] and 'ferry' in medians}
        judged = max(ratios.values(), default=None) if getattr(case, 'best', False) else ratios.get('qemu')
        rows.append({'case': case.name, 'title': case.title, 'figure': figure, 'goal': goal,
                     'limit': limits.get(figure), 'medians': medians,
                     'ratios': ratios, 'judged': judged, 'runs': {name: v[figure] for name, v in values.items()}})
    return rows


def number(value):
    return f'{value:.3f}' if value < 10 else f'{value:.1f}'


def print_rows(rows, peer_names):
    for row in rows:
        cells = [f'{row["title"]:31}', f'{FIGURES[row["figure"]]:24}',
                 f'{number(row["medians"]["ferry"]) if "ferry" in row["medians"] else "-":>9}']
        for peer in peer_names:
            cells.append(f'{number(row["medians"][peer]) if peer in row["medians"] else "-":>9}')
            cells.append(f'{row["ratios"][peer]:6.2f}' if peer in row['ratios'] else '     -')
        goal = row['goal']
        cells.append(f'{goal:5.2f}' if goal is not None else '    -')
        if goal is not None and row['judged'] is not None:
            cells.append('reached' if row['judged'] <= goal else 'NOT reached')
        if row['limit'] is not None and 'ferry' in row['medians']:
            word = 'within' if row['medians']['ferry'] <= row['limit'] else 'BEYOND'
            cells.append(f'{word} {row["limit"]:.4g}')
        print(' '.join(cells), flush=True)


def chart(rows):
    """An SVG with a bar for each ratio to the peer that its goal is about and a mark at the goal."""
    rows = [r for r in rows if r['judged'] is not None]
    left, width, height, top = 330, 420, 24, 56
    largest = max([1.2, *(r['judged'] for r in rows)])

    def x(value):
        return left + value / largest * width
    bottom = top + height * len(rows)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 70}" height="{bottom + 40}" '
           'font-family="sans-serif" font-size="12">',
           '<rect width="100%" height="100%" fill="white"/>',
           '<text x="12" y="22" font-size="15">Ferry in relation to stock QEMU (1 = the same, shorter is better)</text>',
           '<text x="12" y="40" fill="#666">black mark: the goal</text>']
    for i, row in enumerate(rows):
        y, ratio, goal = top + i * height, row['judged'], row['goal']
        colour = '#8a8a8a' if goal is None else '#2e8b57' if ratio <= goal else '#c0392b'
        out.append(f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{row["title"]}: {FIGURES[row["figure"]]}</text>')
        out.append(f'<rect x="{left}" y="{y + 4}" width="{x(ratio) - left:.1f}" height="{height - 8}" fill="{colour}"/>')
        out.append(f'<text x="{x(ratio) + 5:.1f}" y="{y + 16}">{ratio:.2f}</text>')
        if goal is not None:
            out.append(f'<rect x="{x(goal) - 1:.1f}" y="{y + 1}" width="2" height="{height - 2}" fill="black"/>')
    out.append(f'<line x1="{x(1):.1f}" y1="{top - 6}" x2="{x(1):.1f}" y2="{bottom + 6}" stroke="#444" stroke-dasharray="4 3"/>')
    out.append(f'<text x="{x(1):.1f}" y="{bottom + 22}" text-anchor="middle">1</text></svg>')
    return '\n'.join(out)


def main():
    parser = argparse.ArgumentParser(prog='scripts/bench', description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=int(os.environ.get('RUNS', '5')))
    parser.add_argument('--cases', default=os.environ.get('CASES', ''), help='comma-separated: ' + ','.join(c.name for c in CASES))
    parser.add_argument('--size', type=int, default=1024, metavar='MIB', help='data of the copying cases')
    parser.add_argument('--binary', default=str(ROOT / 'build' / 'qemu-system-x86_64'), help='what stands for Ferry')
    options = parser.parse_args()
    wanted = [c for c in options.cases.split(',') if c]
    unknown = set(wanted) - {c.name for c in CASES}
    if unknown:
        sys.exit(f'bench: no case {", ".join(sorted(unknown))}')
    if os.environ.get('PARSE_ONLY'):        # scripts/parse-first
        return 0
    binaries = peers(options.binary)
    peer_names = [n for n in binaries if n != 'ferry']
    print(f'medians of {options.runs} runs; ratio = Ferry/peer')
    print(' '.join([f'{"case":31}', f'{"figure":24}', f'{"ferry":>9}', *(f'{p[:9]:>9}  ratio' for p in peer_names), ' goal']))
    all_rows, all_errors = [], {}
    for case in CASES:
        if wanted and case.name not in wanted:
            continue
        values, errors = measure(case, binaries, options)
        rows = rows_of(case, values, peer_names)
        if any(r['medians'] for r in rows):
            print_rows(rows, peer_names)
        for name, text in errors.items():
            print(f'{case.title:31} {name} failed: {text}', flush=True)
        all_rows += rows
        all_errors[case.name] = errors
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / 'results.json').write_text(json.dumps({'runs': options.runs, 'binaries': binaries, 'rows': all_rows,
                                                  'errors': all_errors}, indent=1))
    if peer_names:
        (OUT / 'chart.svg').write_text(chart(all_rows))
    print(f'wrote {OUT.relative_to(ROOT)}/results.json and chart.svg')


if __name__ == '__main__':
    main()
