"""What a stop rule has done once a regression is called: a checkpoint is saved, and the run ends."""

from __future__ import annotations

from ..model.checkpoints import latest_checkpoint
from .loop import training_loop
from .run import Run


def asked_for(run: Run) -> tuple[bool, bool]:
    """
    Whether a checkpoint is to be saved, and whether the run is to end; asked once of each audit, and the same on every process,
    since the first one's verdict counts.

    Args:
        run ([`Run`]):
            Of whose latest audit.
    """
    rule = run.settings.stop
    if rule is None:
        return False, False
    called, aligned = run.ranks.first((run.to_act, run.just_aligned))
    run.to_act = run.just_aligned = False
    # a regression that is called later finds its way back to an aligned audit
    return (called and rule.checkpoint) or (aligned and rule.restore), called and rule.stop


def act_at_the_end(run: Run, step: int) -> None:
    """
    The same of an audit that was taken when training had ended: no trainer saves any more by itself.

    Args:
        run ([`Run`]):
            Of whose latest audit.
        step (`int`):
            Of the trainer.
    """
    save, _ = asked_for(run)
    if not save:
        return
    saved = latest_checkpoint(run.context.args.output_dir, step, run.state.about.id)
    if run.ranks.first(saved is not None and saved.name == f"checkpoint-{step}"):
        return
    if getattr(run.trainer, "_save_checkpoint", None) is None:
        run.console.say(
            f"AlignGuard: the last audit, of step {step}, was taken when training had ended; its checkpoint cannot be saved, since the "
            "trainer is not known: save the weights yourself"
        )
        return
    trial = training_loop().get("trial")  # of a search, whose trials have folders of their own
    run.console.guarded(
        "saving a checkpoint",
        lambda: run.ranks.together(lambda: run.trainer._save_checkpoint(run.trainer.model, trial)),
    )
