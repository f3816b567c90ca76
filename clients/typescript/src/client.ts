// The client: what a submitter, an operator or a dashboard asks for. What is sent is shaped by hand;
// what comes back is as the API documents it (`wire.TaskView` and so on), so that the two can be read
// side by side.

import { Connection, type CallOptions, type ConnectionOptions, typed } from "./connection.js";
import {
  ChargehandError,
  RunCancelled,
  RunFailed,
  TaskCancelled,
  TaskFailed,
  WaitTimedOut,
} from "./error.js";
import { follow, logEvent, type EventQuery, type LogEvent } from "./events.js";
import { randomHex } from "./pause.js";
import type * as wire from "./types.js";

/** Milliseconds that one request waits for an end; a longer wait is several of them. */
const WAIT_MS = 25_000;
/** Tasks and characters of JSON in one request of `submitMany`. */
const BATCH = { tasks: 1_000, chars: 2_000_000 };

const BANDS = { batch: -20, low: -10, normal: 0, high: 10, critical: 20 } as const;
/** What comes first: a band's name, or any whole number from -1,000 to 1,000. */
export type PriorityLike = keyof typeof BANDS | number;
/** An instant: a date, or milliseconds since 1970. */
export type TimeLike = Date | number;

/** How a task is to be done; everything has a default. */
export interface TaskOptions {
  /** Where it waits. Default `default`. */
  queue?: string;
  /** What comes first. Default `normal`. */
  priority?: PriorityLike;
  /** What a worker must be able to do. */
  capability?: string;
  /** Which worker may take it. Default `any`. */
  address?: wire.Address;
  /** Milliseconds an attempt may take. Default ten minutes. */
  timeoutMs?: number;
  /** When a failed attempt is followed by another. Default three attempts, 1 s and 2 s apart. */
  retry?: {
    /** Attempts in all, the first included. */
    attempts?: number;
    /** Milliseconds before the second attempt. */
    backoffMs?: number;
    /** Each wait is so many times the one before. */
    factor?: number;
    /** No wait is longer, in milliseconds. */
    backoffMaxMs?: number;
  };
  /** Not before this instant. */
  notBefore?: TimeLike;
  /** Not before these tasks have completed. */
  after?: (string | { readonly id: string })[];
  /** At most `max` tasks with the same `key` run at once. */
  slot?: { key: string; max: number };
  /** Carried to the result, for the submitter. */
  metadata?: Record<string, string>;
  /** A W3C `traceparent`. */
  traceparent?: string;
  /** The same key with the same content within a day is one task. One is made up for each call. */
  idempotencyKey?: string;
}

/** A task to be. */
export interface TaskToBe extends TaskOptions {
  kind: string;
  input?: unknown;
}

/** A run to be. */
export interface RunToBe {
  /** What for. */
  goal: string;
  /** The plan. */
  graph: wire.Graph;
  /** Its supervisor. Default `supervisor`. */
  supervisor?: string;
  /** Who works. */
  crew?: wire.Crew;
  /** Whatever its starter wants to find again. */
  metadata?: Record<string, unknown>;
  /** The same key with the same content within a day is one run. One is made up for each call. */
  idempotencyKey?: string;
  /** A W3C `traceparent`. */
  traceparent?: string;
}

/** How long to wait for an end. */
export interface WaitOptions extends CallOptions {
  /** Milliseconds; without, there is no limit. */
  timeoutMs?: number;
}

/** Pages of a list. */
export interface PageOptions extends CallOptions {
  /** Go on after this one. */
  after?: string;
  /** Rows asked for at once, 1,000 at most. Default 100. */
  pageSize?: number;
}

/** What `submitMany` throws when some were refused: what became of each, in order. */
export class SubmitRefused extends ChargehandError {
  readonly results: (TaskHandle | ChargehandError)[];

  constructor(results: (TaskHandle | ChargehandError)[], first: ChargehandError) {
    const refused = results.filter((result) => result instanceof ChargehandError).length;
    const { code, hint, retryable, status, requestId } = first;
    const detail = `${refused} of ${results.length} tasks were refused, the first: ${first.detail}`;
    super(code, { detail, hint, retryable, status, requestId });
    this.results = results;
  }
}

/** A Chargehand server, as its callers see it. */
export class Chargehand {
  /** Blackboards: a run's, or the shared one. */
  readonly blackboard: Blackboard;
  /** Messages between agents. */
  readonly messages: Mail;
  /** Workers managed together. */
  readonly pools: Pools;
  /** Keys; needs one with scope admin, or a server that has none. */
  readonly keys: Keys;
  /** @internal */
  readonly connection: Connection;

  constructor(options: ConnectionOptions = {}) {
    this.connection = new Connection(options);
    this.blackboard = new Blackboard(this.connection);
    this.messages = new Mail(this.connection);
    this.pools = new Pools(this.connection);
    this.keys = new Keys(this.connection);
  }

  /** The server's address. */
  get url(): string {
    return this.connection.url;
  }

  toJSON(): { url: string } {
    return { url: this.url };
  }

  toString(): string {
    return `Chargehand(${this.url})`;
  }

  /** Submits a task; when this returns, it is on disk. */
  async submit<Output = unknown>(
    kind: string,
    input?: unknown,
    options: TaskOptions & CallOptions = {},
  ): Promise<TaskHandle<Output>> {
    const { idempotencyKey, signal } = options;
    const headers = idempotencyKey === undefined ? undefined : { "idempotency-key": idempotencyKey };
    const body = spec({ ...options, kind, input });
    const { task_id } = await this.connection.call("task_submit", { body, headers, signal });
    return new TaskHandle(this.connection, task_id);
  }

  /**
   * Submits many tasks, a thousand or so in one transaction, and answers in their order.
   *
   * @throws SubmitRefused when some were refused; the others are accepted all the same.
   */
  async submitMany<Output = unknown>(tasks: TaskToBe[], options: CallOptions = {}): Promise<TaskHandle<Output>[]> {
    const results: (TaskHandle<Output> | ChargehandError)[] = [];
    for (const part of batches(tasks.map((task) => ({ spec: spec(task), key: task.idempotencyKey })))) {
      const answer = await this.connection.call("task_submit_many", { body: { tasks: part }, ...options });
      for (const { task_id, problem } of answer.results) {
        results.push(problem ? typed(problem) : new TaskHandle(this.connection, task_id ?? ""));
      }
    }
    const first = results.find((result) => result instanceof ChargehandError);
    if (first) throw new SubmitRefused(results, first);
    return results as TaskHandle<Output>[];
  }

  /** A task that is known by its id. */
  task<Output = unknown>(id: string): TaskHandle<Output> {
    return new TaskHandle(this.connection, id);
  }

  /** Tasks, oldest first, page by page as the loop goes on. */
  tasks(
    query: { run?: string; status?: wire.TaskStatus; kind?: string; worker?: string } & PageOptions = {},
  ): AsyncGenerator<wire.TaskView, void, undefined> {
    const { signal, pageSize, after, ...filter } = query;
    const page = (next?: string) =>
      this.connection.call("task_list", { query: { ...filter, after: next, limit: pageSize }, signal });
    return pages(page, after);
  }

  /** Cancels a task; a worker that holds it is told. */
  cancel(task: string | { readonly id: string }, reason = "", options: CallOptions = {}): Promise<void> {
    return this.task(idOf(task)).cancel(reason, options);
  }

  /** Starts a run. */
  async startRun<Output = unknown>(run: RunToBe, options: CallOptions = {}): Promise<RunHandle<Output>> {
    const { goal, graph, supervisor = "supervisor", crew, metadata, idempotencyKey, traceparent } = run;
    const body = { goal, graph, supervisor, crew, metadata, trace: traceparent };
    const headers = idempotencyKey === undefined ? undefined : { "idempotency-key": idempotencyKey };
    const { run_id } = await this.connection.call("run_start", { body, headers, ...options });
    return new RunHandle(this.connection, run_id);
  }

  /** A run that is known by its id. */
  run<Output = unknown>(id: string): RunHandle<Output> {
    return new RunHandle(this.connection, id);
  }

  /** Runs, newest first, page by page as the loop goes on. */
  runs(query: { status?: wire.RunStatus } & PageOptions = {}): AsyncGenerator<wire.RunView, void, undefined> {
    const { signal, pageSize, after, status } = query;
    const page = (next?: string) =>
      this.connection.call("run_list", { query: { status, after: next, limit: pageSize }, signal });
    return pages(page, after);
  }

  /**
   * Events in order, each once, as they come: the loop goes on over lost connections and restarts of
   * the server until it is left or the signal is aborted.
   */
  events(query: EventQuery = {}): AsyncGenerator<LogEvent, void, undefined> {
    return follow(this.connection, query);
  }

  /** Who did what: a page of the events that somebody asked for. Needs scope operator. */
  async audit(
    query: { after?: number; limit?: number; by?: string } & CallOptions = {},
  ): Promise<{ items: LogEvent[]; next: number }> {
    const { signal, ...filter } = query;
    const { items, next } = await this.connection.call("audit", { query: filter, signal });
    return { items: items.map(logEvent), next };
  }

  /** Workers by id, page by page as the loop goes on. */
  workers(
    query: { type?: string; capability?: string; status?: wire.WorkerStatus } & PageOptions = {},
  ): AsyncGenerator<wire.WorkerView, void, undefined> {
    const { signal, pageSize, after, ...filter } = query;
    const page = (next?: string) =>
      this.connection.call("worker_list", { query: { ...filter, after: next, limit: pageSize }, signal });
    return pages(page, after);
  }

  /** One worker. */
  worker(id: string, options: CallOptions = {}): Promise<wire.WorkerView> {
    return this.connection.call("worker_get", { path: { worker: id }, ...options });
  }

  /** Sets a worker's status; `busy` and `unknown` are computed and cannot be set. */
  async setWorkerStatus(
    id: string,
    status: Exclude<wire.WorkerStatus, "busy" | "unknown">,
    reason = "",
    options: CallOptions = {},
  ): Promise<void> {
    await this.connection.call("worker_status", { path: { worker: id }, body: { status, reason }, ...options });
  }

  /** The queues. */
  async queues(options: CallOptions = {}): Promise<wire.QueueView[]> {
    return (await this.connection.call("queue_list", options)).items;
  }

  /** The tasks that would be claimed next from a queue. */
  async peek(queue: string, limit?: number, options: CallOptions = {}): Promise<wire.TaskView[]> {
    const answer = await this.connection.call("queue_peek", { path: { queue }, query: { limit }, ...options });
    return answer.items;
  }

  /** Pauses a queue: it gives out nothing until it is resumed. */
  async pauseQueue(queue: string, options: CallOptions = {}): Promise<void> {
    await this.connection.call("queue_pause", { path: { queue }, ...options });
  }

  /** Resumes a queue. */
  async resumeQueue(queue: string, options: CallOptions = {}): Promise<void> {
    await this.connection.call("queue_resume", { path: { queue }, ...options });
  }

  /** The statistics: exact, also after a restart. */
  statistics(options: CallOptions = {}): Promise<wire.Statistics> {
    return this.connection.call("statistics", options);
  }
}

/** A task that was submitted. */
export class TaskHandle<Output = unknown> {
  readonly #connection: Connection;

  constructor(
    connection: Connection,
    /** Its id. */
    readonly id: string,
  ) {
    this.#connection = connection;
  }

  /** The task as it stands. */
  get(options: CallOptions = {}): Promise<wire.TaskView> {
    return this.#connection.call("task_get", { path: { task: this.id }, ...options });
  }

  /**
   * Its output, as soon as it has completed.
   *
   * @throws TaskFailed, TaskCancelled, WaitTimedOut; the signal's reason when that is aborted.
   */
  async wait(options: WaitOptions = {}): Promise<Output> {
    const task = await waited(options, (query, retryMs, signal) =>
      this.#connection.call("task_get", { path: { task: this.id }, query, waitMs: query.wait_ms, retryMs, signal }),
    );
    if (task.status === "failed") throw new TaskFailed(task);
    if (task.status === "cancelled") throw new TaskCancelled(task);
    return task.output as Output;
  }

  /** Its attempts: those that ended, and who holds it. */
  attempts(options: CallOptions = {}): Promise<wire.Attempts> {
    return this.#connection.call("attempt_list", { path: { task: this.id }, ...options });
  }

  /** Cancels it; a worker that holds it is told. */
  async cancel(reason = "", options: CallOptions = {}): Promise<void> {
    await this.#connection.call("task_cancel", { path: { task: this.id }, body: { reason }, ...options });
  }

  /** Puts it back into its queue after it failed or was cancelled. */
  async redrive(options: CallOptions = {}): Promise<void> {
    await this.#connection.call("task_redrive", { path: { task: this.id }, once: true, ...options });
  }

  /** Says what was found out about a step of it that is in doubt. Needs scope operator. */
  async resolve(step: string, finding: wire.Finding, options: CallOptions = {}): Promise<void> {
    const path = { task: this.id, key: step };
    await this.#connection.call("record_resolve", { path, body: { finding }, once: true, ...options });
  }

  /** Gives it to another worker, whatever it is doing now. */
  async reassign(to: wire.Address, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("task_reassign", { path: { task: this.id }, body: { to }, once: true, ...options });
  }
}

/** A run that was started. */
export class RunHandle<Output = unknown> {
  readonly #connection: Connection;

  constructor(
    connection: Connection,
    /** Its id. */
    readonly id: string,
  ) {
    this.#connection = connection;
  }

  /** The run as it stands. */
  get(options: CallOptions = {}): Promise<wire.RunView> {
    return this.#connection.call("run_get", { path: { run: this.id }, ...options });
  }

  /**
   * Its final result, as soon as it has completed.
   *
   * @throws RunFailed (with what there is of the result), RunCancelled, WaitTimedOut; the signal's
   * reason when that is aborted.
   */
  async wait(options: WaitOptions = {}): Promise<Output> {
    const run = await waited(options, (query, retryMs, signal) =>
      this.#connection.call("run_get", { path: { run: this.id }, query, waitMs: query.wait_ms, retryMs, signal }),
    );
    if (run.status === "failed") throw new RunFailed(run);
    if (run.status === "cancelled") throw new RunCancelled(run);
    return run.final_result as Output;
  }

  /** Its events, as they come. */
  events(query: Omit<EventQuery, "run"> = {}): AsyncGenerator<LogEvent, void, undefined> {
    return follow(this.#connection, { ...query, run: this.id });
  }

  /** Stops it and its open tasks. */
  async cancel(reason = "", options: CallOptions = {}): Promise<void> {
    await this.#connection.call("run_cancel", { path: { run: this.id }, body: { reason }, ...options });
  }

  /** Lets it go on with what failed. */
  async retry(options: CallOptions = {}): Promise<void> {
    await this.#connection.call("run_retry", { path: { run: this.id }, once: true, ...options });
  }

  /** Gives a supervisor's reduction of a gate that awaits it. */
  async settle(step: string, output: unknown, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("run_settle", { path: { run: this.id, step }, body: { output }, once: true, ...options });
  }
}

/** An entry to be. */
export interface EntryToBe {
  /** Who writes. */
  author: string;
  /** What. */
  content: unknown;
  /** Whose board; without, the shared one. */
  run?: string;
  tags?: string[];
  segment?: string;
  /** 0 to 1. */
  importance?: number;
  metadata?: Record<string, string>;
  /** Milliseconds until it is forgotten. */
  ttlMs?: number;
  /** Where it comes from. */
  provenance?: wire.Provenance;
  /** The same key with the same content within a day is one entry. One is made up for each call. */
  idempotencyKey?: string;
}

/** Which entries to read. All conditions must hold. */
export interface EntryQuery {
  /** Whose board; without, the shared one. */
  run?: string;
  tagsAny?: string[];
  tagsAll?: string[];
  segment?: string;
  author?: string;
  /** Not by this author. */
  excludeOwn?: string;
  importanceMin?: number;
  /** Not older than so many milliseconds. */
  ageMaxMs?: number;
  limit?: number;
}

/** Blackboards: a run's, or the shared one. */
export class Blackboard {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Writes, and answers with the entry's id. */
  async write(entry: EntryToBe, options: CallOptions = {}): Promise<string> {
    const { idempotencyKey, ttlMs, ...rest } = entry;
    const headers = idempotencyKey === undefined ? undefined : { "idempotency-key": idempotencyKey };
    const body = { ...rest, ttl_ms: ttlMs };
    return (await this.#connection.call("entry_write", { body, headers, ...options })).entry_id;
  }

  /** Entries, the most important first. */
  async read(query: EntryQuery = {}, options: CallOptions = {}): Promise<wire.Entry[]> {
    const { run, tagsAny, tagsAll, segment, author, excludeOwn, importanceMin, ageMaxMs, limit } = query;
    const body = {
      run,
      tags_any: tagsAny,
      tags_all: tagsAll,
      segment,
      author,
      exclude_own: excludeOwn,
      importance_min: importanceMin,
      age_max_ms: ageMaxMs,
      limit,
    };
    return (await this.#connection.call("entry_search", { body, ...options })).items;
  }

  /** Takes an entry for `by`, if nobody or only `expected` holds it now; without `by` it is given back. */
  async claim(entry: string, holders: { by?: string; expected?: string }, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("entry_claim", { path: { entry }, body: holders, once: true, ...options });
  }

  /** What stands on a board. */
  statistics(run?: string, options: CallOptions = {}): Promise<wire.BoardStatistics> {
    return this.#connection.call("board_statistics", { query: { run }, ...options });
  }
}

/** A message to be. */
export interface MessageToBe {
  from: string;
  to: wire.To;
  /** Its type. */
  kind: string;
  payload?: unknown;
  /** The message this one answers. */
  correlation?: string;
  headers?: Record<string, string>;
  /** Milliseconds until it expires. */
  ttlMs?: number;
  /** The same key with the same content within a day is one message. One is made up for each call. */
  idempotencyKey?: string;
}

/** Messages between agents. */
export class Mail {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Sends a message, and answers with its id. Nobody subscribed is an error, `message.no_recipient`. */
  async send(message: MessageToBe, options: CallOptions = {}): Promise<string> {
    const { idempotencyKey, ...body } = message;
    const headers = idempotencyKey === undefined ? undefined : { "idempotency-key": idempotencyKey };
    return (await this.#connection.call("message_send", { body: letter(body), headers, ...options })).message_id;
  }

  /**
   * Sends a message and waits for the one that answers it, whose `correlation` is its id.
   *
   * @throws WaitTimedOut when there is no answer by then; a late one stays in the asker's inbox.
   */
  async request(message: MessageToBe, options: WaitOptions = {}): Promise<wire.Delivered> {
    // The same key each time: one message, however often its answer is asked for.
    const { idempotencyKey: key = randomHex(16), ...rest } = message;
    const body = { ...letter(rest), key };
    return waited(options, (query, retryMs, signal) =>
      this.#connection.call("message_request", {
        body: { message: body, wait_ms: query.wait_ms },
        waitMs: query.wait_ms,
        retryMs,
        signal,
      }),
    );
  }

  /** Subscribes an agent: to messages for itself and to everybody, and to these types. */
  async subscribe(agent: string, kinds: string[] = [], options: CallOptions = {}): Promise<void> {
    await this.#connection.call("message_subscribe", { path: { agent }, body: { kinds }, ...options });
  }

  /** Ends an agent's subscription. */
  async unsubscribe(agent: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("message_unsubscribe", { path: { agent }, ...options });
  }

  /** Messages for an agent, at once or within `waitMs`. Each is to be settled within a minute, or comes again. */
  async receive(
    agent: string,
    options: { max?: number; waitMs?: number } & CallOptions = {},
  ): Promise<wire.Delivered[]> {
    const { max, waitMs = 0, signal } = options;
    const body = { max, wait_ms: waitMs };
    return (await this.#connection.call("message_receive", { path: { agent }, body, waitMs, signal })).messages;
  }

  /** Says that a message is dealt with, or why it failed. */
  async settle(message: string, agent: string, failure?: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("message_settle", { path: { message }, body: { agent, failure }, ...options });
  }

  /** A message, with how each recipient's part stands. */
  get(message: string, options: CallOptions = {}): Promise<wire.Message> {
    return this.#connection.call("message_get", { path: { message }, ...options });
  }

  /** A page of messages, oldest first. */
  async list(query: { after?: string; limit?: number } & CallOptions = {}): Promise<wire.Message[]> {
    const { signal, ...page } = query;
    return (await this.#connection.call("message_list", { query: page, signal })).items;
  }
}

/** Workers managed together. */
export class Pools {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** All of them. */
  async list(options: CallOptions = {}): Promise<wire.Pool[]> {
    return (await this.#connection.call("pool_list", options)).items;
  }

  /** One, with its version. */
  get(pool: string, options: CallOptions = {}): Promise<wire.Pool> {
    return this.#connection.call("pool_get", { path: { pool }, ...options });
  }

  /**
   * Defines a pool, or changes its strategy. With `version`, only if that is its version now (0: it does
   * not exist yet); otherwise `version.stale`.
   */
  define(pool: string, body: wire.PoolBody & { version?: number }, options: CallOptions = {}): Promise<wire.Pool> {
    const { version, ...rest } = body;
    const headers: Record<string, string> = {};
    if (version === 0) headers["if-none-match"] = "*";
    else if (version !== undefined) headers["if-match"] = `"${version}"`;
    const call = { path: { pool }, body: rest, headers, once: version !== undefined };
    return this.#connection.call("pool_define", { ...call, ...options });
  }

  /** Adds a registered worker. */
  async join(pool: string, worker: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("pool_join", { path: { pool, worker }, once: true, ...options });
  }

  /** Removes a worker and drains it. */
  async leave(pool: string, worker: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("pool_leave", { path: { pool, worker }, once: true, ...options });
  }

  /** Statistics over its members. */
  statistics(pool: string, options: CallOptions = {}): Promise<wire.PoolStatistics> {
    return this.#connection.call("pool_statistics", { path: { pool }, ...options });
  }

  /** Keeps room at the least loaded fitting member for `holder`, and answers with its id. */
  async reserve(
    pool: string,
    room: { holder: string; keepMs: number; capability?: string },
    options: CallOptions = {},
  ): Promise<string> {
    const { holder, keepMs, capability } = room;
    const body = { holder, keep_ms: keepMs, capability };
    return (await this.#connection.call("pool_reserve", { path: { pool }, body, ...options })).worker_id;
  }

  /** Gives the room back. */
  async unreserve(worker: string, holder: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("pool_unreserve", { path: { worker, holder }, ...options });
  }
}

/** Keys. */
export class Keys {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Makes a key; it is in the answer and nowhere else. */
  create(
    key: { label: string; scopes: wire.Scope[]; ttlMs?: number },
    options: CallOptions = {},
  ): Promise<wire.Minted> {
    const { label, scopes, ttlMs } = key;
    const body = { label, scopes, ttl_ms: ttlMs };
    return this.#connection.call("key_create", { body, once: true, ...options });
  }

  /** All of them, without their secrets. */
  async list(options: CallOptions = {}): Promise<wire.CredentialView[]> {
    return (await this.#connection.call("key_list", options)).items;
  }

  /** Ends a key for good. */
  async revoke(id: string, options: CallOptions = {}): Promise<void> {
    await this.#connection.call("key_revoke", { path: { key: id }, ...options });
  }
}

function idOf(of: string | { readonly id: string }): string {
  return typeof of === "string" ? of : of.id;
}

function spec(task: TaskToBe): wire.TaskSpec {
  const { kind, input, queue, priority, capability, address, timeoutMs, retry, notBefore, after, slot } = task;
  return {
    kind,
    input: input ?? null,
    queue,
    priority: typeof priority === "string" ? BANDS[priority] : priority,
    capability,
    address,
    timeout_ms: timeoutMs,
    retry: retry && {
      attempts: retry.attempts,
      backoff_ms: retry.backoffMs,
      factor_percent: retry.factor === undefined ? undefined : Math.round(retry.factor * 100),
      backoff_max_ms: retry.backoffMaxMs,
    },
    not_before: notBefore instanceof Date ? notBefore.getTime() : notBefore,
    after: after?.map(idOf),
    slot,
    metadata: task.metadata,
    trace: task.traceparent,
  };
}

function letter(message: Omit<MessageToBe, "idempotencyKey">): wire.NewMessage {
  const { ttlMs, ...rest } = message;
  return { ...rest, ttl_ms: ttlMs };
}

function* batches(tasks: wire.Submission[]): Generator<wire.Submission[]> {
  let part: wire.Submission[] = [];
  let chars = 0;
  for (const task of tasks) {
    const more = JSON.stringify(task).length;
    if (part.length > 0 && (part.length >= BATCH.tasks || chars + more > BATCH.chars)) {
      yield part;
      [part, chars] = [[], 0];
    }
    part.push(task);
    chars += more;
  }
  if (part.length > 0) yield part;
}

async function* pages<T>(
  page: (after?: string) => Promise<{ items: T[]; next?: string | null }>,
  after?: string,
): AsyncGenerator<T, void, undefined> {
  for (;;) {
    const { items, next } = await page(after);
    yield* items;
    if (!next) return;
    after = next;
  }
}

/** Asks again until what is waited for has ended or the time is over. */
async function waited<T>(
  options: WaitOptions,
  ask: (query: { wait_ms: number }, retryMs: number | undefined, signal: AbortSignal | undefined) => Promise<T>,
): Promise<T> {
  const { timeoutMs, signal } = options;
  const end = timeoutMs === undefined ? Infinity : Date.now() + timeoutMs;
  for (;;) {
    const left = Math.max(0, end - Date.now());
    try {
      return await ask({ wait_ms: Math.round(Math.min(WAIT_MS, left)) }, Math.min(left, 30_000), signal);
    } catch (error) {
      if (!(error instanceof WaitTimedOut) || Date.now() >= end) throw error;
    }
  }
}
