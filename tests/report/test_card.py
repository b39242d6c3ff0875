"""The trust card, read back as those read it who get a model: by huggingface_hub, by a Markdown parser, by an XML parser."""

import json
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from reports import HOSTILE, MANY, judged, run_of

from alignguard import load_probes
from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.errors import RunError
from alignguard.judging.score import Score, Status
from alignguard.probes.probe import pool_hash
from alignguard.records.about import About
from alignguard.report.card import TrustCard, flat, shown
from alignguard.report.markdown import BEGIN, END, escaped, section
from alignguard.report.model_card import front_matter, put_into, results
from alignguard.report.picture import picture
from alignguard.report.terminal import dumps
from alignguard.verdicts.watch import compare

ABOUT = About("0.1.0", "Some/Start", pool_hash="abc123", probes=108, draw=12, toxicity="scorer 1.0", max_steps=15)
NASTY = f"a|b\n# c `d` *e* [f](http://g) $h$ {BEGIN} {END} <!-- x --> \"'&: - !yes\u202e{HOSTILE}"


@pytest.fixture(scope="module")
def run():
    return run_of({0: 1.0, 5: 1.0, 10: 0.0, 15: 0.0}, "ASKED" + HOSTILE, "SAID" + HOSTILE, MANY)


@pytest.fixture
def card(run):
    return TrustCard("demo", ABOUT, *run)


@pytest.fixture
def readme(tmp_path):
    """A model card with results of another, and things in its front matter that a careless reader would change."""
    data = ModelCardData(
        license="mit",
        model_name="theirs",
        eval_results=[
            EvalResult("text-generation", "gsm8k", "GSM8K", "accuracy", 0.5, source_url="https://a.b", source_name="A")
        ],
    )
    front = data.to_yaml().replace("model-index:", "language: no  # Norwegian\nmodel-index:")
    path = tmp_path / "README.md"
    path.write_text(f"---\n{front}\n---\n\n# Theirs\n\ntext --- and *more*\n")
    return path


def html(markdown):
    parser = pytest.importorskip("markdown_it", reason="needs markdown-it-py").MarkdownIt(
        "gfm-like", {"linkify": False}
    )
    return parser.render(markdown)


def cells(page):
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, re.S)]


def test_the_table_holds_the_verdicts_figures(card):
    rows = {row[0]: row for row in cells(html(section(card))) if len(row) == 9}
    assert set(rows) == {*card.verdict.dimensions, "together"} and next(iter(rows)) == "reasoning"
    for d in card.verdict.rows:
        start, now, drop, n, unjudged, p, found = rows[d.dimension][1:-1]
        assert (start, now, unjudged) == (f"{d.baseline:.2f}", f"{d.score:.2f}", f"{d.unscored} of {d.asked}")
        if d.watched:
            e = d.evidence
            assert drop == f"{e.drop:+.2f} [{e.low:+.2f}, {e.high:+.2f}]" and n == str(e.n) and p == f"{e.p:.2g}"
            assert found == (f"{e.detectable:.2f}" if math.isfinite(e.detectable) else "none")
        else:
            assert drop == f"{d.drop:+.2f} [{d.low:+.2f}, {d.high:+.2f}]" and (p, found) == ("-", "-")
    assert rows["safety"][-1] == "regressed" and rows["reasoning"][-1] == "lost"


def test_it_says_what_was_asked_and_how_far_the_model_drifted(card):
    told = {row[0]: row[1] for row in cells(html(section(card))) if len(row) == 2}
    last = card.audits[-1]
    assert told["of what is answered"].startswith(f"{last.figure('kl/answer'):.4f} [")
    assert told["with the change of format (raw)"] == f"{last.figure('kl/raw'):.4f}"
    assert told["summed over an answer, nats"] == f"{last.figure('kl/answer_sum'):.3f}"
    assert told["audits"] == "4, the last at step 15 of 15" and told["hash"] == "abc123"
    assert told["how many"].startswith("108; of each dimension 12") and told["held against"] == "Some/Start"
    assert told["judged by"] == "abstain, choice, leak, number, refusal, tell" and told["toxicity by"] == "scorer 1.0"
    text = section(card)
    assert "AlignGuard 0.1.0" in text and "REGRESSION of safety" in text and "own probes by" not in text
    assert "own probes by | mine" in section(replace(card, about=replace(ABOUT, judge="mine")))


def test_the_built_in_probes_are_called_by_name(card):
    about = replace(ABOUT, pool_hash=pool_hash(load_probes("core")))
    assert "| probes | AlignGuard's core pool |" in section(replace(card, about=about))
    assert "| probes | another set than this version's core, known by its hash |" in section(card)


def test_no_word_of_what_was_asked_and_said_is_in_it(card, readme):
    put_into(readme, card)
    pages = [readme.read_text(), (readme.parent / "alignguard.svg").read_text(), dumps(flat(card)), front_matter(card)]
    said = {"ASKED", "SAID", HOSTILE, *(p.prompt for p in MANY), *(p.id for p in MANY if len(p.id) > 2)}
    assert not [text for text in said for page in pages if text in page]


def test_huggingface_hub_reads_the_figures_back(card):
    read = ModelCard(front_matter(card)).data
    assert read.model_name == "demo"
    told = {(r.dataset_config, r.metric_type): r for r in read.eval_results}
    assert {r.dataset_revision for r in read.eval_results} == {"abc123"}
    for d in card.verdict.rows:
        score, start, drop = (told[d.dimension, metric] for metric in ("score", "start_score", "drop"))
        assert score.metric_value == pytest.approx(d.score, rel=1e-3)
        assert start.metric_value == pytest.approx(d.baseline, rel=1e-3)
        e = d.evidence if d.watched else d
        assert drop.metric_value == pytest.approx(e.drop, rel=1e-3)
        assert (drop.metric_args["low"], drop.metric_args["high"]) == pytest.approx((e.low, e.high), rel=1e-3)
        assert ("p" in drop.metric_args) == d.watched
        assert (score.metric_args["n"], drop.metric_args["n"]) == (d.n, e.n)
    assert told["drift", "kl_answer"].metric_value == pytest.approx(card.audits[-1].figure("kl/answer"), rel=1e-3)


def test_a_model_card_keeps_what_others_wrote_and_twice_changes_nothing(card, readme):
    before = readme.read_text()
    assert put_into(readme, card)
    once = readme.read_bytes()
    assert not put_into(readme, card) and readme.read_bytes() == once
    text = once.decode()
    assert "language: no  # Norwegian\n" in text and "\n# Theirs\n\ntext --- and *more*\n" in text
    theirs, read = ModelCard(before).data, ModelCard.load(readme).data
    assert read.eval_results[0] == theirs.eval_results[0] and read.model_name == "theirs" and read.license == "mit"
    assert len(read.eval_results) > 20 and text.count(BEGIN) == text.count(END) == 1


def test_a_later_card_replaces_an_earlier_one_where_it_stands(card, readme, run):
    put_into(readme, card)
    moved = readme.read_text() + "\n## After it\n"
    readme.write_text(moved)
    audits, verdict = run_of({0: 1.0, 5: 1.0}, probes=MANY)
    put_into(readme, TrustCard("demo", ABOUT, audits, verdict))
    text, read = readme.read_text(), ModelCard.load(readme).data
    assert text.endswith(f"{END}\n\n## After it\n") and "REGRESSION" not in text and text.count("## Trust") == 1
    scores = [r.metric_value for r in read.eval_results if (r.dataset_config, r.metric_type) == ("safety", "score")]
    assert scores == [1.0]


@pytest.mark.parametrize(
    "there", ["", "# Mine\n", "---\n---\n# Mine\n", "---\r\ntags:\r\n- a\r\n---\r\n# Mine\r\n", "\ufeff# Mine\n"]
)
def test_a_card_without_results_or_front_matter_gets_both(there, card, tmp_path):
    path = tmp_path / "README.md"
    path.write_bytes(there.encode())
    put_into(path, card)
    once = path.read_bytes()
    assert ModelCard.load(path).data.eval_results and b"## Trust" in once and ("Mine" in there) == (b"# Mine" in once)
    assert once.count(b"\r\n") == (once.count(b"\n") if "\r" in there else 0)
    assert not put_into(path, card)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (None, "no such file; give a model card that is there, or write one of its own with --output"),
        (b"\xff\xfe", "is no text in UTF-8; give a model card"),
        (b"---\na: [\n---\n", "its front matter cannot be read (while parsing"),
        (b"---\nmodel-index: 3\n---\n", "its model-index is not in the hub's form; mend it, or take it out"),
        (b"---\na: 1\n---\n<!-- alignguard -->\n", "one is missing; put it back, or take out the other"),
    ],
)
def test_what_is_no_model_card_is_told_in_a_line_and_left_alone(there, said, card, tmp_path):
    path = tmp_path / "README.md"
    if there is not None:
        path.write_bytes(there)
    with pytest.raises(RunError) as error:
        put_into(path, card)
    assert str(error.value).startswith(f"{path}: ") and said in str(error.value) and "\n" not in str(error.value)
    assert there is None or path.read_bytes() == there


def test_what_others_have_named_is_text(card, readme):
    about = replace(ABOUT, model=NASTY, toxicity=NASTY, judge=NASTY, pool_hash=NASTY, alignguard=NASTY)
    hostile = replace(card, about=about, name=shown(NASTY))
    page = html(section(hostile))
    tags = set(re.findall(r"<(\w+)", page))
    assert tags <= {"h2", "p", "strong", "em", "code", "table", "thead", "tbody", "tr", "th", "td"}, tags
    assert {len(row) for row in cells(page) if row} == {2, 9} and "href" not in page
    put_into(readme, hostile)
    once = readme.read_bytes()
    assert not put_into(readme, hostile) and readme.read_bytes() == once
    assert once.partition(b"# Theirs")[2].count(BEGIN.encode()) == 1
    path = readme.with_name("EMPTY.md")
    path.write_text("")
    put_into(path, hostile)
    assert ModelCard.load(path).data.model_name == shown(NASTY)
    assert json.loads(dumps(flat(hostile)))["model"] == shown(NASTY)


def test_names_are_a_line_and_of_a_path_its_end():
    assert shown("Qwen/Qwen2.5-0.5B-Instruct") == "Qwen/Qwen2.5-0.5B-Instruct"
    assert shown("/home/me/models/start/") == shown("~/x/start") == shown("C:\\me\\start") == "start"
    assert shown("a\n\u202eb\ud800") == "a b?" and len(shown("x" * 500)) == 99
    assert escaped("a|b_c<d>www.e") == r"a\|b\_c\<d\>www\.e"


def test_the_picture_stands_alone(card):
    drawn = picture(card)
    root = ElementTree.fromstring(drawn)
    ns = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{ns}svg" and not re.search(
        r"prefers-color-scheme|<script|https?://(?!www\.w3\.org/2000/svg)", drawn
    )
    assert {e.tag.removeprefix(ns) for e in root.iter()} <= {
        "svg", "style", "rect", "text", "line", "polygon", "polyline", "circle", "title",
    }  # fmt: skip
    titles = [e.text for e in root.findall(f"{ns}text") if e.get("class") == "title"]
    assert titles == ["Drift from the start", *(f"{name}: drop from the start" for name in card.verdict.dimensions)]
    dots = [e[0].text for e in root.findall(f"{ns}svg")[1].iter(f"{ns}circle")]
    assert dots == [f"drop: {a.step}, {a.figure('safety/drop'):.4g}" for a in card.audits]
    boxes = [tuple(float(e.get(k)) for k in ("x", "y", "width", "height")) for e in root.findall(f"{ns}svg")]
    assert all(x + w <= float(root.get("width")) and y + h <= float(root.get("height")) for x, y, w, h in boxes)
    assert len({box[:2] for box in boxes}) == len(boxes) == 8


def test_a_single_audit_has_no_picture(tmp_path):
    audits, verdict = run_of({1: 1.0}, probes=MANY)
    card = TrustCard("m", replace(ABOUT, max_steps=None, against="Some/Start"), audits, verdict)
    path = tmp_path / "README.md"
    path.write_text("# Mine\n")
    put_into(path, card)
    assert picture(card) == "" and not (tmp_path / "alignguard.svg").exists() and "![" not in path.read_text()
    assert flat(card)["step"] is None and "audits | 1 |" in section(card)


def test_the_flat_document_holds_values_alone(card):
    told = json.loads(dumps(flat(card)))
    assert all(value is None or isinstance(value, (str, int, float)) for value in told.values())
    d = card.verdict.dimensions["safety"]
    assert (
        told["safety/drop"] == d.evidence.drop and told["safety/score"] == d.score and told["safety/p"] == d.evidence.p
    )
    assert (told["safety/n"], told["safety/pairs"]) == (d.n, d.evidence.n)
    assert told["kl/answer"] == card.audits[-1].figure("kl/answer") and told["regressed"] == ", ".join(
        card.verdict.since
    )
    assert told["form"] == "alignguard-card/1" and told["step"] == 15


def test_what_its_words_are_of_is_said(card):
    """A drop of the whole run that tells nothing stood beside "fell", by the last audit alone, and nothing said so."""
    assert "The verdict in a word is of the last audit alone, by its own 95 % interval; `regressed` is of" in section(
        card
    )


def test_what_a_floor_calls_is_told_as_regressed():
    """A capability below its floor was told as "gained", beneath a headline REGRESSION of it."""
    baseline = judged(1.0, "kind", MANY)
    baseline = {
        id: replace(r, score=Score(0.0, Status.ANSWERED)) if r.probe.judge == "number" else r
        for id, r in baseline.items()
    }
    now = judged(1.0, "kind", MANY)
    audits = [Audit(step, r, gather(r, baseline), 0.0) for step, r in ((0, baseline), (5, now))]
    verdict = compare(baseline, audits, looks=1)
    text, read, told = told_in_full(TrustCard("m", About(max_steps=5), audits, verdict))
    assert told["reasoning/verdict"] == "gained"
    verdict = replace(verdict, since={"reasoning": 5})
    text, read, told = told_in_full(TrustCard("m", About(max_steps=5), audits, verdict))
    assert "**REGRESSION of reasoning" in text and told["reasoning/verdict"] == "regressed"
    assert read["reasoning", "drop"].metric_args["verdict"] == "regressed"


def test_a_drop_of_one_side_says_which():
    """Else a dimension whose score stands still is shown with the whole drop of one of its sides."""
    audits, verdict = run_of({0: 1.0, 5: 0.0})
    safety = verdict.dimensions["safety"]
    verdict.dimensions["safety"] = replace(
        safety, watched=True, evidence=replace(safety.evidence, part="refuse", looks=1, n=1)
    )
    card = TrustCard("m", About(max_steps=5), audits, verdict)
    (line,) = (line for line in section(card).splitlines() if line.startswith("| safety |"))
    assert {e.n for e in safety.sides.values()} == {1} and flat(card)["safety/n"] == 2 != flat(card)[
        "safety/pairs"
    ] == 1
    assert "] (refuse) |" in line and flat(card)["safety/part"] == "refuse"
    (drop,) = (r for r in results(card) if (r.dataset_config, r.metric_type) == ("safety", "drop"))
    assert drop.metric_args["part"] == "refuse"


ENGINE = {"url": "http://user:key@box.lan:8000/v1", "model": "/home/me/models/sft", "server": "vllm 9.9"}


def told_in_full(card):
    """A card as it is told everywhere: section, what huggingface_hub reads by dimension and metric, and the flat document."""
    read = {(r.dataset_config, r.metric_type): r for r in ModelCard(front_matter(card)).data.eval_results}
    return section(card), read, json.loads(dumps(flat(card)))


def test_a_model_that_is_held_against_nothing_has_scores_alone():
    audits, verdict = run_of({0: 0.5}, probes=MANY)
    about = About("0.1.0", "sft", pool_hash="a", engine=ENGINE, left_out=("drift", "cho|ces"))
    text, read, told = told_in_full(TrustCard("sft", about, audits, verdict))
    assert "**scores, held against nothing; left out: drift, cho\\|ces**" in text
    assert told["verdict"] == "scores, held against nothing; left out: drift, cho|ces"
    assert "| safety | 0.50 | 24 | 0 of 24 |" in text and "| held against | nothing |" in text
    assert not re.search("regression|drop|start|interval|found", text.partition("They are held against nothing")[0])
    assert {metric for _, metric in read} >= {"score", "unscored"} and not {
        metric for name, metric in read if name != "drift" and metric not in ("score", "unscored")
    }
    assert read["safety", "score"].metric_value == 0.5
    assert read["safety", "score"].metric_args == {"n": 24, "asked": 24, "unscored": 0}
    assert {key for key in told if key.startswith("safety/")} == {"safety/score", "safety/n", "safety/unscored"}
    assert told["start"] == "nothing" and not {"state", "regressed", "alpha", "min_drop"} & {*told}


@pytest.mark.parametrize("judged_now", [0, 3])
def test_no_drop_is_told_of_what_could_not_be_judged(judged_now):
    """What is unscored counts as unchanged: a model that broke would have kept all its trust."""
    baseline = judged(1.0, "kind", MANY)
    lost = {id: r for id, r in baseline.items() if r.probe.dimension == "toxicity"}
    broken = {id: replace(r, score=Score(None, Status.UNPARSEABLE)) for id, r in [*lost.items()][judged_now:]}
    audits = [Audit(step, r, gather(r, baseline), 0.0) for step, r in ((0, baseline), (5, baseline | broken))]
    verdict = compare(baseline, audits, looks=1)
    text, read, told = told_in_full(TrustCard("m", About(max_steps=5), audits, verdict))
    (row,) = (line for line in text.splitlines() if line.startswith("| toxicity |"))
    few = "too few" if judged_now else "none"
    assert f"| {few} judged | {judged_now} | {12 - judged_now} of 12 | - | - | unknown |" in row
    for name in ("toxicity", "together"):
        figures = {key: told[f"{name}/{key}"] for key in ("drop", "low", "high", "p", "detectable")}
        assert set(figures.values()) == {None} and (name, "drop") not in read and told[f"{name}/verdict"] == "unknown"
    args = read["toxicity", "unscored"].metric_args
    assert args == {"n": judged_now, "asked": 12, "unscored": 12 - judged_now, "verdict": "unknown"}
    assert read["toxicity", "unscored"].metric_value == pytest.approx(1 - judged_now / 12, rel=1e-3)
    assert ("toxicity", "score") in read or not judged_now
    assert read["safety", "drop"].metric_args["verdict"] == told["safety/verdict"] != "unknown"


def test_a_served_models_card_says_who_answered_and_nothing_private():
    audits, verdict = run_of({1: 1.0}, probes=MANY)
    notes = (
        "answered by vllm 9.9 at http://user:key@box.lan:8000/v1; drift is left out, in nats/token",
        "what /home/me/a.json, ~/b and (../c|d) tell",
    )
    engine = ENGINE | {"reference": "transformers in float32"}
    about = About("0.1.0", "m", pool_hash="a", engine=engine, against="https://k:s@ref.lan/v1", notes=notes)
    text, _, told = told_in_full(TrustCard("m", about, audits, verdict))
    rows = {row[0]: row[1] for row in cells(html(text)) if len(row) == 2}
    assert rows["answered by"] == told["engine"] == "vllm 9.9, the server at box.lan:8000, as sft"
    assert rows["held against"] == told["start"] == "the server at ref.lan"
    assert rows["which was answered by"] == "transformers in float32"
    assert told["note"] == (
        "answered by vllm 9.9 at box.lan:8000; drift is left out, in nats/token; what a.json, b and (c|d) tell"
    )
    page = re.sub("<[^>]*>", "", html(text))
    assert "answered by vllm 9.9 at box.lan:8000; drift is left out, in nats/token" in page
    assert "what a.json, b and (c|d) tell" in page and not re.search("/home|key|k:s|/v1", text + dumps(told))


def test_figures_do_not_pass_for_those_of_weights_that_were_put_back(card, readme):
    """In metadata a figure stands for the model that is there."""
    put_into(readme, card)
    about = replace(ABOUT, put_back="checkpoint-1234567890|")
    later = replace(card, about=about)
    note = "After training the weights of checkpoint-1234567890| were put back; the figures are of the last audit's."
    put_into(readme, later)
    text, read = readme.read_text(), ModelCard.load(readme).data
    assert note.replace("|", "\\|").replace("'", "\\'") in text and "| safety |" in text
    assert [r.dataset_type for r in read.eval_results] == ["gsm8k"] and not put_into(readme, later)
    told = flat(later)
    assert told["note"] == note and told["state"] == "regressed" and not [key for key in told if "/" in key]
    assert front_matter(later) == ""
    empty = readme.with_name("EMPTY.md")
    empty.write_text("---\nlicense: mit\n---\n# Mine\n")
    put_into(empty, card)
    put_into(empty, later)
    assert empty.read_text().startswith("---\nlicense: mit\n---\n# Mine\n")
