"""What a process has beside its objects: generators, switches, hooks, files, threads, environment, loggers, and what they are now."""

from __future__ import annotations

import atexit
import contextvars
import decimal
import faulthandler
import gc
import hashlib
import locale
import logging
import os
import pickle
import random
import signal
import socket
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from portrait import digest

_GLOBAL_HOOKS = torch.nn.modules.module
_CUDNN = ("enabled", "benchmark", "deterministic", "allow_tf32")


def process_state() -> dict[str, Any]:
    """By name."""
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "generators": generators,
        "environment": lambda: dict(os.environ),
        "process": _process,
        "python": _python,
        "modules": lambda: dict.fromkeys(sys.modules, "imported"),
        "warnings": _warnings,
        "logging": _logging,
        "bars": _bars,
        "torch": _torch,
        "compiler": _compiler,
        "devices": _devices,
        "processes": _distributed,
    }
    return {f"{part}.{name}": value for part, read in parts.items() for name, value in read().items()}


def generators() -> dict[str, Any]:
    found = {"python": _hash(random.getstate()), "numpy": _hash(np.random.get_state())}
    found["torch"] = digest(torch.default_generator.get_state())
    for kind in ("cuda", "xpu"):
        for i, generator in enumerate(getattr(getattr(torch, kind), "defaultgenerators", ())):
            found[f"{kind}:{i}"] = digest(generator.get_state())
    return found


def _process() -> dict[str, Any]:
    own = Path("/proc/self")
    found: dict[str, Any] = {"folder": os.getcwd(), "affinity": os.sched_getaffinity(0), "zone": time.tzname}
    found["priority"] = os.getpriority(os.PRIO_PROCESS, 0)
    found["umask"] = next(line for line in (own / "status").read_text().splitlines() if line.startswith("Umask"))
    for file in os.listdir(own / "fd"):
        try:
            found[f"file {file}"] = os.readlink(own / "fd" / file)
        except FileNotFoundError:  # the one that the listing itself had open
            continue
    found["threads"] = sorted(f"{thread.name} {thread.ident}" for thread in threading.enumerate())
    tasks = sorted(os.listdir(own / "task"))
    found["tasks"] = tasks
    found["children"] = [child for task in tasks for child in _children(own / "task" / task / "children")]
    for number in sorted(signal.valid_signals()):
        found[f"signal {number}"] = str(signal.getsignal(number))
    for timer in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        left, again = signal.getitimer(getattr(signal, timer))
        found[timer] = (left > 0, again)
    return found


def _children(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _python() -> dict[str, Any]:
    found: dict[str, Any] = {name: list(getattr(sys, name)) for name in ("path", "meta_path", "path_hooks", "argv")}
    found = {name: [_who(one) for one in values] for name, values in found.items()}
    hooks = ("excepthook", "unraisablehook", "displayhook", "stdin", "stdout", "stderr", "breakpointhook")
    found |= {name: _who(getattr(sys, name)) for name in hooks}
    found["thread excepthook"] = _who(threading.excepthook)
    found |= {"trace": _who(sys.gettrace()), "profile": _who(sys.getprofile())}
    found |= {"recursion": sys.getrecursionlimit(), "switches": sys.getswitchinterval()}
    found |= {"collector": gc.isenabled(), "thresholds": gc.get_threshold(), "collector debug": gc.get_debug()}
    found |= {"collector calls": [_who(one) for one in gc.callbacks], "frozen": gc.get_freeze_count()}
    found |= {"at exit": atexit._ncallbacks(), "faults": faulthandler.is_enabled(), "traced": tracemalloc.is_tracing()}
    found |= {"locale": locale.setlocale(locale.LC_ALL), "decimal": str(decimal.getcontext())}
    found |= {
        "timeout": socket.getdefaulttimeout(),
        "numpy errors": np.geterr(),
        "numpy prints": str(np.get_printoptions()),
    }
    found |= {f"context {var.name}": _who(value) for var, value in contextvars.copy_context().items()}
    return found


def _warnings() -> dict[str, Any]:
    return {"filters": [str(one) for one in warnings.filters], "shown by": _who(warnings.showwarning)}


def _logging() -> dict[str, Any]:
    """Of each logger what somebody has set."""
    manager = logging.root.manager
    found: dict[str, Any] = {
        "disabled": manager.disable,
        "raises": logging.raiseExceptions,
        "last": _who(logging.lastResort),
    }
    for name, logger in [("root", logging.root), *sorted(manager.loggerDict.items())]:
        if isinstance(logger, logging.Logger):
            handlers = [f"{_who(one)} {one.level} {_who(one.formatter)}" for one in logger.handlers]
            state = (logger.level, handlers, logger.propagate, logger.disabled, [_who(one) for one in logger.filters])
            if state != (logging.NOTSET, [], True, False, []):
                found[name] = state
    return found


def _bars() -> dict[str, Any]:
    from tqdm.auto import tqdm

    found: dict[str, Any] = {"live": len(tqdm._instances), "interval": tqdm.monitor_interval}
    found |= _of_modules({"datasets.utils.tqdm": "progress_bars", "huggingface_hub.utils.tqdm": "progress_bar_states"})
    found |= _of_modules({"transformers.utils.logging": "_tqdm_active"})
    if "datasets" in sys.modules:
        import datasets

        found["datasets"] = (datasets.are_progress_bars_disabled(), datasets.is_caching_enabled())
    return found


def _of_modules(names: dict[str, str]) -> dict[str, Any]:
    return {
        module: str(getattr(sys.modules[module], name, None)) for module, name in names.items() if module in sys.modules
    }


def _torch() -> dict[str, Any]:
    backends = torch.backends
    found: dict[str, Any] = {
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        "filled": torch.utils.deterministic.fill_uninitialized_memory,
        "precision": torch.get_float32_matmul_precision(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "cudnn": [getattr(backends.cudnn, name) for name in _CUDNN],
        "tf32": backends.cuda.matmul.allow_tf32,
        "reduced": (
            backends.cuda.matmul.allow_fp16_reduced_precision_reduction,
            backends.cuda.matmul.allow_bf16_reduced_precision_reduction,
        ),
        "onednn": backends.mkldnn.enabled,
        "sharing": torch.multiprocessing.get_sharing_strategy(),
        "prints": str(torch._tensor_str.PRINT_OPTS),
        "function modes": [_who(one) for one in torch.overrides._get_current_function_mode_stack()],
        "dispatch modes": [_who(one) for one in torch.utils._python_dispatch._get_current_dispatch_mode_stack()],
        "saved by": str(torch._C._autograd._top_saved_tensors_default_hooks(True)),
        "seeds": _who(torch.manual_seed),
    }
    kinds = ("flash", "mem_efficient", "math", "cudnn")
    found["attention"] = [getattr(backends.cuda, f"{kind}_sdp_enabled")() for kind in kinds]
    for kind in ("cpu", "cuda"):
        found[f"autocast {kind}"] = (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    found["autocast caches"] = torch.is_autocast_cache_enabled()
    torch.autocast_increment_nesting()
    found["autocast depth"] = torch.autocast_decrement_nesting()
    for name, hooks in vars(_GLOBAL_HOOKS).items():
        if name.startswith("_global_") and isinstance(hooks, dict):
            found[name] = [(key, _who(one)) for key, one in hooks.items()]
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        found[name] = [(key, _who(one)) for key, one in vars(sys.modules["torch.optim.optimizer"])[name].items()]
    return found


def _compiler() -> dict[str, Any]:
    """Of torch.compile, where somebody has imported it; it need not be imported to be looked at."""
    if "torch._dynamo" not in sys.modules:
        return {"stance": "default"}
    import torch._dynamo as dynamo
    from torch._dynamo import eval_frame, utils

    stance = eval_frame._stance
    found: dict[str, Any] = {"stance": stance.stance + (f" {stance.backend}" if stance.backend else "")}
    found["settings"] = _hash(sorted((name, str(value)) for name, value in dynamo.config.get_config_copy().items()))
    for kind, counter in utils.counters.items():
        found |= {f"{kind} {name}": count for name, count in counter.items()}
    return found


def _devices() -> dict[str, Any]:
    if not torch.cuda.is_initialized():
        return {"started": False}
    places = range(torch.cuda.device_count())
    found: dict[str, Any] = {f"memory {i}": torch.cuda.memory_allocated(i) for i in places}
    return found | {"started": True, "current": torch.cuda.current_device(), "stream": str(torch.cuda.current_stream())}


def _distributed() -> dict[str, Any]:
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        return {"started": False}
    return {"started": True, "groups": dist.distributed_c10d._world.group_count}


def _who(value: Any) -> str:
    """An object by what it is and which."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return repr(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    return f"{name} {id(value):x}"


def _hash(value: Any) -> str:
    return hashlib.sha256(pickle.dumps(value)).hexdigest()[:12]
