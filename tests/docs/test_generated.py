"""What of the pages is made from the code is what the code makes."""

import re
import subprocess
import sys
from collections import Counter

import pytest
from places import ROOT

from alignguard import load_probes
from alignguard.probes.public.benchmarks import BENCHMARKS

GENERATE = ROOT / "docs" / "generate.py"


def check(root=ROOT):
    command = [sys.executable, root / "docs" / "generate.py", "--check"]
    return subprocess.run(command, capture_output=True, text=True, cwd=root)


def test_what_is_made_is_up_to_date():
    done = check()
    assert done.returncode == 0, done.stderr


def test_what_is_out_of_date_is_named_in_a_line(tmp_path):
    for name in ("README.md", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    for name in ("alignguard", "docs", "benchmarks/results"):
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".md", ".svg", ".json"):
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(path.read_text("utf-8"), "utf-8")
    page = tmp_path / "docs" / "figures.md"
    page.write_text(page.read_text("utf-8").replace("nats per token", "bits per token", 1), "utf-8")
    done = check(tmp_path)
    assert done.returncode == 1
    assert done.stderr == "docs/figures.md out of date; run: python docs/generate.py\n"


def test_the_readme_counts_the_probes_there_are():
    counts = Counter(probe.dimension for probe in load_probes("core"))
    for page in ("README.md", "alignguard/probes/README.md"):
        rows = re.findall(r"^\| (\w+) \| (\d+) \|", (ROOT / page).read_text("utf-8"), re.M)
        assert {name: int(count) for name, count in rows} == counts, page


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
def test_every_benchmark_stands_on_its_page(benchmark):
    page = (ROOT / "docs" / "benchmarks.md").read_text("utf-8")
    rows = [line for line in page.splitlines() if re.search(rf"^\|[^|]*\b{benchmark.name}\b", line)]
    assert len(rows) == 2  # where it is from, and its aggregates
    assert f"`{benchmark.hub}`" in rows[0] or not benchmark.hub


def test_the_readme_is_no_longer_than_people_read():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 200
