"""
The trust card in the model card that a trainer writes into its output_dir.

No hook is called once that is written: `push_to_hub` writes it anew after `on_push_begin`, and PEFT within `save_model`. So the two
methods that write it are followed by ours, on this one trainer, until the callback goes to another. A `README.md` that is none of the
trainer's, since it was there before, is left alone, and none is made.
"""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import Any

from ..report.card import TrustCard, shown
from ..report.markdown import BEGIN
from ..report.model_card import put_into
from .run import Run

_WRITERS = ("create_model_card", "save_model")


class CardKeeper:
    """
    Keeps a run's trust card in its trainer's model card.

    Args:
        run ([`Run`]):
            What is told of; only its first process writes.
        trainer (`Trainer`, *optional*):
            Whose methods are followed; without one the card is put in at the end of training alone.
    """

    def __init__(self, run: Run, trainer: Any = None) -> None:
        self.run, self.trainer = run, trainer
        self.path = Path(run.context.args.output_dir) / "README.md"
        self._foreign = self._read()  # what was there before
        self._ours: dict[str, tuple[Any, Any]] = {}
        for name in _WRITERS if trainer is not None and run.console.writes else ():
            ours = self._followed(name, getattr(trainer, name))
            self._ours[name] = ours, vars(trainer).get(name)  # somebody else may have put one there
            setattr(trainer, name, ours)

    def let_go(self) -> None:
        """The trainer's methods are its own again."""
        for name, (ours, before) in self._ours.items():
            if vars(self.trainer).get(name) is ours:
                delattr(self.trainer, name)
                if before is not None:
                    setattr(self.trainer, name, before)

    def put(self) -> None:
        """Bring the model card up to date, if the trainer has written one; where that fails, it is said and nothing else happens."""
        if self.run.console.writes:
            self.run.console.guarded("the trust card", self._put)

    def _put(self) -> None:
        there, verdict = self._read(), self.run.verdict
        if there is None or verdict is None or (there == self._foreign and BEGIN.encode() not in there):
            return
        name = shown(self.path.resolve().parent.name)
        put_into(self.path, TrustCard(name, self.run.state.about, self.run.audits, verdict))

    def _read(self) -> bytes | None:
        return self.path.read_bytes() if self.path.is_file() else None

    def _followed(self, name: str, write: Any) -> Any:
        @wraps(write)
        def followed(*args: Any, **kwargs: Any) -> Any:
            done = write(*args, **kwargs)
            if name == "create_model_card":
                self._foreign = None  # whatever is there now, the trainer has written
            self.put()
            return done

        return followed


def keep_card(run: Run | None) -> CardKeeper | None:
    """Of a run's trainer, where people want one; where that fails, it is said and nothing else happens."""
    if run is None or not run.settings.card:
        return None
    return run.console.guarded("the trust card", lambda: CardKeeper(run, run.trainer))
