// One turn as its reader has it, and a session as its watchers have it.

import { Answer } from "./answer.js";
import { AnswerLost, TurnFailed, WarmwireError } from "./errors.js";
import type { Event, Placed } from "./events.js";
import { isEnd } from "./events.js";
import type { Dial, LineOptions } from "./line.js";
import { Line } from "./line.js";

const LEAVE = 5_000; // ms that an aborted turn has to become known, so that it can be interrupted

/** Where a reader stands: plain values, to be kept over a reload. */
export interface Saved {
  session: string;
  turn: string;
  /** Go on after this; without it the turn is told from its beginning. */
  cursor?: string;
}

export interface TurnOptions {
  session: string;
  id: string | null;
  line: Omit<LineOptions, "signal" | "dial">;
  dial: (turn: Turn) => Dial;
  interrupt: (turn: string) => Promise<string | null>;
  signal?: AbortSignal | undefined;
  /** What an abort does to the turn itself. */
  onAbort: "interrupt" | "detach";
}

/** A turn, to be read once: `for await (const event of turn)`, or `await turn.text()`. Nothing is sent before it is read. */
export class Turn implements AsyncIterable<Event> {
  readonly session: string;
  /** What the events so far add up to. */
  readonly answer = new Answer();
  #id: string | null;
  #how: TurnOptions;
  #line: Line;
  #stop = new AbortController();
  #begun = false;
  #leaving: ReturnType<typeof setTimeout> | undefined;
  #interrupting: Promise<unknown> | null = null;
  #settle!: () => void;
  /** Over once the turn is accepted, or will not be. */
  #settled = new Promise<void>((resolve) => (this.#settle = resolve));

  /** Made by `Warmwire`. */
  constructor(how: TurnOptions) {
    this.#how = how;
    this.session = how.session;
    this.#id = how.id;
    this.#line = new Line({ ...how.line, dial: how.dial(this), signal: this.#stop.signal });
  }

  /** The turn's id; null until it is accepted. */
  get id(): string | null {
    return this.#id;
  }

  /** Where its reader stands. */
  get cursor(): string | null {
    return this.#line.cursor;
  }

  /** For `Warmwire.resume`, with the cursor: who keeps the text goes on after it. Throws before it is accepted. */
  toJSON(): Saved {
    if (this.#id === null) throw new WarmwireError("the turn has not been accepted yet");
    return { session: this.session, turn: this.#id, ...(this.cursor ? { cursor: this.cursor } : {}) };
  }

  /** Stops the turn; its reader gets `turn_interrupted`. Never stops a later one. False if there was nothing to stop. */
  async interrupt(): Promise<boolean> {
    if (this.#begun) await this.#settled;
    return this.#id !== null && (await this.#how.interrupt(this.#id)) !== null;
  }

  /** Reads no further, and leaves the connection at once; the turn itself goes on. */
  close(): void {
    this.#stop.abort();
  }

  /** Reads to the end; the whole text, of an interrupted turn that so far. Throws TurnFailed, AnswerLost. */
  async text(): Promise<string> {
    for await (const _ of this);
    const { end, text } = this.answer;
    if (end === null) throw new AnswerLost("the end of this turn is no longer known");
    if (end.type === "turn_failed") throw new TurnFailed(end.message, end.code, end.retryable);
    return text;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event, void> {
    if (this.#begun) throw new WarmwireError("a turn is read once; resume() gives another reader");
    const { signal } = this.#how;
    signal?.throwIfAborted();
    this.#begun = true;
    const abort = () => this.#abort();
    signal?.addEventListener("abort", abort, { once: true });
    try {
      yield* this.#read();
    } finally {
      signal?.removeEventListener("abort", abort);
      clearTimeout(this.#leaving);
      this.#stop.abort();
      this.#settle();
      await this.#interrupting;
    }
  }

  async *#read(): AsyncGenerator<Event, void> {
    for await (const { event } of this.#line) {
      this.answer.take(event);
      yield event;
      if (isEnd(event)) return;
    }
  }

  /** Told by the transport, before the first event of the turn. */
  accepted(id: string): void {
    this.#id = id;
    this.#settle();
    if (this.#how.signal?.aborted) this.#leave();
  }

  // A message that is on its way may be accepted yet: an interrupt needs its turn.
  #abort(): void {
    if (this.#id !== null || this.#how.onAbort === "detach") this.#leave();
    else this.#leaving = setTimeout(() => this.#leave(), LEAVE);
  }

  // Now, not when its reader comes for the next event: it may never come. Where it does, it is told of a failure.
  #leave(): void {
    const { signal, onAbort, interrupt } = this.#how;
    if (onAbort === "interrupt" && this.#id !== null) this.#interrupting ??= interrupt(this.#id);
    this.#interrupting?.catch(() => {});
    this.#stop.abort(signal?.reason);
  }
}

/** A session, to be read once; it does not end by itself. */
export class Watch implements AsyncIterable<Placed> {
  #line: Line;

  /** Made by `Warmwire`. */
  constructor(how: LineOptions) {
    this.#line = new Line(how);
  }

  /** Where its reader stands. */
  get cursor(): string | null {
    return this.#line.cursor;
  }

  [Symbol.asyncIterator](): AsyncGenerator<Placed, void> {
    return this.#line[Symbol.asyncIterator]();
  }
}
