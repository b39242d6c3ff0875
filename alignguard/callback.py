"""`AlignGuardCallback`: the Trainer's hooks, and nothing else. What is done at them stands in the other rooms."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import is_deepspeed_zero3_enabled

from . import __about__
from .ask import Asking, Result, ask_baseline, prompt_of, work
from .audit import Audit, audit
from .chat import Chat
from .draw import draw
from .errors import AlignGuardError, RunError, StartError
from .forward import read_head
from .generation import TokenBudget
from .measure import items_of, remember
from .observe import observing, trainer_autocast
from .probes import Probe, load_probes, pool_hash
from .reference import Reference, check_tokenizers, freeze_start, load_tokenizer
from .report import write_report
from .same_run import check_same_run
from .schedule import Schedule
from .scoring import ToxicityScorer
from .scoring.toxicity import INSTALL, default_toxicity, scorer_name
from .store import Store
from .trackers import NullTracker, Tracker, find_tracker
from .training import ask_training, sample_prompts, training_items, training_probes
from .verdict import compare, format_table

logger = logging.getLogger(__name__)


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
        reference (`str` or `PreTrainedModel`, *optional*, defaults to `"auto"`):
            The frozen start: `"copy"`, `"adapter"`, `"offload"` or `"cache"` (see `reference.py`); a model, or the path or
            hub id of one; `"auto"` takes the cheapest exact one, and says which and why.
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
        reverse (`int`, *optional*, defaults to `16`):
            On so many of the policy's own answers an audit also measures KL(policy || reference).
        train_prompts (`int`, *optional*, defaults to `16`):
            On so many training prompts drift is measured too; it predicts forgetting.
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
        reference: Any = "auto",
        schedule: Schedule | None = None,
        tokens: TokenBudget | None = None,
        toxicity: ToxicityScorer | None = None,
        template_kwargs: dict[str, Any] | None = None,
        tags: tuple[str, str] | None = None,
        reverse: int = 16,
        train_prompts: int = 16,
        seed: int = 0,
    ) -> None:
        self.pool = load_probes(probes)
        self.schedule = schedule or Schedule()
        self.tokens = tokens or TokenBudget()
        self.toxicity: Callable[[list[str]], list[float]] | None = toxicity or default_toxicity()
        self.template_kwargs, self.tags, self.seed = template_kwargs, tags, seed
        self.kind, self.reverse, self.train_prompts = reference, reverse, train_prompts
        self.prompts: dict[str, list[int]] = {}
        self.reference: Reference | None = None
        self.baseline: dict[str, Result] = {}
        self.audits: list[Audit] = []
        self._tracker: Tracker = NullTracker()
        self._reported: set[str] = set()
        self._begun = self._seconds = self._spent = 0.0
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
        if self.reference.kind == "given" and isinstance(self.kind, str):
            check_tokenizers(tokenizer, load_tokenizer(self.kind))
        if is_deepspeed_zero3_enabled():
            raise AlignGuardError("DeepSpeed ZeRO-3 shards the weights AlignGuard reads; use ZeRO-2 or FSDP2")
        again = self._begun > 0
        self._writes, self._begun = state.is_world_process_zero, time.perf_counter()
        self._bar_off = args.disable_tqdm or not self._writes
        self.asking = Asking(
            Chat.of(model, tokenizer, self.template_kwargs, self.tags),
            self.tokens,
            self.toxicity,
            trainer_autocast(args),
        )
        self.store = Store(args.output_dir)
        self.about = self._about(model, state)
        if state.global_step > 0:
            self._resume(state.global_step)
        elif again:  # a retry with a smaller batch, or a second train(): the start is still the first one's
            self.audits, self._spent = [], 0.0
            if self._writes:
                self.store.rewind(-1)
        elif self._writes:
            aside = self.store.set_aside()
            if aside is not None:
                self._say(f"AlignGuard: output_dir holds the record of another run; it was moved to {aside}")
        if self._writes:
            self.store.prepare()
        self._announce(state)
        self._tracker = find_tracker(args) if self._writes else NullTracker()
        self._guarded("the tracker", lambda: self._tracker.begin(self.about))
        if state.global_step == 0 and not again:
            dataset = getattr(kwargs.get("train_dataloader"), "dataset", None)
            self.prompts = sample_prompts(dataset, self.asking.chat, self.train_prompts, self.seed)
            self._ask_start(model, state.max_steps)
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
        asked = self._draw(step)
        missing = [probe for probe in asked if probe.id not in self.baseline]
        with self._bar(work(missing, baseline=True) + work(asked, baseline=False), f"AlignGuard audit, step {step}"):
            found = audit(
                model,
                None,
                asked,
                self.reference,
                baseline=self.baseline,
                asking=self.asking,
                step=step,
                reverse=self.reverse,
                prompts=self.prompts,
            )
        self._seconds = time.perf_counter() - begun
        found.metrics["alignguard/cost/seconds"] = self._seconds
        self._spent += self._seconds
        found.metrics["alignguard/cost/share"] = self._spent / (time.perf_counter() - self._begun)
        for earlier in self.audits:  # their answers are on disk, and their figures kept
            earlier.results = {}
        self.audits.append(found)
        verdict = compare(self.baseline, self.audits)
        if not self._writes:
            return
        if missing or step == 0:
            self._guarded("the store", lambda: self.store.write_baseline(self.about, self.baseline))
        self._guarded("the store", lambda: self.store.append(found))
        self._guarded("the tracker", lambda: self._tracker.log(found, self.audits))
        self._guarded("the report", lambda: write_report(self.store.report, self.about, self.audits, verdict))
        self._say(format_table(found, verdict))

    def _draw(self, step: int) -> list[Probe]:
        asked = draw(self.pool, self.schedule.draw, self.seed, step if self.schedule.rotate else 0)
        assert self.reference is not None
        if self.reference.model is None and any(probe.id not in self.baseline for probe in asked):
            # a cache knows what was planned; an audit that was not (a run stopped early) asks among that
            known = [probe for probe in self.pool if probe.id in self.baseline]
            asked = draw(known, self.schedule.draw, self.seed, step)
        return asked

    @contextmanager
    def _bar(self, total: int, what: str) -> Iterator[None]:
        with tqdm(total=total, desc=what, leave=False, disable=self._bar_off) as bar:
            self.asking.tick = lambda n: bar.update(n) and None
            yield

    def _ask_start(self, model: Any, last: int) -> None:
        """What only the start can say: its answers to training prompts and, for a cache, to all that will be asked."""
        assert self.reference is not None
        if self.prompts:
            with self.reference.awake(next(model.parameters()).device), self.reference.loaded() as frozen:
                self.baseline |= ask_training(frozen, self.prompts, self.asking)
            if self._writes:
                self.store.write_prompts(self.prompts)
        cache = self.reference.cache
        if cache is None:
            return
        with observing(model, autocast=self.asking.autocast):
            head, module = read_head(model), model.get_output_embeddings()
        plain = head.weight is not None and head.scale == 1.0 and not head.softcap
        cache.frozen_head = plain and not any(p.requires_grad for p in module.parameters())
        drawn = {probe.id for step in self.schedule.planned(last) for probe in self._draw(step)}
        asked = [probe for probe in self.pool if probe.id in drawn]
        with self._bar(work(asked, baseline=True), "AlignGuard asks the start"):
            self.baseline |= ask_baseline(model, asked, self.asking)
        chat = self.asking.chat
        items = items_of(asked, self.baseline, chat) + training_items(self.prompts, self.baseline, chat)
        with observing(model, autocast=self.asking.autocast):
            remember(model, self.reference, items, self.asking)
        if self._writes:
            cache.write(self.store.cache, self.reference.fingerprint)
            self.store.write_baseline(self.about, self.baseline)
        self.reference.model = None
        self._say(
            f"AlignGuard: {len(asked)} probes asked of the start; its cache takes {cache.bytes / 2**20:,.0f} MiB on disk"
        )

    def _about(self, model: Any, state: TrainerState) -> dict[str, Any]:
        assert self.reference is not None
        config = model.config
        return {
            "alignguard": __about__.__version__,
            "model": getattr(config, "_name_or_path", "") or config.model_type,
            "model_fingerprint": self.reference.fingerprint,
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
        assert self.reference is not None
        if self.reference.cache is not None:  # the start is on disk: whatever model was given, it is not needed
            self.reference.cache.open(self.store.cache, str(about["model_fingerprint"]))
            self.reference.model, self.reference.fingerprint = None, str(about["model_fingerprint"])
            self.about["model_fingerprint"] = self.reference.fingerprint
        check_same_run(self.store.root / "baseline.json", about, self.about)
        if self._writes:
            self.store.rewind(step)
        self.prompts = self.store.read_prompts()
        self.baseline = self.store.read_baseline([*self.pool, *training_probes(self.prompts, self.asking.chat)])
        self.audits = [a for a in self.store.read_audits(self.pool) if a.step <= step]

    def _announce(self, state: TrainerState) -> None:
        """What an audit will cost, before the first is taken."""
        assert self.reference is not None
        asked = draw(self.pool, self.schedule.draw, self.seed, 0)
        prompts = sum(len(prompt_of(probe, self.asking.chat)[0]) for probe in asked)
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
