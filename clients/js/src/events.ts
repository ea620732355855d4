// What a turn says. Streaming events of the CLI are those of Anthropic's Messages API; the others are warmwire's and name
// their turn. Types and fields that are not here may come, and are to be ignored.

/** Tokens, as the CLI counts them. */
export type Usage = Record<string, unknown>;

interface OfTurn<T extends string> {
  type: T;
  turn: string;
}

/** A block of text or thinking, as a snapshot has it. */
export interface SnapshotBlock {
  message: number;
  index: number;
  kind: string;
  text: string;
}

export interface TurnQueued extends OfTurn<"turn_queued"> {
  session_id: string;
}
export interface TurnStarted extends OfTurn<"turn_started"> {
  session_id: string;
  attempt: number;
  worker: string;
  model?: string;
}
/** Work is repeated: text from message number `message` on is to be forgotten. */
export interface TurnReset extends OfTurn<"turn_reset"> {
  attempt: number;
  reason: string;
  message?: number;
}
/** The CLI asks whether it may use a tool: see `Warmwire.permit`. */
export interface PermissionRequested extends OfTurn<"permission_requested"> {
  request: string;
  tool: string;
  summary: string;
  input?: unknown;
  within_ms: number;
}
export interface PermissionResolved extends OfTurn<"permission_resolved"> {
  request: string;
  outcome: "allowed" | "denied" | "overdue" | "withdrawn";
}
export interface ToolStarted extends OfTurn<"tool_started"> {
  id: string;
  name: string;
  summary?: string;
}
export interface ToolFinished extends OfTurn<"tool_finished"> {
  id: string;
  name?: string;
  is_error?: boolean;
  summary?: string;
}
export interface TurnProgress extends OfTurn<"turn_progress"> {
  elapsed_ms: number;
  doing: string;
}
export interface TurnCompleted extends OfTurn<"turn_completed"> {
  stop_reason: string | null;
  usage?: Usage;
  duration_ms: number;
  ttft_ms?: number | null;
  attempt: number;
}
export interface TurnInterrupted extends OfTurn<"turn_interrupted"> {
  usage?: Usage;
  duration_ms?: number;
  ttft_ms?: number | null;
}
export interface TurnFailed extends OfTurn<"turn_failed"> {
  code: string;
  message: string;
  retryable: boolean;
  usage?: Usage;
  duration_ms?: number;
}
/** The turn's text so far, which replaces what was shown of it. */
export interface Snapshot extends OfTurn<"snapshot"> {
  blocks: SnapshotBlock[];
  truncated?: boolean;
  questions?: PermissionRequested[];
}
/** What lies between two cursors is gone. */
export interface Gap {
  type: "gap";
  turn?: string;
  after?: string | null;
  until?: string | null;
}

export interface MessageStart {
  type: "message_start";
  message: { id?: string; model?: string; usage?: Usage };
}
export interface ContentBlockStart {
  type: "content_block_start";
  index: number;
  content_block: { type: string; text?: string; name?: string; id?: string };
}
export interface ContentBlockDelta {
  type: "content_block_delta";
  index: number;
  delta:
    | { type: "text_delta"; text: string }
    | { type: "thinking_delta"; thinking: string }
    | { type: "input_json_delta"; partial_json: string }
    | { type: "signature_delta"; signature: string };
  /** The cursor of the first delta in it, where several were merged. */
  from?: string;
}
export interface ContentBlockStop {
  type: "content_block_stop";
  index: number;
}
export interface MessageDelta {
  type: "message_delta";
  delta: { stop_reason?: string | null };
  usage?: Usage;
}
export interface MessageStop {
  type: "message_stop";
}

/** The three ways in which a turn ends; each turn has one of them, once. */
export type TurnEnd = TurnCompleted | TurnInterrupted | TurnFailed;

/** Everything that a turn says. */
export type Event =
  | TurnQueued
  | TurnStarted
  | TurnReset
  | PermissionRequested
  | PermissionResolved
  | ToolStarted
  | ToolFinished
  | TurnProgress
  | TurnEnd
  | Snapshot
  | Gap
  | MessageStart
  | ContentBlockStart
  | ContentBlockDelta
  | ContentBlockStop
  | MessageDelta
  | MessageStop;

/** An event and the cursor just after it. `turn` is null where a gap belongs to no turn. */
export interface Placed {
  event: Event;
  cursor: string;
  turn: string | null;
}

/** Whether an event is a turn's last. */
export function isEnd(event: Event): event is TurnEnd {
  return /^turn_(completed|interrupted|failed)$/.test(event.type);
}

/** The turn that an event belongs to: it says so itself, or its cursor does. */
export function turnOf(event: Event, cursor: string): string | null {
  if ("turn" in event && event.turn) return event.turn;
  return event.type === "gap" ? null : cursor.split(".", 1)[0] || null;
}
