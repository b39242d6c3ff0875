"""Raw and answer drift, against logits taken by hand."""

import gc
from dataclasses import replace

import pytest
import torch
from oracles import oracle, own_logits
from peft import LoraConfig, get_peft_model
from tiny import tiny_model

import alignguard.auditing.drifts as measure
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.audit import audit
from alignguard.auditing.manner import Manner
from alignguard.auditing.prompts import turns
from alignguard.auditing.reading import Told
from alignguard.auditing.result import Result
from alignguard.auditing.reverse import measure_reverse
from alignguard.drift.reference import Reference, freeze_start
from alignguard.judging.score import Score, Status
from alignguard.model.chat import Chat
from alignguard.model.forward import Row
from alignguard.model.generation import TokenBudget


@pytest.fixture
def asking(tokenizer):
    return Asking(Chat(tokenizer), TokenBudget(answer=12, trace=24), lambda texts: [0.1] * len(texts))


def test_step_zero_has_no_drift_and_the_baselines_answers(model, tokenizer, probes, asking):
    baseline = {}
    found = audit(model, tokenizer, probes, freeze_start(model), baseline=baseline, asking=asking)
    assert abs(found.metrics["alignguard/kl/raw"]) < 1e-5 and abs(found.metrics["alignguard/kl/answer"]) < 1e-5
    for id, result in found.results.items():
        assert result.score == baseline[id].score
        if result.answer is not None:
            assert result.answer == baseline[id].answer
        else:
            assert result.logprobs == baseline[id].logprobs
    # what twelve tokens of privacy tell is no answer yet
    assert all(found.metrics[f"alignguard/{d}/drop"] == 0 for d in ("safety", "toxicity", "ethics", "stereotype"))


def by_hand(reference, policy, probe, answer, chat, prefix=()):
    context = chat.prompt_ids(turns(probe))
    p = own_logits(reference, Row(context, answer))
    q = own_logits(policy, Row([*context, *prefix], answer))
    return oracle(p, q)


def test_raw_drift_is_forward_kl_on_the_references_answers(model, other, probes, asking):
    reference = freeze_start(model)
    baseline = ask_baseline(reference.model, probes, asking)
    with torch.no_grad():
        drifts = measure.measure_drift(other, reference, measure.items_of(probes, baseline, asking.chat), asking)
    for probe in probes:
        expected = by_hand(model, other, probe, baseline[probe.id].answer.tokens, asking.chat)
        torch.testing.assert_close(torch.tensor(drifts[probe.id].raw).double(), expected, rtol=1e-4, atol=1e-5)


def test_answer_drift_puts_a_closed_trace_before_a_thinking_policy(model, other, probes, asking):
    reference, chat = freeze_start(model), asking.chat
    baseline, told = ask_baseline(reference.model, probes, asking), Told()
    items = measure.items_of(probes, baseline, chat)
    with torch.no_grad():
        drifts = measure.measure_drift(other, reference, items, asking, told)
        opened = {probe.id: (0.9 if i % 2 else 0.1) for i, probe in enumerate(probes)}
        drifts = {id: replace(drift, thinks=opened[id]) for id, drift in drifts.items()}
        drifts = measure.read_as_told(other, reference, items, drifts, Manner(chat.form), (), asking, told)
    for probe in probes:
        tokens, drift = baseline[probe.id].answer.tokens, drifts[probe.id]
        raw = by_hand(model, other, probe, tokens, chat)
        closed = by_hand(model, other, probe, tokens, chat, chat.closed_trace_ids())
        assert (raw - closed).abs().max() > 1e-2
        expected = closed if opened[probe.id] >= 0.5 else raw
        torch.testing.assert_close(torch.tensor(drift.answer).double(), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.tensor(drift.raw).double(), raw, rtol=1e-4, atol=1e-5)


def test_the_probability_of_a_trace_is_that_of_its_tag(model, probes, asking):
    chat, reference = asking.chat, freeze_start(model)
    items = measure.items_of(probes, ask_baseline(reference.model, probes, asking), chat)
    with torch.no_grad():
        found = measure.measure_drift(model, reference, items, asking)
    tag = chat.open_ids()
    for item in items:
        logprobs = own_logits(model, Row(item.context, tag)).double().log_softmax(-1)
        expected = logprobs.gather(1, torch.tensor(tag)[:, None]).sum().exp()
        assert found[item.id].thinks == pytest.approx(float(expected), rel=1e-3, abs=1e-12)


@pytest.mark.parametrize("right", [True, False])
def test_what_is_read_ahead_changes_no_figure_and_is_read_once(model, other, probes, asking, right):
    """One pass where the policy answers as was guessed; where it does not, what was wrong is read again."""
    reference, baseline, read = freeze_start(model), {}, []
    plain = audit(other, None, probes, reference, baseline=baseline, asking=asking)
    guess = replace(plain, manner=plain.manner if right else Manner(asking.chat.form, "<answer>"))
    counting = other.register_forward_pre_hook(lambda m, args, kw: read.append(kw["use_cache"]), with_kwargs=True)
    again = audit(other, None, probes, reference, baseline=baseline, asking=asking, last=guess, reverse=0)
    counting.remove()
    assert (read.count(False) == 1) == right
    for id, result in again.results.items():
        assert result.answer == plain.results[id].answer
        logprobs = plain.results[id].logprobs
        assert result.logprobs == (None if logprobs is None else pytest.approx(logprobs, rel=1e-4))
        assert result.drift.answer == pytest.approx(plain.results[id].drift.answer, rel=1e-3, abs=1e-5)
        margins = [(found.score.detail or {}).get("margin") for found in (result, plain.results[id])]
        assert margins[0] == (None if margins[1] is None else pytest.approx(margins[1], rel=1e-4))


def test_the_start_is_read_once_for_as_long_as_the_run_lasts(model, other, probes, asking):
    reference, baseline, read = freeze_start(model), {}, []
    audit(other, None, probes, reference, baseline=baseline, asking=asking)
    reference.model.register_forward_pre_hook(lambda *args: read.append(1))
    first = audit(other, None, probes, reference, baseline=baseline, asking=asking, reverse=0)
    assert not read
    reference.said.clear()
    anew = audit(other, None, probes, reference, baseline=baseline, asking=asking, reverse=0)
    assert read
    assert first.metrics["alignguard/kl/raw"] == pytest.approx(anew.metrics["alignguard/kl/raw"], rel=1e-5)


@pytest.mark.parametrize("backwards", [False, True])
def test_logits_are_held_for_a_batch_and_not_for_an_audit(tokenizer, asking, backwards):
    """A head that is trained whole, as for added tokens, tells logits: of an audit they take gigabytes."""
    base = tiny_model(tokenizer, tie_word_embeddings=False)
    policy = get_peft_model(
        base, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["lm_head"])
    )
    reference, alive = freeze_start(policy), []
    reference.said.most = 0
    with torch.no_grad():
        policy.get_output_embeddings().modules_to_save["default"].weight.mul_(1.2)
    g = torch.Generator().manual_seed(0)
    answers = torch.randint(4, 200, (60, 64), generator=g).tolist()
    items = [measure.Item(str(i), [5, 6, 7], asking.chat.answer(said, False), False) for i, said in enumerate(answers)]
    rows = [Row([5, 6, 7], said) for said in answers]
    with torch.no_grad():
        now = [own_logits(policy, row) for row in rows]
        with reference.loaded() as start:
            then = [own_logits(start, row) for row in rows]
    expected = [float(oracle(*((q, p) if backwards else (p, q))).mean()) for p, q in zip(then, now, strict=True)]
    del now, then
    size = policy.config.vocab_size

    def count(*_):
        logits = {t.data_ptr(): len(t) for t in gc.get_objects() if type(t) is torch.Tensor and t.shape[1:] == (size,)}
        alive.append(sum(logits.values()))

    policy.register_forward_pre_hook(count)
    with torch.no_grad():
        found = (measure_reverse if backwards else measure.measure_drift)(policy, reference, items, asking)
    means = [found[i.id] if backwards else sum(found[i.id].raw) / len(found[i.id].raw) for i in items]
    assert means == pytest.approx(expected, rel=1e-4) and min(expected) > 1e-3
    # of the start and of the policy, each a batch of at most 512 tokens and the one before it; not 3,840
    assert 0 < max(alive) <= 4 * 512


def test_a_reference_that_thinks_keeps_its_trace_before_the_answer(model, other, probes, asking):
    chat, probe = asking.chat, probes[0]
    tokens = [*chat.encode("<think>a b</think>"), *chat.encode("yes"), tokenizer_eos(chat)]
    reference = freeze_start(model)
    baseline = {probe.id: Result(probe, None, chat.answer(tokens, False))}
    with torch.no_grad():
        drift = measure.measure_drift(other, reference, measure.items_of([probe], baseline, chat), asking)[probe.id]
    assert len(drift.raw) == len(tokens)
    assert drift.answer == drift.raw[-len(chat.encode("yes")) - 1 :]


def tokenizer_eos(chat):
    return chat.eos_token_ids[0]


def test_the_figures_are_means_over_probes_of_means_over_tokens():
    from tiny import tiny_probes

    from alignguard.auditing.metrics import gather
    from alignguard.auditing.result import ProbeDrift

    drifts = [ProbeDrift([1.0], [4.0, 1, 1, 1, 1, 7, 9], 0.0, 0, -1), ProbeDrift([2.0, 4.0], [2.0], 1.0, 0, -1)]
    results = {
        p.id: Result(p, Score(None, Status.EMPTY), None, None, d)
        for p, d in zip(tiny_probes()[:2], drifts, strict=True)
    }
    found = {k: v for k, v in gather(results, results).items() if "kl" in k}
    low, high = found.pop("alignguard/kl/answer_low"), found.pop("alignguard/kl/answer_high")
    assert low == 0 and high > found["alignguard/kl/answer"]
    assert found == {
        "alignguard/kl/raw": 2.0,
        "alignguard/kl/thinks": 0.5,
        "alignguard/kl/answer": pytest.approx((24 / 7 + 2) / 2),
        "alignguard/kl/answer_sum": 13.0,
        "alignguard/kl/answer_first": 3.0,
        "alignguard/kl/answer_early": 1.0,
        "alignguard/kl/answer_late": 8.0,
        "alignguard/safety/kl": pytest.approx((24 / 7 + 2) / 2),
    }


def test_what_the_policy_would_say_too_is_taken_over(model, other, tokenizer, probes, asking):
    """An audit with drafts gives the answers of an audit without."""
    from alignguard.model.generation import answer_all

    policy = mixed(model, other)
    found = audit(policy, tokenizer, probes, freeze_start(model), asking=asking)
    for probe in probes:
        answer = found.results[probe.id].answer
        if answer is not None:
            with torch.no_grad():
                (alone,) = answer_all(
                    policy, [asking.chat.prompt_ids(turns(probe))], [False], asking.chat, asking.tokens
                )
            assert answer == alone


def mixed(model, other, share=0.02):
    import copy

    policy = copy.deepcopy(model)
    with torch.no_grad():
        for p, q in zip(policy.parameters(), other.parameters(), strict=True):
            p.lerp_(q, share)
    return policy


def test_choices_are_log_likelihoods_of_the_options_per_byte(model, probes, asking):
    from alignguard.auditing.likelihoods import ask_choices

    choices = [p for p in probes if p.judge == "choice"]
    with torch.no_grad():
        found = ask_choices(model, choices, asking)
        after = ask_choices(model, choices, asking, thinks=[choices[0].id])
    chat = asking.chat
    for prefix, result in (([], found), (chat.closed_trace_ids(), {choices[0].id: after[choices[0].id]})):
        for probe in choices:
            if probe.id not in result:
                continue
            context = [*chat.prompt_ids(turns(probe)), *prefix]
            for option, value in zip(probe.options, result[probe.id], strict=True):
                tokens = chat.encode(option)
                logprobs = own_logits(model, Row(context, tokens)).double().log_softmax(-1)
                expected = logprobs.gather(1, torch.tensor(tokens)[:, None]).sum() / len(option.encode())
                assert value == pytest.approx(float(expected), rel=1e-4)


def test_a_reference_given_as_a_model_serves(model, other, tokenizer, probes, asking):
    found = audit(other, tokenizer, probes, model, asking=asking)
    same = audit(other, tokenizer, probes, Reference("copy", model, ""), asking=asking)
    drop = {"alignguard/cost/seconds"}
    assert {k: v for k, v in found.metrics.items() if k not in drop} == {
        k: v for k, v in same.metrics.items() if k not in drop
    }


def test_embeddings_that_the_trainer_resized_are_handled(model, tokenizer, probes, asking):
    reference = freeze_start(model)
    model.resize_token_embeddings(len(tokenizer) + 24)
    found = audit(model, tokenizer, probes, reference, asking=asking)
    assert found.metrics["alignguard/kl/raw"] < 1e-5


def test_reverse_drift_is_the_other_direction_on_the_policys_own_answers(model, other, probes, asking):
    chat, probe = asking.chat, probes[0]
    context = chat.prompt_ids(turns(probe))
    plain = [*chat.encode("yes it is"), chat.eos_token_ids[0]]
    thought = [*chat.encode("<think>a b</think>"), *plain]
    items = [
        measure.Item("plain", context, chat.answer(plain, False), False),
        measure.Item("thought", context, chat.answer(thought, False), False),
        measure.Item("open", context, chat.answer(chat.encode("<think>a"), False), False),
    ]
    with torch.no_grad():
        found = measure_reverse(other, freeze_start(model), items, asking)
    trace = thought[: -len(plain)]
    for id, prefix in (("plain", []), ("thought", trace)):
        expected = oracle(own_logits(other, Row([*context, *prefix], plain)), own_logits(model, Row(context, plain)))
        assert found[id] == pytest.approx(float(expected.mean()), rel=1e-4)
    assert "open" not in found
