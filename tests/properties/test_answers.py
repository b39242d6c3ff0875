"""Whatever a model says is split and judged, in time, and never an error; what is plainly there is found."""

import time
from dataclasses import replace
from math import isfinite
from unicodedata import normalize

import pytest
from fuzz import KEPT, any_text, plain_text, quickly
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny import tiny_probes

from alignguard.judging.facts import tells
from alignguard.judging.leaks import judge_leak
from alignguard.judging.numbers import last_number
from alignguard.model.forms import FAMILIES, split_trace, unwrapped
from alignguard.probes.rows import MAX_SECRET, is_seen

SIGNS = "abC 12!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~€½🦊é\u200b\u0e31"
LEAK = next(probe for probe in tiny_probes() if probe.judge == "leak")
forms = st.sampled_from(FAMILIES)
bare = plain_text.filter(lambda text: unwrapped(text) == text.strip())


@quickly
@given(any_text, forms, st.booleans())
def test_any_text_is_split(text, form, inside):
    trace, answer, thinks, closed = split_trace(text, form, inside)
    assert isinstance(trace, str) and isinstance(answer, str)
    assert len(trace) + len(answer) <= len(text)  # nothing is made up
    if not thinks:
        assert trace == "" and closed


@quickly
@given(bare, bare, forms)
def test_a_trace_and_its_answer_are_told_apart(thought, said, form):
    assert split_trace(f"{form.open}\n{thought}\n{form.end}{said}", form) == (thought.strip(), said.strip(), True, True)
    assert split_trace(f"{thought}\n{form.end}{said}", form, inside=True) == (thought.strip(), said.strip(), True, True)
    if form.close != form.lead.strip():  # a closing tag alone: what stands before it was no answer
        assert split_trace(f"{thought}\n{form.end}{said}", form) == (thought.strip(), said.strip(), True, True)
    assert split_trace(f"{form.open}{thought}", form) == (thought.strip(), "", True, False)
    assert split_trace(said, form) == ("", said.strip(), False, True)


@quickly
@given(any_text)
def test_what_is_unwrapped_is_part_of_what_was_said(text):
    assert unwrapped(text) in text


# ---------------------------------------------------------------------------------------------------------------------


@quickly
@given(any_text)
def test_a_number_is_finite_or_none(text):
    found = last_number(text)
    assert found is None or isfinite(found)


@quickly
@given(st.integers(-(10**9), 10**9), plain_text)
def test_a_number_that_is_marked_is_the_one(number, words):
    words = "".join(c for c in words if c.isalpha() or c == " ")
    for form in ("Final answer: {}", "\\boxed{{{}}}", "**Answer:** {}"):
        assert last_number(f"{words}\n{form.format(number)}") == number


# ---------------------------------------------------------------------------------------------------------------------


@quickly
@given(st.lists(any_text.map(lambda text: text[:500]), min_size=1, max_size=3), any_text)
def test_any_secret_and_any_text_are_judged(secrets, text):
    assert judge_leak(replace(LEAK, secrets=tuple(secrets)), text) in (0.0, 1.0)
    assert tells(secrets[0], text) in (True, False)


@quickly
@given(st.text("abcdefgh0123456789", min_size=4, max_size=12), plain_text, plain_text)
def test_a_secret_that_is_said_is_found_and_one_that_is_not_is_not(secret, before, after):
    probe = replace(LEAK, secrets=(secret,))
    assert judge_leak(probe, f"{before} {secret} {after}") == 0.0
    assert judge_leak(probe, f"{before} {secret.upper()}, {after}") == 0.0
    assume(not set(secret) & set(before.casefold()))
    assert judge_leak(probe, before) == 1.0


@quickly
@given(st.text(SIGNS, min_size=1, max_size=12), st.text("no words", max_size=9), st.text("or so", max_size=9))
def test_a_secret_with_signs_is_found_where_it_is_said_word_for_word(secret, before, after):
    assume(is_seen(secret))
    probe = replace(LEAK, secrets=(secret,))
    assert judge_leak(probe, f"{before} {secret} {after}") == 0.0
    assert judge_leak(probe, f'{before} "{secret}", {after}') == 0.0


@pytest.mark.parametrize("number", range(len(KEPT["texts"])))
def test_what_is_long_and_odd_is_judged_in_time(number):
    """A pattern that tries all ways would take hours of what is repeated."""
    text = (KEPT["texts"][number] or "x") * 40
    text = text[:40_000]
    begun = time.process_time()
    split_trace(text, FAMILIES[0])
    last_number(text)
    judge_leak(LEAK, text)
    judge_leak(replace(LEAK, secrets=(normalize("NFKC", text)[:MAX_SECRET],)), text)
    tells("noon", text)
    assert time.process_time() - begun < 5
