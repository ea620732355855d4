// A transport for the AI SDK's `useChat`: its chat id is the session. It carries text, thinking and ends; a connection that
// breaks is made again below it. What it cannot carry is text that is taken back: such an answer ends with an error there.

import type { ChatTransport, UIMessage, UIMessageChunk } from "ai";
import { Answer } from "./answer.js";
import type { ChatOptions, Warmwire } from "./client.js";
import { WarmwireError } from "./errors.js";
import { isEnd } from "./events.js";
import type { Turn } from "./turn.js";

export type TurnChoices = Omit<ChatOptions, "session" | "signal" | "idempotencyKey">;

/** Give it to `useChat({ id: session, transport, resume: true })`. `choices` count for each message. */
export function chatTransport<M extends UIMessage = UIMessage>(client: Warmwire, choices: TurnChoices = {}): ChatTransport<M> {
  return {
    async sendMessages({ chatId, messages, abortSignal, trigger }) {
      if (trigger !== "submit-message") throw new WarmwireError("an answer is not made again: the conversation is the CLI's");
      const text = textOf(messages.at(-1));
      return streamOf(client.chat(text, { ...choices, session: chatId, signal: abortSignal }), abortSignal);
    },
    resumeStreamIsReplay: true,
    async reconnectToStream({ chatId, abortSignal }) {
      const turn = (await client.session(chatId))?.turns[0];
      if (turn === undefined) return null;
      const how = { signal: abortSignal, onAbort: choices.onAbort ?? "interrupt" };
      return streamOf(client.resume({ session: chatId, turn }, how), abortSignal);
    },
  };
}

function textOf(message: UIMessage | undefined): string {
  return (message?.parts ?? []).flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");
}

/** A turn as chunks of a UI message. An abort ends them at once, whatever the turn itself still waits for. */
function streamOf(turn: Turn, signal: AbortSignal | undefined): ReadableStream<UIMessageChunk> {
  const chunks = chunksOf(turn);
  return new ReadableStream<UIMessageChunk>({
    start(to) {
      signal?.addEventListener("abort", () => to.error(signal.reason), { once: true });
    },
    async pull(to) {
      const next = await chunks.next();
      if (next.done) to.close();
      else to.enqueue(next.value);
    },
    cancel() {
      turn.close();
    },
  });
}

async function* chunksOf(turn: Turn): AsyncGenerator<UIMessageChunk, void> {
  const told = new Told();
  for await (const event of turn) {
    yield* told.rest(turn.answer, turn.id ?? "");
    if (told.isVoid) {
      yield { type: "error", errorText: "text that was shown is void: load the conversation again" };
      return;
    }
    if (!isEnd(event)) continue;
    yield* told.end();
    if (event.type === "turn_failed") yield { type: "error", errorText: event.message };
    else yield event.type === "turn_interrupted" ? { type: "abort" } : { type: "finish" };
  }
}

/** What a reader that can only append was told. */
class Told {
  /** It does not agree any more with what the turn says. */
  isVoid = false;
  #begun = false;
  #texts: string[] = [];
  #open: { name: "text" | "reasoning"; id: string } | null = null;

  /** What the answer has beyond that. */
  *rest({ blocks }: Answer, turn: string): Generator<UIMessageChunk> {
    if (!this.#begun) yield { type: "start", messageId: turn };
    this.#begun = true;
    for (const [at, { kind, text }] of blocks.entries()) {
      const before = this.#texts[at];
      if (before === text) continue;
      if (before?.startsWith(text)) return; // it is written again, and may come to the same
      if (before === undefined) yield* this.#begin(kind === "text" ? "text" : "reasoning", String(at));
      if (this.#open?.id !== String(at) || !text.startsWith(before ?? "")) return void (this.isVoid = true);
      this.#texts[at] = text;
      yield { type: `${this.#open.name}-delta`, id: this.#open.id, delta: text.slice(before?.length ?? 0) };
    }
  }

  *end(): Generator<UIMessageChunk> {
    if (this.#open !== null) yield { type: `${this.#open.name}-end`, id: this.#open.id };
    this.#open = null;
  }

  *#begin(name: "text" | "reasoning", id: string): Generator<UIMessageChunk> {
    yield* this.end();
    this.#open = { name, id };
    yield { type: `${name}-start`, id };
  }
}
