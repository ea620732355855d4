// A turn: what was asked, and what its events add up to. No DOM in here.

/** A turn's phases, in the order in which they come. From `done` on nothing more is to come. */
export const PHASES = {
  sending: "Sending",
  waiting: "Waiting",
  thinking: "Thinking",
  writing: "",
  tool: "",
  asking: "",
  again: "Starting the answer again",
  stopping: "Stopping",
  done: "",
  stopped: "Stopped",
  failed: "",
};
const LAST = new Set(["done", "stopped", "failed"]);
const MISSING = "The end of this answer is no longer known.";

export class Turn {
  id;
  question; // null while it is not known: somebody else has asked
  key; // the Idempotency-Key under which this page has sent it; null if it has not
  phase;
  detail = ""; // why it failed
  retryable = true;
  ttft = null; // ms
  elapsed = null; // ms, when it takes long
  gap = false; // some of it was missed, until a snapshot comes
  cut = false; // the answer is longer than what is kept of it
  parts = []; // {kind: "text" | "thinking", text} {kind: "tool" | "question", name, summary, state}, with message and index
  #message = -1;

  constructor(id, question, phase = "waiting") {
    this.id = id;
    this.question = question;
    this.key = null;
    this.phase = phase;
  }

  get ended() {
    return LAST.has(this.phase);
  }

  /** The answer as it was written, in Markdown. */
  get text() {
    const texts = this.parts.filter((part) => part.kind === "text" && part.text);
    return texts.map((part) => part.text).join("\n\n");
  }

  /** Takes one event. */
  take(event) {
    const what = EVENTS[event.type];
    if (what && !this.ended) what.call(this, event);
  }

  fail(detail, retryable = true) {
    this.phase = "failed";
    this.detail = detail;
    this.retryable = retryable;
  }

  // -- what is kept of it, here and by the server

  /** Its record is there: what the record holds counts, where it is another text. */
  finish(record) {
    this.question ??= record.message;
    if (this.ended) return;
    const texts = this.parts.filter((part) => part.kind === "text").map((part) => part.text);
    if (texts.join("") !== record.text) {
      this.#snapshot([{ kind: "text", message: 0, index: 0, text: record.text }]);
    }
    this.cut = record.truncated;
    this.take(record.event);
  }

  static restored(kept) {
    const turn = new Turn(kept.id, kept.question, kept.phase === "stopping" ? "waiting" : kept.phase);
    turn.key = kept.key;
    turn.detail = kept.detail;
    turn.parts = kept.parts;
    turn.#message = Math.max(-1, ...kept.parts.map((part) => part.message));
    return turn;
  }

  /** Nobody knows it any more: it ended longer ago than ends are kept. */
  lost() {
    if (!this.ended) this.fail(MISSING);
  }

  toJSON() {
    const { id, question, key, phase, detail, parts } = this;
    return { id, question, key, phase, detail, parts };
  }

  // -- events

  begin(phase) {
    if (this.phase !== "stopping") this.phase = phase;
    this.elapsed = null;
  }

  startMessage() {
    this.#message += 1;
    this.begin("thinking");
  }

  append(event) {
    const { type, text, thinking } = event.delta;
    if (type === "text_delta") this.#part("text", event.index).text += text;
    else if (type === "thinking_delta") this.#part("thinking", event.index).text += thinking;
    else return;
    this.begin(type === "text_delta" ? "writing" : "thinking");
  }

  startTool({ id, name, summary }) {
    if (this.#tool(id)) return;
    this.#insert({ kind: "tool", message: this.#message, index: Infinity, id, name, summary, state: "running" });
    this.begin("tool");
  }

  finishTool({ id, is_error: bad }) {
    const tool = this.#tool(id);
    if (tool) tool.state = bad ? "failed" : "done";
    this.begin(this.parts.some((part) => part.state === "running") ? "tool" : "thinking");
  }

  ask({ request, tool, summary }) {
    if (this.#question(request)) return;
    const question = { kind: "question", id: request, name: tool, summary, state: "open" };
    this.#insert({ ...question, message: this.#message, index: Infinity });
    this.begin("asking");
  }

  answer({ request, outcome }) {
    const question = this.#question(request);
    if (question) question.state = outcome;
    this.begin("thinking");
  }

  reset({ message = 0 }) {
    this.parts = this.parts.filter((part) => part.message < message);
    this.#message = message - 1;
    this.begin("again");
  }

  show({ blocks, truncated = false }) {
    this.#snapshot(blocks);
    this.cut = truncated;
    this.gap = false;
    this.begin(this.text ? "writing" : "thinking");
  }

  end(phase, event) {
    this.phase = phase;
    this.ttft = event.ttft_ms ?? null;
    for (const part of this.parts) {
      if (part.state === "running") part.state = phase === "done" ? "done" : "stopped";
      if (part.state === "open") part.state = "withdrawn";
    }
  }

  // -- parts

  #part(kind, index) {
    const found = this.parts.find((part) => part.message === this.#message && part.index === index);
    return found ?? this.#insert({ kind, message: this.#message, index, text: "" });
  }

  #tool(id) {
    return this.parts.find((part) => part.kind === "tool" && part.id === id);
  }

  #question(id) {
    return this.parts.find((part) => part.kind === "question" && part.id === id);
  }

  #insert(part) {
    const after = this.parts.findIndex((each) => each.message > part.message || later(each, part));
    this.parts.splice(after < 0 ? this.parts.length : after, 0, part);
    return part;
  }

  /** What is known stays the same part where it only grew: who shows it goes on from there. */
  #snapshot(blocks) {
    const known = this.parts;
    this.parts = known.filter((part) => part.kind === "tool" || part.kind === "question");
    for (const { kind, message, index, text } of blocks) {
      if (kind !== "text" && kind !== "thinking") continue;
      const same = known.find((part) => part.kind === kind && part.message === message && part.index === index);
      const grew = same !== undefined && text.startsWith(same.text);
      this.#insert(grew ? Object.assign(same, { text }) : { kind, message, index, text });
    }
    this.#message = Math.max(this.#message, ...blocks.map((block) => block.message));
  }
}

const later = (each, part) => each.message === part.message && (each.index ?? Infinity) > (part.index ?? Infinity);

const EVENTS = {
  turn_queued() {
    if (this.phase === "sending") this.begin("waiting");
  },
  turn_started() {
    this.begin("thinking");
  },
  message_start: Turn.prototype.startMessage,
  content_block_delta: Turn.prototype.append,
  tool_started: Turn.prototype.startTool,
  tool_finished: Turn.prototype.finishTool,
  permission_requested: Turn.prototype.ask,
  permission_resolved: Turn.prototype.answer,
  turn_progress(event) {
    this.elapsed = event.elapsed_ms;
  },
  turn_reset: Turn.prototype.reset,
  gap() {
    this.gap = true;
  },
  snapshot: Turn.prototype.show,
  turn_completed(event) {
    this.end("done", event);
  },
  turn_interrupted(event) {
    this.end("stopped", event);
  },
  turn_failed(event) {
    this.end("failed", event);
    this.detail = event.message;
    this.retryable = event.retryable;
  },
};
