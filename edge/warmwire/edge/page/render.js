// Blocks of Markdown as nodes. Nothing here is ever parsed as HTML: nodes are made one by one, text is text.

import { Growing } from "./blocks.js";
import { inline } from "./inline.js";
import { button, element } from "./elements.js";
import { copyText } from "./clipboard.js";

/** A text that grows within `root`. Finished blocks are made once and never touched again. */
export class Markdown {
  #root;
  #text = new Growing();
  #open = []; // [{block, node}] of the blocks that may still change

  constructor(root) {
    this.#root = root;
  }

  add(text) {
    const { finished, open } = this.#text.add(text);
    this.#show([...finished, ...open], finished.length);
  }

  end() {
    const { finished } = this.#text.end();
    this.#show(finished, finished.length);
  }

  /** The first blocks take the places of those that were open, from the first on. */
  #show(blocks, finished) {
    const before = this.#open;
    const nodes = blocks.map((block, number) => this.#place(block, before[number], number >= finished));
    for (const { node } of before.slice(blocks.length)) node.remove();
    this.#open = blocks.slice(finished).map((block, number) => ({ block, node: nodes[finished + number] }));
  }

  #place(block, shown, open) {
    if (shown === undefined) {
      const node = nodeOf(block, open);
      this.#root.append(node);
      return node;
    }
    if (open && shown.block.source === block.source) return shown.node;
    if (grown(shown.node, shown.block, block, open)) return shown.node;
    const node = nodeOf(block, open);
    shown.node.replaceWith(node);
    return node;
  }
}

/** Brings a node up to date where only its end has changed; false if it has to be made anew. */
function grown(node, before, block, open) {
  if (before.type !== block.type) return false;
  if (block.type === "code" && before.language === block.language && block.text.startsWith(before.text)) {
    node.querySelector("code").firstChild.appendData(block.text.slice(before.text.length));
    return true;
  }
  if (block.type === "list" && before.ordered === block.ordered && before.start === block.start) {
    return grownItems(node, before.items, block.items, (item, last) => itemNode(item, open && last));
  }
  if (block.type === "table" && before.head.join("|") === block.head.join("|")) {
    if (before.align.join() !== block.align.join()) return false;
    const make = (row, last) => rowNode(row.cells, block.align, "td", open && last);
    return grownItems(node.querySelector("tbody"), before.rows, block.rows, make);
  }
  return false;
}

function grownItems(parent, before, items, make) {
  let same = 0;
  while (same < before.length - 1 && before[same].source === items[same]?.source) same += 1;
  while (parent.children.length > same) parent.lastChild.remove();
  items.slice(same).forEach((item, number) => parent.append(make(item, same + number === items.length - 1)));
  return true;
}

function nodeOf(block, open) {
  switch (block.type) {
    case "heading": // below the page's own; one level for all, as models skip levels and screen readers mind that
      return element("h3", { className: `level-${block.level}` }, ...pieces(block.text, open));
    case "code":
      return codeNode(block);
    case "rule":
      return element("hr");
    case "quote":
      return element("blockquote", {}, ...nodesOf(block.blocks, open));
    case "list":
      return listNode(block, open);
    case "table":
      return tableNode(block, open);
    case "paragraph":
      return element("p", {}, ...pieces(block.text, open));
  }
  throw new Error(`no block is of type ${block.type}`);
}

/** Only the last of several blocks can be open. */
const nodesOf = (blocks, open) => blocks.map((block, number) => nodeOf(block, open && number === blocks.length - 1));

function codeNode({ language, text }) {
  const code = element("code", {}, document.createTextNode(text));
  const copy = button("copy", "Copy code", () => copyText(code.textContent, copy));
  const name = element("span", {}, language || "text");
  const bar = element("div", { className: "code-bar" }, name, copy);
  const body = element("pre", { tabIndex: 0 }, code);
  return element("div", { className: "code" }, bar, body);
}

function listNode({ ordered, start, items }, open) {
  const list = element(ordered ? "ol" : "ul", ordered && start !== 1 ? { start } : {});
  list.append(...items.map((item, number) => itemNode(item, open && number === items.length - 1)));
  return list;
}

/** A paragraph that is an item's first is shown without the space of one. */
function itemNode({ task, blocks }, open) {
  const nodes = nodesOf(blocks, open);
  const item = element("li");
  if (task !== null) {
    item.className = "task";
    const box = element("input", { type: "checkbox", checked: task, disabled: true });
    box.setAttribute("aria-label", task ? "done" : "to do");
    item.append(box);
  }
  if (nodes[0]?.tagName === "P") item.append(...nodes.shift().childNodes);
  item.append(...nodes);
  return item;
}

function tableNode({ align, head, rows }, open) {
  const header = element("thead", {}, rowNode(head, align, "th", open && rows.length === 0));
  const body = element("tbody");
  body.append(...rows.map((row, number) => rowNode(row.cells, align, "td", open && number === rows.length - 1)));
  const scrolled = element("div", { className: "table", tabIndex: 0, role: "region", ariaLabel: "Table" });
  scrolled.append(element("table", {}, header, body));
  return scrolled;
}

function rowNode(cells, align, name, open) {
  const row = element("tr");
  row.append(
    ...cells.map((cell, column) =>
      element(name, { className: align[column] ?? "left" }, ...pieces(cell, open && column === cells.length - 1)),
    ),
  );
  return row;
}

const pieces = (text, open) => inline(text, open).map(pieceNode);

function pieceNode(piece) {
  if (typeof piece === "string") return document.createTextNode(piece);
  if (piece.type === "break") return element("br");
  if (piece.type === "code") return element("code", {}, piece.text);
  const inner = piece.pieces.map(pieceNode);
  if (piece.type !== "link") return element(piece.type, {}, ...inner);
  const link = { href: piece.href, rel: "noopener noreferrer nofollow", target: "_blank" };
  return element("a", link, ...inner);
}
