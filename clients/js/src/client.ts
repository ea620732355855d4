import type { Event } from "./events.js";
import { Refused } from "./errors.js";
import { at, Http, sse, stream } from "./http.js";
import type { Token, Transport } from "./http.js";
import type { Dial, Retry } from "./line.js";
import { Turn, Watch } from "./turn.js";
import type { Saved } from "./turn.js";

/** Text, or content blocks of Anthropic's Messages API. */
export type Content = string | readonly object[];

export interface WarmwireOptions {
  /** The edge's address; in a browser the page's own by default. */
  url?: string;
  token?: Token;
  /** Server-sent events by default; `websocket()` of `warmwire/websocket` is the other one. */
  transport?: Transport;
  /** Pauses between connections. */
  retry?: Retry;
  fetch?: typeof globalThis.fetch;
}

export interface ChatOptions {
  /** The conversation: 1 to 64 of `A-Z a-z 0-9 _ -`; a new one by default. */
  session?: string;
  /** Makes a repetition the same turn; by default each call is one of its own. */
  idempotencyKey?: string;
  signal?: AbortSignal;
  /** What an abort does: stop the turn, or leave it running. */
  onAbort?: "interrupt" | "detach";
  model?: string;
  profile?: string;
  systemPrompt?: string;
  permissionMode?: string;
  thinkingTokens?: number;
  onWorkerLoss?: "retry" | "fail";
  doubleTexting?: "enqueue" | "interrupt" | "reject";
  onDisconnect?: "continue" | "cancel";
  rollupMs?: number;
}

export interface FollowOptions {
  cursor?: string;
  signal?: AbortSignal;
  onAbort?: "interrupt" | "detach";
  /** Told each time a connection stands, and each time one has broken. */
  onLive?: (live: boolean) => void;
}

/** A turn that has ended, as the server lists it for 24 hours. */
export interface EndedTurn {
  turn: string;
  ending: "completed" | "interrupted" | "failed";
  text: string;
  truncated: boolean;
  message: string | null;
  event: Event;
  cursor: string;
}

/** A message that waits or runs. */
export interface WaitingMessage {
  turn: string;
  message: string;
}

export interface SessionState {
  session_id: string;
  state: "running" | "idle";
  turns: string[];
  messages?: WaitingMessage[];
  viewers: number;
}

/** An answer to a question of the CLI's. */
export interface Permission {
  allow: boolean;
  turn?: string;
  input?: object;
  reason?: string;
}

/** A client of one edge address. It holds no connection of its own: each turn and each watch has one. */
export class Warmwire {
  #http: Http;
  #options: WarmwireOptions;
  #transport: Transport;

  constructor(options: WarmwireOptions = {}) {
    const page = (globalThis as { location?: { origin: string } }).location?.origin;
    const url = options.url ?? page;
    if (!url) throw new TypeError("url is needed outside of a browser");
    this.#options = options;
    this.#transport = options.transport ?? sse;
    this.#http = new Http(url.replace(/\/+$/, ""), options.token, options.fetch ?? ((...how) => fetch(...how)));
  }

  /** A message and its answer. It is sent when the turn is first read. */
  chat(message: Content, options: ChatOptions = {}): Turn {
    const session = options.session ?? newId();
    const key = options.idempotencyKey ?? newId();
    const body = { session_id: session, message, ...bodyOf(options) };
    return this.#turn(session, null, options, (turn) => this.#transport.send(this.#http, turn, body, key));
  }

  /** Another reader of a turn: from a cursor on, or from its beginning. */
  resume({ session, turn, cursor }: Saved, options: Omit<FollowOptions, "cursor"> = {}): Turn {
    const how = { onAbort: "detach" as const, ...options, cursor: cursor ?? `${turn}.0.0` };
    return this.#turn(session, turn, how, () => (at, signal) => stream(this.#http, session, at, signal));
  }

  /** Every turn of a session, from now on (beginning with a snapshot of what runs) or from a cursor. */
  watch(session: string, options: FollowOptions = {}): Watch {
    const dial = this.#transport.watch(this.#http, session);
    const signal = options.signal ?? new AbortController().signal;
    return new Watch({ ...this.#line(options), dial, signal });
  }

  /** Sends a message and does not wait for its answer. The same key again is the same turn. Throws Refused, and what fetch throws. */
  async send(message: Content, options: ChatOptions & { session: string }): Promise<{ session: string; turn: string }> {
    const key = options.idempotencyKey ?? newId();
    const body = { message, ...bodyOf(options) };
    const response = await this.#http.post(at(options.session, "/messages"), body, { "Idempotency-Key": key }, options.signal);
    const answer = (await response.json()) as { turn: string; session_id: string };
    return { session: answer.session_id, turn: answer.turn };
  }

  /** Stops a turn, or the one at hand; the turn that stops, null if there was none. */
  async interrupt(session: string, turn?: string): Promise<string | null> {
    const response = await this.#http.post(at(session, "/interrupt"), turn ? { turn } : {});
    return ((await response.json()) as { turn: string | null }).turn;
  }

  /** Answers a `permission_requested`. */
  async permit(session: string, request: string, answer: Permission): Promise<void> {
    await this.#http.post(at(session, `/permissions/${encodeURIComponent(request)}`), answer);
  }

  /** What waits and runs; null for a session that nobody has used. */
  async session(session: string): Promise<SessionState | null> {
    try {
      return (await (await this.#http.request(at(session))).json()) as SessionState;
    } catch (error) {
      if (error instanceof Refused && error.status === 404) return null;
      throw error;
    }
  }

  /** A page of the turns that have ended, the oldest first. */
  async turns(session: string, after = 0, limit = 50): Promise<{ turns: EndedTurn[]; next: number | null }> {
    const response = await this.#http.request(at(session, `/turns?after=${after}&limit=${limit}`));
    return (await response.json()) as { turns: EndedTurn[]; next: number | null };
  }

  /** Stops its turns and forgets it. */
  async delete(session: string): Promise<void> {
    await this.#http.request(at(session), { method: "DELETE" });
  }

  // -- lines

  #turn(session: string, id: string | null, options: ChatOptions & FollowOptions, dial: (turn: Turn) => Dial): Turn {
    const interrupt = (turn: string) => this.interrupt(session, turn);
    const { signal, onAbort = "interrupt" } = options;
    return new Turn({ session, id, line: this.#line(options), dial, interrupt, signal, onAbort });
  }

  #line({ cursor, onLive }: FollowOptions) {
    const renewable = typeof this.#options.token === "function";
    return { cursor: cursor ?? null, retry: this.#options.retry, renewable, onLive };
  }
}

function bodyOf(options: ChatOptions): object {
  return {
    model: options.model,
    profile: options.profile,
    system_prompt: options.systemPrompt,
    permission_mode: options.permissionMode,
    thinking_tokens: options.thinkingTokens,
    on_worker_loss: options.onWorkerLoss,
    double_texting: options.doubleTexting,
    on_disconnect: options.onDisconnect,
    rollup_ms: options.rollupMs,
  };
}

/** A random id, also in pages that are not served over https, where crypto.randomUUID is missing. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
