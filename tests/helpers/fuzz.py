"""Any text, row or file that hypothesis can think of, and those that once did harm, which are kept in data/fuzz.json."""

import json

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from places import DATA

KEPT = json.loads((DATA / "fuzz.json").read_text())
# the same examples at each run: a test that fails now and then teaches people to look away
quickly = settings(
    max_examples=150, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)

_WORDS = ["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "7", "-", ".", ",", "4711", "\n", " ", "no"]
any_text = st.one_of(
    st.text(st.characters(), max_size=80),
    st.lists(st.sampled_from(_WORDS), max_size=12).map("".join),
    st.sampled_from(KEPT["texts"]),
)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
plain_text = st.text(st.characters(categories=("L", "N", "Zs")), min_size=1, max_size=30).filter(str.strip)
