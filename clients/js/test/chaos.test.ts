import { expect, inject, test } from "vitest";
import type { TestContext } from "vitest";
import { WebSocket } from "ws";
import { newId, Warmwire } from "../src/index.js";
import { websocket } from "../src/websocket.js";
import type { SocketMaker } from "../src/websocket.js";
import { cuttingProxy } from "./proxy.js";
import type { Proxy } from "./proxy.js";

const CUTS = 50;
const url = inject("url");

async function cutting({ onTestFinished }: TestContext, cutAfter: (cuts: number) => number | null): Promise<Proxy> {
  const proxy = await cuttingProxy(url, cutAfter);
  onTestFinished(() => proxy.close());
  return proxy;
}

/** Cuts after up to so many bytes: in a head, in a frame, between an id and its blank line, wherever it falls. */
function anywhere(most: number): (cuts: number) => number | null {
  return (cuts) => (cuts < CUTS ? Math.ceil(Math.random() * most) : null);
}

test.for([
  ["sse", undefined],
  ["websocket", websocket(WebSocket as unknown as SocketMaker)],
] as const)("an answer is cut fifty times, and whole (%s)", async ([, transport], context) => {
  const proxy = await cutting(context, anywhere(1500));
  const retry = { first: 5, longest: 40, tries: 200 };
  const through = new Warmwire({ url: proxy.url, transport, retry });
  const session = `chaos-${newId()}`;
  const turn = through.chat("Hello", { session });
  const places: string[] = [];
  const types: string[] = [];
  for await (const event of turn) {
    types.push(event.type);
    if (event.type !== "gap" && event.type !== "snapshot") places.push(`${turn.cursor}`);
  }
  const { turns } = await new Warmwire({ url }).turns(session);

  expect(turns).toHaveLength(1); // sent once, whatever was repeated
  expect(turns[0]!.text.split(" ").length).toBeGreaterThan(300);
  expect(turn.answer.text).toBe(turns[0]!.text);
  expect(new Set(places).size).toBe(places.length);
  expect(types.at(-1)).toBe("turn_completed");
  expect(proxy.cuts).toBe(CUTS);
});

test("a server that is gone for a while is waited for", async (context) => {
  const proxy = await cutting(context, () => null);
  const { down } = proxy;
  const turn = new Warmwire({ url: proxy.url, retry: { first: 5, longest: 20, tries: 1000 } }).chat("Hello again");
  let deltas = 0;
  for await (const event of turn) {
    if (event.type !== "content_block_delta" || ++deltas !== 20) continue;
    down(true);
    setTimeout(() => down(false), 300);
  }
  expect(turn.answer.end?.type).toBe("turn_completed");
  expect(turn.answer.text.split(" ").length).toBeGreaterThan(300);
});

test("tries are bounded", async (context) => {
  const proxy = await cutting(context, () => 1);
  const client = new Warmwire({ url: proxy.url, retry: { first: 1, longest: 1, tries: 7 } });
  await expect(client.chat("Hello").text()).rejects.toThrow("no connection after 8 tries");
  expect(proxy.cuts).toBe(8);
});
