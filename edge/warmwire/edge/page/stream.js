// A turn as a stream of events over fetch: EventSource cannot send a POST, and cannot read the body of a refusal.

/** Cuts text into server-sent events. A piece may end anywhere, between CR and LF too. */
export class EventParser {
  #rest = "";
  #type = "";
  #data = [];
  /** The id of the last event: where to continue. */
  lastId = "";

  feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    return lines.map((line) => this.#line(line)).filter((event) => event !== null);
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "event") this.#type = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.lastId = value;
    return null;
  }

  #dispatch() {
    const event = { type: this.#type || "message", data: this.#data.join("\n") };
    const empty = this.#data.length === 0;
    this.#type = "";
    this.#data = [];
    return empty ? null : event;
  }
}

/** The server said no; `detail` is what it said. */
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || "The server refused the message.");
    this.problem = problem;
  }
}

const FIRST_PAUSE = 500; // ms before the second attempt; each further one waits twice as long
const LONGEST_PAUSE = 10_000;

/**
 * Yields the parsed events of one turn, whatever happens to the connection; `{type: "disconnected"}` tells of a break.
 * `connect(lastId)` fetches: with an empty id from the beginning, else from there.
 */
export async function* turnEvents(connect, lastId, signal) {
  const parser = new EventParser();
  parser.lastId = lastId;
  let pause = FIRST_PAUSE;
  for (;;) {
    try {
      const response = await connect(parser.lastId);
      if (response.status === 204) return;
      if (!response.ok) throw new Refused(await problemOf(response));
      for await (const event of read(response, parser)) {
        if (event.data === "[DONE]") return;
        pause = FIRST_PAUSE;
        yield JSON.parse(event.data);
      }
    } catch (error) {
      const gone = signal.aborted || (error instanceof Refused && !passing(error));
      if (gone || !(error instanceof Refused || error instanceof TypeError || error.name === "NetworkError")) throw error;
    }
    yield { type: "disconnected" };
    await before(pause * (0.75 + Math.random() / 2), signal);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

/** Whether a refusal is no answer to the request, but one of a server that is starting or leaving. */
const passing = (error) => [502, 503, 504].includes(error.problem.status);

async function* read(response, parser) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.feed(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // the connection may be gone already
  }
}

async function problemOf(response) {
  const fallback = { status: response.status, title: `The server answered ${response.status}.` };
  return response.json().then((problem) => ({ ...fallback, ...problem }), () => fallback);
}

/** Waits, but not longer than until the browser is online again. */
function before(ms, signal) {
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
