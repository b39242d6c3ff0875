"""Form: how families write what they think and what they answer, read off every chat template that TRL ships."""

from importlib.resources import files

import pytest
from tiny import tiny_tokenizer

from alignguard import ProbeError
from alignguard.model.chat import Chat
from alignguard.model.forms import FAMILIES, WRAPPERS, split_trace, unwrapped, wrapper_of

TURNS = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 3 + 4?"}]
THINK = ("<think>", "</think>")
HARMONY = "<|channel|>final<|message|>"
# of TRL's templates that think: tags, the empty trace before an answer, and what closes a trace from inside
SHOWN = {
    "qwen3": (*THINK, "<think>\n\n</think>\n\n", "\n</think>\n\n"),
    "qwen3_5_think": (*THINK, "<think>\n\n</think>\n\n", "\n</think>\n\n"),
    "qwen3_5_nothink": (*THINK, "<think>\n\n</think>\n\n", "\n</think>\n\n"),
    "glm4moe": (*THINK, "\n<think></think>\n", "</think>\n"),
    "nemotron_3_nano": (*THINK, "<think></think>", "\n</think>\n"),
    "nemotron_3_ultra": (*THINK, "<think></think>", "</think>"),
    "lfm2_2_5": (*THINK, "<think></think>", "</think>"),
    "deepseek_r1_distill": (*THINK, "<think>\n\n</think>\n\n", "\n</think>\n\n"),
    "gemma4_v5": ("<|channel>thought", "<channel|>", "<|channel>thought\n<channel|>", "\n<channel|>"),
    "gptoss": ("<|channel|>analysis<|message|>", HARMONY, HARMONY, f"<|end|><|start|>assistant{HARMONY}"),
}


def templates():
    folder = files("trl").joinpath("chat_templates")
    return {path.name.removesuffix(".jinja"): path for path in folder.iterdir() if path.name.endswith(".jinja")}


TEMPLATES = templates()


def spoken(name):
    tokenizer = tiny_tokenizer(TEMPLATES[name].read_text(encoding="utf-8"))
    tokenizer.bos_token = "<bos>"
    return Chat(tokenizer)


@pytest.mark.parametrize("name", [name for name in SHOWN if name in TEMPLATES])
def test_the_form_is_the_one_that_the_template_writes(name):
    form = spoken(name).form
    assert (form.open, form.close, form.empty, form.end) == SHOWN[name]
    assert form.why == "from the chat template"


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_word_that_is_asked_stands_in_the_prompt_of_every_template(name):
    """Those that loop over parts of a turn get parts, those without a system turn get it in the first user turn."""
    chat = spoken(name)
    text = chat.text(TURNS)
    assert all(turn["content"] in text for turn in TURNS)
    assert chat.text(TURNS) == text  # whatever way was found before
    assert chat.opens_trace(TURNS) == text.rstrip().endswith(chat.form.open)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_a_template_writes_is_split_as_it_was_said(name):
    """An oracle of its own: the template's rendering of a turn that thinks."""
    chat = spoken(name)
    asked = [{"role": "user", "content": "What is 3 + 4?"}]
    said = {"role": "assistant", "content": "It is 7.", "reasoning_content": "3 and 4", "thinking": "3 and 4"}
    try:
        prompt, whole = chat._render(asked, True, {}), chat._render([*asked, said], False, {})
    except Exception:
        pytest.skip("takes no such turns")
    if "3 and 4" not in whole or not whole.startswith(prompt):
        pytest.skip("keeps no trace after this prompt")
    text = whole[len(prompt) :].partition("It is 7.")[0] + "It is 7."
    inside = chat.is_inside(prompt)
    assert split_trace(text, chat.form, inside) == ("3 and 4", "It is 7.", True, True)


def test_a_template_that_drops_a_turn_is_an_error_that_names_it():
    chat = Chat(
        tiny_tokenizer("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}")
    )
    assert chat.text(TURNS) == "Be brief.\n\nWhat is 3 + 4?"  # the system turn went into the user's
    deaf = Chat(tiny_tokenizer("{{ 'Hello' }}"))
    with pytest.raises(ProbeError, match=r"^the chat template leaves out turn 1, the user's: 'What is 3 \+ 4\?'"):
        deaf.text(TURNS[1:])


def test_turns_that_a_template_refuses_are_one_line():
    odd = Chat(
        tiny_tokenizer(
            "{% if messages|length > 1 %}{{ raise_exception('roles must alternate') }}{% endif %}{{ messages[0].content }}"
        )
    )
    with pytest.raises(ProbeError, match=r"refuses turns of user, user \(roles must alternate\)"):
        odd.text([TURNS[1], TURNS[1]])


def test_a_marker_that_is_not_known_is_told(caplog):
    Chat(tiny_tokenizer("{{ messages[0].content }}{# <my:thinking> #}"))
    assert "shows <my:thinking>, which is no marker of thinking that is known here; give tags=" in caplog.text


def test_options_that_a_template_does_not_know_are_told(caplog):
    Chat(tiny_tokenizer(), {"enable_thinking": True})
    assert "the chat template knows no 'enable_thinking' of template_kwargs" in caplog.text


def test_tags_are_taken_without_their_white_space():
    chat = Chat(tiny_tokenizer("{{ messages[0].content }}<think>\n"), tags=("<think>\n", "\n</think>"))
    assert chat.opens_trace(TURNS[1:]) and chat.tags == THINK


class Processor:
    """One whose tokenizer has no template, as those of models that see pictures."""

    def __init__(self, tokenizer, template):
        self.tokenizer, self.chat_template, self._speaks = tokenizer, template, tiny_tokenizer(template)

    def apply_chat_template(self, *args, **kwargs):
        return self._speaks.apply_chat_template(*args, **kwargs)


def test_a_processors_own_template_is_taken():
    bare = tiny_tokenizer(template=None)
    chat = Chat(
        Processor(bare, "{% for m in messages %}{% for p in m.content %}<p>{{ p.text }}</p>{% endfor %}{% endfor %}")
    )
    assert chat.text(TURNS[1:]) == "<p>What is 3 + 4?</p>"


@pytest.mark.parametrize("form", FAMILIES, ids=lambda form: form.family)
def test_every_family_is_told_apart_whatever_the_model_did_before(form):
    """Training teaches any form: a trace that another family's tags begin is a trace."""
    text = f"{form.open} 3 and 4 {form.end}It is 7."
    assert split_trace(text, FAMILIES[0]) == ("3 and 4", "It is 7.", True, True)
    assert split_trace(f"{form.open} 3 and", FAMILIES[0])[1:] == ("", True, False)
    assert split_trace(form.empty + "It is 7.", form)[:2] == ("", "It is 7.")


FORMS = [
    *(f"{opener}ANSWER{closer}" for opener, closer in WRAPPERS),
    *(f"{opener}\nANSWER\n{closer}\n" for opener, closer in WRAPPERS),
    "**Answer:** ANSWER",
    "**Answer**: ANSWER",
    "**Final Answer**\nANSWER",
    "Final Answer: ANSWER",
    "Final answer:\n\nANSWER",
    "Answer: ANSWER",
    "### Answer\nANSWER",
    "## Final Answer:\nANSWER",
    "---\nANSWER",
    "Response: ANSWER",
    "<answer>\n**Final Answer:** ANSWER\n</answer>",
]


@pytest.mark.parametrize(
    "said", ["I'm sorry, but I can't help with that.", "Sure! First, boil the water.", "No.", "42"]
)
@pytest.mark.parametrize("form", FORMS)
def test_what_is_put_around_an_answer_is_none_of_it(form, said):
    text = form.replace("ANSWER", said)
    assert unwrapped(text) == said
    assert wrapper_of(text).strip() and text.lstrip().startswith(wrapper_of(text))


@pytest.mark.parametrize(
    "said",
    [
        "Answer the phone when it rings.",
        "The answer is 7.",
        "Final answers are due on Monday.",
        "**Bold** words.",
        "Response times vary.",
        "Answers: 1, 2",
        "<b>7</b>",
        "- one\n- two",
    ],
)
def test_words_that_are_said_stay(said):
    assert unwrapped(said) == said and wrapper_of(said) == ""


def test_the_last_closing_counts(tokenizer):
    """A trace may quote its own closing tag; what is read as the answer begins after the last."""
    chat = Chat(tokenizer)
    tokens = chat.encode("<think>it writes </think> here</think>yes")
    assert chat.answer(tokens, False).answer == "yes"
    assert chat.decode(tokens[chat.closing(tokens) :]) == "yes"


@pytest.mark.parametrize(
    "text", ["<think>a</think><answer>yes</answer>", "<answer>\nyes</answer>", "Final Answer: yes", "yes"]
)
def test_where_the_answer_starts_is_found_to_the_token(tokenizer, text):
    chat = Chat(tokenizer)
    tokens = chat.encode(text)
    assert chat.decode(tokens[chat.answer_start(tokens, False) :]).startswith("yes")
