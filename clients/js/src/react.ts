// The React hook: a session as state.

import { useCallback, useEffect, useMemo, useSyncExternalStore } from "react";
import type { Permission, Warmwire } from "./client.js";
import type { ConversationState, SendOptions } from "./conversation.js";
import { Conversation } from "./conversation.js";
import type { Content } from "./client.js";

export interface UseWarmwireOptions {
  /** The same object at each rendering: make it once, outside of components. */
  client: Warmwire;
  session: string;
}

export interface UseWarmwire extends ConversationState {
  /** Sends a message. False where it could not be sent: its answer's `error` says why. */
  send: (message: Content, options?: SendOptions) => Promise<boolean>;
  /** Stops what runs. */
  stop: () => Promise<void>;
  /** Answers a question of the CLI's. */
  permit: (request: string, answer: Permission) => Promise<void>;
}

/** Follows a session for as long as the component is mounted. */
export function useWarmwire({ client, session }: UseWarmwireOptions): UseWarmwire {
  const conversation = useMemo(() => new Conversation(client, session), [client, session]);
  const subscribe = useCallback((listener: () => void) => conversation.subscribe(listener), [conversation]);
  const state = useSyncExternalStore(subscribe, () => conversation.state, () => conversation.state);
  useEffect(() => {
    conversation.start();
    return () => conversation.close();
  }, [conversation]);
  const actions = useMemo(
    () => ({
      send: (message: Content, options?: SendOptions) => conversation.send(message, options),
      stop: () => conversation.stop(),
      permit: (request: string, answer: Permission) => conversation.permit(request, answer),
    }),
    [conversation],
  );
  return useMemo(() => ({ ...state, ...actions }), [state, actions]);
}
