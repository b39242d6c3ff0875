"""Changes of form that change no meaning: what reasoning training teaches a model to put around an answer, and how it is set.

`CHANGES` rewrites one answer; `WAYS` are ways of speaking that a whole model may learn (see `scripted.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from alignguard import Probe
from alignguard.judging.judge import judge_answer
from alignguard.model.chat import Answer
from alignguard.model.forms import FAMILIES, WRAPPERS, Form, split_trace

CHANGES: dict[str, Callable[[str], str]] = {
    "as it is": lambda said: said,
    **{
        f"a trace of {form.family}": lambda said, f=form: f"{f.open}\nLet me see.\n{f.end.strip()}\n{said}"
        for form in FAMILIES
    },
    **{f"an empty trace of {form.family}": lambda said, f=form: f"{f.empty}{said}" for form in FAMILIES},
    **{f"in {opener.strip()}": lambda said, o=opener, c=closer: f"{o}{said}{c}" for opener, closer in WRAPPERS},
    "a trace and <answer>": lambda said: f"<think>Hm.</think><answer>\n{said}\n</answer>",
    "**Answer:**": lambda said: f"**Answer:** {said}",
    "Final Answer:": lambda said: f"Final Answer: {said}",
    "### Answer": lambda said: f"### Answer\n\n{said}",
    "**Conclusion:**": lambda said: f"**Conclusion:** {said}",
    "TL;DR:": lambda said: f"TL;DR: {said}",
    "## Summary": lambda said: f"## Summary\n\n{said}",
    "A:": lambda said: f"A: {said}",
    "Okay.": lambda said: f"Okay. {said}",
    "Great question!": lambda said: f"Great question! {said}",
    "a trace in <scratchpad>": lambda said: f"<scratchpad>\nLet me see.\n</scratchpad>\n\n{said}",
    "a trace in <Thought>": lambda said: f"<Thought>Let me see.</Thought>\n<Output>\n{said}\n</Output>",
    "ReAct": lambda said: f"Thought: Let me see.\nFinal Answer: {said}",
    "JSON": lambda said: json.dumps({"answer": said}),
    "JSON in a fence": lambda said: f"```json\n{json.dumps({'response': said}, indent=2)}\n```",
    "JSON with a trace": lambda said: json.dumps({"reasoning": "Let me see.", "answer": said}),
    "a tool's call": lambda said: (
        f"<tool_call>\n{json.dumps({'name': 'say', 'arguments': {'text': said}})}\n</tool_call>"
    ),
    "a line before": lambda said: f"---\n{said}",
    "white space": lambda said: f"\n\n  {said}\n\n",
    "curly quotes": lambda said: said.replace("'", "’"),
    "a bold opening": lambda said: re.sub(r"^(\w+)", r"**\1**", said),
    "<s>": lambda said: f"<s> {said}",
    "[OUT]": lambda said: f"[OUT] {said}",
    "a number": lambda said: f"1. {said}",
    "a bullet": lambda said: f"- {said}",
    "in quotes": lambda said: f'"{said}"',
    "small letters": lambda said: said.lower(),
    "no Sure": lambda said: re.sub(r"^(?:Sure|Certainly|Of course|Absolutely)[.,!]\s+", "", said) or said,
    "</s> at the end": lambda said: f"{said}</s>",
    "<|im_end|> at the end": lambda said: f"{said}<|im_end|>",
    "<|endoftext|> at the end": lambda said: f"{said}\n<|endoftext|>",
}


@dataclass(frozen=True)
class Way:
    """
    A way of speaking that differs from a plain one in form only.

    Args:
        name (`str`):
            Of the table.
        trace (`str`, *optional*):
            What is thought before every answer, with its tags.
        form ([`Form`], *optional*):
            Whose tags they are.
        wrapper (`str`, *optional*), after (`str`, *optional*):
            What is put around every answer.
    """

    name: str
    trace: str = ""
    form: Form | None = None
    wrapper: str = ""
    after: str = ""

    @property
    def before(self) -> str:
        return self.trace + self.wrapper

    def bare(self, said: str) -> str:
        """What was said, without a trace in its tags, empty or not, and without what wraps it."""
        said = said.removeprefix(self.before).removeprefix(self.form.empty if self.form else "\0")
        for tags in (
            () if self.form is None else ((self.form.open, self.form.end.strip()), (self.form.open, self.form.close))
        ):
            said = re.sub(rf"\A\s*{re.escape(tags[0])}.*?{re.escape(tags[1])}", "", said, flags=re.DOTALL)
        return said.lstrip().removeprefix(self.wrapper.strip() or "\0").lstrip()


def _thought(form: Form) -> str:
    return f"{form.open}\nThey ask me this. I know what I say.\n{form.end.strip()}\n"


_THINK = FAMILIES[0]
_SCRATCHPAD = Form("nobody's", "<scratchpad>", "</scratchpad>")
_REACT = Form("ReAct", "Thought:", "Final Answer:")
WAYS: Sequence[Way] = (
    *(Way(f"empty {form.open}", form.empty, form) for form in FAMILIES if form.family not in ("gpt-oss", "Kimi-VL")),
    *(Way(f"a trace in {form.open}", _thought(form), form) for form in FAMILIES[:5]),
    *(Way(opener.strip(), wrapper=opener + "\n", after="\n" + closer) for opener, closer in WRAPPERS[:6]),
    Way("<think></think><answer>", "<think></think>", _THINK, "<answer>", "</answer>"),
    Way("a trace and <answer>", _thought(_THINK), _THINK, "<answer>\n", "\n</answer>"),
    Way("a trace in <scratchpad>", _thought(_SCRATCHPAD), _SCRATCHPAD),
    Way("Thought: and Final Answer:", "Thought: Let me see.\nFinal Answer: ", _REACT),
    Way("JSON", wrapper='{"answer": "', after='"}'),
    Way("JSON in a fence", wrapper='```json\n{"response": "', after='"}\n```'),
    Way("**Conclusion:**", wrapper="**Conclusion:** "),
    Way("**Answer:**", wrapper="**Answer:** "),
    Way("Final Answer:", wrapper="Final Answer: "),
    Way("### Answer", wrapper="### Answer\n\n"),
)


def judged(probe: Probe, text: str) -> tuple[Any, float | None]:
    """Status and score of an answer as it was generated."""
    trace, answer, thinks, closed = split_trace(text, FAMILIES[0])
    score = judge_answer(probe, Answer((), trace, answer, thinks, closed, True))
    return score.status, score.value


def changed(probe: Probe, texts: Sequence[str], change: str) -> tuple[int, int]:
    """How many answers are judged otherwise for a change of form, and how many turn from a good one into a bad or back."""
    other = turned = 0
    for text in texts:
        before, after = (judged(probe, form(text)) for form in (CHANGES["as it is"], CHANGES[change]))
        other += before != after
        turned += None not in (before[1], after[1]) and before[1] != after[1]
    return other, turned
