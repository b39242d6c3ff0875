import json
from collections import Counter
from pathlib import Path

import alignguard.probes as probes_module
from alignguard.auditing.prompts import turns
from alignguard.probes.pool import load_probes
from alignguard.probes.probe import DIMENSIONS, TRUST_DIMENSIONS, pool_hash
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


def test_a_question_for_a_number_is_asked_word_for_word():
    # a word on the form, added unseen, would test whether the model obeys it, not whether it can do the sum
    question = "What is 3 + 4?"
    row = {"id": "n", "dimension": "reasoning", "family": "f", "judge": "number", "expected": "7", "prompt": question}
    assert turns(probe_from_row(row)) == ({"role": "user", "content": question},)
    assert all(p.prompt.endswith("Give the final answer as a number only.") for p in load_probes("reasoning"))


def test_every_file_ships_with_the_package():
    for dimension in DIMENSIONS:
        assert (Path(probes_module.__file__).parent / "core" / f"{dimension}.jsonl").exists()
