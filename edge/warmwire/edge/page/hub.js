// One connection per chat for all tabs. HTTP/1.1 browsers open six to a server, and each stream takes one for good.
//
// The tab that has the lock leads: it holds the streams and tells the others, over a BroadcastChannel, what comes in.
// When it closes, the browser gives the lock to another tab. Without locks (http to another machine) each tab leads itself.

import { following } from "./sse.js";
import { Refused } from "./api.js";

/** Streams at a time; past that the chats that nobody has touched for longest wait until somebody does. */
export const STREAMS = 4;
const SOON = 20; // ms: tabs that come together are served together

/** Holds the streams, for as long as its tab leads. `tell` reaches all tabs, this one too. */
class Leader {
  #open;
  #tell;
  #wants = new Map(); // tab: {session, at}
  #streams = new Map(); // session: its AbortController
  #again = new Set(); // sessions that somebody has come to, and is to be told where they stand
  #timer = 0;

  constructor(open, tell) {
    this.#open = open;
    this.#tell = tell;
  }

  want(tab, session, at) {
    const before = this.#wants.get(tab);
    this.#wants.set(tab, { session, at });
    if (before?.session !== session) {
      this.#again.add(session);
      if (before === undefined) whenGone(tab, () => this.#left(tab));
    }
    this.#timer ||= setTimeout(() => this.#settle(), SOON);
  }

  stop() {
    clearTimeout(this.#timer);
    for (const stream of this.#streams.values()) stream.abort();
  }

  #left(tab) {
    this.#wants.delete(tab);
    this.#timer ||= setTimeout(() => this.#settle(), SOON);
  }

  #settle() {
    this.#timer = 0;
    const newest = [...this.#wants.values()].sort((a, b) => b.at - a.at).map(({ session }) => session);
    const wanted = [...new Set(newest)].filter((session) => session !== null);
    const served = new Set(wanted.slice(0, STREAMS));
    for (const [session, stream] of [...this.#streams]) {
      if (served.has(session) && !this.#again.has(session)) continue;
      stream.abort();
      this.#streams.delete(session);
    }
    this.#again.clear();
    for (const session of wanted) {
      if (!served.has(session)) this.#tell({ kind: "paused", session });
      else if (!this.#streams.has(session)) this.#follow(session);
    }
  }

  async #follow(session) {
    const stream = new AbortController();
    this.#streams.set(session, stream);
    try {
      for await (const item of following((lastId, signal) => this.#open(session, lastId, signal), stream.signal)) {
        this.#tell({ ...item, session });
      }
    } catch (error) {
      if (stream.signal.aborted) return;
      this.#streams.delete(session);
      this.#wants.forEach((want, tab) => want.session === session && this.#wants.set(tab, { ...want, session: null }));
      const status = error instanceof Refused ? error.status : 0;
      this.#tell({ kind: "refused", session, status, message: error.message });
    }
  }
}

const lockOf = (tab) => `warmwire.tab.${tab}`;

/** Calls back when a tab is closed, however: its lock is free then. */
function whenGone(tab, gone) {
  navigator.locks?.request(lockOf(tab), gone);
}

export class Hub {
  #tab;
  #name;
  #open;
  #listener;
  #channel = null;
  #leader = null;
  #session = null;
  #touched = 0;

  /** `listener` gets {kind, session, …}: those of `following`, `paused`, `refused`, and what other tabs `tell`. */
  constructor(name, tab, open, listener) {
    this.#name = `warmwire.${name}`;
    this.#tab = tab;
    this.#open = open;
    this.#listener = listener;
  }

  start() {
    if (!navigator.locks) {
      this.#lead();
      return;
    }
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    navigator.locks.request(lockOf(this.#tab), () => {
      navigator.locks.request(this.#name, () => this.#lead());
      this.#want(); // of who leads already
      return new Promise(() => {}); // held until the tab is gone
    });
  }

  /** Which chat this tab shows. */
  watch(session) {
    this.#session = session;
    this.#want();
  }

  /** Somebody uses this tab: its chat comes first, should there be too many. */
  touch() {
    if (Date.now() - this.#touched > 1000) this.#want();
  }

  /** Tells the other tabs. */
  tell(message) {
    this.#channel?.postMessage(message);
  }

  #lead() {
    const told = (item) => {
      this.tell(item);
      this.#listener(item);
    };
    this.#leader = new Leader(this.#open, told);
    this.tell({ kind: "lead" });
    this.#want();
    return new Promise(() => {}); // until the tab is gone
  }

  #want() {
    this.#touched = Date.now();
    const want = { kind: "want", tab: this.#tab, session: this.#session, at: this.#touched };
    if (this.#leader) this.#leader.want(want.tab, want.session, want.at);
    else this.tell(want);
  }

  #heard(message) {
    if (message.kind === "want") this.#leader?.want(message.tab, message.session, message.at);
    else if (message.kind === "lead") this.#want();
    else this.#listener(message);
  }
}
