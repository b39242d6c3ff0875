"""`alignguard export`: what it says, and what it does not do."""

import json
from dataclasses import replace

import pytest
from recorded import ABOUT, SCORES, hostile_probes, recorded, sampled

from alignguard.cli import main
from alignguard.export.told import drawn

FORMATS = ["inspect", "lm-eval"]


def said(capsys, *words):
    code = main(["export", *map(str, words)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("to", FORMATS)
def test_it_says_where_the_logs_are_and_what_opens_them(tmp_path, to, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorded(tmp_path / "run")
    code, out, err = said(capsys, "run", "--to", to, "--output", "my logs")
    assert "'my logs'" in out.partition("\nopen ")[2]  # as it can be typed
    code, out, err = said(capsys, "run", "--to", to)
    assert (code, err) == (0, "") and f"logs    alignguard-{to}" in out and "without what was asked and said" in out
    code, out, _ = said(capsys, "run", "--to", to, "--output", "logs", "--quote", "--json")
    told = json.loads(out)
    files = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "logs").rglob("*") if path.is_file())
    assert code == 0 and told["audits"] == len(SCORES) and sorted(told["files"]) == files


@pytest.mark.parametrize("to", FORMATS)
def test_a_model_that_is_held_against_nothing_has_no_start(tmp_path, to, capsys):
    """Its own scores stood there as those of a start."""
    for name, against in (("alone", ""), ("held", "org/start")):
        sampled(tmp_path / name, engine={"url": "http://here"}, against=against)
        assert said(capsys, tmp_path / name, "--to", to, "--output", tmp_path / f"{name}-logs")[0] == 0
        logs = "".join(p.read_text() for p in (tmp_path / f"{name}-logs").rglob("*") if p.is_file())
        assert ('"start' in logs.replace('"started_at"', "")) == (name == "held")


@pytest.mark.parametrize("sampling", [None, {"temperature": 0.7, "top_p": 0.95, "samples": 3}])
def test_how_each_answer_was_drawn_is_told(sampling):
    """A benchmark that draws its answers itself is drawn by its own settings in any case."""
    spoken, choice = (probe for probe in hostile_probes() if probe.id in ("s1-0", "e1-0"))
    own, about = replace(spoken, sample=True), replace(ABOUT, sampling=sampling)
    assert drawn(spoken, about) == {"temperature": 0.7 if sampling else 0.0, "top_p": 0.95 if sampling else 1.0}
    assert drawn(own, about) == {"temperature": 1.0, "top_p": 0.9}
    assert drawn(choice, about) == {"temperature": None, "top_p": None}


@pytest.mark.parametrize("to", FORMATS)
def test_a_run_that_quotes_nothing_is_not_quoted(tmp_path, to, capsys):
    recorded(tmp_path / "run", quote=False)
    code, out, err = said(capsys, tmp_path / "run", "--to", to, "--quote", "--output", tmp_path / "logs")
    assert code == 1 and out == "" and err.count("\n") == 1
    assert "quote=False); export it without --quote" in err and not (tmp_path / "logs").exists()
    assert said(capsys, tmp_path / "run", "--to", to, "--output", tmp_path / "logs")[0] == 0


@pytest.mark.parametrize("to", FORMATS)
def test_answers_that_are_missing_are_told_of_in_one_line(tmp_path, to, capsys):
    recorded(tmp_path / "run")
    (tmp_path / "run" / "_alignguard" / "answers" / "step_00004.parquet").unlink()
    code, _, err = said(capsys, tmp_path / "run", "--to", to, "--output", tmp_path / "logs")
    assert code == 1 and err.count("\n") == 1 and "the answers of step 4 are missing" in err


def test_what_is_no_record_or_no_format_is_told(tmp_path, capsys):
    assert said(capsys, tmp_path, "--to", "inspect")[0] == 1
    with pytest.raises(SystemExit) as ended:
        main(["export", str(tmp_path), "--to", "csv"])
    assert ended.value.code == 2
