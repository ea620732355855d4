// The same over WebSockets, one for each turn or session that is followed; an entry of its own, for those who want it.

import { Refused } from "./errors.js";
import type { Event } from "./events.js";
import { turnOf } from "./events.js";
import { expired } from "./http.js";
import type { Http, Transport } from "./http.js";
import type { Ending, Frame } from "./line.js";
import type { Turn } from "./turn.js";

/** The part of a WebSocket that is used; browsers, Node 22 and the package `ws` have it. */
export type SocketMaker = new (url: string, protocols: string[]) => WebSocket;

const PING = 15_000; // ms; the server's own pings are not seen by scripts
const SILENCE = 45_000; // ms without a frame after which a connection is dead
const OPEN = 1; // a WebSocket's readyState
const WAITING = 10_000; // frames that were received and not read, after which the connection is given up and comes again

interface Told {
  type?: string;
  id?: string;
  session_id?: string;
  turn?: string;
  cursor?: string;
  event?: Event;
  code?: string;
  status?: number;
  field?: string;
  limit?: number;
  retry_after?: number;
  retry_ms?: number;
  title?: string;
  detail?: string;
}

/** The transport. `make` where the platform has no WebSocket (Node 20): that of the package `ws`. */
export function websocket(make: SocketMaker = globalThis.WebSocket): Transport {
  if (!make) throw new TypeError("this platform has no WebSocket: give one");
  const open = async (http: Http, signal: AbortSignal) => Socket.open(make, http.url, await http.bearer(), signal);
  return {
    send: (http, turn, body, key) => {
      const frame = { type: "user_message", id: "send", idempotency_key: key, ...body };
      let repeated = false;
      return async function* (cursor, signal) {
        const socket = await open(http, signal);
        const again = repeated;
        repeated = true;
        socket.say(cursor === null ? frame : watching(turn.session, cursor));
        return yield* framesOfTurn(socket, turn, again);
      };
    },
    watch: (http, session) =>
      async function* (cursor, signal) {
        const socket = await open(http, signal);
        socket.say(watching(session, cursor));
        return yield* framesOf(socket, ({ type, cursor = "" }) => (type === "watching" ? { cursor, event: null } : null));
      },
  };
}

// A message comes first: its session is watched from then on. Should that connection break before the turn is known, the
// message is sent `again`, which says its turn. That one has begun by now: its beginning is told over the next connection,
// as here it would come after what is being said.
async function* framesOfTurn(socket: Socket, turn: Turn, again: boolean): AsyncGenerator<Frame, Ending> {
  const answered = ({ type, turn: id }: Told) => {
    if (type !== "accepted" || !id) return null;
    turn.accepted(id);
    return again ? { cursor: `${id}.0.0`, event: null } : null;
  };
  const wanted = (event: Event, cursor: string) => {
    if (event.type === "turn_queued" && turn.id === null) turn.accepted(event.turn);
    const of = turnOf(event, cursor);
    return turn.id !== null && (of === turn.id || of === null);
  };
  const frames = framesOf(socket, answered, wanted);
  try {
    for (;;) {
      const next = await frames.next();
      if (next.done) return next.value;
      yield next.value;
      if (again && next.value.event === null) return { done: false, after: 0 };
    }
  } finally {
    await frames.return({ done: true });
  }
}

function watching(session: string, cursor: string | null): object {
  return { type: "watch", id: "watch", session_id: session, cursor: cursor ?? undefined };
}

/** One WebSocket: `say` and read `heard`, which ends with how it was closed. */
class Socket {
  #socket: WebSocket;
  #frames: Told[] = [];
  #ending: Ending | Error | null = null;
  #wake = () => {};
  #heardAt = Date.now();
  #timer: ReturnType<typeof setInterval> | undefined;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    socket.addEventListener("message", ({ data }) => this.#heard(JSON.parse(String(data)) as Told));
    socket.addEventListener("close", ({ code, reason }) => this.#end(endingOf(code, reason)));
    socket.addEventListener("error", () => this.#end(new Error("the WebSocket has failed")));
    this.#timer = setInterval(() => this.#look(), PING);
  }

  /** Opens one. Throws when that fails, or when aborted. */
  static async open(make: SocketMaker, url: string, bearer: string, signal: AbortSignal): Promise<Socket> {
    signal.throwIfAborted();
    const protocols = bearer ? ["warmwire", `warmwire.bearer.${bearer}`] : ["warmwire"];
    const socket = new Socket(new make(url.replace(/^http/, "ws") + "/v1/chat/ws", protocols));
    const cut = () => socket.close();
    signal.addEventListener("abort", cut, { once: true });
    await new Promise<void>((resolve, reject) => {
      socket.#socket.addEventListener("open", () => resolve());
      socket.#wake = () => reject(socket.#ending instanceof Error ? socket.#ending : new Error("closed before it was open"));
    }).catch((error: unknown) => {
      throw socket.#ending instanceof Error ? socket.#ending : error;
    });
    return socket;
  }

  say(frame: object): void {
    this.#socket.send(JSON.stringify(frame));
  }

  close(): void {
    this.#end(new Error("closed by its reader"));
    this.#socket.close();
  }

  /** The next that comes, or how it has ended; throws where it broke or was refused. */
  async heard(): Promise<{ message: Told } | { ending: Ending }> {
    for (;;) {
      const message = this.#frames.shift();
      if (message !== undefined) return { message };
      if (this.#ending instanceof Error) throw this.#ending;
      if (this.#ending !== null) return { ending: this.#ending };
      await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  #heard(frame: Told): void {
    this.#heardAt = Date.now();
    if (this.#frames.length < WAITING) this.#frames.push(frame);
    else this.close();
    this.#wake();
  }

  #end(how: Ending | Error): void {
    this.#ending ??= how;
    clearInterval(this.#timer);
    this.#wake();
  }

  // One that takes too long to open is dead, too.
  #look(): void {
    if (Date.now() - this.#heardAt > SILENCE) this.close();
    else if (this.#socket.readyState === OPEN) this.say({ type: "ping" });
  }
}

/** What is told of events. Frames that answer a request go to `answered`, which may make one of them. */
async function* framesOf(
  socket: Socket,
  answered: (frame: Told) => Frame | null,
  wanted: (event: Event, cursor: string) => boolean = () => true,
): AsyncGenerator<Frame, Ending> {
  try {
    let after: number | null = null;
    for (;;) {
      const frame = await socket.heard();
      if (!("message" in frame)) return { ...frame.ending, after };
      const { event, cursor = "", type } = frame.message;
      if (event === undefined && type === "reconnect") after = frame.message.retry_ms ?? null;
      else if (event === undefined && type === "error" && !expired(frame.message)) throw refusal(frame.message);
      const made = event === undefined ? answered(frame.message) : wanted(event, cursor) ? { cursor, event } : null;
      if (made !== null) yield made;
    }
  } finally {
    socket.close();
  }
}

function refusal({ code, title, detail, field, limit, status, retry_after }: Told): Refused {
  return new Refused({ type: code, title, detail, field, limit }, status ?? 0, retry_after);
}

/** The hundred of a close code says what to do. */
function endingOf(code: number, reason: string): Ending | Error {
  if (code >= 4600 && code < 4700) return code === 4601 ? { done: false, renew: true } : new Refused({ type: reason.split(":", 1)[0], detail: reason }, 401);
  if ((code >= 4500 && code < 4600) || [1003, 1007, 1009].includes(code)) return new Refused({ detail: reason }, 400);
  return code === 1000 || code >= 4000 ? { done: false } : new Error(`the WebSocket was closed with ${code}`);
}
