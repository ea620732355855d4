// A session as a page shows it: everybody's messages and their answers, over reloads and reconnects. No framework.

import { Answer } from "./answer.js";
import type { TextBlock, ToolUse } from "./answer.js";
import type { ChatOptions, Content, EndedTurn, Permission, Warmwire, WaitingMessage } from "./client.js";
import { newId } from "./client.js";
import { Refused } from "./errors.js";
import type { PermissionRequested, Placed } from "./events.js";

const PAGES = 20; // of a hundred ended turns that are looked through
const TRIES = 5; // of a request that a break of the connection or a server that starts or leaves may have failed

export interface UserMessage {
  role: "user";
  id: string;
  /** Null for what is no longer known: another one has asked, long ago. */
  text: string | null;
}

export interface AssistantMessage {
  role: "assistant";
  id: string;
  text: string;
  /** `refused`: the message was not taken, `error` says why. */
  status: "sending" | "waiting" | "streaming" | "completed" | "interrupted" | "failed" | "refused";
  blocks: readonly TextBlock[];
  tools: readonly ToolUse[];
  questions: readonly PermissionRequested[];
  error: string | null;
}

export type ChatMessage = UserMessage | AssistantMessage;

export interface ConversationState {
  /** A message stays the same object for as long as nothing of it changes. */
  messages: readonly ChatMessage[];
  status: "connecting" | "ready" | "waiting" | "streaming" | "closed";
  /** The connection broke and is being made again; what is shown stands. */
  reconnecting: boolean;
  /** Why it is closed, if it is not by `close`; else why what was said before cannot be had. */
  error: Error | null;
}

export type SendOptions = Omit<ChatOptions, "session" | "signal" | "onAbort" | "idempotencyKey">;

/** What is known of one turn. */
class Entry {
  turn: string | null = null;
  answer = new Answer();
  error: string | null = null;
  refused = false;
  /** Its text is known from a list alone: of a turn that ended before. */
  listed: EndedTurn | null = null;
  /** What was being sent when this turn, that nobody had asked for here, came up: it may be one of these. */
  #suspects: readonly Entry[];
  #made: [UserMessage, AssistantMessage] | null = null;

  constructor(
    readonly id: string,
    public question: string | null,
    suspects: readonly Entry[] = [],
  ) {
    this.#suspects = suspects;
  }

  /** It may be the answer to a message that is shown, and that the server has not confirmed yet. */
  get hidden(): boolean {
    return this.#suspects.some(({ status, question }) => status === "sending" && question?.startsWith(this.question ?? ""));
  }

  changed(): void {
    this.#made = null;
  }

  get status(): AssistantMessage["status"] {
    if (this.refused) return "refused";
    const end = this.listed?.ending ?? this.answer.end?.type.replace("turn_", "");
    if (end) return end as AssistantMessage["status"];
    if (this.error !== null) return "failed";
    return this.turn === null ? "sending" : this.answer.started ? "streaming" : "waiting";
  }

  get ended(): boolean {
    return !["sending", "waiting", "streaming"].includes(this.status);
  }

  get messages(): [UserMessage, AssistantMessage] {
    return (this.#made ??= [{ role: "user", id: `${this.id}.user`, text: this.question }, this.#assistant()]);
  }

  #assistant(): AssistantMessage {
    const { blocks, tools, questions, end } = this.answer;
    const ending = end ?? this.listed?.event;
    return {
      role: "assistant",
      id: `${this.id}.assistant`,
      text: this.listed && !end ? this.listed.text : this.answer.text,
      status: this.status,
      blocks,
      tools,
      questions,
      error: ending?.type === "turn_failed" ? ending.message : this.error,
    };
  }
}

/** One session, followed from `start` until `close`. */
export class Conversation {
  #entries: Entry[] = [];
  #listeners = new Set<() => void>();
  #state: ConversationState | null = null;
  #stop: AbortController | null = null;
  #live = false;
  #wasLive = false;
  #error: Error | null = null;
  #told = false;
  /** Who has asked for the load under way, and whether it is to be done once more. */
  #loading: AbortSignal | null = null;
  #more = false;

  constructor(
    readonly client: Warmwire,
    readonly session: string,
  ) {}

  /** What to show; the same object until something changes. */
  get state(): ConversationState {
    return (this.#state ??= {
      messages: this.#shown.flatMap((entry) => entry.messages),
      status: this.#status(),
      reconnecting: this.#wasLive && !this.#live && this.#stop !== null,
      error: this.#error,
    });
  }

  /** Calls back after changes; several at once make one call. Returns what ends that. */
  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Follows the session. A second call does nothing until it is closed. */
  start(): void {
    if (this.#stop !== null) return;
    const stop = (this.#stop = new AbortController());
    this.#error = null;
    this.#follow(stop.signal).catch((error: unknown) => {
      if (stop.signal.aborted) return;
      this.#error = error as Error;
      this.close();
    });
  }

  close(): void {
    this.#stop?.abort();
    this.#stop = null;
    this.#live = this.#wasLive = false;
    this.#changed();
  }

  /** Sends a message; its answer comes into `state`. False where it could not be sent: its answer's `error` says why. */
  async send(message: Content, options: SendOptions = {}): Promise<boolean> {
    const key = newId();
    const entry = new Entry(key, textOf(message));
    this.#entries = [...this.#entries, entry];
    this.#changed();
    try {
      const how = { ...options, idempotencyKey: key, session: this.session }; // the same key is the same message
      const { turn } = await repeated(() => this.client.send(message, how));
      this.#identify(entry, turn);
      return true;
    } catch (error) {
      entry.refused = true;
      entry.error = (error as Error).message;
      this.#changed(entry);
      return false;
    }
  }

  /** Stops what runs; the text so far stands. */
  async stop(): Promise<void> {
    const running = this.#entries.find((entry) => !entry.ended && entry.turn !== null);
    if (running?.turn) await this.client.interrupt(this.session, running.turn);
  }

  /** Answers a question of the CLI's. */
  permit(request: string, answer: Permission): Promise<void> {
    return this.client.permit(this.session, request, answer);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const onLive = (live: boolean) => {
      if (signal.aborted) return; // who closed it, and perhaps started anew, is not told of the old connection
      if (live && !this.#wasLive) void this.#load(signal);
      this.#live = live;
      this.#wasLive ||= live;
      this.#changed();
    };
    for await (const placed of this.client.watch(this.session, { signal, onLive })) this.#take(placed, signal);
  }

  #take({ event, turn }: Placed, signal: AbortSignal): void {
    if (event.type === "gap") void this.#load(signal); // turns may have come and gone
    if (turn === null) return;
    let entry = this.#entries.find((each) => each.turn === turn);
    if (entry === undefined) {
      entry = this.#add(turn, null);
      void this.#load(signal); // somebody else has asked: what?
    }
    if (entry.answer.end === null) entry.answer.take(event);
    this.#changed(entry);
  }

  #add(turn: string, question: string | null): Entry {
    const entry = this.#strange(turn, question);
    this.#entries = [...this.#entries, entry];
    return entry;
  }

  #strange(turn: string, question: string | null): Entry {
    const entry = new Entry(turn, question, this.#entries.filter(({ status }) => status === "sending"));
    entry.turn = turn;
    return entry;
  }

  /** What is sent from here gets its turn; its first events may have come before. */
  #identify(entry: Entry, turn: string): void {
    const early = this.#entries.find((each) => each.turn === turn);
    if (early !== undefined) {
      entry.answer = early.answer;
      entry.listed = early.listed;
      this.#entries = this.#entries.filter((each) => each !== early);
    }
    entry.turn = turn;
    this.#changed(entry);
  }

  // -- what the server knows

  /** One at a time; who asks meanwhile has it done once more. */
  async #load(signal: AbortSignal): Promise<void> {
    this.#more = true;
    if (this.#loading === signal) return;
    this.#loading = signal;
    while (this.#more && this.#loading === signal) {
      this.#more = false;
      await this.#loaded(signal);
    }
    if (this.#loading === signal) this.#loading = null; // else it was closed, and started anew
  }

  async #loaded(signal: AbortSignal): Promise<void> {
    const asked = new Set(this.#entries);
    try {
      // first what waits: what ends meanwhile is in the other list
      const waiting = (await repeated(() => this.client.session(this.session), signal))?.messages ?? [];
      const ended = await this.#ended(signal);
      if (signal.aborted) return;
      this.#error = null;
      this.#merge(ended, waiting, asked);
    } catch (error) {
      if (signal.aborted) return;
      this.#error = error as Error; // what is followed goes on; older turns are missing
      this.#changed();
    }
  }

  async #ended(signal: AbortSignal): Promise<EndedTurn[]> {
    const found: EndedTurn[] = [];
    let after: number | null = 0;
    for (let page = 0; page < PAGES && after !== null; page += 1) {
      const from: number = after;
      const answer = await repeated(() => this.client.turns(this.session, from, 100), signal);
      found.push(...answer.turns);
      after = answer.next;
    }
    return found;
  }

  #merge(ended: EndedTurn[], waiting: WaitingMessage[], asked: Set<Entry>): void {
    const before = new Map(this.#entries.filter(({ turn }) => turn !== null).map((entry) => [entry.turn, entry]));
    const known = (turn: string, question: string | null) => {
      const entry = before.get(turn) ?? this.#strange(turn, question);
      before.delete(turn);
      entry.question ??= question;
      entry.changed();
      return entry;
    };
    const past = ended.map((listed) => {
      const entry = known(listed.turn, listed.message);
      if (entry.answer.end === null) entry.listed = listed;
      return entry;
    });
    const over = new Set(ended.map(({ turn }) => turn)); // one that has just ended is in both lists
    const present = waiting.filter(({ turn }) => !over.has(turn)).map(({ turn, message }) => known(turn, message));
    const listed = new Set([...past, ...present]);
    for (const entry of before.values()) if (asked.has(entry) && !entry.ended) lose(entry);
    this.#entries = [...listed, ...this.#entries.filter((entry) => !listed.has(entry))];
    this.#changed();
  }

  // -- state

  get #shown(): Entry[] {
    return this.#entries.filter((entry) => !entry.hidden);
  }

  #status(): ConversationState["status"] {
    if (this.#stop === null) return this.#error || this.#entries.length ? "closed" : "connecting";
    const open = this.#shown.filter((entry) => !entry.ended);
    if (open.some(({ status }) => status === "streaming")) return "streaming";
    if (open.length > 0) return "waiting";
    return this.#wasLive ? "ready" : "connecting";
  }

  #changed(entry?: Entry): void {
    entry?.changed();
    this.#state = null;
    if (this.#told) return;
    this.#told = true;
    queueMicrotask(() => {
      this.#told = false;
      for (const listener of this.#listeners) listener();
    });
  }
}

/** A request that may be repeated, until it succeeds, is refused for good, or is wanted no longer. */
async function repeated<T>(request: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request();
    } catch (error) {
      if (tries >= TRIES || signal?.aborted || (error instanceof Refused && !error.passing)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** tries * (0.5 + Math.random() / 2)));
    }
  }
}

/** Nobody knows it any more: it ended longer ago than ends are kept. */
function lose(entry: Entry): void {
  entry.error = "the end of this answer is no longer known";
  entry.changed();
}

/** As the server lists it. */
function textOf(message: Content): string {
  if (typeof message === "string") return message;
  return message.flatMap((block) => ("text" in block ? [String(block.text)] : [])).join("\n\n");
}

