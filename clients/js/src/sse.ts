// Server-sent events over fetch: an EventSource can carry no token, and cannot tell a refusal from a break. No package
// for it: those that were looked at drop events without data, and the first of ours has an id and no data.

export interface SseEvent {
  /** The cursor just after it. */
  id: string;
  /** Null where an event had no data, but moved the cursor. */
  data: string | null;
}

/** Cuts the text of one connection into events. A piece may end anywhere, between CR and LF too. */
export class SseParser {
  /** Milliseconds to wait before connecting again, as the server last said; null if it did not. */
  retry: number | null = null;
  #rest = "";
  #data: string[] = [];
  #id = "";
  #moved = false;

  feed(text: string): SseEvent[] {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    return lines.flatMap((line) => this.#line(line));
  }

  #line(line: string): SseEvent[] {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) [this.#id, this.#moved] = [value, true];
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return [];
  }

  // An id counts only once its event is whole: a line may be cut between the two, and the event would be lost.
  #dispatch(): SseEvent[] {
    const event = { id: this.#id, data: this.#data.length > 0 ? this.#data.join("\n") : null };
    const says = this.#moved || event.data !== null;
    this.#data = [];
    this.#moved = false;
    return says ? [event] : [];
  }
}
