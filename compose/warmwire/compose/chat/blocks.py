"""What of a growing Markdown text is finished, and what a terminal may be given of any text. Pure."""

import re
import unicodedata

from markdown_it import MarkdownIt

# As rich parses it, but for what is inside of blocks.
_PARSER = MarkdownIt().enable("strikethrough").enable("table").disable("inline")
_LINE_END = re.compile("\n")
_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What makes text look like other text."""


def finished(text: str) -> int:
    """How many characters at the beginning are blocks that nothing behind them can change any more.

    Blocks are closed line by line: once a whole line has begun another one, those before are as they will be.
    """
    whole = text.rfind("\n") + 1
    tokens = _PARSER.parse(text[:whole])
    starts = [token.map[0] for token in tokens if token.map and token.level == 0 and token.nesting >= 0]
    if len(starts) < 2 or starts[-1] == 0:
        return 0
    ends = [found.end() for found in _LINE_END.finditer(text, 0, whole)]
    return ends[starts[-1] - 1]


def clean(text: str) -> str:
    """The text without what a terminal would obey: it comes from a model, and from tools."""
    return "".join(each for each in text if each in "\n\t" or not _commands(each))


def one_line(text: str, most: int = 200) -> str:
    """The same on one line, of at most so many characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _commands(character: str) -> bool:
    return unicodedata.category(character) == "Cc" or character in _DIRECTIONS
