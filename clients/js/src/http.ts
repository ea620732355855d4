// Requests to an edge, and its streams of server-sent events.

import { refusalOf } from "./errors.js";
import type { Event } from "./events.js";
import type { Dial, Ending, Frame } from "./line.js";
import { SseParser } from "./sse.js";
import type { Turn } from "./turn.js";

/** A token, or who makes one; asked each time a connection is made, and once more when a token was refused. */
export type Token = string | (() => string | Promise<string>);

const SILENCE = 45_000; // ms without a byte, of which a stream brings one every 15 s, after which a connection is dead

export class Http {
  constructor(
    /** The edge's address, without a slash at its end. */
    readonly url: string,
    readonly token: Token | undefined,
    readonly fetch: typeof globalThis.fetch,
  ) {}

  /** A response that is a success. Throws Refused, and what fetch throws. */
  async request(path: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
    const bearer = await this.bearer();
    const headers = bearer ? { ...init.headers, Authorization: `Bearer ${bearer}` } : { ...init.headers };
    const response = await this.#answered(this.url + path, { ...init, headers });
    if (!response.ok) throw await refusalOf(response);
    return response;
  }

  /** The head of the response. Throws, too, where none comes for too long. */
  async #answered(url: string, init: RequestInit): Promise<Response> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(new Error("no answer for too long")), SILENCE);
    const signal = init.signal ? AbortSignal.any([init.signal, late.signal]) : late.signal;
    try {
      return await this.fetch(url, { ...init, signal });
    } finally {
      clearTimeout(timer);
    }
  }

  post(path: string, body: object, headers: Record<string, string> = {}, signal?: AbortSignal): Promise<Response> {
    const init = { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } };
    return this.request(path, signal ? { ...init, signal } : init);
  }

  async bearer(): Promise<string> {
    return (typeof this.token === "function" ? await this.token() : this.token) ?? "";
  }
}

/** How turns and sessions are followed. */
export interface Transport {
  /** Sends a message, under its key as often as it takes, and follows its turn, which is told its id. */
  send(http: Http, turn: Turn, body: object, key: string): Dial;
  watch(http: Http, session: string): Dial;
}

/** Server-sent events. */
export const sse: Transport = {
  send(http, turn, body, key) {
    const post = (signal: AbortSignal) => http.post("/v1/chat/stream", body, { "Idempotency-Key": key }, signal);
    return async function* (cursor, signal) {
      if (cursor !== null) return yield* stream(http, turn.session, cursor, signal);
      // The first frame has the turn's id.
      return yield* framesOf(await post(signal), (at) => turn.id === null && turn.accepted(at.split(".", 1)[0] ?? ""));
    };
  },
  watch: (http, session) =>
    async function* (cursor, signal) {
      return yield* framesOf(await http.request(at(session, "/events"), { headers: after(cursor), signal }));
    },
};

/** The rest of a turn, after a cursor. */
export async function* stream(http: Http, session: string, cursor: string | null, signal: AbortSignal): AsyncGenerator<Frame, Ending> {
  const path = `/v1/chat/stream?session_id=${encodeURIComponent(session)}`;
  return yield* framesOf(await http.request(path, { headers: after(cursor), signal }));
}

function after(cursor: string | null): Record<string, string> {
  return cursor ? { "Last-Event-ID": cursor } : {};
}

/** A route of a session. */
export function at(session: string, rest = ""): string {
  return `/v1/sessions/${encodeURIComponent(session)}${rest}`;
}

/** The frames of a response. It is done where the server says so, or has nothing (204). `moved` hears each cursor before its frame. */
async function* framesOf(response: Response, moved?: (cursor: string) => void): AsyncGenerator<Frame, Ending> {
  if (response.body === null || response.status === 204) return { done: true };
  const parser = new SseParser();
  for await (const text of textOf(response.body)) {
    for (const { id, data } of parser.feed(text)) {
      if (data === "[DONE]") return { done: true };
      const event = data === null ? null : (JSON.parse(data) as Event);
      if (event !== null && expired(event)) return { done: false, renew: true };
      moved?.(id);
      yield { cursor: id, event };
    }
  }
  return { done: false, after: parser.retry };
}

/** The server's own last word when a token has expired. The CLI's `error` events have no code there. */
export function expired(event: object): boolean {
  return "code" in event && event.code === "token_expired" && "type" in event && event.type === "error";
}

async function* textOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const end = () => void reader.cancel().catch(ignored);
  let timer = setTimeout(end, SILENCE);
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE);
      yield decoder.decode(value, { stream: true });
    }
  } finally {
    clearTimeout(timer);
    end();
  }
}

/** A connection that has broken says so again when it is let go; who reads it has been told. */
function ignored(): void {}
