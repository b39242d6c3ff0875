"""The callback in every trainer of TRL and in transformers' own: attached in both ways, it changes nothing."""

import json
import math
import re
from functools import partial
from importlib import import_module
from types import SimpleNamespace

import pytest
import trl
from packaging.version import Version
from places import ROOT
from tiny import tiny_model, tiny_tokenizer
from trainers import CASES, OTHERS, SETTINGS, audits, draw_all, drifts, guard, rows, same, save_start, trained
from transformers import LlamaForSequenceClassification, set_seed
from trl import RewardConfig, RewardTrainer

import alignguard.trainer.callback
from alignguard import DriftBudget, StartError

pytestmark = pytest.mark.slow

TRAINERS = ROOT / "docs" / "trainers.md"
HEADER = ["trainer", "`callbacks=[...]`", "`add_callback`", "losses and weights", "note"]


def line(*cells):
    return f"| {' | '.join(cells)} |"


def measured_line(case, in_list, added):
    """A trainer's line in the README, from whether the run was the same with the callback in the list, and added."""
    equal = "as without it, to the bit" if in_list and added else "**changed**"
    return line(f"`{case.full_name}`", *("works" if ok else "**no**" for ok in (in_list, added)), equal, case.note)


def table():
    lines = [line(*HEADER), "|---" * len(HEADER) + "|"]
    lines += [measured_line(case, True, True) for case in CASES]
    return "\n".join([*lines, *(line(f"`{name}`", "", "", "", note) for name, note in OTHERS.items())])


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return save_start(tiny_tokenizer(), tmp_path_factory.mktemp("start"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_watching_changes_nothing(case, tokenizer, start, tmp_path):
    older = Version(trl.__version__) < Version("1.16")
    if older and ("experimental" in case.module or not hasattr(import_module(case.module), case.name)):
        pytest.skip("the table is of TRL 1.16: older ones lack some, and what is experimental was another then")
    runs = {
        how: trained(partial(case.build, tokenizer, start, tmp_path / how), how) for how in ("alone", "list", "add")
    }
    assert len({log.get("grad_norm") for log in runs["alone"][0]}) > 3  # it trained, and no step was like another
    for how in ("list", "add"):
        found = audits(tmp_path / how)
        assert [audit["step"] for audit in found] == [0, 1, 3]
        assert drifts(found[0]).keys() == {"raw", "answer", "train_prompts", "reverse"}
        assert all(abs(value) < 1e-5 for value in drifts(found[0]).values())
        assert all(math.isfinite(value) for audit in found for value in drifts(audit).values())
        assert drifts(found[-1])["raw"] > 1e-3
    ours = measured_line(case, *(same(runs["alone"], runs[how]) for how in ("list", "add")))
    print(ours)
    assert ours in table().splitlines()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", [c for c in CASES if "experimental" not in c.module], ids=lambda case: case.id)
def test_a_drift_budget_holds_under_any_trainer(case, tokenizer, start, tmp_path):
    if not hasattr(import_module(case.module), case.name):
        pytest.skip("this TRL lacks it")
    anchors = ["How do I open a door?", "Tell me of the fox.", "What is slow?", "Who jumps over?"]
    drift = {}
    for coefficient in (0.0, 50.0):
        ours = guard(budget=DriftBudget(anchors=anchors, answer_tokens=6, coefficient=coefficient))
        folder = tmp_path / str(coefficient)
        trained(partial(case.build, tokenizer, start, folder, max_steps=8, lr_scheduler_type="constant"), ours)
        held = [json.loads(step) for step in (folder / "alignguard" / "budget.jsonl").read_text().splitlines()]
        assert len(held) == 8 and held[0]["kl"] < 1e-5
        drift[coefficient] = held[-1]["kl"]
    assert drift[50.0] < 0.7 * drift[0.0] and drift[0.0] > 1e-3, drift


def test_the_readme_shows_this_table():
    print(table())
    shown = re.search(r"<!-- trainers -->\n(.*?)\n<!-- /trainers -->", TRAINERS.read_text(), re.DOTALL)
    assert shown is not None and shown[1] == table()


def test_attaching_draws_from_no_generator(tokenizer, monkeypatch):
    """With add_callback the trainer has seeded them already; libraries that are imported may draw."""
    model = tiny_model(tokenizer)
    monkeypatch.setattr(alignguard.trainer.callback, "freeze_start", lambda *given: draw_all())
    set_seed(1)
    expected = draw_all()
    set_seed(1)
    guard(SimpleNamespace(model=model, args=None))
    guard().on_init_end(None, None, None, model=model)
    assert draw_all() == expected


@pytest.mark.parametrize("attach", ["list", "add"])
def test_a_reward_model_is_an_error_at_once(attach, tokenizer, start, tmp_path):
    model = LlamaForSequenceClassification.from_pretrained(start, num_labels=1)

    def build(callbacks):
        return RewardTrainer(
            model,
            RewardConfig(str(tmp_path), **SETTINGS),
            train_dataset=rows("chosen rejected", tokenizer),
            processing_class=tokenizer,
            callbacks=callbacks,
        )

    with pytest.raises(StartError, match="LlamaForSequenceClassification generates no text"):
        trained(build, attach)
