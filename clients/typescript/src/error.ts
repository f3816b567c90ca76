// What can go wrong, as errors that say who can act. The codes are the server's own and stable; two
// of them are also used for what happens before the server is reached: `server.unreachable` and
// `server.strange`. Nothing here ever holds the key.

import type { Failure, Problem, RunView, TaskView } from "./types.js";

/** What an error says besides its code. */
export interface ErrorParts {
  /** What happened this time. */
  detail: string;
  /** What to do. */
  hint?: string;
  /** Whether the same request may succeed later without anybody changing it. */
  retryable?: boolean;
  /** The HTTP status, when there was an answer. */
  status?: number;
  /** Names the request, as in the server's log and in the `cause` of its events. */
  requestId?: string;
  /** What lies behind it. */
  cause?: unknown;
}

/** A request that was refused, or did not get through. Match on `code`. */
export class ChargehandError extends Error {
  /** The stable code, such as `task.unknown`. */
  readonly code: string;
  /** What happened this time. */
  readonly detail: string;
  /** What to do; may be empty. */
  readonly hint: string;
  /** Whether the same request may succeed later without anybody changing it. */
  readonly retryable: boolean;
  /** The HTTP status, when there was an answer. */
  readonly status: number | undefined;
  /** Names the request, as in the server's log and in the `cause` of its events. */
  readonly requestId: string | undefined;

  constructor(code: string, parts: ErrorParts) {
    const { detail, hint = "", retryable = false, status, requestId, cause } = parts;
    super(`${code}: ${detail}`, cause === undefined ? undefined : { cause });
    this.name = new.target.name;
    this.code = code;
    this.detail = detail;
    this.hint = hint;
    this.retryable = retryable;
    this.status = status;
    this.requestId = requestId;
  }

  /** The error that a problem body tells. */
  static of(problem: Problem, requestId?: string): ChargehandError {
    const { code, detail, hint, retryable, status } = problem;
    return new ChargehandError(code, {
      detail,
      hint,
      retryable,
      status,
      requestId: problem.instance ?? requestId,
    });
  }

  /** For logs: everything but the stack and the cause. */
  toJSON(): Record<string, unknown> {
    const { name, code, detail, hint, retryable, status, requestId } = this;
    return { name, code, detail, hint, retryable, status, requestId };
  }
}

/** The server let nobody in with this key, or not for this: `key.refused`, `key.scope_missing`. */
export class KeyError extends ChargehandError {}

/** A wait reached its time limit before what it waited for happened; waiting again is fine. */
export class WaitTimedOut extends ChargehandError {
  constructor(detail: string, parts: Omit<ErrorParts, "detail"> = {}) {
    super("wait.timed_out", { retryable: true, hint: "Wait longer, or look at what it waits for.", ...parts, detail });
  }
}

/** A task became a dead letter: `code` and `detail` are its last failure's. */
export class TaskFailed extends ChargehandError {
  /** The task as it was read. */
  readonly task: TaskView;

  constructor(task: TaskView) {
    super(...lastFailure(task.failure, "the task failed", "Look at its attempts; `redrive` wants it again."));
    this.task = task;
  }
}

/** A task was cancelled before it was done: `detail` says why. */
export class TaskCancelled extends ChargehandError {
  /** The task as it was read. */
  readonly task: TaskView;

  constructor(task: TaskView) {
    super("task.cancelled", { detail: task.cancelled || "the task was cancelled", hint: "`redrive` wants it again." });
    this.task = task;
  }
}

/** A run failed; what there is of its result is in `run.final_result`. */
export class RunFailed extends ChargehandError {
  /** The run as it was read. */
  readonly run: RunView;

  constructor(run: RunView) {
    super(...lastFailure(run.failure, "the run failed", "Look at its failed tasks; `retry` does them again."));
    this.run = run;
  }
}

/** A run was cancelled: `detail` says why. */
export class RunCancelled extends ChargehandError {
  /** The run as it was read. */
  readonly run: RunView;

  constructor(run: RunView) {
    super("run.cancelled", { detail: run.cancelled || "the run was cancelled", hint: "`retry` lets it go on." });
    this.run = run;
  }
}

function lastFailure(failure: Failure | null | undefined, detail: string, hint: string): [string, ErrorParts] {
  return [failure?.code ?? "internal", { detail: failure?.message ?? detail, hint }];
}

/** Thrown by a handler whose task shall not be tried again. */
export class PermanentError extends Error {
  /** A code for machines, the failure's code. */
  readonly code: string;

  constructor(message: string, options: { code?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "PermanentError";
    this.code = options.code ?? "handler.permanent";
  }
}
