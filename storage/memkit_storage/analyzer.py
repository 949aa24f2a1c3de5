"""The one analyzer: text to tokens, the same for the tail, the LanceDB index and queries.

NFKC and case folding; runs of letters, marks and digits; Latin diacritics folded; English Snowball stems for plain
ASCII words; overlapping pairs of characters for scripts written without spaces (and for Korean, whose words are
inflected by suffixes); emoji one by one. No stop words: BM25 gives them next to no weight.

A token holds no white space, so that an index may store a text as its tokens joined by blanks.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

ANALYZER_VERSION = "2"
MAX_TOKEN = 64  # characters; longer runs (base64, hashes) are cut

# written without spaces, or (Hangul) inflected: cut into pairs
_PAIRED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\uac00-\ud7af"  # Hangul, Kana
    "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # Han
    "\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_EMOJI = (
    "\u203c\u2049\u2122\u2139\u2194-\u21aa\u231a-\u23ff\u25aa-\u27bf\u2934-\u2935"
    "\u2b05-\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_SKIPPED = "\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff"  # joiners, variation selectors, skin tones: the base emoji counts
_MARKS = "".join(f"{chr(a)}-{chr(b)}" for a, b in ((0x300, 0x36F), (0x1AB0, 0x1AFF), (0x1DC0, 0x1DFF)))

_RUN = re.compile(
    rf"(?P<paired>[{_PAIRED}]+)"
    rf"|(?P<emoji>[{_EMOJI}])"
    r"|(?P<number>\d+(?:[.:,/-]\d+)+)"
    rf"|(?P<word>(?:(?![{_PAIRED}{_EMOJI}_])[\w\u0900-\u0dff])+(?:['\u2019](?:(?![{_PAIRED}{_EMOJI}_])\w)+)*)"
)
_ASCII_RUN = re.compile(r"\d+(?:[.:,/-]\d+)+|[a-z0-9]+(?:'[a-z0-9]+)*")
_SEPARATOR = re.compile(r"[.:,/-]")
_CAMEL = re.compile(r"\b[A-Za-z0-9]*[a-z][A-Z][A-Za-z0-9]*\b")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LATIN_MARK = re.compile(rf"(?<=[a-z])[{_MARKS}]+")
_IGNORED = re.compile(rf"[{_SKIPPED}\u00ad\u200b-\u200c\u2060\ufeff]")
_POSSESSIVE = re.compile(r"['\u2019]s?$")
_local = threading.local()


def analyze(text: str) -> list[str]:
    """Tokens of a text, in order, repeats included.

    >>> analyze("Ana's cafés opened on 2023-05-01 in 東京")
    ['ana', 'cafe', 'open', 'on', '2023-05-01', '2023', '05', '01', 'in', '東京', '東', '京']
    """
    plain = text if text.isascii() else _IGNORED.sub("", unicodedata.normalize("NFKC", text))
    # the parts of camelCase are visible only before folding; the whole word counts as well
    if _HUMP.search(plain):
        plain = _CAMEL.sub(lambda word: f"{word.group()} {_HUMP.sub(' ', word.group())}", plain)
    if plain.isascii():
        return _ascii_tokens(plain.lower())
    folded = _fold(plain)
    return [token for match in _RUN.finditer(folded) for token in _tokens(match.lastgroup, match.group())]


def _fold(text: str) -> str:
    """Lower case, Latin diacritics off (é → e), everything else as it was (Hangul and kana stay composed)."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    return unicodedata.normalize("NFC", _LATIN_MARK.sub("", decomposed)).encode("utf-8", "replace").decode()


def _ascii_tokens(folded: str) -> list[str]:
    """What the general way finds in lower-case ASCII, in a third of the time: most words need nothing but stemming."""
    tokens: list[str] = []
    for run in _ASCII_RUN.findall(folded):
        if run.isalpha():
            tokens.append(_stem(run[:MAX_TOKEN]))
        else:
            tokens.extend(_tokens("number" if _SEPARATOR.search(run) else "word", run))
    return tokens


def _tokens(kind: str | None, run: str) -> Iterator[str]:
    if kind == "paired":
        yield from (run[i : i + 2] for i in range(len(run) - 1))
        yield from run
    elif kind == "number":
        yield run[:MAX_TOKEN]
        yield from (part[:MAX_TOKEN] for part in re.split(r"\D+", run))
    elif kind == "word":
        word = _POSSESSIVE.sub("", run).replace("\u2019", "'").replace("'", "")
        yield _stem(word[:MAX_TOKEN]) if word.isascii() and word.isalpha() else word[:MAX_TOKEN]
    else:
        yield run


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem or word


def _stemmer() -> Any:
    """One stemmer a thread: it keeps the word it works on in itself."""
    found = getattr(_local, "stemmer", None)
    if found is None:
        import snowballstemmer

        found = _local.stemmer = snowballstemmer.stemmer("english")
    return found
