"""What the toxicity scorers see, side by side, and the training of the sentence scorer's head.

    python benchmarks/toxicity.py --hatecheck CSV --openai JSONL.GZ --surge CSV [--write] [--features NPZ]

Four labelled sets: HateCheck (github paul-rottger/hatecheck-data, test_suite_cases.csv, CC BY 4.0), OpenAI's
moderation evaluation (github openai/moderation-api-release, data/samples-1680.jsonl.gz, MIT), Surge AI's toxicity
dataset (github surge-ai/toxicity, toxicity_en.csv, MIT) and our own 240 texts (tests/data/toxicity.jsonl). Of
OpenAI's, hate and harassment are toxic, what has no flag is harmless, and sexual, violent and self-harming texts
without hate are left out.

To train, but not to measure, come harmless answers of real models, those that decline and the sentences of others
(tests/data/answers.jsonl), and thirty groups in sentences of our own (toxicity_frames.json), each group as often
praised, defended or just mentioned as every other: in the sets a group is named mostly to be hated, and a head that
learns from them alone takes the mention for the hate. To measure, but not to train, come one hostile sentence among
kind ones, both of our own texts, and the long traces of answers_2.jsonl.

The head is a logistic regression. Every set weighs the same, and in each of them both classes do: a probability of
0.5 says that a text is as likely toxic as not where half of the texts are. Each figure is of a head trained without
the set it is measured on. `--write` trains on all and writes alignguard/judging/toxicity.json; no text of any set is
kept.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import table, write
from judging import auc
from sklearn.linear_model import LogisticRegression

from alignguard.judging.scorers import ProfanityCheck
from alignguard.judging.sentences import HEAD, LAYERS, SHA256, SentenceToxicity, encoder, sentences

DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
HATE, FLAGS = ("H", "HR", "H2"), ("S", "H", "V", "HR", "SH", "S3", "H2", "V2")
STRENGTH = 1.0  # inverse regularisation
TRAINED = ("own", "openai", "hatecheck", "surge", "declined", "answered", "frames")
AMONG = (4, 9, 24)  # kind sentences around a hostile one


@dataclass
class Texts:
    """A labelled set: `toxic` is 1, 0, or -1 for what is left out; `vectors` has a row for each window and sentence."""

    texts: list[str]
    toxic: np.ndarray
    rows: list[dict[str, Any]]
    vectors: np.ndarray | None = None
    owner: np.ndarray | None = None  # of each row of `vectors`, its text
    window: np.ndarray | None = None  # whether it is one of the text's windows, or of a sentence


def read(options: argparse.Namespace) -> dict[str, Texts]:
    def lines(path: Path) -> list[dict[str, Any]]:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return [json.loads(line) for line in raw.decode("utf-8").splitlines()]

    def cells(path: Path) -> list[dict[str, Any]]:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def flagged(row: dict[str, Any]) -> int:
        if any(row.get(flag) == 1 for flag in HATE):
            return 1
        return -1 if any(row.get(flag) == 1 for flag in FLAGS) else 0

    own, hatecheck = lines(DATA / "toxicity.jsonl"), cells(options.hatecheck)
    openai, surge = lines(options.openai), cells(options.surge)
    frames = json.loads((Path(__file__).parent / "toxicity_frames.json").read_text(encoding="utf-8"))
    framed = [
        {"text": said[:1].upper() + said[1:], "toxic": int(kind == "hostile")}
        for many, one in frames["groups"]
        for kind in ("harmless", "hostile")
        for said in (frame.format(many=many, one=one) for frame in frames[kind])
    ]
    answers = lines(DATA / "answers.jsonl")
    declined = [row["answer"] for row in answers if row["label"] == "refused"]
    said = [row[part] for row in answers if row["label"] == "answered" for part in ("trace", "answer")]
    answered = sorted({sentence for text in said for sentence in sentences(text) if " " in sentence})
    traces = [row["trace"] for row in lines(DATA / "answers_2.jsonl") if len(row["trace"]) > 400]
    return {
        "own": _texts(own, "text", [row["toxic"] for row in own]),
        "openai": _texts(openai, "prompt", [flagged(row) for row in openai]),
        "hatecheck": _texts(hatecheck, "test_case", [int(row["label_gold"] == "hateful") for row in hatecheck]),
        "surge": _texts(surge, "text", [int(row["is_toxic"] == "Toxic") for row in surge]),
        "declined": Texts(declined, np.zeros(len(declined), dtype=int), []),
        "answered": Texts(answered, np.zeros(len(answered), dtype=int), []),
        "frames": _texts(framed, "text", [row["toxic"] for row in framed]),
        "traces": Texts(traces, np.zeros(len(traces), dtype=int), []),
    } | {f"one in {kind + 1}": diluted(own, kind) for kind in AMONG}


def diluted(own: list[dict[str, Any]], kind: int) -> Texts:
    """Texts of one hostile sentence among so many kind ones, and as many texts of kind ones alone."""
    draw = random.Random(0)
    calm = [row["text"] for row in own if row["kind"] in ("plain", "mention")]
    texts = []
    for hostile in [row["text"] for row in own if row["kind"] in ("hostile-mention", "rude")]:
        around = draw.sample(calm, kind)
        around.insert(draw.randrange(kind + 1), hostile)
        texts += [" ".join(around), " ".join(draw.sample(calm, kind + 1))]
    return Texts(texts, np.tile([1, 0], len(texts) // 2), [])


def _texts(rows: list[dict[str, Any]], field: str, toxic: list[int]) -> Texts:
    return Texts([row[field] for row in rows], np.array(toxic), rows)


def encode(sets: dict[str, Texts], path: Path | None) -> None:
    """Vectors of all texts; kept in a file, since reading 10,000 texts takes minutes."""
    kept = dict(np.load(path)) if path and path.exists() else {}
    for name, texts in sets.items():
        if name not in kept or kept[f"{name} owner"].max() != len(texts.texts) - 1:
            rows = [(i, *row) for i, text in enumerate(texts.texts) for row in _rows(text)]
            owner, window, vectors = zip(*rows, strict=True)
            kept |= {f"{name} owner": np.array(owner), f"{name} window": np.array(window)}
            kept[name] = np.stack(vectors).astype(np.float32)
        texts.vectors = kept[name].astype(np.float64)
        texts.owner, texts.window = kept[f"{name} owner"], kept[f"{name} window"]
        if path:
            np.savez(path, **kept)


def _rows(text: str) -> list[tuple[bool, np.ndarray]]:
    """Vectors of a text's windows, then, where it has several sentences, of theirs."""
    parts = sentences(text)
    apart = parts if len(parts) > 1 else []
    return [(True, row) for row in encoder()(text)] + [(False, row) for part in apart for row in encoder()(part)]


def train(sets: list[tuple[Texts, np.ndarray]]) -> LogisticRegression:
    """A head from sets and of each set the texts that are taken; parts of a text have no label of their own."""
    features, toxic, weights = [], [], []
    for texts, taken in sets:
        assert texts.vectors is not None and texts.owner is not None and texts.window is not None
        single = texts.window & (np.bincount(texts.owner, texts.window)[texts.owner] == 1)
        use = single & taken[texts.owner] & (texts.toxic[texts.owner] >= 0)
        labels = texts.toxic[texts.owner][use]
        features.append(texts.vectors[use])
        toxic.append(labels)
        weights.append(np.where(labels == 1, 1 / max(labels.sum(), 1), 1 / max((1 - labels).sum(), 1)))
    label, weight = np.concatenate(toxic), np.concatenate(weights)
    weight /= np.where(label == 1, weight[label == 1].sum(), weight[label == 0].sum())
    weight *= len(label) / weight.sum()
    return LogisticRegression(C=STRENGTH, max_iter=5000).fit(np.concatenate(features), label, sample_weight=weight)


def without(sets: dict[str, Texts], name: str) -> list[tuple[Texts, np.ndarray]]:
    """All sets to train on but one."""
    return [(sets[other], everything(sets[other])) for other in TRAINED if other != name]


def everything(texts: Texts) -> np.ndarray:
    return np.ones(len(texts.texts), dtype=bool)


def probabilities(head: LogisticRegression, texts: Texts, apart: bool = True) -> np.ndarray:
    """Of each text, as the scorer has it; or, for comparison, of its worst window, without its sentences."""
    assert texts.vectors is not None and texts.owner is not None and texts.window is not None
    logits = head.decision_function(texts.vectors)
    worst = np.full((2, len(texts.texts)), -np.inf)  # (sentences and windows, texts)
    np.maximum.at(worst, (texts.window.astype(int), texts.owner), logits)
    found = np.where(np.isfinite(worst[0]) & apart, worst.mean(0), worst[1])
    return np.asarray(1.0 / (1.0 + np.exp(-found)))


def figures(toxic: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    bad, good = scores[toxic == 1], scores[toxic == 0]
    return {
        "texts": int((toxic >= 0).sum()),
        "auc": auc(bad.tolist(), good.tolist()),
        "toxic_over_half": float((bad >= 0.5).mean()),
        "harmless_over_half": float((good >= 0.5).mean()),
    }


def scorers(head: LogisticRegression, texts: Texts) -> dict[str, np.ndarray]:
    return {
        "minilm": probabilities(head, texts),
        "windows": probabilities(head, texts, apart=False),
        "built_in": np.array(ProfanityCheck()(texts.texts)),
    }


def kinds(rows: list[dict[str, Any]], toxic: np.ndarray, scores: np.ndarray) -> dict[str, Any]:
    """Our own texts by kind, and harmless mentions by the group that is mentioned."""
    found: dict[str, Any] = {"kinds": {}, "identity": {}}
    for kind in dict.fromkeys(row["kind"] for row in rows):
        at = np.array([row["kind"] == kind for row in rows])
        found["kinds"][kind] = {"mean": float(scores[at].mean()), "over_half": float((scores[at] >= 0.5).mean())}
        if toxic[at].all():
            found["kinds"][kind]["auc"] = auc(scores[at].tolist(), scores[toxic == 0].tolist())
    for group in sorted({row["identity"] for row in rows} - {""}):
        at = np.array([row["identity"] == group for row in rows])
        found["identity"][group] = figures(toxic[at], scores[at])
        found["identity"][group]["harmless_mean"] = float(scores[at & (toxic == 0)].mean())
    return found


def left_out(hatecheck: Texts, others: list[tuple[Texts, np.ndarray]], part: np.ndarray) -> np.ndarray:
    """Probabilities on HateCheck, each part of it by a head that was trained without that part."""
    scores = np.zeros(len(part))
    for name in np.unique(part):
        at = part == name
        scores[at] = probabilities(train([*others, (hatecheck, ~at)]), hatecheck)[at]
    return scores


def hate_check(hatecheck: Texts, others: list[tuple[Texts, np.ndarray]], built_in: np.ndarray) -> dict[str, Any]:
    """HateCheck by functionality, the share told rightly, and what its harmless mentions of each group are given."""
    functionality = np.array([row["functionality"] for row in hatecheck.rows])
    group = np.array([row["target_ident"] for row in hatecheck.rows])
    template = np.unique([row["templ_id"] for row in hatecheck.rows], return_inverse=True)[1]
    scores = {
        "unseen": probabilities(train(others), hatecheck),
        "functionality": left_out(hatecheck, others, functionality),
        "template": left_out(hatecheck, others, np.random.default_rng(0).permutation(template.max() + 1)[template] % 5),
        "built_in": built_in,
    }
    found: dict[str, Any] = {"auc": {name: figures(hatecheck.toxic, s)["auc"] for name, s in scores.items()}}
    found["right"] = {
        name: {"texts": int((functionality == name).sum())}
        | {
            key: float(((s >= 0.5) == (hatecheck.toxic == 1))[functionality == name].mean())
            for key, s in scores.items()
        }
        for name in sorted(set(functionality))
    }
    mention = np.isin(functionality, ["ident_neutral_nh", "ident_pos_nh"])
    found["mentions"] = {
        name: {
            key: {"mean": float(s[at].mean()), "over_half": float((s[at] >= 0.5).mean())}
            for key, s in scores.items()
            for at in [mention & (group == name)]
        }
        for name in sorted(set(group[mention]))
    }
    found["mentioned"] = {key: _spread(s[mention]) for key, s in scores.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hatecheck", "openai", "surge"):
        parser.add_argument(f"--{name}", type=Path, required=True, help="file of the set, as published")
    parser.add_argument("--features", type=Path, help="file in which the texts' vectors are kept between runs")
    parser.add_argument("--write", action="store_true", help="train on all sets and write the head that is shipped")
    options = parser.parse_args()
    sets = read(options)
    encode(sets, options.features)
    found: dict[str, Any] = {"layers": LAYERS, "sets": {}, "built_in": ProfanityCheck().name}
    for name in ("own", "openai", "hatecheck", "surge"):
        texts = sets[name]
        head = train(without(sets, name))
        scores = scorers(head, texts)
        asked = {name: texts.toxic}
        if name == "own":
            found["own"] = {key: kinds(texts.rows, texts.toxic, scores[key]) for key in ("minilm", "built_in")}
            for part in (f"one in {kind + 1}" for kind in AMONG):
                of = scorers(head, sets[part]).items()
                found["sets"][part] = {key: figures(sets[part].toxic, values) for key, values in of}
        if name == "openai":
            flagged = np.array([int(any(row.get(flag) == 1 for flag in FLAGS)) for row in texts.rows])
            asked |= {"openai, any flag": flagged, "openai, hate against all else": (texts.toxic == 1).astype(int)}
        if name == "hatecheck":
            found["hatecheck"] = hate_check(texts, without(sets, name), scores["built_in"])
        for key, toxic in asked.items():
            found["sets"][key] = {scorer: figures(toxic, values) for scorer, values in scores.items()}
    found["milliseconds"] = {
        "sentence": _milliseconds(encoder(), sets["own"].texts[:50]),
        "window": _milliseconds(encoder(), ["word " * 126] * 20),
        "trace": _milliseconds(lambda text: SentenceToxicity()([text]), sorted(sets["traces"].texts, key=len)[-9:]),
    }
    for name in ("declined", "traces"):
        values = scorers(train(without(sets, name)), sets[name])
        found[name] = {key: _spread(of) for key, of in values.items()}
    show = [(name, scorer, row) for name, pair in found["sets"].items() for scorer, row in pair.items()]
    print(table([{"set": name, "scorer": scorer, **row} for name, scorer, row in show]))
    for scorer, parts in found["own"].items():
        for part, rows in parts.items():
            print(scorer, table([{part: key, "auc": "", **row} for key, row in rows.items()]), sep="\n")
    print(table([{"hatecheck": name, **row} for name, row in found["hatecheck"]["right"].items()]))
    for key in ("unseen", "template", "built_in"):
        rows = found["hatecheck"]["mentions"].items()
        print(key, table([{"mentioned": name, **row[key]} for name, row in rows]), sep="\n")
    print(f"hatecheck, AUC: {found['hatecheck']['auc']}\nof all groups: {found['hatecheck']['mentioned']}")
    print(f"answers that decline: {found['declined']}\nlong traces: {found['traces']}")
    print(f"milliseconds: {found['milliseconds']}")
    if options.write:
        head = train(without(sets, ""))
        weights = [float(f"{weight:.5g}") for weight in head.coef_[0]]
        shipped = {"encoder": SHA256, "layers": LAYERS, "bias": float(f"{head.intercept_[0]:.5g}"), "weights": weights}
        HEAD.write_text(json.dumps(shipped) + "\n", encoding="utf-8")
        print(f"wrote {HEAD}")
    write("toxicity", found, quick=False)


def _milliseconds(read: Callable[[str], Any], texts: list[str]) -> float:
    """A text, in processor time of this process: the median."""
    taken = []
    for text in texts:
        start = time.process_time()
        read(text)
        taken.append(1000 * (time.process_time() - start))
    return median(taken)


def _spread(scores: np.ndarray) -> dict[str, float]:
    return {"texts": len(scores), "mean": float(scores.mean()), "over_half": float((scores >= 0.5).mean())}


if __name__ == "__main__":
    main()
