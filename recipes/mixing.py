"""Rows to mix into the training data: alignment prompts with the model's own answers, as they are before training."""

from datasets import Dataset, concatenate_datasets
from transformers import pipeline

from alignguard import AlignGuardError
from alignguard.anchors import load_anchors


def mixed_in(rows: Dataset, model: str, size: int, answer_tokens: int = 128) -> Dataset:
    """
    Training rows with so many more of AlignGuard's anchors, none of which is a probe, in TRL's conversational form.

    Args:
        rows (`Dataset`):
            With the columns `prompt` and `completion`, chat turns.
        model (`str`):
            Path or hub id of the model that is to be trained; it gives the answers.
        size (`int`):
            Rows to add; beyond the number of anchors they come again.
        answer_tokens (`int`, *optional*, defaults to `128`):
            Longest answer; one that is cut off would teach not to end, and is left out.
    """
    ask = pipeline("text-generation", model)
    ask.tokenizer.padding_side = "left"
    prompts = [list(anchor.turns) for anchor in load_anchors().values()]
    found = ask(prompts, max_new_tokens=answer_tokens, do_sample=False, batch_size=16, return_full_text=False)
    answers = [answer[0]["generated_text"] for answer in found]
    said = [
        {"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}
        for prompt, answer in zip(prompts, answers, strict=True)
        if 0 < len(ask.tokenizer(answer)["input_ids"]) < answer_tokens
    ]
    if not said:
        raise AlignGuardError(f"the model ends none of its answers within {answer_tokens} tokens; allow more")
    more = Dataset.from_list([said[i % len(said)] for i in range(size)])
    return concatenate_datasets([rows, more.cast(rows.features)])
