// @vitest-environment jsdom
// `useChat` with the AI SDK's own transport, pointed at the edge: nothing of this client's is in the page.

import { DefaultChatTransport } from "ai";
import { expect, inject, test } from "vitest";
import type { TestContext } from "vitest";
import { newId, Warmwire } from "../src/index.js";
import { answerOf, chatPage, textOf } from "./chat-page.js";
import type { Chat, Options } from "./chat-page.js";
import { cuttingProxy } from "./proxy.js";

const url = inject("url");
const scripted = inject("scripted");
const fetch = globalThis.fetch;
const direct = new Warmwire({ url, fetch });
const recorded = async (session: string) => (await direct.turns(session)).turns;

const page = ({ onTestFinished }: TestContext, id: string, at = url, more: Partial<Options> = {}) =>
  chatPage(onTestFinished, { id, transport: new DefaultChatTransport({ api: `${at}/v1/ui/chat`, fetch }), ...more } as Options);
const answered = ({ status, messages }: Chat) => status === "ready" && messages.at(-1)?.role === "assistant";
const script = (...steps: object[]) => JSON.stringify(steps);
const start = { type: "message_start", message: {} };
const stop = { type: "message_stop" };
const end = { end: "completed" };
const text = (...said: string[]) => [
  start,
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  ...said.map((text) => ({ text })),
];
/** Lets a script go on that waits for that session. */
const letGo = (session: string) => new Warmwire({ url: scripted, fetch }).send(script(end), { session });

test("an answer, and a second one, as they are written", async (context) => {
  const session = newId();
  const { until } = page(context, session);
  const first = await until(({ status }) => status === "ready");
  void first.sendMessage({ text: "Hello there" });
  await until((now) => now.status === "streaming" && answerOf(now).length > 20);
  const one = await until(({ status }) => status === "ready");
  void one.sendMessage({ text: "recall" });
  const two = await until(({ status, messages }) => status === "ready" && messages.length === 4);

  const turns = await recorded(session);
  expect(two.messages.map(textOf)).toEqual(["Hello there", turns[0]!.text, "recall", turns[1]!.text]);
  expect(two.messages.map(({ id }) => id).filter((_, at) => at % 2)).toEqual(turns.map(({ turn }) => turn));
  expect(turns[1]!.text).toContain("Hello there");
  expect(two.messages[1]!.metadata).toMatchObject({ usage: { output_tokens: expect.any(Number) } });
  expect(two.messages[1]!.parts.map(({ type }) => type)).toEqual(["step-start", "text"]);
});

test("a page that is loaded again in the middle goes on, and shows no word twice", async (context) => {
  const [session, go] = [newId(), newId()];
  const before = page(context, session, scripted);
  const asked = script(...text("one ", "two "), { until: go }, { text: "three" }, end);
  void (await before.until(({ status }) => status === "ready")).sendMessage({ text: asked });
  const half = structuredClone((await before.until((now) => answerOf(now) === "one two ")).messages);
  before.leave();
  const pages = [half, half.slice(0, 1)].map((messages) => page(context, session, scripted, { messages, resume: true }));
  for (const { until } of pages) await until((now) => now.status === "streaming" && answerOf(now) === "one two ");
  await letGo(go);
  for (const { until } of pages) {
    const { messages } = await until(answered);
    expect(messages.map(textOf)).toEqual([asked, "one two three"]);
    expect(messages.at(-1)!.id).toBe(half.at(-1)!.id);
  }
});

test("a connection that is cut again and again: resuming shows the answer, each word once", async (context) => {
  const [session, go] = [newId(), newId()];
  const [before, after] = [0, 300].map((from) => Array.from({ length: 300 }, (_, at) => `${from + at} é `)) as [string[], string[]];
  const truth = [...before, ...after].join("");
  const there = new Warmwire({ url: scripted, fetch });
  const { turn } = await there.send(script(...text(...before), { until: go }, ...after.map((text) => ({ text })), end), { session });
  await expect.poll(async () => (await there.session(session))?.turns).toEqual([turn]);
  const proxy = await cuttingProxy(scripted, (cuts) => (cuts < 50 ? 300 + Math.ceil(Math.random() * 12_000) : null));
  context.onTestFinished(() => proxy.close());
  let isCut = false;
  const seen: string[] = [];
  const { until, chat } = page(context, session, proxy.url, {
    onError: () => void (isCut = true),
    onFinish: ({ message }) => void seen.push(textOf(message)),
  });
  await until(({ status }) => status === "ready");
  do {
    isCut = false;
    if (proxy.cuts === 50) await letGo(go);
    await chat().resumeStream();
  } while (isCut);
  expect(proxy.cuts).toBe(50);
  expect(seen.every((text) => truth.startsWith(text))).toBe(true);
  expect(answerOf(await until((now) => now.status === "ready" && answerOf(now).length === truth.length))).toBe(truth);
  expect(chat().messages.map(({ id }) => id)).toEqual([turn]);
});

test("a stream that broke shows the whole answer, though it has ended meanwhile", async (context) => {
  const [session, go] = [newId(), newId()];
  const proxy = await cuttingProxy(scripted, () => null);
  context.onTestFinished(() => proxy.close());
  const { until, chat } = page(context, session, proxy.url);
  void (await until(({ status }) => status === "ready")).sendMessage({ text: script(...text("one "), { until: go }, { text: "two" }, end) });
  await until((now) => answerOf(now) === "one ");
  proxy.down(true);
  await until(({ status }) => status === "error");
  await letGo(go);
  const there = new Warmwire({ url: scripted, fetch });
  await expect.poll(async () => (await there.turns(session)).turns.length, { timeout: 20_000 }).toBe(1);
  proxy.down(false);
  void chat().resumeStream();
  expect(answerOf(await until(answered))).toBe("one two");
});

test("stop() stops the turn", async (context) => {
  const session = newId();
  const { until, chat } = page(context, session, scripted);
  const asked = script(...text("so far"), { until: null }, { end: "interrupted" });
  void (await until(({ status }) => status === "ready")).sendMessage({ text: asked });
  await until((now) => answerOf(now) === "so far");
  await chat().stop();
  const there = new Warmwire({ url: scripted, fetch });
  await expect.poll(async () => (await there.turns(session)).turns[0]?.ending, { timeout: 20_000 }).toBe("interrupted");
  expect(answerOf(await until(answered))).toBe("so far");
  await chat().resumeStream(); // there is nothing to go on with
  expect(chat().messages).toHaveLength(2);
});

test("an interrupted turn ends with what there is", async (context) => {
  const session = newId();
  const { until } = page(context, session);
  void (await until(({ status }) => status === "ready")).sendMessage({ text: "Hello there" });
  await until((now) => answerOf(now).length > 20);
  await fetch(`${url}/v1/sessions/${session}/interrupt`, { method: "POST" });
  const done = await until(({ status }) => status === "ready");
  expect(answerOf(done)).toBe((await recorded(session))[0]!.text);
});

test("errors: of a turn, and of a request", async (context) => {
  const { until, chat } = page(context, newId());
  void (await until(({ status }) => status === "ready")).sendMessage({ text: "refuse" });
  expect((await until(({ status }) => status === "error")).error!.message).toMatch(/^\w+: /);
  chat().clearError();
  void chat().sendMessage({ parts: [{ type: "file", mediaType: "text/csv", url: "data:text/csv;base64,AAAA" }] });
  expect((await until(({ error }) => error?.message.includes("invalid_field") === true)).error!.message).toContain("data: URL");
});

const block = (index: number, content_block: object, ...deltas: object[]) => [
  { type: "content_block_start", index, content_block },
  ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
  { type: "content_block_stop", index },
];
const call = (index: number, id: string, name: string, input: object) => {
  const json = JSON.stringify(input);
  const deltas = [json.slice(0, 5), json.slice(5)].map((partial_json) => ({ type: "input_json_delta", partial_json }));
  return block(index, { type: "tool_use", id, name, input: {} }, ...deltas);
};
const result = (id: string, summary: string, is_error = false) => ({ type: "tool_finished", id, summary, is_error, turn: "" });
const think = (index: number, thinking: string) => block(index, { type: "thinking", thinking: "" }, { type: "thinking_delta", thinking });
const words = (index: number, said: string) => block(index, { type: "text", text: "" }, { type: "text_delta", text: said });

test("thinking and several tools, also for a page that is loaded again in the middle", async (context) => {
  const [session, go] = [newId(), newId()];
  const { until } = page(context, session, scripted);
  const steps = script(
    ...[start, ...think(0, "hm"), ...words(1, "I look. "), ...call(2, "a", "Bash", { command: "ls" }), ...call(3, "b", "Read", { path: "x" }), stop],
    ...[result("b", "no such file", true), result("a", "x y"), start, ...call(0, "c", "Read", { path: "y" }), { until: go }, stop],
    ...[result("c", "why"), ...text("It is ", "y."), ...[{ type: "content_block_stop", index: 0 }, stop, end]],
  );
  void (await until(({ status }) => status === "ready")).sendMessage({ text: steps });
  await until(({ messages }) => messages.at(-1)?.parts.length === 7);
  const later = page(context, session, scripted, { resume: true });
  await later.until(({ messages }) => messages.at(-1)?.parts.length === 7);
  await letGo(go);

  const tool = (toolCallId: string, toolName: string, input: object, more: object) => ({ type: "dynamic-tool", toolCallId, toolName, input, ...more });
  for (const each of [await until(answered), await later.until(answered)]) {
    expect(each.messages.at(-1)!.parts).toMatchObject([
      { type: "step-start" },
      { type: "reasoning", text: "hm", state: "done" },
      { type: "text", text: "I look. ", state: "done" },
      tool("a", "Bash", { command: "ls" }, { state: "output-available", output: "x y" }),
      tool("b", "Read", { path: "x" }, { state: "output-error", errorText: "no such file" }),
      { type: "step-start" },
      tool("c", "Read", { path: "y" }, { state: "output-available", output: "why" }),
      { type: "step-start" },
      { type: "text", text: "It is y.", state: "done" },
    ]);
  }
});

test("a question is a part of the message, answered beside it", async (context) => {
  const { until } = page(context, newId(), scripted);
  const question = { type: "permission_requested", request: "q", tool: "Bash", summary: "ls", within_ms: 60_000, turn: "" };
  const resolved = { type: "permission_resolved", request: "q", outcome: "allowed", turn: "" };
  void (await until(({ status }) => status === "ready")).sendMessage({ text: script(question, resolved, ...text("Done."), end) });
  const done = await until(answered);
  expect(done.messages.at(-1)!.parts[0]).toMatchObject({ type: "data-permission", id: "q", data: { tool: "Bash", outcome: "allowed" } });
});

const again = { type: "turn_reset", attempt: 2, reason: "worker_lost", message: 0, turn: "" };

test("an answer that is begun again goes on where it says the same, and is an error where it does not", async (context) => {
  const session = newId();
  const { until, chat } = page(context, session, scripted);
  const same = script(...text("one "), again, ...text("one ", "two"), end);
  void (await until(({ status }) => status === "ready")).sendMessage({ text: same });
  expect(answerOf(await until(answered))).toBe("one two");

  const go = newId();
  void chat().sendMessage({ text: script(...text("void "), again, ...text("another"), { until: go }, end) });
  const failed = await until(({ status }) => status === "error");
  expect([failed.error!.message, answerOf(failed)]).toEqual([expect.stringMatching(/^text_void: /), "void "]);
  const resumed = chat().resumeStream();
  await until((now) => answerOf(now) === "another");
  await letGo(go);
  await resumed;
  expect(chat().messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
});
