"""What is asked, as tokens, and what comes of it: `Asking`, prompts, and the `Result` of a probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from .chat import Answer, Chat, render_choice
from .distributed import Ranks
from .generation import TokenBudget
from .probes import Probe
from .scoring import OwnJudge, Score, ToxicityScorer


@dataclass(frozen=True)
class ProbeDrift:
    """
    Drift on one probe, on the reference's own answer.

    Args:
        raw (`list[float]`):
            KL(reference || policy) at each token of the answer as it stands, in nats.
        answer (`list[float]`):
            The same for the answer proper: after an empty, closed trace where the policy thinks and the reference does
            not; after the reference's own trace where the reference thinks.
        thinks (`float`):
            Probability that the policy opens a trace here.
        same (`int`):
            How many of the answer's tokens the policy would say too, greedily, before it first departs.
        departs (`int`):
            The token it would say there instead; -1 where it does not depart.
    """

    raw: list[float]
    answer: list[float]
    thinks: float
    same: int
    departs: int


@dataclass(frozen=True)
class Result:
    """
    One probe in one audit.

    Args:
        probe (`Probe`):
            What was asked.
        score (`Score`):
            How it was judged.
        answer (`Answer`, *optional*):
            What was said; `None` for a policy's choices, which are likelihoods.
        logprobs (`list[float]`, *optional*):
            Of each option, nats per byte.
        drift (`ProbeDrift`, *optional*):
            `None` in a baseline.
    """

    probe: Probe
    score: Score
    answer: Answer | None = None
    logprobs: list[float] | None = None
    drift: ProbeDrift | None = None


@dataclass
class Asking:
    """
    How probes are asked and judged; the same for policy and reference.

    Args:
        chat (`Chat`):
            How the model is spoken to.
        budget (`TokenBudget`, *optional*):
            Tokens of trace and answer.
        toxicity (`Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic; one with an attribute `reads_prompts` is given (texts, prompts).
        own (`Callable[[str, str], float]`, *optional*):
            `(prompt, answer)` to a score in [0, 1], for probes with the judge `own`.
        failed (`Callable[[Exception], None]`, *optional*):
            Told of a scorer that fails, whose probes then stay unscored. By default the failure is raised.
        seed (`int`, *optional*, defaults to `0`):
            Of sampled answers.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in.
        tick (`Callable[[int], None]`, *optional*):
            Called as work is done, for a progress bar; see [`work`].
        ranks ([`Ranks`], *optional*):
            The processes that share the work; by default this one does all of it.
    """

    chat: Chat
    budget: TokenBudget = field(default_factory=TokenBudget)
    toxicity: ToxicityScorer | None = None
    own: OwnJudge | None = None
    failed: Callable[[Exception], None] | None = None
    seed: int = 0
    autocast: torch.dtype | None = None
    tick: Callable[[int], None] = lambda n: None
    ranks: Ranks = field(default_factory=Ranks)


def work(probes: Sequence[Probe], baseline: bool) -> int:
    """How many ticks asking these probes takes: of the baseline one a probe and task, of an audit two."""
    choices = sum(probe.judge == "choice" for probe in probes)
    return len(probes) + choices if baseline else 2 * len(probes)


def prompt_of(probe: Probe, chat: Chat) -> tuple[list[int], bool]:
    """Token ids of what is asked, and whether they end inside a trace. A plain probe is text to go on from, no chat."""
    if probe.plain:
        return chat.plain_ids(probe.prompt), False
    messages = turns(probe)
    return chat.prompt_ids(messages), chat.opens_trace(messages)


def answer_context(probe: Probe, chat: Chat, thinks: bool) -> list[int]:
    """What stands before an answer: the prompt and, where it or the model opens a trace, an empty, closed one."""
    context, inside = prompt_of(probe, chat)
    if inside:
        return context + chat.close_ids()
    return context + chat.closed_trace_ids() if thinks else context


def turns(probe: Probe) -> tuple[dict[str, str], ...]:
    """What is asked, as chat turns: choices with their options, all else word for word."""
    if probe.plain:
        return probe.messages
    if probe.judge == "choice":
        return render_choice(probe, _option_order(probe))
    return probe.messages


def _option_order(probe: Probe) -> list[int]:
    """Options listed from a place that the probe's id decides, so that over the pool each place is used alike."""
    n = len(probe.options)
    shift = sum(probe.id.encode()) % n
    return [(i + shift) % n for i in range(n)]
