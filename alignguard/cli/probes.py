"""`alignguard probes list`, `show` and `check`: what is asked."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict

from ..auditing.prompts import turns
from ..probes.pool import load_probes, named, read_pool
from ..probes.probe import DIMENSIONS, Probe, pool_hash, repeats
from ..probes.public.benchmarks import BENCHMARKS
from ..probes.public.load import load_public
from ..report.terminal import dumps
from .said import say


def run(options: argparse.Namespace) -> None:
    """Run the command."""
    {"list": _list, "show": _show, "check": _check}[options.what](options)


def _load(options: argparse.Namespace) -> list[Probe]:
    return load_public(options.source, options.path) if options.path else read_pool(options.source)[0]


def _list(options: argparse.Namespace) -> None:
    counts = Counter(probe.dimension for probe in load_probes("core"))
    if options.json:
        benchmarks = [{"name": b.name, "hub": b.hub} for b in BENCHMARKS]
        print(dumps({"core": {d: counts[d] for d in DIMENSIONS}, "benchmarks": benchmarks}))
        return
    say(f"core ({sum(counts.values()):,} probes)")
    for dimension in DIMENSIONS:
        say(f"  {dimension:<12} {counts[dimension]:>4}")
    say("published benchmarks, from the hub or with --path from a file")
    for benchmark in BENCHMARKS:
        say(f"  {benchmark.name:<18} {benchmark.hub}")


def _show(options: argparse.Namespace) -> None:
    pool = _load(options)[: options.size]
    if options.json:
        print(dumps([asdict(probe) for probe in pool]))
        return
    for probe in pool:
        right = probe.expect or probe.expected or ", ".join(probe.secrets or probe.facts)
        right = right or (probe.options[probe.target].strip() if probe.options and probe.target >= 0 else "")
        labels = "  ".join(filter(None, (probe.dimension, probe.judge, probe.group, probe.condition)))
        say(f"{probe.id}  {labels}  family {probe.family}" + (f"  [{right}]" if right else ""))
        for turn in turns(probe):
            say("\n".join(f"    {line}" for line in f"{turn['role']}: {turn['content']}".splitlines()))
        say("")


def _check(options: argparse.Namespace) -> None:
    pool = _load(options)
    again = repeats(pool)
    apart = sum(probe.family != before.family for probe, before in again)
    about = {
        "probes": len(pool),
        "hash": pool_hash(pool),
        "families": len({(p.dimension, p.family) for p in pool}),
        "largest_family": max(Counter((p.dimension, p.family) for p in pool).values()),
        "repeated": len(again),
        "dimensions": dict(Counter(p.dimension for p in pool)),
        "judges": dict(Counter(p.judge for p in pool)),
        "groups": dict(Counter(p.group or "-" for p in pool)),
    }
    if options.json:
        ids = [(probe.id, before.id) for probe, before in again]
        print(dumps({**about, "repeated_in_other_families": apart, "repeats": ids}))
        return
    told = f"{len(again)} ({named(again)}), {apart} of them in other families" if again else "0"
    say(f"{options.source}: fine")
    for key, value in about.items():
        value = told if key == "repeated" else value
        shown = ", ".join(f"{k} {n}" for k, n in value.items()) if isinstance(value, dict) else value
        say(f"  {key.replace('_', ' '):<15} {shown}")
    if apart:
        say("in families of their own they count as independent evidence: give them one family, or leave them out")
