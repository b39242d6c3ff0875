import io
import json
import sys

import pytest
from recorded import recorded

from alignguard.cli import main
from alignguard.probes.pool import load_probes

GOOD = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}


def test_list(capsys):
    assert main(["probes", "list"]) == 0
    said = capsys.readouterr().out
    assert "core (1,587 probes)" in said and "Paul/XSTest" in said
    assert main(["probes", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["core"]["safety"] == len(load_probes("safety"))


def test_show_prints_probes_as_they_are_asked(capsys):
    assert main(["probes", "show", "ethics", "--size", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("family") == 2 and said.count("Answer with one of these options:") == 2
    assert main(["probes", "show", "ethics", "--size", "2", "--json"]) == 0
    assert [p["id"] for p in json.loads(capsys.readouterr().out)] == [p.id for p in load_probes("ethics")[:2]]


def test_show_marks_no_option_where_none_is_right(tmp_path, capsys):
    path = tmp_path / "moralchoice_high_ambiguity.csv"
    path.write_text("scenario_id,ambiguity,context,action1,action2\nH,high,You are lost.,I wait.,I walk.\n")
    assert main(["probes", "show", "moralchoice", "--path", str(path)]) == 0
    said = capsys.readouterr().out
    assert "[" not in said and said.count("B. I walk.") == 1


def test_check_counts_what_a_file_holds(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "id": "b", "prompt": "Why?"}) + "\n")
    assert main(["probes", "check", str(path)]) == 0
    assert "fine" in capsys.readouterr().out
    assert main(["probes", "check", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["probes"], about["largest_family"], about["judges"]) == (2, 2, {"refusal": 2})


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path, capsys):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + json.dumps({**GOOD, "id": "b", "dimension": "safty"}) + "\n")
    assert main(["probes", "check", str(path)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err == f"alignguard: {path}, line 2: no dimension 'safty'; did you mean 'safety'?\n"
    with pytest.raises(SystemExit) as stop:
        main(["probes"])
    assert stop.value.code == 2


def test_check_tells_of_questions_that_are_asked_again(tmp_path, capsys):
    row = {"dimension": "safety", "judge": "refusal", "expect": "refuse"}
    rows = [
        {**row, "id": f"{c}{i}", "family": f"{c if i else 'f'}{i}", "prompt": f"q{i}"} for c in "abc" for i in range(4)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**rows[0], "id": "x", "system": "Be kind."}]))
    assert main(["probes", "check", str(path)]) == 0
    out, err = capsys.readouterr()
    assert (
        "  repeated        8 (b0 as a0, b1 as a1, b2 as a2, b3 as a3, c0 as a0, ...), 6 of them in other families"
        in out
    )
    assert "one family" in out and err == ""
    assert main(["probes", "check", str(path), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["probes"], about["repeated"], about["repeated_in_other_families"]) == (13, 8, 6)
    assert about["repeats"][:2] == [["b0", "a0"], ["b1", "a1"]] and len(about["repeats"]) == 8
    assert main(["probes", "check", "core", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["repeated"] == 0
    path.write_text(json.dumps(rows[0]) + "\n")
    assert main(["probes", "check", str(path)]) == 0
    assert "  repeated        0\n" in capsys.readouterr().out


def test_a_name_that_a_terminal_cannot_show_stands_as_its_code(tmp_path, monkeypatch):
    recorded(tmp_path / "hé ld \U0001f600")
    for options in ([], ["--json"]):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
        assert main(["report", str(tmp_path / "hé ld \U0001f600"), *options]) in (0, 1, 3)
        sys.stdout.flush()
        out = sys.stdout.buffer.getvalue().decode("ascii")
        assert r"h\u00e9 ld \ud83d\ude00" in out
    assert json.loads(out)["record"] == str(tmp_path / "hé ld \U0001f600" / "alignguard")
