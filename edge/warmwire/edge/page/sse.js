// Server-sent events over fetch: EventSource can carry no token, and cannot tell a refusal from a break.

import { Refused, refusalOf } from "./api.js";

/** Cuts text into server-sent events. A piece may end anywhere, between CR and LF too. */
export class EventParser {
  #rest = "";
  #type = "";
  #data = [];
  #id = "";
  /** The id of the last event that was whole: where to continue. */
  lastId = "";
  /** Milliseconds to wait before connecting again, as the server last said; null if it did not. */
  retry = null;

  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#line(line)).filter((event) => event !== null);
  }

  /** Forgets what a connection that broke has left unfinished. */
  cut() {
    this.#rest = this.#type = "";
    this.#data = [];
    this.#id = this.lastId;
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "event") this.#type = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return null;
  }

  #dispatch() {
    const event = { type: this.#type || "message", data: this.#data.join("\n") };
    const empty = this.#data.length === 0;
    this.lastId = this.#id;
    this.#type = "";
    this.#data = [];
    return empty ? null : event;
  }
}

const FIRST_PAUSE = 500; // ms before the second attempt; each further one waits twice as long
const LONGEST_PAUSE = 10_000;
const SILENCE = 45_000; // ms without a byte, of which the server sends one every 15 s, after which a line is dead

/**
 * Yields what a session says, whatever happens to the connection: {kind: "live", fresh} for each connection (`fresh`: it
 * begins now, not where the last one broke), {kind: "event", event}, {kind: "broken"}. Throws Refused when the server
 * means no. `connect(lastId, signal)` fetches: with an empty id from now on, else from there.
 */
export async function* following(connect, signal) {
  const parser = new EventParser();
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    const line = new AbortController();
    const cut = () => line.abort();
    signal.addEventListener("abort", cut, { once: true });
    parser.cut();
    parser.retry = null;
    let ended = false;
    try {
      const response = await connect(parser.lastId, line.signal);
      if (!response.ok) throw await refusalOf(response);
      yield { kind: "live", fresh: parser.lastId === "" };
      for await (const event of read(response, parser, cut)) {
        pause = FIRST_PAUSE;
        yield { kind: "event", event: JSON.parse(event.data) };
      }
      ended = true;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused ? !(error.passing || error.status === 429) : !isBreak(error)) throw error;
    } finally {
      signal.removeEventListener("abort", cut);
      cut();
    }
    if (signal.aborted) return;
    yield { kind: "broken" };
    const told = ended ? parser.retry : null;
    await waiting(told ?? pause * (0.75 + Math.random() / 2), signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

/** Whether a fetch has failed for want of a connection. */
export function isBreak(error) {
  return error instanceof TypeError || ["NetworkError", "AbortError", "TimeoutError"].includes(error.name);
}

async function* read(response, parser, cut) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let timer = setTimeout(cut, SILENCE);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      timer = setTimeout(cut, SILENCE);
      yield* parser.feed(value);
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {}); // the connection may be gone already
  }
}

/** Waits, but not longer than until the browser is online again. */
export function waiting(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
