"""Nothing lost, nothing disturbed: what is promised of a run, tried by faults that are planted.

    python benchmarks/reliability.py [--quick] [SECTION ...]

Each section is a module of its own, `reliability_SECTION.py` with `run(quick) -> Found`, and can be run alone; the table has a row a
fault: how often it was injected, seen, how often something was lost, and recovered. What a section finds goes into
`results/reliability.json` (with `--quick` into `results/quick/`), where those that were not run keep what is on file. The command
ends with 1 where something does not hold.

| section | fields | what is tried |
|---|---|---|
| `bad_inputs` | `bad_inputs`, `clear_errors` | wrong arguments, files, references, records, options: each told in one line |
| `hostile` | `injections`, `escaped` | injections through every field of everything that is shown, in a browser, a terminal, a table |
| `kills` | `killed`, `lost`, `cut`, `cut_silently` | processes killed, files cut, disks full; and what a resumed run ends with |
| `faults` | `faults`, `survived` | faults of trackers, scorers, memory, weights, signals, callbacks, disks while a model is trained |
| `observer` | `bit_identical`, `cells` | runs with the callback and without, to the bit; Ctrl-C at lines of an audit |
| `long` | `long_audits`, `long_*` | five hundred audits in one process: what it holds, how long an audit takes, what is on disk |
| `servers` | `servers`, `server_*` | servers of MLflow and Trackio, ended in the middle of a run |
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module

from common import kept, table, write

# in the order of the table
SECTIONS = ("bad_inputs", "hostile", "kills", "faults", "observer", "long", "servers")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="small sizes, kept apart")
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"no section '{name}'; there are {', '.join(SECTIONS)}")
    wrong = []
    for name in SECTIONS:
        if options.sections and name not in options.sections:
            continue
        begun = time.perf_counter()
        found = import_module(f"reliability_{name}").run(options.quick)
        results = kept("reliability", options.quick)  # anew: a section may be run beside another
        told = {"rows": found.rows, "wrong": found.wrong, "seconds": round(time.perf_counter() - begun, 1)}
        sections = results.pop("sections", {}) | {name: told}
        write("reliability", {**results, **found.figures, "sections": sections}, options.quick)
        print(f"\n{name}: {', '.join(f'{key} {value}' for key, value in found.figures.items())}")
        print(table(found.rows))
        wrong += found.wrong
    for line in wrong:
        print(f"does not hold: {line}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
