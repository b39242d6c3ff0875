"""Rows to mix into the training data: alignment prompts with the model's own answers, as they are before training."""

from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import pipeline

from alignguard import AlignGuardError
from alignguard.holding.anchors import load_anchors

Turns = list[dict[str, str]]
_MESSAGES = ("messages",)
_FORMS = (("prompt", "completion"), _MESSAGES)


def mixed_in(rows: Dataset, model: str, size: int, answer_tokens: int = 128, revision: str | None = None) -> Dataset:
    """
    Training rows with so many more of AlignGuard's anchors, none of which is a probe, in TRL's conversational form.

    Args:
        rows (`Dataset`):
            With `prompt` and `completion`, or with `messages`: chat turns. Other columns are left out.
        model (`str`):
            Path or hub id of the model that is to be trained; it gives the answers.
        size (`int`):
            Rows to add; beyond the number of anchors they come again.
        answer_tokens (`int`, *optional*, defaults to `128`):
            Longest answer; one that is cut off would teach not to end, and is left out.
        revision (`str`, *optional*):
            Of the model.
    """
    columns = next((form for form in _FORMS if set(form) <= set(rows.column_names)), None)
    if columns is None or any(isinstance(rows[0][name], str) for name in columns):
        raise AlignGuardError(
            f"anchors are mixed into rows of chat turns, 'prompt' and 'completion' or 'messages'; these have {rows.features}"
        )
    said = [
        _row(columns, turns, [{"role": "assistant", "content": answer}])
        for turns, answer in own_answers(
            model, [list(anchor.turns) for anchor in load_anchors().values()], answer_tokens, revision
        )
    ]
    more = Dataset.from_list([said[i % len(said)] for i in range(size)])
    rows = rows.select_columns(list(columns))
    return concatenate_datasets([rows, more.cast(rows.features)])


def own_answers(
    model: str, prompts: list[Turns], answer_tokens: int = 128, revision: str | None = None
) -> list[tuple[Turns, str]]:
    """
    What a model says itself, as it is before training.

    Args:
        model (`str`):
            Path or hub id.
        prompts (`list[list[dict[str, str]]]`):
            Chat turns.
        answer_tokens (`int`, *optional*, defaults to `128`):
            Longest answer; one that is cut off would teach not to end, and is left out.
        revision (`str`, *optional*):
            Of the model.

    Returns:
        `list[tuple[list[dict[str, str]], str]]`: prompts with their answers.

    Raises:
        AlignGuardError: It ends none of its answers within so many tokens.
    """
    ask = pipeline("text-generation", model, revision=revision)
    ask.tokenizer.padding_side = "left"
    if ask.tokenizer.pad_token is None:  # what is filled up with is masked
        ask.tokenizer.pad_token = ask.tokenizer.eos_token
    found = ask(prompts, max_new_tokens=answer_tokens, do_sample=False, batch_size=16, return_full_text=False)
    answers = [answer[0]["generated_text"] for answer in found]
    said = [
        (prompt, answer)
        for prompt, answer in zip(prompts, answers, strict=True)
        if 0 < len(ask.tokenizer(answer)["input_ids"]) < answer_tokens
    ]
    if not said:
        raise AlignGuardError(f"the model ends none of its answers within {answer_tokens} tokens; allow more")
    return said


def _row(columns: tuple[str, ...], prompt: list[dict[str, str]], completion: list[dict[str, str]]) -> dict[str, Any]:
    return {"messages": prompt + completion} if columns == _MESSAGES else {"prompt": prompt, "completion": completion}
