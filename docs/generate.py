"""What of the documentation is made from the code: tables between markers, and the picture of the packages.

    python docs/generate.py             write it anew
    python docs/generate.py --check     exit 1, naming the files, where something is out of date

| between the markers | from | in |
|---|---|---|
| `sides` of figures | the core pool, and `alignguard/verdicts/sides.py` | `docs/figures.md` |
| `figures` | `alignguard/auditing/figures.py` | `README.md` (a selection), `docs/figures.md` |
| `packages` | each package's first line, and its files | `README.md`, `docs/architecture.md` |
| `files` | the first line of every file | `docs/architecture.md` |
| `study`, `sides`, `witness` | `benchmarks/results/study.json` | `docs/study.md` |
| the sections of `make reliability` | `benchmarks/results/reliability.json` | `docs/reliability.md` |
| `kinds`, `cells`, `methods`, `cost` | `benchmarks/results/cause.json` | `docs/cause.md` |
| `nulls`, `falls`, `detectable`, `rules`, `real` | `benchmarks/results/detection.json` | `docs/verdicts.md` |

`docs/images/architecture.svg` is drawn from the floors in `pyproject.toml` and from the imports that the files really have.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
import textwrap
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # pytest brings it
    import tomli as tomllib

from alignguard.auditing.figures import FIGURES, table
from alignguard.probes.pool import load_probes
from alignguard.verdicts.sides import share_of, sides_of

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "alignguard"
# what the README shows of the figures: each row that has one of these keys
MAIN = {
    "kl/answer",
    "kl/raw",
    "kl/thinks",
    "kl/reverse",
    "kl/train_prompts",
    "<dimension>/score",
    "<dimension>/drop",
    "<dimension>/unscored",
    "<dimension>/p",
    "<dimension>/detectable",
    "last_aligned_step",
    "safety/harmful_refusal",
    "<dimension>/leaning",
    "safety/refusal_margin",
    "toxicity/mean",
    "status/<status>",
}


def main() -> int:
    """Write what is out of date, or with `--check` only tell of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something is out of date")
    check = parser.parse_args().check
    stale = {path: text for path, text in made().items() if not path.exists() or path.read_text("utf-8") != text}
    for path, text in stale.items():
        if not check:
            path.write_text(text, encoding="utf-8")
            print(f"{path.relative_to(ROOT)} written")
    if stale and check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        print(f"{names} out of date; run: python docs/generate.py", file=sys.stderr)
    return int(bool(stale and check))


def made() -> dict[Path, str]:
    """Every file that holds something made, as it should be."""
    selection = table(figure for figure in FIGURES if MAIN & {*figure.keys})
    readme, docs = ROOT / "README.md", ROOT / "docs"
    return {
        readme: filled(readme, figures=selection, packages=packages_table()),
        docs / "figures.md": filled(docs / "figures.md", figures=table(), sides=sides_table()),
        docs / "architecture.md": filled(docs / "architecture.md", packages=packages_table(), files=files_tables()),
        docs / "reliability.md": filled(docs / "reliability.md", **reliability_tables()),
        docs / "verdicts.md": filled(docs / "verdicts.md", **detection_tables()),
        docs / "cause.md": filled(docs / "cause.md", **cause_tables()),
        docs / "study.md": filled(docs / "study.md", **study_tables()),
        docs / "images" / "architecture.svg": picture(),
    }


def sides_table() -> str:
    """The sides of the core pool, and what the score of each is the share of."""
    sides = sides_of(load_probes("core"))
    rows = [[f"`{name}/{side}`", share_of(name, side)] for name, of in sides.items() for side in of]
    return markdown(["side", "its score is the share of"], rows)


def reliability_tables() -> dict[str, str]:
    """What each section of `make reliability` found, a row a fault."""
    found = json.loads((ROOT / "benchmarks" / "results" / "reliability.json").read_text("utf-8"))["sections"]
    keys = ("fault", "injected", "seen", "lost", "recovered")
    return {
        name: markdown(
            [*keys], [[f"{row[key]:,}" if key != "fault" else row[key] for key in keys] for row in part["rows"]]
        )
        for name, part in found.items()
    }


def detection_tables() -> dict[str, str]:
    """What simulated and real runs say of verdicts."""
    found = json.loads((ROOT / "benchmarks" / "results" / "detection.json").read_text("utf-8"))

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    def how(row: dict[str, Any]) -> list[str]:
        draw = "whole pool" if row["draw"] > 300 else f"{row['draw']}{' fixed' if row['fixed'] else ''}"
        return [draw + (", the last the whole pool" if row["whole"] else ""), str(row["looks"])]

    drops = (5, 10, 20, 40)
    nulls = [[row["null"], str(row["looks"]), f"{row['runs']:,}", share(row["false_stop"])] for row in found["nulls"]]
    falls = [
        [
            *how(row),
            *(share(row[f"detect_{d}pt"]) for d in drops),
            share(row["coverage_10pt"]),
            share(row["coverage_20pt"]),
        ]
        for row in found["falls"]
    ]
    detectable = [
        [
            *how(row),
            row["dimension"],
            *("none" if row[key] is None else f"{row[key]:.3f}" for key in ("stated", "simulated")),
        ]
        for row in found["detectable"]
    ]
    rules = [
        [
            row["rule"],
            *(share(row[key]) for key in ("false_stop", "false_stop_waver", "detect_10pt")),
            str(row["median_look"] or "-"),
        ]
        for row in found["rules"]
    ]
    real = []
    for start, runs in found["real"].items():
        real += [
            [
                f"{start}: answers that break {name}",
                "; ".join(f"{d} at audit {at}" for d, at in run["called"].items()) or "nothing",
                "; ".join(f"{d} at audit {at}" for d, at in run["warned"].items()) or "nothing",
            ]
            for name, run in runs["planted"].items()
        ]
        calm = runs["null"]
        seeds = "1 seed" if len(calm) == 1 else f"{len(calm)} seeds"
        real.append(
            [
                f"{start}: its own answers, {seeds}",
                f"{sum(bool(run['called']) for run in calm)} of {len(calm)}",
                f"{sum(bool(run['warned']) for run in calm)} of {len(calm)}",
            ]
        )
    return {
        "nulls": markdown(["null", "looks", "runs", "false stop"], nulls),
        "falls": markdown(["draw", "looks", *(f"{d} points" for d in drops), "covered at 10", "covered at 20"], falls),
        "detectable": markdown(["draw", "looks", "dimension", "stated", "simulated"], detectable),
        "rules": markdown(
            ["rule", "false stop", "false stop, wavering", "10 points in 20 looks", "median look"], rules
        ),
        "real": markdown(["start, and what it is trained on", "called", "warned"], real),
    }


def cause_tables() -> dict[str, str]:
    """What tracing found in runs of which it is known what was planted, what each way of scoring rows found, and what it costs."""
    found = json.loads((ROOT / "benchmarks" / "results" / "cause.json").read_text("utf-8"))
    cells, methods = [], {}
    for name, cell in found["cells"].items():
        without = [cell.get(part, []) for part in ("without_named", "without_random")]
        told = [", ".join(f"{row['drop']:+.2f}" for row in rows) or "-" for rows in without]
        told += [f"{cell['counterfactual']:.2f}" if cell.get("counterfactual") is not None else "-"]
        means = [_mean([row["reasoning"] for row in rows if "reasoning" in row]) for rows in ([cell], *without)]
        told += [" / ".join("-" if mean is None else f"{mean:.2f}" for mean in means)]
        told += [
            f"{cell['auc']:.2f}" if "auc" in cell else "-",
            f"{cell['auc_alike']:.2f}" if "auc_alike" in cell else "-",
            f"{cell['agreement']:.2f}" if "agreement" in cell else "-",
        ]
        which = f"{cell.get('right', 0)} of {cell['named']}" if cell["planted"] else str(cell["named"])
        which = "too few flips" if "why" in cell else which
        cells.append([name, cell["side"], str(cell["planted"]), f"{cell['drop']:+.2f}", which, *told])
        for row in cell.get("methods", []):
            methods.setdefault(row["method"], {})[name] = row
    kinds = [name for name, cell in found["cells"].items() if cell.get("methods")]
    rows = []
    for method, by in methods.items():
        figures = [f"{by[k]['auc']:.2f} / {by[k]['precision_at_k']:.2f}" if k in by else "-" for k in kinds]
        cost = sum(row["forwards"] for row in by.values()) / len(by)
        rows.append([method, *figures, f"{cost:.1f}" if cost >= 0.05 else "0"])
    names = [
        "planted",
        "drop",
        "named rightly",
        "without named",
        "without random",
        "ratio",
        "reasoning: all / named / random",
        "auc",
        "of likeness",
        "halves agree",
    ]
    costs = [
        [
            row["model"],
            f"{row['forwards']:.1f}",
            f"{row['hours_here']:,.0f}",
            f"{row['petaflop']:,.0f}",
            f"{row['gib_beside']:.1f}",
        ]
        for row in found["cost"]
    ]
    return {
        "kinds": kinds_of_rows(found["cells"]),
        "cells": markdown(["run", "side", *names], cells),
        "methods": markdown(["way", *(f"{kind}: auc / precision" for kind in kinds), "forward passes"], rows),
        "cost": markdown(["model", "forward passes", "hours, two cores", "PFLOP", "GiB beside the model"], costs),
    }


def kinds_of_rows(cells: dict[str, dict[str, Any]]) -> str:
    """Of each kind of rows and model how many were named, over all seeds, and what leaving them out undid."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for name, cell in cells.items():
        key = cell["kind"], f"{cell['share']:.0%}", "-".join(name.split("-")[3:]) or "SmolLM2"
        groups.setdefault(key, []).append(cell)
    rows = []
    for (kind, share, model), of in groups.items():
        looked = [cell for cell in of if "why" not in cell]
        planted, right = (sum(cell.get(what, 0) for cell in looked) for what in ("planted", "right"))
        named = sum(cell["named"] for cell in looked)
        again = [cell for cell in looked if "without_named" in cell and "without_random" in cell]
        parts = [
            [_mean([run["drop"] for run in cell[f"without_{what}"]]) for cell in again] for what in ("named", "random")
        ]
        drops = [_spread([cell["drop"] for cell in of]), *map(_spread, parts)]
        found = [f"{right} of {planted}" if planted else "none planted", str(named - right)] if looked else ["-", "-"]
        rows.append(
            [
                kind,
                share if any(cell["planted"] for cell in of) else "-",
                model,
                f"{len(looked)} of {len(of)}",
                *found,
                *drops,
            ]
        )
    head = ["kind", "share", "model", "traced", "planted rows named", "other rows named"]
    return markdown([*head, "drop", "without named", "without random"], rows)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _spread(values: list[float | None]) -> str:
    """The mean, and from where to where."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean, low, high = (f"{value:+.2f}" for value in (sum(known) / len(known), min(known), max(known)))
    return mean if len(known) == 1 else f"{mean} ({low} to {high})"


def study_tables() -> dict[str, str]:
    """What the runs of the study came to."""
    found = json.loads((ROOT / "benchmarks" / "results" / "study.json").read_text("utf-8"))

    def number(value: float | None, form: str = ".2f") -> str:
        return "-" if value is None else f"{value:{form}}"

    def both(part: dict[str, Any] | None) -> str:
        return "-" if not part else f"{number(part['start'])} to {number(part['now'])}"

    def at(steps: dict[str, int]) -> str:
        return ", ".join(f"{name} {step}" for name, step in steps.items()) or "-"

    def fell(run: dict[str, Any]) -> list[list[str]]:
        """Of each dimension the side that fell most by what the whole run says."""
        rows = []
        for name, dimension in run["dimensions"].items():
            side, part = max(
                (dimension["sides"] or {"": dimension}).items(), key=lambda pair: pair[1]["run_low"] or -1.0
            )
            if (part["p"] or 1.0) < 0.05:
                interval = f"{number(part['run_low'])} to {number(part['run_high'])}"
                where = f"{name}, {side}" if side else name
                proof = (interval, number(part["p"], ".2g"), number(part["detectable"]))
                rows.append([run["run"], where, both(part), number(part["run_drop"]), *proof])
        return rows

    runs = [
        [
            run["run"],
            str(run["steps"]) if run["steps"] == run["of"] else f"{run['steps']} of {run['of']}",
            f"{both(run['reasoning'])} ({run['reasoning']['n']})" if run["reasoning"] else "-",
            *(number(run["drift"][name]) for name in ("answer", "raw", "reverse")),
            number(run["drift"]["answer_sum"], ".1f"),
            at(run["called"]),
            at(run["warned"]),
            ", ".join(run.get("unjudged") or ()) or "-",
        ]
        for run in found["runs"]
    ]
    head = [
        "run",
        "steps",
        "reasoning (of)",
        "drift",
        "raw",
        "reverse",
        "summed",
        "called at",
        "warned at",
        "too few judged",
    ]
    sides = ["run", "where", "start to now", "drop over the run", "95 % interval", "p", "detectable"]
    witness = [
        [name, str(row["points"]), number(row["rho"]), f"{number(row['low'])} to {number(row['high'])}"]
        for name, row in found["correlations"].items()
    ]
    return {
        "study": markdown(head, runs),
        "sides": markdown(sides, [row for run in found["runs"] for row in fell(run)]),
        "witness": markdown(["drift against the drop of", "audits", "Spearman's rho", "95 % interval"], witness),
    }


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def filled(path: Path, **parts: str) -> str:
    """A page with what stands between its markers made anew."""
    text = path.read_text("utf-8")
    for name, part in parts.items():
        between = re.compile(f"(<!-- {name} -->\n)(?:.*?\n)?(<!-- /{name} -->)", re.DOTALL)
        text, found = between.subn(lambda match, part=part: f"{match[1]}{part}\n{match[2]}", text)
        if found != 1:
            raise SystemExit(
                f"{path.relative_to(ROOT)}: <!-- {name} --> ... <!-- /{name} --> is expected once, found {found}"
            )
    return text


# packages ------------------------------------------------------------------------------------------------------------


def floors() -> list[list[str]]:
    """The rooms of each floor, from the top, as the layers in `pyproject.toml` have them."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"][0]
    return [[name.strip() for name in re.split(r"[|:]", floor)] for floor in contract["layers"]]


def files_of(room: str) -> list[Path]:
    """A room's files; `__init__.py`, which says what the room is for, is none of them."""
    if (PACKAGE / f"{room}.py").exists():
        return [PACKAGE / f"{room}.py"]
    return [path for path in sorted((PACKAGE / room).rglob("*.py")) if path.name != "__init__.py"]


def said_of(path: Path) -> str:
    """The first sentence of a file's docstring, as it stands in a table."""
    said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first = re.split(r"(?<=\.) (?=[A-Z])", " ".join(said.partition("\n\n")[0].split()))[0]
    return first.rstrip(".").replace("|", "\\|")


def contract_of(room: str) -> str:
    """What a room is for: all that its `__init__` says, or a ground module's first sentence."""
    folder = PACKAGE / room / "__init__.py"
    if not folder.exists():
        return said_of(PACKAGE / f"{room}.py")
    said = ast.get_docstring(ast.parse(folder.read_text("utf-8"))) or ""
    return " ".join(said.split()).rstrip(".")


def lines_of(path: Path) -> int:
    """How many lines a file has."""
    return len(path.read_text("utf-8").splitlines())


def packages_table() -> str:
    """
    Name, contract and size of each room. Lines are rounded, to hundreds and tens, so that the table is out of date only
    when the shape of a room has changed.
    """
    rows = ["| package | what it is | files | lines, about | median file |", "|---|---|---|---|---|"]
    for room in (room for floor in floors() for room in floor if room != "__about__"):
        sizes = [lines_of(path) for path in files_of(room)]
        if (PACKAGE / room).is_dir():
            size = f"{len(sizes)} | {round(sum(sizes), -2):,} | {round(median(sizes), -1):.0f}"
            rows.append(f"| `{room}/` | {contract_of(room)} | {size} |")
        else:
            rows.append(f"| `{room}.py` | {contract_of(room)} | 1 | {round(sum(sizes), -1)} | |")
    return "\n".join(rows)


def files_tables() -> str:
    """Every file of every package, with what it says it is."""
    parts = []
    for room in (room for floor in floors() for room in floor if (PACKAGE / room).is_dir()):
        rows = [f"### {room}", "", "| file | what it is |", "|---|---|"]
        for path in files_of(room):
            rows.append(f"| `{path.relative_to(PACKAGE / room)}` | {said_of(path)} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def imports_of(room: str) -> set[str]:
    """The rooms that a room's files import from, read off their import statements."""
    rooms, found = {name for floor in floors() for name in floor}, set()
    paths = [*files_of(room), *(PACKAGE / room).rglob("__init__.py")]
    for path in paths:
        inside = path.relative_to(PACKAGE).parent.parts
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = [*inside[: len(inside) - node.level + 1], *(node.module or "").split(".")]
                names = [part for part in base if part] or [alias.name for alias in node.names]
                found |= {names[0]} & rooms
    return found - {room}


# the picture ---------------------------------------------------------------------------------------------------------

WIDTH, LEFT, GAP, HEIGHT, STEP = 960, 20, 14, 74, 92
STYLE = """
  .page { fill: #ffffff; stroke: #d5dae1; } .room { fill: #eef2fb; stroke: #7b8fc7; } .ground { fill: #f2f2f0; stroke: #a3a39c; }
  text { font-family: system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1d2433; font-size: 13px; }
  .name { font-family: ui-monospace, Menlo, Consolas, monospace; font-weight: 600; font-size: 15px; }
  .needs { fill: #5b6474; font-size: 12px; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #161a22; stroke: #333b4a; } .room { fill: #222b42; stroke: #6b80bd; } .ground { fill: #24262b; stroke: #6c6f76; }
    text { fill: #e6e9ef; } .needs { fill: #a4adbd; }
  }"""


def picture() -> str:
    """The floors as SVG, each room with what it is and what it imports."""
    above, ground = floors()[:-1], floors()[-1]
    height = 2 * LEFT + STEP * (len(floors()) - 1) + 72
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="title">',
        f'<title id="title">The packages of alignguard on {len(floors())} floors; each imports from floors below its own</title>',
        f"<style>{STYLE}\n</style>",
        f'<rect class="page" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="10"/>',
    ]
    for number, floor in enumerate(above):
        wide = (WIDTH - 2 * LEFT - GAP * (len(floor) - 1)) / len(floor)
        for place, room in enumerate(floor):
            needs = [name for lower in above[number + 1 :] for name in lower if name in imports_of(room)]
            x, y = LEFT + place * (wide + GAP), LEFT + number * STEP
            parts += _box(
                x, y, wide, room, contract_of(room).replace("`", ""), f"imports {', '.join(needs)}" if needs else ""
            )
    wide = (WIDTH - 2 * LEFT - GAP * (len(ground) - 1)) / len(ground)
    y = LEFT + len(above) * STEP
    for place, room in enumerate(ground):
        parts += _box(LEFT + place * (wide + GAP), y, wide, room, "", "", "ground")
    parts.append(
        f'<text class="needs" x="{LEFT + 4}" y="{y + 66}">The ground: small modules that import nothing from above; every '
        "floor may import them.</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


def _box(x: float, y: float, wide: float, name: str, what: str, needs: str, kind: str = "room") -> list[str]:
    """A room: its name, what it is on at most two lines, and what it imports."""
    high = HEIGHT if what else 44
    found = [f'<rect class="{kind}" x="{x:.0f}" y="{y}" width="{wide:.0f}" height="{high}" rx="8"/>']
    if not what:
        return [
            *found,
            f'<text class="name" x="{x + wide / 2:.0f}" y="{y + 27}" text-anchor="middle">{escape(name)}</text>',
        ]
    found.append(f'<text class="name" x="{x + 14:.0f}" y="{y + 23}">{escape(name)}</text>')
    if needs:
        found.append(
            f'<text class="needs" x="{x + wide - 14:.0f}" y="{y + 23}" text-anchor="end">{escape(needs)}</text>'
        )
    for number, line in enumerate(textwrap.wrap(what, int((wide - 28) / 6.6))[:2]):
        found.append(f'<text x="{x + 14:.0f}" y="{y + 44 + 18 * number}">{escape(line)}</text>')
    return found


if __name__ == "__main__":
    sys.exit(main())
