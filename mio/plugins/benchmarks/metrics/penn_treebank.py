"""Words of captions as the COCO evaluation counts them: Penn Treebank tokens, lower case, without punctuation.

The evaluation (pycocoevalcap 1.2, `tokenizer/ptbtokenizer.py`) runs Stanford's PTBTokenizer 3.4.1, a Java program, with
`-preserveLines -lowerCase`. Here is a tokenizer that was written to agree with what that program says: it does for each
of 25,014 captions of COCO and 40,960 of Flickr8k (`benchmarks/metrics.py`), and for a made set of odd ones.
"""

from __future__ import annotations

import re
from functools import lru_cache

PUNCTUATION = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))
"""Tokens that are no words to the evaluation. It lists brackets as well, but as `-LRB-`: what it compares is in lower
case, so `-lrb-` counts as a word."""

_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_REPLACED = {
    **{ord(character): "'" for character in "’‘‛‹›"},
    **{ord(character): '"' for character in "“”«»"},
    **{ord(character): " -- " for character in "–—―"},
    ord("…"): " ... ",
    **{ord(sign): f" {text} " for sign, text in {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}.items()},
    **{ord(sign): f" {text} " for sign, text in {"£": "#", "€": "$", "¢": "cents"}.items()},
    **dict.fromkeys((0xAD, 0xFE0E, 0xFE0F), ""),  # soft hyphens, variation selectors
    **dict.fromkeys((0x200B, *map(ord, "「」")), " "),
}
"""Characters that it writes in ASCII, and those that it passes over."""

_ENTITIES = (("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&apos;", "'"), ("&nbsp;", " "))

_ABBREVIATIONS = (
    "adj|adm|adv|al|ala|apr|ariz|assn|assoc|asst|atty|aug|ave|bancorp|bhd|bldg|blvd|brig|bros|calif|capt|cf|cie|"
    "cmdr|co|col|colo|comdr|conn|corp|cos|cpl|ct|dak|dec|dept|det|dr|drs|ens|esq|est|etc|ext|feb|fla|fri|ft|ga|gen|"
    "gov|hon|inc|ind|insp|intl|jan|jr|jul|jun|kan|ky|lt|ltd|maj|mar|md|messrs|mfg|mich|minn|mlle|mme|mo|mon|mr|mrs|"
    "ms|mt|mtg|natl|neb|nev|nov|oct|okla|penn|pfc|ph|plc|pres|prof|profs|pte|pty|pvt|rd|rep|reps|rev|rt|sen|sens|"
    "sept|sgt|spc|sq|sr|st|ste|supt|tel|tenn|thu|thurs|tue|tues|univ|va|vs|vt|wed|wis|wyo"
)
"""Keep their full stop in any case."""
_STATES = "Ark|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash"
"""Keep it with a capital: `Miss.`, but `miss .`."""
_NUMBERED = "art|ca|fig|figs|no|nos|op|pp"
"""Keep it before a number."""

_MARKS = r"\u0300-\u036f\u0591-\u05bd\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0962-\u0963\u0e31\u0e34-\u0e4e"
_W = rf"(?:[^\W_²³¹ºª]|[{_MARKS}])"
"""A letter or digit, with the marks that some scripts add to them."""
_L = rf"(?:(?!\d){_W})"
_PART = rf"(?:o'clock|{_L}+[aeiou]'[aeiou]{_L}*|{_W}+)"
"""Of a word: Hawai'i is one."""
_STARTERS = (
    "A|An|The|This|That|These|There|Here|He|She|It|We|You|They|In|At|As|But|So|If|When|While|What|One|Some|Many|"
    "Her|Our|Their|Other|Then|Now|After|However|Yet"
)
"""Where one of these follows an initial, its full stop ended a sentence."""

_TOKENS = re.compile(
    rf"""
    (?P<tag></?[A-Za-z!][^<>]*>)
  | (?P<address>https?://[^\s"<>|()]*[^\s"<>|().,!?:{{}}-]
      |(?:www\.)?(?:[a-z0-9-]+\.)+(?:com|net|org|edu)(?:/[^\s"<>|()]*[^\s"<>|().,!?;:{{}}-])?(?!{_W})
      |[a-z0-9][^\s"<>|()@]*@[^\s"<>|().]+(?:\.[^\s"<>|().]+)*)
  | (?P<handle>@[a-z_]\w*|\#[a-z]+)
  | (?P<face>[:;=][()]|[:;]-[()]|[:=][dp](?!{_W})|\^_\^|[<>]_[<>])
  | (?P<initial>(?-i:(?<!{_W})[A-Z](?=\.\s*(?:\Z|\s(?:{_STARTERS})(?!{_W})))))
  | (?P<acronym>(?<!{_L})(?:[a-z]\.)+[a-z](?!{_W})\.?|ph\.d\.?|(?<![\w'])[a-z]\.(?!{_L}))
  | (?P<abbreviation>(?:{_ABBREVIATIONS}|(?-i:{_STATES}))\.(?!{_L})
      |(?:{_NUMBERED})\.(?=\s*\d))
  | (?P<quote>''|``)
  | (?P<decade>'\d\ds?(?!{_W}|['"]))
  | (?P<elided>'n'|'n(?!{_W})|'(?:em|til|cause)(?!{_W})|(?<!{_W})'t(?=is(?!{_W})|was(?!{_W})))
  | (?P<ending>n't(?!{_W})|'(?:s|m|d|ll|re|ve)(?!{_W}))
  | (?P<split>can(?=not(?!{_W}))|(?:gon(?=na)|got(?=ta)|lem(?=me)|gim(?=me))(?=..(?!{_W}|['-]))
      |wan(?=na(?:\s|\Z)))
  | (?P<negated>{_L}+?(?=n't(?!{_W})))
  | (?P<company>(?-i:[A-Z]+(?:&[A-Z]+)+)|c\+\+|[a-z]\#(?!{_W})|(?<!{_W})(?:us|hk|c|a|nz|m)\$)
  | (?P<apostrophe>(?:ma'am|e'er|s'mores|nat'l|c'mon)(?!{_W})|(?:ol|dunkin|somethin)'(?!{_W})
      |(?-i:[A-HK-XZdlno]|J)'(?!(?:s|m|d|ll|re|ve|t)(?!{_W}))(?!n'){_L}+(?:-{_W}+)*
      |y'(?={_L})(?!(?:s|m|d|ll|re|ve)(?!{_W})))
  | (?P<signed>[+-](?:\d+(?:[.:,]\d+)*|\.\d+))
  | (?P<measured>\d+(?:[.:,]\d+)+(?:-{_L}{_W}*)+|\d+[.:,]\d+(?:[.:,]\d+)*(?:-\d+)?|\.\d+)
  | (?P<year>\d{{4}}(?=-\d{{1,2}}-\d{{1,2}}(?!{_W})))
  | (?P<dotted>{_L}+(?:[.]{_L}+)+|{_L}{{2,}}[!?]{_L}+)
  | (?P<word>{_PART}(?:[-_]{_PART})*(?:/{_PART}(?:[-_]{_PART})*){{0,2}})
  | (?P<run>\.{{3,}}|-{{2,}}|_+|\*+|[?!]{{2,}})
  | (?P<single>\S)
    """,
    re.VERBOSE | re.IGNORECASE,
)


@lru_cache(maxsize=1 << 17)
def words(caption: str) -> tuple[str, ...]:
    """The words of a caption, in order."""
    text = caption.translate(_REPLACED)
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    found: list[str] = []
    for match in _TOKENS.finditer(text):
        token, kind = match.group(), match.lastgroup
        if kind == "single" and (token in '"' or ord(token) > 0xFFFF):
            continue
        if kind == "run":
            token = "--" if token in ("---", "----") else "..." if token[0] == "." else token
        for character, name in _BRACKETS.items():
            token = token.replace(character, name)
        found += (word for word in token.lower().split() if word not in PUNCTUATION)
    return tuple(found)
