"""`AlignGuardCallback`: the Trainer's hooks, and nothing else. What is done at them stands in the other rooms."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from . import __about__
from .ask import Asking, Result, ask_baseline, turns, work
from .audit import Audit, audit
from .chat import Chat
from .draw import draw
from .errors import AlignGuardError, RunError, StartError
from .generation import TokenBudget
from .observe import trainer_autocast
from .probes import Probe, load_probes, pool_hash
from .reference import Reference, fingerprint, freeze_start
from .report import write_report
from .schedule import Schedule
from .scoring import ToxicityScorer
from .scoring.toxicity import INSTALL, default_toxicity, scorer_name
from .store import Store
from .trackers import NullTracker, Tracker, find_tracker
from .verdict import compare, format_table

logger = logging.getLogger(__name__)

# what must be the same when a run is resumed, and how an error names it
_MUST_MATCH = {
    "model_fingerprint": "the model given is not the one this run began with; load the same start and let "
    "resume_from_checkpoint load the checkpoint's weights",
    "tokenizer_fingerprint": "the tokenizer or its chat template is not the one this run began with",
    "pool_hash": "the probes are not those this run began with; give the same probes=",
    "toxicity": "the toxicity scorer is not the one this run began with",
    "seed": "the seed is not the one this run began with",
    "answer_tokens": "the token budget of answers is not the one this run began with",
    "trace_tokens": "the token budget of traces is not the one this run began with",
}


class AlignGuardCallback(TrainerCallback):
    """
    Audits a model while it is being trained: trust probes in six dimensions, and the drift from the frozen start.

    It watches only: with the same seed, losses, logs and final weights are those of a run without it.

    Args:
        trainer (`Trainer`, *optional*):
            Needed with `trainer.add_callback(AlignGuardCallback(trainer))`; in `callbacks=[AlignGuardCallback()]` it is
            not.
        probes (`str` or `Sequence`, *optional*, defaults to `"core"`):
            As for [`load_probes`]: `"core"`, names of dimensions, JSONL files, lists of [`Probe`].
        reference (`str`, *optional*, defaults to `"auto"`):
            The frozen start: `"copy"`, a second model on the same device; `"adapter"`, the policy with its adapters
            switched off; `"auto"`, the latter wherever that is the start.
        schedule ([`Schedule`], *optional*):
            When to audit, and how many probes.
        tokens ([`TokenBudget`], *optional*):
            How long answers and traces may be.
        toxicity (`Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic. alt-profanity-check by default, where it is installed.
        template_kwargs (`dict[str, Any]`, *optional*):
            For the chat template, e.g. `{"enable_thinking": True}`.
        tags (`tuple[str, str]`, *optional*):
            Thinking tags; found in the chat template by default, else `<think>` and `</think>`.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws.

    Raises:
        AlignGuardError: A mistake of configuration, before the first step. After that nothing of ours ends a run.

    Example:
    ```python
    >>> from alignguard import AlignGuardCallback
    >>> trainer = SFTTrainer(model, train_dataset=dataset, callbacks=[AlignGuardCallback()])
    >>> trainer.train()
    ```
    """

    def __init__(
        self,
        trainer: Any = None,
        probes: str | Path | Sequence[str | Path | Probe] = "core",
        reference: str = "auto",
        schedule: Schedule | None = None,
        tokens: TokenBudget | None = None,
        toxicity: ToxicityScorer | None = None,
        template_kwargs: dict[str, Any] | None = None,
        tags: tuple[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self.pool = load_probes(probes)
        self.schedule = schedule or Schedule()
        self.tokens = tokens or TokenBudget()
        self.toxicity: Callable[[list[str]], list[float]] | None = toxicity or default_toxicity()
        self.template_kwargs, self.tags, self.seed = template_kwargs, tags, seed
        self.kind = reference
        self.reference: Reference | None = None
        self.baseline: dict[str, Result] = {}
        self.audits: list[Audit] = []
        self._tracker: Tracker = NullTracker()
        self._reported: set[str] = set()
        self._seconds = self._spent = 0.0
        if trainer is not None:
            self.reference = freeze_start(trainer.model, self.kind)

    # hooks ---------------------------------------------------------------------------------------------------------

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the start: here no trainer has patched the model yet, and no checkpoint has been loaded."""
        if self.reference is None and kwargs.get("model") is not None:
            self.reference = freeze_start(kwargs["model"], self.kind)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Everything that can be wrong is found here, and the audit of step 0 is taken."""
        model, tokenizer = kwargs["model"], kwargs.get("processing_class")
        if tokenizer is None:
            raise AlignGuardError("the trainer has no tokenizer; give it processing_class=tokenizer")
        if self.reference is None:
            if state.global_step > 0:
                raise StartError(
                    "this run is resumed, and its start was not seen: use callbacks=[AlignGuardCallback()] or "
                    "trainer.add_callback(AlignGuardCallback(trainer)) before trainer.train()"
                )
            self.reference = freeze_start(model, self.kind)
        self._writes, self._begun = state.is_world_process_zero, time.perf_counter()
        self._bar_off = args.disable_tqdm or not self._writes
        self.asking = Asking(
            Chat.of(model, tokenizer, self.template_kwargs, self.tags),
            self.tokens,
            self.toxicity,
            trainer_autocast(args),
        )
        self.store = Store(args.output_dir)
        self.about = self._about(args, state)
        if state.global_step > 0:
            self._resume(state.global_step)
        elif self._writes:
            aside = self.store.set_aside()
            if aside is not None:
                self._say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
        if self._writes:
            self.store.prepare()
        self._announce(state)
        self._tracker = find_tracker(args) if self._writes else NullTracker()
        self._guarded("the tracker", lambda: self._tracker.begin(self.about))
        if state.global_step == 0:
            self._audit(model, 0)
            planned = len(self.schedule.planned(state.max_steps)) - 1
            self._say(
                f"AlignGuard: {planned} more audits, about {self._seconds:.0f} s each while answers stay this long"
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Audit where one is due; the last one here, since trackers close before our `on_train_end`."""
        if self.schedule.due(state.global_step, state.max_steps) or control.should_training_stop:
            self._guarded("the audit", lambda: self._audit(kwargs["model"], state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say where everything is."""
        best = args.load_best_model_at_end and state.best_model_checkpoint
        if not best and (not self.audits or self.audits[-1].step != state.global_step):
            # stopped by a callback that comes after ours
            self._guarded("the audit", lambda: self._audit(kwargs["model"], state.global_step))
        if self._writes:
            self._say(
                f"AlignGuard: {len(self.audits)} audits\n  report   {self.store.report}\n"
                f"  figures  {self.store.root / 'audits.jsonl'}\n  answers  {self.store.root / 'answers'}"
            )

    # what they do --------------------------------------------------------------------------------------------------

    def _audit(self, model: Any, step: int) -> None:
        assert self.reference is not None
        begun = time.perf_counter()
        asked = draw(self.pool, self.schedule.draw, self.seed, step if self.schedule.rotate else 0)
        missing = [probe for probe in asked if probe.id not in self.baseline]
        total = work(missing, baseline=True) + work(asked, baseline=False)
        with tqdm(total=total, desc=f"AlignGuard audit, step {step}", leave=False, disable=self._bar_off) as bar:
            self.asking.tick = lambda n: bar.update(n) and None
            if missing:
                with self.reference.loaded() as frozen:
                    self.baseline |= ask_baseline(frozen, missing, self.asking)
            found = audit(model, None, asked, self.reference, baseline=self.baseline, asking=self.asking, step=step)
        self._seconds = time.perf_counter() - begun
        found.metrics["alignguard/cost/seconds"] = self._seconds
        self._spent += self._seconds
        found.metrics["alignguard/cost/share"] = self._spent / (time.perf_counter() - self._begun)
        self.audits.append(found)
        verdict = compare(self.baseline, self.audits)
        if not self._writes:
            return
        if missing:
            self._guarded("the store", lambda: self.store.write_baseline(self.about, self.baseline))
        self._guarded("the store", lambda: self.store.append(found))
        self._guarded("the tracker", lambda: self._tracker.log(found, self.audits))
        self._guarded("the report", lambda: write_report(self.store.report, self.about, self.audits, verdict))
        self._say(format_table(found, verdict))

    def _about(self, args: TrainingArguments, state: TrainerState) -> dict[str, Any]:
        assert self.reference is not None
        config = self.reference.model.config
        return {
            "alignguard": __about__.__version__,
            "model": getattr(config, "_name_or_path", "") or config.model_type,
            "model_fingerprint": fingerprint(self.reference),
            "tokenizer_fingerprint": self.asking.chat.fingerprint(),
            "reference": self.reference.kind,
            "pool_hash": pool_hash(self.pool),
            "probes": len(self.pool),
            "draw": self.schedule.draw,
            "seed": self.seed,
            "toxicity": scorer_name(self.toxicity),
            "tags": list(self.asking.chat.tags),
            "answer_tokens": self.tokens.answer,
            "trace_tokens": self.tokens.trace,
            "max_steps": state.max_steps,
        }

    def _resume(self, step: int) -> None:
        """Take up the record of the run, if it can be proven to be this run's."""
        about = self.store.read_about()
        if about is None:
            raise RunError(
                f"the run is resumed at step {step}, but {self.store.root} holds no baseline.json of it; "
                "put the record back, or begin anew without resume_from_checkpoint"
            )
        for key, message in _MUST_MATCH.items():
            if about.get(key) != self.about[key]:
                raise RunError(
                    f"{self.store.root / 'baseline.json'}: {message} ({key}: {about.get(key)} then, {self.about[key]} now)"
                )
        if self._writes:
            self.store.rewind(step)
        self.baseline = self.store.read_baseline(self.pool)
        self.audits = [a for a in self.store.read_audits(self.pool) if a.step <= step]

    def _announce(self, state: TrainerState) -> None:
        """What an audit will cost, before the first is taken."""
        assert self.reference is not None
        asked = draw(self.pool, self.schedule.draw, self.seed, 0)
        prompts = sum(len(self.asking.chat.prompt_ids(turns(probe))) for probe in asked)
        spoken = sum(probe.judge != "choice" for probe in asked)
        steps = self.schedule.planned(state.max_steps)
        shown = ", ".join(map(str, steps[:8])) + (f", ... {steps[-1]}" if len(steps) > 8 else "")
        self._say(
            f"AlignGuard: {len(asked)} probes an audit ({prompts:,} prompt tokens, at most {spoken} answers of "
            f"{self.tokens.answer} tokens and traces of {self.tokens.trace}); {len(steps)} audits, at steps {shown}\n"
            f"AlignGuard: reference '{self.reference.kind}' ({self.reference.why}), {self.reference.bytes / 2**20:,.0f} MiB "
            f"beside the policy; toxicity by {scorer_name(self.toxicity)}"
        )
        if self.toxicity is None and any(probe.judge == "toxicity" for probe in self.pool):
            self._say(f"AlignGuard: toxicity stays unscored; {INSTALL}, or give toxicity= a callable")

    def _say(self, text: str) -> None:
        if self._writes:
            tqdm.write(text)

    def _guarded(self, what: str, do: Callable[[], Any]) -> None:
        """After training has begun nothing of ours ends it: a failure is reported once, in one line."""
        try:
            do()
        except Exception as error:
            if what not in self._reported:
                self._reported.add(what)
                line = " ".join(str(error).split())[:300]
                logger.warning(f"AlignGuard: {what} failed and training goes on ({type(error).__name__}: {line})")
                logger.debug("details", exc_info=True)
