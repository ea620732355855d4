// @vitest-environment jsdom

import { act, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { expect, inject, test } from "vitest";
import type { TestContext } from "vitest";
import { newId, Warmwire } from "../src/index.js";
import type { AssistantMessage } from "../src/index.js";
import { useWarmwire } from "../src/react.js";
import type { UseWarmwire } from "../src/react.js";
import { cuttingProxy } from "./proxy.js";

(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;
const url = inject("url");
const fetch = globalThis.fetch;

interface Shown {
  now: UseWarmwire;
  drawn: () => string;
  close: () => Promise<void>;
  until: (is: (now: UseWarmwire) => boolean) => Promise<UseWarmwire>;
}

async function shown({ onTestFinished }: TestContext, session: string, at = url): Promise<Shown> {
  const place = document.createElement("div");
  const seen = { now: null as UseWarmwire | null };
  function Chat() {
    const [client] = useState(() => new Warmwire({ url: at, fetch, retry: { first: 5, longest: 50, tries: 1000 } }));
    const chat = (seen.now = useWarmwire({ client, session }));
    return <p>{chat.messages.map(({ text }) => text).join("|")}</p>;
  }
  const root = createRoot(place);
  await act(async () => root.render(<StrictMode><Chat /></StrictMode>));
  const close = () => act(async () => root.unmount());
  onTestFinished(close);
  const until = async (is: (now: UseWarmwire) => boolean) => {
    for (const end = Date.now() + 30_000; !is(seen.now!); ) {
      if (Date.now() > end) throw new Error(`not in time: ${JSON.stringify(seen.now)}`);
      await act(async () => new Promise((resolve) => setTimeout(resolve, 5)));
    }
    return seen.now!;
  };
  return { get now() { return seen.now!; }, drawn: () => place.textContent ?? "", close, until };
}

const answers = (chat: UseWarmwire) => chat.messages.filter((message): message is AssistantMessage => message.role === "assistant");

test.sequential("a message and its answer, as it is written", async (context) => {
  const session = newId();
  const page = await shown(context, session);
  await page.until(({ status }) => status === "ready");
  await act(() => page.now.send("Hello there"));
  await page.until((now) => now.status === "streaming" && answers(now)[0]!.text.length > 50);
  expect(page.drawn()).toMatch(/^Hello there\|Hello! You wrote/);
  const { messages } = await page.until(({ status }) => status === "ready");
  const { turns } = await new Warmwire({ url, fetch }).turns(session);
  expect(messages.map(({ role, text }) => [role, text])).toEqual([["user", "Hello there"], ["assistant", turns[0]!.text]]);
  expect(answers(page.now)[0]!.status).toBe("completed");
});

test.sequential("a reload in the middle shows the same, and another page too", async (context) => {
  const session = newId();
  const first = await shown(context, session);
  await act(() => first.now.send("Hello there"));
  await first.until((now) => (answers(now)[0]?.text.length ?? 0) > 200);
  await first.close();
  const again = await shown(context, session);
  const other = await shown(context, session);
  const { turns } = (await again.until((now) => answers(now)[0]?.status === "completed"), await new Warmwire({ url, fetch }).turns(session));
  await other.until((now) => answers(now)[0]?.status === "completed");
  for (const page of [again, other]) expect(page.now.messages.map(({ text }) => text)).toEqual(["Hello there", turns[0]!.text]);
});

test.sequential("stop keeps the text so far", async (context) => {
  const page = await shown(context, newId());
  await act(() => page.now.send("a long story"));
  await page.until((now) => (answers(now)[0]?.text.length ?? 0) > 20);
  await act(() => page.now.stop());
  const now = await page.until((now) => answers(now)[0]!.status === "interrupted");
  expect(answers(now)[0]!.text).toContain("Hello");
});

test.sequential("a connection that breaks is made again, and says so", async (context) => {
  const proxy = await cuttingProxy(url, () => null);
  context.onTestFinished(() => proxy.close());
  const session = newId();
  const page = await shown(context, session, proxy.url);
  await act(() => page.now.send("Hello there"));
  await page.until((now) => (answers(now)[0]?.text.length ?? 0) > 50);
  proxy.down(true);
  await page.until(({ reconnecting }) => reconnecting);
  proxy.down(false);
  await page.until(({ reconnecting }) => !reconnecting);
  const now = await page.until((now) => answers(now)[0]!.status === "completed");
  const { turns } = await new Warmwire({ url, fetch }).turns(session);
  expect(answers(now).map(({ text }) => text)).toEqual([turns[0]!.text]);
});

test.sequential("what is refused is shown where its answer would be", async (context) => {
  const page = await shown(context, newId());
  let sent = true;
  await act(async () => void (sent = await page.now.send("x".repeat(1_100_000))));
  expect(sent).toBe(false);
  expect(answers(page.now)[0]).toMatchObject({ status: "refused", error: expect.stringContaining("1048576") });
});
