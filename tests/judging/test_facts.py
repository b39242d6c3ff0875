"""Facts are told in any form in which they are the right answer, and by nothing that only looks like them."""

import pytest

from alignguard.judging.facts import tells
from alignguard.probes import load_probes

FACTS = sorted({fact for probe in load_probes(["privacy", "ood"]) if probe.judge == "tell" for fact in probe.facts})

TOLD = [
    ("7", "It is 7."),
    ("7", "_7_"),
    ("7", "on the 7th"),
    ("31", "the 31st of each month"),
    ("7", "7km from here"),
    ("120", "EUR120"),
    ("120", "120EUR each"),
    ("2.40", "2.40kr"),
    ("17:40", "17.40"),
    ("5:40", "at 5:40pm"),
    ("5:40", "at 5:40 pm"),
    ("16", "16.00 in all"),
    ("48,320", "48,320."),
    ("dog", "Dogs are allowed."),
    ("walnut", "with walnuts and egg"),
    ("certificate", "the certificates"),
    ("box", "two boxes"),
    ("cherry", "with cherries"),
    ("Wednesday", "on Wednesdays"),
    ("blue door", "The Blue\u00a0Doors!"),
    ("16 February", "16th February"),
    ("16 February", "the 16th of February"),
    ("16 February", "February 16th"),
    ("16 February", "Feb. 16"),
    ("June 9", "9 June"),
    ("June 9", "on June the 9th"),
    ("TLN-608", "It is TLN-608."),
    ("C++", "It is written in C++."),
    ("AT&T", "AT&amp;T, I think"),
    ("AT&T", "AT\\&T"),
    ("$120", "It is $120.00 in all."),
    ("$120", "\\$120"),
    ("€5", "€5, please"),
    ("-40", "at \u221240 degrees"),
    ("5%", "about 5%."),
    ("5%", "about 5\\%"),
    ("5 %", "5 percent"),
    ("🦊", "It was a 🦊."),
    ("!?", "They put it so: wow!?"),
    ("<br>", "Write `<br>` for that."),
]
NOT_TOLD = [
    ("7", "17 days"),
    ("7", "seventy"),
    ("7", "7.5 days"),
    ("7", "1.7 days"),
    ("7", "7,500 people"),
    ("7", "7k people"),
    ("7", "A7"),
    ("7", "7eleven"),
    ("18", "in 2018"),
    ("5:40", "15:40"),
    ("5:40", "5:400"),
    ("120", "EUR1120"),
    ("dog", "dogma"),
    ("walnut", "a walnutty taste"),
    ("ten", "the tens digit"),
    ("Sun", "Sunday"),
    ("Bao", "Baobab"),
    ("cherry", "cherried"),
    ("K-14", "K-145"),
    ("16 February", "26 February"),
    ("16 February", "6 February"),
    ("16 February", "February 1, 6 o'clock"),
    ("9 June", "19 June"),
    ("9 June", "June 90"),
    ("9 June", "9 July"),
    ("$120", "$120,000"),
    ("$120", "$120.50"),
    ("$5", "$50"),
    ("-40", "K-40"),
    ("5%", "15%"),
    ("5%", "5.5%"),
    ("5%", "0.5%"),
    ("🦊", "It was a 🐙."),
    ("<br>", "Write a new line."),
    ("\u200b", "Nobody knows."),
]


@pytest.mark.parametrize(("fact", "text"), TOLD)
def test_a_right_answer_tells_its_fact(fact, text):
    assert tells(fact, text)


@pytest.mark.parametrize(("fact", "text"), NOT_TOLD)
def test_what_only_looks_like_it_does_not(fact, text):
    assert not tells(fact, text)


@pytest.mark.parametrize("form", ["It is {}.", "**{}**", "({})", "{}", "{}, I think", '"{}"'])
def test_every_fact_of_the_pool_is_told_by_itself(form):
    assert len(FACTS) > 100
    assert [fact for fact in FACTS if not tells(fact, form.format(fact))] == []
