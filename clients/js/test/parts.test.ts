// What decides without a connection.

import { expect, test } from "vitest";
import { Answer, Refused } from "../src/index.js";
import type { Event } from "../src/index.js";
import { Line } from "../src/line.js";
import type { Dial, Ending, Frame } from "../src/line.js";
import { SseParser } from "../src/sse.js";

const WHOLE = 'id: t.0.0\n\nretry: 7\r\n\r\n:\nevent: x\ndata: {"a":\r\ndata: 1}\nid: t.1.1\n\ndata: [DONE]\rid: t.1.1\r\r\n';
const EVENTS = [
  { id: "t.0.0", data: null },
  { id: "t.1.1", data: '{"a":\n1}' },
  { id: "t.1.1", data: "[DONE]" },
];

test("events come out the same wherever the text is divided", () => {
  for (let first = 0; first <= WHOLE.length; first += 1) {
    for (let second = first; second <= WHOLE.length; second += 1) {
      const parser = new SseParser();
      const parts = [WHOLE.slice(0, first), WHOLE.slice(first, second), WHOLE.slice(second)];
      expect(parts.flatMap((part) => parser.feed(part))).toEqual(EVENTS);
      expect(parser.retry).toBe(7);
    }
  }
});

test("a cut between an id and the end of its event loses nothing", () => {
  expect(new SseParser().feed("data: 1\nid: t.1.1\n")).toEqual([]);
});

test("so it is with the parser of the chat page", async () => {
  const page = new URL("../../../edge/warmwire/edge/page/sse.js", import.meta.url).href;
  const { EventParser } = await import(/* @vite-ignore */ page);
  const parser = new EventParser();
  expect(parser.feed("id: t.0.0\n\ndata: 1\nid: t.1.1\n")).toEqual([]);
  expect(parser.lastId).toBe("t.0.0");
  parser.cut();
  expect(parser.feed("data: 2\n\ndata: 3\nid: t.1.3\n\n")).toHaveLength(2);
  expect(parser.lastId).toBe("t.1.3");
});

const delta = (text: string, index = 0): Event => ({ type: "content_block_delta", index, delta: { type: "text_delta", text } });
const start: Event = { type: "message_start", message: {} };

function textAfter(...events: Event[]): string {
  const answer = new Answer();
  for (const event of events) answer.take(event);
  return answer.text;
}

test("a reset takes back the messages from its own on", () => {
  const reset: Event = { type: "turn_reset", turn: "t", attempt: 2, reason: "r", message: 1 };
  expect(textAfter(start, delta("kept "), start, delta("void"), reset, start, delta("new"))).toBe("kept new");
  expect(textAfter(start, delta("void"), { ...reset, message: undefined }, start, delta("new"))).toBe("new");
});

test("a snapshot replaces what was shown, and the answer goes on after it", () => {
  const blocks = [{ message: 0, index: 0, kind: "text", text: "one two" }];
  expect(textAfter(start, delta("one"), { type: "snapshot", turn: "t", blocks }, delta(" three"))).toBe("one two three");
});

function dialing(...connections: (Frame[] | Error | Ending)[]): Dial {
  return async function* (): AsyncGenerator<Frame, Ending> {
    const frames = connections.shift();
    if (frames === undefined) return { done: true };
    if (frames instanceof Error) throw frames;
    if (!Array.isArray(frames)) return frames;
    yield* frames;
    return { done: false };
  };
}

async function heard(dial: Dial, renewable = false): Promise<string[]> {
  const retry = { first: 1, longest: 1, tries: 3 };
  const line = new Line({ dial, cursor: null, signal: new AbortController().signal, retry, renewable });
  const cursors: string[] = [];
  for await (const { cursor } of line) cursors.push(cursor);
  return cursors;
}

const at = (cursor: string, event: Event = delta("x")): Frame => ({ cursor, event });
const gap: Event = { type: "gap" };

test("what a server repeats is handed out once", async () => {
  const again = dialing([at("t.5.1"), at("t.5.2")], [at("t.5.1"), at("t.5.2"), at("t.5.3")], [at("t.4.9"), at("t.6.1")]);
  expect(await heard(again)).toEqual(["t.5.1", "t.5.2", "t.5.3", "t.6.1"]);
});

test("after a gap the server says where it goes on", async () => {
  expect(await heard(dialing([at("t.5.9")], [at("t.5.1", gap), at("t.5.2")]))).toEqual(["t.5.9", "t.5.1", "t.5.2"]);
});

test("what brings something ends the count of failures", async () => {
  const broken = new Error("broken");
  const connections = [1, 2, 3, 4].flatMap((seq) => [broken, broken, [at(`t.5.${seq}`)]]);
  expect(await heard(dialing(...connections))).toHaveLength(4);
  await expect(heard(dialing(broken, broken, broken, broken))).rejects.toThrow("no connection after 4 tries");
});

test("a server that ends every stream at once is not asked for ever", async () => {
  await expect(heard(dialing([], [], [], []))).rejects.toThrow("no connection after 4 tries");
});

test("who leaves ends the connection", async () => {
  let ended = false;
  const dial: Dial = async function* (): AsyncGenerator<Frame, Ending> {
    try {
      for (let seq = 1; ; seq += 1) yield at(`t.5.${seq}`);
    } finally {
      ended = true;
    }
  };
  const line = new Line({ dial, cursor: null, signal: new AbortController().signal, renewable: false });
  for await (const { cursor } of line) if (cursor === "t.5.3") break;
  expect(ended).toBe(true);
});

const refusedToken = new Refused({ type: "urn:warmwire:problem:token_expired" }, 401);
const fullQueue = new Refused({ type: "urn:warmwire:problem:queue_full" }, 429, 0.001);
const noQueue = new Refused({ type: "urn:warmwire:problem:unavailable" }, 503, 0.001);

test("an expired token is asked for anew, once, if there is who to ask", async () => {
  const renew: Ending = { done: false, renew: true };
  expect(await heard(dialing([at("t.5.1")], renew, [at("t.5.2")], refusedToken, [at("t.5.3")]), true)).toHaveLength(3);
  await expect(heard(dialing(refusedToken, refusedToken), true)).rejects.toBe(refusedToken);
  await expect(heard(dialing([at("t.5.1")], refusedToken))).rejects.toBe(refusedToken);
});

test("a full queue is an answer before anything was accepted, and an obstacle afterwards", async () => {
  await expect(heard(dialing(fullQueue))).rejects.toBe(fullQueue);
  expect(await heard(dialing(noQueue, [at("t.5.1")], fullQueue, noQueue, [at("t.5.2")]))).toHaveLength(2);
});

test("a refusal that no try can mend ends it", async () => {
  const foreign = new Refused({ type: "urn:warmwire:problem:foreign_session" }, 403);
  await expect(heard(dialing([at("t.5.1")], foreign))).rejects.toBe(foreign);
});
