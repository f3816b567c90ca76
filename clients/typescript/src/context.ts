// What a handler gets besides its input: one attempt, and the ways to speak while it runs.

import type { Chargehand, EntryQuery, EntryToBe } from "./client.js";
import type { CallOptions } from "./connection.js";
import type { Assignment, Entry } from "./types.js";

/** Where log lines go; `console` is one. */
export interface Logger {
  debug(message: string, fields?: Record<string, unknown>): void;
  info(message: string, fields?: Record<string, unknown>): void;
  warn(message: string, fields?: Record<string, unknown>): void;
  error(message: string, fields?: Record<string, unknown>): void;
}

/** What a handler returns to hand its task back: made by `ctx.release`. */
export class Released {
  constructor(
    /** What the next attempt may go on from. */
    readonly checkpoint: unknown,
    /** Why. */
    readonly reason: string,
  ) {}
}

/** The board of the task's run (the shared one when it has none), written as this worker. */
export interface TaskBoard {
  /** Writes with this task as provenance, and answers with the entry's id. */
  write(
    content: unknown,
    entry?: Omit<EntryToBe, "author" | "content" | "run" | "provenance">,
    options?: CallOptions,
  ): Promise<string>;
  /** Entries, the most important first. The key needs scope reader too. */
  read(query?: Omit<EntryQuery, "run">, options?: CallOptions): Promise<Entry[]>;
}

/** What the worker does for an attempt. @internal */
export interface Attempt {
  readonly assignment: Assignment;
  readonly controller: AbortController;
  yields: boolean;
  readonly yielding: () => boolean;
  readonly tell: (fraction: number | undefined, note: string) => Promise<void>;
}

/** One attempt, as its handler sees it. */
export class Context {
  /** The task's id. */
  readonly taskId: string;
  /** The attempt's number: 1, 2, 3, …. */
  readonly attempt: number;
  /** The task's type. */
  readonly kind: string;
  /** Who runs it. */
  readonly worker: string;
  /** The run it belongs to. */
  readonly runId: string | undefined;
  /** What an earlier attempt handed back to go on from. */
  readonly checkpoint: unknown;
  /** When the attempt times out, by the server's clock. */
  readonly deadline: Date;
  /** Where this attempt stands in the distributed trace; pass it on as the header `traceparent`. */
  readonly traceparent: string;
  /** The submitter's. */
  readonly metadata: Record<string, string>;
  /**
   * Aborted when the attempt is over: cancelled, timed out, given to another worker, or the worker
   * stops. Nothing that comes of it then counts, so pass it on to whatever takes time.
   */
  readonly signal: AbortSignal;
  /** Log lines that name the task and the attempt. */
  readonly log: Logger;
  /** The board of the task's run, or the shared one. */
  readonly blackboard: TaskBoard;
  /** The client that the worker uses, for whatever else a handler needs. */
  readonly client: Chargehand;
  readonly #attempt: Attempt;

  /** @internal */
  constructor(attempt: Attempt, worker: string, client: Chargehand, log: Logger) {
    const { assignment } = attempt;
    this.#attempt = attempt;
    this.taskId = assignment.task_id;
    this.attempt = assignment.attempt;
    this.kind = assignment.kind;
    this.worker = worker;
    this.runId = assignment.run_id ?? undefined;
    this.checkpoint = assignment.checkpoint ?? undefined;
    this.deadline = new Date(assignment.deadline);
    this.traceparent = assignment.trace;
    this.metadata = assignment.metadata ?? {};
    this.signal = attempt.controller.signal;
    this.client = client;
    this.log = named(log, { task: assignment.task_id, attempt: assignment.attempt });
    this.blackboard = board(client, worker, assignment);
  }

  /** A key for effects outside: the same for every attempt of this task, and for no other task. */
  get idempotencyKey(): string {
    return this.taskId;
  }

  /**
   * Tells how far it is. Resolves when the server has been told, or when the attempt is over; told
   * faster than the server answers, only the newest is sent.
   *
   * @param fraction 0 to 1, or undefined when it cannot be told.
   */
  progress(fraction?: number, note = ""): Promise<void> {
    if (fraction !== undefined && !(fraction >= 0 && fraction <= 1)) {
      throw new RangeError(`progress ${fraction} is outside 0 to 1`);
    }
    return this.#attempt.tell(fraction, note);
  }

  /**
   * Whether the task is better handed back at the next safe point, because more urgent work waits or
   * the worker stops: `return ctx.release(checkpoint)`.
   */
  shouldYield(): boolean {
    return this.#attempt.yielding();
  }

  /** To be returned (or thrown) by the handler: hands the task back, at no cost to its retries. */
  release(checkpoint?: unknown, reason = "handed back at a safe point"): Released {
    return new Released(checkpoint, reason);
  }
}

function board(client: Chargehand, author: string, assignment: Assignment): TaskBoard {
  const run = assignment.run_id ?? undefined;
  const provenance = { task: assignment.task_id, attempt: assignment.attempt };
  return {
    write: (content, entry = {}, options) =>
      client.blackboard.write({ ...entry, author, content, run, provenance }, options),
    read: (query = {}, options) => client.blackboard.read({ ...query, run }, options),
  };
}

function named(log: Logger, place: Record<string, unknown>): Logger {
  const line = (level: keyof Logger) => (message: string, fields?: Record<string, unknown>) =>
    log[level](message, { ...place, ...fields });
  return { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
}
