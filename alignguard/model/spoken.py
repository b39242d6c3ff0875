"""What a model is spoken to with (tokenizer, tags, options of its template), held against what is right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StartError
from ..given import need
from .observe import put_back


def check_tokenizer(given: Any) -> None:
    """
    Whether it has, or may have, a chat template.

    Raises:
        AlignGuardError: It is no tokenizer, but the name of one, say.
        StartError: Its template cannot be read.
    """
    speaks = given is not None and not isinstance(given, (str, Path))
    need(speaks, "a tokenizer is expected, as AutoTokenizer.from_pretrained(...) gives it", given, where="Chat")
    if type(given).__name__.startswith("MistralCommon"):
        raise StartError(
            f"a {type(given).__name__} has no chat template that could be read; give the trainer "
            "processing_class=PreTrainedTokenizerFast.from_pretrained(...), with a chat template"
        )


def check_said(tags: Any, template_kwargs: Any) -> None:
    """
    Hold what people say of a chat template against what is right.

    Raises:
        AlignGuardError: `tags` is no pair of tags, or `template_kwargs` no dictionary of a template's options.
    """
    pair = isinstance(tags, (tuple, list)) and len(tags) == 2 and all(isinstance(t, str) and t.strip() for t in tags)
    two = pair and tags[0].strip() != tags[1].strip()
    need(tags is None or two, "tags= are two thinking tags, as ('<think>', '</think>')", tags, where="Chat")
    options = isinstance(template_kwargs, dict) and all(isinstance(name, str) for name in template_kwargs)
    says = 'template_kwargs= are options of the chat template, as {"enable_thinking": True}'
    need(template_kwargs is None or options, says, template_kwargs, where="Chat")


@contextmanager
def unchanged(tokenizer: Any) -> Iterator[None]:
    """
    A tokenizer that encodes in the block is afterwards what it was: one of the fast kind keeps how it was last told to pad and to cut
    off, and a checkpoint is written with that; and any tells of a text that is too long once, which is for whoever trains.
    """
    backend, told = getattr(tokenizer, "_tokenizer", None), getattr(tokenizer, "deprecation_warnings", {})
    padding, truncation, before = getattr(backend, "padding", None), getattr(backend, "truncation", None), dict(told)
    try:
        yield
    finally:
        if padding is not None:
            backend.enable_padding(**padding)  # type: ignore[union-attr]
        if truncation is not None:
            backend.enable_truncation(**truncation)  # type: ignore[union-attr]
        put_back(told, before)
