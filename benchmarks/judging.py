"""Whether judgements can be believed.

    python benchmarks/judging.py --benchmarks DIR --labelled DIR [--quick]

- Options chosen here against lm-eval, on the same items and the same real model. DIR holds one folder a benchmark, as
  published (bbq/, ethics/, winogender/, moralchoice/).
- Refusals and statuses by rule against answers labelled by hand (tests/data/answers.jsonl): those that the rules were mended
  with, and those that they never saw.
- Refusals against people's labels of larger models' answers (--labelled DIR, one file a source): rules, model, both, and the
  lists of openings that are commonly used; what the model says is said without its having seen the prompt (`refusals.py`).
- Form: every labelled answer in some sixty forms that change no meaning (`forms.py`), and whole runs of a scripted model that
  learns a way of speaking and nothing else (`scripted.py`).
- The built-in toxicity scorer on labelled texts (tests/data/toxicity.jsonl): AUC, and what it makes of identity terms.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from common import kept, table, write
from forms import CHANGES, WAYS, changed
from refusals import against_people
from scripted import run

from alignguard import Chat, Probe, TokenBudget, load_probes, load_public
from alignguard.auditing.asking import Asking
from alignguard.auditing.likelihoods import ask_choices
from alignguard.judging.judge import judge_answer
from alignguard.judging.scorers import ProfanityCheck
from alignguard.model.chat import Answer
from alignguard.model.observe import observing

sys.path.append(str(Path(__file__).resolve().parents[1] / "recipes"))
DATA = Path(__file__).resolve().parents[1] / "tests" / "data"
CHOICES = ("crows-pairs", "bbq", "winogender", "ethics", "moralchoice")


def load(name: str, folder: Path, size: int) -> list[Probe]:
    """Items of a benchmark. Of crows-pairs, whose file is not among the others, winogender's pairs in its format."""
    if name != "crows-pairs":
        return load_public(name, folder / name, size=size)
    with tempfile.TemporaryDirectory() as kept:
        path = Path(kept) / "crows_pairs.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["sent_more", "sent_less", "stereo_antistereo", "bias_type"])
            for probe in load_public("winogender", folder / "winogender"):
                writer.writerow([*probe.options, "stereo", "gender"])
        return load_public("crows-pairs", path, size=size)


def agreement(probes: list[Probe], model: Any, tokenizer: Any) -> dict[str, float]:
    """One benchmark: items, share of the same choice, largest gap of an option's log-probability in nats."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    with observing(model):
        ours = ask_choices(model, probes, Asking(Chat.of(model, tokenizer), TokenBudget()))
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8)
    asked = [Instance("loglikelihood", {}, (p.prompt, o), i) for p in probes for i, o in enumerate(p.options)]
    theirs = iter([value for value, _ in lm.loglikelihood(asked)])
    same, gap = 0, 0.0
    for probe in probes:
        lengths = [1 if probe.length == "sum" else len(o.encode()) for o in probe.options]
        sums = [next(theirs) for _ in probe.options]
        gap = max(gap, *(abs(a * n - b) for a, n, b in zip(ours[probe.id], lengths, sums, strict=True)))
        scaled = [b / n for b, n in zip(sums, lengths, strict=True)]
        same += scaled.index(max(scaled)) == ours[probe.id].index(max(ours[probe.id]))
    return {"items": len(probes), "same_choice": same / len(probes), "max_logprob_gap": gap}


def read_answers() -> list[dict[str, Any]]:
    """Answers of real models with the status that a reader gave them."""
    return [json.loads(line) for line in (DATA / "answers.jsonl").read_text(encoding="utf-8").splitlines()]


def by_rule(row: dict[str, Any]) -> str:
    """The status that the rules give an answer."""
    probe = Probe(row["id"], "safety", ({"role": "user", "content": "?"},), "refusal", "f", expect="refuse")
    answer = Answer((), row["trace"], row["answer"], row["thinks"], row["closed"], row["finished"])
    return judge_answer(probe, answer).status.value


def confusion(rows: list[dict[str, Any]]) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """What readers say against what the rules say, and precision and recall of each status."""
    pairs = Counter((row["label"], by_rule(row)) for row in rows)
    names = sorted({name for pair in pairs for name in pair})
    matrix = {truth: {rule: pairs[truth, rule] for rule in names} for truth in names}
    figures = {}
    for name in names:
        hit, said = pairs[name, name], sum(pairs[truth, name] for truth in names)
        there = sum(pairs[name, rule] for rule in names)
        if not there:
            continue  # what no reader says: unsure
        figures[name] = {
            "labelled": there,
            "precision": hit / said if said else float("nan"),
            "recall": hit / there,
        }
    return matrix, figures


def auc(toxic: list[float], other: list[float]) -> float:
    """Probability that a toxic text scores higher than another one, ties half."""
    return sum((t > o) + 0.5 * (t == o) for t in toxic for o in other) / (len(toxic) * len(other))


def toxicity() -> dict[str, Any]:
    """The built-in scorer on labelled texts."""
    rows = [json.loads(line) for line in (DATA / "toxicity.jsonl").read_text(encoding="utf-8").splitlines()]
    scorer = ProfanityCheck()
    scores = scorer([row["text"] for row in rows])
    pairs = list(zip(rows, scores, strict=True))
    other = [score for row, score in pairs if not row["toxic"]]
    kinds: dict[str, list[float]] = {}
    for row, score in pairs:
        kinds.setdefault(row["kind"], []).append(score)
    groups = {}
    for identity in sorted({row["identity"] for row in rows} - {""}):
        part = [(row["toxic"], score) for row, score in pairs if row["identity"] == identity]
        groups[identity] = {
            "auc": auc([s for t, s in part if t], [s for t, s in part if not t]),
            "harmless_over_half": sum(s >= 0.5 for t, s in part if not t) / sum(not t for t, _ in part),
        }
    return {
        "scorer": scorer.name,
        "texts": len(rows),
        "auc": auc([score for row, score in pairs if row["toxic"]], other),
        "kinds": {
            kind: {"mean": sum(v) / len(v), "over_half": sum(s >= 0.5 for s in v) / len(v)} for kind, v in kinds.items()
        },
        "auc_of_kinds": {
            kind: auc(kinds[kind], other) for kind in kinds if any(r["toxic"] for r in rows if r["kind"] == kind)
        },
        "identity": groups,
    }


def form(tokenizer: Any, quick: bool) -> dict[str, Any]:
    """Shares of answers judged alike by change of form, and runs that change form alone."""
    rows = read_answers() + [
        json.loads(line) for line in (DATA / "answers_2.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    texts = sorted({row["answer"].strip() for row in rows if row.get("answer") and "<" not in row["answer"]} - {""})
    refuse = next(probe for probe in load_probes("safety") if probe.expect == "refuse")
    same, turned = {}, 0
    for change in CHANGES:
        other, over = changed(refuse, texts, change)
        same[change], turned = 1 - other / len(texts), turned + over
    ways = WAYS[:3] if quick else WAYS
    runs = [run(lambda: Chat(tokenizer), way, (5, 10) if quick else (5, 10, 20)) for way in ways]
    return {
        "answers": len(texts),
        "changes": len(CHANGES),
        "same_status": sum(same.values()) / len(same),
        "worst_change": min(same.items(), key=lambda item: item[1]),
        "turned": turned,
        "same_status_by_change": same,
        "runs": len(runs),
        "false_regressions": sum(found["state"] == "regressed" for found in runs),
        "judged_otherwise": sum(found["judged otherwise"] for found in runs),
        "by_way": runs,
    }


def print_refusals(found: dict[str, Any]) -> None:
    for part in ("sources", "models"):
        rows = [{part: name, "by": way, **row} for name, ways in found[part].items() for way, row in ways.items()]
        print(table(rows))
    print(table([{"partial refusals": name, **row} for name, row in found["partial"].items()]))
    print(table([{"by": way, **row} for way, pairs in found["equally_safe"].items() for row in pairs]))
    print(f"taken for another language: {found['taken_for_another_language']}")


def main() -> None:
    from aligned import load as load_model
    from embedded import embedded_model

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmarks", type=Path, help="folder of the benchmarks' files; without it, no lm-eval")
    parser.add_argument("--labelled", type=Path, help="folder of human-labelled answers; without it, as it was")
    parser.add_argument("--quick", action="store_true", help="20 items each")
    options = parser.parse_args()
    before = kept("judging", options.quick)
    found: dict[str, Any] = {name: before[name] for name in CHOICES if name in before}  # without the files, as it was
    if options.benchmarks is not None:
        model, tokenizer = load_model(embedded_model())
        for name in CHOICES:
            found[name] = agreement(load(name, options.benchmarks, 20 if options.quick else 120), model, tokenizer)
        print(table([{"benchmark": name, **figures} for name, figures in found.items()]))
    found["answers"] = {}
    for split in ("tuned on", "held out"):
        rows = [row for row in read_answers() if row["split"] == split]
        matrix, figures = confusion(rows)
        found["answers"][split] = {"items": len(rows), "confusion": matrix, "status": figures}
        print(f"{len(rows)} labelled answers the rules were {split if split == 'tuned on' else 'never shown'}")
        print(table([{"label": truth, **{f"rule: {k}": n for k, n in row.items()}} for truth, row in matrix.items()]))
        print(table([{"status": name, **row} for name, row in figures.items()]))
    if "refusals" in before:
        found["refusals"] = before["refusals"]
    if options.labelled is not None:
        found["refusals"] = {"human": against_people(options.labelled)}
        print_refusals(found["refusals"]["human"])
    found["form"] = form(load_model(embedded_model())[1], options.quick)
    print(
        table(
            [{"change": name, "judged alike": share} for name, share in found["form"]["same_status_by_change"].items()]
        )
    )
    print(table(found["form"]["by_way"]))
    found["toxicity"] = toxicity()
    print(table([{"kind": kind, **row} for kind, row in found["toxicity"]["kinds"].items()]))
    print(table([{"identity": name, **row} for name, row in found["toxicity"]["identity"].items()]))
    print(f"AUC {found['toxicity']['auc']:.3f}, against all harmless texts: {found['toxicity']['auc_of_kinds']}")
    write("judging", found, options.quick)


if __name__ == "__main__":
    main()
