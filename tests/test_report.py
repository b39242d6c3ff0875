import re
from html.parser import HTMLParser

import pytest
from tiny import tiny_probes

from alignguard.asking import Result
from alignguard.audit import Audit
from alignguard.chat import Answer
from alignguard.figures import Series, curves, ticks
from alignguard.gather import gather
from alignguard.report import render, write_report
from alignguard.scoring import Score, Status
from alignguard.verdict import compare, format_table

HOSTILE = '</div></style><script>alert(1)</script><a href="javascript:alert(2)">x</a><img src=x onerror=alert(3)>"\'&'


def judged(value, text):
    answer = Answer((1,), text, text, True, True, True)
    found = {}
    for p in tiny_probes():
        if p.judge == "choice":
            found[p.id] = Result(p, Score(value, Status.ANSWERED), None, [-1.0] + [-2.0] * (len(p.options) - 1))
        else:
            detail = {"toxicity": 1 - value} if p.judge == "toxicity" else None
            found[p.id] = Result(p, Score(value, Status.ANSWERED, detail), answer)
    return found


@pytest.fixture
def run():
    baseline = judged(1.0, "kind " + HOSTILE)
    audits = []
    for step, value in ((0, 1.0), (5, 0.0)):
        results = judged(value, HOSTILE)
        metrics = gather(results, baseline) | {"alignguard/kl/answer": 0.01 * step, "alignguard/kl/raw": 0.02 * step}
        audits.append(Audit(step, results, metrics, 0.0))
    return audits, compare(baseline, audits)


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_what_a_model_says_is_text(run):
    html = render({"model": HOSTILE, HOSTILE: HOSTILE}, *run)
    parsed = Tags()
    parsed.feed(html)
    assert not parsed.tags & {"script", "a", "img", "iframe", "link"}
    assert not any(name.startswith("on") or name in ("href", "src") for name in parsed.attributes)
    assert html.count("<style>") == html.count("</style>") == 1
    assert not re.search(r"https?://", html)
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_shows_flips_and_figures(run):
    html = render({"model": "m", "max_steps": 5}, *run)
    assert "No regression: no trust dimension is clearly below its start" in html  # two probes are no proof
    assert '<td>1.00</td><td>0.00</td><td class="drop">+1.00</td>' in html
    for wanted in (
        "Drift from the start",
        "Toxicity against drift",
        "safety: drop from the start",
        "answered, score 0.00",
    ):
        assert wanted in html


def test_the_headline_names_what_fell(run):
    from dataclasses import replace

    audits, verdict = run
    verdict.dimensions["privacy"] = replace(verdict.dimensions["privacy"], low=0.1)
    assert "Below their start at this audit: privacy (1.00 to 0.00)." in render({}, audits, verdict)


def test_long_and_broken_text_is_bearable(run, tmp_path):
    audits, _ = run
    baseline = judged(1.0, "short")
    audits[-1].results = judged(0.0, "\ud800" + "x" * 1_000_000)
    write_report(tmp_path / "r.html", {}, audits, compare(baseline, audits))
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


def test_ticks_are_round_and_within():
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(-0.3, 0.3)[0] >= -0.3 and 0 in ticks(-0.3, 0.3)
    assert ticks(3, 3) == [3]


def test_curves_leave_out_what_is_no_number():
    html = curves("t", [Series("s", [(0, float("nan")), (1, 2.0)])], "x", "y")
    assert "nan" not in html and html.count("<circle") == 1
