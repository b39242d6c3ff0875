"""What is kept of completions, held against the loss that TRL's trainers take of them."""

import pytest
import torch
from runs import guard
from test_rows import rows, said_on_record
from tiny import tiny_model
from trainers import ONLINE, SETTINGS, reward
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

from alignguard.records.rows import RowStore
from alignguard.tracing.losses import Document
from alignguard.tracing.pull import pulls
from alignguard.trainer.completions import documents, why_unread


def online(tokenizer, folder, kind=(GRPOTrainer, GRPOConfig), callbacks=(), **settings):
    args = kind[1](str(folder), **{**SETTINGS, **ONLINE, "beta": 0.0, **settings})
    data = rows(16).select_columns("prompt")
    return kind[0](
        tiny_model(tokenizer), reward, args=args, train_dataset=data, processing_class=tokenizer, callbacks=[*callbacks]
    )


SEQUENCES = [[0.5], [0.0], [2.0], [1.0]]
TOKENS = [[0.5, 0.5, 0.5, 0.5], [0.0, 2.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]]


@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
@pytest.mark.parametrize("ratio", [None, SEQUENCES, TOKENS], ids=["none", "sequences", "tokens"])
def test_weights_of_completions_are_those_of_the_loss(tokenizer, tmp_path, ratio, loss_type):
    """Oracle: the gradient of the trainer's own loss, of ratios of vLLM's probabilities too, which may leave out whole completions."""
    trainer = online(tokenizer, tmp_path, loss_type=loss_type, steps_per_generation=1)
    model, batch = (
        trainer.model.train(),
        {
            "prompt_ids": torch.tensor([[5, 6, 7]] * 4),
            "prompt_mask": torch.ones(4, 3, dtype=torch.long),
            "completion_ids": torch.arange(8, 24).reshape(4, 4),
            "completion_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]),
            "advantages": torch.tensor([1.0, -1.0, 0.5, 2.0]),
            "num_items_in_batch": torch.tensor(15),
        },
    )
    if ratio is not None:
        batch["importance_sampling_ratio"] = torch.tensor(ratio)
    trainer.use_vllm, trainer.current_gradient_accumulation_steps = ratio is not None, 1
    right = torch.autograd.grad(trainer._compute_loss(model, batch), list(model.parameters()), allow_unused=True)
    ours, sizes, kept = torch.zeros(()), batch["completion_mask"].sum(1).tolist(), []
    for text in documents(0, batch):
        kept.append(text.row)
        ids, learnt = torch.tensor([list(text.ids)]).long(), torch.tensor(list(text.learnt))
        nll = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")[learnt[1:]]
        share = 1 / 4 if loss_type == "grpo" else sizes[text.row] / 15  # of all of its tokens
        ours = ours + share * text.weight * nll.mean()
    assert kept == [0, 1, 2, 3]  # what counts for nothing is on record as that
    for a, b in zip(right, torch.autograd.grad(ours, list(model.parameters()), allow_unused=True), strict=True):
        assert (a is None) == (b is None) and (a is None or torch.allclose(a, b, atol=1e-6))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("kind", [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)], ids=["grpo", "rloo"])
def test_completions_pull_as_the_trainers_loss_of_them(tokenizer, tmp_path, kind, temperature):
    """Oracle: autograd of TRL's own loss of each completion, which is taken at the temperature that it was drawn at."""
    trainer, given = online(tokenizer, tmp_path, kind, [guard()], temperature=temperature, learning_rate=0.0), []
    compute = trainer._compute_loss

    def listening(model, inputs):
        given.append(inputs)
        return compute(model, inputs)

    trainer._compute_loss = listening
    trainer.train()
    start = tiny_model(tokenizer)
    along = {name: torch.randn_like(p) for name, p in start.named_parameters()}
    store = RowStore(tmp_path / "_alignguard" / "said")
    assert store.temperature == temperature
    texts = sorted((t for t in store.texts(store.kept()) if t.weight), key=lambda text: text.row)
    told = pulls(start, [Document(t.ids, t.learnt, store.temperature) for t in texts], along, 0)
    own, model, right = dict(trainer.model.named_parameters()), trainer.model.eval(), {}
    for batch in given:
        n = len(batch["advantages"])
        for i in range(n):
            one = {k: v[i : i + 1] if getattr(v, "shape", (0,))[:1] == (n,) else v for k, v in batch.items()}
            loss = compute(model, {**one, "num_items_in_batch": one["completion_mask"].sum()})
            grads = torch.autograd.grad(loss, list(own.values()), allow_unused=True)
            pull = -sum((grad * along[k]).sum().item() for k, grad in zip(own, grads, strict=True) if grad is not None)
            ids = torch.cat([batch[f"{k}_ids"][i][batch[f"{k}_mask"][i] > 0] for k in ("prompt", "completion")])
            # RLOO's is a sum over tokens, where a pull is a mean
            right[tuple(ids.tolist())] = pull / (int(one["completion_mask"].sum()) if kind[0] is RLOOTrainer else 1)
    assert len(texts) >= 8
    for text, pull in zip(texts, told, strict=True):
        assert text.weight * pull.pull == pytest.approx(right[tuple(text.ids.tolist())], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "why"),
    [
        ((GRPOTrainer, GRPOConfig), {"top_entropy_quantile": 0.2}, "top_entropy_quantile=0.2"),
        ((GRPOTrainer, GRPOConfig), {"off_policy_mask_threshold": 0.5}, "off_policy_mask_threshold=0.5"),
        ((GMPOTrainer, GMPOConfig), {}, "the loss of GMPOTrainer is one of its own"),
        ((GRPOTrainer, GRPOConfig), {"loss_type": "vespo"}, ""),
        ((GRPOTrainer, GRPOConfig), {}, ""),
        ((RLOOTrainer, RLOOConfig), {}, ""),
    ],
)
def test_where_the_loss_is_of_other_tokens_the_steps_are_kept_and_the_reason(tokenizer, tmp_path, kind, settings, why):
    trainer = online(tokenizer, tmp_path, kind, [guard()], **settings)
    trainer.train()
    store = RowStore(tmp_path / "_alignguard" / "said")
    assert why in store.unread and bool(why) is bool(store.unread) and store.steps() == {1, 2, 3}
    assert any(said_on_record(tmp_path, 3).values()) is not bool(why)


def test_vespo_weighs_by_vllms_ratios_in_a_way_of_its_own(tokenizer, tmp_path):
    trainer = online(tokenizer, tmp_path, loss_type="vespo")
    trainer.use_vllm = True
    assert "vespo" in why_unread(trainer)
    trainer.vllm_importance_sampling_correction = False
    assert why_unread(trainer) == ""
