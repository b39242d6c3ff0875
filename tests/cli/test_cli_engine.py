"""`alignguard audit MODEL --engine URL`, on tiny models on disk and behind a server in a thread."""

import json

import pytest
from audited import ROWS, mute, save, taken_by, write_probes
from serving import serving
from tiny import tiny_model, tiny_tokenizer

import alignguard.model.endpoint as endpoint
from alignguard.__about__ import __version__
from alignguard.cli import main
from alignguard.records.record import read_record

TOKENS = ["--answer-tokens", "8", "--trace-tokens", "8"]
DRIFT = ("/kl", "kl/")


@pytest.fixture(scope="module")
def there(tmp_path_factory, tokenizer):
    """Two models, the tokenizer alone, and probes of which one model takes the other option."""
    root = tmp_path_factory.mktemp("served")
    start, other = tiny_model(tokenizer), tiny_model(tokenizer, seed=1)
    save(start, tokenizer, root / "start")
    save(other, tokenizer, root / "other")
    tokenizer.save_pretrained(root / "tokenizer")
    _, fallen, _ = taken_by(start, other, tokenizer)
    write_probes(root / "probes.jsonl", ROWS + fallen)
    return root


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(endpoint, "_PAUSE", 0.001)


def audit(there, *options, output, model="tokenizer"):
    given = ["audit", str(there / model), "--probes", str(there / "probes.jsonl"), "--output", str(output), *TOKENS]
    return main([*given, *map(str, options)])


def figures(output):
    """Scores and likelihoods of what was audited, by probe id."""
    results = read_record(str(output)).audits[-1].results
    return {id: (r.score.value, r.logprobs, r.answer.answer if r.answer else None) for id, r in results.items()}


def test_the_same_figures_as_here_but_no_drift(there, tmp_path, tokenizer, capsys):
    """Against a reference that is loaded here: what a local audit of the same two models says, drift left out."""
    assert audit(there, "--reference", there / "start", output=tmp_path / "here", model="other") == 3
    capsys.readouterr()
    with serving(tiny_model(tokenizer, seed=1), tokenizer) as server:
        asked = ("--engine", server.url, "--reference", there / "start")
        assert audit(there, *asked, output=tmp_path / "served") == 3
        out, err = capsys.readouterr()
        assert audit(there, *asked, "--json", output=tmp_path / "json") == 3
    said = json.loads(capsys.readouterr().out)
    here, served = figures(tmp_path / "here"), figures(tmp_path / "served")
    assert here.keys() == served.keys()
    for id, (score, logprobs, answer) in here.items():
        assert (score, answer) == (served[id][0], served[id][2])
        assert served[id][1] == (logprobs if logprobs is None else pytest.approx(logprobs, abs=1e-4))
    theirs = read_record(str(tmp_path / "here")).audits[-1].metrics
    ours = read_record(str(tmp_path / "served")).audits[-1].metrics
    for name in theirs.keys() - {"alignguard/cost/seconds"}:
        if any(part in name for part in DRIFT):
            assert name not in ours
        else:
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4), name
    assert "REGRESSION of ethics; left out: drift\n" in out and "drift, nats/token" not in out
    row = next(line.split() for line in out.splitlines() if line.startswith("ethics"))
    assert row[-2:] == ["-", "REGRESSION"]  # under "drift", nothing
    assert "note: two engines were used: vllm 9.9 for the model, and transformers in float32 for the reference" in out
    assert "drift is left out, since a server tells no whole distributions" in err
    assert said["left_out"] == ["drift"] and not [name for name in said["metrics"] if "kl" in name]
    assert said["engine"] == {
        "url": server.url,
        "model": "tiny",
        "server": "vllm 9.9",
        "reference": "transformers in float32",
    }
    assert any("two engines" in warning for warning in said["warnings"])
    html = (tmp_path / "served" / "report.html").read_text()
    assert "drift is left out, since a server tells no whole distributions" in html and server.url in html
    assert main(["report", str(tmp_path / "served")]) == 3
    assert "left out: drift" in capsys.readouterr().out


def test_alone_it_has_scores_that_a_later_audit_is_held_against(there, tmp_path, tokenizer, capsys):
    with serving(tiny_model(tokenizer), tokenizer) as server:
        assert audit(there, "--engine", server.url, "--json", output=tmp_path / "start") == 0
        alone = json.loads(capsys.readouterr().out)
        assert audit(there, "--engine", server.url, output=tmp_path / "again") == 0
        out = capsys.readouterr().out
    (tmp_path / "start.json").write_text(json.dumps(alone))
    assert alone["verdict"] == "scores, held against nothing; left out: drift" and alone["reference_metrics"] == {}
    assert alone["dimensions"]["ethics"] == {"score": 1.0, "n": 20, "asked": 20, "unscored": 0, "sides": {}}
    assert not [name for name in alone["metrics"] if "drop" in name or "kl" in name or name.endswith("/p")]
    row = next(line.split() for line in out.splitlines() if line.startswith("ethics"))
    assert row == ["ethics", "1.00", "0/20", "20"] and "drop" not in out
    html = (tmp_path / "start" / "report.html").read_text()
    assert (
        "<b>Scores</b><p>Held against nothing.</p>" in html
        and "<th>drop</th>" not in html.split("<h2>Dimensions</h2>")[1].split("</table>")[0]
    )
    with serving(tiny_model(tokenizer, seed=1), tokenizer) as server:
        for given in ("start", "start.json"):
            assert (
                audit(
                    there, "--engine", server.url, "--reference", tmp_path / given, "--json", output=tmp_path / "other"
                )
                == 3
            )
            said = json.loads(capsys.readouterr().out)
            ethics = said["dimensions"]["ethics"]
            assert (ethics["reference"], ethics["score"], ethics["n"]) == (1.0, 0.0, 20)
            assert not any("two engines" in warning for warning in said["warnings"])
        assert audit(there, "--engine", server.url, "--reference", tmp_path / "start", output=tmp_path / "other") == 3
        assert "start: REGRESSION of ethics; left out: drift" in capsys.readouterr().out
        assert (
            audit(
                there, "--engine", server.url, "--reference", tmp_path / "start", "--seed", "1", output=tmp_path / "x"
            )
            == 1
        )
        assert (
            "was asked otherwise (seed 0, here 1); give the options that it was asked with" in capsys.readouterr().err
        )
        write_probes(tmp_path / "more.jsonl", [*ROWS, {**ROWS[0], "id": "new"}])
        more = ["--probes", tmp_path / "more.jsonl", "--reference", tmp_path / "start"]
        assert audit(there, "--engine", server.url, *more, output=tmp_path / "x") == 1
        assert (
            "has no answer to 1 of 6 probes, 'new' for one; it was asked with --draw 48 --seed 0"
            in capsys.readouterr().err
        )


def test_against_the_start_of_an_audit_that_was_taken_here(there, tmp_path, tokenizer, capsys):
    audit(there, "--reference", there / "start", output=tmp_path / "here", model="other")
    with serving(tiny_model(tokenizer, seed=1), tokenizer) as server:
        for reference in ("here", "out"):  # and of an audit that was itself held against a record
            capsys.readouterr()
            asked = ("--engine", server.url, "--reference", tmp_path / reference, "--json")
            assert audit(there, *asked, output=tmp_path / "out" if reference == "here" else tmp_path / "last") == 3
            said = json.loads(capsys.readouterr().out)
            assert said["dimensions"]["ethics"]["drop"] == 1.0
            assert any("for the model, and transformers in float32 for the" in warning for warning in said["warnings"])


def test_against_another_server(there, tmp_path, tokenizer, capsys):
    with (
        serving(tiny_model(tokenizer), tokenizer) as start,
        serving(tiny_model(tokenizer), tokenizer, echoes=False) as same,
    ):
        assert audit(there, "--engine", same.url, "--reference", start.url, output=tmp_path / "out") == 0
    out = capsys.readouterr().out
    assert (
        f"against tiny at {start.url}: no regression found" in out and "two engines" not in out and "ethics" not in out
    )
    assert (
        "note: 20 choices, leanings and refusal margins are left out: the server gives no log-probabilities of a prompt"
        in out
    )
    assert "left out: drift, choices, leanings" in out


def test_a_reference_among_several_models_of_a_server_is_named(there, tmp_path, tokenizer, capsys):
    """Also where it is the audited model's own server: that model itself is no reference."""
    with (
        serving(tiny_model(tokenizer, seed=1), tokenizer, names=["tokenizer", "base"]) as server,
        serving(tiny_model(tokenizer), tokenizer, names=["one", "tokenizer"]) as other,
    ):
        served, out = ("--engine", server.url, "--engine-model", "tokenizer"), tmp_path / "out"
        assert audit(there, *served, "--reference", server.url, output=out) == 1
        assert "serves several models; give --reference-model one of: tokenizer, base" in capsys.readouterr().err
        assert audit(there, *served, "--reference", other.url, output=out) == 1
        assert "serves several models; give --reference-model one of: one, tokenizer" in capsys.readouterr().err
        for url in (server.url, server.url.replace("127.0.0.1", "localhost") + "/"):
            server.asked.clear()
            itself = ("--reference", url, "--reference-model", "tokenizer")
            assert audit(there, *served, *itself, output=out) == 1
            assert "its 'tokenizer' is the model that is audited; give --reference-model" in capsys.readouterr().err
        assert not out.exists()
        assert audit(there, *served, "--reference", other.url, "--reference-model", "one", "--json", output=out) == 3
        said, err = capsys.readouterr()
        assert {body["model"] for body in other.asked} == {"one"}
        assert audit(there, *served, "--reference", server.url, "--reference-model", "base", output=out) == 0
        assert {body["model"] for body in server.asked} == {"tokenizer", "base"}
    assert f"held against one at {other.url}, answered by vllm 9.9" in err
    assert json.loads(said)["engine"]["reference_model"] == "one"
    about = read_record(str(out)).about
    assert about.engine["reference_model"] == "base" and about.against == f"base at {server.url}"
    assert about.title.endswith(", against base")


def test_options_of_a_reference_s_server_are_refused_where_there_is_none(there, capsys):
    for given in (["--reference", "start"], ["--engine", "http://localhost:1/v1", "--reference", "start"]):
        for option in ("--reference-model", "--reference-key-env"):
            with pytest.raises(SystemExit) as ended:
                main(["audit", "a", *given, option, "x"])
            assert ended.value.code == 2 and "give --engine, and --reference its address" in capsys.readouterr().err


def test_what_the_reference_s_server_cannot_tell_is_left_out_with_its_reason(there, tmp_path, tokenizer, capsys):
    with (
        serving(tiny_model(tokenizer), tokenizer) as server,
        serving(tiny_model(tokenizer), tokenizer, echoes=False) as blind,
    ):
        assert audit(there, "--engine", server.url, "--reference", blind.url, output=tmp_path / "out") == 0
        out, err = capsys.readouterr()
        reason = (
            "no leanings and refusal margins: at " + blind.url + ", the server gives no log-probabilities of a prompt"
        )
        for said in (out, err):
            assert f"20 choices are left out, and the reference has {reason}" in said
        assert f"alignguard: {len(ROWS)} probes of {len(ROWS) + 20}, asked of vllm" in err
        assert audit(there, "--engine", blind.url, output=tmp_path / "blind") == 0
        assert audit(there, "--engine", server.url, "--reference", tmp_path / "blind", output=tmp_path / "out") == 0
    assert any(
        "20 choices are left out: the server that" in note for note in read_record(str(tmp_path / "out")).about.notes
    )


def test_traces_are_cut_off_on_neither_side_alone(there, tmp_path, tokenizer, capsys):
    """Where a server reads less than the longest prompt, a trace and an answer: told where both do, else refused."""
    long = ["--trace-tokens", "400", "--probes", write_probes(tmp_path / "few.jsonl", ROWS)]
    alike = "traces end after "
    with (
        serving(tiny_model(tokenizer), tokenizer, size=200) as small,
        serving(tiny_model(tokenizer), tokenizer, size=200) as same,
        serving(tiny_model(tokenizer), tokenizer, size=1024) as large,
    ):

        def asked(server, reference, output, *more):
            """The exit code, what was told, and whether more than trials were asked."""
            for each in (small, same, large):
                each.asked.clear()
            given = ("--engine", server.url, *(("--reference", reference) if reference else ()), *long, *more)
            code = audit(there, *given, output=tmp_path / output)
            most = max(body["max_tokens"] for each in (small, same, large) for body in each.asked)
            return code, "".join(capsys.readouterr()), most > 4

        code, told, _ = asked(large, None, "large")
        assert code == 0 and alike not in told
        code, told, _ = asked(small, None, "small")
        assert code == 0 and told.count(alike) == 2  # on stderr, and as a note
        about = read_record(str(tmp_path / "small")).about
        assert any(alike in note for note in about.notes) and about.reads == 200
        for reference in (same.url, tmp_path / "small"):
            code, told, _ = asked(small, reference, "both")
            assert code == 0 and told.count(alike) == 2
        apart = ((small, large.url), (small, tmp_path / "large"), (small, there / "start"))
        for server, reference in (*apart, (large, small.url), (large, tmp_path / "small")):
            code, told, begun = asked(server, reference, "x")
            assert code == 1 and not begun and "or ask both with --trace-tokens" in told
            assert "traces would be cut off on one side alone; give it a longer context" in told
        assert asked(small, there / "start", "x", "--trace-tokens", "60")[0] == 0


def test_tags_of_a_record_are_held_against_what_the_server_tells(there, tmp_path, capsys):
    tokenizer = tiny_tokenizer(think_tokens=["[THINK]", "[/THINK]"])
    model, few = tiny_model(tokenizer), ("--probes", write_probes(tmp_path / "few.jsonl", ROWS))
    save(model, tokenizer, tmp_path / "model")
    with (
        serving(model, tokenizer) as server,
        serving(model, tokenizer, ids_back=None, logprobs=False) as text_alone,
    ):
        tags = ("--tags", "[THINK]", "[/THINK]")
        given = {"output": tmp_path / "start", "model": tmp_path / "model"}
        assert audit(there, "--engine", server.url, *few, *tags, **given) == 0
        asked = ("--engine", text_alone.url, "--reference", tmp_path / "start", *few)
        assert audit(there, *asked, **given | {"output": tmp_path / "now"}) == 1
    assert "tells no token ids, and text alone may lack [THINK] and [/THINK]" in capsys.readouterr().err


def told_of(output):
    return " | ".join(read_record(str(output)).about.notes)


def test_a_record_of_another_version_is_told_until_both_sides_are_judged_anew(there, tmp_path, tokenizer, capsys):
    with serving(tiny_model(tokenizer), tokenizer) as server:
        few = ("--probes", write_probes(tmp_path / "few.jsonl", ROWS[:2]), "--engine", server.url)
        assert audit(there, *few, output=tmp_path / "start") == 0
        baseline = tmp_path / "start" / "baseline.json"
        baseline.write_text(json.dumps(json.loads(baseline.read_text()) | {"alignguard": "0.0.1"}))
        capsys.readouterr()
        for reference, output in (("start", "now"), ("now", "later")):  # and what is held against that one
            assert audit(there, *few, "--reference", tmp_path / reference, output=tmp_path / output) == 0
            note = f"judged by different versions: {tmp_path / 'start'} by AlignGuard 0.0.1, the model by {__version__}"
            assert note in told_of(tmp_path / output) and capsys.readouterr().err.count(note) == 1
        assert f"`alignguard rejudge {tmp_path / 'now'}` judges both alike" in told_of(tmp_path / "now")
        for rejudged in ("start", "now"):
            assert main(["rejudge", str(tmp_path / rejudged)]) == 0
            assert "versions" not in told_of(tmp_path / f"{rejudged}-rejudged")
        assert audit(there, *few, "--reference", tmp_path / "start-rejudged", output=tmp_path / "now") == 0
    assert "versions" not in told_of(tmp_path / "now")


def test_tags_that_are_given_are_those_that_a_record_was_read_by(there, tmp_path, tokenizer, capsys):
    with serving(tiny_model(tokenizer), tokenizer) as server:
        served = ("--engine", server.url)
        assert audit(there, *served, "--tags", "<a>", "</a>", output=tmp_path / "start") == 0
        asked = (*served, "--reference", tmp_path / "start")
        assert audit(there, *asked, "--tags", "<b>", "</b>", output=tmp_path / "now") == 1
        assert "asked otherwise (tags ('<a>', '</a>'), here ('<b>', '</b>'))" in capsys.readouterr().err
        for tags in ((), ("--tags", "<a>", "</a>")):
            assert audit(there, *asked, *tags, output=tmp_path / "now") == 0
            assert "traces between <a> and </a>" in capsys.readouterr().err
            assert read_record(str(tmp_path / "now")).about.tags == ("<a>", "</a>")


@pytest.mark.parametrize(
    ("served", "alike"), [("tokenizer", True), ("org/tokenizer", True), ("/models/Tokenizer/", True), ("tiny", False)]
)
def test_a_model_that_is_served_under_another_name_is_told(there, tmp_path, tokenizer, capsys, served, alike):
    with serving(tiny_model(tokenizer), tokenizer, names=[served]) as server:
        assert audit(there, "--engine", server.url, output=tmp_path / "out") == 0
    note = f"the server calls its model {served!r}, and MODEL is {there / 'tokenizer'}"
    assert (note in capsys.readouterr().err) == (note in told_of(tmp_path / "out")) == (not alike)


def test_checkpoints_beside_a_served_one_share_alpha_and_that_is_told(there, tmp_path, tokenizer, capsys):
    for step in (100, 200, 300):
        save(tiny_model(tokenizer), tokenizer, tmp_path / "run" / f"checkpoint-{step}")
        (tmp_path / "run" / f"checkpoint-{step}" / "trainer_state.json").write_text("{}")
    model = tmp_path / "run" / "checkpoint-300"
    with serving(tiny_model(tokenizer), tokenizer) as server:
        for looks, alpha in (([], 0.05 / 3), (["--looks", "1"], 0.05)):
            assert audit(there, "--engine", server.url, *looks, model=model, output=tmp_path / "out") == 0
            assert read_record(str(tmp_path / "out")).about.stop_rule.alpha == pytest.approx(alpha)
            told = (
                "checkpoint-300 is one of 3 checkpoints: alpha is spread over so many looks" in capsys.readouterr().err
            )
            assert told == (not looks)


def test_what_is_asked_of_the_command_and_cannot_be(there, tmp_path, tokenizer, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["audit", "a", "b", "--engine", "http://localhost:8000/v1"])
    assert ended.value.code == 2 and "give one MODEL" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["audit", "a"])
    assert ended.value.code == 2 and "the following arguments are required: --reference" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        main(["audit", "a", "--engine", "http://localhost:8000/v1", "--max-missed-drop", "0.2"])
    assert (
        ended.value.code == 2 and "held against nothing tells of no drop; give --reference" in capsys.readouterr().err
    )
    save(tiny_model(tokenizer), None, tmp_path / "bare")
    assert (
        main(["audit", str(tmp_path / "bare"), "--engine", "http://localhost:1/v1", "--output", str(tmp_path / "out")])
        == 1
    )
    assert "holds no tokenizer; with --engine MODEL is the folder or hub id of the tokenizer" in capsys.readouterr().err
    (tmp_path / "x.json").write_text("[]")
    with serving(tiny_model(tokenizer), tokenizer, key="k") as server:
        assert audit(there, "--engine", server.url, output=tmp_path / "out") == 1
        assert "answers 401" in capsys.readouterr().err
        server.key = None
        assert audit(there, "--engine", server.url, "--reference", tmp_path / "x.json", output=tmp_path / "out") == 1
        assert "is not what `alignguard audit --json` prints" in capsys.readouterr().err
        (tmp_path / "o3").mkdir()
        for file in ("x.json", "o3/models.json"):
            (tmp_path / file).write_text(json.dumps({"models": [{"record": "o3/sft"}]}))
        for given in ("x.json", "o3"):
            assert audit(there, "--engine", server.url, "--reference", tmp_path / given, output=tmp_path / "out") == 1
            assert "is of several models; give the folder of one's record, e.g. o3/sft" in capsys.readouterr().err


def test_a_record_holds_no_key(there, tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.setenv("MINE", "sk-secret-key")
    with serving(tiny_model(tokenizer), tokenizer, key="sk-secret-key") as server:
        assert audit(there, "--engine", server.url, "--engine-key-env", "MINE", output=tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert "sk-secret-key" not in out + err
    assert not [
        path for path in (tmp_path / "out").rglob("*") if path.is_file() and b"sk-secret-key" in path.read_bytes()
    ]


def test_a_key_goes_to_no_other_host(there, tmp_path, tokenizer, monkeypatch, capsys):
    monkeypatch.setenv("MINE", "sk-engine")
    monkeypatch.setenv("THEIRS", "sk-reference")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with (
        serving(tiny_model(tokenizer), tokenizer, names=["a", "b"], key="sk-engine") as server,
        serving(tiny_model(tokenizer), tokenizer) as other,
    ):
        served = ("--engine", server.url, "--engine-model", "a", "--engine-key-env", "MINE")
        assert audit(there, *served, "--reference", other.url, output=tmp_path / "out") == 0
        assert other.keys == {None}
        other.key = "sk-reference"
        assert audit(there, *served, "--reference", other.url, output=tmp_path / "out") == 1
        assert (
            "no key was sent: set OPENAI_API_KEY, or name another variable by --reference-key-env"
            in capsys.readouterr().err
        )
        theirs = ("--reference-key-env", "THEIRS")
        assert audit(there, *served, "--reference", other.url, *theirs, output=tmp_path / "out") == 0
        assert other.keys == {None, "Bearer sk-reference"} and server.keys == {"Bearer sk-engine"}
        assert audit(there, *served, "--reference", server.url, "--reference-model", "b", output=tmp_path / "out") == 0


def test_why_nothing_could_be_judged_is_told(there, tmp_path, tokenizer, capsys):
    """It ended with 1 and "scores, held against nothing"."""
    probes = write_probes(tmp_path / "spoken.jsonl", [row for row in ROWS if row["judge"] != "choice"])
    with serving(mute(tokenizer), tokenizer) as server:
        assert audit(there, "--engine", server.url, "--probes", probes, output=tmp_path / "out") == 1
    line = "scores, held against nothing; no answer to a trust probe could be judged"
    out, err = capsys.readouterr()
    assert line in out and line in err.splitlines()[-1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<b>Scores</b><p>Held against nothing.</p><p>No answer to a trust probe could be judged.</p>" in page
    assert main(["report", str(tmp_path / "out")]) == 1 and line in capsys.readouterr().out
    for command in ("report", "compare"):
        assert main([command, str(tmp_path / "out"), "--max-missed-drop", "0.2"]) == 1
        assert "is held against nothing, and tells of no drop; leave it out" in capsys.readouterr().err


def test_other_commands_read_its_record(there, tmp_path, tokenizer, capsys):
    with serving(tiny_model(tokenizer, seed=1), tokenizer) as server:
        audit(there, "--engine", server.url, output=tmp_path / "alone")
        audit(there, "--engine", server.url, "--reference", there / "start", output=tmp_path / "out")
    for name in ("alone", "out"):
        for command in (["card"], ["card", "--json"], ["report", "--json"], ["compare", "--html", tmp_path / "x.html"]):
            assert main([command[0], str(tmp_path / name), *map(str, command[1:])]) in (0, 3), command
        for to in ("inspect", "lm-eval"):
            assert main(["export", str(tmp_path / name), "--to", to, "--output", str(tmp_path / f"{name}-{to}")]) == 0
    capsys.readouterr()
