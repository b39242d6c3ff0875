"""A served model against the same one asked here: answers, scores and likelihoods are those of a local audit."""

from dataclasses import replace

import pytest
import torch
from serving import serving
from tiny import CHATML, tiny_model, tiny_probes, tiny_tokenizer

from alignguard import AlignGuardError, TokenBudget
from alignguard.auditing.answers import ask_baseline
from alignguard.auditing.asking import Asking
from alignguard.auditing.served import ask_served, askable, audit_served, settle_served
from alignguard.model.chat import Chat
from alignguard.model.endpoint import Endpoint
from alignguard.model.meeting import meet
from alignguard.model.sampled import Sampling

THINKS = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")  # every prompt opens a trace
TOKENS = TokenBudget(10, 12)


def speller(tokenizer):
    """A model that says what a tokenizer reads as it was said: signs that it joins with nothing."""
    model = tiny_model(tokenizer)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(list("!#%&*+"))] *= 20
    return model


def asks(chat, tokens=TOKENS, **more):
    return Asking(chat, tokens, lambda texts: [min(1.0, len(text) / 100) for text in texts], **more)


def met(server, chat, size=1024):
    return meet(Endpoint(server.url), None, "MODEL", chat, size, 4)


def same(ours, theirs, likelihoods=True):
    """Scores, answers and, to 1e-4, what is read off likelihoods."""
    assert list(ours) == list(theirs)
    for id, there in theirs.items():
        here = ours[id]
        if there.probe.judge != "choice":
            assert here.answer == there.answer, id
            assert (here.score.value, here.score.status) == pytest.approx((there.score.value, there.score.status)), id
        if likelihoods:
            assert here.score.value == there.score.value
            assert here.logprobs == (None if there.logprobs is None else pytest.approx(there.logprobs, abs=1e-4)), id
            assert here.leaning == (None if there.leaning is None else pytest.approx(there.leaning, abs=1e-4)), id
            margins = [(r.score.detail or {}).get("margin") for r in (here, there)]
            assert margins[0] == (None if margins[1] is None else pytest.approx(margins[1], abs=1e-3)), id
        assert (here.prompt, here.opening) == (there.prompt, there.opening)


@pytest.mark.parametrize(
    "like",
    [
        {},
        {"echoes": False, "prompt_logprobs": True},
        {"ids_back": None},  # answers come as text alone
        {"takes_extras": False, "ids_back": None},
        {"takes_ids": False, "ids_back": None},
    ],
    ids=["vLLM", "prompt_logprobs", "text back", "OpenAI's fields alone", "text both ways"],
)
@pytest.mark.parametrize("template", [CHATML, THINKS], ids=["plain", "thinks"])
def test_a_served_model_scores_as_it_does_here(template, like):
    tokenizer = tiny_tokenizer(template)
    model = speller(tokenizer)
    theirs = ask_baseline(model, tiny_probes(), asks(Chat.of(model, tokenizer)))
    chat = Chat.of(model, tokenizer)
    with serving(model, tokenizer, **like) as server:
        served = met(server, chat)
        assert served.way is not None and served.server == "vllm 9.9"
        ours = ask_served(served, tiny_probes(), asks(chat))
    same(ours, theirs)
    assert any(r.answer.forced for r in theirs.values() if r.answer) == (template is THINKS)


@pytest.mark.parametrize("force_close", [True, False])
@pytest.mark.parametrize("ids_back", ["token_ids", "content", None])
def test_an_answer_that_ends_has_ended_and_a_trace_is_closed_by_force(force_close, ids_back):
    tokenizer = tiny_tokenizer(THINKS)
    model = speller(tokenizer)
    tokens, chat = replace(TOKENS, force_close=force_close), Chat.of(model, tokenizer)
    said = [r.answer.tokens for r in ask_baseline(model, tiny_probes(), asks(chat, tokens)).values()]
    end = said[0][5]  # a token that ends some answers, within a trace and after it
    here, there = (Chat(tokenizer, eos_token_ids=(end, tokenizer.eos_token_id)) for _ in range(2))
    theirs = ask_baseline(model, tiny_probes(), asks(there, tokens))
    with serving(model, tokenizer, ends={end}, ids_back=ids_back) as server:
        ours = ask_served(met(server, here), tiny_probes(), asks(here, tokens))
    same(ours, theirs)
    kinds = {(r.answer.finished, r.answer.forced) for r in theirs.values() if r.answer}
    assert {finished for finished, _ in kinds} == {True, False} and {forced for _, forced in kinds} == {force_close}


def test_sampling_reaches_the_server_with_a_seed_of_each_answer(model, tokenizer):
    chat = Chat.of(model, tokenizer)
    asking = asks(chat, seed=3, sampling=Sampling(0.8, 0.9, 3))
    with serving(model, tokenizer) as server:
        served = met(server, chat)
        server.asked.clear()
        probes = [probe for probe in tiny_probes() if probe.judge != "choice"]
        ours = ask_served(served, probes, asking)
        drawn = [body for body in server.asked if body["temperature"] > 0]
        assert {(b["temperature"], b["top_p"]) for b in drawn} == {(0.8, 0.9)}
        first = {tuple(b["prompt"]): [] for b in drawn}
        for body in drawn:
            first[tuple(body["prompt"])].append(body["seed"])
        assert all(len(set(seeds)) == 3 for seeds in first.values() if len(seeds) == 3) and len(drawn) >= 3 * len(
            probes
        )
        assert all(len(r.samples) == 3 for r in ours.values())
        again = ask_served(served, probes, asking)
        other = ask_served(served, probes, asks(chat, seed=4, sampling=Sampling(0.8, 0.9, 3)))
        audited = audit_served(served, probes, {}, asking, 0)
    tokens = sum(len(s.answer.tokens) for r in ours.values() for s in r.samples)
    assert audited.metrics["alignguard/cost/tokens"] == tokens
    answers = [{id: [s.answer.tokens for s in r.samples] for id, r in found.items()} for found in (ours, again, other)]
    assert answers[0] == answers[1] != answers[2]


@pytest.mark.parametrize(
    ("like", "why"),
    [
        ({"echoes": False}, "the server gives no log-probabilities of a prompt"),
        ({"logprobs": False}, "the server gives no log-probabilities that could be checked"),
        ({"shift": 1}, "the server's log-probabilities of a prompt are not those that it generates by"),
        (
            {"owner": "llamacpp", "version": None, "echoes": False, "ids_back": "content"},
            "no log-probabilities of a prompt",
        ),
    ],
    ids=["none", "unchecked", "of other places", "llama.cpp"],
)
def test_what_cannot_be_had_is_not_asked_and_told(model, tokenizer, like, why):
    chat = Chat.of(model, tokenizer)
    with serving(model, tokenizer, **like) as server:
        served = met(server, chat)
        assert served.way is None and why in served.why_not
        assert served.server == ("vllm 9.9" if server.version else "llamacpp fp")
        asked = askable(served, tiny_probes())
        assert [p.id for p in tiny_probes() if p not in asked] == ["e1", "b1"]
        ours = ask_served(served, asked, asks(chat))
        assert not any("echo" in body for body in server.asked[-len(asked) :])
    theirs = ask_baseline(model, asked, asks(Chat.of(model, tokenizer)))
    same(ours, theirs, likelihoods=False)
    assert all(r.leaning is None and r.logprobs is None for r in ours.values())
    assert not any("margin" in (r.score.detail or {}) for r in ours.values())


def test_an_audit_holds_it_against_a_baseline_and_has_no_drift(model, other, tokenizer):
    chat = Chat.of(model, tokenizer)
    baseline = ask_baseline(other, tiny_probes(), asks(chat))
    with serving(model, tokenizer) as server:
        served = met(server, chat)
        found = audit_served(served, tiny_probes(), baseline, asks(chat), 1)
        alone = {}
        audit_served(served, tiny_probes(), alone, asks(chat), 0)
    assert not [name for name in found.metrics if "kl" in name] and found.figure("safety/score") is not None
    assert all(result.drift is None for result in found.results.values())
    here = ask_baseline(model, tiny_probes(), asks(Chat.of(model, tokenizer)))
    assert {id: r.score.value for id, r in found.results.items()} == {id: r.score.value for id, r in here.items()}
    same(alone, here)


def test_a_start_that_thinks_in_a_form_its_template_does_not_show_is_read_in_it(model, tokenizer):
    chat = Chat.of(model, tokenizer)
    assert chat.form.assumed
    with serving(model, tokenizer, wrong={"text": "<thought>well", "token_ids": None}, counts=False) as server:
        settle_served(met(server, chat), tiny_probes(), asks(chat))
    assert chat.form.open != "<think>" and not chat.form.assumed


def test_a_prompt_that_leaves_no_room_in_what_the_server_reads_is_named(model, tokenizer):
    chat = Chat.of(model, tokenizer)
    with (
        serving(model, tokenizer, size=90) as server,
        pytest.raises(AlignGuardError, match=r"does not fit in the 90 that http://127.0.0.1:\d+/v1 reads"),
    ):
        ask_served(met(server, chat), tiny_probes(), asks(chat, TokenBudget(64, 64)))


def test_a_trace_stops_where_the_server_reads_no_further(model):
    tokenizer = tiny_tokenizer(THINKS)
    here, there = Chat.of(model, tokenizer), Chat.of(model, tokenizer)
    tokens = TokenBudget(8, 400)
    small = tiny_model(tokenizer, max_position_embeddings=160)
    theirs = ask_baseline(small, tiny_probes()[:4], asks(there, tokens))
    with serving(small, tokenizer, size=160) as server:
        ours = ask_served(met(server, here), tiny_probes()[:4], asks(here, tokens))
    same(ours, theirs)
