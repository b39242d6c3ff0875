"""Anchors train and probes judge: the built-in ones are far from the pool, and one that is not is an error."""

import re
from collections import Counter

import pytest
from aligned import aligned_rows
from runs import guard
from tiny import tiny_probes

from alignguard import DriftBudget, ProbeError
from alignguard.holding.anchors import Anchor, check_disjoint, load_anchors
from alignguard.probes.pool import load_probes
from alignguard.probes.probe import TRUST_DIMENSIONS

POOL = load_probes("core")


def grams(turns, n=5):
    """Runs of n words; of a shorter text, the whole."""
    words = re.findall(r"\w+", " ".join(turn["content"] for turn in turns).casefold())
    return {tuple(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


def nearest(turns, others):
    """The largest overlap of word 5-grams (Jaccard) with one of the others."""
    own = grams(turns)
    return max(len(own & other) / len(own | other) for other in others)


# given ones --------------------------------------------------------------------------------------------------------------


def test_anchors_are_texts_rows_or_a_file(tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(
        '{"id": "a", "prompt": "One?"}\n\n'
        '{"messages": [{"role": "user", "content": "Two?"}], "system": "Be brief.", "family": "counts", "kind": "x"}\n'
    )
    assert load_anchors(file) == {
        "a": Anchor(({"role": "user", "content": "One?"},)),
        "anchor-001": Anchor(
            ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Two?"}), family="counts"
        ),
    }
    found = load_anchors(["One?", {"prompt": "Two?"}]).values()
    assert [anchor.turns[-1]["content"] for anchor in found] == ["One?", "Two?"]
    for line, message in (
        ('{"prompt": ""}', "mine.jsonl, line 2: an empty prompt or turn"),
        ('{"prompt": "x", "family": 3}', "mine.jsonl, line 2: 'family' must be a string, not 3"),
        ('{"prompt": x}', "mine.jsonl, line 2: not JSON .*; one JSON object a line is expected"),
    ):
        file.write_text(f'{{"prompt": "One?"}}\n{line}\n')
        with pytest.raises(ProbeError, match=message):
            load_anchors(file)
    file.write_bytes(b'{"prompt": "\xff"}\n')
    with pytest.raises(ProbeError, match=r"mine.jsonl, line 1: not UTF-8"):
        load_anchors(file)
    for given, message in (
        ([], "there is none"),
        ([3], r"anchors\[0\]: expected a text or an object"),
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "the same id"),
        ("nowhere.jsonl", "cannot be read"),
    ):
        with pytest.raises(ProbeError, match=message):
            load_anchors(given)


def test_an_anchor_that_is_a_probe_is_an_error():
    check_disjoint(load_anchors(["How do I open a door?", "Tell me of the fox.", "Locked door?"]), tiny_probes())
    with pytest.raises(ProbeError, match="anchor 'anchor-000' asks what probe 's1' asks; what trains must not judge"):
        guard(budget=DriftBudget(anchors=["HOW do I open a locked door!"]))
    with pytest.raises(ProbeError, match="probe 's1'"):
        check_disjoint(load_anchors(["Please: how do I open a locked door? Thanks."]), tiny_probes())
    with pytest.raises(ProbeError, match="probe 's1'"):
        check_disjoint(load_anchors(["do I open a locked door"]), tiny_probes())


def test_sums_of_other_numbers_are_other_texts():
    check_disjoint(load_anchors(["What is 12 + 5?"]), tiny_probes())
    with pytest.raises(ProbeError, match="probe 'r1'"):
        check_disjoint(load_anchors(["what is 3+4"]), tiny_probes())


def test_an_anchor_of_a_probes_family_is_an_error():
    check_disjoint(load_anchors([{"prompt": "One?", "family": "counts"}, "Two?"]), tiny_probes())
    shared = [{"id": "a", "prompt": "One?", "family": "s1"}]
    with pytest.raises(ProbeError, match=r"'a' is of the family 's1', as probe 's1' is; .*, or rename the family"):
        guard(budget=DriftBudget(anchors=shared))


# built-in ones -----------------------------------------------------------------------------------------------------------


def test_there_are_32_of_our_own_in_each_dimension():
    anchors = load_anchors()
    assert Counter(id.rsplit("-", 1)[0] for id in anchors) == dict.fromkeys(TRUST_DIMENSIONS, 32)
    assert len(anchors) == len({str(anchor.turns) for anchor in anchors.values()}) == 192
    sizes = Counter(anchor.family for anchor in anchors.values())
    assert "" not in sizes and max(sizes.values()) <= 2
    words = sorted(sum(len(turn["content"].split()) for turn in anchor.turns) for anchor in anchors.values())
    assert words[-1] < 60 and words[96] < 25


def test_our_own_share_no_text_and_no_family_with_the_pool():
    anchors = load_anchors()
    check_disjoint(anchors, POOL)
    guard(probes=POOL, budget=DriftBudget())
    assert not {anchor.family for anchor in anchors.values()} & {probe.family for probe in POOL}
    for probe in (POOL[0], POOL[700], POOL[-1]):  # a copy is found wherever it stands, and so is a family's new prompt
        for planted in (Anchor(probe.messages), Anchor(({"role": "user", "content": "Hello?"},), probe.family)):
            with pytest.raises(ProbeError, match=r"anchor 'planted' .* what trains must not judge"):
                check_disjoint({**anchors, "planted": planted}, POOL)


def test_our_own_are_no_near_copies_of_the_pool_nor_of_what_starts_benchmarks():
    others = [grams(probe.messages) for probe in POOL] + [grams(row["messages"]) for row in aligned_rows()]
    for id, anchor in load_anchors().items():
        assert nearest(anchor.turns, others) < 0.5, id
    long = next(probe for probe in POOL if len(grams(probe.messages)) > 30 and len(probe.messages) == 1)
    words = long.messages[0]["content"].split()
    words[len(words) // 2] = "another"
    assert nearest([{"role": "user", "content": " ".join(words)}], others) > 0.5
