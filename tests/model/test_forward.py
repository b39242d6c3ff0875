import pytest
import torch

from alignguard.model.forward import Row, batches, final_hidden
from alignguard.model.head import read_head, target_hidden
from alignguard.model.observe import observing


def test_hidden_states_give_the_models_own_logits(model):
    ids = torch.randint(3, 300, (2, 9))
    with torch.no_grad():
        hidden = final_hidden(model, ids, torch.ones_like(ids))
        expected = model(ids).logits
    torch.testing.assert_close(read_head(model).logits(hidden.flatten(0, 1)).view_as(expected), expected)


def test_padding_and_batching_change_nothing(model):
    rows = [Row([5, 6, 7], [8, 9]), Row([5], [6, 7, 8, 9, 10, 11]), Row(list(range(20, 40)), [3])]
    with torch.no_grad():
        together = target_hidden(model, rows, 0, read_head(model))
        alone = torch.cat([target_hidden(model, [row], 0, read_head(model)) for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_target_is_predicted_from_the_position_before_it(model):
    row = Row([5, 6, 7], [8, 9])
    with torch.no_grad():
        hidden = final_hidden(model, torch.tensor([[5, 6, 7, 8, 9]]), torch.ones(1, 5, dtype=torch.long))
        assert torch.equal(target_hidden(model, [row], 0, read_head(model)), hidden[0, 2:4])


def test_the_head_computes_one_position_only(model):
    seen = []
    hook = model.get_output_embeddings().register_forward_hook(lambda m, i, o: seen.append(o.shape))
    with torch.no_grad():
        final_hidden(model, torch.ones(2, 9, dtype=torch.long), torch.ones(2, 9, dtype=torch.long))
    hook.remove()
    assert seen == [(2, 1, model.config.vocab_size)]


def test_a_forward_bound_to_another_model_is_an_error(model, other):
    model.forward = other.forward
    with pytest.raises(RuntimeError, match="called its own LM head 0 times"):
        final_hidden(model, torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))


def test_the_fused_path_is_taken_under_autocast_with_float32_weights(model):
    """TRL's default: the model's own logits are then of half precision, its hidden states are not."""
    with observing(model, autocast=torch.bfloat16):
        assert read_head(model).weight is not None


def test_batches_hold_every_row_once_within_the_limit():
    lengths = [5, 50, 7, 7, 120, 3]
    found = list(batches(lengths, 60))
    assert sorted(i for batch in found for i in batch) == list(range(6))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 60 for batch in found)
