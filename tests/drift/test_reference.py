"""The reference must not move. Most ways of copying a model that a trainer has patched make it follow the policy."""

import copy

import pytest
import torch
import trl
from drifting import asking_of, told, train, truth
from packaging.version import Version
from peft import LoraConfig, get_peft_model
from runs import guard, lines, sft
from tiny import tiny_model, tiny_rows
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.asking import Asking
from alignguard.drift.fingerprint import fingerprint
from alignguard.drift.reference import freeze_start
from alignguard.errors import StartError
from alignguard.model.forward import final_hidden
from alignguard.model.head import read_head
from alignguard.model.loading import check_tokenizers
from alignguard.model.observe import observing

patched = pytest.mark.skipif(Version(trl.__version__) < Version("1.7"), reason="before 1.7 TRL leaves forward alone")


def logits(model):
    ids = torch.arange(3, 15)[None]
    with torch.no_grad():
        return read_head(model).logits(final_hidden(model, ids, torch.ones_like(ids))[0]).clone()


def move(model):
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)


def sft_trainer(model, tokenizer, tmp_path, **kwargs):
    args = SFTConfig(str(tmp_path), report_to=[], use_cpu=True, bf16=False, save_strategy="no", **kwargs)
    return SFTTrainer(model, args, train_dataset=tiny_rows(), processing_class=tokenizer)


def test_a_copy_stays_when_the_policy_moves(model):
    reference = freeze_start(model)
    before = logits(reference.model)
    move(model)
    assert torch.equal(logits(reference.model), before)
    assert not torch.allclose(logits(model), before, atol=1e-2)


@patched
def test_a_copy_taken_after_trl_patched_the_model_stays_too(model, tokenizer, tmp_path):
    trainer = sft_trainer(model, tokenizer, tmp_path)
    assert "forward" in trainer.model.__dict__  # the trap is there; where it is not any more, `frozen_copy` can shrink
    reference = freeze_start(trainer.model)
    with reference.loaded() as frozen:
        before = logits(frozen)
        move(trainer.model)
        assert torch.equal(logits(frozen), before)
        with torch.no_grad():
            ids = torch.arange(3, 15)[None]
            torch.testing.assert_close(frozen(ids).logits[0], before)  # and so does its own forward


@patched
def test_a_careless_copy_is_caught(model, tokenizer, tmp_path):
    careless = copy.deepcopy(sft_trainer(model, tokenizer, tmp_path).model)
    with pytest.raises((RuntimeError, StartError), match="bound to another model"):
        logits(careless)


def lora(model, **kwargs):
    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"], **kwargs))


def shift_adapters(model):
    """Adapters that no longer start at zero."""
    for name, p in model.named_parameters():
        if "lora" in name:
            p.data.add_(0.1)


def train_adapters(model):
    """What trains moves, as an optimizer would move it."""
    for p in model.parameters():
        if p.requires_grad:
            p.data.add_(torch.randn_like(p) * 0.1)


def test_new_adapters_are_switched_off_and_the_start_stays(tokenizer):
    model = lora(tiny_model(tokenizer))
    plain = logits(tiny_model(tokenizer))
    reference = freeze_start(model)
    assert reference.kind == "adapter" and reference.bytes == 0
    shift_adapters(model)
    with reference.loaded() as frozen:
        assert torch.equal(logits(frozen), plain)
    assert not torch.allclose(logits(model), plain, atol=1e-3)


def test_the_start_of_a_continued_adapter_is_kept(tokenizer):
    model = lora(tiny_model(tokenizer))
    shift_adapters(model)
    start = logits(model)
    reference = freeze_start(model)
    assert reference.kind == "adapter" and 0 < reference.bytes < 10_000
    train_adapters(model)
    moved = {name: p.clone() for name, p in model.named_parameters()}
    with reference.loaded() as frozen:
        assert torch.equal(logits(frozen), start)
    assert not torch.allclose(logits(model), start, atol=1e-3)
    with pytest.raises(KeyError), reference.loaded():
        raise KeyError
    assert all(torch.equal(p, moved[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("continued", [False, True])
def test_weights_that_move_under_the_adapters_are_an_error(continued, tokenizer):
    """Switched off, such adapters leave another model than the start, and a drift that is plausible and wrong."""
    model = lora(tiny_model(tokenizer))
    if continued:
        shift_adapters(model)
    reference = freeze_start(model)
    train_adapters(model)
    device = torch.device("cpu")
    with reference.awake(device):
        pass
    model.merge_adapter()
    model.unmerge_adapter()  # as TRL does for vLLM; in bf16 it leaves rounding errors
    base = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj.base_layer")
    base.weight.data.mul_(1 + 2**-9)
    with reference.awake(device):
        pass
    base.weight.data.mul_(1.05)
    with (
        pytest.raises(StartError, match=r"layers.0.self_attn.q_proj.weight changed under the adapters.*'offload'"),
        reference.awake(device),
    ):
        pass


def test_looking_makes_no_frozen_adapter_weight_trainable(tokenizer):
    model = lora(tiny_model(tokenizer))
    for name, p in model.named_parameters():
        if "lora_A" in name:
            p.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    reference = freeze_start(model)
    with reference.loaded():
        pass
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_the_kept_start_of_an_adapter_does_not_follow_under_autocast(tokenizer):
    """Autocast keeps casts of trainable weights by parameter: exchanging their data alone gives a KL of exactly 0."""
    model = lora(tiny_model(tokenizer))
    shift_adapters(model)
    reference = freeze_start(model)
    train_adapters(model)
    with observing(model, autocast=torch.bfloat16):
        with reference.loaded() as frozen:
            start = logits(frozen)
        assert (logits(model) - start).abs().max() > 0.1


def test_a_cached_head_is_no_view_of_the_policys(model):
    reference = freeze_start(model, "cache")
    with torch.no_grad():
        reference.cache.add(["a"], [2], torch.randn(2, 32), read_head(model))
        before = reference.cache.head.weight.clone()
        model.lm_head.weight.add_(1)
    assert torch.equal(reference.cache.head.weight, before)


def test_unknown_kinds_and_adapters_without_peft_are_errors(model):
    with pytest.raises(
        StartError, match="reference='cpy' is neither one of auto, copy, adapter, offload, cache nor a model"
    ):
        freeze_start(model, "cpy")
    with pytest.raises(StartError, match="needs a PEFT model"):
        freeze_start(model, "adapter")


def test_a_model_by_object_or_path_serves(tokenizer, model, other, tmp_path):
    other.save_pretrained(tmp_path)
    by_object, by_path = freeze_start(model, other), freeze_start(model, str(tmp_path))
    assert by_object.kind == by_path.kind == "given"
    assert torch.equal(logits(by_path.model), logits(other))
    with pytest.raises(StartError, match="the very model that trains"):
        freeze_start(model, model)
    wider = tiny_model(tokenizer, vocab_size=len(tokenizer) + 40)
    with pytest.raises(StartError, match="vocabulary of 410 and the model one of 370"):
        freeze_start(model, wider)


def test_a_model_by_path_is_rounded_no_more_than_the_policy(tokenizer, tmp_path):
    """A head in float32 on a body in half precision, which is saved as it is."""
    policy = tiny_model(tokenizer, tie_word_embeddings=False).bfloat16()
    policy.lm_head.float()
    with torch.no_grad():
        policy.lm_head.weight.add_(1e-3 * torch.randn_like(policy.lm_head.weight))
    policy.save_pretrained(tmp_path)
    start = freeze_start(policy, str(tmp_path)).model
    for name, p in policy.named_parameters():
        assert start.get_parameter(name).dtype == p.dtype and torch.equal(start.get_parameter(name), p), name


def test_tokenizers_that_differ_are_named(tokenizer):
    from tiny import tiny_tokenizer

    check_tokenizers(tokenizer, tiny_tokenizer())
    with pytest.raises(StartError, match="token '!' is number 3 in the model's and 5"):
        check_tokenizers(tokenizer, tiny_tokenizer(think_tokens=["<think>", "</think>"]))


def test_an_offloaded_copy_comes_and_goes(model):
    reference = freeze_start(model, "offload")
    before = logits(reference.model)
    move(model)
    with reference.awake(torch.device("cpu")), reference.loaded() as frozen:
        assert torch.equal(logits(frozen), before)
    assert reference.bytes == 0


def test_freezing_leaves_the_policy_as_it_was(model):
    model.train()
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    reference = freeze_start(model)
    assert model.training and model.lm_head.weight.grad is not None and model.lm_head.weight.requires_grad
    assert not reference.model.training and reference.model.lm_head.weight.grad is None
    assert not any(p.requires_grad for p in reference.model.parameters())


def test_fingerprints_tell_starts_apart(tokenizer, model, other):
    first = freeze_start(model).fingerprint
    assert first == freeze_start(tiny_model(tokenizer)).fingerprint == freeze_start(model, "cache").fingerprint
    assert first != freeze_start(other).fingerprint
    adapted = lora(tiny_model(tokenizer))
    with_adapters = freeze_start(adapted).fingerprint
    for name, p in adapted.named_parameters():
        if "lora" in name:
            p.data.add_(1)
    assert fingerprint(adapted, without_adapters=True) == with_adapters


def continued(model):
    """Adapters that do not train at all, as `PeftModel.from_pretrained` gives them for an audit afterwards."""
    shift_adapters(model)
    return model.requires_grad_(False)


@pytest.mark.parametrize("prepare", [lambda model: model, continued], ids=["trains", "is done"])
def test_the_base_that_adapters_were_put_into_is_no_reference(tokenizer, prepare):
    base = tiny_model(tokenizer)
    model = prepare(lora(base))
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for given in (base, lora(base) if prepare is continued else base):
        with pytest.raises(
            StartError, match=r"holds the adapters that train .*lora_.*leave reference= out.*base's path"
        ):
            freeze_start(model, given)
    if prepare is not continued:
        assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_a_reference_that_shares_what_trains_is_refused_and_one_that_shares_what_does_not_is_left_alone(tokenizer):
    model, other = tiny_model(tokenizer).train(), tiny_model(tokenizer, seed=1).train()
    other.model.layers[0] = model.model.layers[0]
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(StartError, match=r"shares model\.layers\.0\.\S+ with the model that trains"):
        freeze_start(model, other)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    view = tiny_model(tokenizer, seed=1)
    view.model.norm.weight = torch.nn.Parameter(model.model.norm.weight.data)  # another object, the same memory
    with pytest.raises(StartError, match=r"shares model\.norm\.weight with the model that trains"):
        freeze_start(model, view)
    model.model.layers[0].requires_grad_(False)
    reference = freeze_start(model, other)
    assert all(module.training for module in model.modules()) and not reference.model.model.layers[1].training
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert all(p.requires_grad for p in model.model.layers[1].parameters())


def test_the_base_under_virtual_tokens_is_a_reference(tokenizer):
    from peft import PromptTuningConfig

    base = tiny_model(tokenizer)
    model = get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4))
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    assert freeze_start(model, base).kind == "given"
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_a_reference_of_before_the_vocabulary_grew_is_refused(tokenizer, probes):
    grown = copy.deepcopy(tokenizer)
    grown.add_special_tokens({"additional_special_tokens": ["<plan>"]})
    model, given = tiny_model(tokenizer), tiny_model(tokenizer, seed=1)
    model.resize_token_embeddings(len(grown) + 4, mean_resizing=False)
    asking = Asking(Chat.of(model, grown), TokenBudget(answer=4, trace=4), toxicity=lambda texts: [0.0] * len(texts))
    with pytest.raises(
        StartError, match="the reference knows 370 tokens, and the tokenizer has 371 that the model knows"
    ):
        audit(model, grown, probes[:1], reference=given, asking=asking)
    freeze_start(model, given).check_tokens(model, len(tokenizer))  # more rows in the model are padding
    freeze_start(given, model).check_tokens(given, len(grown))  # and so they are in the start
    given.resize_token_embeddings(len(grown), mean_resizing=False)
    assert audit(model, grown, probes[:1], reference=given, asking=asking).metrics["alignguard/kl/raw"] > 0


class Steering:
    """What people write: a vector that is learnt, added to what a layer says."""

    def __init__(self, size):
        self.vector = torch.nn.Parameter(torch.zeros(size))

    def add(self, module, given, out):
        return out + self.vector


STEER = torch.nn.Parameter(torch.zeros(32))


def steered(model, way):
    layer = model.model.layers[0]
    if way == "closure over the model":
        model.steer = torch.nn.Parameter(torch.zeros(32))
        layer.register_forward_hook(lambda module, given, out: out + model.steer)
    elif way == "bound method":
        layer.register_forward_hook(Steering(32).add)
    elif way == "global":
        layer.register_forward_hook(lambda module, given, out: out + STEER)
    elif way == "before":
        model.steer = torch.nn.Parameter(torch.zeros(32))
        layer.mlp.register_forward_pre_hook(lambda module, given: (given[0] + model.steer,))
    elif way == "activation":
        model.slope = torch.nn.Parameter(torch.ones(()))
        layer.mlp.act_fn = torch.nn.SiLU()
        layer.mlp.act_fn.kernel = lambda x: torch.nn.functional.silu(x) * model.slope
        type_of = type("Own", (torch.nn.SiLU,), {"forward": lambda self, x: self.kernel(x)})
        layer.mlp.act_fn.__class__ = type_of
    return model


@pytest.mark.parametrize("kind", ["copy", "offload", "given"])
@pytest.mark.parametrize("way", ["closure over the model", "bound method", "global", "before", "activation"])
def test_a_start_that_follows_through_a_hook_is_refused(tokenizer, kind, way):
    model = steered(tiny_model(tokenizer), way)
    before = {name: (p.data_ptr(), p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    given = copy.deepcopy(model) if kind == "given" else kind
    if way == "bound method":  # a method is copied with what it is bound to
        if kind != "given":
            start, hook = freeze_start(model, kind), next(iter(model.model.layers[0]._forward_hooks.values()))
            before = logits(start.model)
            hook.__self__.vector.data.normal_()
            assert torch.equal(logits(start.model), before) and not torch.allclose(logits(model), before, atol=1e-3)
            return
        given.model.layers[0]._forward_hooks = model.model.layers[0]._forward_hooks
    with pytest.raises(
        StartError, match=r"follow the model that trains: .* of model\.layers\.0.* use reference='cache'"
    ):
        freeze_start(model, given)
    for name, p in model.named_parameters():
        pointer, value, trains = before[name]
        assert p.data_ptr() == pointer and torch.equal(p, value) and p.requires_grad == trains


def test_hooks_that_read_only_their_own_module_or_what_does_not_train_are_copied(tokenizer):
    model, seen = tiny_model(tokenizer), []
    layer = model.model.layers[0]
    layer.steer = torch.nn.Parameter(torch.zeros(32))
    model.fixed = torch.nn.Parameter(torch.randn(32), requires_grad=False)
    layer.register_forward_hook(lambda module, given, out: out + module.steer + model.fixed)
    model.model.norm.register_forward_hook(lambda module, given, out: seen.append((model.config, len(out))))
    reference = freeze_start(model)
    before = logits(reference.model)
    train_adapters(model)
    assert torch.equal(logits(reference.model), before)
    assert not torch.allclose(logits(model), before, atol=1e-3)


def test_a_copy_without_hooks_is_not_asked(tokenizer, monkeypatch):
    model, calls = tiny_model(tokenizer), []
    monkeypatch.setattr(type(model), "forward", lambda self, **asked: calls.append(asked))
    freeze_start(model)
    assert not calls


@pytest.mark.parametrize("kind", ["given", "copy", "offload"])
def test_a_start_that_was_moved_is_an_error(tokenizer, kind):
    """TRL's `sync_ref_model` mixes a reference towards the policy: what the old one said would meet the new one's head."""
    model, start = tiny_model(tokenizer), tiny_model(tokenizer)
    reference = freeze_start(model, start if kind == "given" else kind)
    asking = asking_of(model, tokenizer)
    assert abs(told(model, reference, asking)) < 1e-5
    train(model)
    assert told(model, reference, asking) == pytest.approx(
        truth(model, start if kind == "given" else tiny_model(tokenizer)), rel=1e-4
    )
    reference.follow(copy.deepcopy(model).bfloat16())  # another precision is no other start
    with reference.awake(torch.device("cpu")):
        pass
    with torch.no_grad():
        for p, q in zip(reference.model.parameters(), model.parameters(), strict=True):
            p.mul_(0.4).add_(q, alpha=0.6)
    with pytest.raises(StartError, match=r"of the reference is not what it was at the start; .*sync_ref_model"):
        told(model, reference, asking)


def test_a_start_that_is_moved_in_a_run_ends_the_audits_and_not_the_run(tokenizer, tmp_path, caplog):
    class Sync(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                start.lm_head.weight.data.mul_(0.9)

    start = tiny_model(tokenizer)
    trainer = sft(tokenizer, tmp_path, [Sync(), guard(reference=start)], model=tiny_model(tokenizer))
    trainer.train()
    assert trainer.state.global_step == trainer.args.max_steps
    assert [line["step"] for line in lines(tmp_path)] == [0]
    said = [
        r.getMessage() for r in caplog.records if "lm_head.weight of the reference is not what it was" in r.getMessage()
    ]
    assert len(said) == 1


@pytest.mark.parametrize("kind", ["copy", "offload"])
def test_a_start_moves_alone_where_accelerate_has_bound_what_moves_a_model(model, kind):
    """Of a model on several devices `to` is a closure over it, and a deep copy keeps that: the policy went to the CPU at each audit."""
    from accelerate import dispatch_model

    policy = dispatch_model(model, {"": "cpu"}, force_hooks=True)
    assert "to" in vars(policy)
    reference = freeze_start(policy, kind)
    reference.model.to(torch.float64)
    assert reference.model.dtype == torch.float64 and policy.dtype == torch.float32


def test_what_a_module_keeps_that_is_no_tensor_is_no_weight(model):
    class Counted(torch.nn.Identity):
        def get_extra_state(self):
            return {"seen": 3}

        def set_extra_state(self, state):
            pass

    model.counted = Counted()
    assert freeze_start(model).fingerprint == freeze_start(model).fingerprint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_base_that_hundreds_of_merges_have_rounded_is_still_the_start(tokenizer, dtype):
    """As vLLM is given adapters at every step; what really is another base is told."""
    policy = lora(tiny_model(tokenizer).to(dtype))
    reference = freeze_start(policy)
    base = {name: p.clone() for name, p in policy.named_parameters() if ".base_layer." in name}
    torch.manual_seed(0)
    for _ in range(300):
        with torch.no_grad():
            for name, p in policy.named_parameters():
                p.add_(torch.randn_like(p) * 1e-4 * ("lora_" in name))
        policy.merge_adapter()
        policy.unmerge_adapter()
    assert any(not torch.equal(p, base[name]) for name, p in policy.named_parameters() if name in base)
    with reference.awake(torch.device("cpu")):
        pass
    with torch.no_grad():
        for name, p in policy.named_parameters():
            p.mul_(1 + 0.1 * (name in base))
    with pytest.raises(StartError, match="changed under the adapters"), reference.awake(torch.device("cpu")):
        pass
