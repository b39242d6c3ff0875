import pytest
import torch
from scipy.stats import chisquare
from transformers import GenerationConfig

from alignguard import AlignGuardError
from alignguard.model.chat import Chat
from alignguard.model.generation import TokenBudget, answer_all


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
        drafts = [list(a.tokens[:keep]) for a in answers]
        assert answer_all(model, prompts, inside, chat, budget, drafts) == answers
    calls.clear()
    assert answer_all(model, prompts, inside, chat, budget, [list(a.tokens) for a in answers]) == answers
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
    keys = [f"0:p/{i}" for i in range(400)]
    torch.manual_seed(1)
    answers = answer_all(model, [prompt] * 400, [False] * 400, chat, budget, keys=keys)
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
    again = answer_all(model, [prompt] * 2, [False] * 2, chat, budget, drafts=[[5], [6]], keys=["", keys[7]])
    assert again[1].tokens == answers[7].tokens
    assert again[0].tokens[0] == 5  # a greedy answer takes its draft, a sampled one does not


def test_noise_belongs_to_the_token_not_to_its_rank():
    """So that start and policy share their chance: where two tokens change places, what others are drawn does not move."""
    from alignguard.model.generation import _Asked, _Sampled

    before = torch.tensor([[2.0, 1.9, 1.8, 1.0, 0.99, 0.5]])
    after = before[:, [0, 1, 2, 4, 3, 5]]  # tokens 3 and 4 change ranks, and hardly anything else
    same = []
    for number in range(60):
        row = _Asked([1], False, [], key=f"k{number}")
        drawn = [int(_Sampled([row], 1)(torch.tensor([[1]]), scores).argmax()) for scores in (before, after)]
        same.append(drawn[0] == drawn[1])
    assert sum(same) >= 58
