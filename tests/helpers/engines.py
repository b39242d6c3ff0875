"""
A stand-in for vLLM, which TRL's own `VLLMGeneration` holds and calls as it does the real one: greedy or sampled generation by
transformers, with weights of its own, read from the checkpoint and changed only by what is loaded into them.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import ClassVar

import torch
import torch._dynamo as _dynamo
import trl.generation.vllm_generation as generation
from trainers import SETTINGS, reward, rows
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Params(SimpleNamespace):
    """`vllm.SamplingParams`, as far as TRL and AlignGuard use it."""

    KNOWN = (
        *("n", "repetition_penalty", "temperature", "top_p", "top_k", "min_p", "max_tokens", "logprobs", "seed"),
        *("ignore_eos", "stop_token_ids", "structured_outputs"),
    )

    def __init__(self, **given):
        unknown = given.keys() - set(self.KNOWN)
        assert not unknown, unknown
        super().__init__(**given)


class Engine:
    """`vllm.LLM`: what it was asked is in `asked`, as (prompts, params)."""

    made: ClassVar[list] = []  # the latest last

    def __init__(self, model, max_model_len=None, **kwargs):
        self.model = AutoModelForCausalLM.from_pretrained(model).eval()
        self.asked, self.loads, self.awake = [], 0, {"weights", "kv_cache"}
        self.fails = None  # an exception to raise when asked greedily
        runner = SimpleNamespace(model=self)
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        config = SimpleNamespace(max_model_len=max_model_len or self.model.config.max_position_embeddings)
        self.unfinished = {}
        self.llm_engine = SimpleNamespace(
            model_executor=executor,
            model_config=config,
            output_processor=SimpleNamespace(request_states=self.unfinished),
            abort_request=lambda ids, internal: [self.unfinished.pop(id) for id in ids],
        )
        self.made.append(self)

    @property
    def greedy(self):
        """The prompts of each question with temperature 0."""
        return [prompts for prompts, params in self.asked if params.temperature == 0]

    def load_weights(self, weights):
        assert "weights" in self.awake
        own = dict(self.model.named_parameters())
        for name, weight in weights:
            with torch.no_grad():
                own[name].copy_(weight)
            self.loads += 1

    def reset_prefix_cache(self):
        pass

    def wake_up(self, tags):
        self.awake |= set(tags)

    def sleep(self, level):
        assert level == 2
        self.awake = set()
        with torch.no_grad():
            for weight in self.model.parameters():
                weight.zero_()

    @torch.no_grad()
    def generate(self, prompts, sampling_params, use_tqdm=False):
        assert self.awake == {"weights", "kv_cache"}
        assert not torch.is_autocast_enabled("cpu") and _dynamo.eval_frame._stance.stance == "default"
        assert not self.unfinished  # vLLM would return them, too
        ids, params = [prompt["prompt_token_ids"] for prompt in prompts], sampling_params
        self.asked.append((ids, params))
        if params.temperature == 0 and self.fails is not None:
            self.unfinished |= dict.fromkeys(map(str, range(len(ids))))
            raise self.fails
        torch.rand(1)  # it may draw whatever it is asked
        return [
            SimpleNamespace(prompt_token_ids=prompt, outputs=[self._continue(prompt, params) for _ in range(params.n)])
            for prompt in ids
        ]

    def _continue(self, prompt, params):
        own = getattr(params, "ignore_eos", False)
        ends = list(getattr(params, "stop_token_ids", [])) + ([] if own else [self.model.config.eos_token_id])
        tokens, logprobs, past = [], [], None
        step = torch.tensor([prompt])
        while len(tokens) < params.max_tokens:
            out = self.model(step, past_key_values=past, use_cache=True)
            past, scores = out.past_key_values, out.logits[0, -1].log_softmax(-1)
            token = int(scores.argmax() if params.temperature == 0 else scores.exp().multinomial(1))
            tokens.append(token)
            logprobs.append({token: SimpleNamespace(rank=1, logprob=float(scores[token]))})
            if token in ends:
                break
            step = torch.tensor([[token]])
        return SimpleNamespace(token_ids=tokens, logprobs=None if params.logprobs is None else logprobs)


class Client:
    """`trl`'s client of a vLLM server, without the server."""

    def __init__(self, base_url, group_port, connection_timeout):
        self.engine = None

    def init_communicator(self, device):
        pass

    def get_server_info(self):
        return {"model_config": {"max_model_len": 1024, "logprobs_mode": "processed_logprobs"}}

    def reset_prefix_cache(self):
        pass

    def update_named_params(self, metadata, weights):
        self.engine.load_weights(weights)

    def generate(self, prompts, features, structured_outputs_regex, generation_kwargs, **params):
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        found = self.engine.generate(asked, Params(**{**params, **generation_kwargs}))
        logprobs, tokens = generation.extract_logprobs(found)
        return {
            "prompt_ids": [request.prompt_token_ids for request in found],
            "completion_ids": [said.token_ids for request in found for said in request.outputs],
            "logprobs": logprobs,
            "logprob_token_ids": tokens,
        }


def stand_in(monkeypatch):
    """From here on TRL finds a vLLM."""
    for name in _LAUNCHED if "RANK" not in os.environ else ():
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)  # after the test it is as it was
    monkeypatch.setattr(generation, "is_vllm_available", lambda *args, **kwargs: True)
    monkeypatch.setattr(generation, "LLM", Engine, raising=False)
    monkeypatch.setattr(generation, "SamplingParams", Params, raising=False)
    monkeypatch.setattr(generation, "StructuredOutputsParams", SimpleNamespace, raising=False)
    monkeypatch.setattr(generation, "VLLMClient", Client)
    monkeypatch.setattr(Engine, "made", [])


def online(tokenizer, start, output_dir, callbacks=(), kind="GRPO", model=None, peft_config=None, **settings):
    """A trainer that generates with vLLM, from a checkpoint on disk."""
    config, trainer = {"GRPO": (GRPOConfig, GRPOTrainer), "RLOO": (RLOOConfig, RLOOTrainer)}[kind]
    own = {"num_generations": 4, "max_completion_length": 12, "disable_dropout": False, "use_vllm": True}
    own |= {"vllm_mode": "colocate", "learning_rate": 3e-2}
    made = trainer(
        model=model or AutoModelForCausalLM.from_pretrained(start),
        args=config(str(output_dir), **{**SETTINGS, **own, **settings}),
        train_dataset=rows("prompt", tokenizer),
        processing_class=tokenizer,
        callbacks=list(callbacks),
        reward_funcs=reward,
        peft_config=peft_config,
    )
    for name in (
        _LAUNCHED if not torch.distributed.is_initialized() else ()
    ):  # TRL sets them for vLLM; the next trainer would take them for a launcher's
        os.environ.pop(name, None)
    if settings.get("vllm_mode") == "server":
        made.vllm_generation.vllm_client.engine = Engine(start)
    return made
