// The SDKs of others, as they are, pointed at the edge.

import Anthropic from "@anthropic-ai/sdk";
import { Stream } from "@anthropic-ai/sdk/core/streaming";
import { MessageStream } from "@anthropic-ai/sdk/lib/MessageStream";
import OpenAI from "openai";
import { expect, inject, test } from "vitest";
import { newId, Warmwire } from "../src/index.js";

const url = inject("url");
const messages = [{ role: "user" as const, content: "Hello there" }];
const recorded = async (session: string) => (await new Warmwire({ url }).turns(session)).turns[0]!;
const claude = new Anthropic({ baseURL: url, apiKey: "unused", maxRetries: 0 });
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0 });

test("Anthropic: messages.stream() adds a message up, and messages.create() waits for one", async () => {
  const session = newId();
  const asked = { model: "opus", max_tokens: 1024, messages, metadata: { user_id: session } };
  const texts: string[] = [];
  const stream = claude.messages.stream(asked).on("text", (text) => texts.push(text));
  const message = await stream.finalMessage();
  const { turn, text } = await recorded(session);
  expect([texts.join(""), message.content[0], message.id]).toEqual([text, { type: "text", text }, `msg_${turn}`]);
  expect(texts.length).toBeGreaterThan(10);
  expect([message.stop_reason, message.usage.output_tokens > 0]).toEqual(["end_turn", true]);

  const whole = await claude.messages.create({ ...asked, messages: [{ role: "user", content: "recall" }] });
  expect(whole.content[0]).toMatchObject({ type: "text", text: expect.stringContaining("Hello there") });
});

test("Anthropic: its parser and MessageStream take the native stream of a turn of one message", async () => {
  const session = newId();
  const body = JSON.stringify({ session_id: session, message: "Hello there" });
  const response = await fetch(`${url}/v1/chat/stream`, { method: "POST", headers: { "content-type": "application/json" }, body });
  const events = Stream.fromSSEResponse<Anthropic.RawMessageStreamEvent>(response, new AbortController());
  const message = await MessageStream.fromReadableStream(events.toReadableStream()).finalMessage();
  expect(message.content).toMatchObject([{ type: "text", text: (await recorded(session)).text }]);
});

test("Anthropic: what fails is its error", async () => {
  const asked = { model: "opus", max_tokens: 1024, messages: [{ role: "user" as const, content: "refuse" }] };
  await expect(claude.messages.stream(asked).finalMessage()).rejects.toThrow(Anthropic.APIError);
  await expect(claude.messages.create(asked)).rejects.toMatchObject({ status: 502 });
  const refused = claude.messages.create({ ...asked, metadata: { user_id: "a.b" } });
  await expect(refused).rejects.toThrow(Anthropic.UnprocessableEntityError);
});

test("OpenAI: chunks, usage, a whole answer, models and errors", async () => {
  const session = newId();
  const asked = { model: "default", user: session };
  const stream = await openai.chat.completions.create({ ...asked, messages, stream: true, stream_options: { include_usage: true } });
  let said = "";
  let tokens = 0;
  for await (const { choices, usage } of stream) {
    said += choices[0]?.delta.content ?? "";
    tokens = usage?.completion_tokens ?? tokens;
  }
  expect([said, tokens > 0]).toEqual([(await recorded(session)).text, true]);
  const whole = await openai.chat.completions.create({ ...asked, messages: [{ role: "user", content: "recall" }] });
  expect(whole.choices[0]!.message.content).toContain("Hello there");
  expect((await openai.models.list()).data.map(({ id }) => id)).toEqual(["default"]);
  const refused = openai.chat.completions.create({ ...asked, messages, user: "a.b" });
  await expect(refused).rejects.toMatchObject({ status: 422, code: "invalid_field", param: "session_id" });
});
