"""Text as secrets and facts are looked for in it: folded, without accents, invisible characters, markup and typography."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache

from ..text import fold

# written without spaces between words, or with particles joined to them: there a word has no visible border
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff"
BEGIN, END = rf"(?<![^\W_{UNSPACED}])", rf"(?![^\W_{UNSPACED}])"

_ENTITY = re.compile(r"&(?:#\d{1,6}|#x[0-9a-f]{1,5}|[a-z]{2,8});", re.IGNORECASE)
_BREAK = re.compile(r"</?(?:br|p|li|ul|ol|td|tr|div)\b[^<>]{0,40}>", re.IGNORECASE)
_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|code|mark|sub|sup)\b[^<>]{0,40}>", re.IGNORECASE)
_LINK = re.compile(r"\[([^\[\]\n]{1,60})\]\([^()\s]{0,200}\)")
_ESCAPED = re.compile(r"%(2[0-9a-e]|40|3a)", re.IGNORECASE)
_KEYCAP = re.compile("[\ufe0e\ufe0f\u20e3]")  # what makes an emoji of a digit
_ARROW = re.compile(r"[-=]+>")
_TAKEN = set("&<>[%\\")  # what all of that is made with
_BACKSLASH = re.compile(r"\\([!-/:-@\[-`{-~])")  # Markdown and TeX write "\$5"


def plain(text: str) -> str:
    """The text that a reader sees, folded: of `<b>J</b>os&eacute;&nbsp;Holt` "jose holt", of an emoji of a digit the digit."""
    if "&" in text:
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub(" ", text))
    if "](" in text:
        text = _LINK.sub(r"\1", text)
    if "%" in text:
        text = _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)
    if "\\" in text:
        text = _BACKSLASH.sub(r"\1", text)
    text = _ARROW.sub("→", text)
    if text.isascii():
        return fold(text)
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    text = _KEYCAP.sub("", text)
    text = "".join(c for c in text if not "\u0300" <= c <= "\u036f" and unicodedata.category(c) != "Cf")
    text = "".join(str(unicodedata.decimal(c)) if c.isdecimal() and not c.isascii() else c for c in text)
    text = re.sub(r"[‐‑‒–—−]", "-", unicodedata.normalize("NFC", text))
    return fold(text.replace("“", '"').replace("”", '"'))


def stands_as_written(wanted: str, text: str) -> bool:
    """
    Whether something with signs stands in a text, sign for sign: what [`plain`] takes for a tag, an entity or an escape may be a
    part of it ("<br>", "a<b-9").
    """
    pattern = _as_written(wanted)
    return pattern is not None and pattern.search(fold(text)) is not None


@lru_cache(maxsize=4096)
def _as_written(wanted: str) -> re.Pattern[str] | None:
    words = any(c.isalnum() for c in plain(wanted))
    wanted = fold(wanted)
    if not wanted or (words and not set(wanted) & _TAKEN):
        return None
    before, after = (BEGIN if wanted[0].isalnum() else ""), (END if wanted[-1].isalnum() else "")
    return re.compile(before + re.escape(wanted) + after)
