import json
import random
import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from recorded import recorded
from reports import HOSTILE, MANY, judged, run_of
from tiny import tiny_probes

from alignguard import StopRule
from alignguard.auditing.audit import Audit
from alignguard.auditing.metrics import gather
from alignguard.auditing.result import Result
from alignguard.cli.compare import _tables
from alignguard.judging.score import Score, Status
from alignguard.records.about import About
from alignguard.records.store import Store
from alignguard.report import flips as flips_module
from alignguard.report.alarm import regression_text
from alignguard.report.card import TrustCard
from alignguard.report.flips import changes
from alignguard.report.html import render, write_report
from alignguard.report.markdown import section
from alignguard.report.several import joined, page, tables_of
from alignguard.report.terminal import dumps, format_table, summary, tables
from alignguard.text import rounded
from alignguard.verdicts.evidence import Evidence
from alignguard.verdicts.watch import Watch, compare


@pytest.fixture
def run():
    """Too few probes to prove anything."""
    return run_of({0: 1.0, 5: 0.0}, "kind " + HOSTILE, HOSTILE)


@pytest.fixture
def regressed():
    return run_of({0: 1.0, 5: 1.0, 10: 0.0, 15: 0.0}, probes=MANY)


def figure(html, title):
    return re.search(f"<figure><figcaption>{re.escape(title)}</figcaption>.*?</figure>", html)[0]


def plain(html):
    return unescape(re.sub("<[^>]*>", "", html))


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_what_a_model_says_is_text(run):
    html = render(About(model=HOSTILE, budget=HOSTILE, title=HOSTILE), *run)
    parsed = Tags()
    parsed.feed(html)
    assert not parsed.tags & {"script", "a", "img", "iframe", "link"}
    assert not any(name.startswith("on") or name in ("href", "src") for name in parsed.attributes)
    assert html.count("<style>") == html.count("</style>") == 1
    assert not re.search(r"https?://", html)
    assert "&lt;script&gt;alert(1)" in html


def test_a_card_shows_the_starts_figure_of_the_same_probes_or_none():
    """Draws rotate: beside "now" stood a figure of other probes, which had been refused from the first."""
    audits, verdict = run_of({0: 1.0, 5: 1.0})
    assert "<b>0%</b><span>benign requests refused, start 0%</span>" in render(About(max_steps=5), audits, verdict)
    audits[0].metrics["alignguard/safety/benign_refusal"] = 0.09
    audits[0].scores["another"] = 0.0
    html = render(About(max_steps=5), audits, verdict)
    assert "<b>0%</b><span>benign requests refused</span>" in html
    assert "reasoning score, start 1.00" in html  # of pairs


def test_the_page_shows_flips_and_figures(run):
    html = render(About(model="m", max_steps=5), *run)
    # two probes of a dimension are no proof, and all of them are
    assert "<b>Regression of all dimensions together (called at step 5)</b>" in html
    assert '<td>1.00</td><td>0.00</td><td class="">+1.00</td>' in html
    assert "answered 1.00 &rarr; answered 0.00" in html
    titles = ["Drift from the start", "Toxicity against drift, by step", "Drift by position in the answer"]
    for dimension in ("safety", "toxicity", "stereotype", "ethics", "privacy", "ood", "reasoning"):
        titles += [f"{dimension}: drop from the start", f"{dimension} against drift"]
    for title in titles:
        assert "<circle" in figure(html, title), title


def headline(html):
    kind, text = re.search(r'<div class="headline ?(\w*)">(.*?)</div>', html).groups()
    return kind, plain(text.replace("</p>", " ").replace("</b>", ". ")).strip()


def test_the_headline_says_whether_and_why(run, regressed):
    about = About(max_steps=20)
    kind, text = headline(render(about, *regressed))
    assert kind == "bad" and text.startswith("Regression of safety (called at step 10), toxicity (called at step 10), ")
    assert "safety: start 1.00, now 0.00, a drop of 1.00 (95 %: +" in text
    assert "24 of 24 probes flipped to worse, significant at 5 % for the whole run, p " in text
    assert "Last aligned audit: step 5. Reasoning is lost: 1.00 at the start, 0.00 now, on 12 questions" in text
    assert "What to do: take the weights of step 5 (StopRule(restore=True) keeps them), see below what flipped" in text
    assert headline(render(about, *run_of({0: 1.0, 5: 1.0})))[1].startswith(
        "No regression found. With so few probes, or so little to lose, none could have been, however large."
    )
    found = headline(render(about, *run_of({0: 1.0, 5: 1.0}, probes=MANY)))[1]
    told = r"No regression found\. A drop of \d+ points or more would have been\."
    more = r" Reasoning is not gained, as far as can be told: 1\.00 at the start, 1\.00 now, on 12 questions \(95 %: .*\)\."
    assert re.fullmatch(told + more + r" To be told more: more audits, or a larger draw in .*", found), found
    audits, verdict = run_of({0: 1.0, 5: 0.9})
    small = replace(verdict.dimensions["ood"], low=-0.1, high=0.3)
    verdict.dimensions["ood"] = replace(small, drop=0.2)
    assert (
        "Nearest to it is ood, with a drop of 0.20 (95 %: -0.10 to +0.30)."
        in headline(render(about, audits, verdict))[1]
    )
    verdict.dimensions["ood"] = replace(verdict.dimensions["ood"], evidence=Evidence())  # too few could be judged
    assert "Nearest to it is ood" not in headline(render(about, audits, verdict))[1]
    audits, verdict = run
    verdict = replace(verdict, since={})
    verdict.dimensions["privacy"] = replace(verdict.dimensions["privacy"], low=0.1)
    kind, text = headline(render(about, audits, verdict))
    assert kind == "odd" and "Below their start at this audit: privacy (1.00 to 0.00)." in text
    floor = compare(judged(1.0, "a"), audits, StopRule(floors={"privacy": 0.9}, dimensions=["safety"]), looks=2)
    assert "privacy: start 1.00, now 0.00" in headline(render(about, audits, floor))[1]
    assert "the score 0.00 is below its floor of 0.9." in headline(render(about, audits, floor))[1]


def test_what_could_not_be_judged_is_no_good_news():
    audits, verdict = run_of({0: 1.0, 5: 1.0})
    verdict.dimensions["privacy"] = replace(verdict.dimensions["privacy"], unjudged=True)
    kind, text = headline(html := render(About(max_steps=5), audits, verdict))
    assert (
        html.count("<b>unknown</b>") == 1
        and kind == "odd"
        and text.startswith("No verdict. Too few answers could be judged in privacy, where the start's could be.")
    )
    for id, result in audits[-1].results.items():
        audits[-1].results[id] = replace(result, score=Score(None, Status.TRUNCATED))
        audits[-1].scores[id] = None
    kind, text = headline(html := render(About(max_steps=5), audits, compare(judged(1.0, "a"), audits, looks=2)))
    assert kind == "odd" and text.startswith("No verdict. No answer to a trust probe could be judged.")
    assert "Many answers could not be judged: safety 2/2, toxicity 1/1" in text
    assert "<b>unknown</b>" in html and "none scored" in html


def test_a_dimension_has_a_word_for_its_state(regressed):
    audits, verdict = regressed
    d = verdict.dimensions
    verdict = replace(verdict, since={"safety": 10})
    d["toxicity"] = replace(d["toxicity"], low=-0.1, high=0.2)
    d["ood"] = replace(d["ood"], low=-0.3, high=-0.2)
    html = render(About(), audits, verdict)
    states = dict(re.findall(r'<tr><td>(\w+)</td><td class="\w*"><b>([\w ]+)</b>', html))
    assert states["safety"] == "regressed" and states["toxicity"] == "cannot tell" and states["ood"] == "rose"
    assert states["privacy"] == "fell"
    d["toxicity"] = replace(d["toxicity"], low=-0.1, high=0.02)
    assert "<b>holds</b>" in render(About(), audits, verdict)


def at(html, tag, style):
    """Where in a figure things of a style stand."""
    found = re.findall(rf'<{tag} class="{style}" (?:x1|cx)="([\d.]+)"', html)
    return [float(x) for x in found]


def test_a_called_regression_and_the_last_aligned_step_are_marked(regressed):
    html = render(About(max_steps=20), *regressed)
    for title, style in (("Drift from the start", "c1"), ("safety: drop from the start", "c2")):
        shown = figure(html, title)
        steps = at(shown, "circle", f"dot {style}")
        assert len(steps) == 4
        assert at(shown, "line", "mark worse") == [steps[2]] and at(shown, "line", "mark better") == [steps[1]]
        assert "called at step 10</span>" in shown and "last aligned: step 5</span>" in shown
    assert "mark worse" not in figure(html, "reasoning: drop from the start")
    quiet = render(About(max_steps=20), *run_of({0: 1.0, 5: 1.0}))
    assert "mark worse" not in quiet and at(figure(quiet, "Drift from the start"), "line", "mark better")


def test_intervals_are_drawn(regressed):
    html = render(About(max_steps=20), *regressed)
    for title in ("Drift from the start", "ethics: drop from the start", "reasoning: drop from the start"):
        assert figure(html, title).count("<polygon") == 1, title


def test_cards_tell_the_start_too(regressed):
    html = render(About(max_steps=20), *regressed)
    assert '<div class="card"><b>5</b><span>last aligned step</span></div>' in html
    assert '<div class="card"><b>0.1500</b><span>drift, nats/token (answer)</span></div>' in html
    assert '<div class="card"><b>1.000</b><span>mean toxicity, start 0.000</span></div>' in html


def test_a_drift_budget_is_shown_beside_the_drift():
    spent = {"budget/anchor_kl": 0.001, "budget/coefficient": 2.0, "budget/penalty": 0.002, "budget/max_kl": 0.01}
    html = render(About(max_steps=5), *run_of({0: 1.0, 5: 1.0}, **spent))
    beside = figure(html, "The drift budget: anchors beside probes")
    assert "on the anchors: 5, 0.005" in beside and "on probes (answer): 5, 0.05" in beside
    assert "max_kl 0.05" in beside
    assert "coefficient: 5, 10" in figure(html, "The drift budget: its coefficient")
    assert "<b>0.01</b><span>penalty added to the loss</span>" in html
    assert "drift budget" not in render(About(max_steps=5), *run_of({0: 1.0, 5: 1.0}))


@pytest.mark.parametrize("steps", [(1,), (0, 1)])
def test_matched_models_have_no_curves(steps):
    audits, verdict = run_of({step: 1.0 - step for step in steps}, probes=MANY)
    html = render(About(title="R1 <b>", against="Instruct"), audits, verdict)
    assert "<title>R1 &lt;b&gt;</title>" in html and "<h1>R1 &lt;b&gt;</h1>" in html
    assert '<p class="sub">held against Instruct</p>' in html
    assert headline(html)[1].startswith("Regression of safety, toxicity, ") and "step" not in headline(html)[1]
    assert html.count("<svg") == 1 and "Drift by position in the answer" in html
    assert "<th>reference</th><th>now</th>" in html and "<p>Reference</p>" in html and "safety: 24 worse" in html
    assert "start" not in plain(html.split("</style>")[1])


def test_the_first_audit_of_a_run_says_so():
    html = render(About(model="org/m", max_steps=20), *run_of({0: 1.0}))
    assert "<h1>AlignGuard: m</h1>" in html and "<svg" not in html
    assert "step 0 of 20, 1 audit, the latest at 1970-01-01 00:00 UTC; held against the model at step 0" in html


def test_flips_stand_side_by_side_those_called_first():
    before, after = "I cannot help with that, sorry.", "I can help with that, sorry."
    audits, verdict = run_of({0: 1.0, 5: 0.0}, before, after, MANY, trace="hm")
    verdict = replace(verdict, since={"privacy": 5})
    html = render(About(), audits, verdict)
    assert "I <del>cannot</del> help with that, sorry.</div>" in html
    assert "I <ins>can</ins> help with that, sorry.</div>" in html
    assert "&bull; <del>wrong (right)</del>\n&bull; not wrong</div>" in html
    assert "&bull; wrong (right)\n&bull; <ins>not wrong</ins></div>" in html
    assert '<span class="trace">thinks: hm</span>' in html
    sections = re.findall(r"<h3>(\w+): (\d+) worse, 0 better, of \d+</h3>", html)
    assert sections[0] == ("privacy", "24") and sections[1] == ("safety", "24") and len(sections) == 7
    privacy = html.split("<h3>")[1]
    assert privacy.count("<details") == 10 and "and 14 more, not shown here." in privacy
    assert "user: The code is 4711. What is it?" in privacy


def test_a_probe_that_got_better_says_so():
    baseline = judged(0.0, "a", MANY)
    results = judged(1.0, "b", MANY)
    audits = [Audit(1, results, gather(results, baseline), 0.0)]
    html = render(About(), audits, compare(baseline, audits))
    assert "privacy: 0 worse, 24 better, of 24" in html and '<b class="better">better</b> answered 0.00' in html


def test_what_fell_is_counted_apart_from_what_rose():
    good, bad = judged(1.0, "a", MANY), judged(0.0, "b", MANY)
    fell = [id for id, r in good.items() if r.probe.dimension == "privacy"][:18]  # of 24; the rest rose
    baseline = {id: good[id] if id in fell else bad[id] for id in good}
    audits = [Audit(1, now := {id: bad[id] if id in fell else good[id] for id in good}, gather(now, baseline), 0.0)]
    html = render(About(), audits, replace(compare(baseline, audits), since={"privacy": 1}))
    assert "privacy: 18 worse, 6 better, of 24" in html
    assert "privacy: start 0.75, now 0.25" in html and "18 of 24 probes flipped to worse" in html


def test_without_quotes_nothing_asked_or_said_is_shown():
    rows = [replace(p, group="GROUP", condition="CONDITION", options=("OPTION", *p.options[1:])) for p in MANY]
    rows = [replace(p, messages=({"role": "user", "content": "ASKED"},)) for p in rows]
    audits, verdict = run_of({0: 1.0, 5: 0.0}, "BEFORE", "AFTER", rows, trace="TRACE")
    words = ("ASKED", "BEFORE", "AFTER", "TRACE", "OPTION", "GROUP", "not wrong", "nobody knows", "4711")
    quoted, silent = (plain(render(About(quote=quote, max_steps=5), audits, verdict)) for quote in (True, False))
    assert [w for w in words if w not in quoted] == ["4711"] and not [w for w in words if w in silent]
    row = '<tr><td>p1-0</td><td class="left">privacy</td><td class="left">answered 1.00</td><td class="left worse">answered 0.00</td></tr>'
    html = render(About(quote=False), audits, verdict)
    assert row in html and html.count('<td class="left worse">') == len(MANY)


def test_changed_words_are_marked():
    assert changes("same words here", "same words here") == ("same words here", "same words here")
    assert changes("", "new\n") == ("", "<ins>new\n</ins>")
    assert changes("a <b> c d", "a <b> c e") == ("a &lt;b&gt; c <del>d</del>", "a &lt;b&gt; c <ins>e</ins>")
    # one word in common by chance is no kept part, three in a row are
    assert changes("x the y", "p q the r")[0] == "<del>x the y</del>"
    assert changes("x in the end y", "p q in the end r")[1] == "<ins>p q</ins> in the end <ins>r</ins>"


def test_marks_leave_the_text_as_it_was():
    words = random.Random(0)
    for _ in range(200):
        texts = ["".join(words.choices(["a", "b", "<i>", "&amp;", " ", "\n", "  ", '"'], k=40)) for _ in range(2)]
        for text, html in zip(texts, changes(*texts), strict=True):
            assert plain(re.sub("</?(ins|del)>", "", html)) == text
            assert not set(re.findall("<[^>]*>", html)) - {"<ins>", "</ins>", "<del>", "</del>"}


def test_no_more_words_are_compared_than_is_quick(monkeypatch):
    compared = []

    class Counting(flips_module.SequenceMatcher):
        def __init__(self, junk, a, b, **kwargs):
            compared.extend([len(a), len(b)])
            super().__init__(junk, a, b, **kwargs)

    monkeypatch.setattr(flips_module, "SequenceMatcher", Counting)
    assert changes("w " * 1000 + "end", "w " * 1000 + "fin") == ("w " * 1000 + "end", "w " * 1000 + "fin")
    assert compared == [400, 400]
    render(About(), *run_of({1: 0.0}, "a b " * 500_000, "b a " * 500_000))
    assert len(compared) > 2 and max(compared) == 400


def test_long_and_broken_text_is_bearable(run, tmp_path):
    audits, _ = run
    baseline = judged(1.0, "short")
    audits[-1].results = judged(0.0, "\ud800" + "x" * 1_000_000)
    write_report(tmp_path / "r.html", About(), audits, compare(baseline, audits))
    assert (tmp_path / "r.html").stat().st_size < 300_000


def test_the_verdict_counts_pairs_and_flips(run):
    _, verdict = run
    privacy = verdict.dimensions["privacy"]
    assert (privacy.n, privacy.baseline, privacy.score, privacy.drop, len(privacy.flips)) == (2, 1.0, 0.0, 1.0, 2)
    assert verdict.dimensions["toxicity"].drop == 1.0


def test_unscored_answers_are_no_evidence():
    baseline, after = judged(1.0, "a"), judged(0.0, "b")
    for id in after:
        after[id] = Result(after[id].probe, Score(None, Status.TRUNCATED), after[id].answer, after[id].logprobs)
    verdict = compare(baseline, [Audit(1, after, gather(after, baseline), 0.0)])
    assert all(d.n == 0 and d.unscored == d.asked and not d.flips and not d.fell for d in verdict.dimensions.values())
    assert "none scored" in format_table(Audit(1, after, {}, 0.0), verdict)


def test_what_could_not_be_judged_proves_nothing_and_would_have_found_nothing(tmp_path):
    """What is unscored counts as unchanged: of that alone neither p nor a drop that would have been found is told."""
    record = recorded(tmp_path, {0: 1.0, 8: 1.0})
    audit, d = record.audits[-1], record.verdict.dimensions["toxicity"]
    assert (d.n, d.unscored, d.judged) == (0, 2, False) and not d.evidence.looks and record.verdict.together.unjudged
    for text in (format_table(audit, record.verdict), tables(record)):
        for name in ("toxicity", "together"):
            (row,) = (line for line in text.splitlines() if line.strip().startswith(f"{name} "))
            assert re.search(r" -  +-  .*too few judged$", row)
    told = summary(record)
    for name in ("toxicity", "together"):
        part = json.loads(dumps(told["dimensions"][name]))
        assert {part[key] for key in ("p", "evidence", "detectable")} == {None}
        assert {part["whole_run"][key] for key in ("drop", "low", "high")} == {None}
    assert json.loads(dumps(told["detectable"])) is None
    logged = record.verdict.metrics()
    assert "alignguard/safety/p" in logged and not [name for name in logged if re.search("toxicity/|together/", name)]
    row = re.findall(r"<tr><td>toxicity</td>.*?</tr>", render(record.about, record.audits, record.verdict), re.S)[0]
    assert re.findall(r"<td[^>]*>([^<]*)</td>", row)[-4:-1] == ["0", "-", "-"]
    several = tables_of([record], {})
    assert re.search(r" none +(-|[\d.e-]+) +no verdict", several)


def test_a_table_says_nothing_of_what_is_not_there(run):
    audits, verdict = run
    bare = replace(audits[-1], metrics={"alignguard/kl/raw": 0.5})
    assert format_table(bare, verdict).splitlines()[0] == "AlignGuard  step 5  (raw 0.5000)"
    assert "nan" not in format_table(replace(bare, metrics={}), verdict)


@pytest.mark.parametrize(
    ("rule", "untested"),
    [
        (StopRule(), ["reasoning"]),
        (StopRule(dimensions=["ethics"]), ["reasoning", "safety", "safety/refuse", "safety/comply"]),
        (StopRule(rule="sign-test"), ["reasoning", "safety/refuse", "privacy/keep"]),
    ],
)
def test_of_what_nothing_tests_no_proof_is_told(rule, untested, tmp_path):
    """The sign test looks at whole dimensions, and no test at what the rule does not watch."""
    record = recorded(tmp_path)
    audits = record.audits
    verdict = compare(record.baseline, audits, rule, looks=2)
    told = json.loads(dumps(summary(replace(record, verdict=verdict))))["dimensions"]
    parts = {name: part for name, part in told.items() if name != "together"}
    parts |= {f"{name}/{side}": part for name, d in told.items() for side, part in d["sides"].items()}
    for name, part in parts.items():
        proof = [part["p"], part["evidence"], *(part["whole_run"][key] for key in ("drop", "low", "high"))]
        if name in untested:
            assert proof == [None] * 5 and part["detectable"] is None and part["drop"] == 0.75, name
    assert told["ethics"]["p"] <= 1.0 and told["ethics"]["whole_run"]["drop"] == 0.75
    page = render(About(max_steps=8), audits, verdict)
    lines = [format_table(audits[-1], verdict), tables(replace(record, verdict=verdict))]
    for name in untested:
        side = name.rpartition("/")[2]
        for row in re.findall(rf"<tr[^>]*><td>{side}</td>.*?</tr>", page, re.S):
            assert re.findall(r"<td[^>]*>([^<]*)</td>", row)[-3:-1] == ["-", "-"], name
        for row in (line for text in lines for line in text.splitlines() if line.split()[:1] == [side]):
            assert " -  " in row.partition("]")[2], row


def test_of_a_side_of_which_nothing_was_scored_no_drop_is_told(tmp_path):
    record = recorded(tmp_path)
    now = {
        id: replace(r, score=Score(None, Status.TRUNCATED)) if r.probe.expect == "refuse" else r
        for id, r in record.audits[-1].results.items()
    }
    audit = Audit(8, now, gather(now, record.baseline), 0.0)
    verdict = compare(record.baseline, [audit], looks=1)
    side = json.loads(dumps(summary(replace(record, audits=[audit], verdict=verdict))))["dimensions"]["safety"][
        "sides"
    ]["refuse"]
    assert [side[key] for key in ("n", "reference", "score", "drop", "low", "high")] == [
        0,
        None,
        None,
        None,
        None,
        None,
    ]


def fallen(rule, looks=1, **shares):
    """Many probes answered rightly at the start; of each judge named this share of them is not any more. The alarm's lines."""
    baseline = judged(1.0, "a", MANY)
    now, seen = dict(baseline), dict.fromkeys(shares, 0)
    for id, result in baseline.items():
        if (name := result.probe.expect or result.probe.judge) in shares:
            seen[name] += 1
            now[id] = replace(result, score=Score(float(seen[name] > 12 * shares[name]), Status.ANSWERED))
    audits = [Audit(step, now, gather(now, baseline), 0.0) for step in range(1, looks + 1)]
    verdict = compare(baseline, audits, rule, looks=looks)
    return verdict, regression_text(verdict, "nowhere", quote=False).splitlines()


def test_the_command_that_is_told_can_be_typed_and_is_not_told_where_no_rows_are_kept(tmp_path):
    verdict, _ = fallen(StopRule(), refuse=1.0)
    assert "alignguard trace" not in regression_text(verdict, tmp_path / "my run")
    Store.of_run(tmp_path / "my run").rows.mkdir(parents=True)
    (line,) = (
        line for line in regression_text(verdict, tmp_path / "my run").splitlines() if "alignguard trace" in line
    )
    typed = shlex.split(line.partition(": ")[2])
    assert typed == ["alignguard", "trace", str(tmp_path / "my run"), "--side", "safety/refuse", "--to", "1"]


def test_what_fell_below_the_floor_of_a_dimension_that_nothing_tests_is_told_with_its_own_figures():
    verdict, lines = fallen(StopRule(floors={"reasoning": 0.9}), number=0.5)
    assert verdict.since == {"reasoning": 1}
    assert re.fullmatch(
        r"  reasoning: fell by 0\.50 \[\+0\.\d\d, \+0\.\d\d\] at this audit \(12 pairs\); the score 0\.50 is below its floor of 0\.9",
        lines[1],
    ), lines[1]
    watch = Watch(baseline := judged(1.0, "a", MANY), StopRule(floors={"reasoning": 0.9}), 3)
    for step, share in ((1, 0.0), (2, 1.0), (3, None)):
        now = {
            id: replace(r, score=Score(share, Status.ANSWERED)) if r.probe.judge == "number" else r
            for id, r in baseline.items()
        }
        verdict = watch.look(Audit(step, now, gather(now, baseline), 0.0))
        lines = regression_text(verdict, "nowhere", quote=False).splitlines()
        told = {
            1: r"fell by 1\.00 \[\+0\.\d\d, \+1\.00\] at this audit \(12 pairs\); the score 0\.00 is below its floor of 0\.9",
            2: r"fell by 0\.00 \[-0\.\d\d, \+0\.\d\d\] at this audit \(12 pairs\); no test is made of it",
            3: r"nothing of it could be judged at this audit",
        }[step]
        assert re.fullmatch(f"  reasoning: {told}", lines[1]), lines[1]
        if step == 2:
            why = headline(render(About(max_steps=5), [Audit(step, now, gather(now, baseline), 0.0)], verdict))[1]
            assert "no test is made of it" in why and "too few changed" not in why


@pytest.mark.parametrize("looks", [1, 3])
def test_a_floor_is_told_with_the_dimensions_figures_and_what_is_proven_of_a_side_beside_it(looks):
    verdict, lines = fallen(StopRule(floors={"safety": 0.9}), looks, refuse=1.0)
    assert verdict.dimensions["safety"].evidence.part == "refuse"
    assert re.fullmatch(
        r"  safety: fell by 0\.50 \[\+0\.\d\d, \+0\.\d\d\] at this audit \(24 pairs\); the score 0\.50 is below its floor of 0\.9",
        lines[1],
    ), lines[1]
    assert re.fullmatch(
        r"    harmful requests refused: fell by 1\.00 \[\+0\.\d\d, \+1\.00\] at this audit \(12 pairs\); significant for the whole run, p [\d.e-]+",
        lines[2],
    ), lines[2]
    _, lines = fallen(StopRule(), looks, refuse=1.0)
    assert lines[1].startswith("  safety (harmful requests refused): fell by 1.00 [+0.")


@pytest.mark.parametrize(
    ("value", "form", "told"),
    [
        (-0.002, "+.2f", "+0.00"),
        (-0.0, "+.2f", "+0.00"),
        (0.0, "+.2f", "+0.00"),
        (-0.005001, "+.2f", "-0.01"),
        (-0.1, "+.2f", "-0.10"),
        (-1e-9, ".4f", "0.0000"),
        (-0.004, ".0%", "0%"),
        (-3e-7, ".1e", "-3.0e-07"),
        (-0.0, "g", "0"),
        (float("-inf"), ".2f", "-inf"),
    ],
)
def test_what_is_rounded_to_nothing_has_no_minus(value, form, told):
    assert rounded(value, form) == told


def test_no_minus_stands_before_a_zero_anywhere(tmp_path):
    record = recorded(tmp_path)
    nothing = {"drop": -0.002, "low": -0.004, "high": 0.0}

    def flat(d):
        sides = {name: replace(side, **nothing) for name, side in d.sides.items()}
        return replace(d, **nothing, sides=sides, evidence=replace(d.evidence, **nothing))

    verdict = record.verdict
    verdict = replace(
        verdict, dimensions={name: flat(d) for name, d in verdict.dimensions.items()}, together=flat(verdict.together)
    )
    tiny = {key for key in record.audits[-1].metrics if re.search("/kl/(?!thinks)|drop|leaning", key)}
    audits = [replace(audit, metrics=audit.metrics | dict.fromkeys(tiny, -1e-9)) for audit in record.audits]
    record = replace(record, verdict=verdict, audits=audits)
    told = {
        "table": format_table(audits[-1], verdict),
        "tables": tables(record),
        "several": tables_of([record], {}),
        "page": plain(render(record.about, audits, verdict)),
        "page of several": plain(page([record], {})),
        "alarm": regression_text(verdict, tmp_path),
        "card": section(TrustCard("m", record.about, audits, verdict)),
        "runs": str(_tables([record])),
    }
    for name, text in told.items():
        assert re.findall(r"[^\n]*(?<!\w)-0(?:\.0+)?(?!\d|\.\d)[^\n]*", text) == [], name
        assert "0.00" in text, name


def test_a_cell_of_several_models_says_of_how_many_probes_where_they_are_fewer_than_the_references(tmp_path):
    """The reference is right in half of what could be judged of it, and the model in all that could be judged of both: the right half."""
    record = recorded(tmp_path)
    probes = [replace(p, id=f"{p.id}-{i}", family=f"{p.id}-{i}") for i in range(24) for p in tiny_probes()[:3]]
    baseline = judged(1.0, "a", probes)
    half = {p.id for p in probes[36:] if p.dimension == "safety"}
    baseline |= {id: replace(baseline[id], score=Score(0.0, Status.ANSWERED)) for id in half}
    now = baseline | {id: replace(baseline[id], score=Score(None, Status.UNPARSEABLE)) for id in half}
    audit = Audit(1, now, gather(now, baseline), 0.0)
    record = replace(record, baseline=baseline, audits=[audit], verdict=compare(baseline, [audit]))
    head, reference, model, legend = tables_of([record], {}).splitlines()[:4]
    assert head.split() == ["model", "safety", "toxicity", "together"]
    assert reference.split()[-3:] == ["0.50", "1.00", "-"]
    assert model.endswith("1.00 (+0.00, of 24)   1.00 (+0.00)   1.00 (+0.00, of 48)"), model
    assert "of N: on the N probes that could be judged of both, where that is fewer" in legend
    assert "1.00 (+0.00, of 24)" in plain(page([record], {})) and "where that is fewer" in plain(page([record], {}))
    (told,) = joined([record], {})["models"]
    safety = told["dimensions"]["safety"]
    assert (safety["reference"], safety["score"], safety["drop"], safety["n"]) == (1.0, 1.0, 0.0, 24)
    assert told["reference_metrics"]["alignguard/safety/n"] == 48


def test_the_skills_card_tells_both_ends_of_the_same_probes():
    """Half of the questions was answered wrongly at the start, and cannot be judged any more."""
    baseline = judged(1.0, "a", MANY)
    half = [id for id, r in baseline.items() if r.probe.judge == "number"][:6]
    baseline |= {id: replace(baseline[id], score=Score(0.0, Status.ANSWERED)) for id in half}
    now = baseline | {id: replace(baseline[id], score=Score(None, Status.TRUNCATED)) for id in half}
    audits = [Audit(step, results, gather(results, baseline), 0.0) for step, results in ((0, baseline), (5, now))]
    html = render(About(max_steps=5), audits, compare(baseline, audits, looks=1))
    assert "<b>1.00</b><span>reasoning score, start 1.00</span>" in html
