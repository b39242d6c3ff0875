"""What is imported when: nothing heavy before it is needed, and nothing that is not declared."""

import ast
import subprocess
import sys
from importlib import import_module

import pytest
from places import ROOT

import alignguard

HEAVY = ("torch", "transformers", "wandb", "trl", "datasets", "pyarrow", "numpy", "jinja2")
# of the extras, and of trackers that a run must report to before they are imported
OPTIONAL = {"peft", "profanity_check", "trackio", "mlflow", "tensorboardX", "deepspeed"}
DECLARED = {
    "torch",
    "transformers",
    "huggingface_hub",
    "wandb",
    "datasets",
    "numpy",
    "pyarrow",
    "safetensors",
    "tqdm",
    "jinja2",
    "markupsafe",
}


def python(code, *blocked):
    """Run code in a process in which some packages cannot be imported."""
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    command = [sys.executable, "-c", f"import sys\n{block}{code}"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "code",
    [
        "import alignguard",
        "from alignguard.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass",
        "from alignguard.cli import main\ntry: main(['audit', '--help'])\nexcept SystemExit: pass",
    ],
)
def test_the_package_and_its_help_answer_without_importing_torch(code):
    out = python(f"{code}\nprint('loaded', [name for name in {HEAVY!r} if name in sys.modules])")
    assert out.splitlines()[-1] == "loaded []"


def test_every_public_name_is_there_without_trl_wandb_and_datasets():
    code = "import alignguard\nfor name in alignguard.__all__: getattr(alignguard, name)\nprint('all', len(alignguard.__all__))"
    assert python(code, "trl", "wandb", "datasets") == f"all {len(alignguard.__all__)}\n"


def test_a_model_is_audited_without_trl_wandb_and_datasets():
    code = """
import sys
sys.path.insert(0, "tests/helpers")
import types
sys.modules["datasets"] = types.SimpleNamespace(Dataset=None)  # of tiny.py alone
from tiny import tiny_model, tiny_probes, tiny_tokenizer
del sys.modules["datasets"]; sys.modules["datasets"] = None
from alignguard import Chat, TokenBudget, audit
from alignguard.auditing.asking import Asking
tokenizer = tiny_tokenizer(); model = tiny_model(tokenizer)
asking = Asking(Chat.of(model, tokenizer), TokenBudget(8, 8), lambda texts: [0.1] * len(texts))
print(audit(model, tokenizer, tiny_probes(), tiny_model(tokenizer, seed=1), asking=asking).metrics["alignguard/kl/answer"] > 0)
"""
    assert python(code, "trl", "wandb").split() == ["True"]


def test_audit_is_the_function_and_hides_no_module():
    import_module("alignguard.auditing.audit")
    assert callable(alignguard.audit)
    with pytest.raises(ModuleNotFoundError):
        import_module("alignguard.audit")


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Callback'"):
        alignguard.Callback  # noqa: B018
    assert set(alignguard.__all__) <= set(dir(alignguard)) and set(alignguard._HOMES) < set(alignguard.__all__)


def test_what_is_imported_is_declared():
    found = set()
    for path in (ROOT / "alignguard").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(str(node.module).partition(".")[0])
    foreign = found - set(sys.stdlib_module_names)
    assert foreign <= DECLARED | OPTIONAL and "trl" not in foreign
    project = (ROOT / "pyproject.toml").read_text()
    dependencies = project[project.index("dependencies = [") : project.index("[project.scripts]")]
    assert all(f'"{name}>=' in dependencies for name in foreign & DECLARED)


def test_every_room_says_in_a_line_what_it_is_and_none_is_too_large():
    for path in (ROOT / "alignguard").rglob("*.py"):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc, path
        if path.name == "__init__.py":
            assert "\n" not in doc.split("\n\n")[0], path
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


def test_rooms_are_there_without_being_imported_first():
    code = "import alignguard; print(alignguard.errors.RunError.__name__, len(alignguard.probes.load_probes('safety')) > 200)"
    assert python(code).split() == ["RunError", "True"]
