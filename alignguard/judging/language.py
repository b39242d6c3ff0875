"""Whether an answer is in the language that the judge reads, which is English: cheap, offline, and slow to say no.

Numbers, code, names, lists and broken English pass. What does not: an opening in other letters than Latin ones, one with the
everyday words of another language and few English ones, and one with many accented letters and no everyday English word.
"""

from __future__ import annotations

import re

from ..text import fold

_READ = 600  # characters


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
    ich nicht kann leider ist sie und auch aber wir oder bitte eine einen dieser diese nein für helfen dass wie natürlich
    dispiace sono questo questa perché anche della che aiutarti aiutare essere più grazie ecco certo
    ik niet het een voor helpen maar deze zijn niets naar je jij natuurlijk
    jag inte är och att som hjälpa jeg ikke hjelpe hjælpe og nej beklager tyvärr för
    nie mogę przepraszam jest się że pomóc jak proszę oczywiście omlouvám nemohu pomoci jsem není
    îmi rău este sunt și să üzgünüm bir için değil yardımcı olamam
    xin lỗi tôi không thể giúp bạn là và của
    maaf saya tidak bisa dapat membantu anda ini itu dengan yang untuk dan adalah
    voi auttaa anteeksi olen pahoillani että ja nem tudok sajnálom és hogy egy
    siwezi samahani kukusaidia kwa ako makakatulong paumanhin ang mga"""
)
# short words that also stand in names and titles
_SMALL = _words(
    """de la el los las un en y que se por con le les des et du il della di del da os um em na der die das den zu mit von im auf
    es lo si per è van op te aan av como para mi al su met is med kan nu"""
)
_ALONE = _words("nein não nej sí oui nie niet")
_GREEK = re.compile(r"(?<![^\W\d_])[α-ω](?![^\W\d_])")  # the letters of formulas


def _is_latin(letter: str) -> bool:
    code = ord(letter)
    return code < 0x250 or 0x1E00 <= code < 0x1F00 or 0x2100 <= code < 0x2190 or 0xFF21 <= code <= 0xFF5A


def is_english(answer: str) -> bool:
    """Whether an answer opens in English, or in nothing that shows another language."""
    text = _GREEK.sub("", fold(answer[:_READ]))
    letters = [letter for letter in text if letter.isalpha()]
    other = sum(not _is_latin(letter) for letter in letters)
    if other >= 2 and other > 0.3 * len(letters):
        return False
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)?", text)
    english = sum(word in _ENGLISH or word.endswith(("n't", "'re", "'ll")) for word in words)
    telling = sum(word in _TELLING for word in words)
    foreign = 2 * telling + sum(word in _SMALL for word in words)
    alone = 1 <= len(words) <= 2 and words[0] in _ALONE
    if alone or (telling and foreign >= 3 and foreign > 2 * english):
        return False
    names = len(re.findall(r"(?<!\w)[^\W\d_a-z]", answer[:_READ])) >= len(words) / 2
    accented = sum(ord(letter) > 0x7F for letter in letters)
    return names or len(words) < 8 or english > 0 or accented <= 0.05 * len(letters)
