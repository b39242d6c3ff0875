"""A run in a process that has imported nothing else: fresh_run.py OUT. It prints what looking changed in it, as JSON."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import environment  # noqa: F401
from everything import differences, everything
from tiny import tiny_model, tiny_tokenizer
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments
from watched import Watched, unexpected


def main(out):
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer, seed=1, scale=4.0)
    texts = ["The quick brown fox", "jumps over the lazy dog"]
    rows = [{"input_ids": (ids := tokenizer(text)["input_ids"]), "labels": ids} for text in texts]
    args = TrainingArguments(out, max_steps=2, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True)
    from alignguard import AlignGuardCallback, Schedule, TokenBudget

    before = everything(model=model, tokenizer=tokenizer)
    short = TokenBudget(answer=4, trace=6)
    callback = AlignGuardCallback(
        probes=["safety", "ethics"], schedule=Schedule(at=(1,), every=0, draw=2), tokens=short
    )
    told = [
        f"the callback is made: {line}"
        for line in unexpected(differences(before, everything(model=model, tokenizer=tokenizer)))
    ]
    looked = Watched(callback, Path(out))
    collator = DataCollatorForSeq2Seq(tokenizer)
    Trainer(model, args, collator, train_dataset=rows, processing_class=tokenizer, callbacks=[callback]).train()
    print(json.dumps({"told": told + looked.told, "audits": [audit.step for audit in callback.audits]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
