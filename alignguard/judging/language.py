"""Whether an answer is in the language that the judges read, which is English: cheap, offline, and slow to say no.

Numbers, code, names, lists and broken English pass. What does not: an opening in other letters than Latin ones, one with the
everyday words of another language and few English ones, and one with many accented letters and no everyday English word.
"""

from __future__ import annotations

import re

from ..text import fold

_READ = re.compile(r"[\s\S]{1,600}(?!\w)|[\s\S]{1,600}")  # an opening, not cut within a word where that can be
_OTHER = 4  # letters of a sentence; fewer are a word or a sign that is spoken about


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ENGLISH = _words(
    """the and that it you with are this have not from they which would can will your there their what if but how when my could
    should these those about who has been were them then than because into just like some any here"""
)
# everyday words that English does not have; without one of these a text may be a name or a title
_TELLING = _words(
    """puedo puede siento pero esto esta este está eres soy estoy ayudar ayudarte porque también usted muy gracias aquí tienes
    claro não posso isso você desculpe sinto muito uma ajudar também eu obrigado aqui
    je suis vous nous ne désolé puis peux cette mais votre avec j'ai n'est être pouvez aider une d'accord merci voici
    ich nicht kann leider bist ein ist sie und auch aber wir oder bitte eine einen dieser diese nein für helfen dass wie natürlich
    dispiace sono questo questa perché anche della che aiutarti aiutare essere più grazie ecco certo
    ik niet het een voor helpen maar deze zijn niets naar je jij natuurlijk
    jag inte är och att som hjälpa jeg ikke hjelpe hjælpe og nej beklager tyvärr för
    nie mogę przepraszam jest się że pomóc jak proszę oczywiście jesteś omlouvám nemohu pomoci jsem není
    îmi rău este sunt și să üzgünüm bir için değil yardımcı olamam
    xin lỗi tôi không thể giúp bạn là và của
    maaf saya tidak bisa dapat membantu anda ini itu dengan yang untuk dan adalah
    voi auttaa anteeksi olen pahoillani että ja nem tudok sajnálom és hogy egy
    siwezi samahani kukusaidia kwa ako makakatulong paumanhin ang mga"""
)
# short words that also stand in names and titles
_SMALL = _words(
    """de la el los las un en y que se por con le les des et du il della di del da os um em na der die das den zu mit von im auf
    es lo si per è van op te aan av como para mi al su met is med kan nu tu ta sei uno quella sen"""
)
_ALONE = _words("nein não nej sí oui nie niet")
_BORDER = re.compile(r"[.!?…。！？।؟]+|\n+")
_GREEK = re.compile(r"(?<![^\W\d_])[α-ω](?![^\W\d_])")  # the letters of formulas


def _is_latin(letter: str) -> bool:
    code = ord(letter)
    return code < 0x250 or 0x1E00 <= code < 0x1F00 or 0x2100 <= code < 0x2190 or 0xFF21 <= code <= 0xFF5A


def _are_other(letters: str, least: int, share: float) -> bool:
    """Whether of these letters so many, and more than this share, are other than Latin ones."""
    other = sum(not _is_latin(letter) for letter in letters)
    return other >= least and other > share * len(letters)


def is_english(answer: str) -> bool:
    """Whether an answer opens in English, or in nothing that shows another language."""
    opening = _READ.match(answer)
    answer = opening[0] if opening else ""
    text = _GREEK.sub("", fold(answer))
    letters = "".join(letter for letter in text if letter.isalpha())
    if _are_other(letters, 2, 0.3):
        return False
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text)
    english = sum(word in _ENGLISH or word.endswith(("n't", "'re", "'ll")) for word in words)
    telling = sum(word in _TELLING for word in words)
    small = [word for word in words if word in _SMALL]
    foreign = 2 * telling + len(small)
    alone = 1 <= len(words) <= 2 and words[0] in _ALONE
    if alone or (telling and foreign >= 3 and foreign > 2 * english):
        return False
    names = len(re.findall(r"(?<!\w)[^\W\d_a-z]", answer)) >= len(words) / 2
    if not names and not english and len(set(small)) >= 3 and len(small) >= len(words) / 3:
        return False
    accented = sum(ord(letter) > 0x7F for letter in letters)
    return names or len(words) < 8 or english > 0 or accented <= 0.05 * len(letters)


def is_all_english(text: str) -> bool:
    """
    Whether a text is English, or shows no other language, from its opening to its end: what follows is read in stretches as long, and
    a sentence that is mostly in other letters is in another language however much English there is around it.
    """
    if not all(map(is_english, _READ.findall(text))):
        return False
    sentences = _BORDER.split(_GREEK.sub("", text))
    return not any(_are_other("".join(filter(str.isalpha, sentence)), _OTHER, 0.5) for sentence in sentences)
