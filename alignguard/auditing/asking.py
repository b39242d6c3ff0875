"""`Asking`: how probes are asked and judged, the same for reference and policy."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import torch

from ..distributed import Ranks
from ..errors import StartError
from ..judging.score import OwnJudge, ToxicityScorer
from ..model.chat import Chat
from ..model.generation import Ask, TokenBudget
from ..model.sampled import Sampling
from ..probes.probe import Probe
from ..timed import Patience

T = TypeVar("T")
_ONE_ROW = 64  # padded tokens: a prompt and its answer are longer than half of it, so no two are in a batch


class Judges(Protocol):
    """Who judges what was said, and who is told of a scorer that fails."""

    @property
    def toxicity(self) -> ToxicityScorer | None: ...
    @property
    def judge(self) -> OwnJudge | None: ...
    @property
    def failed(self) -> Callable[[Exception], None] | None: ...
    @property
    def patience(self) -> Patience: ...


@dataclass
class Asking:
    """
    How probes are asked and judged; the same for policy and reference.

    Args:
        chat (`Chat`):
            How the model is spoken to.
        tokens (`TokenBudget`, *optional*):
            How long trace and answer may be.
        toxicity (`Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic; one with an attribute `reads_prompts` is given (texts, prompts), one
            with `only_english` no text in another language.
        judge (`Callable[[str, str], float]`, *optional*):
            `(prompt, answer)` to a score in [0, 1], for probes with the judge `own`.
        failed (`Callable[[Exception], None]`, *optional*):
            Told of a scorer that fails, whose probes then stay unscored. By default the failure is raised.
        seed (`int`, *optional*, defaults to `0`):
            Of sampled answers.
        sampling ([`Sampling`], *optional*):
            How probes are answered by sampling; greedily by default. Those of benchmarks that are drawn by their authors'
            settings are so in any case.
        autocast (`torch.dtype`, *optional*):
            What the trainer computes in.
        tick (`Callable[[int], None]`, *optional*):
            Called as work is done, for a progress bar; see [`work`].
        ranks ([`Ranks`], *optional*):
            The processes that share the work; by default this one does all of it.
        engine (`Callable[[], Ask | None]`, *optional*):
            Called at each audit: what generates the policy's greedy answers in its place, with the weights it has now; `None`
            where it has failed before.
        patience ([`Patience`], *optional*):
            How long scorers may take.
    """

    chat: Chat
    tokens: TokenBudget = field(default_factory=TokenBudget)
    toxicity: ToxicityScorer | None = None
    judge: OwnJudge | None = None
    failed: Callable[[Exception], None] | None = None
    seed: int = 0
    sampling: Sampling | None = None
    autocast: torch.dtype | None = None
    tick: Callable[[int], None] = lambda n: None
    ranks: Ranks = field(default_factory=Ranks)
    engine: Callable[[], Ask | None] | None = None
    patience: Patience = field(default_factory=Patience)

    def within_memory(self, do: Callable[[], T]) -> T:
        """
        What a call that asks gives; where memory runs out, on whichever process, all ask again in batches half as large.

        Args:
            do (`Callable[[], T]`):
                Reads `tokens` anew each time it is called.

        Raises:
            StartError: It runs out with single rows, too.
        """
        found: list[T] = []
        while short := self.ranks.short_of_memory(lambda: found.append(do())):
            found.clear()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            tokens = self.tokens
            if tokens.batch_tokens <= _ONE_ROW:
                raise StartError(
                    f"memory runs out while the model is asked, one row at a time ({short}); lower TokenBudget(answer=, "
                    "trace=), or take reference='cache' or 'offload'"
                )
            decode = tokens.decode_tokens and max(1, tokens.decode_tokens // 2)
            self.tokens = replace(tokens, batch_tokens=max(1, tokens.batch_tokens // 2), decode_tokens=decode)
        return found[0]


def work(probes: Sequence[Probe], baseline: bool, samples: int = 1) -> int:
    """How many ticks asking these probes takes: one an answer, and of choices two, of an audit one a probe for its drift."""
    choices = sum(probe.judge == "choice" for probe in probes)
    answers = sum(1 if probe.sample else samples for probe in probes if probe.judge != "choice")
    return answers + (2 * choices if baseline else choices + len(probes))
