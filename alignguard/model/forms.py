"""How families of models write what they think and what they answer: form, which is shown and never scored.

A form is read off the chat template, by rendering a turn that thinks: a template that keeps traces writes the tags, the empty
trace and the wrapper of its family itself. Where it shows none, the family is told by what the start itself says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

QUESTION, _TRACE, ANSWER = "Question 4711", "Trace 4712", "Answer 4713"  # what no template writes by itself
_KEYS = ("reasoning_content", "reasoning", "thinking")  # what templates call a turn's trace
_MARKER = re.compile(
    r"<[^<>\s]{0,40}(?:think|thought|reason)[^<>\s]{0,40}>|\[/?(?:THINK|THOUGHT|REASON)\w*\]", re.IGNORECASE
)


@dataclass(frozen=True)
class Form:
    """
    How one family writes a turn.

    Args:
        family (`str`):
            Who writes so.
        open, close (`str`):
            What begins a trace, and what ends it, without white space.
        empty (`str`, *optional*, defaults to `""`):
            An empty, closed trace as it stands before an answer; by default both tags with empty lines.
        end (`str`, *optional*, defaults to `""`):
            What closes a trace from inside, up to the answer; by default the tag with empty lines.
        lead (`str`, *optional*, defaults to `""`):
            What stands before an answer that was not thought about.
        why (`str`, *optional*, defaults to `""`):
            How it was found.
        assumed (`bool`, *optional*, defaults to `False`):
            Whether nothing told of it, so that it is the usual one.
    """

    family: str
    open: str
    close: str
    empty: str = ""
    end: str = ""
    lead: str = ""
    why: str = ""
    assumed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "empty", self.empty or f"{self.open}\n\n{self.close}\n\n")
        object.__setattr__(self, "end", self.end or f"\n{self.close}\n\n")


_FINAL = "<|channel|>final<|message|>"
# each with where it is written so: the model's chat template, or its paper's prompt
FAMILIES = (
    Form(
        "<think>", "<think>", "</think>"
    ),  # DeepSeek-R1, Qwen3, QwQ, GLM-4.5, Nemotron, LFM2.5, SmolLM3, Phi-4-reasoning
    Form("gpt-oss", "<|channel|>analysis<|message|>", _FINAL, _FINAL, f"<|end|><|start|>assistant{_FINAL}", _FINAL),
    Form("Gemma 4", "<|channel>thought", "<channel|>", "<|channel>thought\n<channel|>", "\n<channel|>"),
    Form("Magistral", "[THINK]", "[/THINK]", "[THINK][/THINK]", "[/THINK]"),
    Form("Sky-T1, OpenThinker", "<|begin_of_thought|>", "<|end_of_thought|>"),  # then <|begin_of_solution|>
    Form(
        "Command A Reasoning",
        "<|START_THINKING|>",
        "<|END_THINKING|>",
        "<|START_THINKING|><|END_THINKING|>",
        "<|END_THINKING|>",
    ),
    Form("Seed-OSS", "<seed:think>", "</seed:think>"),
    Form("MiniMax", "<mm:think>", "</mm:think>"),
    Form("open-source think", "<think:opensource>", "</think:opensource>"),
    Form("EXAONE Deep", "<thought>", "</thought>"),
    Form("<thinking>", "<thinking>", "</thinking>"),  # prompts of SFT and GRPO recipes
    Form("<reasoning>", "<reasoning>", "</reasoning>"),  # prompts of GRPO recipes
    Form(
        "s1.1",
        "<|im_start|>think",
        "<|im_start|>answer",
        "<|im_start|>think\n<|im_start|>answer\n",
        "\n<|im_start|>answer\n",
    ),
    Form("Apriel", "Here are my reasoning steps:", "[BEGIN FINAL RESPONSE]"),
    Form("Granite 3.2", "Here is my thought process:", "Here is my response:"),
    Form("Kimi-VL", "◁think▷", "◁/think▷"),
    Form("Apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    Form("MedGemma", "<unused94>thought", "<unused95>"),
)
# tags of nobody's that say themselves what they are: training may teach any, in any case
_NAMED = re.compile(
    r"""(?P<open>[<\[])(?P<name>[\w:.-]{0,24}(?:think|thought|reason|scratch|analysis|reflect|monologue|rationale
        |deliberat|chain[_-]of|(?<![a-z])cot(?![a-z]))[\w:.-]{0,24})(?P<close>[>\]])""",
    re.VERBOSE | re.IGNORECASE,
)
# ReAct, and chains of thought in plain words
_LABEL = re.compile(r"(?:\*\*)?(?:Thoughts?|Reasoning):(?:\*\*)?")
_LABELLED = re.compile(r"^(?:\*\*)?(?:Final )?Answer:(?:\*\*)?", re.MULTILINE)
# what is put around an answer: what opens it, and what closes it where anything does. Hunyuan and R1-Zero <answer>, Granite 3.3
# <response>, Command <|START_RESPONSE|>, Sky-T1 <|begin_of_solution|>, gpt-oss channels, and headings of SFT data
WRAPPERS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<solution>", "</solution>"),
    ("<final>", "</final>"),
    ("<output>", "</output>"),
    ("<Output>", "</Output>"),  # Marco-o1
    ("<result>", "</result>"),
    ("<reply>", "</reply>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
    (_FINAL, ""),
    (" to=user<|message|>", ""),
)
_HEADING = re.compile(
    r"(?:#{1,6}\s*)?(?:\*\*|__)?\s*(?:final\s+)?(?:answer|response|solution|conclusion|summary|tl;?dr)\s*(?::\s*(?:\*\*|__)?|(?:\*\*|__)\s*:?|(?=\n))\s*",
    re.IGNORECASE,
)
# end-of-turn tokens of other families, as text
_END = re.compile(
    r"(?:\s*(?:</s>|<eos>|<end_of_turn>|<turn\|>|<\|(?:im_end|endoftext|end_of_text|eot_id|eom_id|end|return|END_OF_TURN_TOKEN)\|>))+$"
)
# an answer in JSON: its text stands under one of these names, a trace or figures may stand beside it; perhaps in a tool's call
_JSON = re.compile(r"(?:<tool_call>\s*)?(?:```(?:json)?\s*)?\{")
_KEY = r'"(?:final[_ ]?)?(?:answer|response|reply|output|result|message|content|text)"\s*:\s*'
_KEYED = re.compile(_KEY + r'(?:"((?:[^"\\]|\\.)*)|([\d.eE+-]+))', re.IGNORECASE | re.DOTALL)
_KEYED_TRACE = re.compile(
    rf'{_JSON.pattern}\s*"(?:reason\w*|thoughts?|thinking|rationale|analysis|explanation|chain_of_thought|steps)"\s*:\s*"',
    re.IGNORECASE,
)
_KEYED_ANSWER = re.compile(_KEY + '"?', re.IGNORECASE)
_KEYED_END = re.compile(r'(?<!\\)"\s*\}+\s*(?:```)?$')
_SEPARATOR = re.compile(r"(?:-{3,}|\*{3,}|={3,})\s*")


def unwrapped(text: str) -> str:
    """
    An answer without what its family, or its training data, puts around it: tags, channels, a heading. Words that are part of
    what is said stay.
    """
    bare = text.strip()
    for _ in range(4):  # a heading within a tag, say
        before = bare
        bare = _END.sub("", bare)
        if not _JSON.match(bare):
            bare = _KEYED_END.sub("", bare)  # of JSON that began with a trace
        for opener, closer in WRAPPERS:
            if bare.startswith(opener.strip()):
                bare = bare[len(opener.strip()) :].strip()
            if closer and bare.endswith(closer):
                bare = bare[: -len(closer)].strip()
            elif closer and bare.count(closer) == 1 and opener.strip() in text:
                bare = bare.partition(closer)[0].strip()  # what follows a closed answer is none
        heading = _SEPARATOR.match(bare) or _HEADING.match(bare)
        if heading and bare[heading.end() :].strip():
            bare = bare[heading.end() :].strip()
        if (keyed := _keyed(bare)) is not None:
            bare = _unescaped(keyed[1] or keyed[2]).strip()
        if bare == before:
            break
    return bare


def _keyed(text: str) -> re.Match[str] | None:
    """Where an answer in JSON says something, whole or cut off."""
    found = _KEYED.search(text) if _JSON.match(text) else None
    return found if found and (found[1] or found[2]) else None


def _unescaped(text: str) -> str:
    """What a JSON string says; as it stands where that was cut off within a sign."""
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def wrapper_of(text: str) -> str:
    """What a text begins with that is no part of its answer; empty where nothing is."""
    bare, text = unwrapped(text), text.lstrip()
    begins = re.split(r'["\\\n]', bare[:40])[0] if "{" in text[:40] else bare[:40]  # what no JSON writes otherwise
    start = text.find(begins) if begins else 0
    return text[:start] if start > 0 else ""


def form_in(text: str, own: Form) -> Form | None:
    """
    The form in which a text holds a trace.

    Args:
        text (`str`):
            What was generated.
        own ([`Form`]):
            The model's, whose tags may stand anywhere; those of another family count where they begin the text.
    """
    if own.open in text or own.close in text:
        return own
    return begun_form(text)


def begun_form(text: str) -> Form | None:
    """The form of the trace that a text begins with, of a known family or of tags whose name says that it is one."""
    begins = text.lstrip()
    known = next((form for form in FAMILIES if begins.startswith(form.open)), None)
    if known is not None:
        return known
    if tag := _NAMED.match(begins):
        return Form(f"its own, {tag[0]}", tag[0], f"{tag['open']}/{tag['name']}{tag['close']}")
    if label := _LABEL.match(begins):
        answer = _LABELLED.search(begins)
        return Form(f"its own, {label[0]}", label[0], answer[0] if answer else "Final Answer:")
    if keyed := _KEYED_TRACE.match(begins):
        found = _KEYED_ANSWER.search(begins, keyed.end())
        close = found[0] if found else '"answer": "'
        return Form("its own, JSON", keyed[0], close, f'{keyed[0]}", {close}', f'", {close}')
    return None


def leading_marker(text: str) -> str:
    """A marker of thinking that a text begins with, known or not; empty where it begins with none."""
    found = _MARKER.match(text.lstrip())
    return found[0] if found else ""


def read_form(
    render: Callable[[Sequence[dict[str, str]], bool, dict[str, Any]], str], template: str
) -> tuple[Form, str]:
    """
    The form that a chat template writes.

    Args:
        render (`Callable`):
            From turns, whether the assistant's is to be begun, and further options of the template, to text.
        template (`str`):
            The template's source.

    Returns:
        `tuple[Form, str]`: the form, and a marker of thinking in the template that is none of a known family, where the
        template shows one and no trace could be read off it; empty otherwise.
    """
    asked = [{"role": "user", "content": QUESTION}]

    def after(turns: Sequence[dict[str, str]], begun: bool = False, **more: Any) -> str:
        try:
            return render(turns, begun, more).rpartition(QUESTION)[2]
        except Exception:  # a template that takes no such turn tells nothing by it
            return ""

    begun, off = after(asked, True), after(asked, True, enable_thinking=False)
    said = after([*asked, {"role": "assistant", "content": ANSWER}])
    thought = after([*asked, {"role": "assistant", "content": ANSWER, **dict.fromkeys(_KEYS, _TRACE)}])
    form = _shown(thought, begun)
    if form is None:
        form = next((f for f in FAMILIES if f.open in begun or f.close in template), None)
        form = form and replace(form, why="from the chat template")
    if form is not None:
        return _with_empty(form, begun, off, said), ""
    shown = [marker for marker in _MARKER.findall(template) if "/" not in marker and "no" not in marker.casefold()]
    form = replace(FAMILIES[0], why="usual; the chat template shows none", assumed=True)
    return _with_empty(form, begun, off, said), shown[0] if shown else ""


def _shown(thought: str, begun: str) -> Form | None:
    """The form of a rendered turn that thinks: what stands before its trace, and between trace and answer."""
    before, found, rest = thought.partition(_TRACE)
    between, answered, _ = rest.partition(ANSWER)
    if not found or not answered or not between.strip():
        return None
    own = before[len(_common(begun, before)) :]
    known = next((f for f in FAMILIES if f.open in before and f.close in between), None)
    if known is None and not own.strip():
        return None
    opener, closer = (known.open, known.close) if known else (own.strip(), between.strip())
    written = before[before.rfind(opener) :] + between
    empty = known.empty if known and known.empty != Form("", opener, closer).empty else written
    return Form(known.family if known else "its own", opener, closer, empty, between, why="from the chat template")


def _with_empty(form: Form, begun: str, off: str, said: str) -> Form:
    """The form with the empty trace, and with what leads an answer, as its template writes them."""
    header = begun.rpartition(form.open)[0] if begun.rstrip().endswith(form.open) else begun
    before = said.partition(ANSWER)[0] if ANSWER in said else header
    between = before[len(_common(header, before)) :]
    if form.open in between and form.close in between:
        return replace(form, empty=between)
    if between.strip():  # an answer that was not thought about has a channel of its own
        return replace(form, empty=between, lead=between)
    _, opened, rest = off.partition(form.open)
    if opened and form.close in rest and not rest.partition(form.close)[0].strip():
        return replace(form, empty=f"{form.open}{rest}")
    return form


def _common(one: str, other: str) -> str:
    """What two texts begin with alike."""
    n = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return one[:n]


def split_trace(text: str, form: Form, inside: bool = False) -> tuple[str, str, bool, bool]:
    """
    Split generated text into trace and answer.

    Args:
        text (`str`):
            What was generated.
        form ([`Form`]):
            How the model writes a trace. One that another family's tags begin is a trace, too: training may teach any.
        inside (`bool`, *optional*, defaults to `False`):
            Whether the prompt itself already opened a trace.

    Returns:
        `tuple[str, str, bool, bool]`: trace, answer without its wrapper, whether there was a trace, whether every trace was
        closed. Whatever stands before a closing tag is trace, also where no opening one was seen.
    """
    form = form if inside else form_in(text, form) or form
    thinks = inside or form.open in text or form.close in text
    if form.close == form.lead.strip() and form.open not in text and not inside:
        thinks = False  # what closes a trace leads an answer without one, too
    trace: list[str] = []
    answer: list[str] = []
    for piece in re.split(f"({re.escape(form.open)}|{re.escape(form.end.strip())}|{re.escape(form.close)})", text):
        if piece == form.open:
            inside = True
        elif piece in (form.close, form.end.strip()):
            if not inside:  # a closing tag alone: what seemed to be the answer was not
                trace, answer = trace + answer, []
            inside = False
        else:
            (trace if inside else answer).append(piece)
    return "".join(trace).strip(), unwrapped("".join(answer)), thinks, not inside
