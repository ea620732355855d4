// A page that has `useChat` in it, as an application writes it.

import { useChat } from "@ai-sdk/react";
import type { UIMessage } from "ai";
import { createRoot } from "react-dom/client";

// The SDK updates its state by itself, while nobody acts.
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = false;

export type Chat = ReturnType<typeof useChat>;
export interface ChatPage {
  /** The chat, once that is so. */
  until(is: (chat: Chat) => boolean): Promise<Chat>;
  chat(): Chat;
  /** Leave the page. */
  leave(): void;
}
export type Options = NonNullable<Parameters<typeof useChat>[0]>;

export function chatPage(onFinished: (end: () => void) => void, options: Options): ChatPage {
  let now = null as Chat | null;
  function Page() {
    now = useChat(options);
    return null;
  }
  const root = createRoot(document.createElement("div"));
  root.render(<Page />);
  onFinished(() => root.unmount());
  const until = async (is: (chat: Chat) => boolean): Promise<Chat> => {
    for (const end = Date.now() + 30_000; now === null || !is(now); ) {
      if (Date.now() > end) throw new Error(`not in time: ${now?.status} ${JSON.stringify(now?.messages)} ${now?.error}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return now!;
  };
  return { until, chat: () => now!, leave: () => root.unmount() };
}

/** The text of a message. */
export const textOf = (message: UIMessage | undefined) =>
  (message?.parts ?? []).flatMap((part) => (part.type === "text" ? [part.text] : [])).join("");
/** The text of the last answer. */
export const answerOf = ({ messages }: Chat) => textOf(messages.filter(({ role }) => role === "assistant").at(-1));
