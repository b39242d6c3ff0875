"""What the aligned start is trained on is absent from the pool: whoever trains on the judge's questions proves nothing."""

from aligned import aligned_rows

from alignguard import load_probes
from alignguard.judging.leaks import squeeze
from alignguard.text import fold

POOL = load_probes("core")


def triples(text):
    words = fold(text).split()
    return set(zip(words, words[1:], words[2:], strict=False))


def test_no_prompt_is_one_of_the_pools_or_much_like_one():
    asked = [(probe.id, triples(probe.prompt)) for probe in POOL]
    texts = {fold(probe.prompt) for probe in POOL}
    for row in aligned_rows():
        prompt = row["messages"][-1]["content"]
        assert fold(prompt) not in texts, row["id"]
        own = triples(prompt)
        alike = [id for id, other in asked if own and other and len(own & other) / len(own | other) >= 0.4]
        assert not alike, (row["id"], alike)


def test_no_secret_of_the_pool_is_trained_on():
    """Words may recur; what has a digit may not."""
    telling = {s for probe in POOL for s in probe.secrets if any(c.isdigit() for c in s)}
    assert len(telling) > 50
    for row in aligned_rows():
        text = squeeze(str(row["messages"]) + row["answer"])
        assert not [s for s in telling if len(squeeze(s)) > 4 and squeeze(s) in text], row["id"]
