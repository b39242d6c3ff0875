"""After a regression: the weights of the last aligned checkpoint, back into the model."""

from __future__ import annotations

from ..errors import RunError
from ..model.checkpoints import latest_checkpoint
from ..model.restore import load_whole, restore_weights
from .start import RunContext


def restore(context: RunContext, last_aligned: int, run: str) -> str:
    """
    Put them back, where there is such a checkpoint, and say so.

    Args:
        context ([`RunContext`]):
            What the run works with.
        last_aligned (`int`):
            The last step at which an audit looked aligned.
        run (`str`):
            The run's id, which its checkpoints tell.

    Returns:
        `str`: whose weights these are; empty where there was nothing to put back.

    Raises:
        RunError: Not all processes see the checkpoint, or it holds no weights for this model. Nothing was put back then.
    """
    model, reference, say = context.model, context.reference, context.console.say
    folder = latest_checkpoint(context.args.output_dir, last_aligned, run)
    seen = context.asking.ranks.together(lambda: "" if folder is None else folder.name)
    if len(set(seen)) > 1:
        own = [f"process {rank} sees {name or 'none'}" for rank, name in enumerate(seen)]
        raise RunError(
            f"not all processes see the last aligned checkpoint ({', '.join(own[:4])}), so no weights were put back; give an output_dir "
            "that all nodes share, or save_on_each_node=True"
        )
    if folder is not None:
        restore_weights(model, folder)
        say(f"AlignGuard: the weights of {folder} were put back")
        return folder.name
    if last_aligned == 0 and reference.kind in ("copy", "offload"):
        load_whole(model, reference.model.state_dict(), "the frozen start")
        say("AlignGuard: no audit after step 0 was aligned; the weights of the start were put back")
        return "the start"
    say("AlignGuard: there is no aligned checkpoint to restore; the weights are left as they are")
    return ""
