"""Of a model's folder nothing is run but its weights: no pickle, no code beside it, no template that reaches out."""

import ast
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from audited import save
from peft import LoraConfig, get_peft_model
from places import ROOT
from tiny import tiny_model, tiny_tokenizer

from alignguard import Chat, ProbeError, RunError, StartError, audit
from alignguard.judging.scorers import judge_of, scorer_of
from alignguard.model.loading import load_model, load_tokenizer
from alignguard.model.restore import restore_weights

CPU = torch.device("cpu")


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.fixture
def there(tmp_path, tokenizer):
    """A model, and the folder that must not come to be."""
    save(tiny_model(tokenizer), tokenizer, tmp_path / "m")
    yield tmp_path / "m", tmp_path / "exploded"
    assert not (tmp_path / "exploded").exists()


def told_in(path, **change):
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_the_bomb_is_one(tmp_path):
    """What the others rest on."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))
    assert (tmp_path / "exploded").exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_weights_that_are_a_pickle_are_not_run(there, zipped):
    folder, exploded = there
    (folder / "model.safetensors").unlink()
    bomb = {"model.embed_tokens.weight": Bomb(exploded)}
    if zipped:
        torch.save(bomb, folder / "pytorch_model.bin")
    else:
        (folder / "pytorch_model.bin").write_bytes(pickle.dumps(bomb))
    with pytest.raises(StartError, match="cannot be loaded"):
        load_model(str(folder), "auto", CPU)
    with pytest.raises(ProbeError, match="cannot be loaded"):
        scorer_of(str(folder))
    with pytest.raises(RunError, match="its weights cannot be read"):
        restore_weights(tiny_model(tiny_tokenizer()), folder)


def test_an_adapter_that_is_a_pickle_is_not_run(there, tokenizer, tmp_path):
    folder, exploded = there
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    adapted = get_peft_model(tiny_model(tokenizer), lora)
    adapted.peft_config["default"].base_model_name_or_path = str(folder)
    adapted.save_pretrained(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    torch.save({"base_model.model.x": Bomb(exploded)}, tmp_path / "adapter" / "adapter_model.bin")
    with pytest.raises(StartError, match="cannot be loaded"):
        load_model(str(tmp_path / "adapter"), "auto", CPU)
    with pytest.raises(RunError, match="its adapters cannot be read"):
        restore_weights(adapted, tmp_path / "adapter")


@pytest.mark.parametrize("load", [load_tokenizer, lambda name: load_model(name, "auto", CPU), scorer_of, judge_of])
def test_code_beside_a_model_is_not_run(there, load):
    folder, exploded = there
    (folder / "mine.py").write_text(f"import os\nos.mkdir({str(exploded)!r})\nclass X: pass\n")
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoTokenizer")
    code = dict.fromkeys(kinds, "mine.X") | {"AutoTokenizer": ["mine.X", "mine.X"]}
    told_in(folder / "config.json", auto_map=code, model_type="mine", architectures=["X"])
    told_in(folder / "tokenizer_config.json", auto_map=code, tokenizer_class="X")
    with pytest.raises((StartError, ProbeError), match="cannot be loaded"):
        load(str(folder))


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('PLACE') }}",
        "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.mkdir('PLACE') }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_that_reaches_out_is_told_of(there, template):
    _, exploded = there
    tokenizer = tiny_tokenizer(template.replace("PLACE", str(exploded)))
    probe = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}
    model = tiny_model(tokenizer)
    with pytest.raises(ProbeError, match="probe 'a': the chat template refuses turns"):
        audit(model, tokenizer, [probe], reference=tiny_model(tokenizer, seed=1))
    assert Chat(tokenizer).tags == ("<think>", "</think>")


# ---------------------------------------------------------------------------------------------------------------------

# what would run what others wrote
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "marshal", "shelve", "subprocess", "dill", "yaml"}


@pytest.mark.parametrize("path", sorted((ROOT / "alignguard").rglob("*.py")), ids=lambda path: path.stem)
def test_no_room_can_run_what_others_wrote(path):
    source = Path(path).read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & MODULES
        if isinstance(node, ast.ImportFrom):
            assert str(node.module).partition(".")[0] not in MODULES
        if not isinstance(node, ast.Call):
            continue
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN
        if isinstance(node.func, ast.Attribute) and node.func.attr == "load":  # of safetensors alone
            assert getattr(node.func.value, "id", "") not in ("torch", "np", "numpy", "joblib")
        assert getattr(options.get("trust_remote_code"), "value", False) is False
        owner = getattr(getattr(node.func, "value", None), "id", "")
        if getattr(node.func, "attr", "") == "from_pretrained" and owner.startswith(("Auto", "kind")):
            assert "trust_remote_code" in options, f"{path}:{node.lineno}"  # else people are asked, and a run waits
