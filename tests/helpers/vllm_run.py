"""A run whose trainer generates with vLLM itself, colocated: vllm_run.py "MODE KIND" OUT, for test_engine_vllm.py."""

import os
import sys
from functools import partial
from pathlib import Path

# a small cache, and threads that may go anywhere, where vLLM runs on a CPU
os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}
sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
import torch
import trl.generation.vllm_generation as generation
from engines import online
from tiny import CHATML, tiny_model, tiny_tokenizer
from trainers import Logs, guard

from alignguard import Schedule, TokenBudget


def unpacked():
    """On a CPU vLLM packs linear weights away, and TRL cannot write to them: here they stay, as on a GPU."""
    import vllm.model_executor.layers.utils as layers

    def keep(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    layers.dispatch_cpu_unquantized_gemm = keep


def main(asked, out):
    mode, kind = asked.split()
    if not torch.cuda.is_available():
        unpacked()
    if kind != "half":  # vLLM's own choice for a float32 model
        generation.LLM = partial(generation.LLM, dtype="float32")
    template = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}") if kind == "thinks" else CHATML
    tokenizer, start, logs = tiny_tokenizer(template), Path(out) / "start", Logs()
    tiny_model(tokenizer, seed=1, scale=4.0, dropout=0.3, hidden_size=128, intermediate_size=128).save_pretrained(start)
    tokenizer.save_pretrained(start)
    lora = None
    if kind == "lora":
        from peft import LoraConfig

        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    torch.manual_seed(0)
    trainer = online(
        *(tokenizer, start, Path(out) / "run", [logs]),
        peft_config=lora,
        learning_rate=3e-2 if lora else 3e-3,
        vllm_gpu_memory_utilization=0.1,
        vllm_max_model_length=512,
    )
    generate, asked = trainer.vllm_generation.llm.generate, []

    def counted(prompts, sampling_params, **kwargs):
        asked.append((len(prompts), sampling_params.temperature))
        return generate(prompts, sampling_params=sampling_params, **kwargs)

    trainer.vllm_generation.llm.generate = counted
    settings = {"tokens": TokenBudget(answer=24, trace=40), "schedule": Schedule(at=(1, 2), every=0, draw=2)}
    callback = guard(trainer, engine="trainer" if mode == "engine" else None, **settings)
    trainer.add_callback(callback)
    trainer.train()
    found = {
        "metrics": [{k: v for k, v in a.metrics.items() if "/cost/" not in k} for a in callback.audits],
        "answers": {id: vars(r.answer) for id, r in callback.audits[-1].results.items() if r.answer is not None},
        "logs": logs.kept,
        "weights": {name: p.detach().cpu() for name, p in trainer.model.named_parameters()},
        "asked": asked,
    }
    torch.save(found, Path(out) / "found.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # vLLM's workers end with it
