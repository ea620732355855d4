// Servers that take a connection and say nothing: the clock is the test's, so these run one after the other.

import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, expect, inject, test, vi } from "vitest";
import type { TestContext } from "vitest";
import { WebSocket } from "ws";
import { Refused, Warmwire } from "../src/index.js";
import { Line } from "../src/line.js";
import type { Dial, Ending, Frame } from "../src/line.js";
import { websocket } from "../src/websocket.js";
import type { SocketMaker } from "../src/websocket.js";

const SILENCE = 45_000;
const PING = 15_000;

afterEach(() => void vi.useRealTimers());

/** In front of the edge; the first connection leads nowhere. `first` resolves once it stands. */
async function mute({ onTestFinished }: TestContext): Promise<{ url: string; first: Promise<unknown> }> {
  const target = new URL(inject("url"));
  const open = new Set<Socket>();
  const server = createServer((near) => {
    open.add(near.on("error", () => {}));
    if (open.size === 1) return;
    const far = createConnection(Number(target.port), target.hostname).on("error", () => {});
    open.add(near.pipe(far).on("close", () => near.destroy()));
    far.pipe(near);
  });
  const first = once(server, "connection");
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.close();
    for (const socket of open) socket.destroy();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, first };
}

test.sequential.for([
  ["sse", undefined],
  ["websocket", websocket(WebSocket as unknown as SocketMaker)],
] as const)("a connection over which nothing ever comes is made again (%s)", async ([, transport], context) => {
  const { url, first } = await mute(context);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval", "Date"] });
  const text = new Warmwire({ url, transport, retry: { first: 1, longest: 1, tries: 2 } }).chat("Hello").text();
  await first;
  await vi.advanceTimersByTimeAsync(SILENCE + PING);
  await vi.advanceTimersByTimeAsync(100); // the pause before the next connection
  vi.useRealTimers();
  expect(await text).toContain("Hello");
});

test.sequential("who was told to come back later does not come before", async () => {
  const waits = new Refused({ type: "urn:warmwire:problem:unavailable" }, 503, 10);
  let dials = 0;
  const dial: Dial = async function* (): AsyncGenerator<Frame, Ending> {
    dials += 1;
    if (dials === 1) throw waits;
    return { done: true };
  };
  vi.useFakeTimers();
  const line = new Line({ dial, cursor: null, signal: new AbortController().signal, renewable: false });
  const end = line[Symbol.asyncIterator]().next();
  await vi.advanceTimersByTimeAsync(9_999);
  expect(dials).toBe(1);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(dials).toBe(2);
  expect((await end).done).toBe(true);
});
