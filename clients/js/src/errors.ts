// Everything that this library throws. The tree:
//
//   WarmwireError
//   ├── Refused      the server said no; `retryable` and `retryAfter` say whether to ask again
//   ├── Unreachable  no connection, for as many tries as are allowed
//   ├── TurnFailed   the turn has ended without a complete answer
//   └── AnswerLost   the turn has ended, and its end is known no longer

export class WarmwireError extends Error {
  override name = "WarmwireError";
}

/** A problem document, as the server answers it (RFC 9457). */
export interface Problem {
  type?: string;
  title?: string;
  status?: number;
  detail?: string;
  field?: string;
  limit?: number;
}

const PASSING = new Set(["unavailable", "edge_full", "not_ready", "keys_unavailable", "request_timeout"]);

/** The server said no. A refused message was not sent on. */
export class Refused extends WarmwireError {
  override name = "Refused";
  /** The problem's type without its prefix: `session_busy`, `queue_full`, …; empty if something else than warmwire answered. */
  readonly code: string;
  readonly status: number;
  readonly field: string | undefined;
  readonly limit: number | undefined;

  constructor(
    problem: Problem,
    status: number,
    /** Seconds after which to ask again, if the server has said so. */
    readonly retryAfter: number | null = null,
  ) {
    super(problem.detail || problem.title || `the server answered ${status}`);
    this.code = (problem.type ?? "").replace("urn:warmwire:problem:", "");
    this.status = status;
    this.field = problem.field;
    this.limit = problem.limit;
  }

  /** Whether asking again later may help. */
  get retryable(): boolean {
    return this.retryAfter !== null || this.passing;
  }

  /** Whether it is no answer to the request, but that of a server which starts, leaves or has lost its queue. */
  get passing(): boolean {
    return PASSING.has(this.code) || (this.code === "" && [502, 503, 504].includes(this.status));
  }
}

/** There was no connection for as many tries as are allowed; `cause` is why the last one failed. */
export class Unreachable extends WarmwireError {
  override name = "Unreachable";
}

/** The turn has ended without a complete answer. */
export class TurnFailed extends WarmwireError {
  override name = "TurnFailed";

  constructor(
    message: string,
    readonly code: string,
    readonly retryable: boolean,
  ) {
    super(message);
  }
}

/** The turn ended longer ago than ends are kept (24 hours). */
export class AnswerLost extends WarmwireError {
  override name = "AnswerLost";
}

/** What a response that is no success says. */
export async function refusalOf(response: Response): Promise<Refused> {
  const text = await response.text();
  const after = response.headers.get("retry-after");
  return new Refused(problemIn(text), response.status, after === null ? null : Number(after) || 1);
}

function problemIn(text: string): Problem {
  try {
    const parsed: unknown = JSON.parse(text);
    return typeof parsed === "object" && parsed !== null ? parsed : {};
  } catch {
    return {}; // a proxy's page: the status says enough
  }
}
