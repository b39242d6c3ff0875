"""The linear model of an answer's opening, and what is taken off before it."""

import json
import random

import pytest

from alignguard.judging import opening
from alignguard.judging.opening import bare_opening, opening_grams, refusal_logit
from alignguard.judging.refusal import refuses

FILE = opening.Path(opening.__file__).with_name("opening.json")


@pytest.mark.parametrize(
    "text",
    [
        "I can't say.",
        "<s> I can't say.",
        "[OUT] I can't say.",
        "<|START_RESPONSE|>I can't say.",
        "<answer>\nI can't say.</answer>",
        "**Answer:** I can't say.",
        "Final Answer: I can't say.",
        "The answer: I can't say.",
        "## Answer\n\nI can't say.",
        "Response:\n1. I can't say.",
        '> "I can’t say."',
        "- I **can't** say.",
        "I CANNOT   say.<|im_end|>",
        "I can not say.",
    ],
)
def test_what_stands_around_is_taken_off(text):
    assert bare_opening(text).rstrip('"') == "i cannot say."


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("", ""),
        ("***", ""),
        ("[Paris](https://a.b) is nice", "[paris](https://a.b) is nice"),
        ("Answer me this", "answer me this"),
        ("3.5 km", "3.5 km"),
        ("It's 5 o'clock, that's late", "it is 5 o'clock, that is late"),
    ],
)
def test_what_belongs_to_the_answer_stays(text, bare):
    assert bare_opening(text) == bare


def test_words_and_pairs():
    assert opening_grams("I won't. 42 cats!") == {
        *("i", "will not", "0", "cats"),
        *("^ i", "i will not", "will not 0", "0 cats"),
    }
    assert opening_grams("w " * 500) == {"w", "^ w", "w w"}
    assert "late" not in opening_grams("early " * opening.WORDS + "late") and opening_grams("") == set()


def test_the_model_is_small_and_holds_no_text():
    assert FILE.stat().st_size < 80_000
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(kept) == {"bias", "weights"} and len(kept["weights"]) <= 3000
    assert max(len(gram.replace("will not", "wont").split()) for gram in kept["weights"]) <= 2


def test_scores_are_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    import numpy as np
    from refusals import _matrix

    kept = json.loads(FILE.read_text(encoding="utf-8"))
    names = list(kept["weights"])
    model = linear_model.LogisticRegression()
    model.classes_, model.n_features_in_ = np.array([False, True]), len(names)
    model.coef_, model.intercept_ = np.array([list(kept["weights"].values())]), np.array([kept["bias"]])
    draw = random.Random(0)
    words = sorted({word for name in names for word in name.split() if word != "^"})
    texts = [" ".join(draw.choices(words, k=draw.randrange(90))) for _ in range(100)]
    theirs = model.decision_function(_matrix([opening_grams(text) for text in texts], names))
    assert [refusal_logit(text) for text in texts] == pytest.approx(list(theirs), abs=1e-9)


def test_scoring_is_deterministic_and_takes_any_text():
    for text in ("", "\ud800", "<" * 5000, "[" * 5000, "a" * 10**5, "I am sorry, " * 2000, "not " * 3000, "\n" * 5000):
        assert refusal_logit(text) == refusal_logit(text)
        assert refuses(text) in (True, False, None)
