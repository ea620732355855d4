// Markdown within a line: emphasis, code, links. Pure: text in, plain objects out; `render.js` makes nodes of them.
//
// A piece is a string, or {type, …}: code {text}, strong, em and del {pieces}, link {href, pieces}, break.

const DEEPEST = 8; // emphasis within emphasis; what is deeper stays as it is written

const ESCAPED = /^\\([!-/:-@[-`{-~])/;
const URL = /^https?:\/\/[^\s<>"'`]*[^\s<>"'`.,;:!?)\]*_~]/;
const ANGLED = /^<((?:https?:\/\/|mailto:)[^\s<>]+)>/;
const LINK = /^!?\[((?:[^[\]\\]|\\.|\[[^[\]]*\])*)\]\([ \t]*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\([^\s()]*\))*))(?:[ \t]+(?:"[^"]*"|'[^']*'))?[ \t]*\)/;
const UNFINISHED_LINK = /^!?\[((?:[^[\]\\]|\\.)*)\]\([^)\n]*$/;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0", "#39": "'" };
const ENTITY = /^&(amp|lt|gt|quot|apos|nbsp|#39);/;
const SPECIAL = /[\\`*_~[!<h&\n]/g;
const EMPHASIS = [
  ["***", "both"],
  ["**", "strong"],
  ["__", "strong"],
  ["~~", "del"],
  ["*", "em"],
  ["_", "em"],
];
const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/** Where a link may lead; null for everything that is not the web or mail, scripts and data above all. */
export function safeHref(href) {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href)) return null;
  try {
    const url = new globalThis.URL(href);
    return SCHEMES.has(url.protocol) ? url.href : null;
  } catch {
    return null; // not an address
  }
}

/** The pieces of a text. `open`: more text may come, what is begun looks as if it were ended. */
export function inline(text, open = false, depth = 0) {
  const pieces = [];
  let plain = "";
  let at = 0;
  const hopeless = new Set(); // marks that nothing ends from here on: they are not looked for again
  const push = (piece, length) => {
    if (plain) pieces.push(plain);
    plain = "";
    pieces.push(piece);
    at += length;
  };
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    at = next;
    if (at >= text.length) break;
    const found = special(text, at, { open, depth, hopeless });
    if (typeof found.piece === "string") {
      plain += found.piece;
      at += found.length;
    } else if (found.piece.type === "break") {
      plain = plain.replace(/[ \t]+$/, "");
      push(found.piece, found.length);
    } else push(found.piece, found.length);
  }
  if (plain) pieces.push(plain);
  return pieces;
}

/** What stands at a special character, and how long it is; the character itself if it means nothing there. */
function special(text, at, how) {
  const rest = text.slice(at);
  switch (text[at]) {
    case "\\":
      return escaped(rest);
    case "`":
      return codeSpan(rest, how.open);
    case "&":
      return entity(rest);
    case "\n":
      return { piece: { type: "break" }, length: 1 }; // people and models mean a line break by one
    case "[":
    case "!":
      return link(rest, how) ?? itself(rest);
    case "<":
    case "h":
      return address(text, at, rest) ?? itself(rest);
  }
  return emphasis(text, at, rest, how) ?? itself(rest, rest.match(/^([*_~])\1*/)?.[0].length);
}

const itself = (rest, length = 1) => ({ piece: rest.slice(0, length), length });

function escaped(rest) {
  const found = ESCAPED.exec(rest);
  return found ? { piece: found[1], length: 2 } : itself(rest);
}

function entity(rest) {
  const found = ENTITY.exec(rest);
  return found ? { piece: ENTITIES[found[1]], length: found[0].length } : itself(rest);
}

function codeSpan(rest, open) {
  const fence = /^`+/.exec(rest)[0];
  const closing = new RegExp(`[^\`]${fence}(?!\`)`).exec(rest.slice(fence.length));
  if (!closing && !(open && fence.length === 1 && rest.length > 1)) return itself(rest, fence.length);
  const end = closing ? fence.length + closing.index + 1 : rest.length;
  let text = rest.slice(fence.length, end).replaceAll("\n", " ");
  if (/^ .*\S.* $/.test(text)) text = text.slice(1, -1);
  return { piece: { type: "code", text }, length: closing ? end + fence.length : end };
}

/** A link, or an image, which is shown as a link: nothing is loaded from where a model says. */
function link(rest, how) {
  const found = LINK.exec(rest);
  if (!found) return unfinishedLink(rest, how);
  const [whole, label, angled, bare] = found;
  const href = safeHref((angled ?? bare).replace(/\\([!-/:-@[-`{-~])/g, "$1"));
  if (href === null) return itself(rest, whole.length);
  const pieces = how.depth < DEEPEST ? inline(label, false, how.depth + 1).map(unlinked) : [label];
  return { piece: { type: "link", href, pieces: label ? pieces : [href] }, length: whole.length };
}

function unfinishedLink(rest, { open, depth }) {
  const found = open && UNFINISHED_LINK.exec(rest);
  if (!found || depth >= DEEPEST) return null;
  return { piece: { type: "span", pieces: inline(found[1], false, depth + 1).map(unlinked) }, length: rest.length };
}

const unlinked = (piece) => (piece.type === "link" ? { type: "span", pieces: piece.pieces } : piece);

function address(text, at, rest) {
  if (rest[0] === "h" && /\w/.test(text[at - 1] ?? "")) return null;
  const found = (rest[0] === "<" ? ANGLED : URL).exec(rest);
  const href = found && safeHref(found[1] ?? found[0]);
  if (!href) return null;
  return { piece: { type: "link", href, pieces: [found[1] ?? found[0]] }, length: found[0].length };
}

function emphasis(text, at, rest, { open, depth, hopeless }) {
  if (depth >= DEEPEST) return null;
  const before = text[at - 1] ?? " ";
  for (const [mark, type] of EMPHASIS) {
    if (!rest.startsWith(mark)) continue;
    if (mark[0] === "_" && /[\p{L}\p{N}]/u.test(before)) return null; // snake_case
    if (/^\s|^$/.test(rest.slice(mark.length, mark.length + 1))) continue;
    const end = hopeless.has(mark) ? -1 : closingOf(rest, mark);
    if (end < 0) hopeless.add(mark);
    if (end < 0 && !(open && mark === "**")) continue;
    const inner = rest.slice(mark.length, end < 0 ? undefined : end);
    const pieces = inline(end < 0 ? inner.replace(/\*$/, "") : inner, open && end < 0, depth + 1);
    const piece = type === "both" ? { type: "strong", pieces: [{ type: "em", pieces }] } : { type, pieces };
    return { piece, length: end < 0 ? rest.length : end + mark.length };
  }
  return null;
}

/** Where the mark that ends an emphasis stands; code and what is escaped is jumped over. */
function closingOf(rest, mark) {
  let at = mark.length;
  while (at < rest.length) {
    if (rest[at] === "\\") at += 2;
    else if (rest[at] === "`") at += codeSpan(rest.slice(at), false).length;
    else if (rest[at] === mark[0]) {
      const run = lengthOfRun(rest, at);
      const fits = run === mark.length || (run > mark.length && run !== 2) || (mark.length === 2 && run > 2);
      const after = rest[at + run] ?? " ";
      const within = mark[0] === "_" && /[\p{L}\p{N}]/u.test(after);
      if (fits && at > mark.length && !/\s/.test(rest[at - 1]) && !within) return at + run - mark.length;
      at += run;
    } else at += 1;
  }
  return -1;
}

function lengthOfRun(text, at) {
  let end = at;
  while (text[end] === text[at]) end += 1;
  return end - at;
}
