// A line to the server that survives its connections: what breaks is dialled again, from the last cursor, with growing
// pauses; what is refused is thrown. Each event comes out once.

import { Refused, Unreachable } from "./errors.js";
import type { Event, Placed } from "./events.js";
import { turnOf } from "./events.js";

/** Something that a connection brought: an event, or only a cursor. */
export interface Frame {
  cursor: string;
  event: Event | null;
}

/** How a connection ended, when it did not break. */
export interface Ending {
  /** Nothing more is to come. */
  done: boolean;
  /** Milliseconds after which to come back, if the server has said so. */
  after?: number | null;
  /** Come back with a new token. */
  renew?: boolean;
}

/** Connects, from a cursor or from the beginning; throws Refused, or anything else for a break. */
export type Dial = (cursor: string | null, signal: AbortSignal) => AsyncGenerator<Frame, Ending>;

/** Pauses between connections, in milliseconds, and how many in a row may bring nothing. */
export interface Retry {
  first?: number;
  longest?: number;
  tries?: number;
}

export interface LineOptions {
  dial: Dial;
  cursor: string | null;
  signal: AbortSignal;
  retry?: Retry | undefined;
  /** Whether a new token may be had, should one be refused. */
  renewable: boolean;
  /** Told each time a connection stands, and each time one has broken. */
  onLive?: ((live: boolean) => void) | undefined;
}

const FIRST = 250;
const LONGEST = 10_000;
const TRIES = 40; // with these pauses about six minutes

export class Line implements AsyncIterable<Placed> {
  /** Where to go on; null before anything came. */
  cursor: string | null;
  #how: LineOptions;
  #failures = 0;
  #renewed = false;
  #place = new Place();

  constructor(how: LineOptions) {
    this.#how = how;
    this.cursor = how.cursor;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Placed, void> {
    const { signal, onLive } = this.#how;
    for (;;) {
      signal.throwIfAborted();
      const ending = yield* this.#connection();
      if (ending.done) return;
      onLive?.(false);
      this.#count(ending.cause);
      if (!this.#again(ending)) await pause(this.#wait(ending.after), signal);
    }
  }

  /** One connection, to its end or break. */
  async *#connection(): AsyncGenerator<Placed, Ending & { cause?: unknown }> {
    const { dial, signal } = this.#how;
    const connection = new AbortController();
    const cut = () => connection.abort(signal.reason);
    signal.addEventListener("abort", cut);
    const frames = dial(this.cursor, connection.signal);
    let live = false;
    try {
      for (;;) {
        const next = await frames.next();
        if (next.done) return next.value;
        if (!live) this.#how.onLive?.((live = true));
        yield* this.#take(next.value);
      }
    } catch (error) {
      signal.throwIfAborted();
      return this.#broken(error);
    } finally {
      signal.removeEventListener("abort", cut);
      connection.abort();
      await frames.return({ done: true }); // its timers and readers end now
    }
  }

  *#take({ cursor, event }: Frame): Generator<Placed> {
    this.#failures = 0;
    this.#renewed = false;
    if (cursor) this.cursor = cursor;
    if (event !== null && this.#place.isNew(event, cursor)) yield { event, cursor, turn: turnOf(event, cursor) };
  }

  /** Throws what no further try can mend. */
  #broken(cause: unknown): Ending & { cause: unknown } {
    if (!(cause instanceof Refused)) return { done: false, cause };
    if (!this.#mends(cause)) throw cause;
    return { done: false, renew: cause.status === 401, after: cause.retryAfter && cause.retryAfter * 1000, cause };
  }

  // A connection that ended as it should, but brought nothing, counts as one that failed.
  #count(cause: unknown): void {
    this.#failures += 1;
    if (this.#failures <= (this.#how.retry?.tries ?? TRIES)) return;
    throw new Unreachable(`no connection after ${this.#failures} tries`, { cause });
  }

  // Before anything was accepted a full queue is an answer for the caller to decide on. Afterwards it is an obstacle.
  #mends(error: Refused): boolean {
    if (error.status === 401) return this.#how.renewable && !this.#renewed;
    return this.cursor === null ? error.passing : error.retryable || error.status >= 500;
  }

  /** Whether to connect at once: a new token is asked for, once. */
  #again(ending: Ending): boolean {
    if (!ending.renew || this.#renewed) return false;
    this.#renewed = true;
    return true;
  }

  // Many lose their connection in the same moment: half of each pause is by chance, but nobody comes before it was told to.
  #wait(told: number | null | undefined): number {
    const { first = FIRST, longest = LONGEST } = this.#how.retry ?? {};
    const own = Math.min(first * 2 ** (this.#failures - 1), longest);
    return (told ?? own / 2) + (own * Math.random()) / 2;
  }
}

/** The place of the last event that was handed out: nothing at or before it is handed out again. */
class Place {
  #epoch = -1;
  #seq = -1;

  isNew(event: Event, cursor: string): boolean {
    if (event.type === "gap" || event.type === "snapshot") {
      this.#epoch = this.#seq = -1; // what follows stands where the server says
      return true;
    }
    const [, epoch, seq] = cursor.split(".").map(Number);
    if (epoch === undefined || seq === undefined || Number.isNaN(epoch + seq)) return true;
    if (epoch < this.#epoch || (epoch === this.#epoch && seq <= this.#seq)) return false;
    this.#epoch = epoch;
    this.#seq = seq;
    return true;
  }
}

/** Waits, but not longer than until the browser is online again. Throws when aborted. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const page = globalThis as Partial<Pick<EventTarget, "addEventListener" | "removeEventListener">>;
    const done = () => {
      clearTimeout(timer);
      page.removeEventListener?.("online", done);
      signal.removeEventListener("abort", done);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(done, ms);
    page.addEventListener?.("online", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}
