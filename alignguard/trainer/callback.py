"""`AlignGuardCallback`: the Trainer's hooks, and nothing else. What is done at them stands in the other rooms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ..auditing.audit import Audit
from ..distributed import Ranks, will_shard
from ..drift.reference import Reference, freeze_start
from ..errors import AlignGuardError, StartError
from ..given import is_flag, need
from ..holding.budget import DriftBudget
from ..judging.scorers import judge_of, scorer_of
from ..model.checkpoints import mark
from ..model.generation import TokenBudget
from ..model.loading import check_reference_tokenizer
from ..model.observe import is_within, restored_rng, trainer_autocast, uncompiled
from ..probes.pool import load_probes
from ..probes.probe import Probe
from ..verdicts.rule import StopRule
from .acting import act_at_the_end, asked_for
from .card import CardKeeper, keep_card
from .checks import LATE, check_alone, check_reference, check_start_was_seen, tell_of_half_written
from .chosen import chosen_figure, figures_of
from .loop import training_loop
from .pace import AUDIT, NOTHING
from .restore import restore
from .run import Run
from .schedule import Schedule
from .seen import Seen
from .settings import Settings

logger = logging.getLogger("alignguard")
_NAME = "AlignGuardCallback"


class AlignGuardCallback(TrainerCallback):
    """
    Audits a model while it is being trained: trust probes in six dimensions, and the drift from the frozen start.

    By default it watches only: with the same seed, losses, logs and final weights are those of a run without it.

    Args:
        trainer (`Trainer`, *optional*):
            Needed with `trainer.add_callback(AlignGuardCallback(trainer))`, so that the start is kept at that line; in
            `callbacks=[AlignGuardCallback()]` it is not.
        probes (`str` or `Sequence`, *optional*, defaults to `"core"`):
            As for [`load_probes`]: `"core"`, names of dimensions, JSONL files, [`Probe`]s, datasets, published benchmarks.
        reference (`str` or `PreTrainedModel`, *optional*, defaults to `"auto"`):
            The frozen start: `"copy"`, `"adapter"`, `"offload"` or `"cache"` (see `docs/reference.md`); a model, or the path or
            hub id of one; `"auto"` takes the cheapest exact one, and says which and why.
        schedule ([`Schedule`], *optional*):
            When to audit, and how many probes.
        tokens ([`TokenBudget`], *optional*):
            How long answers and traces may be.
        toxicity (`str` or `Callable[[list[str]], list[float]]`, *optional*):
            Texts to probabilities of being toxic: a callable, or the name or path of a text classifier or generative
            guard. alt-profanity-check by default, where it is installed; `"minilm"` reads meaning, offline too, and
            alarms at many a harmless mention of a group (`docs/judging.md`).
        judge (`str` or `Callable[[str, str], float]`, *optional*):
            From prompt and answer to a score in [0, 1], for probes with the judge `own`: a callable, or the name or path
            of a generative guard.
        stop ([`StopRule`], *optional*):
            What is done on a proven regression. By default it is told, and nothing is stopped.
        budget ([`DriftBudget`], *optional*):
            Hold the model within it, by the gradient of an exact KL to the start. By default nothing is added.
        template_kwargs (`dict[str, Any]`, *optional*):
            For the chat template, e.g. `{"enable_thinking": True}`.
        tags (`tuple[str, str]`, *optional*):
            Thinking tags; by default those of the chat template, else those that the start writes, else `<think>` and `</think>`.
        reverse (`int`, *optional*, defaults to `16`):
            On so many of the policy's own answers an audit also measures KL(policy || reference).
        train_prompts (`int`, *optional*, defaults to `16`):
            On so many training prompts drift is measured too; it predicts forgetting.
        seed (`int`, *optional*, defaults to `0`):
            Of the draws.
        quote (`bool`, *optional*, defaults to `True`):
            Whether trackers, alerts and the report quote prompts and answers; they stay in OUTPUT_DIR/_alignguard all
            the same, which `push_to_hub` leaves out.
        metrics (`bool`, *optional*, defaults to `False`):
            Whether all of our figures join the trainer's own evaluation metrics, as `eval_alignguard/...`. By default only the
            one does that `metric_for_best_model` names; each evaluation then has an audit of its own (`docs/figures.md`).
        engine (`str`, *optional*):
            What generates the policy's answers: `"trainer"` for the vLLM engine that the trainer itself generates with (GRPO, RLOO
            with `use_vllm=True`), asked greedily and with the weights of that step. By default the policy itself. All that is
            read off likelihoods stays with the model. See `docs/trainers.md`.
        rows (`bool`, *optional*, defaults to `True`):
            Whether it is kept which rows went into which step, and their tokens: [`trace`] tells from it where a regression came from.
        trace (`bool`, *optional*, defaults to `False`):
            Whether it is traced at the step where a regression is called, over some 500 rows: three forward passes over them, and
            four copies of a quarter of the weights for that time. Told by number, and by text in OUTPUT_DIR/_alignguard/traces alone.
        card (`bool`, *optional*, defaults to `True`):
            Whether the `README.md` that the trainer writes into its output_dir gets a section on trust, in figures alone, its
            metadata too, and a picture beside it. None is made where the trainer writes none. See `alignguard card`.

    Raises:
        AlignGuardError: A mistake of configuration, before the first step. After that nothing of ours ends a run
            but a [`StopRule`], and a process that was lost.

    Example:
    ```python
    >>> from alignguard import AlignGuardCallback
    >>> trainer = SFTTrainer(model, train_dataset=dataset, callbacks=[AlignGuardCallback()])
    >>> trainer.train()
    ```
    """

    @restored_rng()  # what it imports and loads may draw
    def __init__(
        self,
        trainer: Any = None,
        probes: str | Path | Sequence[str | Path | Probe] = "core",
        reference: Any = "auto",
        schedule: Schedule | None = None,
        tokens: TokenBudget | None = None,
        toxicity: str | Callable[[list[str]], list[float]] | None = None,
        judge: str | Callable[[str, str], float] | None = None,
        stop: StopRule | None = None,
        budget: DriftBudget | None = None,
        template_kwargs: dict[str, Any] | None = None,
        tags: tuple[str, str] | None = None,
        reverse: int = 16,
        train_prompts: int = 16,
        seed: int = 0,
        quote: bool = True,
        metrics: bool = False,
        engine: str | None = None,
        rows: bool = True,
        trace: bool = False,
        card: bool = True,
    ) -> None:
        attached = trainer is None or (hasattr(trainer, "model") and hasattr(trainer, "args"))
        need(attached, "the first argument is the trainer; give probes=, a model as reference=", trainer, where=_NAME)
        need(is_flag(metrics), "metrics= is True or False", metrics, where=_NAME)
        check_reference(reference)
        self.settings = Settings(
            pool=load_probes(probes),
            schedule=Schedule() if schedule is None else schedule,
            tokens=TokenBudget() if tokens is None else tokens,
            toxicity=scorer_of(toxicity),
            judge=judge_of(judge),
            stop=stop,
            template_kwargs=template_kwargs,
            tags=tags,
            reverse=reverse,
            train_prompts=train_prompts,
            seed=seed,
            budget=budget,
            quote=quote,
            engine=engine,
            rows=rows,
            trace=trace,
            card=card,
        )
        self.trainer, self.kind, self.metrics = trainer, reference, metrics
        self.reference: Reference | None = None
        self.run: Run | None = None
        self._model: Any = None  # whose start it is
        self._card: CardKeeper | None = None
        self._seen: Seen | None = None  # while it watches a training, from its first step on
        self._told_late = False
        if trainer is not None:
            self._freeze(trainer.model, trainer.args)

    # hooks ---------------------------------------------------------------------------------------------------------

    @restored_rng()
    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Keep the start: here no trainer has patched the model yet, and no checkpoint has been loaded."""
        if kwargs.get("model") is not None:
            self.trainer = None  # the one that was given is another
            self._freeze(kwargs["model"], args)

    @restored_rng()
    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Everything that can be wrong is found here, and the audit of step 0 is taken."""
        model, tokenizer = uncompiled(kwargs["model"]), kwargs.get("processing_class")
        if tokenizer is None:
            raise AlignGuardError("the trainer has no tokenizer; give it processing_class=tokenizer")
        if self._model is not None and state.global_step == 0 and not is_within(self._model, model):
            self.trainer = None  # a second one, or a search that builds a model for each trial
            self._freeze(model, args)
        trainer = training_loop().get("self", self.trainer)  # a callback may be given to another, of the same model
        check_alone(trainer, AlignGuardCallback)
        if self.reference is None:
            check_start_was_seen(state.global_step, self.kind)
            self._freeze(model, args)
        assert self.reference is not None
        if self.reference.kind == "given" and isinstance(self.kind, (str, Path)) and self.run is None:
            check_reference_tokenizer(str(self.kind), tokenizer, state.is_world_process_zero)
        # a model that was given stays as it is
        fit = self.reference.follow if isinstance(self.kind, (str, Path)) else self.reference.check_tokens
        fit(model, len(getattr(tokenizer, "tokenizer", tokenizer)))
        # one that failed, or was interrupted, before its start was asked is none to go on from
        earlier = self.run if self.run is not None and self.run.started else None
        writes = state.is_world_process_zero
        self.run = Run(self.settings, self.reference, args, model, tokenizer, state.max_steps, writes, trainer)
        run, loader = self.run, kwargs.get("train_dataloader")
        run.ranks.together(lambda: run.begin(state.global_step, getattr(loader, "dataset", None), earlier))
        mark(state, run.state.about.id)
        if self._seen is not None:  # of a training that broke off
            self._seen.order.end()
        self._seen = Seen(run.context, loader, state.global_step, trainer, run.also)
        run.catch_up(state.global_step, kwargs.get("optimizer"))
        self._keep_card(run)
        self._act(control)  # a second train() may begin where the first one ended badly

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The training set is gone through once more."""
        if self._seen is not None:
            self._seen.epoch()

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """A batch of several that a step is taken on."""
        if self._seen is not None:
            self._seen.batch()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gradients are zero here: what is added now is clipped and applied with the trainer's own."""
        if self.run is not None and self._seen is not None:
            self.run.hold(state.global_step, kwargs.get("optimizer"))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What was unfrozen since the last step has not moved yet: its start is kept."""
        if self.run is not None and self._seen is not None:
            self.run.keep_up(kwargs.get("optimizer"))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The learning rate is again what the schedule says."""
        if self.run is not None and self._seen is not None and self.run.state.holder is not None:
            self.run.state.holder.let_go(kwargs.get("optimizer"))

    @restored_rng()
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Audit where one is due; the last one here, since trackers close before our `on_train_end`."""
        if self.run is None or self._seen is None:
            return self._tell_late(state)
        due = self.run.due(state.global_step, control.should_training_stop, control.should_evaluate)
        self._seen.step(state.global_step)
        self._look(due, state.global_step, control, kwargs.get("optimizer"))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What a run that is resumed here has seen."""
        if self._seen is not None:
            self._seen.keep()

    @restored_rng()
    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Our figures among the trainer's metrics: the one that it chooses by, or all, if asked for (see `chosen.py`)."""
        metrics, run, step = kwargs.get("metrics"), self.run, state.global_step
        if metrics is not None and run is not None:
            if self._seen is not None:  # else this training is none that we watch
                self._look(run.owed(step), step, control, kwargs.get("optimizer"))
            of, tell = run.state.about.put_back, run.console.tell_once
            metrics |= figures_of(run.audits, step, of, chosen_figure(args), self.metrics, tell)

    @restored_rng()
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say where everything is."""
        if self.run is None or self._seen is None:
            return self._tell_late(state)
        self.run.close_trackers()
        self._seen.end()
        self._seen = None
        best = args.load_best_model_at_end and state.best_model_checkpoint
        if not best and (not self.audits or self.audits[-1].step != state.global_step):
            self.run.look(state.global_step, kwargs.get("optimizer"))  # stopped by a callback that comes after ours
            act_at_the_end(self.run, state.global_step)
        rule, run, verdict, put_back = self.settings.stop, self.run, self.run.verdict, ""
        if best and self.audits and Path(best).name != f"checkpoint-{self.audits[-1].step}":
            put_back = Path(best).name
        if rule is not None and rule.restore and verdict is not None and verdict.since:
            step, what = verdict.last_aligned_step, "restoring the weights"
            done = run.console.guarded(
                what, lambda: run.ranks.together(lambda: restore(run.context, step, run.state.about.id))
            )
            put_back = next(filter(None, done or ()), put_back)
        run.state.about = replace(run.state.about, put_back=put_back)
        run.end()
        if self._card is not None:
            self._card.put()

    # -----------------------------------------------------------------------------------------------------------------

    @property
    def audits(self) -> list[Audit]:
        """All so far; only the latest holds its answers, the others' are on disk."""
        return self.run.audits if self.run is not None else []

    def _look(self, due: str, step: int, control: TrainerControl, optimizer: Any) -> None:
        """An audit or a pulse, where one is due, and what follows from it."""
        if due == NOTHING or self.run is None or self._seen is None:
            return
        if due == AUDIT:
            self._seen.keep()
        self.run.look(step, optimizer, due)
        if due == AUDIT:
            self._act(control)

    def _tell_late(self, state: TrainerState) -> None:
        """Put in by another callback, in the middle of a training."""
        if state.is_world_process_zero and not self._told_late:
            self._told_late = True
            logger.warning(f"AlignGuard: {LATE}")

    def _keep_card(self, run: Run | None) -> None:
        """A model card tells of this run from now on, and of no earlier one."""
        if self._card is not None:
            self._card.let_go()
        self._card = keep_card(run)

    def _freeze(self, model: Any, args: Any) -> None:
        """A model's own start, and nothing of what another one said."""
        self._keep_card(None)
        self.reference = self.run = None
        self._model = uncompiled(model)
        tell_of_half_written(args)

        def freeze() -> None:
            self.reference = freeze_start(uncompiled(model), self.kind, will_shard(args), trainer_autocast(args))

        if short := Ranks().short_of_memory(freeze):
            raise StartError(f"memory runs out as the start is kept ({short}); take reference='cache' or 'offload'")

    def _act(self, control: TrainerControl) -> None:
        """What the stop rule asks for."""
        assert self.run is not None
        save, stop = asked_for(self.run)
        control.should_save |= save
        control.should_training_stop |= stop
