"""Pulls, held against gradients by autograd in float64, and against what a step really does."""

import copy
from itertools import accumulate

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import SMALL, tiny_model
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from alignguard.errors import RunError
from alignguard.model.head import Head
from alignguard.tracing.layers import looked_at
from alignguard.tracing.losses import Document, bytes_of
from alignguard.tracing.pull import check_forwards, gradient, pulls, steps_of_adam


def some_documents(vocabulary, n=6, seed=1, temperature=1.0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        ids = torch.randint(3, vocabulary, (5 + 2 * (i % 3),), generator=generator).tolist()
        found.append(Document(ids, [False] * (2 + i % 2) + [True] * (len(ids) - 2 - i % 2), temperature))
    return found


def loss_of(model, document):
    """Oracle: the mean loss of one document's learnt tokens, from the model's own logits."""
    logits = model(input_ids=torch.tensor([list(document.ids)])).logits[0, :-1] / document.temperature
    learnt = torch.tensor(document.learnt[1:])
    return torch.nn.functional.cross_entropy(logits[learnt], torch.tensor(document.ids[1:])[learnt])


def product(model, document, direction):
    """Oracle: minus the product of a document's gradient with a direction, by autograd, in float64."""
    twin = copy.deepcopy(model).double()
    if hasattr(twin, "set_experts_implementation"):
        twin.set_experts_implementation("eager")  # others have no float64
    named = dict(twin.named_parameters())
    for name, p in named.items():
        p.requires_grad_(name in direction)
    grads = torch.autograd.grad(loss_of(twin, document), [named[name] for name in direction])
    return -sum((g * d.double()).sum() for g, d in zip(grads, direction.values(), strict=True)).item()


def small(kind, model, **more):
    torch.manual_seed(0)
    return model(kind(**{**SMALL, **more})).eval()


EXPERTS = {"num_key_value_heads": 2, "head_dim": 8, "num_experts_per_tok": 2}
MODELS = {
    "qwen3, experts": lambda tokenizer: small(
        Qwen3MoeConfig, Qwen3MoeForCausalLM, num_experts=4, moe_intermediate_size=16, **EXPERTS
    ),
    "mixtral, experts": lambda tokenizer: small(MixtralConfig, MixtralForCausalLM, num_local_experts=4, **EXPERTS),
    "llama": lambda tokenizer: tiny_model(tokenizer),
    "qwen2": lambda tokenizer: small(Qwen2Config, Qwen2ForCausalLM, num_key_value_heads=2),
    "qwen3": lambda tokenizer: small(Qwen3Config, Qwen3ForCausalLM, num_key_value_heads=2, head_dim=8),
    "gemma2, soft cap": lambda tokenizer: small(
        Gemma2Config, Gemma2ForCausalLM, num_key_value_heads=2, head_dim=8, final_logit_softcapping=5.0
    ),
    "cohere, scaled head": lambda tokenizer: small(CohereConfig, CohereForCausalLM, logit_scale=0.3),
    "mistral": lambda tokenizer: small(MistralConfig, MistralForCausalLM, num_key_value_heads=2, sliding_window=4),
    "gpt2": lambda tokenizer: GPT2LMHeadModel(
        GPT2Config(vocab_size=211, n_positions=64, n_embd=32, n_layer=2, n_head=4)
    ).eval(),
}


@pytest.mark.parametrize(("share", "temperature"), [(1.0, 1.0), (0.5, 1.0), (0.5, 1.5)])
@pytest.mark.parametrize("name", MODELS)
def test_a_pull_is_the_product_of_two_gradients(tokenizer, name, share, temperature):
    model = MODELS[name](tokenizer)
    asked = some_documents(model.config.vocab_size)[:2]
    rows = some_documents(model.config.vocab_size, temperature=temperature)[2:]
    weights = looked_at(model, share)
    direction = gradient(model, asked, [1.0, -0.5], weights, 0)
    for row, pull in zip(rows, pulls(model, rows, direction, 0), strict=True):
        assert pull.pull == pytest.approx(product(model, row, direction), rel=1e-4, abs=1e-7)
        assert pull.loss == pytest.approx(loss_of(model, row).item(), rel=1e-5)
        assert pull.tokens == sum(row.learnt)


@pytest.mark.parametrize("wrapped", [False, True])
def test_experts_are_afterwards_computed_as_they_were(wrapped):
    model = MODELS["qwen3, experts"](None)
    model.set_experts_implementation("grouped_mm")
    asked = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])) if wrapped else model
    check_forwards(asked, looked_at(asked, 0.5))
    assert model.get_experts_implementation() == {"": "grouped_mm"}


def test_what_cannot_be_differentiated_forwards_is_told_before_anything_is(tokenizer):
    class Doubled(torch.autograd.Function):
        """An operation that knows its backward alone, as a kernel of one's own does."""

        @staticmethod
        def forward(ctx, value):
            return 2 * value

        @staticmethod
        def backward(ctx, grad):
            return 2 * grad

    model = tiny_model(tokenizer)
    last = model.model.layers[1].mlp
    last.register_forward_hook(lambda module, inputs, output: Doubled.apply(output))
    with pytest.raises(RunError, match="the model cannot be differentiated forwards"):
        check_forwards(model, looked_at(model, 0.5))


def test_a_head_that_is_not_the_usual_one_is_read_through_the_model(tokenizer, monkeypatch):
    model = tiny_model(tokenizer)
    documents = some_documents(len(tokenizer))
    weights = looked_at(model)
    direction = gradient(model, documents[:2], [1.0, -0.5], weights, 0)
    usual = pulls(model, documents, direction, 0)
    monkeypatch.setattr("alignguard.tracing.losses.read_head", lambda model: Head(None, size=len(tokenizer)))
    other = gradient(model, documents[:2], [1.0, -0.5], weights, 0)
    assert all(torch.allclose(direction[name], other[name], rtol=1e-3, atol=1e-6) for name in weights)
    assert [p.pull for p in pulls(model, documents, other, 0)] == pytest.approx([p.pull for p in usual], rel=1e-3)


def test_the_gradient_is_that_of_the_weighted_losses(tokenizer):
    model = tiny_model(tokenizer)
    documents, scale = some_documents(len(tokenizer)), [1.0, -0.5, 2.0, 0.25, -1.0, 0.1]
    weights = looked_at(model)
    found = gradient(model, documents, scale, weights, 0, max_tokens=16)  # several batches
    twin = copy.deepcopy(model).double()
    total = sum(w * loss_of(twin, d) for w, d in zip(scale, documents, strict=True))
    named = dict(twin.named_parameters())
    for name, right in zip(weights, torch.autograd.grad(total, [named[n] for n in weights]), strict=True):
        torch.testing.assert_close(found[name].double(), right, rtol=1e-3, atol=1e-5)


def test_a_step_on_a_row_moves_the_loss_by_its_pull(tokenizer):
    model = tiny_model(tokenizer, scale=2.0).double()
    asked, *rows = some_documents(len(tokenizer), 4)
    direction = gradient(model, [asked], [1.0], looked_at(model), 0)
    before, step = loss_of(model, asked).item(), 1e-3
    for row, pull in zip(rows, pulls(model, rows, direction, 0), strict=True):
        twin = copy.deepcopy(model)
        loss_of(twin, row).backward()
        torch.optim.SGD(twin.parameters(), lr=step).step()
        assert (loss_of(twin, asked).item() - before) / step == pytest.approx(pull.pull, rel=0.02)


def test_of_an_adapter_its_weights_alone_are_looked_at(tokenizer):
    model = get_peft_model(
        LlamaForCausalLM(tiny_model(tokenizer).config), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    weights = looked_at(model)
    assert weights and all("lora" in name for name in weights)
    documents = some_documents(len(tokenizer))
    direction = gradient(model, documents[:2], [1.0, 1.0], weights, 0)
    for row, pull in zip(documents[2:], pulls(model, documents[2:], direction, 0), strict=True):
        assert pull.pull == pytest.approx(product(model, row, direction), rel=1e-3, abs=1e-7)


def test_where_adapters_are_off_the_weights_under_them_are_looked_at(tokenizer):
    start = tiny_model(tokenizer)
    model = get_peft_model(copy.deepcopy(start), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    documents = some_documents(len(tokenizer))
    with model.disable_adapter():
        weights = looked_at(model, 0.5)
        direction = gradient(model, documents[:2], [1.0, -1.0], weights, 0)
        found = pulls(model, documents, direction, 0)
    right = gradient(start, documents[:2], [1.0, -1.0], looked_at(start, 0.5), 0)
    assert len(weights) == len(right) and not any("lora" in name for name in weights)
    assert [p.pull for p in found] == pytest.approx([p.pull for p in pulls(start, documents, right, 0)], rel=1e-4)


def test_in_half_precision_a_long_direction_fits(tokenizer):
    model, documents = tiny_model(tokenizer), some_documents(len(tokenizer))
    direction = gradient(model, documents[:2], [1.0, -1.0], looked_at(model), 0)
    right = [1e7 * pull.pull for pull in pulls(model, documents, direction, 0)]
    long = {name: 1e7 * grad for name, grad in direction.items()}
    found = [pull.pull for pull in pulls(model.half(), documents, long, 0)]
    assert found == pytest.approx(right, rel=0.05, abs=0.02 * max(map(abs, right)))


def test_below_the_weights_looked_at_nothing_is_kept_for_a_gradient(tokenizer):
    """Though a trainer asks for it at the embeddings, for gradient checkpointing under adapters."""
    model, asked = tiny_model(tokenizer), []
    model.enable_input_require_grads()
    layers = model.model.layers
    layers[0].register_forward_hook(lambda module, inputs, output: asked.append(output.requires_grad))
    layers[1].register_forward_hook(lambda module, inputs, output: asked.append(output.requires_grad))
    documents = some_documents(len(tokenizer))
    gradient(model, documents[:1], [1.0], looked_at(model, 0.5), 0)
    assert asked[-2:] == [False, True]  # before it, the head was read
    assert model.get_input_embeddings()(torch.tensor([3])).requires_grad


def test_the_last_layers_are_a_share_of_all(tokenizer):
    model = tiny_model(tokenizer)
    assert {name.split(".")[2] for name in looked_at(model, 0.5)} == {"1"}
    assert len(looked_at(model, 1.0)) == len(list(model.parameters()))


def test_looking_leaves_the_model_as_it_was(tokenizer):
    model = tiny_model(tokenizer).train()
    for p in list(model.parameters())[:3]:
        p.requires_grad_(False)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    documents = some_documents(len(tokenizer))
    direction = gradient(model, documents[:2], [1.0, 1.0], looked_at(model), 0)
    pulls(model, documents, direction, 0)
    assert model.training and torch.equal(torch.get_rng_state(), state)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0]) and p.requires_grad == before[name][1] and p.grad is None
        assert torch.autograd.forward_ad.unpack_dual(p).tangent is None


def test_rows_may_be_read_in_batches_of_any_size(tokenizer):
    model = tiny_model(tokenizer)
    documents = some_documents(len(tokenizer))
    direction = gradient(model, documents[:2], [1.0, 1.0], looked_at(model), 0)
    alone = pulls(model, documents, direction, 0, max_tokens=1)
    together = pulls(model, documents, direction, 0, max_tokens=10**6)
    assert [p.pull for p in together] == pytest.approx([p.pull for p in alone], rel=1e-4)


def broken_at(tokenizer, token):
    """A model of which one token's embedding is no number, as of an overflow in half precision."""
    model = tiny_model(tokenizer, tie_word_embeddings=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = float("nan")
    return model


@pytest.mark.parametrize("at", [0, 3, 8])
def test_rows_without_a_finite_gradient_are_left_out_of_second_moments(tokenizer, at):
    model, documents = (
        broken_at(tokenizer, 5),
        [Document([6 + i, 7, 8, 9], [False, True, True, True]) for i in range(8)],
    )
    weights, bad = looked_at(model, 0.5), Document([5, 6, 7], [False, True, True])
    found = steps_of_adam(model, [*documents[:at], bad, *documents[at:]], weights, 0)
    # of a batch of four with one that is broken its other three are a batch
    parts = [
        documents[i:j] for i, j in {0: ((0, 3), (3, 7), (7, 8)), 3: ((0, 3), (3, 7), (7, 8)), 8: ((0, 4), (4, 8))}[at]
    ]
    each = [gradient(model, part, [1 / len(part)] * len(part), weights, 0) for part in parts]
    moments = {name: sum(grad[name] ** 2 for grad in each) / len(each) for name in weights}
    damping = 0.1 * (sum(m.sum() for m in moments.values()) / sum(m.numel() for m in moments.values())).sqrt()
    for name, moment in moments.items():
        torch.testing.assert_close(found[name], 1 / (moment.sqrt() + damping))


def test_where_no_row_has_a_finite_gradient_that_is_told(tokenizer):
    model = broken_at(tokenizer, 5)
    with pytest.raises(RunError, match="no row of a sample has a finite gradient; load the start in float32"):
        steps_of_adam(model, [Document([5, 6, 7], [False, True, True])], looked_at(model, 0.5), 0)


class Largest(TorchDispatchMode):
    """The most numbers that one tensor had."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for value in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.numel())
        return found


def test_no_logits_are_held_but_those_of_learnt_tokens(tokenizer):
    model = tiny_model(tokenizer)
    ids = torch.arange(300) % len(tokenizer)
    documents = [Document(ids.tolist(), [False] * 296 + [True] * 4) for _ in range(8)]
    direction = gradient(model, documents[:1], [1.0], looked_at(model), 0)
    with Largest() as largest:
        pulls(model, documents, direction, 0, max_tokens=10**4)
    learnt, attention = 8 * 4 * len(tokenizer), 8 * 4 * 300 * 300
    assert largest.numbers <= max(learnt, attention) < 8 * 300 * len(tokenizer) * 4


def peak_of(run):
    """The most bytes that were allocated at a time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = [(e.start_ns(), e.nbytes()) for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(size for _, size in sorted(events)))


@pytest.mark.parametrize(("dtype", "temperature"), [(torch.float32, 1.0), (torch.bfloat16, 1.0), (torch.float32, 0.6)])
@pytest.mark.parametrize("what", ["gradient", "pulls"])
def test_memory_is_what_is_told_however_many_tokens_are_learnt(dtype, temperature, what):
    size = {"vocab_size": 20_000, "max_position_embeddings": 2048, "tie_word_embeddings": False}
    model = small(LlamaConfig, LlamaForCausalLM, **size).to(dtype)
    weights = looked_at(model, 0.5)
    first = gradient(model, [Document([5, 6], [False, True])], [1.0], weights, 0)  # the head is read
    told = bytes_of(model) + 16 * sum(p.numel() for p in weights.values())
    for n in (512, 1536):
        rows = [Document([5 + i % 900 for i in range(n)], [True] * n, temperature)]
        if what == "gradient":
            peak = peak_of(lambda rows=rows: gradient(model, rows, [1.0], weights, 0))
        else:
            peak = peak_of(lambda rows=rows: pulls(model, rows, first, 0))
        assert 0.7 * told < peak < 1.05 * told


def test_the_direction_is_of_the_last_layers_alone(tokenizer):
    model = tiny_model(tokenizer)
    direction = gradient(model, some_documents(len(tokenizer)), [1.0] * 6, looked_at(model, 0.5), 0)
    last = sum(p.numel() for p in model.model.layers[1].parameters())
    assert sum(value.numel() for value in direction.values()) == last
