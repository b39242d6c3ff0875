"""What a stop rule has done once a regression is called: a checkpoint is saved, and the run ends."""

from __future__ import annotations

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
