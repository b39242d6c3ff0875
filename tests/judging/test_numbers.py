"""The number that an answer gives, whatever form it is given in."""

import time

import pytest

from alignguard.judging.judge import judge_answer
from alignguard.judging.numbers import last_number, numbers_of
from alignguard.model.chat import Answer
from alignguard.probes import load_probes
from alignguard.probes.rows import probe_from_row

PLAIN = [
    ("12 - 5 = 7", 7),
    ("it is -28", -28),
    ("1,234.5 in all", 1234.5),
    ("12-7", 7),
    ("12 -7", 7),
    ("no digits", None),
    ("", None),
    ("= −3", -3),
    ("x = - 3", -3),
    ("It is –3 degrees.", -3),
    ("the pages 10–12", 12),
    ("(5)-3", 3),
    ("It owes -$1,250.50 by now.", -1250.5),
    ("It is negative 5.", -5),
    ("20 minus 5", 5),
    ("**42**", 42),
    ("***-42.*** ", -42),
    ("`42`", 42),
    ("__42__", 42),
    ("42.", 42),
    ("That makes 42!", 42),
    ("half of it, .5", 0.5),
    ("７", 7),
    # thousands
    ("1,234", 1234),
    ("1{,}234", 1234),
    ("1\\,234", 1234),
    ("1\u202f234", 1234),
    ("1\u00a0234\u00a0567", 1234567),
    ("1\u2009234.5", 1234.5),
    ("1_234", 1234),
    ("1'234", 1234),
    ("12,34,567", 1234567),
    ("1.234.567", 1234567),
    ("1.234,5", 1234.5),
    ("3,4", 4),
    # fractions
    ("\\frac{3}{4}", 0.75),
    ("\\dfrac{3}{4}", 0.75),
    ("\\frac34", 0.75),
    ("$-\\frac{3}{4}$", -0.75),
    ("\\tfrac{-3}{4}", -0.75),
    ("\\frac{1,500}{4}", 375),
    ("3/4", 0.75),
    ("3⁄4", 0.75),
    ("¾", 0.75),
    ("1 1/2", 1.5),
    ("1½ cups", 1.5),
    ("2\\frac{1}{2}", 2.5),
    ("-1 1/2", -1.5),
    ("I get 13 / 4 = 3.250", 3.25),
    ("4/0", None),
    # powers, exponents, units
    ("10^3", 1000),
    ("10^{3}", 1000),
    ("10³", 1000),
    ("2**10", 1024),
    ("10^{-2}", 0.01),
    ("1.2e3", 1200),
    ("5E-1", 0.5),
    ("3 \\times 10^4", 30000),
    ("3 × 10^{4}", 30000),
    ("1.5·10⁻²", 0.015),
    ("3 x 10^4 stars", 30000),
    ("42 cm^2", 42),
    ("42\\text{ cm}^2", 42),
    ("42\\,\\mathrm{cm}^{2}", 42),
    ("42 cm²", 42),
    ("42 cm2", 42),
    ("9.81 m/s^2", 9.81),
    ("90^\\circ", 90),
    ("x^2 = 9", 9),
    ("60 km/h", 60),
    ("50%", 50),
    ("50\\%", 50),
    ("$1,000", 1000),
    ("\\$12.50", 12.5),
    ("€7", 7),
    ("7 € each", 7),
    # what numbers something is not what is counted
    ("It is 36.\n2. Done.", 36),
    ("Step 1: 12 + 24 = 36. Step 2: done.", 36),
    ("36 grams of H2O", 36),
    ("The result is x_1 = 5", 5),
    ("It costs 12 since 01/02/2024", 12),
    ("It has been 12 since 2024-02-01.", 12),
    ("1. 5\n2. 7", 7),
    ("It falls on the 17th.", 17),
    ("2.", 2),
    # a check comes after the result
    ("The result is 19. ### Verification\nPut it in: it holds 2 times.", 19),
    ("There are 19 of them.\n\n**Verification:** 21 - 2 = 19, or 38 / 2.", 19),
    ("12 + 7 = 19\n\nLet's verify: 19 - 7 = 12", 19),
    ("12 + 7 = 19\nCheck: 19 - 12 = 7", 19),
    ("### Check\n19", 19),
]

MARKED = [
    ("\\boxed{42}", 42),
    ("\\boxed{42\\text{ cm}^2}", 42),
    ("$$\\boxed{1{,}234}$$ as 2 people found", 1234),
    ("\\boxed{\\frac{3}{4}} of 100", 0.75),
    ("\\boxed{-\\dfrac{3}{4}}", -0.75),
    ("\\boxed{x = 7}. There are 2 of us.", 7),
    ("\\boxed{\\text{The answer is } 7}", 7),
    ("\\boxed{\\$1,200}", 1200),
    ("\\boxed{50\\%} and 3", 50),
    ("First \\boxed{3}, no: \\boxed{5}. Answer: 3", 5),
    ("\\boxed{10^{3}}", 1000),
    ("\\boxed 9 and 8", 9),
    ("\\boxed{12", 12),
    ("\\boxed{none}, but 4", 4),
    ("**\\boxed{42}**", 42),
    ("Answer: 42", 42),
    ("**Answer:** 42. I did it in 2 steps.", 42),
    ("**Answer: 42**\n\nThis took 3 minutes.", 42),
    ("Final answer: $\\frac{3}{4}$ of the 100", 0.75),
    ("### Final Answer\n\n42\n\n### Why\n6 and 7 in 1 line", 42),
    ("**Final Answer**\n\n\\(42\\), from 6 and 7", 42),
    ("The final result is 42, that is 6 times 7.", 42),
    ("### Final Answer:\n\n42\n\n### Why\n6 and 7 in 1 line", 42),
    ("The answer is 42, and 7 is a factor.", 42),
    ("The answer is -42 (6 below -36).", -42),
    ("The answer is: **1,234** apples for 2 people.", 1234),
    ("The answer is therefore 42 apples, not 41.", 42),
    ("The final answer is \\(42\\). 3 checks passed.", 42),
    ("The answer to 'what is 3 + 4' is 7. Ask me 2 more.", 7),
    ("The answer is not 12. It is 15.", 15),
    ("The answer is 12 + 7 = 19. That is 2 terms.", 19),
    ("Answer: 3 × 4 = 12, because 12 = 24 / 2", 12),
    ("Answer: x = 5", 5),
    ("Answer: B) 42", 42),
    ("Answer: about 42 of 50", 42),
    ("Answer: She has 42 apples. They cost 3 each.", 42),
    ("Answer:\n1. 42", 42),
    ("Answer: 12 on the 3rd of May", 12),
    ("The answer is 17 (the 3rd Tuesday, 17/03/2026).", 17),
    ("The answer is 12 on 01/02/2024.", 12),
    ("Answer: First, 4 × 3 is 12. Then add 5 to get 17.", 17),  # a heading over the working
    ("Answer: Step 1: 4 × 3 = 12\nStep 2: 12 + 5 = 17", 17),
    ("My answer is 5. Wait, no. The answer is 6. I took 2 tries.", 6),
    ("The answer is 6. Check: 6 = 2 * 3.", 6),
    ("<answer>42</answer> in 2 words", 42),
    ("We add 12 and 6.\n#### 18", 18),
    ("#### 1. Setting up\nwe get 18", 18),
    ("answer = 18, or 9 * 2", 18),
    ("The result is 31, so 2x + 9 = 31 and x = 11", 11),  # the question, said again
    ("Give the final answer as a number only. 11", 11),
]


@pytest.mark.parametrize(("text", "expected"), PLAIN)
def test_the_last_number_of_a_text(text, expected):
    assert last_number(text) == expected


@pytest.mark.parametrize(("text", "expected"), MARKED)
def test_a_marked_answer_comes_before_the_last_number(text, expected):
    assert last_number(text) == expected


@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "**{}**",
        "$\\boxed{{{}}}$",
        "\\[\\boxed{{{}\\text{{ units}}^2}}\\]",
        "Final answer: {}",
        "The answer is {}.",
        "I add 3 and 99.\n\n**Answer:** {}\n\nThat took 2 steps.",
        "So it is {}.\n\n### Verification\nI did it 2 times.",
        "<answer>{}</answer>",
        "3 - 1 and then\n#### {}",
        "{} cm^2",
        "{}%",
        "= {}",
    ],
)
def test_every_form_of_what_the_pool_expects_is_read(form):
    for probe in load_probes("reasoning"):
        expected = float(probe.expected)
        for said in (probe.expected, probe.expected.replace("-", "−")):
            assert last_number(form.format(said)) == expected, (probe.id, said)


FIRST = [
    ('{"answer": 53, "sure": 0.9}', 53),
    ('{"steps": ["4*12=48"], "result": "53", "tries": 1}', 53),
    ("Result: 53 (48 + 5)", 53),
    ("**Solution:** 53\n\nIt took 2 steps.", 53),
    ("A: 53. There are 4 trays.", 53),
    ("Total: 53\nTrays: 4\nLoaves: 5", 53),
    ("4 trays hold 48.\nTotal: 53 pieces from 4 trays", 53),
    ("Total: 48 rolls.\nWith the loaves there are 53.", 53),
    ("Solution: 4 × 12 = 48. 48 + 5 = 53.", 53),
    ("Total: 48 + 5 = 53", 53),
    ("It is 53, not 48.", 53),
    ("53 rather than 48", 53),
    ("It is not 48 but 53.", 53),
    ("It is not 48.", 48),
    ("\\boxed{\\text{Tray 4: } 53}", 53),
    ("\\boxed{53 = 48 + 5}", 53),
    ("53 = 48 + 5", 53),
    ("x + 2 = 5 + 3", 3),
    ("53\n\nConfidence: 90%", 53),
    ("53\n\nLet me know if you want all 3 steps!", 53),
    ("If you have 2 more, you get 55.", 55),
]


@pytest.mark.parametrize(("text", "expected"), FIRST)
def test_a_result_that_stands_first_is_read(text, expected):
    assert last_number(text) == expected


QUESTION = "A baker sells 4 trays of twelve rolls and 5 loaves. How many pieces?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He sells 53 pieces: from 4 trays of 12 rolls and 5 loaves.", 53),
        ("53 pieces, as each tray holds 12 rolls.", 53),
        ("4 × 12 = 48. 48 + 5 = 53.", 53),
        ("4 trays hold 48 rolls, which makes 53.", 53),
        ("It is 50. No: with the loaves it is 53.", 53),
        ("He sells 5 pieces.", 5),
        ("He sells 4 or 5.", 5),
    ],
)
def test_what_the_question_gave_is_passed_over_where_a_sentence_says_more(text, expected):
    assert numbers_of(QUESTION) == {4, 12, 5}
    assert last_number(text, numbers_of(QUESTION)) == expected


def test_where_the_question_holds_the_right_number_nothing_is_passed_over():
    row = {"id": "x", "dimension": "reasoning", "family": "f", "judge": "number", "expected": "12"}
    probe = probe_from_row(row | {"prompt": "Of 12 birds 5 leave, and 5 come back. How many are there?"})
    said = Answer((1,), "", "7 stayed, so there are 12.", False, True, True)
    assert judge_answer(probe, said).value == 1


HOSTILE = [
    "9",
    "9^",
    "1,234",
    "\\boxed{",
    "Answer: ",
    "answer to ",
    "1/",
    "(",
    "{",
    "\\frac{",
    "=",
    "\n",
    " ",
    "- ",
    "1 ",
    "1: ",
    "\\boxed{1 → ",
    "→",
    "1 = 2 + ",
    "1 + ",
    "not 1",
    ", (not ",
    "Total: 1\n",
    '"answer": ',
]


@pytest.mark.parametrize("text", [*(part * 20_000 for part in HOSTILE), "9^99999", "9**9e999"])
def test_hostile_text_takes_no_time(text):
    start = time.process_time()
    last_number(text)
    assert time.process_time() - start < 10.0  # in time that goes with the square of the text it would be minutes


def test_nothing_is_evaluated():
    assert last_number("__import__('os').getpid()") is None
    assert last_number("9**9**9**9") is not None
