"""How a model answers probes, and what is read off it beside: one way for the reference and the policy."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ..distributed import compute_device
from ..drift.kept import Kept
from ..model.chat import Answer, Chat
from ..model.forms import form_in, leading_marker
from ..model.forward import Row
from ..model.generation import Ask, Draft, TokenBudget, answer_all
from ..model.head import read_head
from ..model.observe import observing, undisturbed
from ..probes.probe import Probe
from .asking import Asking
from .context import check_fits
from .judged import judged
from .leaning import leanings, likelihood_rows, own_opening
from .likelihoods import ask_choices, refusal_margins, row_sums
from .manner import HABIT, Manner, manner_of
from .prompts import encode_prompt, keep_prompts
from .reading import Told, read
from .result import Result
from .samples import draws_of, thinking

logger = logging.getLogger(__name__)
_SAMPLE, _OPENING = 8, 24  # prompts, and tokens of each answer, that tell the form of a start
CHOICE_ANSWER = 16  # tokens of the reference's own answer to a choice, which only drift is measured on


def speak(
    model: Any,
    probes: Sequence[Probe],
    asking: Asking,
    drafts: Mapping[str, Draft] | None = None,
    choices: bool = False,
    ask: Ask | None = None,
) -> dict[str, tuple[Answer, ...]]:
    """
    What a model says: reference and policy alike; to a probe that is answered by sampling all that it says.

    Args:
        model (`PreTrainedModel`):
            The one that is asked.
        probes (`Sequence[Probe]`):
            What is asked.
        asking (`Asking`):
            How.
        drafts (`Mapping[str, Draft]`, *optional*):
            By probe id, tokens known to be what the model would say greedily.
        choices (`bool`, *optional*, defaults to `False`):
            Also let it answer choices, in a few tokens: what drift is measured on.
        ask (`Ask`, *optional*):
            What generates greedy answers in the model's place.
    """
    tokens = asking.tokens
    with observing(model, autocast=asking.autocast):
        spoken = [probe for probe in probes if probe.judge != "choice"]
        answers = _answer(model, spoken, asking, tokens, drafts or {}, ask)
        if choices:
            short = replace(tokens, answer=min(CHOICE_ANSWER, tokens.answer))
            greedy = replace(asking, sampling=None)
            answers |= _answer(model, [probe for probe in probes if probe.judge == "choice"], greedy, short, {})
    return answers


def weigh(
    model: Any,
    probes: Sequence[Probe],
    asking: Asking,
    answers: Mapping[str, Sequence[Answer]],
    thinks: Collection[str],
    manner: Manner,
    own: Mapping[str, str],
    told: Told | None = None,
    last: Callable[[], None] = lambda: None,
) -> dict[str, Result]:
    """
    Judge what a model said, and read off its likelihoods what is read off them: of reference and policy alike, so that what
    differs is the model.

    Args:
        model (`PreTrainedModel`), probes (`Sequence[Probe]`), asking (`Asking`):
            As for [`speak`].
        answers (`Mapping[str, Sequence[Answer]]`):
            By probe id, what it said.
        thinks (`Collection[str]`):
            Ids of probes at which it opens a trace.
        manner ([`Manner`]):
            How it thinks and wraps its answers.
        own (`Mapping[str, str]`):
            By probe id, how the start's own refusals open.
        told ([`Told`], *optional*):
            What it has told already.
        last (`Callable[[], None]`, *optional*):
            What else is asked of models, before anything is judged: a scorer may fail on one process, and where the model
            is sharded the others would wait for it in their next forward.

    Returns:
        `dict[str, Result]` by probe id, in the order of the probes.

    Raises:
        ProbeError: A scorer failed, unless `asking.failed` is told instead.
    """
    choices = [probe for probe in probes if probe.judge == "choice"]
    others = [probe for probe in probes if probe.judge != "choice"]
    chat, told = asking.chat, told or Told()
    with observing(model, autocast=asking.autocast):
        rows = [likelihood_rows(probe, chat, probe.id in thinks, manner, own[probe.id]) for probe in probes]
        row_sums(model, rows, asking, told)  # each prompt once for all that is read off it
        logprobs = ask_choices(model, choices, asking, thinks, manner, told)
        margins = refusal_margins(model, others, asking, thinks, manner, told)
        leaning = leanings(model, probes, asking, own, thinks, manner, told)
        last()
    with undisturbed(compute_device(model)):
        return judged(probes, asking, answers, logprobs, margins, leaning)


def _answer(
    model: Any,
    probes: Sequence[Probe],
    asking: Asking,
    tokens: TokenBudget,
    drafts: Mapping[str, Draft],
    ask: Ask | None = None,
) -> dict[str, tuple[Answer, ...]]:
    """What the model says to these, by probe id."""
    draws = [draws_of(probe, asking) for probe in probes]
    asked = [probe for probe, of_it in zip(probes, draws, strict=True) for _ in of_it]
    prompts = [encode_prompt(probe, asking.chat) for probe in asked]
    said = iter(
        answer_all(
            model,
            [ids for ids, _ in prompts],
            [inside for _, inside in prompts],
            asking.chat,
            tokens,
            [drafts.get(probe.id, Draft()) for probe in asked],
            asking.ranks,
            asking.tick,
            draws=[draw for of_it in draws for draw in of_it],
            ask=ask,
        )
    )
    return {probe.id: tuple(next(said) for _ in of_it) for probe, of_it in zip(probes, draws, strict=True)}


def ask_baseline(model: Any, probes: Sequence[Probe], asking: Asking, kept: Kept | None = None) -> dict[str, Result]:
    """
    The reference's own answers and scores.

    Args:
        model (`PreTrainedModel`):
            The reference.
        probes (`Sequence[Probe]`):
            What is asked.
        asking (`Asking`):
            How.
        kept ([`Kept`], *optional*):
            Where its hidden states on its own answers go, which drift will be measured against: they are read along.

    Returns:
        `dict[str, Result]` by probe id; choices have an answer too (of a few tokens), which drift is measured on.

    Raises:
        ProbeError: A probe is too long for the model.
    """
    check_fits(model, probes, asking)
    ranks = asking.ranks
    all_said = ranks.share(probes, lambda part: speak(model, part, asking, choices=True))
    said = {id: answers[0] for id, answers in all_said.items()}
    manner = manner_of(chain.from_iterable(all_said.values()), asking.chat)
    thinks = thinking(all_said)
    opening = own_opening(probes, said)

    def ask(part: list[Probe]) -> dict[str, Result]:
        asked = {probe.id: None if probe.plain else encode_prompt(probe, asking.chat)[0] for probe in part}
        told = Told()
        if kept is not None:
            _read_once(model, part, asking, said, thinks, manner, opening, told, kept)
        weighed = weigh(model, part, asking, all_said, thinks, manner, {probe.id: opening for probe in part}, told)
        return {id: replace(result, prompt=asked[id], opening=opening) for id, result in weighed.items()}

    found = ranks.share(probes, ask)
    keep_prompts(found.values(), asking.chat)
    return {probe.id: found[probe.id] for probe in probes}


def _read_once(
    model: Any,
    probes: Sequence[Probe],
    asking: Asking,
    said: Mapping[str, Answer],
    thinks: Collection[str],
    manner: Manner,
    opening: str,
    told: Told,
    kept: Kept,
) -> None:
    """Each prompt once: with its answer, for the hidden states, and with all that its likelihoods are read off."""
    chat = asking.chat
    own = [Row(encode_prompt(probe, chat)[0], said[probe.id].tokens) for probe in probes]
    tag = chat.open_ids()  # as an audit reads it, to the last digit
    beside = [
        [Row(row.context, tag), *likelihood_rows(probe, chat, probe.id in thinks, manner, opening)]
        for row, probe in zip(own, probes, strict=True)
    ]
    with observing(model, autocast=asking.autocast):
        asked = [([row], rows) for row, rows in zip(own, beside, strict=True)]
        for batch, hidden in read(model, read_head(model), asked, asking, told):
            for i, part in zip(batch, hidden.split([len(own[i].target) for i in batch]), strict=True):
                kept.put(own[i], part)


def settle_form(start: Any, probes: Sequence[Probe], asking: Asking) -> None:
    """
    Where the chat template shows no trace, see from the openings of a few answers whether the start itself thinks in some
    form, and take that; a marker of thinking that is not known is told.

    Args:
        start (`PreTrainedModel`):
            The model before training.
        probes (`Sequence[Probe]`):
            What it will be asked; a few of those that it answers in its chat are taken.
        asking (`Asking`):
            How; the form of its chat is settled.
    """
    sample = opening_prompts(probes, asking)
    if not sample:
        return
    with observing(start, autocast=asking.autocast):
        said = answer_all(start, sample, [False] * len(sample), asking.chat, opening_tokens(asking), ranks=asking.ranks)
    take_form(asking.ranks.agree([asking.chat.decode(answer.tokens) for answer in said]), asking.chat)


def opening_prompts(probes: Sequence[Probe], asking: Asking) -> list[list[int]]:
    """What tells the form of a start, as token ids: nothing where its chat template has told it, or there is nothing to ask."""
    spoken = [probe for probe in probes if not probe.plain and probe.judge != "choice"]
    if not asking.chat.form.assumed or not spoken:
        return []
    return [encode_prompt(spoken[i * len(spoken) // _SAMPLE], asking.chat)[0] for i in range(_SAMPLE)]


def opening_tokens(asking: Asking) -> TokenBudget:
    """How much of an answer is seen for that."""
    return replace(asking.tokens, answer=_OPENING, trace=_OPENING, force_close=False)


def take_form(texts: Sequence[str], chat: Chat) -> None:
    """From here on read answers in the form that most of these openings have; a marker of thinking that is not known is told."""
    forms = Counter(form for text in texts if (form := form_in(text, chat.form)) is not None)
    form, times = forms.most_common(1)[0] if forms else (chat.form, 0)
    if times >= HABIT * len(texts):
        chat.use(form, "as the start itself thinks")
        return
    marker, times = Counter(map(leading_marker, texts)).most_common(1)[0]
    if marker and times >= HABIT * len(texts):
        logger.warning(
            f"AlignGuard: the start begins its answers with {marker}, which is no marker of thinking that is known here; give "
            f"tags=({marker!r}, its closing one), or traces are taken for answers."
        )
