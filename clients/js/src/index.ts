// Warmwire's client for browsers and Node: an answer is an async iterable that survives every reconnect.

export { Answer } from "./answer.js";
export type { TextBlock, ToolUse } from "./answer.js";
export { newId, Warmwire } from "./client.js";
export type * from "./client.js";
export { Conversation } from "./conversation.js";
export type * from "./conversation.js";
export { AnswerLost, Refused, TurnFailed, Unreachable, WarmwireError } from "./errors.js";
export { isEnd, turnOf } from "./events.js";
export type * from "./events.js";
export type { Token, Transport } from "./http.js";
export type { Retry } from "./line.js";
export { Turn, Watch } from "./turn.js";
export type { Saved } from "./turn.js";
