"""Everything wrong that is given is told in one line: what was found, and what would be right; the cases are data, in benchmarks/."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reliability_arguments import CASES as ARGUMENTS
from reliability_bad_inputs import CASES
from reliability_case import Case, Ground, told
from reliability_files import CASES as FILES
from reliability_files import EXPLODED
from runs import guard, sft

from alignguard import Schedule, errors


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    return Ground(tmp_path_factory.mktemp("wrong"))


@pytest.mark.parametrize("case", ARGUMENTS, ids=lambda case: case.how)
def test_a_wrong_argument_is_told_in_one_line(case, ground):
    assert told(case, ground).wrong == ""


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.how)
def test_a_wrong_file_or_option_is_told_in_one_line(case, ground, caplog):
    assert told(case, ground).wrong == ""


def test_nothing_that_is_wrong_is_run():
    """A pickle among the cases would make this folder."""
    assert not Path(EXPLODED).exists()


def test_there_are_many_cases_of_every_kind():
    kinds = {"arguments", "probe files", "models", "references", "records", "options", "recipes"}
    assert {case.kind for case in CASES} == kinds
    assert len(CASES) >= 250 and len({case.how for case in CASES}) == len(CASES)


def test_a_case_is_clear_only_with_one_line_that_says_both(ground):
    def fails(error):
        def give(ground):
            raise error

        return told(Case("", give, "seven", "three"), ground).wrong

    assert fails(errors.RunError("seven, not three")) == ""
    assert fails(errors.RunError("seven")) == "it does not say 'three': seven"
    assert fails(ZeroDivisionError("seven three")) == "a traceback: ZeroDivisionError: seven three"
    assert told(Case("", lambda ground: 0, "", ""), ground).wrong == "it was accepted"
    assert str(errors.AlignGuardError("a\nb\x1b[2J\u202e")) == "a b\\x1b[2J\\u202e"


def test_what_is_only_odd_is_taken():
    """Steps in any order, twice, and beyond the last; a draw larger than the pool; numbers of numpy's and torch's kinds."""
    odd = Schedule(at=(10, 5, 5, 900), every=0, draw=np.int64(10_000))
    assert odd.planned(20) == [0, 5, 10, 20]
    assert Schedule(at=np.array([5, 10]), every=0).planned(20) == [0, 5, 10, 20]
    assert Schedule(at=torch.tensor([5]).tolist(), overhead=np.float32(0.5)).overhead == 0.5


def test_steps_beyond_the_last_are_said_before_step_1(ground, tmp_path, capsys):
    sft(ground.tokenizer, tmp_path, [guard(schedule=Schedule(at=(2, 900, 40), every=0, draw=2))], max_steps=2).train()
    assert "Schedule(at=) names 40, 900, beyond the last step, 2: no audit is there" in capsys.readouterr().out
    assert Schedule().beyond(3) == []  # nobody named these
