"""`alignguard compare` and `alignguard report` on the records of real runs of a tiny model."""

import json
import re
import shutil
from dataclasses import replace
from html import unescape

import pytest
from audited import right_choices
from runs import guard, sft
from tiny import tiny_model, tiny_probes

from alignguard import Schedule, StopRule
from alignguard.cli import main
from alignguard.records.about import About
from alignguard.records.record import read_record

DIMENSIONS = ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood", "reasoning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tokenizer):
    """A run that hardly moves, and one that loses what it took for right; with their callbacks."""
    root, found = tmp_path_factory.mktemp("runs"), {}
    pool = right_choices(tiny_model(tokenizer), tokenizer, 60)
    for name, rate in (("calm", 1e-9), ("wild", 1e-1)):
        rule = StopRule(alpha=0.04, floors={"toxicity": 0.01}, stop=False, checkpoint=False)
        found[name] = guard(probes=pool, stop=rule, schedule=Schedule(at=(1, 2, 3), every=0, draw=40))
        sft(tokenizer, root / name, [found[name]], model=tiny_model(tokenizer), learning_rate=rate).train()
    assert not found["calm"].run.verdict.since and "ethics" in found["wild"].run.verdict.since
    return root, found


@pytest.fixture
def copied(runs, tmp_path):
    """A record to break."""
    shutil.copytree(runs[0] / "wild", tmp_path / "wild")
    return tmp_path / "wild"


def lines(root, name):
    return [json.loads(line) for line in (root / name / "alignguard" / "audits.jsonl").read_text().splitlines()]


def test_a_report_is_rebuilt_byte_for_byte(runs, tmp_path, capsys):
    root, found = runs
    for name, code in (("calm", 0), ("wild", 3)):
        target = tmp_path / f"{name}.html"
        assert main(["report", str(root / name), "--output", str(target)]) == code
        assert target.read_bytes() == (root / name / "_alignguard" / "report.html").read_bytes()
        out = capsys.readouterr().out
        since = found[name].run.verdict.since
        assert f"ethics (called at step {since['ethics']})" in out if since else ": no regression found; " in out


def test_what_is_read_back_is_what_the_run_came_to(runs, capsys):
    root, found = runs
    verdict = found["wild"].run.verdict
    record = read_record(str(root / "wild" / "alignguard"))
    assert record.about.is_run and record.about.was == "start" and record.note == ""
    assert (record.verdict.since, record.verdict.warnings) == (verdict.since, verdict.warnings)
    for name, d in verdict.dimensions.items():  # as text, in which a figure that does not exist equals another
        read = record.verdict.dimensions[name]
        assert repr(replace(read, flips=())) == repr(replace(d, flips=()))
        assert [(f.after.probe, f.drop) for f in read.flips] == [(f.after.probe, f.drop) for f in d.flips]
    main(["report", str(root / "wild"), "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"] == lines(root, "wild")[-1]["metrics"] and said["regressed"] == verdict.since
    assert said["last_aligned_step"] == verdict.last_aligned_step
    assert {name: d["drop"] for name, d in said["dimensions"].items() if d["n"] and name != "together"} == {
        name: d.drop for name, d in verdict.dimensions.items() if d.n
    }


def test_the_rule_of_the_record_is_held_to(copied):
    """Of the record, not of a default: with another rule another verdict."""
    path = copied / "alignguard" / "baseline.json"
    about = json.loads(path.read_text())
    assert About.from_dict(about).stop_rule == StopRule(
        0.04,
        floors={"toxicity": 0.01},
        dimensions=About.from_dict(about).stop_rule.dimensions,
        stop=False,
        checkpoint=False,
    )
    path.write_text(json.dumps(about | {"stop": about["stop"] | {"dimensions": ["safety"]}}))
    assert "ethics" not in read_record(str(copied)).verdict.since
    del about["stop"]  # as it was written in words alone
    path.write_text(json.dumps(about))
    read = read_record(str(copied))
    assert About.from_dict(about).stop_rule == StopRule(alpha=0.04) and "ethics" in read.verdict.since
    assert About(rule="signs, alpha 0.01, min_drop 0.1, patience 3; stops nothing").stop_rule == StopRule(
        0.01, 0.1, rule="sign-test", patience=3
    )
    assert About().stop_rule == StopRule()


def test_a_record_without_its_probes_is_shown_as_far_as_it_goes(copied, capsys):
    (copied / "_alignguard" / "probes.jsonl").unlink()
    record = read_record(str(copied))
    assert "ethics" in record.verdict.since and record.verdict.flips[0].after.probe.prompt.startswith("I told ")
    assert main(["report", str(copied)]) == 3
    assert "note: probes.jsonl is missing: prompts are shown as their last turn" in capsys.readouterr().out
    main(["card", str(copied)])
    assert "evidence is of whole dimensions" in capsys.readouterr().out


def test_a_report_without_quotes(copied):
    quoting, bare = (copied / folder / "report.html" for folder in ("_alignguard", "alignguard"))
    assert " lies." in quoting.read_text() and not bare.exists()
    main(["report", str(copied), "--no-quote"])
    assert " lies." in quoting.read_text() and " lies." not in bare.read_text()


def test_runs_are_compared(runs, capsys):
    root, found = runs
    assert main(["compare", str(root / "calm"), str(root / "wild" / "alignguard")]) == 3
    out, err = capsys.readouterr()
    assert err == ""
    rows = {line.split()[0].rpartition("/runs")[2]: line for line in out.splitlines() if line.startswith("/")}
    assert len(rows) == 2 and out.count("no regression") == 1
    verdict = found["wild"].run.verdict
    assert f"ethics (called at step {verdict.since['ethics']})" in out
    assert main(["compare", str(root / "calm")]) == 0
    capsys.readouterr()
    assert main(["compare", str(root / "calm"), str(root / "wild"), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["differ"] == []
    for run, name in zip(said["runs"], ("calm", "wild"), strict=True):
        there = [line["metrics"] for line in lines(root, name)]
        assert run["audits"] == len(there) == 5 and run["step"] == 4
        assert run["drift"] == there[-1]["alignguard/kl/answer"]
        assert run["seconds"] == pytest.approx(sum(m["alignguard/cost/seconds"] for m in there))
        for d in DIMENSIONS:
            drops = [m[f"alignguard/{d}/drop"] for m in there if f"alignguard/{d}/drop" in m]
            assert run["last_drop"].get(d) == there[-1].get(f"alignguard/{d}/drop")
            assert run["worst_drop"].get(d) == (max(drops) if drops else None)
    assert said["runs"][1]["drift"] > 0.1 > 1e-3 > said["runs"][0]["drift"]
    last, worst = (said["runs"][1][key]["ethics"] for key in ("last_drop", "worst_drop"))
    assert f"{last:+.2f} ({worst:+.2f})" in out


def figure(html, title):
    return re.search(f"<figure><figcaption>{re.escape(title)}</figcaption>.*?</figure>", html)[0]


def test_the_page_has_a_colour_a_run_and_its_points_are_the_figures(runs, tmp_path):
    root, _ = runs
    hostile = tmp_path / '<img src=x onerror="alert(1)">'
    shutil.copytree(root / "wild", hostile)
    page = tmp_path / "compare.html"
    main(["compare", str(root / "calm"), str(hostile), "--html", str(page)])
    html = page.read_text()
    assert "<img" not in html and "&lt;img" in html
    drift = figure(html, "Drift from the start")
    assert 'polyline class="line c1"' in drift and 'polyline class="line c2"' in drift and 'class="key c2"' in drift
    for title, x, y, style in (
        ("Drift from the start", "step", "kl/answer", "c2"),
        ("ethics: drop from the start", "step", "ethics/drop", "c2"),
        ("ethics: drop against drift", "kl/answer", "ethics/drop", "c2"),
    ):
        dots = re.findall(rf'<circle class="dot {style}"[^>]*><title>([^<]*)</title>', figure(html, title))
        expected = []
        for line in lines(root, "wild"):
            at = float(line["step"]) if x == "step" else line["metrics"][f"alignguard/{x}"]
            expected.append(f"{hostile}: {at:.6g}, {line['metrics'][f'alignguard/{y}']:.4g}")
        assert [unescape(dot) for dot in dots] == expected, title
    assert "not comparable" not in html


def test_runs_that_asked_other_things_are_not_comparable(runs, copied, tokenizer, capsys, tmp_path):
    root, _ = runs
    other = guard(probes=tiny_probes()[1:])
    sft(tokenizer, tmp_path / "other", [other], model=tiny_model(tokenizer, seed=1), max_steps=1).train()
    capsys.readouterr()
    page = tmp_path / "page.html"
    main(["compare", str(root / "calm"), str(tmp_path / "other"), "--json", "--html", str(page)])
    out, err = capsys.readouterr()
    assert err == "alignguard: not comparable: the runs differ in their probes, start\n"
    assert json.loads(out)["differ"] == ["probes", "start"] and "not comparable: the runs differ in" in page.read_text()
    path = copied / "alignguard" / "baseline.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trace_tokens": 99}))
    main(["compare", str(root / "calm"), str(copied)])
    assert capsys.readouterr().err == "alignguard: not comparable: the runs differ in their trace budget\n"


def test_what_is_no_record_is_told_in_one_line(copied, tmp_path, capsys):
    def told(path):
        found = set()
        for command in ("report", "compare"):
            assert main([command, str(path)]) == 1
            out, err = capsys.readouterr()
            assert out == "" and err.count("\n") == 1
            found.add(err.strip())
        (line,) = found
        return line

    where = "give a trainer's output_dir, its folder alignguard/, or what `alignguard audit` wrote"
    assert told(tmp_path / "nowhere") == f"alignguard: {tmp_path}/nowhere: no such folder; {where}"
    assert told(tmp_path).endswith(f"no record is in it (neither baseline.json nor alignguard/baseline.json); {where}")
    root = copied / "alignguard"
    audits = (root / "audits.jsonl").read_text()
    (root / "audits.jsonl").write_text("")
    assert told(copied).endswith("no audit is on record; the run has not come to its first, or ended before it")
    (root / "audits.jsonl").write_text(audits)
    (copied / "_alignguard" / "answers" / "step_00004.parquet").unlink()
    assert "its record cannot be read (FileNotFoundError: " in told(copied)
    (copied / "_alignguard" / "answers" / "baseline.parquet").unlink()
    assert "answers/baseline.parquet is missing" in told(copied)


def test_a_file_that_cannot_be_written_is_told_in_one_line(runs, tmp_path, capsys):
    for option in (["report", "--output"], ["compare", "--html"]):
        command, option = option
        assert main([command, str(runs[0] / "calm"), option, str(tmp_path / "no" / "page.html")]) == 1
        err = capsys.readouterr().err
        told = (
            f"{option} {tmp_path}/no/page.html: no such folder as {tmp_path}/no; give a file in a folder that is there"
        )
        assert err == f"alignguard: {told}\n"


def test_a_matched_audit_is_reported_and_compared_like_a_run(runs, tokenizer, tmp_path, capsys):
    from audited import ROWS, save, write_probes

    start = save(tiny_model(tokenizer), tokenizer, tmp_path / "start")
    other = save(tiny_model(tokenizer, seed=1), tokenizer, tmp_path / "other")
    few = write_probes(tmp_path / "few.jsonl", ROWS)
    output = tmp_path / "out"
    tokens = ["--answer-tokens", "8", "--trace-tokens", "8"]
    main(["audit", other, "--reference", start, "--probes", few, "--output", str(output), "--json", *tokens])
    audited, html = json.loads(capsys.readouterr().out), (output / "report.html").read_bytes()
    assert main(["report", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == audited and (output / "report.html").read_bytes() == html
    assert main(["compare", str(output), str(runs[0] / "calm"), "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["runs"][0]["metrics"] == audited["metrics"]
    assert "differ in their probes" in err and "start" not in err.partition("differ in their")[2]
