// What a turn's events add up to. No I/O.

import { isEnd } from "./events.js";
import type { Event, PermissionRequested, TurnEnd } from "./events.js";

/** Text or thinking, as one block of one message of the turn has it. */
export interface TextBlock {
  readonly kind: "text" | "thinking";
  readonly message: number;
  readonly index: number;
  readonly text: string;
}

/** A tool that the CLI has used. */
export interface ToolUse {
  readonly id: string;
  readonly name: string;
  readonly summary: string;
  readonly state: "running" | "done" | "failed";
  readonly message: number;
}

export class Answer {
  /** In their order. Values are replaced, never changed. */
  blocks: readonly TextBlock[] = [];
  tools: readonly ToolUse[] = [];
  /** What the CLI asks and nobody has answered. */
  questions: readonly PermissionRequested[] = [];
  /** The turn's terminal event. */
  end: TurnEnd | null = null;
  /** Whether it was given to the CLI. */
  started = false;
  /** It is longer than what the server has kept of it. */
  truncated = false;
  #message = -1;

  /** The answer's text. */
  get text(): string {
    return this.#join("text");
  }

  get thinking(): string {
    return this.#join("thinking");
  }

  /** Takes the next event of the turn. */
  take(event: Event): void {
    switch (event.type) {
      case "turn_started":
        this.started = true;
        break;
      case "message_start":
        this.#message += 1;
        break;
      case "content_block_delta":
        if (event.delta.type === "text_delta") this.#append("text", event.index, event.delta.text);
        else if (event.delta.type === "thinking_delta") this.#append("thinking", event.index, event.delta.thinking);
        break;
      case "turn_reset":
        this.#forget(event.message ?? 0);
        break;
      case "snapshot":
        this.#message = Math.max(this.#message, ...event.blocks.map(({ message }) => message));
        this.blocks = event.blocks.filter(isText);
        this.questions = event.questions ?? [];
        this.truncated = event.truncated ?? false;
        this.started = true;
        break;
      case "tool_started":
        this.#tool({ id: event.id, name: event.name, summary: event.summary ?? "", state: "running", message: this.#message });
        break;
      case "tool_finished":
        this.tools = this.tools.map((tool) => (tool.id === event.id ? { ...tool, state: event.is_error ? "failed" : "done" } : tool));
        break;
      case "permission_requested":
        this.#settle(event.request);
        this.questions = [...this.questions, event];
        break;
      case "permission_resolved":
        this.#settle(event.request);
        break;
      default:
        if (isEnd(event)) this.#finish(event);
    }
  }

  #finish(end: TurnEnd): void {
    this.end = end;
    this.questions = [];
    this.tools = this.tools.map((tool) => (tool.state === "running" ? { ...tool, state: "done" } : tool));
  }

  #join(kind: TextBlock["kind"]): string {
    return this.blocks.reduce((all, block) => (block.kind === kind ? all + block.text : all), "");
  }

  // Deltas go to the last block nearly always.
  #append(kind: TextBlock["kind"], index: number, text: string): void {
    const message = Math.max(this.#message, 0);
    const at = this.blocks.findLastIndex((block) => block.message === message && block.index === index);
    const known = this.blocks[at];
    if (known === undefined) this.blocks = [...this.blocks, { kind, message, index, text }];
    else this.blocks = this.blocks.with(at, { ...known, text: known.text + text });
  }

  #forget(from: number): void {
    this.blocks = this.blocks.filter(({ message }) => message < from);
    this.tools = this.tools.filter(({ message }) => message < from);
    this.questions = [];
    this.#message = from - 1;
  }

  #tool(tool: ToolUse): void {
    if (!this.tools.some(({ id }) => id === tool.id)) this.tools = [...this.tools, tool];
  }

  #settle(request: string): void {
    this.questions = this.questions.filter((question) => question.request !== request);
  }
}

function isText(block: { kind: string }): block is TextBlock {
  return block.kind === "text" || block.kind === "thinking";
}
