import { expect, inject, test } from "vitest";
import type { TestContext } from "vitest";
import { Conversation, newId, Warmwire } from "../src/index.js";
import type { ChatMessage, Content } from "../src/index.js";

const url = inject("url");
const client = new Warmwire({ url });

test.for<[string, Content]>([
  ["in one piece", "a story"],
  ["in blocks", [{ type: "text", text: "a story" }, { type: "text", text: "of two parts" }]],
])("an answer that comes before the word that its message was accepted stands once (%s)", async ([, message], context) => {
  const session = newId();
  const late: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (!String(input).endsWith("/messages")) return response;
    const { turn } = (await response.clone().json()) as { turn: string };
    await client.resume({ session, turn }).text();
    return response;
  };
  const seen = await following(context, new Warmwire({ url, fetch: late }), session);
  expect(await seen.conversation.send(message)).toBe(true);
  await seen.until((messages) => messages.some((each) => "status" in each && each.status === "completed"));
  const { turns } = await client.turns(session);
  expect(seen.lengths).toEqual(new Set([0, 2]));
  expect(seen.conversation.state.messages.map(({ text }) => text)).toEqual([turns[0]!.message, turns[0]!.text]);
});

test("what somebody else asks is shown while a message of one's own is on its way", async (context) => {
  const session = newId();
  let tell = () => {};
  const told = new Promise<void>((resolve) => (tell = resolve));
  const stuck: typeof fetch = async (input, init) => {
    if (String(input).endsWith("/messages")) await told;
    return fetch(input, init);
  };
  const seen = await following(context, new Warmwire({ url, fetch: stuck }), session);
  const sent = seen.conversation.send("mine");
  await client.send("somebody else's", { session });
  await seen.until((messages) => messages.some(({ text }) => text === "somebody else's"));
  tell();
  expect(await sent).toBe(true);
});

test("what was said before is asked for once at a time, however much comes up", async (context) => {
  const session = newId();
  let [open, most, go] = [0, 0, () => {}];
  let gate = Promise.resolve();
  const counted: typeof fetch = async (input, init) => {
    if (/\/(events|messages)$/.test(String(input))) return fetch(input, init);
    most = Math.max(most, (open += 1));
    await gate;
    return fetch(input, init).finally(() => (open -= 1));
  };
  const seen = await following(context, new Warmwire({ url, fetch: counted }), session);
  gate = new Promise((resolve) => (go = resolve));
  for (const number of [1, 2, 3, 4]) await client.send(`refuse ${number}`, { session });
  await seen.until((messages) => messages.length === 8);
  go();
  await seen.until((messages) => messages.every(({ text }) => text !== null));
  expect(seen.conversation.state.messages.map(({ text }) => text).filter(Boolean)).toEqual([1, 2, 3, 4].map((number) => `refuse ${number}`));
  expect(most).toBe(1);
});

test("a turn that ends while it is asked what was said before stands once", async (context) => {
  const session = newId();
  const { turn } = await client.send("a story", { session });
  const ending: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    if (!String(input).endsWith(`/sessions/${session}`)) return response;
    await client.interrupt(session, turn);
    await client.resume({ session, turn }).text();
    return response;
  };
  const seen = await following(context, new Warmwire({ url, fetch: ending }), session);
  await seen.until((messages) => messages[0]?.text === "a story");
  expect(seen.lengths).toEqual(new Set([0, 2]));
  expect(seen.conversation.state.messages.map(({ id }) => id)).toEqual([`${turn}.user`, `${turn}.assistant`]);
});

test("what was said before is asked for again where a connection broke", async (context) => {
  const session = newId();
  for await (const _ of client.chat("refuse this", { session }));
  let broken = 2;
  const breaking: typeof fetch = async (input, init) => {
    if (String(input).includes("/turns?") && broken-- > 0) throw new TypeError("broken");
    return fetch(input, init);
  };
  const seen = await following(context, new Warmwire({ url, fetch: breaking }), session);
  await seen.until((messages) => messages.length === 2);
  expect(seen.conversation.state.messages[0]!.text).toBe("refuse this");
  expect(seen.conversation.state.error).toBeNull();
});

interface Seen {
  conversation: Conversation;
  /** How many messages have been shown at a time. */
  lengths: Set<number>;
  until: (is: (messages: readonly ChatMessage[]) => boolean) => Promise<void>;
}

async function following({ onTestFinished }: TestContext, client: Warmwire, session: string): Promise<Seen> {
  const conversation = new Conversation(client, session);
  const lengths = new Set([0]);
  conversation.subscribe(() => lengths.add(conversation.state.messages.length));
  const until = (is: (messages: readonly ChatMessage[]) => boolean) =>
    new Promise<void>((resolve) => {
      const look = () => is(conversation.state.messages) && resolve();
      conversation.subscribe(look);
      look();
    });
  conversation.start();
  onTestFinished(() => conversation.close());
  await until(() => conversation.state.status === "ready");
  return { conversation, lengths, until };
}
