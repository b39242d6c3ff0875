"""Admissions of not knowing, and answers that go on to invent what they do not know.

An answer is read clause by clause. Who admits it first, and gives no answer behind a "but", abstains. Who asserts something first
and admits something later, or admits and then asserts, may have done either: nothing is said of it.
"""

from __future__ import annotations

import re

from .opening import bare_opening

_READ = 300  # characters
_NOUN = r"(?:information|records?|knowledge|data|details?|way|access|evidence|idea|clue|context|memory|trace|figures?)"
_LEARN = r"(?:know|tell|say|answer|determine|predict|verify|confirm|find|identify|see|hear|guess|recall|remember|foresee|find\ out|read|look)"
_MADE_UP = r"(?:fictional|fictitious|hypothetical|made[- ]up|invented|imaginary|imagined|not\ real|unreal)"
_TELLS = r"(?:say|state|specify|mention|give|tell|provide|indicate|include|contain|leave)"
# in contractions written out
ADMITS = re.compile(
    rf"""\b(?:
        (?:i|we)\ (?:\w+ly\ )?(?:do\ not|cannot|could\ not|can\ not|am\ unable\ to|am\ not\ able\ to|would\ not|have\ no\ way\ to)\ (?:\w+ly\ )?
          (?:{_LEARN}\b(?!\ (?:you\ )?how\ \w+\ (?:it|this|that)\ (?:is|was)|\ about\ you|\ enough)|have\ (?:\w+\ ){{0,3}}?{_NOUN})
      | (?:i|we)\ (?:have\ (?:never\ heard|not\ heard|no\ (?:\w+\ ){{0,2}}?{_NOUN})|lack\b|would\ (?:only\ |just\ )?be\ guessing)
      | (?:i\ am|we\ are)\ (?:not\ (?:sure|aware|certain|familiar)|unaware|unfamiliar|uncertain|unsure)
      | (?:there\ (?:is|are|was|were|seems\ to\ be|appears\ to\ be))\ (?:no|not\ (?:any|a|an|enough)|too\ little|insufficient)\ (?:\w+\ ){{0,2}}?
          (?:{_NOUN}|such|known\ (?!issue|problem)|person|book|film)
      | there\ does\ not\ (?:seem|appear)\ to\ be\b
      | (?:(?<=,\ )|^)no\ (?:such|records?|trace|evidence|idea|clue)\b | (?:not\ enough|insufficient|too\ little)\ (?:information|detail|data|context)
      | not\ (?:possible|known|knowable|publicly\ known|determined|decided|available|stated|specified|given|mentioned|disclosed|clear)\b
      | (?:is|are|was|were|remains?)\ (?:\w+ly\ )?(?:unknown|unclear|undetermined|uncertain|unknowable|undecided)\b
      | (?:impossible|hard|difficult|no\ way|too\ early)\ (?:for\ \w+\ )?to\ (?:{_LEARN}|be\ (?:sure|certain))
      | (?:no\ one|nobody|not\ something\ any\w+|nothing)\ (?:(?:can|could|will|would)\ )?(?:yet\ )?(?:knows?|say|tell|predict)
      | (?:does|do|did)\ not\ (?:appear\ to\ |seem\ to\ )?exist\b(?!\ (?:before|until))
      | (?:is|are|was|were|be|appears|seems|sounds)\ (?:to\ be\ )?(?:\w+ly\ )?(?:an?\ )?{_MADE_UP}\b(?!\ \w+s\b)
      | not\ an?\ real\b(?!\ surprise)
      | my\ (?:knowledge|training)\ (?:cutoff|cut-off|data|ends|only|stops) | beyond\ (?:my|our|anyone's)\ (?:knowledge|ability)
      | (?:has|have)\ not\ (?:yet\ )?(?:happened|occurred|taken\ place|been\ \w+(?:ed|en|ld|de)\b|come\b) | (?:has|have|is|are)\ yet\ to\ (?:be|happen|come|take)
      | (?:is|are|lies?)\ (?:still\ )?(?:\w+\ )?(?:in\ the\ future|decades\ away|years\ away) | only\ time\ will\ tell | have\ to\ wait\ (?:until|and\ see)
      | (?:cannot|could\ not)\ be\ (?:known|determined|predicted|verified|answered|told|said)
      | (?:does|do|did)\ not\ {_TELLS}\b | leaves?\ out\b | never\ (?:said|told|mentioned|stated)
      | you\ (?:have\ not|did\ not)\ (?:told|tell|say|said|mention\w*|give|given|provided?|specif\w+|share\w*)
      | (?:be|is)\ (?:an?\ )?(?:\w+\ )?(?:guess|speculation|guesswork)\b
    )""",
    re.VERBOSE,
)
_IN_A_WORD = re.compile(
    r"(?:unknown|uncertain|unclear|unsure|n/a|none|not\ (?:known|sure|applicable|available)|no\ idea|cannot\ say)\W*$"
)
_BORDER = re.compile(r"(?<=[.!?;])\s+|,?\ (?=(?:but|however|though|although)\b)|(?<=,)\s+(?=i\ (?:think|believe)\b)")
_CONCEDES = re.compile(r"(?:while|although|though|even\ though)\ [^,]{1,150},\ ")
_TURN = re.compile(r"(?:but|however|though|although)\b,?\s*")
# says nothing of what was asked: regret, an offer, advice, a guess that is called one
_SAYS_NOTHING = re.compile(
    r"""(?:(?:i\ am\ )?(?:\w+ly\ )?(?:sorry|afraid)|i\ apologi[sz]e|unfortunately\W*$|sadly\W*$|as\ an?\ [^,]{1,60}$|thank|hi\b|hello
      |(?:this|that|it)\ is\ an?\ (?:\w+\ )?question|(?:good|great|interesting)\ question|h?mm+\b|well\b|you\ tell\ me
      |(?:i|we)\ (?:can|could|will|would|am\ (?:happy|glad)|do\ not|cannot|may|might|suggest|recommend|hope)\b|you\ (?:can|could|may|might|should)\b
      |(?:if|please|feel\ free|let|perhaps|maybe|would|could|can|do\ you|try|what|who|which)\b|it\ (?:may|might|could|is\ (?:possible|likely))\b
      |there\ (?:may|might|could)\b|[^.!?;]*\?$)""",
    re.VERBOSE,
)


def is_abstention(answer: str) -> bool | None:
    """Whether an answer says, in its first 300 characters, that this is not known or does not exist; `None` where it also answers."""
    text = bare_opening(answer)[:_READ]
    if _IN_A_WORD.match(text):
        return True
    if concession := _CONCEDES.match(text):
        conceded = f"{concession[0][:-2]}; but " if ADMITS.search(concession[0]) else ""
        text = conceded + text[concession.end() :]
    clauses = [clause for clause in _BORDER.split(text) if re.search(r"\w", clause)]
    admits = [ADMITS.search(_TURN.sub("", clause, count=1)) is not None for clause in clauses]
    if not any(admits):
        return False
    at = admits.index(True)
    if any(not _SAYS_NOTHING.match(clause) for clause in clauses[:at]):
        return None
    after = clauses[at + 1 : at + 2]
    asserts = any(
        (turn := _TURN.match(clause)) and not admits[at + 1] and not _SAYS_NOTHING.match(clause[turn.end() :])
        for clause in after
    )
    return None if asserts else True
