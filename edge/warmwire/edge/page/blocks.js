// Markdown into blocks, as a model writes it. Pure: text in, plain objects out; `render.js` makes nodes of them.
//
// A block is {type, source, …}: heading {level, text}, paragraph {text}, code {language, text, closed}, rule, quote {blocks},
// list {ordered, start, items: [{source, task, blocks}]}, table {align, head, rows}. `text` is inline Markdown (`inline.js`).
// HTML is no part of it: a tag is text like any other.

const DEEPEST = 12; // lists and quotes within each other; what is deeper is a paragraph

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|[ \t]*)$/;
const TASK = /^\[([ xX])\][ \t]+/;
const UNDERLINE = /^ {0,3}(=+|-+)[ \t]*$/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;

/** Whether a line that is still being written may yet become something else than it looks like. */
const UNDECIDED = /^[ \t]*(?:[-*+=_#>|`~:]+|\d{1,9}[.)]?|[-*+] \[[ xX]?\]?)[ \t]*$/;

/**
 * A text that grows. Blocks that are followed by another one are finished: they are handed out once and never looked
 * at again. What comes after them is parsed anew with each piece of text.
 */
export class Growing {
  #rest = "";

  /** Returns {finished: blocks that are new and final, open: those after them, as they look so far}. */
  add(text) {
    this.#rest += text;
    const finished = text.includes("\n") ? this.#finished() : [];
    return { finished, open: parse(shown(this.#rest)) };
  }

  /** No more text comes: all that was open is final. */
  end() {
    const finished = parse(this.#rest);
    this.#rest = "";
    return { finished, open: [] };
  }

  #finished() {
    const whole = this.#rest.slice(0, this.#rest.lastIndexOf("\n") + 1); // a line without its end may still change
    const blocks = parse(whole);
    const last = blocks.pop();
    if (last !== undefined) this.#rest = this.#rest.slice(last.at);
    return blocks;
  }
}

/** The text without a last line that nothing can be said of yet. */
function shown(text) {
  const begin = text.lastIndexOf("\n") + 1;
  return UNDECIDED.test(text.slice(begin)) ? text.slice(0, begin) : text;
}

/** The blocks of a text. `at` is where a block begins in it. */
export function parse(text, depth = 0) {
  const lines = text.split("\n");
  const starts = [];
  let at = 0;
  for (const line of lines) {
    starts.push(at);
    at += line.length + 1;
  }
  const blocks = [];
  let number = 0;
  while (number < lines.length) {
    if (BLANK.test(lines[number])) {
      number += 1;
      continue;
    }
    const [block, next] = blockAt(lines, number, depth);
    const source = lines.slice(number, next).join("\n");
    blocks.push({ ...block, at: starts[number], source });
    number = next;
  }
  return blocks;
}

/** The block that begins with a line, and the number of the line after it. */
function blockAt(lines, from, depth) {
  const line = lines[from];
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "heading", level: heading[1].length, text: heading[2] ?? "" }, from + 1];
  if (FENCE.test(line)) return code(lines, from);
  if (RULE.test(line)) return [{ type: "rule" }, from + 1];
  if (depth < DEEPEST) {
    if (QUOTE.test(line)) return quote(lines, from, depth);
    if (ITEM.test(line)) return list(lines, from, depth);
  }
  if (isTable(lines, from)) return table(lines, from);
  return paragraph(lines, from);
}

function code(lines, from) {
  const [, fence, info] = FENCE.exec(lines[from]);
  const indent = lines[from].search(/\S/);
  const closing = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`);
  let end = from + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const closed = end < lines.length;
  const body = lines.slice(from + 1, end).map((line) => line.slice(Math.min(indent, leading(line))));
  if (!closed && body.at(-1) === "") body.pop(); // the line that is about to be written
  const text = body.join("\n");
  return [{ type: "code", language: info.trim().split(/\s/)[0], text, closed }, closed ? end + 1 : end];
}

function quote(lines, from, depth) {
  let end = from;
  const inner = [];
  while (end < lines.length && (QUOTE.test(lines[end]) || (end > from && continues(lines[end])))) {
    inner.push(lines[end].replace(QUOTE, ""));
    end += 1;
  }
  return [{ type: "quote", blocks: parse(inner.join("\n"), depth + 1) }, end];
}

function list(lines, from, depth) {
  const first = ITEM.exec(lines[from]);
  const kind = kindOf(first[2]);
  const items = [];
  let end = from;
  while (end < lines.length) {
    const item = ITEM.exec(lines[end]);
    if (!item || kindOf(item[2]) !== kind || RULE.test(lines[end])) break;
    const next = endOfItem(lines, end, widthOf(item));
    items.push(itemOf(lines.slice(end, next), widthOf(item), depth));
    end = next;
    const after = skipBlank(lines, end);
    const more = after < lines.length && ITEM.exec(lines[after]);
    if (after > end && !(more && kindOf(more[2]) === kind)) break;
    end = after;
  }
  const ordered = /\d/.test(first[2]);
  return [{ type: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, items }, end];
}

const kindOf = (marker) => marker.at(-1); // "1." and "1)" are two lists, as are "-" and "*"

/** How far the text of an item is indented: what is indented so far belongs to it. */
function widthOf(item) {
  const [, indent, marker, space = " "] = item;
  return indent.length + marker.length + (space.length > 4 ? 1 : space.length);
}

function endOfItem(lines, from, width) {
  let end = from + 1;
  while (end < lines.length) {
    const next = skipBlank(lines, end);
    if (next >= lines.length) return end;
    const within = leading(lines[next]) >= Math.min(width, 2);
    if (!within && (next > end || ITEM.test(lines[next]) || !continues(lines[next]))) return end;
    end = next + 1;
  }
  return end;
}

function itemOf(lines, width, depth) {
  const cut = lines.map((line) => line.slice(Math.min(width, leading(line))));
  cut[0] = lines[0].slice(width);
  const task = TASK.exec(cut[0]);
  if (task) cut[0] = cut[0].slice(task[0].length);
  const blocks = parse(cut.join("\n"), depth + 1);
  return { source: lines.join("\n"), task: task ? task[1] !== " " : null, blocks };
}

function isTable(lines, from) {
  const next = lines[from + 1];
  if (next === undefined || !lines[from].includes("|") || !next.includes("-") || !DELIMITERS.test(next)) return false;
  return cells(lines[from]).length === cells(next).length;
}

function table(lines, from) {
  const head = cells(lines[from]);
  const align = cells(lines[from + 1]).map(alignment);
  let end = from + 2;
  const rows = [];
  while (end < lines.length && !BLANK.test(lines[end]) && continues(lines[end])) {
    const row = cells(lines[end]);
    rows.push({ source: lines[end], cells: head.map((_, column) => row[column] ?? "") });
    end += 1;
  }
  return [{ type: "table", align, head, rows }, end];
}

function alignment(cell) {
  if (cell.endsWith(":")) return cell.startsWith(":") ? "center" : "right";
  return "left";
}

/** The cells of a row; a bar behind a backslash, or in code, is text. */
function cells(line) {
  const inner = line.trim().replace(/^\|/, "").replace(/(?<!\\)\|$/, "");
  const found = [""];
  for (const piece of inner.match(/\\.|`[^`]*`|[^|\\`]+|[|`\\]/g) ?? []) {
    if (piece === "|") found.push("");
    else found[found.length - 1] += piece === "\\|" ? "|" : piece;
  }
  return found.map((cell) => cell.trim());
}

function paragraph(lines, from) {
  let end = from + 1;
  while (end < lines.length && continues(lines[end]) && !isTable(lines, end)) {
    const underline = UNDERLINE.exec(lines[end]);
    if (underline) {
      const text = textOf(lines.slice(from, end));
      return [{ type: "heading", level: underline[1][0] === "=" ? 1 : 2, text }, end + 1];
    }
    end += 1;
  }
  return [{ type: "paragraph", text: textOf(lines.slice(from, end)) }, end];
}

const textOf = (lines) => lines.map((line) => line.trimStart()).join("\n").replace(/[ \t]+$/, "");

/** Whether a line goes on with the paragraph before it: it is not blank, and begins nothing else. */
function continues(line) {
  if (BLANK.test(line)) return false;
  if (UNDERLINE.test(line)) return true;
  const item = ITEM.exec(line);
  const begins = HEADING.test(line) || FENCE.test(line) || RULE.test(line) || QUOTE.test(line);
  return !begins && !(item && item[4] !== undefined && (!/\d/.test(item[2]) || parseInt(item[2], 10) === 1));
}

function skipBlank(lines, from) {
  let next = from;
  while (next < lines.length && BLANK.test(lines[next])) next += 1;
  return next;
}

const leading = (line) => line.length - line.trimStart().length;
