"""The oracle's own proof: a change of each kind, made on purpose, is told by name, and no more once it is put back."""

import copy
import decimal
import faulthandler
import gc
import io
import locale
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from contextlib import ExitStack
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
import torch._dynamo
import transformers
from everything import differences, everything
from runs import sft
from tiny import tiny_tokenizer
from tokenizers import processors
from tqdm.auto import tqdm

pytestmark = pytest.mark.slow
THAWED = True  # how many objects are frozen is among what is watched


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """One that has trained a step, and that nobody else uses."""
    trainer = sft(tiny_tokenizer(), tmp_path_factory.mktemp("run"), max_steps=1)
    trainer.train()
    return trainer


def put(undo, thing, name, value):
    """Set an attribute, for as long as the test takes."""
    if name in vars(thing):
        undo.callback(setattr, thing, name, vars(thing)[name])
    else:
        undo.callback(lambda: name in vars(thing) and delattr(thing, name))
    setattr(thing, name, value)


def call(undo, do, given, before):
    """Call a switch, and call it again with what it was."""
    undo.callback(do, before)
    do(given)


def weight(trainer):
    return trainer.model.model.layers[0].mlp.up_proj.weight


def hook(undo, register, do=lambda *given: None):
    undo.callback(register(do).remove)


def added(undo, values, one):
    """At the end of a list."""
    undo.callback(values.remove, one)
    values.append(one)


def set_item(undo, values, key, one):
    before = dict(values)
    undo.callback(lambda: (values.clear(), values.update(before)))
    values[key] = one


def nudge(undo, tensor):
    """A value of a tensor, in place."""
    undo.callback(tensor.data.copy_, tensor.detach().clone())
    tensor.data.flatten()[0] += 1


def thread(undo):
    done = threading.Event()
    started = threading.Thread(target=done.wait)
    started.start()
    undo.callback(lambda: (done.set(), started.join()))


def child(undo):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    undo.callback(process.communicate)


def grad(undo, trainer):
    p = weight(trainer)
    undo.callback(setattr, p, "grad", p.grad)
    p.grad = torch.ones_like(p)


def recased(undo, tokenizer):
    """What the Rust side does, which no attribute in Python tells."""
    backend = tokenizer.backend_tokenizer
    undo.callback(setattr, backend, "post_processor", backend.post_processor)
    backend.post_processor = processors.ByteLevel(trim_offsets=False)


def padded(undo, tokenizer):
    undo.callback(tokenizer.backend_tokenizer.no_padding)
    tokenizer.backend_tokenizer.enable_padding(length=8)


def truncated(undo, tokenizer):
    undo.callback(tokenizer.backend_tokenizer.no_truncation)
    tokenizer.backend_tokenizer.enable_truncation(8)


def moved(undo, p):
    """The same values in other memory."""
    undo.callback(setattr, p, "data", p.data)
    p.data = p.data.clone()


def renewed(undo, module, name):
    """A buffer of the same values in another's place."""
    set_item(undo, module._buffers, name, module._buffers[name].clone())


def elsewhere(undo):
    """In a place where letters are others."""
    undo.callback(locale.setlocale, locale.LC_CTYPE, locale.setlocale(locale.LC_CTYPE))
    locale.setlocale(locale.LC_CTYPE, "C" if "UTF-8" in locale.setlocale(locale.LC_CTYPE) else "C.UTF-8")


def switch(undo, there, on, off):
    """Turn to the other of two."""
    now, then = (off, on) if there else (on, off)
    undo.callback(then)
    now()


def handled(undo, logger):
    undo.callback(logger.removeHandler, logging.lastResort)
    logger.addHandler(logging.lastResort)


def drawn(undo, put_back, state, draw):
    """A number from a generator."""
    undo.callback(put_back, state)
    draw()


def inner(thing, name):
    """What accelerate has wrapped, where it has."""
    return getattr(thing, name, thing)


# name: (what the line that tells it begins with, and the change)
PLANTED = {
    # tokenizer
    "padding side": (r"trainer\.processing_class\.padding_side: right -> left", lambda t, u: put(u, t.processing_class, "padding_side", "left")),
    "truncation side": (r"trainer\.processing_class\.truncation_side: ", lambda t, u: put(u, t.processing_class, "truncation_side", "left")),
    "chat template": (r"trainer\.processing_class\.chat_template: ", lambda t, u: put(u, t.processing_class, "chat_template", "x")),
    "longest text": (r"trainer\.processing_class\.model_max_length: ", lambda t, u: put(u, t.processing_class, "model_max_length", 7)),
    "special token": (r"trainer\.processing_class\._special_tokens_map\S*: ", lambda t, u: set_item(u, t.processing_class._special_tokens_map, "pad_token", "<|im_end|>")),
    "backend's padding": (r"trainer\.processing_class\._tokenizer\.padding: None -> ", lambda t, u: padded(u, t.processing_class)),
    "backend's truncation": (r"trainer\.processing_class\._tokenizer\.truncation: None -> ", lambda t, u: truncated(u, t.processing_class)),
    "backend's steps": (r"trainer\.processing_class\._tokenizer\.whole: ", lambda t, u: recased(u, t.processing_class)),
    "a warning that was given": (r"trainer\.processing_class\.deprecation_warnings\.x: absent", lambda t, u: set_item(u, t.processing_class.deprecation_warnings, "x", True)),
    # model
    "config": (r"trainer\.model\.config\.bos_token_id: ", lambda t, u: put(u, t.model.config, "bos_token_id", 7)),
    "attention": (r"trainer\.model\.config\._attn_implementation\S*: ", lambda t, u: put(u, t.model.config, "_attn_implementation_internal", "eager")),
    "generation config": (r"trainer\.model\.generation_config\.max_new_tokens: ", lambda t, u: put(u, t.model.generation_config, "max_new_tokens", 3)),
    "another generation config": (r"trainer\.model\.generation_config: ", lambda t, u: put(u, t.model, "generation_config", copy.copy(t.model.generation_config))),
    "train mode of one module": (r"trainer\.model\S+\.mlp\S*\.training: True -> False", lambda t, u: put(u, t.model.model.layers[1].mlp, "training", False)),
    "requires_grad": (r"trainer\.model\S+\.trains: True -> False", lambda t, u: call(u, weight(t).requires_grad_, False, True)),
    "forward hook": (r"trainer\.model\S+\._forward_hooks\S+: absent", lambda t, u: hook(u, t.model.model.norm.register_forward_hook)),
    "forward pre-hook": (r"trainer\.model\S+\._forward_pre_hooks\S+: absent", lambda t, u: hook(u, t.model.lm_head.register_forward_pre_hook)),
    "backward hook": (r"trainer\.model\S+\._backward_hooks\S+: absent", lambda t, u: (put(u, t.model.lm_head, "_is_full_backward_hook", True), hook(u, t.model.lm_head.register_full_backward_hook))),
    "state-dict hook": (r"trainer\.model\S+\._state_dict_hooks\S+: absent", lambda t, u: hook(u, t.model.lm_head._register_state_dict_hook)),
    "load hook": (r"trainer\.model\._load_state_dict_post_hooks\S+: absent", lambda t, u: hook(u, t.model.register_load_state_dict_post_hook)),
    "hook of all modules": (r"torch\._global_forward_hooks: ", lambda t, u: hook(u, torch.nn.modules.module.register_module_forward_hook)),
    "hook of a weight": (r"trainer\.model\S+\._backward_hooks: absent", lambda t, u: hook(u, weight(t).register_hook)),
    "hook after a gradient": (r"trainer\.model\S+\._post_accumulate_grad_hooks\S*: ", lambda t, u: hook(u, weight(t).register_post_accumulate_grad_hook)),
    "buffer": (r"trainer\.model\S+\.inv_freq\.values: ", lambda t, u: nudge(u, t.model.model.rotary_emb.inv_freq)),
    "another buffer": (r"trainer\.model\S+\.inv_freq\.place: ", lambda t, u: renewed(u, t.model.model.rotary_emb, "inv_freq")),
    "weight": (r"trainer\.model\S+\.values: ", lambda t, u: nudge(u, weight(t))),
    "weight's data elsewhere": (r"trainer\.model\S+\.place: ", lambda t, u: moved(u, weight(t))),
    "gradient": (r"trainer\.model\S+\.grad: None -> Tensor", lambda t, u: grad(u, t)),
    "attribute of a module": (r"trainer\.model\S+\.new_one: absent -> 1", lambda t, u: put(u, t.model.model.layers[0], "new_one", 1)),
    "forward override": (r"trainer\.model\S*\.forward: ", lambda t, u: put(u, t.model.model.norm, "forward", lambda x: x)),
    "method of a class": (r"trainer\.model\.<class>: ", lambda t, u: put(u, type(t.model), "forward", lambda x: x)),
    # torch
    "gradients off": (r"torch\.gradients: ", lambda t, u: u.enter_context(torch.no_grad())),
    "inference mode": (r"torch\.inference: ", lambda t, u: u.enter_context(torch.inference_mode())),
    "autocast": (r"torch\.autocast cpu: ", lambda t, u: u.enter_context(torch.autocast("cpu", torch.bfloat16))),
    "autocast's depth": (r"torch\.autocast depth: ", lambda t, u: (u.callback(torch.autocast_decrement_nesting), torch.autocast_increment_nesting())),
    "autocast's cache": (r"torch\.autocast caches: ", lambda t, u: call(u, torch.set_autocast_cache_enabled, False, True)),
    "default dtype": (r"torch\.dtype: ", lambda t, u: call(u, torch.set_default_dtype, torch.float64, torch.float32)),
    "default device": (r"torch\.device: ", lambda t, u: u.enter_context(torch.device("meta"))),
    "determinism": (r"torch\.deterministic: ", lambda t, u: call(u, torch.use_deterministic_algorithms, True, False)),
    "matmul precision": (r"torch\.precision: ", lambda t, u: call(u, torch.set_float32_matmul_precision, "high", "highest")),
    "attention kernels": (r"torch\.attention: ", lambda t, u: call(u, torch.backends.cuda.enable_flash_sdp, False, True)),
    "threads of torch": (r"torch\.threads: ", lambda t, u: call(u, torch.set_num_threads, torch.get_num_threads() + 1, torch.get_num_threads())),
    "saved tensors": (r"torch\.saved by: ", lambda t, u: u.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x))),
    "anomaly mode": (r"torch\.anomalies: ", lambda t, u: u.enter_context(torch.autograd.set_detect_anomaly(True))),
    "compiler's stance": (r"compiler\.stance: ", lambda t, u: u.enter_context(torch.compiler.set_stance("force_eager"))),
    "compiler's settings": (r"compiler\.settings: ", lambda t, u: u.enter_context(torch._dynamo.config.patch(recompile_limit=3))),
    # generators
    "python's generator": (r"generators\.python: ", lambda t, u: drawn(u, random.setstate, random.getstate(), random.random)),
    "numpy's generator": (r"generators\.numpy: ", lambda t, u: drawn(u, np.random.set_state, np.random.get_state(), np.random.rand)),
    "torch's generator": (r"generators\.torch: ", lambda t, u: drawn(u, torch.set_rng_state, torch.get_rng_state(), lambda: torch.rand(1))),
    "a generator of the trainer's own": (r"trainer\.own\.state: ", lambda t, u: torch.rand(1, generator=t.own)),
    # trainer
    "learning rate": (r"trainer\.optimizer\S*param_groups\[0\]\.lr: ", lambda t, u: set_item(u, t.optimizer.param_groups[0], "lr", 3.0)),
    "moment of the optimizer": (r"trainer\.optimizer\S*exp_avg\.values: ", lambda t, u: nudge(u, next(iter(t.optimizer.state.values()))["exp_avg"])),
    "hook of the optimizer": (r"trainer\.optimizer\S*_optimizer_step_pre_hooks\S*: ", lambda t, u: hook(u, inner(t.optimizer, "optimizer").register_step_pre_hook)),
    "scheduler": (r"trainer\.lr_scheduler\S*last_epoch: ", lambda t, u: put(u, inner(t.lr_scheduler, "scheduler"), "last_epoch", 77)),
    "trainer's state": (r"trainer\.state\.global_step: ", lambda t, u: put(u, t.state, "global_step", 77)),
    "trainer's history": (r"trainer\.state\.log_history\S*: ", lambda t, u: added(u, t.state.log_history, {"x": 1})),
    "trainer's control": (r"trainer\.control\.should_save: ", lambda t, u: put(u, t.control, "should_save", 2)),
    "callbacks": (r"trainer\.callback_handler\.callbacks\S+: ", lambda t, u: added(u, t.callback_handler.callbacks, transformers.TrainerCallback())),
    "arguments": (r"trainer\.args\.seed: ", lambda t, u: put(u, t.args, "seed", 77)),
    "attribute of the trainer": (r"trainer\.new_one: absent", lambda t, u: put(u, t, "new_one", 1)),
    # memory
    "a tensor that lives on": (r"memory\.tensors: ", lambda t, u: put(u, sys.modules[__name__], "alive", torch.zeros(1000))),
    # process
    "environment": (r"environment\.NEW_ONE: absent -> 1", lambda t, u: set_item(u, os.environ, "NEW_ONE", "1")),
    "environment that is gone": (r"environment\.PATH: .* -> absent", lambda t, u: (u.callback(os.environ.__setitem__, "PATH", os.environ["PATH"]), os.environ.pop("PATH"))),
    "folder": (r"process\.folder: ", lambda t, u: call(u, os.chdir, tempfile.gettempdir(), os.getcwd())),
    "umask": (r"process\.umask: ", lambda t, u: u.callback(os.umask, os.umask(0o77))),
    "open file": (r"process\.file \d+: absent -> ", lambda t, u: u.callback(os.close, os.open(__file__, os.O_RDONLY))),
    "thread": (r"process\.threads: ", lambda t, u: thread(u)),
    "child": (r"process\.children: ", lambda t, u: child(u)),
    "signal": (r"process\.signal 12: ", lambda t, u: u.callback(signal.signal, 12, signal.signal(12, lambda *given: None))),
    "timer": (r"process\.ITIMER_VIRTUAL: ", lambda t, u: (u.callback(signal.setitimer, signal.ITIMER_VIRTUAL, 0), signal.setitimer(signal.ITIMER_VIRTUAL, 1000))),
    "collector off": (r"python\.collector: ", lambda t, u: switch(u, gc.isenabled(), gc.enable, gc.disable)),
    "collector's thresholds": (r"python\.thresholds: ", lambda t, u: (u.callback(gc.set_threshold, *gc.get_threshold()), gc.set_threshold(1, 2, 3))),
    "frozen objects": (r"python\.frozen: 0 -> ", lambda t, u: (u.callback(gc.unfreeze), gc.freeze())),
    "import path": (r"python\.path: ", lambda t, u: added(u, sys.path, "/x")),
    "argv": (r"python\.argv: ", lambda t, u: added(u, sys.argv, "x")),
    "uncaught exceptions": (r"python\.excepthook: ", lambda t, u: put(u, sys, "excepthook", lambda *given: None)),
    "standard output": (r"python\.stdout: ", lambda t, u: put(u, sys, "stdout", io.StringIO())),
    "deepest call": (r"python\.recursion: ", lambda t, u: call(u, sys.setrecursionlimit, 5000, sys.getrecursionlimit())),
    "locale": (r"python\.locale: ", lambda t, u: elsewhere(u)),
    "decimal places": (r"python\.decimal: ", lambda t, u: u.enter_context(decimal.localcontext(decimal.Context(prec=3)))),
    "numpy's errors": (r"python\.numpy errors: ", lambda t, u: u.enter_context(np.errstate(all="raise"))),
    "faults": (r"python\.faults: ", lambda t, u: switch(u, faulthandler.is_enabled(), faulthandler.enable, faulthandler.disable)),
    "warnings": (r"warnings\.filters: ", lambda t, u: (u.enter_context(warnings.catch_warnings()), warnings.simplefilter("error"))),
    # loggers and bars
    "level of a logger": (r"logging\.trl: ", lambda t, u: call(u, logging.getLogger("trl").setLevel, 50, logging.getLogger("trl").level)),
    "verbosity": (r"logging\.transformers: ", lambda t, u: call(u, transformers.logging.set_verbosity, 10, transformers.logging.get_verbosity())),
    "handler": (r"logging\.datasets: ", lambda t, u: handled(u, logging.getLogger("datasets"))),
    "all loggers off": (r"logging\.disabled: ", lambda t, u: call(u, logging.disable, 50, 0)),
    "bars of datasets": (r"bars\.datasets: ", lambda t, u: switch(u, True, datasets.enable_progress_bars, datasets.disable_progress_bars)),
    "bars of transformers": (r"bars\.transformers.utils.logging: ", lambda t, u: (u.callback(transformers.logging.enable_progress_bar), transformers.logging.disable_progress_bar())),
    "a bar that stays": (r"bars\.live: 0 -> 1", lambda t, u: u.callback(tqdm(total=1, file=sys.stderr).close)),
    # files
    "file": (r"files\.\S+/new: absent -> ", lambda t, u: (u.callback((place(t) / "new").unlink), (place(t) / "new").write_text("x"))),
}  # fmt: skip


# what is made at the first use of a switch, and stays
STAYS = ("python.context ", "process.tasks", "bars.huggingface_hub")


def place(trainer):
    return Path(trainer.args.output_dir)


def look(trainer, memory=False):
    return everything((place(trainer),), memory=memory, trainer=trainer)


def test_nothing_is_told_where_nothing_changed(trainer):
    before = look(trainer, memory=True)
    assert differences(before, look(trainer, memory=True)) == []
    assert len(before) > 5000  # it sees something


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_change_is_told(name, trainer):
    trainer.own = torch.Generator()
    tqdm(total=1, disable=True).close()  # whose lock is made once
    told, plant = PLANTED[name]
    memory = "memory" in told
    before = look(trainer, memory)
    with ExitStack() as undo:
        plant(trainer, undo)
        lines = differences(before, look(trainer, memory))
    assert [line for line in lines if re.match(told, line)], "\n".join(lines[:20])
    assert len(lines) <= 8, "\n".join(lines)  # and little else
    trainer.own.manual_seed(torch.Generator().initial_seed())
    for _ in range(20):  # a thread that has ended goes in its own time
        left = [line for line in differences(before, look(trainer, memory)) if not line.startswith(STAYS)]
        if not left:
            break
        time.sleep(0.05)
    assert left == []
