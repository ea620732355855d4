"""Which part of a growing Markdown text is finished, and what a terminal is not given."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from warmwire.compose.chat.blocks import clean, finished, one_line

TEXT = """\
# Title
A paragraph
in two lines

Heading
---
- one

  more of it
- two
```python
x = 1

```
| a | b |
|---|---|
| c | d |

> quoted
lazily

1. first
10. tenth

    code

***
[link]: https://example.org
The end, with [link]"""


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("", ""),
        ("A paragraph", ""),
        ("A paragraph\n", ""),
        ("A paragraph\n\n", ""),
        ("A paragraph\n\nAnother", ""),  # "Another" may become anything, as its line is not whole
        ("A paragraph\n\nAnother\n", "A paragraph\n\n"),
        ("A paragraph\n#", ""),  # "#hashtag" would go on with it
        ("A paragraph\n# \n", "A paragraph\n"),
        ("Heading\n---\n", ""),
        ("- one\n\n- two\n", ""),
        ("```\na\n\nb\n", ""),
        ("```\na\n```\nb\n", "```\na\n```\n"),
    ],
)
def test_blocks_are_finished_by_a_whole_line_of_the_next_one(text: str, done: str) -> None:
    assert done == text[: finished(text)]


@pytest.mark.parametrize("step", [1, 3, 7])
def test_what_is_finished_stays_as_it_is_whatever_follows(step: int) -> None:
    pieces, rest = list[str](), ""
    for start in range(0, len(TEXT), step):
        rest += TEXT[start : start + step]
        done = finished(rest)
        if done:
            pieces.append(rest[:done])
            rest = rest[done:]
    kinds = [token.type for piece in [*pieces, rest] for token in MarkdownIt().enable("table").parse(piece)]
    assert [token.type for token in MarkdownIt().enable("table").parse(TEXT)] == kinds
    assert 8 <= len(pieces)


def test_nothing_in_a_text_commands_a_terminal() -> None:
    assert "a\n\tb[31mc" == clean("a\n\tb\x1b[31m\x00\r\x07\x9bc\x7f\u202e")
    assert "äß漢🙂" == clean("äß漢🙂")


def test_a_line_is_one_line_of_bounded_length() -> None:
    assert "a b" == one_line(" a\n\x1b b ")
    assert "abc…" == one_line("abcdef", 4)
