import { expect, inject, test } from "vitest";
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { WebSocket } from "ws";
import { newId, Refused, TurnFailed, Warmwire } from "../src/index.js";
import type { Event } from "../src/index.js";
import { websocket } from "../src/websocket.js";
import type { SocketMaker } from "../src/websocket.js";

const url = inject("url");
const client = new Warmwire({ url });
const sockets = new Warmwire({ url, transport: websocket(WebSocket as unknown as SocketMaker) });
const both = [["sse", client], ["websocket", sockets]] as const;

test.each(both)("events come one by one, and add up (%s)", async (_, client) => {
  const turn = client.chat("Hello there");
  const texts = new Set<string>();
  const types: string[] = [];
  for await (const event of turn) {
    types.push(event.type);
    texts.add(turn.answer.text);
  }
  const { turns } = await client.turns(turn.session);
  expect(types[0]).toBe("turn_queued");
  expect(types.at(-1)).toBe("turn_completed");
  expect(texts.size).toBeGreaterThan(20);
  expect([...texts].at(-1)).toBe(turns[0]!.text);
  expect(turn.answer.text).toContain("Hello there");
});

test.each(both)("a conversation remembers (%s)", async (_, client) => {
  const session = newId();
  await client.chat("the first", { session }).text();
  expect(await client.chat("recall", { session }).text()).toContain("the first");
});

test.each(both)("interrupt ends the turn for its reader (%s)", async (_, client) => {
  const turn = client.chat("a long story");
  let stopped: Promise<boolean> | null = null;
  for await (const event of turn) if (event.type === "content_block_delta") stopped ??= turn.interrupt();
  expect(await stopped).toBe(true);
  expect(turn.answer.end?.type).toBe("turn_interrupted");
  expect(turn.answer.text).not.toBe("");
});

test.each(both)("an abort throws, and stops the turn (%s)", async (_, client) => {
  const session = newId();
  const stop = new AbortController();
  const turn = client.chat("a long story", { session, signal: stop.signal });
  const read = async () => {
    for await (const event of turn) if (event.type === "content_block_delta") stop.abort();
  };
  await expect(read()).rejects.toThrow(/abort/i);
  expect(await endOf(session, turn.id!)).toBe("turn_interrupted");
});

test.each(both)("who aborts and comes for no further event stops the turn, too (%s)", async (_, client) => {
  const session = newId();
  const stop = new AbortController();
  const turn = client.chat("a long story", { session, signal: stop.signal });
  for await (const event of turn) {
    if (event.type !== "content_block_delta") continue;
    stop.abort();
    break;
  }
  expect(await endOf(session, turn.id!)).toBe("turn_interrupted");
});

test("an abort stops the turn while its reader is busy with something else", async () => {
  const session = newId();
  const stop = new AbortController();
  const turn = client.chat("a long story", { session, signal: stop.signal });
  const events = turn[Symbol.asyncIterator]();
  await events.next();
  stop.abort();
  expect(await endOf(session, turn.id!)).toBe("turn_interrupted");
  const rest = async () => {
    while (!(await events.next()).done); // what had come by then is given first
  };
  await expect(rest()).rejects.toThrow(/abort/i);
});

test("an abort before it is accepted stops it, too", async () => {
  const session = newId();
  const stop = new AbortController();
  const slow: typeof fetch = async (input, init) => {
    const response = await fetch(input, init);
    stop.abort(); // accepted by now, but the client has not heard of it
    return response;
  };
  const turn = new Warmwire({ url, fetch: slow }).chat("a long story", { session, signal: stop.signal });
  await expect(turn.text()).rejects.toThrow(/abort/i);
  expect(await endOf(session, turn.id!)).toBe("turn_interrupted");
});

test("an aborted signal sends nothing", async () => {
  const session = newId();
  await expect(client.chat("Hello", { session, signal: AbortSignal.abort() }).text()).rejects.toThrow(/abort/i);
  expect(await client.session(session)).toBeNull();
});

test("who leaves lets the turn go on, and resumes it after a reload", async () => {
  const session = newId();
  const turn = client.chat("a long story", { session });
  for await (const event of turn) if (event.type === "content_block_delta" && turn.answer.text.length > 200) break;
  const before = turn.answer.text;
  const saved = JSON.parse(JSON.stringify(turn));

  const rest = await client.resume(saved).text();
  const whole = await client.resume({ session, turn: saved.turn }).text();
  const { turns } = await client.turns(session);

  expect(before + rest).toBe(turns[0]!.text);
  expect(whole).toBe(turns[0]!.text);
});

test("a failed turn yields its end, and throws for who wants its text", async () => {
  const events: Event[] = [];
  for await (const event of client.chat("refuse this")) events.push(event);
  expect(events.at(-1)?.type).toBe("turn_failed");
  await expect(client.chat("refuse this").text()).rejects.toBeInstanceOf(TurnFailed);
});

test.each(both)("a refusal names the field and the limit (%s)", async (_, client) => {
  const refused = await client.chat("x".repeat(1_100_000)).text().catch((error: unknown) => error);
  expect(refused).toBeInstanceOf(Refused);
  expect((refused as Refused).code).toBe("message_too_large");
  expect((refused as Refused).retryable).toBe(false);
  expect((refused as Refused).limit).toBe(1_048_576);
});

test("the same key is the same turn", async () => {
  const how = { session: newId(), idempotencyKey: "key-1" };
  const first = await client.chat("Hello", how).text();
  expect(await client.chat("Hello", how).text()).toBe(first);
  expect((await client.turns(how.session)).turns).toHaveLength(1);
});

test.each(both)("many watch one session (%s)", async (_, client) => {
  const session = newId();
  const { turn } = await client.send("a long story", { session });
  const texts = await Promise.all([1, 2, 3].map(() => watched(client, session, turn)));
  const { turns } = await client.turns(session);
  expect(texts).toEqual(Array(3).fill(turns[0]!.text));
});

test.each([
  ["sse", "undefined", 0],
  ["websocket", "websocket(WebSocket)", 1], // of the package `ws`, until the server has closed, too
])("nothing of ours keeps a process from ending after its last answer (%s)", async (_, transport, most) => {
  const dist = new URL("../dist/", import.meta.url).href;
  const code = `
    import { WebSocket } from "ws";
    import { Warmwire } from "${dist}index.js";
    import { websocket } from "${dist}websocket.js";
    await new Warmwire({ url: "${url}", transport: ${transport} }).chat("refuse this").text().catch(() => {});
    const told = process.getActiveResourcesInfo().filter((name) => name === "Timeout");
    console.log(told.length);
  `;
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", code]);
  expect(Number(stdout)).toBeLessThanOrEqual(most);
});

test("a turn is read once", async () => {
  const turn = client.chat("refuse this");
  for await (const _ of turn);
  await expect(turn.text()).rejects.toThrow("read once");
});

test("an answer that has begun while its connection was lost is told from its beginning (websocket)", async () => {
  const slow = new Warmwire({ url, transport: websocket(Link as unknown as SocketMaker), retry: { first: 5 } });
  const turn = slow.chat("a long story");
  const text = await turn.text();
  const { turns } = await client.turns(turn.session);
  expect(Link.opened).toBeGreaterThan(1);
  expect(text).toBe(turns[0]!.text);
});

/** The first is lost before anything comes back; what the second is told to watch reaches the server late. */
class Link extends WebSocket {
  static opened = 0;
  #number = (Link.opened += 1);
  #heard = 0;
  #held: string[] = [];

  override emit(type: string | symbol, ...given: unknown[]): boolean {
    if (type !== "message") return super.emit(type, ...given);
    this.#heard += 1;
    if (this.#heard === 20) (this.#number === 1 ? this.terminate() : this.#held.forEach((text) => super.send(text)));
    return this.#number > 1 && super.emit(type, ...given);
  }

  override send(text: string): void {
    if (this.#number === 2 && this.#heard < 20 && text.includes('"watch"')) this.#held.push(text);
    else super.send(text);
  }
}

async function endOf(session: string, turn: string): Promise<string | undefined> {
  const reader = client.resume({ session, turn });
  for await (const _ of reader);
  return reader.answer.end?.type;
}

async function watched(client: Warmwire, session: string, wanted: string): Promise<string> {
  const { Answer } = await import("../src/index.js");
  const stop = new AbortController();
  const answer = new Answer();
  for await (const { event, turn } of client.watch(session, { signal: stop.signal })) {
    if (turn === wanted) answer.take(event);
    if (answer.end) break;
  }
  stop.abort();
  return answer.text;
}
