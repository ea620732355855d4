// @vitest-environment jsdom

import type { UIMessage } from "ai";
import { expect, inject, test } from "vitest";
import type { TestContext } from "vitest";
import { chatTransport } from "../src/ai-sdk.js";
import { newId, Warmwire } from "../src/index.js";
import type { Event } from "../src/index.js";
import { answerOf, chatPage } from "./chat-page.js";
import type { Chat } from "./chat-page.js";
import { cuttingProxy } from "./proxy.js";

const url = inject("url");
const fetch = globalThis.fetch;
const direct = new Warmwire({ url, fetch });

const page = ({ onTestFinished }: TestContext, id: string, client = direct, messages: UIMessage[] = [], resume = true) =>
  chatPage(onTestFinished, { id, transport: chatTransport(client, { onAbort: "interrupt" }), messages, resume });
const ask = (chat: Chat) => void chat.sendMessage({ text: "Hello there" });
const recorded = async (session: string) => (await direct.turns(session)).turns[0]!;

test.sequential("useChat shows an answer as it is written, over breaks of the connection", async (context) => {
  const proxy = await cuttingProxy(url, (cuts) => (cuts < 20 ? Math.ceil(Math.random() * 1500) : null));
  context.onTestFinished(() => proxy.close());
  const session = newId();
  const client = new Warmwire({ url: proxy.url, fetch, retry: { first: 5, longest: 40, tries: 200 } });
  const { until } = page(context, session, client, [], false);
  ask(await until(() => true));
  await until((now) => now.status === "streaming" && answerOf(now).length > 20);
  const done = await until(({ status }) => status === "ready");
  expect(answerOf(done)).toBe((await recorded(session)).text);
  expect(done.messages).toHaveLength(2);
});

test.sequential("a page that is loaded again in the middle resumes", async (context) => {
  const session = newId();
  const { turn } = await direct.send("Hello there", { session });
  const asked: UIMessage = { id: "asked", role: "user", parts: [{ type: "text", text: "Hello there" }] };
  const half: UIMessage = { id: turn, role: "assistant", parts: [{ type: "text", text: "Hello! You wro", state: "streaming" }] };
  const { until } = page(context, session, direct, [asked, half]);
  await until((now) => now.status === "streaming" && answerOf(now).length > 20);
  const done = await until(({ status }) => status === "ready");
  expect(answerOf(done)).toBe((await recorded(session)).text);
  expect(done.messages).toHaveLength(2);
});

test.sequential("stop() interrupts the turn", async (context) => {
  const session = newId();
  const { until, chat } = page(context, session);
  ask(await until(() => true));
  await until((now) => answerOf(now).length > 20);
  await chat().stop();
  await until(({ status }) => status === "ready");
  const turn = chat().messages.at(-1)!.id;
  await direct.resume({ session, turn }).text();
  expect((await recorded(session)).ending).toBe("interrupted");
});

test.sequential("text that is taken back is an error, not a mixture", async () => {
  const events: Event[] = [
    { type: "message_start", message: {} },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "void" } },
    { type: "turn_reset", turn: "t", attempt: 2, reason: "worker_lost" },
    { type: "message_start", message: {} },
    { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "another" } },
  ];
  const types: string[] = [];
  for await (const { type } of await streamed(async () => new Response(frames(events)))) types.push(type);
  expect(types).toEqual(["start", "text-start", "text-delta", "error"]);
});

test.sequential("an abort ends the stream at once, though nothing comes any more and the interrupt gets no answer", async () => {
  const { fetch, paths, left } = silent();
  const abort = new AbortController();
  const reader = (await streamed(fetch, abort.signal)).getReader();
  expect((await reader.read()).value).toMatchObject({ type: "start" });
  const next = reader.read();
  abort.abort();
  await expect(next).rejects.toBe(abort.signal.reason);
  await expect.poll(paths).toEqual(["stream", "interrupt"]);
  expect(left()).toBe(true);
});

test.sequential("who cancels the stream leaves the connection at once, and the turn goes on", async () => {
  const { fetch, paths, left } = silent();
  const reader = (await streamed(fetch)).getReader();
  expect((await reader.read()).value).toMatchObject({ type: "start" });
  await reader.cancel();
  expect(left()).toBe(true);
  expect(paths()).toEqual(["stream"]);
});

const frames = (events: Event[]) => events.map((event, seq) => `data: ${JSON.stringify(event)}\nid: t.1.${seq + 1}\n\n`).join("");

/** What the transport makes of a server that answers so. */
function streamed(fetch: typeof globalThis.fetch, abortSignal?: AbortSignal) {
  const messages: UIMessage[] = [{ id: "1", role: "user", parts: [{ type: "text", text: "Hello" }] }];
  const transport = chatTransport(new Warmwire({ url, fetch }));
  return transport.sendMessages({ chatId: "s", messages, trigger: "submit-message", messageId: undefined, abortSignal });
}

/** A server that begins to answer and says no more, not even to an interrupt. */
function silent() {
  const asked: { path: string; signal: AbortSignal }[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const { path, signal } = { path: String(input).split("/").at(-1)!, signal: init!.signal! };
    asked.push({ path, signal });
    if (path !== "stream") return new Promise(() => {});
    const start = (to: ReadableStreamDefaultController<Uint8Array>) => {
      to.enqueue(new TextEncoder().encode(frames([{ type: "message_start", message: {} }])));
      signal.addEventListener("abort", () => to.error(signal.reason));
    };
    return new Response(new ReadableStream({ start }));
  };
  return { fetch, paths: () => asked.map(({ path }) => path), left: () => asked[0]!.signal.aborted };
}
