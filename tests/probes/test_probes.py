import json
from collections import Counter
from pathlib import Path

import pytest

import alignguard.probes as probes_module
from alignguard.auditing.prompts import turns
from alignguard.probes.pool import load_probes
from alignguard.probes.probe import DIMENSIONS, TRUST_DIMENSIONS, pool_hash
from alignguard.probes.public.load import load_public
from alignguard.probes.rows import probe_from_row

GOOD = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}


def test_the_pool_is_large_and_varied():
    pool = load_probes("core")
    counts = Counter(p.dimension for p in pool)
    assert all(counts[d] >= 200 for d in TRUST_DIMENSIONS) and counts["reasoning"] >= 100
    assert max(Counter((p.dimension, p.family) for p in pool).values()) <= 8
    assert len({json.dumps(p.messages) for p in pool}) == len(pool)


def test_the_pool_is_balanced():
    pool = load_probes("core")
    safety = Counter(p.expect for p in pool if p.dimension == "safety")
    assert safety["refuse"] == safety["comply"]
    ethics = Counter(p.target for p in pool if p.dimension == "ethics")
    assert ethics[0] == ethics[1]
    stereotype = [p for p in pool if p.dimension == "stereotype"]
    assert len({p.group for p in stereotype}) >= 9
    conditions = Counter(p.condition for p in stereotype)
    assert conditions["ambiguous"] == conditions["disambiguated"] > 0
    assert {p.judge for p in pool if p.dimension == "privacy"} == {"leak", "tell"}


def test_secrets_stand_in_what_is_asked_and_facts_are_told_by_themselves():
    from alignguard.judging.facts import tells
    from alignguard.judging.leaks import squeeze

    for p in load_probes("privacy"):
        asked = " ".join(turn["content"] for turn in p.messages)
        for secret in p.secrets:
            assert len(squeeze(secret)) >= 3 and squeeze(secret) in squeeze(asked), p.id
        for fact in p.facts:
            assert tells(fact, f"It is {fact}."), p.id


def test_sources_are_names_files_and_probes(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n", encoding="utf-8")
    assert [p.id for p in load_probes(path)] == [p.id for p in load_probes(str(path))] == ["a"]
    pool = load_probes(["privacy", probe_from_row(GOOD), *load_probes("ethics")[:2]])
    assert len(pool) == len(load_probes("privacy")) + 3
    assert load_probes(["privacy", [GOOD, load_probes("ethics")[:2]]]) == pool
    assert pool_hash(pool) != pool_hash(pool[1:])


def rows_of(*changes):
    return [
        {**GOOD, "id": f"{name}-{i}", "family": f"{name}-{i}", "prompt": f"q{i}", **change}
        for name, change in changes
        for i in range(8)
    ]


def test_a_question_that_is_asked_again_under_another_name_is_told_of_once(tmp_path, caplog):
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(("a", {}), ("b", {"group": "g"}), ("c", {}))))
    pool = load_probes(["safety", path])
    (told,) = caplog.messages
    assert told.startswith(
        "AlignGuard: 16 probes ask again, word for word, what another asks (b-0 as a-0, b-1 as a-1, "
    )
    assert "c-7" not in told and told.endswith(
        "give them one family, or leave them out: each counts as independent evidence"
    )
    assert (
        load_probes(["safety", str(path)]) == pool and len(caplog.messages) == 1
    )  # the callback loads what was loaded before
    load_probes(
        [
            {**GOOD, "id": "x", "prompt": load_probes("safety")[0].prompt, "expect": load_probes("safety")[0].expect},
            "safety",
        ]
    )
    assert len(caplog.messages) == 2 and " 1 probe asks again, word for word, what another asks (" in caplog.messages[1]


@pytest.mark.parametrize(
    "change",
    [
        {"system": "Be kind."},
        {"expect": "comply"},
        {"dimension": "ethics"},
        {"prompt": "q"},
        {"family": "one"},
        {"judge": "leak", "expect": None, "secrets": ["Jane"]},
        {"judge": "choice", "expect": None, "options": ["yes", "no"], "target": 0},
    ],
)
def test_what_differs_in_anything_asked_or_shares_a_family_is_no_repeat(change, caplog):
    first = {"family": "one"} if "family" in change else {}
    rows = (
        rows_of(("a", first), ("b", change))
        if "prompt" not in change
        else rows_of(("a", {}))[:1] + rows_of(("b", change))[:1]
    )
    load_probes([rows])
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [
        ("secrets", ["Jane"], ["Joan"]),
        ("facts", ["noon"], ["one"]),
        ("options", ["a", "b"], ["a", "c"]),
        ("target", 0, 1),
    ],
)
def test_one_prompt_with_other_choices_or_secrets_is_no_repeat(key, one, other, caplog):
    judge = {"secrets": "leak", "facts": "tell"}.get(key, "choice")
    more = {"options": ["a", "b"], "target": 0} if judge == "choice" else {}
    rows = [
        {**GOOD, "id": name, "family": name, "judge": judge, "expect": None, **more, key: value}
        for name, value in (("a", one), ("b", other))
    ]
    load_probes([rows])
    assert caplog.messages == []
    load_probes([[rows[0], {**rows[0], "id": f"again {key}", "family": "c"}]])
    assert len(caplog.messages) == 1


def test_the_built_in_probes_and_a_benchmark_s_are_not_told_of(tmp_path, caplog):
    path = tmp_path / "x.csv"
    path.write_text("prompt,label\nhello,safe\nhello,safe\n")
    load_probes(["core", load_public("xstest", path)])
    assert caplog.messages == []


def test_a_question_for_a_number_is_asked_word_for_word():
    # a word on the form, added unseen, would test whether the model obeys it, not whether it can do the sum
    question = "What is 3 + 4?"
    row = {"id": "n", "dimension": "reasoning", "family": "f", "judge": "number", "expected": "7", "prompt": question}
    assert turns(probe_from_row(row)) == ({"role": "user", "content": question},)
    assert all(p.prompt.endswith("Give the final answer as a number only.") for p in load_probes("reasoning"))


def test_every_file_ships_with_the_package():
    for dimension in DIMENSIONS:
        assert (Path(probes_module.__file__).parent / "core" / f"{dimension}.jsonl").exists()
