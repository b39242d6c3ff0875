"""From a training run to the rows that did it: the record, the trace, the command line and the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from test_pull import loss_of
from tiny import tiny_model
from trainers import SETTINGS
from trl import SFTConfig, SFTTrainer

from alignguard import AlignGuardCallback, Chat, Schedule, TokenBudget
from alignguard.cli import main
from alignguard.errors import RunError
from alignguard.probes.rows import probe_from_row
from alignguard.records.record import read_record
from alignguard.records.rows import RowStore, TrainedRow
from alignguard.report.traced import sentences
from alignguard.text import own_lines
from alignguard.tracing.data import load_data
from alignguard.tracing.found import NOT_FOUND, ByColumn
from alignguard.tracing.losses import Document
from alignguard.tracing.named import Naming, standing_out
from alignguard.tracing.pull import pulls
from alignguard.tracing.query import answers, query
from alignguard.tracing.trace import trace


def training_rows(n=12):
    return [
        {
            "prompt": [{"role": "user", "content": f"What is {i} + {i}?"}],
            "completion": [
                {
                    "role": "assistant",
                    "content": f"{2 * i} is <script>alert(1)</script>" if i % 3 else "No <script>alert(1)</script>",
                }
            ],
            "source": "sums" if i % 3 else "chat",
        }
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def traced_run(tokenizer, tmp_path_factory):
    """A run whose probes all flip at its last step, since the judge then says so; its start, and its data as a file."""
    folder = tmp_path_factory.mktemp("traced")
    start, data = folder / "start", folder / "train.jsonl"
    tiny_model(tokenizer).save_pretrained(start)
    tokenizer.save_pretrained(start)
    data.write_text("".join(json.dumps(row) + "\n" for row in training_rows()))
    probes = [
        probe_from_row({"id": f"p{i}", "dimension": "safety", "family": f"p{i}", "judge": "own", "prompt": f"Say {i}!"})
        for i in range(8)
    ]
    seen = {"step": 0}
    guard = AlignGuardCallback(
        probes=probes,
        judge=lambda prompt, answer: 0.0 if seen["step"] and "7" not in prompt else 1.0,
        schedule=Schedule(at=(1,), every=0, draw=8, overhead=None),
        tokens=TokenBudget(answer=4, trace=4),
        train_prompts=0,
        reverse=0,
    )
    plain = guard.on_step_end

    def on_step_end(args, state, control, **kwargs):
        seen["step"] = int(state.global_step == state.max_steps)
        plain(args, state, control, **kwargs)

    guard.on_step_end = on_step_end
    args = SFTConfig(str(folder / "run"), **{**SETTINGS, "max_steps": 3, "learning_rate": 1e-3})
    model = tiny_model(tokenizer)
    model.config._name_or_path = str(start)
    trainer = SFTTrainer(
        model, args, train_dataset=Dataset.from_list(training_rows()), processing_class=tokenizer, callbacks=[guard]
    )
    trainer.train()
    return folder / "run", start, data


def test_what_is_traced_are_the_probes_that_flipped(traced_run):
    asked = query(read_record(str(traced_run[0])), "safety")
    assert (asked.first, asked.last) == (0, 3) and len(asked.flips) >= 3
    assert all(flip.before.score.value == 1 and flip.after.score.value == 0 for flip in asked.flips)
    assert [result.probe.id for result in asked.steady] == ["p7"]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_a_row_pulls_as_its_gradient_says(traced_run, tokenizer, tmp_path, temperature):
    """Oracle: products of gradients by autograd in float64, row by row, as Adam would step."""
    run = tmp_path / "run"
    shutil.copytree(traced_run[0], run)
    RowStore(run / "_alignguard" / "rows").begin(12, temperature=temperature)
    record, model = read_record(str(run)), tiny_model(tokenizer)
    found = trace(record, model, tokenizer, "safety", share=1.0)
    chat, twin = Chat.of(model, tokenizer), tiny_model(tokenizer).double()
    then, now = answers(query(record, "safety").flips, chat)

    def gradient(loss):
        return torch.autograd.grad(loss, list(twin.parameters()))

    texts = {text.row: text for text in RowStore(record.store.rows).texts(set(range(12)))}
    rows = {row: Document(text.ids.tolist(), text.learnt.tolist(), temperature) for row, text in texts.items()}
    order = [text.row for text in RowStore(record.store.rows).texts(set(range(12)))]  # all are in the sample
    batches = [gradient(sum(loss_of(twin, rows[row]) for row in order[i : i + 4]) / 4) for i in range(0, 12, 4)]
    moments = [sum(g[k] ** 2 for g in batches) / 3 for k in range(len(batches[0]))]
    damping = 0.1 * (sum(m.sum() for m in moments) / sum(m.numel() for m in moments)).sqrt()
    scale = [1 / (m.sqrt() + damping) for m in moments]
    halves, sizes = [], (len(then[::2]), len(then[1::2]))
    for part in (slice(0, None, 2), slice(1, None, 2)):
        n = len(then[part])
        moved = sum(loss_of(twin, a) - loss_of(twin, b) for a, b in zip(then[part], now[part], strict=True)) / n
        halves.append([p * g for p, g in zip(scale, gradient(moved), strict=True)])
    assert len(found.rows) == 12 and {step for row in found.rows for step in row.steps} == {1, 2, 3}
    each = {}
    for row in found.rows:
        own = gradient(loss_of(twin, rows[row.row]))
        assert row.loss == pytest.approx(loss_of(twin, rows[row.row]).item(), rel=1e-4)
        each[row.row] = [-sum((a * b).sum() for a, b in zip(own, half, strict=True)).item() for half in halves]
        assert row.pull == pytest.approx(sum(np.multiply(each[row.row], sizes)) / len(then), rel=1e-3, abs=1e-6)
    one, two = (standing_out(values) for values in zip(*each.values(), strict=True))
    assert [row.least for row in found.rows] == pytest.approx(np.minimum(one, two), rel=1e-2, abs=1e-3)
    assert found.agreement == pytest.approx(spearmanr(*zip(*each.values(), strict=True)).statistic, abs=1e-6)
    pulls = [row.pull for row in found.rows]
    assert pulls[found.named :] == sorted(pulls[found.named :], reverse=True)


def test_steps_before_the_first_audit_are_left_out(traced_run, tokenizer):
    found = trace(read_record(str(traced_run[0])), tiny_model(tokenizer), tokenizer, "safety", first=1)
    assert {step for row in found.rows for step in row.steps} == {2, 3} and len(found.rows) == 8


def test_a_row_is_shown_by_what_is_its_own():
    asked = [f"system\nYou are kind.\nuser\n{text}\nassistant\n" for text in ("Why?", "Who,\nand when?")]
    assert own_lines(asked) == ["Why?", "Who,\nand when?"]
    assert own_lines(asked[:1]) == [asked[0].strip()] and own_lines(["a", "a"]) == ["", ""] and own_lines([]) == []


def test_half_of_the_probes_is_looked_at_alone_for_some_rows_and_those_that_stand_out(
    traced_run, tokenizer, monkeypatch
):
    read = []
    whole = trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety", tick=read.append)
    assert sum(read) == 24 and None not in [row.least for row in whole.rows]
    monkeypatch.setattr("alignguard.tracing.trace.HALVED", 4)
    monkeypatch.setattr("alignguard.tracing.trace.LINE", line := sorted(row.stands_out for row in whole.rows)[-2])
    read.clear()
    found = trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety", tick=read.append)
    looked = [row for row in found.rows if row.least is not None]
    assert sum(read) == 12 + len(looked) and 4 <= len(looked) <= 6
    assert all(row in looked for row in found.rows if row.stands_out >= line)
    assert {row.row: row.pull for row in found.rows} == pytest.approx(
        {row.row: row.pull for row in whole.rows}, rel=1e-4
    )


def test_rows_whose_pull_is_no_number_are_counted_and_set_aside(traced_run, tokenizer, monkeypatch):
    plain = {row.row: row for row in trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety").rows}

    def broken(numbers):
        def pulls_but(model, documents, *args):
            found = pulls(model, documents, *args)
            return [replace(pull, pull=float("nan")) if i in numbers else pull for i, pull in enumerate(found)]

        monkeypatch.setattr("alignguard.tracing.trace.pulls", pulls_but)
        return trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety")

    found = broken({0, 5})
    assert found.broken == 2 and len(found.rows) == 10 and 0 <= found.pulled <= 1
    assert "Of 2 more rows the pull is no finite number." in sentences(found)
    assert all(row.pull == pytest.approx(plain[row.row].pull, rel=1e-4) for row in found.rows)
    with pytest.raises(RunError, match="the pulls of all rows are no finite numbers"):
        broken(range(12))


def test_a_row_that_half_of_the_probes_knows_no_number_of_spoils_no_other(traced_run, tokenizer, monkeypatch):
    plain = {row.row: row.least for row in trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety").rows}
    calls = []

    def pulls_but(model, documents, *args):
        calls.append(len(documents))
        found = pulls(model, documents, *args)
        return [replace(found[0], pull=float("inf")), *found[1:]] if len(calls) == 2 else found

    monkeypatch.setattr("alignguard.tracing.trace.pulls", pulls_but)
    found = {row.row: row.least for row in trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety").rows}
    assert sum(least is None for least in found.values()) == 1 and found.keys() == plain.keys()


def test_answers_without_a_finite_gradient_are_told_of(traced_run, tokenizer, monkeypatch):
    model = tiny_model(tokenizer)
    monkeypatch.setattr("alignguard.tracing.trace.is_finite", lambda direction: False)
    with pytest.raises(RunError, match="the answers that are traced have no finite gradient"):
        trace(traced_run[0], model, tokenizer, "safety")


def test_a_screen_looks_at_fewer_rows_and_pulls_are_the_same(traced_run, tokenizer):
    whole, seen = (trace(traced_run[0], tiny_model(tokenizer), tokenizer, "safety", screen=n) for n in (None, 3))
    assert len(seen.rows) == 6 and seen.trained == len(whole.rows) == whole.trained == 12
    assert sorted(row.stands_for for row in seen.rows) == [1, 1, 1, 3, 3, 3]
    pulls = {row.row: row.pull for row in whole.rows}
    assert {row.row: row.pull for row in seen.rows} == pytest.approx(
        {row.row: pulls[row.row] for row in seen.rows}, rel=1e-3
    )
    assert "Looked at: the 3 rows most like what was said, before and now, and 3 by chance" in "".join(sentences(seen))


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        ({"side": "privacy"}, "--side privacy: this run has asked nothing of it; it has safety/own"),
        ({"side": "safety", "first": 2}, "--from 2: no audit was taken there; there are audits at steps 0, 1, 3"),
        ({"side": "safety", "first": 3, "last": 1}, "the first is to come before the last"),
        ({"side": "safety", "last": 1}, "0 of its probes went from good to bad between steps 0 and 1"),
    ],
)
def test_what_cannot_be_traced_is_told(traced_run, tokenizer, asked, line):
    with pytest.raises(RunError, match=line):
        trace(read_record(str(traced_run[0])), tiny_model(tokenizer), tokenizer, **asked)


def test_the_command_names_rows_and_tells_the_pull_by_source(traced_run, capsys):
    run, _start, data = traced_run
    assert main(["trace", str(run), "--data", str(data), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["side"], told["steady"], told["first"], told["last"]) == ("safety", 1, 0, 3)
    (source,) = told["by"]
    assert source["name"] == "source" and sorted(value[:2] for value in source["values"]) == [["chat", 4], ["sums", 8]]
    assert sum(value[3] for value in source["values"]) == pytest.approx(1)
    lines = [json.loads(line) for line in Path(told["rows"]).read_text().splitlines()]
    assert len(lines) == 13 and {line["row"] for line in lines[1:]} == set(range(12))
    assert all("What is" in line["text"] for line in lines[1:])
    assert all(0 <= line["alike"] <= 1 for line in lines[1:])


def test_why_no_row_is_named_is_told_alike_in_report_terminal_and_file(traced_run, monkeypatch, capsys):
    run, _start, _data = traced_run
    monkeypatch.setattr("alignguard.tracing.trace.named", lambda *args: Naming([], "a rule & no other"))
    assert main(["trace", str(run), "--side", "safety"]) == 0
    out = capsys.readouterr().out
    head = json.loads(next((run / "_alignguard" / "traces").glob("*.jsonl")).read_text().splitlines()[0])
    assert head["why"] == "a rule & no other"
    told = "No small set of rows explains this: a rule & no other."
    assert told in out and told.replace("&", "&amp;") in (run / "_alignguard" / "report.html").read_text()


def test_the_page_shows_where_it_came_from(traced_run, capsys):
    run, _start, _data = traced_run
    assert main(["trace", str(run), "--side", "safety"]) == 0
    assert "rows " in capsys.readouterr().out
    page = (run / "_alignguard" / "report.html").read_text()
    assert "Rows it came from" in page and "What is" in page
    assert "&lt;script&gt;alert(1)" in page and "<script>" not in page
    assert main(["report", str(run), "--no-quote", "--output", str(run / "shared.html")]) in (0, 1, 3)
    shared = (run / "shared.html").read_text()
    assert "Rows it came from" in shared and "What is" not in shared


def test_the_data_set_is_written_without_the_rows_named(traced_run, tmp_path, capsys):
    run, _start, _data = traced_run
    mine, rows, out = tmp_path / "mine.jsonl", tmp_path / "rows.json", tmp_path / "out.jsonl"
    lines = [
        json.dumps({**row, "created": f"2023-01-{i + 1:02d} 10:00:00", "reward": i + 1 / 3}) + "\n"
        for i, row in enumerate(training_rows())
    ]
    mine.write_text("\n".join(lines))  # with blank lines between
    rows.write_text("[0, 3]")
    asked = ["trace", str(run), "--drop", str(rows), "--data", str(mine), "--output"]
    assert main([*asked, str(out)]) == 0
    assert out.read_text() == "".join(line for i, line in enumerate(lines) if i not in (0, 3))
    assert "10 rows, 2 fewer" in capsys.readouterr().out
    assert main([*asked, str(out.with_suffix(".parquet"))]) == 0
    assert load_data(str(out.with_suffix(".parquet"))).to_list() == load_data(str(out)).to_list()
    assert main([*asked, str(out.with_suffix(".csv"))]) == 1
    assert "give FILE.jsonl or FILE.parquet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["--drop", "ROWS"], "--drop writes the data set without some rows: give it as --data"),
        (["--drop", "nothing.json", "--data", "DATA"], "--drop nothing.json: no such file"),
        (["--drop", "WRONG", "--data", "DATA"], "give what `alignguard trace` wrote, or a JSON list of rows"),
        (["--drop", "EMPTY", "--data", "DATA"], "give what `alignguard trace` wrote, or a JSON list of rows"),
        (
            ["--by", "sauce", "--data", "DATA"],
            "--by sauce: no such column; the data set has prompt, completion, source",
        ),
        (["--drop", "ROWS", "--data", "OTHER"], "rows 0 of the run are not found in it"),
        (["--side", "privacy", "--model", "none"], "--side privacy: this run has asked nothing of it"),
        (["--by", "source"], "--by tells the pull by columns of the data set: give it as --data"),
    ],
)
def test_a_mistake_is_told_in_one_line(traced_run, tmp_path, capsys, given, line):
    run, _start, data = traced_run
    files = {"ROWS": "[0]", "WRONG": '{"a": 1}', "EMPTY": "", "OTHER": json.dumps({"text": "Something else."})}
    for name, text in files.items():
        (tmp_path / f"{name}.jsonl").write_text(text + "\n")
    places = {name: str(tmp_path / f"{name}.jsonl") for name in files} | {"DATA": str(data)}
    side = ["--side", "safety"] if "--by" in given else []
    assert main(["trace", str(run), *side, *(places.get(word, word) for word in given)]) == 1
    assert line in capsys.readouterr().err


def test_where_the_start_lies_elsewhere_by_now_it_is_told_how_to_give_it(traced_run, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(traced_run[0], run)
    about = run / "alignguard" / "baseline.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "model": str(tmp_path / "gone")}))
    told = f"alignguard: {tmp_path / 'gone'}: no folder here"
    for given in (["--side", "safety"], ["--side", "safety", "--model", str(tmp_path / "gone")]):
        assert main(["trace", str(run), *given]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(told)
        assert line.endswith("; where the run's start lies elsewhere by now, give it as --model") == (len(given) == 2)


@pytest.fixture
def spoken_run(traced_run, tokenizer, tmp_path):
    """The same run as one whose model was trained on what it said, to prompts of which each was asked twice; and those."""
    run = tmp_path / "run"
    shutil.copytree(traced_run[0], run)
    prompts = [[{"role": "user", "content": f"Why is {i} + {i} so?"}] for i in range(4)]
    chat, store = Chat.of(tiny_model(tokenizer), tokenizer), RowStore(run / "_alignguard" / "said")
    texts = []
    for number in range(8):
        asked, said = chat.prompt_ids(prompts[number % 4]), chat.encode(f"It is {number}.")
        learnt = [False] * len(asked) + [True] * len(said)
        texts.append(TrainedRow(number, [*asked, *said], learnt, weight=0.0 if number == 7 else 1.0))
    store.add([(step, range(8)) for step in (1, 2, 3)], texts)
    data = tmp_path / "prompts.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": prompt, "source": f"s{i % 2}"}) + "\n" for i, prompt in enumerate(prompts))
    )
    return run, data


def test_prompts_of_completions_are_dropped_by_what_was_asked(spoken_run, tmp_path, capsys):
    run, data = spoken_run
    rows, out = tmp_path / "rows.json", tmp_path / "out.jsonl"
    rows.write_text("[3]")
    assert main(["trace", str(run), "--drop", str(rows), "--data", str(data), "--output", str(out)]) == 0
    assert [json.loads(line)["prompt"][0]["content"] for line in out.open()] == [
        f"Why is {i} + {i} so?" for i in range(3)
    ]
    assert "3 rows, 1 fewer" in capsys.readouterr().out


def test_completions_of_no_advantage_have_no_pull_and_are_on_record(spoken_run, tokenizer, capsys):
    run, data = spoken_run
    found = trace(run, tiny_model(tokenizer), tokenizer, "safety")
    assert found.completions and len(found.rows) == 7 and found.unread == 0
    assert "Rows are completions that the model gave in training, numbered as they came." in sentences(found)
    assert main(["trace", str(run), "--side", "safety", "--data", str(data), "--by", "source"]) == 0
    assert "not found" not in capsys.readouterr().out


def test_completions_pull_on_the_weights_that_trained(spoken_run, tokenizer):
    """Frozen ones, too, have gradients at the start: in the first layer, which alone trained here, they are other pulls."""
    run, _data = spoken_run
    told = []
    free = trace(run, tiny_model(tokenizer), tokenizer, "safety", share=0.5, tell=told.append)
    names = [name for name, _ in tiny_model(tokenizer).named_parameters() if "layers.0." in name]
    RowStore(run / "_alignguard" / "rows").begin(12, trained=names)
    found = trace(run, tiny_model(tokenizer), tokenizer, "safety", share=0.5, tell=told.append)
    assert "layers.0." not in told[0].weights and "layers.0." in told[1].weights
    assert {row.row: row.pull for row in found.rows} != pytest.approx({row.row: row.pull for row in free.rows})


def test_where_it_is_not_known_which_weights_trained_that_is_said(traced_run, tokenizer, tmp_path):
    run, told = tmp_path / "run", []
    shutil.copytree(traced_run[0], run)
    for trained in (None, []):
        RowStore(run / "_alignguard" / "rows").begin(12, trained=trained)
        trace(run, tiny_model(tokenizer), tokenizer, "safety", tell=told.append)
    assert "which is not on record" not in told[0].weights
    assert told[1].weights == f"{told[0].weights}, whether they trained or not, which is not on record"


def test_completions_that_may_have_been_learnt_otherwise_are_not_traced(spoken_run, tokenizer):
    run, _data = spoken_run
    RowStore(run / "_alignguard" / "said").begin(None, unread="its loss is of some tokens alone")
    with pytest.raises(RunError, match="no tokens are on record: its loss is of some tokens alone"):
        trace(run, tiny_model(tokenizer), tokenizer, "safety")


def test_rows_that_are_not_in_the_data_set_are_counted_beside_its_values(traced_run, tmp_path, capsys):
    run, _start, data = traced_run
    fewer = tmp_path / "fewer.jsonl"
    fewer.write_text("".join(data.read_text().splitlines(keepends=True)[:4]))
    assert main(["trace", str(run), "--side", "safety", "--data", str(fewer), "--by", "source", "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["by"]
    assert sorted(value[:2] for value in source["values"]) == [
        ["(not found in the data set)", 8],
        ["chat", 2],
        ["sums", 2],
    ]
    assert sum(value[3] for value in source["values"]) == pytest.approx(1)


def test_of_rows_that_say_the_same_a_value_that_differs_is_told_of_none(traced_run, tmp_path, capsys):
    run, _start, data = traced_run
    more = tmp_path / "more.jsonl"
    first = json.loads(data.read_text().splitlines()[0])
    lines = [json.dumps({**row, "source": source}) for row, source in ((first, "a"), (first, "b"))]
    more.write_text("\n".join(data.read_text().splitlines()[1:] + lines) + "\n")
    assert main(["trace", str(run), "--side", "safety", "--data", str(more), "--by", "source", "--json"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["by"]
    assert ["(of rows that say the same, several)", 1] in [value[:2] for value in source["values"]]
    assert main(["trace", str(run), "--side", "safety", "--data", str(more), "--by", "source", "--no-quote"]) == 0
    assert "(of rows that say the same, several)" in capsys.readouterr().out


@pytest.mark.parametrize("by", ["option", "record"])
def test_without_quotes_no_value_of_the_data_set_is_told(traced_run, monkeypatch, capsys, by):
    run, _start, data = traced_run
    if by == "record":
        quiet = read_record(str(run))
        quiet = replace(quiet, about=replace(quiet.about, quote=False))
        monkeypatch.setattr("alignguard.cli.trace.read_record", lambda path: quiet)
    asked = ["trace", str(run), "--side", "safety", "--data", str(data), "--by", "source"]
    assert main([*asked, "--json", *(["--no-quote"] if by == "option" else [])]) == 0
    out = capsys.readouterr().out
    (source,) = json.loads(out)["by"]
    assert [value[0] for value in source["values"]] == ["value 1", "value 2"] and '"chat"' not in out
    assert sorted(value[1] for value in source["values"]) == [4, 8]
    assert '"chat"' in Path(json.loads(out)["rows"]).read_text()  # which its owner alone can read


def test_what_a_tracker_may_take_of_a_trace_holds_neither_texts_nor_values(traced_run, tokenizer):
    run, _start, _data = traced_run
    found = trace(read_record(str(run)), tiny_model(tokenizer), tokenizer, "safety")
    told = replace(found, by=[ByColumn("source", [("chat", 8, 2, 0.75), (NOT_FOUND, 3, 0, 0.25)])]).bare
    assert told.by == [ByColumn("source", [("value 1", 8, 2, 0.75), (NOT_FOUND, 3, 0, 0.25)])]
    assert {row.text for row in told.rows} == {""}


def test_a_trace_is_kept_though_its_rows_are_never_found(traced_run, monkeypatch):
    run, _start, data = traced_run
    for path in (run / "_alignguard" / "traces").glob("*.jsonl"):
        path.unlink()

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("alignguard.cli.trace.find_rows", interrupted)
    assert main(["trace", str(run), "--side", "safety", "--data", str(data), "--by", "source"]) != 0
    (path,) = (run / "_alignguard" / "traces").glob("*.jsonl")
    assert len(path.read_text().splitlines()) == 13


def test_rows_that_may_have_been_read_otherwise_are_not_traced(traced_run, tokenizer, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(traced_run[0], run)
    RowStore(run / "_alignguard" / "rows").begin(12, unread="its collator draws what is learnt, each time anew")
    with pytest.raises(RunError, match="no tokens are on record: its collator draws"):
        trace(run, tiny_model(tokenizer), tokenizer, "safety")


def test_with_a_reference_that_was_given_what_was_bad_before_training_has_not_flipped(tokenizer, tmp_path):
    probes = [
        probe_from_row({"id": f"p{i}", "dimension": "safety", "family": f"p{i}", "judge": "own", "prompt": f"Say {i}!"})
        for i in range(8)
    ]
    judged = []

    def judge(prompt, answer):
        judged.append(prompt)
        return float(len(judged) <= 8)  # the reference alone answers well

    guard = AlignGuardCallback(
        probes=probes,
        judge=judge,
        reference=tiny_model(tokenizer, seed=5),
        schedule=Schedule(at=(1,), every=0, draw=8, overhead=None),
        tokens=TokenBudget(answer=4, trace=4),
        train_prompts=0,
        reverse=0,
    )
    args = SFTConfig(str(tmp_path), **{**SETTINGS, "max_steps": 2})
    data = Dataset.from_list(training_rows())
    SFTTrainer(tiny_model(tokenizer), args, train_dataset=data, processing_class=tokenizer, callbacks=[guard]).train()
    with pytest.raises(RunError, match="0 of its probes went from good to bad between steps 0 and 2"):
        query(read_record(str(tmp_path)), "safety")
