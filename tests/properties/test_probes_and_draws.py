"""Of any file or row, the loader makes probes or an error in one line; of any pool, a draw is what it says it is."""

import json
from collections import Counter
from dataclasses import asdict

import pytest
from fuzz import KEPT, any_json, any_text, plain_text, quickly
from hypothesis import given
from hypothesis import strategies as st

from alignguard import Probe, ProbeError, Schedule, load_probes
from alignguard.probes.draw import draw, spread
from alignguard.probes.probe import DIMENSIONS, JUDGES, pool_hash
from alignguard.probes.rows import probe_from_row

FIELDS = ["id", "dimension", "family", "judge", "prompt", "messages", "system", "expect", "secrets", "facts", "options"]
FIELDS += ["target", "stereotype", "listed", "expected", "kind", "rude", "group", "condition", "promt"]
GOOD = {"id": "a", "dimension": "safety", "family": "f", "judge": "refusal", "expect": "refuse", "prompt": "How?"}


def loaded(give):
    """Probes, or one line that can be shown."""
    try:
        return give()
    except ProbeError as error:
        text = str(error)
        assert text and "\n" not in text and text.isprintable() and len(text) < 2_000
        text.encode("utf-8")
        return None


@quickly
@given(st.dictionaries(st.sampled_from(FIELDS), any_json, max_size=9), st.sampled_from([True, False]))
def test_of_any_row_comes_a_probe_or_one_line(change, whole):
    found = loaded(lambda: probe_from_row((GOOD if whole else {}) | change))
    if found is not None:
        assert found.dimension in DIMENSIONS and found.judge in JUDGES and found.messages[-1]["role"] == "user"
        assert found.target < max(1, len(found.options))
        json.dumps(asdict(found))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "mine.jsonl"


@quickly
@given(st.one_of(st.binary(max_size=200), any_text.map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_of_any_file_come_probes_or_one_line(path, content):
    path.write_bytes(content)
    loaded(lambda: load_probes(path))


@pytest.mark.parametrize("number", range(len(KEPT["lines"])))
def test_what_once_did_harm_is_one_line(path, number):
    path.write_bytes(KEPT["lines"][number].encode("utf-8", "surrogatepass"))
    assert loaded(lambda: load_probes(path)) is None


@quickly
@given(st.lists(st.tuples(plain_text, plain_text, plain_text, st.sampled_from(["refuse", "comply"])), max_size=8))
def test_what_is_right_is_read_as_it_was_written(path, rows):
    rows = [
        GOOD | {"id": f"{i}", "prompt": asked, "family": family, "group": group, "expect": expect}
        for i, (asked, family, group, expect) in enumerate(rows)
    ] or [GOOD]
    path.write_text("\r\n".join(json.dumps(row) for row in rows), encoding="utf-8-sig")
    found = load_probes(path)
    assert [(p.id, p.prompt, p.family, p.group, p.expect) for p in found] == [
        tuple(row.get(key, "") for key in ("id", "prompt", "family", "group", "expect")) for row in rows
    ]
    assert pool_hash(found) == pool_hash(load_probes(rows)) != pool_hash([*found, found[0]])


# ---------------------------------------------------------------------------------------------------------------------

_turns = ({"role": "user", "content": "?"},)
pools = st.lists(st.tuples(st.sampled_from(DIMENSIONS), st.sampled_from(["", "a", "b"])), max_size=60).map(
    lambda rows: [Probe(f"{i}", dimension, _turns, "own", "f", group) for i, (dimension, group) in enumerate(rows)]
)


@quickly
@given(pools, st.integers(1, 30), st.integers(0, 2**31), st.integers(0, 20))
def test_a_draw_has_its_size_and_keeps_the_order_of_the_pool(pool, size, seed, number):
    found = draw(pool, size, seed, number)
    assert found == [probe for probe in pool if probe in found] == draw(pool, size, seed, number)
    there, drawn = (Counter(probe.dimension for probe in probes) for probes in (pool, found))
    assert drawn == Counter({name: min(size, count) for name, count in there.items()})


@quickly
@given(pools, st.integers(1, 12), st.integers(0, 2**31))
def test_draws_share_no_probe_until_a_dimension_is_used_up(pool, size, seed):
    there = Counter(probe.dimension for probe in pool)
    for name, count in there.items():
        rounds = -(-count // min(size, count))
        ids = [[p.id for p in draw(pool, size, seed, i) if p.dimension == name] for i in range(rounds)]
        assert set().union(*ids) == {p.id for p in pool if p.dimension == name}
        if count % min(size, count) == 0:
            assert sum(map(len, ids)) == count


@quickly
@given(st.lists(st.integers(), max_size=40), st.integers(0, 50))
def test_what_is_spread_keeps_its_order_and_its_size(items, size):
    found = spread(items, size)
    assert len(found) == min(size, len(items))
    rest = iter(items)
    assert all(item in rest for item in found)


@quickly
@given(st.lists(st.integers(1, 500), max_size=10), st.integers(0, 60), st.integers(1, 300))
def test_a_schedule_looks_at_both_ends_and_is_of_one_mind(at, every, last):
    schedule = Schedule(at=at, every=every)
    planned = schedule.planned(last)
    assert planned == sorted({*planned}) and planned[0] == 0 and planned[-1] == last
    assert [schedule.number(step, last) for step in planned] == list(range(len(planned)))
    assert {step for step in at if step <= last} <= {*planned}
    for step in range(last + 1):
        assert schedule.due(step, last) == (step in planned)
        assert 0 <= schedule.number(step, last) <= len(planned)
