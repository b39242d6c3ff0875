import random

import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from alignguard import AlignGuardError
from alignguard.model.chat import Chat
from alignguard.model.generation import Draft, TokenBudget, answer_all
from alignguard.model.room import bytes_per_token, decode_room
from alignguard.model.sampled import Draw, Sampled


@pytest.fixture
def chat(tokenizer):
    return Chat(tokenizer)


def plain(model, chat, prompt, n):
    """What transformers' own greedy decoding of this prompt alone gives."""
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=n,
            eos_token_id=list(chat.eos_token_ids),
            pad_token_id=0,
        )
    return out[0, len(prompt) :].tolist()


def prompts_of(chat, probes):
    return [chat.prompt_ids(probe.messages) for probe in probes]


@pytest.mark.parametrize("batch_tokens", [8192, 100])
def test_answers_are_plain_greedy_ones(model, chat, probes, batch_tokens):
    prompts = prompts_of(chat, probes)
    budget = TokenBudget(answer=12, trace=40, batch_tokens=batch_tokens)
    answers = answer_all(model, prompts, [False] * len(prompts), chat, budget)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert not answer.thinks
        assert list(answer.tokens) == plain(model, chat, prompt, 12)


def test_drafts_change_nothing_but_the_work(model, chat, probes):
    prompts = prompts_of(chat, probes)
    budget = TokenBudget(answer=12, trace=40)
    inside = [False] * len(prompts)
    answers = answer_all(model, prompts, inside, chat, budget)
    calls = []
    model.generate, original = lambda **k: calls.append(len(k["input_ids"])) or original(**k), model.generate
    for keep in (0, 1, 5, 11):
        drafts = [Draft(a.tokens[:keep]) for a in answers]
        assert answer_all(model, prompts, inside, chat, budget, drafts) == answers
    calls.clear()
    assert answer_all(model, prompts, inside, chat, budget, [Draft(a.tokens) for a in answers]) == answers
    assert calls == []  # a whole draft leaves nothing to generate


def test_what_a_checkpoint_asks_of_generation_is_left_aside(model, chat, probes):
    prompts = prompts_of(chat, probes)
    budget = TokenBudget(answer=12, trace=40)
    plainly = answer_all(model, prompts, [False] * len(prompts), chat, budget)
    model.generation_config = own = GenerationConfig(
        no_repeat_ngram_size=1, do_sample=True, temperature=5.0, min_new_tokens=9
    )
    assert answer_all(model, prompts, [False] * len(prompts), chat, budget) == plainly
    assert model.generation_config is own


class Parrot(torch.nn.Module):
    """Says a fixed text, token by token, whatever it is asked: a model whose answer is known."""

    def __init__(self, tokenizer, texts):
        super().__init__()
        self.p = torch.nn.Parameter(torch.zeros(1))
        self.generation_config = GenerationConfig()
        self.said = [tokenizer(text)["input_ids"] for text in texts]

    def generate(self, input_ids, attention_mask, generation_config, stopping_criteria, **kwargs):
        width, rows = input_ids.shape[1], len(input_ids)
        eos, done = generation_config.eos_token_id, torch.zeros(rows, dtype=torch.bool)
        starts = [int(row.argmax()) for row in attention_mask]
        prompts = [row[s:].tolist() for row, s in zip(input_ids, starts, strict=True)]
        position = []
        for prompt in prompts:
            which = prompt[0] - 3
            already = prompt[1:]
            forced = len(already) > 0 and already != self.said[which][: len(already)]
            position.append((which, None if forced else len(already)))
        for _ in range(generation_config.max_new_tokens):
            column = []
            for i, (which, at) in enumerate(position):
                if done[i]:
                    column.append(generation_config.pad_token_id)
                elif at is None:
                    column.append(self.said[-1][(input_ids.shape[1] - width) % len(self.said[-1])])
                else:
                    n = at + input_ids.shape[1] - width
                    column.append(self.said[which][n] if n < len(self.said[which]) else eos[0])
            input_ids = torch.cat([input_ids, torch.tensor(column)[:, None]], 1)
            done |= stopping_criteria[0](input_ids, None) | torch.isin(torch.tensor(column), torch.tensor(eos))
            if done.all():
                break
        return input_ids


def test_trace_and_answer_have_budgets_of_their_own(tokenizer, chat):
    long = " word" * 60
    texts = [
        "short",
        long,
        f"<think>{' step' * 30}</think> done",
        f"<think>{' step' * 30}</think>{long}",
        f"<think>{' step' * 200}",
        "I say this when forced",
    ]
    model = Parrot(tokenizer, texts)
    prompts = [[3 + i] for i in range(5)]
    budget = TokenBudget(answer=20, trace=150, force_close=False)
    short, cut, thought, both, open_ = answer_all(model, prompts, [False] * 5, chat, budget)
    assert (short.answer, short.finished, short.thinks) == ("short", True, False)
    assert len(cut.tokens) == 20 and not cut.finished
    assert (thought.answer, thought.closed, thought.finished) == ("done", True, True)
    closing = next(i for i in range(len(both.tokens)) if "</think>" in chat.decode(both.tokens[: i + 1])) + 1
    assert both.closed and len(both.tokens) == closing + 20
    assert not open_.closed and len(open_.tokens) == 150 and open_.answer == ""

    forced = answer_all(model, prompts, [False] * 5, chat, TokenBudget(answer=20, trace=150))[4]
    assert forced.forced and forced.closed and forced.answer.startswith("I say this")
    assert len(forced.tokens) == 150 + len(chat.close_ids()) + 20
    assert not any(a.forced for a in (short, cut, thought, both))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("answer, trace", [(16, 40), (20, 30), (5, 24)])
def test_who_goes_on_opening_and_closing_traces_comes_to_an_end(tokenizer, chat, answer, trace):
    rng = random.Random(0)
    tags = ["<think>", "</think>", "<reasoning>"]
    texts = [
        "".join(rng.choice(tags) + " a" * rng.randint(0, answer + 8) for _ in range(rng.randint(3, 7))) + " a" * 150
        for _ in range(150)
    ]
    model, budget = Parrot(tokenizer, [*texts, "forced"]), TokenBudget(answer, trace)
    prompts = [[3 + i] for i in range(len(texts))]
    together = answer_all(model, prompts, [False] * len(texts), chat, budget)
    # where an answer ends is told by what it said up to there: not by how far it went on for others in its batch
    assert together == [answer_all(model, [prompt], [False], chat, budget)[0] for prompt in prompts]
    for text, said in zip(texts, together, strict=True):
        own = said.tokens[: said.tokens.index(chat.close_ids()[0])] if said.forced else said.tokens
        assert list(own) == tokenizer(text)["input_ids"][: len(own)]
        assert answer <= len(own) <= trace + answer


def test_an_engine_that_says_nothing_is_not_asked_for_ever(tokenizer, chat):
    model, asked = Parrot(tokenizer, [" word" * 60, ""]), []

    def ask(prompts, most):
        asked.append(prompts)
        return [[] for _ in prompts]

    (said,) = answer_all(model, [[3]], [False], chat, TokenBudget(20, 30), ask=ask)
    assert len(asked) == 1 and len(said.tokens) == 20


@pytest.mark.parametrize("answer, trace, close", [(20, 150, True), (20, 150, False), (3, 25, True), (40, 31, True)])
@pytest.mark.parametrize("kept", [0, 1, 7, 30])
def test_what_another_engine_generates_is_read_alike(tokenizer, chat, answer, trace, close, kept):
    texts = [
        "short",
        " word" * 60,
        f"<think>{' step' * 30}</think> done",
        f"<think>{' step' * 24}</think>{' word' * 60}",
        f"<think>{' step' * 200}",
        f"{' word' * 12}<think>{' step' * 9}</think> late",
        f"<think> a</think> b <think>{' step' * 40}</think> c{' word' * 60}",
        f"<think>{' step' * 5}",
        "I say this when forced, and more, and more",
    ]
    model = Parrot(tokenizer, texts)
    budget = TokenBudget(answer=answer, trace=trace, force_close=close)
    prompts, inside = [[3 + i] for i in range(8)], [False] * 8
    own = answer_all(model, prompts, inside, chat, budget)
    rounds = []

    def ask(asked, most):
        rounds.append(len(asked))
        found = []
        for which, *said in asked:
            text = model.said[which - 3]
            rest = text[len(said) :] if said == text[: len(said)] else model.said[-1] * 9
            found.append([*rest, chat.eos_token_ids[0]][:most])
        return found

    drafts = [Draft(a.tokens[:kept]) if not a.forced else Draft() for a in own]
    assert answer_all(model, prompts, inside, chat, budget, drafts, ask=ask) == own
    assert len(rounds) <= 4
    given_up = answer_all(model, prompts, inside, chat, budget, drafts, ask=lambda asked, most: None)
    assert given_up == own


def test_a_trace_that_was_closed_by_force_is_drafted_too(tokenizer, chat):
    """It would be closed at the same place again; only what the draft lacks is generated, and it stays marked."""
    model = Parrot(tokenizer, [f"<think>{' step' * 200}", "I say this when forced, and more, and more, and yet more"])
    budget = TokenBudget(answer=20, trace=50)
    (answer,) = answer_all(model, [[3]], [False], chat, budget)
    closed = chat.forced_tokens(answer).stop
    assert answer.forced and closed == 50 + len(chat.close_ids())
    calls = []
    model.generate, original = lambda **k: calls.append(k["input_ids"].shape[1]) or original(**k), model.generate
    assert answer_all(model, [[3]], [False], chat, budget, [Draft(answer.tokens, closed)]) == [answer]
    assert calls == []
    assert answer_all(model, [[3]], [False], chat, budget, [Draft(answer.tokens[:closed], closed)]) == [answer]
    assert calls == [1 + closed]  # the trace is not thought again
    calls.clear()
    assert answer_all(model, [[3]], [False], chat, budget, [Draft(answer.tokens[:30])]) == [answer]  # it departs inside
    assert calls[0] == 31


def test_who_ends_within_a_trace_is_asked_for_an_answer(tokenizer, chat):
    """A refusal that stands in an opened trace, and nothing after it: the trace is closed, and what follows is judged."""
    model = Parrot(tokenizer, ["<think> I will not do that", "I say this when forced, and more, and more"])
    (answer,) = answer_all(model, [[3]], [False], chat, TokenBudget(answer=8, trace=50))
    assert answer.forced and answer.trace == "I will not do that" and answer.answer.startswith("I say this")
    assert not set(answer.tokens[:-1]) & set(chat.eos_token_ids)
    (left,) = answer_all(model, [[3]], [False], chat, TokenBudget(answer=8, trace=50, force_close=False))
    assert not left.closed and left.finished and left.answer == ""


def test_who_thinks_goes_on_without_those_who_do_not(tokenizer, chat):
    """Three short answers and one long trace: the rows that are done are not carried along for hundreds of tokens."""
    texts = ["short", "short", "short", f"<think>{' step' * 150}</think> done", "x"]
    model, sizes = Parrot(tokenizer, texts), []
    model.generate, original = lambda **k: sizes.append(len(k["input_ids"])) or original(**k), model.generate
    answers = answer_all(model, [[3 + i] for i in range(4)], [False] * 4, chat, TokenBudget(answer=20, trace=2000))
    assert [a.answer for a in answers] == ["short"] * 3 + ["done"]
    assert sizes[0] == 4 and set(sizes[1:]) == {1}


def test_between_two_looks_nothing_is_fetched_from_the_device(model, chat, probes, monkeypatch):
    """On a GPU every value that Python reads makes the host wait: `tolist` and the like are counted."""
    prompts = prompts_of(chat, probes)
    budget, fetched = TokenBudget(answer=48, trace=40), []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self, was=torch.Tensor.tolist: fetched.append(1) or was(self))
    monkeypatch.setattr(torch.Tensor, "item", lambda self, was=torch.Tensor.item: fetched.append(1) or was(self))
    answers = answer_all(model, prompts, [False] * len(prompts), chat, budget)
    steps = max(len(answer.tokens) for answer in answers)
    assert steps == 48 and len(fetched) <= 2 * steps / 16 + 2


def test_a_batch_that_does_not_fit_is_halved(model, chat, probes):
    prompts, sizes = prompts_of(chat, probes) * 6, []
    budget = TokenBudget(answer=12, trace=40, batch_tokens=200, decode_tokens=None)
    expected = answer_all(model, prompts, [False] * len(prompts), chat, budget)
    original = model.generate

    def scarce(**k):
        sizes.append(k["input_ids"].numel())
        if len(k["input_ids"]) > 4:
            raise torch.OutOfMemoryError("planted")
        return original(**k)

    model.generate = scarce
    with pytest.raises(torch.OutOfMemoryError):  # what was asked for in so many words is not undercut
        answer_all(model, prompts, [False] * len(prompts), chat, TokenBudget(answer=12, trace=40, decode_tokens=5000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("alignguard.model.generation.decode_room", lambda model, least: 5000)
        assert answer_all(model, prompts, [False] * len(prompts), chat, budget) == expected


def test_room_is_counted_from_free_memory(model, monkeypatch):
    assert decode_room(model, 8192) == 8192  # on a CPU
    config = model.config
    kept = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert bytes_per_token(model) == 4 * (kept + 3 * config.intermediate_size + 4 * config.hidden_size)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * 2**20, 0))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * 2**20)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2**20)
    fake = type("OnGPU", (), {"parameters": lambda self: iter([type("W", (), {"device": torch.device("cuda")})])})()
    fake.config, fake.dtype = config, torch.bfloat16
    fits = 6 * 2**20 // bytes_per_token(fake)
    assert decode_room(fake, 16) == 2 ** (fits.bit_length() - 1) <= fits
    assert decode_room(fake, 2**30) == 2**30  # never less than what is read at once


def test_a_prompt_that_opens_the_trace_begins_inside(tokenizer, chat):
    model = Parrot(tokenizer, ["step step</think> done", "x"])
    (answer,) = answer_all(model, [[3]], [True], chat, TokenBudget(answer=20, trace=60))
    assert (answer.trace, answer.answer, answer.thinks, answer.closed) == ("step step", "done", True, True)


def test_budgets_must_be_positive():
    with pytest.raises(AlignGuardError, match="trace must be at least 1, not 0"):
        TokenBudget(trace=0)


def test_samples_follow_the_models_distribution_and_their_key_alone(model, chat, probes):
    """First tokens of many keys against the nucleus of the model's own distribution; batch, draft and seed change nothing."""
    prompt = prompts_of(chat, probes)[0]
    budget = TokenBudget(answer=4, trace=4)
    draws = [Draw(f"0:p/{i}") for i in range(400)]
    torch.manual_seed(1)
    answers = answer_all(model, [prompt] * 400, [False] * 400, chat, budget, draws=draws)
    with torch.no_grad():
        p = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)
    ranked, order = p.sort(descending=True)
    nucleus = order[ranked.cumsum(0) - ranked < 0.9]
    q = p[nucleus] / p[nucleus].sum()
    first = torch.tensor([answer.tokens[0] for answer in answers])
    counts = torch.stack([(first == token).sum() for token in nucleus]).double()
    assert counts.sum() == 400 and (q * 400 > 5).sum() >= 3  # nothing from outside the nucleus, and more than one token
    often = q * 400 > 5
    observed = torch.cat([counts[often], counts[~often].sum()[None]])
    expected = torch.cat([q[often], q[~often].sum()[None]]) * 400
    kept = expected > 0
    assert chisquare(observed[kept].numpy(), expected[kept].numpy()).pvalue > 1e-3

    torch.manual_seed(2)
    again = answer_all(
        model, [prompt] * 2, [False] * 2, chat, budget, drafts=[Draft([5]), Draft([6])], draws=[None, draws[7]]
    )
    assert again[1].tokens == answers[7].tokens
    assert again[0].tokens[0] == 5  # a greedy answer takes its draft, a sampled one does not


def test_noise_belongs_to_the_token_not_to_its_rank():
    """So that start and policy share their chance: where two tokens change places, what others are drawn does not move."""
    before = torch.tensor([[2.0, 1.9, 1.8, 1.0, 0.99, 0.5]])
    after = before[:, [0, 1, 2, 4, 3, 5]]  # tokens 3 and 4 change ranks, and hardly anything else
    same = []
    for number in range(60):
        noise = Sampled([Draw(f"k{number}")], [0], 1)
        drawn = [int(noise(torch.tensor([[1]]), scores).argmax()) for scores in (before, after)]
        same.append(drawn[0] == drawn[1])
    assert sum(same) >= 58


def test_an_answer_is_the_same_whoever_is_in_its_batch(tokenizer, chat):
    """
    One that goes on to close or open a trace beyond its budget, while others of its batch are still at it: what it says there
    does not count. Alone, or one token at a time, it would have ended before.
    """
    word, more = " word", " word" * 40
    texts = [
        f"<think>{' step' * 20}</think>{word * 22}</think>{more}</think>{more}",  # closed again, beyond 60 tokens of answer
        f"<think>{' step' * 20}</think>{word * 5}</think>{word * 8}</think>{more}",  # closed again, within them
        f"{word * 25}<think>{more}{more}",  # opened beyond them
        f"<think>{' step' * 20}</think>{word * 3}<think>{' step' * 5}</think>{more}",  # opened again, within them
        f"<think>{' step' * 200}",
        "forced",
    ]
    model, prompts = Parrot(tokenizer, texts), [[3 + i] for i in range(5)]
    budget = TokenBudget(answer=60, trace=300, force_close=False)  # a word takes four tokens
    together = answer_all(model, prompts, [False] * 5, chat, budget)
    alone = [answer_all(model, [prompt], [False], chat, budget)[0] for prompt in prompts]
    assert together == alone
    for answer in together[:4]:
        assert len(answer.tokens) == chat.closing(answer.tokens) + 60 if answer.thinks else 60
    quoted, opened = together[1], together[3]
    assert chat.decode(quoted.tokens).count("</think>") == 3 and chat.decode(opened.tokens).count("</think>") == 2
    assert chat.decode(together[0].tokens).count("</think>") == 1 and not together[2].thinks


def test_who_thinks_is_not_waited_for(tokenizer, chat):
    """Where not all fit into one batch, those whose drafts show that they think are in batches of their own."""
    texts = [f"<think>{' step' * 90}</think> done", *["short"] * 5, "forced"]
    model, sizes = Parrot(tokenizer, texts), []
    model.generate, generate = lambda **k: sizes.append(len(k["input_ids"])) or generate(**k), model.generate
    prompts = [[3 + i] for i in range(6)]
    drafts = [Draft(model.said[0][:10]), *[Draft()] * 5]
    room = TokenBudget(answer=20, trace=600, decode_tokens=4 * (20 + 16 + 11))
    answers = answer_all(model, prompts, [False] * 6, chat, room, drafts)
    assert sizes[:3] == [1, 5, 1] and [answer.answer for answer in answers] == ["done", *["short"] * 5]
