"""
People train float32 weights in bf16 autocast with flash attention, whose kernels take half precision alone.

Oracle: a kernel that refuses float32 outside of autocast, as flash attention does.
Before: a run with a budget that is resumed ended with 'FlashAttention only support fp16 and bf16 data type'.
After: it goes on; drift at step 0 is below 1e-5.
"""

import pytest
import torch
from peft import LoraConfig
from runs import guard, lines, sft
from tiny import tiny_model
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from alignguard import DriftBudget

LORA = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])


def kernel(module, query, key, value, mask, **kwargs):
    """As transformers calls flash attention: what is float32 is cast where autocast is on, and else refused by the kernel."""
    if query.dtype == torch.float32:
        if not torch.is_autocast_enabled("cpu"):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        query, key, value = (x.to(torch.get_autocast_dtype("cpu")) for x in (query, key, value))
    return sdpa_attention_forward(module, query, key, value, mask, **kwargs)


AttentionInterface.register("half_only", kernel)
AttentionMaskInterface.register("half_only", sdpa_mask)


@pytest.mark.parametrize(("kind", "peft"), [("auto", LORA), ("offload", None)])
def test_every_forward_of_ours_is_in_the_trainers_autocast(kind, peft, tokenizer, tmp_path):
    """Also those of a budget, and of a run that is resumed; drift at step 0 is nothing."""
    for steps in (2, 4):
        model = tiny_model(tokenizer, seed=1, scale=4.0, attn_implementation="half_only")
        budget = DriftBudget(max_kl=1.0, every=1, batch=2, answer_tokens=4, anchors=["Who?", "Where is it?"])
        callback = guard(reference=kind, budget=budget)
        settings = {"use_cpu": True, "bf16": True, "save_strategy": "steps", "save_steps": 2, "max_steps": steps}
        trainer = sft(tokenizer, tmp_path, [callback], model=model, peft_config=peft, **settings)
        trainer.train(resume_from_checkpoint=steps == 4)
    found = [line["metrics"]["alignguard/kl/raw"] for line in lines(tmp_path)]
    assert len(found) == 3 and found[0] < 1e-5 < found[1]
