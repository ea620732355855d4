"""What the page makes of text: Markdown, whole and while it is being written, and server-sent events."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.edge.browser import answered, ask
from tests.edge.fake_worker import FakeWorker

pytestmark = pytest.mark.browser

BLOCKS = {
    "# One #": ["heading 1: One"],
    "## Two **bold**": ["heading 2: Two **bold**"],
    "Over\n====\n\nUnder\n---": ["heading 1: Over", "heading 2: Under"],
    "#no heading\n####### nor this": ["paragraph: #no heading\n####### nor this"],
    "one\ntwo\n\nthree": ["paragraph: one\ntwo", "paragraph: three"],
    "---\n***\n_ _ _": ["rule", "rule", "rule"],
    "```py\nx = 1\n\n# no heading\n```\nafter": ["code py: x = 1\n\n# no heading", "paragraph: after"],
    "~~~\n```\n~~~": ["code : ```"],
    "````md\n```\ninner\n```\n````": ["code md: ```\ninner\n```"],
    "```\nnever closed\n\n- x": ["code  (open): never closed\n\n- x"],
    "text\n```sh\nls\n```": ["paragraph: text", "code sh: ls"],
    "- a\n- b": ["ul[a|b]"],
    "1. a\n2. b\n7. c": ["ol[a|b|c]"],
    "3) a": ["ol from 3[a]"],
    "- a\n  - b\n    - c\n- d": ["ul[a;ul[b;ul[c]]|d]"],
    "- a\n\n- b": ["ul[a|b]"],
    "- a\n\n  second\n- b": ["ul[a;paragraph: second|b]"],
    "- a\nlazy": ["ul[a\nlazy]"],
    "- a\n* b": ["ul[a]", "ul[b]"],
    "1. a\n   ```\n   x\n   ```\n2. b": ["ol[a;code : x|b]"],
    "- [x] done\n- [ ] open": ["ul[x done|o open]"],
    "text\n- item": ["paragraph: text", "ul[item]"],
    "in 2024\n2025. was": ["paragraph: in 2024\n2025. was"],
    "> a\n> b\n\nc": ["quote[paragraph: a\nb]", "paragraph: c"],
    "> - a\n> - b": ["quote[ul[a|b]]"],
    "| a | b |\n|---|--:|\n| 1 | 2 |\n| 3 |": ["table left,right [a,b] [1,2] [3,]"],
    "a | b\n:-:|---\n`x|y` | \\|": ["table center,left [a,b] [`x|y`,|]"],
    "a | b\nno table": ["paragraph: a | b\nno table"],
    "": [],
    "\n\n  \n": [],
}

INLINE = {
    "plain": "plain",
    "**b** *i* ***both***": "<b>b</b> <i>i</i> <b><i>both</i></b>",
    "~~d~~ __b__ _i_": "<del>d</del> <b>b</b> <i>i</i>",
    "**a *b* c** *a **b** c*": "<b>a <i>b</i> c</b> <i>a <b>b</b> c</i>",
    "2 * 3 * 4, snake_case_name, a** b": "2 * 3 * 4, snake_case_name, a** b",
    "`a*b*` ``x`y`` `unclosed": "<code>a*b*</code> <code>x`y</code> `unclosed",
    "**never closed, *nor this": "**never closed, *nor this",
    "****": "****",
    r"\*no\* \[no\](x) \\": r"*no* [no](x) \\"[:-1],
    "&lt;b&gt; &amp;amp; &nope;": "<b> &amp; &nope;",
    "one\ntwo": "one<br>two",
    "[t](https://a.example/b_(c))": "<a https://a.example/b_(c)>t</a>",
    '[**t**](https://a.example "title")': "<a https://a.example/><b>t</b></a>",
    "[t](<https://a.example/a b>)": "<a https://a.example/a%20b>t</a>",
    "![picture](https://a.example/p.png)": "<a https://a.example/p.png>picture</a>",
    "see https://a.example/x?y=1,": "see <a https://a.example/x?y=1>https://a.example/x?y=1</a>,",
    "(http://b.example).": "(<a http://b.example/>http://b.example</a>).",
    "<https://a.example> <b>": "<a https://a.example/>https://a.example</a> <b>",
    "[m](mailto:a@a.example)": "<a mailto:a@a.example>m</a>",
    "[x](javascript:alert(1))": "[x](javascript:alert(1))",
    "[x](JAVASCRIPT:x) [y](data:text/html,x)": "[x](JAVASCRIPT:x) [y](data:text/html,x)",
    "[x](/relative) [y](//host) [z](java\nscript:x)": "[x](/relative) [y](//host) [z](java<br>script:x)",
    "[a [b](https://b.example) c](https://c.example)": "<a https://c.example/>a b c</a>",
}

OPEN = {
    "so **bo": "so <b>bo</b>",
    "so **bold*": "so <b>bold</b>",
    "a `co": "a <code>co</code>",
    "a [link](https://a.ex": "a link",
    "2 * 3": "2 * 3",
    "a *b": "a *b",
}
"""While more may come, what is begun looks as if it were ended."""

RUN = """async ({ blocks, inlines, open }) => {
    const { parse, Growing } = await import("/page/blocks.js");
    const { inline } = await import("/page/inline.js");
    const box = (task) => (task === null ? "" : task ? "x " : "o ");
    const item = ({ task, blocks }) => box(task) + blocks.map(first).join(";");
    const first = (block, at) => (at === 0 && block.type === "paragraph" ? block.text : shown(block));
    const shown = (block) => ({
        heading: () => `heading ${block.level}: ${block.text}`,
        paragraph: () => `paragraph: ${block.text}`,
        rule: () => "rule",
        code: () => `code ${block.language}${block.closed ? "" : " (open)"}: ${block.text}`,
        quote: () => `quote[${block.blocks.map(shown).join(";")}]`,
        list: () => `${block.ordered ? "ol" : "ul"}${block.start === 1 ? "" : ` from ${block.start}`}` +
            `[${block.items.map(item).join("|")}]`,
        table: () => [`table ${block.align}`, ...[block.head, ...block.rows.map((row) => row.cells)]
            .map((cells) => `[${cells}]`)].join(" "),
    })[block.type]();
    const NAMES = { strong: "b", em: "i" };
    const piece = (each) => {
        if (typeof each === "string") return each;
        if (each.type === "break") return "<br>";
        if (each.type === "code") return `<code>${each.text}</code>`;
        const inner = each.pieces.map(piece).join("");
        if (each.type === "span") return inner;
        if (each.type === "link") return `<a ${each.href}>${inner}</a>`;
        const name = NAMES[each.type] ?? each.type;
        return `<${name}>${inner}</${name}>`;
    };
    const grown = (text, size) => {
        const growing = new Growing(), all = [];
        for (let at = 0; at < text.length; at += size)
            all.push(...growing.add(text.slice(at, at + size)).finished);
        return [...all, ...growing.end().finished].map(shown);
    };
    const each = (texts, how) => Object.fromEntries(texts.map((text) => [text, how(text)]));
    const long = blocks.join("\\n\\n");
    return {
        blocks: each(blocks, (text) => parse(text).map(shown)),
        inlines: each(inlines, (text) => inline(text).map(piece).join("")),
        open: each(open, (text) => inline(text, true).map(piece).join("")),
        whole: parse(long).map(shown),
        pieces: [1, 2, 3, 7, 64].map((size) => grown(long, size)),
    };
}"""

EVIL = [
    "*" * 50_000,
    "[" * 20_000,
    "`" * 20_000,
    "**a " * 5_000,
    "*a **b " * 4_000,
    "_a " * 5_000,
    "![" * 9_000,
]
EVIL += [
    "[a](" * 5_000,
    "> " * 9_000,
    "- " * 20_000 + "x",
    "|" * 20_000 + "\n" + "-|" * 20_000,
    "# " + "a #" * 20_000,
]


@pytest.fixture
async def parsed(page: Page) -> dict[str, Any]:
    """Everything, parsed by the page's own modules."""
    cases = {"blocks": list(BLOCKS), "inlines": list(INLINE), "open": list(OPEN)}
    result: dict[str, Any] = await page.evaluate(RUN, cases)
    return result


async def test_blocks_lines_and_what_is_unfinished_are_understood(parsed: dict[str, Any]) -> None:
    assert parsed["blocks"] == BLOCKS
    assert parsed["inlines"] == INLINE
    assert parsed["open"] == OPEN
    for pieces in parsed["pieces"]:
        assert parsed["whole"] == pieces


async def test_no_text_takes_longer_than_it_is_long(page: Page) -> None:
    """A parser that goes back over what it has seen would not be done before the test's deadline."""
    run = """async (texts) => {
        const { parse } = await import("/page/blocks.js");
        const { inline } = await import("/page/inline.js");
        return texts.map((text) => [parse(text).length, inline(text).length, inline(text, true).length]);
    }"""
    counted = await page.evaluate(run, EVIL)
    assert len(EVIL) == len([counts for counts in counted if min(counts) >= 1])


async def test_finished_blocks_are_never_made_again_and_an_open_fence_is_code(
    page: Page, worker: FakeWorker
) -> None:
    turn = await ask(page, worker)
    await turn.delta("First.\n\n- one\n- two\n\n```python\nx = 1\n")
    await expect(page.locator(".code code")).to_have_text("x = 1")
    await expect(page.locator(".code-bar span")).to_have_text("python")
    await page.evaluate("for (const e of document.querySelectorAll('.markdown *')) e.marked = true")
    await turn.delta("y = 2\n")
    await expect(page.locator(".code code")).to_have_text("x = 1\ny = 2")
    await turn.delta("```\n\nLast.")
    await expect(page.locator(".markdown > p").last).to_have_text("Last.")
    await turn.complete()
    await answered(page)
    marked = "all => all.map(e => [e.tagName, e.marked === true])"
    assert [["P", True], ["UL", True], ["DIV", True], ["P", False]] == await page.locator(
        ".markdown > *"
    ).evaluate_all(marked)


PARSED = """async (text) => {
    const { EventParser } = await import("/page/sse.js");
    const whole = new EventParser(), pieces = new EventParser();
    const together = whole.feed(text);
    const apart = [...text].flatMap((character) => pieces.feed(character));
    return { together, apart, ids: [whole.lastId, pieces.lastId], retry: [whole.retry, pieces.retry] };
}"""


async def test_events_may_be_cut_anywhere_and_lines_may_end_as_they_like(page: Page) -> None:
    lines = [":", "id: t.0.0", "", "retry: 1000", "", "event: a", 'data: {"x":1}', "id: t.1.1", ""]
    lines += [":", "data:one", "data: two", "ignored", "", "data: [DONE]", "", "x"]
    expected = [
        {"type": "a", "data": '{"x":1}'},
        {"type": "message", "data": "one\ntwo"},
        {"type": "message", "data": "[DONE]"},
    ]
    whole = {"together": expected, "apart": expected, "ids": ["t.1.1"] * 2, "retry": [1000] * 2}
    for line_end in ("\n", "\r\n", "\r"):
        assert whole == await page.evaluate(PARSED, line_end.join(lines))
