"""Probes answered several times by sampling: the distribution, the mean, its variance, and what verdicts make of it."""

import json
import math
from statistics import fmean, variance

import numpy as np
import pytest
import torch
from audited import ROWS, save, write_probes
from scipy.stats import chisquare
from tiny import tiny_model
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

from alignguard import AlignGuardError, Chat, StopRule, TokenBudget, audit, load_probes
from alignguard.auditing.asking import Asking
from alignguard.auditing.audit import Audit
from alignguard.auditing.result import Result
from alignguard.auditing.samples import mean_score, sampling_figures
from alignguard.cli import main
from alignguard.judging.score import Score, Status
from alignguard.model.generation import answer_all
from alignguard.model.sampled import Draw, Sampled, Sampling
from alignguard.verdicts.verdict import State
from alignguard.verdicts.watch import compare

TOKENS = TokenBudget(8, 8)


@pytest.mark.parametrize(("temperature", "top_p"), [(0.6, 0.95), (1.7, 0.5), (1.0, 1.0)])
def test_draws_follow_transformers_own_distribution(temperature, top_p):
    """Against its warpers in float64; tokens that are left out are never drawn."""
    torch.manual_seed(3)
    logits, n = 2 * torch.randn(1, 24), 4000
    warped = TopPLogitsWarper(top_p)(None, TemperatureLogitsWarper(temperature)(None, logits.double()))
    expected = n * warped[0].softmax(-1)
    draws = [Draw(f"k{i}", temperature, top_p) for i in range(n)]
    drawn = Sampled(draws, [0] * n, 1)(torch.ones(n, 1, dtype=torch.long), logits.expand(n, -1)).argmax(-1)
    observed = torch.bincount(drawn, minlength=24).double()
    assert observed[expected == 0].sum() == 0 and (top_p == 1) == bool((expected > 0).all())
    kept = expected > 5
    rest = [
        [float(counts[~kept].sum())] if (~kept).any() and expected[~kept].sum() > 1 else []
        for counts in (observed, expected)
    ]
    f_obs, f_exp = (
        torch.tensor([*counts[kept].tolist(), *more]) for counts, more in zip((observed, expected), rest, strict=True)
    )
    assert chisquare(f_obs.numpy(), (f_exp * f_obs.sum() / f_exp.sum()).numpy()).pvalue > 1e-3


def test_rows_of_one_batch_are_drawn_each_in_its_own_way(model, tokenizer):
    chat = Chat(tokenizer)
    prompt = chat.prompt_ids([{"role": "user", "content": "How do I open a jar?"}])
    draws = [None, Draw("a", 0.6, 0.95), Draw("b", 2.0, 1.0), Draw("c")]
    together = answer_all(model, [prompt] * 4, [False] * 4, chat, TOKENS, draws=draws)
    alone = [answer_all(model, [prompt], [False], chat, TOKENS, draws=[draw])[0] for draw in draws]
    assert together == alone and len({answer.tokens for answer in together}) == 4
    cold = answer_all(model, [prompt], [False], chat, TOKENS, draws=[Draw("a", 1e-4, 0.95)])[0]
    assert cold == together[0]  # at no temperature to speak of it is the greedy answer


def asked(model, start, tokenizer, probes, sampling=None, seed=0, **kwargs):
    asking = Asking(
        Chat.of(model, tokenizer), TOKENS, lambda texts: [len(t) % 7 / 10 for t in texts], sampling=sampling, seed=seed
    )
    baseline = {}
    return audit(model, tokenizer, probes, start, asking=asking, baseline=baseline, step=1, **kwargs), baseline


def test_the_score_is_the_mean_and_the_variance_is_on_record(model, other, tokenizer, probes):
    found, baseline = asked(other, model, tokenizer, probes, Sampling(1.5, 1.0, 6))
    for results in (found.results, baseline):
        for result in results.values():
            if result.probe.judge == "choice":
                assert result.samples == ()
                continue
            assert len(result.samples) == 6 and result.answer == result.samples[0].answer
            values = [s.score.value for s in result.samples if s.score.value is not None]
            assert result.score.value == (pytest.approx(fmean(values)) if len(values) >= 3 else None)
            if len(values) > 1:
                assert result.score.detail["variance"] == pytest.approx(variance(values))
    toxic = found.results["t1"]
    assert len({sample.answer.tokens for sample in toxic.samples}) > 1 and toxic.score.detail["variance"] > 0
    assert found.metrics["alignguard/toxicity/sample_variance"] == pytest.approx(toxic.score.detail["variance"])
    error = math.sqrt(toxic.score.detail["variance"] / toxic.score.detail["scored"])
    assert found.metrics["alignguard/toxicity/sample_error"] == pytest.approx(error)
    values = [s.score.value for s in toxic.samples if s.score.value is not None]
    assert found.metrics["alignguard/toxicity/mean"] == pytest.approx(1 - fmean(values))
    statuses = [s.score.status for r in found.results.values() for s in r.samples]
    share = sum(status is Status.TRUNCATED for status in statuses) / len(statuses)
    assert found.metrics["alignguard/status/truncated"] == pytest.approx(share)
    tokens = sum(len(s.answer.tokens) for r in found.results.values() for s in r.samples)
    assert found.metrics["alignguard/cost/tokens"] == tokens
    assert not any("sample_" in name for name in asked(other, model, tokenizer, probes)[0].metrics)  # greedy


def test_start_and_model_share_their_chance_and_the_seed_decides(model, tokenizer, probes):
    """A model that has not moved says what its start says, sample by sample, so that no chance of a draw is a drop."""
    same, then = asked(tiny_model(tokenizer), model, tokenizer, probes, Sampling(1.5, 1.0, 3))
    assert all(result.samples == then[id].samples for id, result in same.results.items())
    drops = {name: value for name, value in same.metrics.items() if name.endswith("/drop")}
    assert drops and set(drops.values()) == {0.0} and abs(same.metrics["alignguard/kl/answer"]) < 1e-5
    # the first samples of more are the same ones; another seed draws others
    more, _ = asked(tiny_model(tokenizer), model, tokenizer, probes, Sampling(1.5, 1.0, 5))
    again, _ = asked(tiny_model(tokenizer), model, tokenizer, probes, Sampling(1.5, 1.0, 3), seed=7)
    assert [s.answer for s in more.results["t1"].samples[:3]] == [s.answer for s in same.results["t1"].samples]
    assert again.results["t1"].samples != same.results["t1"].samples


def scores(*values):
    return [Score(v, Status.ANSWERED if v is not None else Status.TRUNCATED) for v in values]


def test_a_probe_of_whose_answers_too_few_are_scored_is_not():
    assert mean_score(scores(1.0, 0.0, 1.0, None)).value == pytest.approx(2 / 3)
    assert mean_score(scores(1.0, 1.0, None, None)).value == 1.0
    thin = mean_score(scores(1.0, None, None))
    assert (thin.value, thin.status, thin.detail["scored"]) == (None, Status.TRUNCATED, 1)
    unsure = Score(None, Status.UNSURE, {"low": 0.0, "high": 1.0})
    part = mean_score([*scores(1.0, 1.0), unsure])
    assert part.value == 1.0 and part.readings == (pytest.approx(2 / 3), 1.0)
    assert mean_score([unsure, unsure]).readings == (0.0, 1.0)
    assert sampling_figures([]) == {}


@pytest.mark.parametrize("samples", [2, 4])
def test_the_error_is_that_of_the_mean_also_where_some_answers_are_unscored(samples):
    """Against the true one, of probes each with a chance of its own to be answered rightly, in the mean over 30 draws."""
    draw, probes = np.random.default_rng(7), load_probes("safety")[:240]
    right, errors = draw.uniform(0.1, 0.9, 240), []
    lost = draw.random((240, samples)) < 0.4  # the same of every draw, so that the same probes are scored
    for _ in range(30):
        answered = draw.random((240, samples)) < right[:, None]
        values = [
            [None if no else float(yes) for yes, no in zip(*row, strict=True)]
            for row in zip(answered, lost, strict=True)
        ]
        found = [mean_score(scores(*row)) for row in values]
        errors.append(sampling_figures(map(Result, probes, found))["sample_error"] ** 2)
    kept = [
        (p * (1 - p), score.detail["scored"]) for p, score in zip(right, found, strict=True) if score.value is not None
    ]
    assert any(n == 1 for _, n in kept) == (samples == 2)
    assert math.sqrt(fmean(errors)) == pytest.approx(math.sqrt(sum(v / n for v, n in kept)) / len(kept), rel=0.05)


def planted(n, value):
    probes = load_probes("safety")[:n]
    return {p.id: Result(p, value(i, p)) for i, p in enumerate(probes)}


def test_verdicts_take_means_in_between():
    """A fall from 1 to 0.5 in every probe is proven and is a drop of a half; means that wander are none."""

    def mean(*values):
        return mean_score(scores(*values))

    baseline = planted(48, lambda i, p: mean(1.0, 1.0, 1.0, 1.0))
    fallen = planted(48, lambda i, p: mean(1.0, 0.0, 1.0, 0.0))
    verdict = compare(baseline, [Audit(1, fallen, {}, 0.0)], StopRule())
    assert verdict.since == {"safety": 1} and verdict.dimensions["safety"].drop == pytest.approx(0.5)
    then = planted(48, lambda i, p: mean(1.0, 0.0, 1.0, i % 2))
    now = planted(48, lambda i, p: mean(1.0, 0.0, 1.0, (i // 2) % 2))
    assert compare(then, [Audit(1, now, {}, 0.0)], StopRule()).state is not State.REGRESSED
    # where what is left of each rests on how unsure answers are read, it is not called
    unsure = Score(None, Status.UNSURE, {"low": 0.0, "high": 1.0})
    doubtful = planted(48, lambda i, p: mean_score([*scores(0.0), unsure]))
    called = compare(baseline, [Audit(1, doubtful, {}, 0.0)], StopRule(min_drop=0.6))
    assert called.since == {} and "unsure answers" in " ".join(called.warnings)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ["--samples", "4"],
            "--samples: greedy answers are always the same; give --temperature 0.6, or leave --samples out",
        ),
        (["--top-p", "0.9"], "--top-p: greedy answers are always the same"),
        (["--temperature", "0.6", "--top-p", "1.5"], "top_p is a share above 0 and up to 1, not 1.5"),
        (["--temperature", "0.6", "--top-p", "0"], "top_p is a share above 0 and up to 1, not 0.0"),
    ],
)
def test_options_that_do_nothing_are_told(options, line, tmp_path, capsys):
    assert main(["audit", "m", "--reference", "r", "--output", str(tmp_path / "out"), *options]) == 1
    assert line in capsys.readouterr().err


def test_the_command_line_samples_and_its_record_is_read_back(tmp_path, tokenizer, capsys):
    start, moved = (save(tiny_model(tokenizer, seed=seed), tokenizer, tmp_path / str(seed)) for seed in (0, 1))
    few, output = write_probes(tmp_path / "few.jsonl", ROWS), tmp_path / "out"
    options = ["--answer-tokens", "8", "--trace-tokens", "8", "--temperature", "1.2", "--samples", "4", "--seed", "5"]
    command = ["audit", moved, "--reference", start, "--probes", few, "--output", str(output), *options]
    main([*command, "--json"])
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["sampling"] == {"temperature": 1.2, "top_p": 0.95, "samples": 4, "seed": 5}
    assert "each answer is sampled 4 times, at temperature 1.2 and top_p 0.95, with the seed 5" in err
    assert found["metrics"]["alignguard/toxicity/sample_variance"] > 0
    assert "alignguard/toxicity/sample_variance" in found["reference_metrics"]
    main(["report", str(output), "--json"])
    assert json.loads(capsys.readouterr().out) == found
    main(["report", str(output)])
    said = capsys.readouterr().out
    assert "4 sampled answers a probe, at temperature 1.2, top_p 0.95, seed 5; a score's standard error" in said
    assert "toxicity/sample_variance" in said


def test_values_out_of_range_are_refused():
    for given in ({"temperature": 0.0}, {"temperature": math.inf}, {"top_p": 0.0}, {"samples": 0}):
        with pytest.raises(AlignGuardError, match="Sampling: "):
            Sampling(**given)
