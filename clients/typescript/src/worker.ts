// The worker: registers, takes as many tasks as it has room for, tells what became of them, and says
// good-bye. Three things go on at once: one claim that waits for tasks, one heartbeat that waits for
// what the server has to say, and reports, which are sent as they come and again until answered.
//
// Every loss is covered by the protocol, not by luck: a claim whose answer was lost is asked again
// under its number and gets the same tasks; a report is accepted once however often it is sent; and
// each registration has a session, so that a process that was replaced finds out and stops, and what
// was held before a worker was lost is let go on both sides alike.
//
// Deliberately absent: threads. A handler that computes for seconds without giving way lets no
// heartbeat out; hand such work to a process or a worker thread.

import { Chargehand } from "./client.js";
import type { ConnectionOptions } from "./connection.js";
import { typed } from "./connection.js";
import { Context, Released, type Attempt, type Logger } from "./context.js";
import { ChargehandError, PermanentError } from "./error.js";
import { backoff, pause, randomSession } from "./pause.js";
import type { Assignment, Failure, Problem, Report, ReportItem, Signal, WorkBody, WorkedBody, WorkerSpec } from "./types.js";

/** Milliseconds that a claim waits for a task before it is asked anew. */
const CLAIM_MS = 20_000;
/** Milliseconds before the first and at most before a later try. */
const BACKOFF_MS = { first: 50, max: 5_000 };
/** Characters of JSON of reports in one request; the server reads 8 MiB. */
const REPORTS_CHARS_MAX = 2_000_000;
/** Characters of JSON that an output may have at all; the server says what it really may. */
const OUTPUT_CHARS_MAX = 6_000_000;
/** Milliseconds within which an empty answer came too early: the server stops, and does not wait. */
const EARLY_MS = 1_000;
/** Tasks a worker may hold at once. */
const CAPACITY_MAX = 1_000;
/** Milliseconds, after the grace, for telling the server what was handed back. */
const FAREWELL_MS = 5_000;

/** What runs a task: returns its output, or throws. */
export type Handler<Input = any, Output = unknown> = (
  ctx: Context,
  input: Input,
) => Promise<Output | Released> | Output | Released;

/** How tasks of a type are run. */
export interface TaskTypeOptions {
  /** At most so many at once in this worker. Default 1. */
  concurrency?: number;
}

/** What a worker says about itself, and how it reaches the server. */
export interface WorkerOptions extends ConnectionOptions {
  /** A client to use; then the connection's own options are ignored. */
  client?: Chargehand;
  /** Tasks it holds at once. Default: the concurrency of its task types added up. */
  capacity?: number;
  /** The queues it serves. Default: `default`. */
  queues?: string[];
  /** What it can do, for tasks that require it. */
  capabilities?: string[];
  /** Tools it can use: capabilities too. */
  tools?: string[];
  /** What it understands to be asked for: capabilities too. */
  intents?: string[];
  /** What kind of agent it is. */
  agentType?: string;
  /** Milliseconds without a heartbeat after which its tasks are given to others. Default 10,000. */
  leaseMs?: number;
  /** For people and filters. */
  metadata?: Record<string, string>;
  /** Where log lines go. Default: warnings and errors to the console. */
  log?: Logger;
}

/** How long a worker works. */
export interface RunOptions {
  /** Stops it in good order when aborted. */
  signal?: AbortSignal;
  /** Stops it in good order on SIGINT and SIGTERM, at once on the second. Default false. */
  handleSignals?: boolean;
  /** Milliseconds that tasks have to finish after a stop; then they are handed back. Default 10,000. */
  graceMs?: number;
  /** Called when it has registered. */
  onReady?: () => void;
}

interface Kind {
  readonly handler: Handler;
  readonly concurrency: number;
  running: number;
}

interface Held extends Attempt {
  begun: boolean;
  /** Its handler has not returned. */
  running: boolean;
  /** The server knows that it began. */
  started: boolean;
  /** What is to be told, in this order. */
  progress: { fraction: number | undefined; note: string; told: (() => void)[] } | undefined;
  ending: Report | undefined;
  /** A report of it is on its way: the next waits, so that they arrive in order. */
  sending: boolean;
}

interface Sent {
  held: Held;
  item: ReportItem;
  told: (() => void)[];
}

interface Processlike {
  on?(event: string, listener: () => void): unknown;
  off?(event: string, listener: () => void): unknown;
}

const QUIET: Logger = {
  debug: () => {},
  info: () => {},
  warn: (message, fields) => console.warn(message, fields ?? ""),
  error: (message, fields) => console.error(message, fields ?? ""),
};

/** Executes tasks. */
export class Worker {
  /** Its id, chosen by itself. */
  readonly id: string;
  /** The client it works through. */
  readonly client: Chargehand;
  readonly #options: WorkerOptions;
  readonly #log: Logger;
  readonly #kinds = new Map<string, Kind>();
  #life: Life | undefined;

  constructor(id: string, options: WorkerOptions = {}) {
    // The key stays in the client; what is kept here is only what the worker says about itself.
    const { client, url, key, fetch, timeoutMs, retryMs, ...rest } = options;
    this.id = id;
    this.client = client ?? new Chargehand({ url, key, fetch, timeoutMs, retryMs });
    this.#options = rest;
    this.#log = options.log ?? QUIET;
  }

  /** Handles tasks of a type. */
  task<Input = any, Output = unknown>(kind: string, handler: Handler<Input, Output>): this;
  task<Input = any, Output = unknown>(kind: string, options: TaskTypeOptions, handler: Handler<Input, Output>): this;
  task(kind: string, first: TaskTypeOptions | Handler, second?: Handler): this {
    const [options, handler] = typeof first === "function" ? [{}, first] : [first, second];
    const { concurrency = 1 } = options as TaskTypeOptions;
    if (handler === undefined) throw new TypeError(`task type “${kind}” has no handler`);
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw new RangeError(`concurrency ${concurrency} of task type “${kind}” is not a whole number from 1`);
    }
    this.#kinds.set(kind, { handler, concurrency, running: 0 });
    return this;
  }

  /**
   * Works until it is stopped; then it has finished or handed back what it had and said good-bye.
   *
   * @throws ChargehandError when it cannot go on: `worker.superseded` when another process registered
   * under its id, KeyError when its key is not good (any more), and what the server says to a
   * registration that it refuses.
   */
  async run(options: RunOptions = {}): Promise<void> {
    if (this.#life) throw new Error(`worker “${this.id}” runs already`);
    if (this.#kinds.size === 0) throw new Error(`worker “${this.id}” has no task types: call \`task\` first`);
    const life = new Life(this.#spec(), this.client, this.#kinds, this.#log, options.graceMs ?? 10_000);
    this.#life = life;
    const stop = (): void => life.stop();
    const interrupted = (): void => (life.stopping ? life.hurry() : life.stop());
    const { process } = globalThis as { process?: Processlike };
    const signals = options.handleSignals ? ["SIGINT", "SIGTERM"] : [];
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener("abort", stop);
    for (const name of signals) process?.on?.(name, interrupted);
    try {
      await life.run(options.onReady);
    } finally {
      options.signal?.removeEventListener("abort", stop);
      for (const name of signals) process?.off?.(name, interrupted);
      this.#life = undefined;
    }
  }

  /** Stops it in good order; `run` returns when that is done. */
  stop(): void {
    this.#life?.stop();
  }

  #spec(): WorkerSpec {
    const { capacity, queues, capabilities, tools, intents, agentType, leaseMs, metadata } = this.#options;
    const sum = [...this.#kinds.values()].reduce((sum, kind) => sum + kind.concurrency, 0);
    return {
      id: this.id,
      kinds: [...this.#kinds.keys()],
      capacity: capacity ?? Math.min(sum, CAPACITY_MAX),
      lease_ms: leaseMs ?? 10_000,
      agent_type: agentType,
      queues,
      capabilities,
      tools,
      intents,
      metadata,
    };
  }
}

/** A worker's life, from its registration to its good-bye. */
class Life {
  readonly #spec: WorkerSpec;
  readonly #client: Chargehand;
  readonly #kinds: Map<string, Kind>;
  readonly #log: Logger;
  readonly #graceMs: number;
  readonly #capacity: number;
  readonly #held = new Map<string, Held>();
  /** Aborted when it shall stop: nothing new is claimed. */
  readonly #stop = new AbortController();
  /** Aborted when it shall stop at once: what is unfinished is handed back. */
  readonly #hurry = new AbortController();
  /** Aborted when it is over: nothing more is sent. */
  readonly #over = new AbortController();
  /** Which registration is current; 0 before the first. */
  #session = 0;
  #registering: Promise<void> | undefined;
  #claims = 0;
  /** Handlers that run on although their attempts are over. */
  #strays = 0;
  #wake: (() => void)[] = [];
  #fatal: unknown;

  constructor(spec: WorkerSpec, client: Chargehand, kinds: Map<string, Kind>, log: Logger, graceMs: number) {
    this.#spec = spec;
    this.#client = client;
    this.#kinds = kinds;
    this.#log = log;
    this.#graceMs = graceMs;
    this.#capacity = spec.capacity ?? 1;
    for (const kind of kinds.values()) kind.running = 0;
  }

  get stopping(): boolean {
    return this.#stop.signal.aborted;
  }

  stop(): void {
    if (this.stopping) return;
    this.#stop.abort(new Error("the worker stops"));
    // What has not begun here is done sooner elsewhere.
    for (const held of this.#held.values()) {
      if (!held.begun) this.#end(held, { released: { reason: "the worker stops" } });
    }
    this.#changed();
  }

  hurry(): void {
    this.stop();
    this.#hurry.abort();
    for (const held of this.#held.values()) {
      if (held.ending) continue;
      this.#end(held, { released: { reason: "the worker stopped" } });
      held.controller.abort(new Error("the worker stopped"));
    }
    this.#changed();
  }

  async run(onReady?: () => void): Promise<void> {
    try {
      if (!this.stopping) await this.#register();
    } catch (error) {
      if (this.stopping && !(error instanceof ChargehandError)) return;
      throw error;
    }
    if (this.#session === 0) return;
    onReady?.();
    const loops = [this.#claimLoop(), this.#reportLoop(), this.#beatLoop()].map((loop) =>
      loop.catch((error: unknown) => this.#fail(error)),
    );
    await this.#until(() => this.stopping);
    const grace = new AbortController();
    void pause(this.#graceMs, grace.signal).then(() => {
      if (!grace.signal.aborted) this.hurry();
    });
    const farewell = async (): Promise<void> => {
      await this.#until(() => this.#hurry.signal.aborted || grace.signal.aborted);
      await pause(FAREWELL_MS, grace.signal);
      // The server is away; what is held comes back with its lease.
      this.#over.abort(new Error("the worker has stopped"));
      this.#changed();
    };
    void farewell();
    await this.#until(() => this.#held.size === 0 || this.#over.signal.aborted);
    grace.abort();
    this.#over.abort(new Error("the worker has stopped"));
    this.#changed();
    await Promise.all(loops);
    if (this.#fatal !== undefined) throw this.#fatal;
    await this.#leave();
  }

  /** Resolves when something that somebody may wait for has changed. */
  #until(is: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const look = (): void => {
        if (is()) resolve();
        else this.#wake.push(look);
      };
      look();
    });
  }

  #changed(): void {
    const waiting = this.#wake;
    this.#wake = [];
    for (const look of waiting) look();
  }

  /** It cannot go on. */
  #fail(error: unknown): void {
    if (this.#over.signal.aborted) return;
    this.#fatal = error;
    this.#over.abort(error);
    this.#stop.abort(error);
    for (const held of [...this.#held.values()]) this.#drop(held, error);
    this.#changed();
  }

  /** Registers; who asks while it does so waits for the same answer. */
  #register(): Promise<void> {
    this.#registering ??= this.#registerNow().finally(() => {
      this.#registering = undefined;
      this.#changed();
    });
    return this.#registering;
  }

  async #registerNow(): Promise<void> {
    // Only the first may give up: later the server may be away for as long as it likes.
    const first = this.#session === 0;
    const signal = first ? this.#stop.signal : this.#over.signal;
    // A new session makes the server let go of whatever it may think that the old one holds.
    const session = randomSession();
    const body = { ...this.#spec, session };
    for (let n = 0; ; n += 1) {
      try {
        await this.#client.connection.call("worker_register", { body, signal, retryMs: first ? undefined : 0 });
        break;
      } catch (error) {
        if (first || !isPassing(error)) throw error;
        await pause(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), signal);
        signal.throwIfAborted();
      }
    }
    this.#session = session;
    // What it held is given to others: whatever comes of it would be refused.
    for (const held of [...this.#held.values()]) this.#drop(held, new Error("the server took the worker for lost"));
  }

  async #leave(): Promise<void> {
    const path = { worker: this.#spec.id };
    const query = { session: this.#session, reason: "it stopped" };
    try {
      await this.#client.connection.call("worker_leave", { path, query, retryMs: 5_000 });
    } catch (error) {
      // What it held comes back all the same, with its lease.
      this.#log.warn("the good-bye did not get through", shown(error));
    }
  }

  /** Tasks it can take on, given that reports of those that ended go before or along. */
  #room(): number {
    let taken = this.#strays;
    for (const held of this.#held.values()) {
      if (!held.ending || held.sending) taken += 1;
    }
    return this.#capacity - taken;
  }

  /** Claims tasks while there is room, one claim at a time; reports that are due go along. */
  async #claimLoop(): Promise<void> {
    let again = false;
    for (let n = 0; ; ) {
      await this.#until(() => this.stopping || (this.#room() > 0 && !this.#registering));
      if (this.stopping) return;
      if (!again) this.#claims += 1;
      const max = this.#room();
      const sent = this.#take();
      const waitMs = sent.length > 0 ? 0 : CLAIM_MS;
      const session = this.#session;
      // With several task types some tasks may have to wait here for their type's turn.
      const claim = { max, starts: this.#kinds.size === 1, wait_ms: waitMs, key: this.#claims, again };
      // What waits for nothing is not cut short by a stop: its reports may have been accepted.
      const signal = waitMs > 0 ? this.#stop.signal : this.#over.signal;
      const begin = Date.now();
      let [refused, early]: [ChargehandError | undefined, boolean] = [undefined, false];
      try {
        const answer = await this.#work({ claim }, sent, waitMs, signal);
        again = false;
        for (const assignment of answer.tasks) this.#begin(assignment, session);
        if (answer.refused) refused = typed(answer.refused);
        early = answer.tasks.length === 0 && Date.now() - begin < Math.min(waitMs, EARLY_MS);
      } catch (error) {
        if (signal.aborted) return;
        if (!(error instanceof ChargehandError)) throw error;
        // An answer that says why is an answer: nothing was given.
        again = error.status === undefined || error.status >= 500;
        refused = error;
        await this.#apart(sent, error);
      }
      if (refused === undefined && !early) {
        n = 0;
        continue;
      }
      if (refused) await this.#heed(refused, session);
      await pause(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), this.#stop.signal);
      n += 1;
    }
  }

  /** Sends reports at once, unless a claim takes them along. */
  async #reportLoop(): Promise<void> {
    const over = this.#over.signal;
    for (let n = 0; ; ) {
      await this.#until(() => over.aborted || (this.#isAnythingToTell() && !this.#registering));
      if (over.aborted) return;
      // An end makes room, which wakes the claim as well: it goes first and takes everything along.
      await Promise.resolve();
      const sent = this.#take();
      if (sent.length === 0) continue;
      const session = this.#session;
      try {
        await this.#work({}, sent, 0, over);
        n = 0;
      } catch (error) {
        if (over.aborted) return;
        if (!(error instanceof ChargehandError)) throw error;
        await this.#apart(sent, error);
        await this.#heed(error, session);
        await pause(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), over);
        n += 1;
      }
    }
  }

  /** Shows that it lives, and hears what it must know. */
  async #beatLoop(): Promise<void> {
    const path = { worker: this.#spec.id };
    // A third of the lease: one that got lost leaves time for another.
    const waitMs = Math.floor((this.#spec.lease_ms ?? 10_000) / 3);
    const over = this.#over.signal;
    for (let n = 0; ; ) {
      await this.#until(() => over.aborted || !this.#registering);
      if (over.aborted) return;
      const session = this.#session;
      const body = { session, wait_ms: waitMs };
      try {
        const call = { path, body, waitMs, timeoutMs: Math.max(waitMs, 1_000), retryMs: 0, signal: over };
        const begin = Date.now();
        const { signals } = await this.#client.connection.call("worker_heartbeat", call);
        for (const signal of signals) this.#hear(signal);
        if (signals.length > 0 || Date.now() - begin >= Math.min(waitMs, EARLY_MS) / 2) n = 0;
        else await pause(Math.min(backoff(n++, BACKOFF_MS.first, BACKOFF_MS.max), waitMs), over);
      } catch (error) {
        if (over.aborted) return;
        if (!(error instanceof ChargehandError)) throw error;
        await this.#heed(error, session);
        await pause(Math.min(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), waitMs), over);
        n += 1;
      }
    }
  }

  /** After a request that failed: what must be done before the next. */
  async #heed(error: ChargehandError, session: number): Promise<void> {
    switch (error.code) {
      case "worker.unknown":
        if (session !== this.#session || this.#over.signal.aborted) return;
        this.#log.warn("the server does not know the worker any more; it registers again", { worker: this.#spec.id });
        return this.#register();
      case "worker.superseded":
        // Said to an earlier session of this very process, it is no news.
        if (session === this.#session && !this.#registering) throw error;
        return;
      case "worker.state":
        // Gone, draining or in error? One that is gone has no heartbeat.
        try {
          const body = { session, wait_ms: 0 };
          const call = { path: { worker: this.#spec.id }, body, retryMs: 0, signal: this.#over.signal };
          const { signals } = await this.#client.connection.call("worker_heartbeat", call);
          for (const signal of signals) this.#hear(signal);
        } catch (cause) {
          if (cause instanceof ChargehandError && cause.code !== "worker.state") await this.#heed(cause, session);
        }
        return;
      case "key.refused":
      case "key.scope_missing":
        throw error;
      default:
        this.#log.debug("a request failed; it is tried again", shown(error));
    }
  }

  #hear(signal: Signal): void {
    const held = this.#held.get(name(signal.task, signal.attempt));
    if (!held) return;
    if (signal.signal === "stop") {
      this.#drop(held, new Error(signal.reason || "the attempt is over"));
      return;
    }
    held.yields = true;
    if (!held.begun) this.#end(held, { released: { reason: "yielded to more urgent work" } });
  }

  #begin(assignment: Assignment, session: number): void {
    const key = name(assignment.task_id, assignment.attempt);
    if (this.#held.has(key) || this.#over.signal.aborted || session !== this.#session) return;
    const held: Held = {
      assignment,
      controller: new AbortController(),
      yields: false,
      yielding: () => held.yields || this.stopping,
      tell: (fraction, note) => this.#tell(held, fraction, note),
      begun: false,
      running: false,
      started: this.#kinds.size === 1,
      progress: undefined,
      ending: undefined,
      sending: false,
    };
    this.#held.set(key, held);
    if (this.stopping) this.#end(held, { released: { reason: "the worker stops" } });
    else this.#fill();
  }

  /** Runs what has been waiting for its type's turn. */
  #fill(): void {
    for (const held of this.#held.values()) {
      if (held.begun || held.ending) continue;
      const kind = this.#kinds.get(held.assignment.kind);
      if (kind === undefined) {
        const message = `worker “${this.#spec.id}” has no handler for “${held.assignment.kind}”`;
        this.#end(held, failed({ code: "worker.no_handler", message, retryable: true, worker_fault: true }));
      } else if (kind.running < kind.concurrency) {
        [held.begun, held.running] = [true, true];
        kind.running += 1;
        void this.#attempt(held, kind).finally(() => {
          kind.running -= 1;
          this.#fill();
        });
      }
    }
    this.#changed();
  }

  async #attempt(held: Held, kind: Kind): Promise<void> {
    const ctx = new Context(held, this.#spec.id, this.#client, this.#log);
    let report: Report;
    try {
      const output = await kind.handler(ctx, held.assignment.input);
      report = output instanceof Released ? released(output) : completed(output);
    } catch (thrown) {
      report = thrown instanceof Released ? released(thrown) : failed(failure(thrown));
    }
    held.running = false;
    // Over for the server, or handed back: what came of it does not count.
    if (this.#held.get(name(held.assignment.task_id, held.assignment.attempt)) !== held) this.#strays -= 1;
    else if (!held.ending) this.#end(held, report);
  }

  #end(held: Held, report: Report): void {
    held.ending ??= report;
    this.#changed();
  }

  /** Lets go of an attempt that is over for the server. */
  #drop(held: Held, reason: unknown): void {
    const key = name(held.assignment.task_id, held.assignment.attempt);
    if (this.#held.get(key) !== held) return;
    this.#held.delete(key);
    if (held.running) this.#strays += 1;
    for (const told of held.progress?.told ?? []) told();
    held.progress = undefined;
    if (!held.controller.signal.aborted) held.controller.abort(reason);
    this.#changed();
  }

  #tell(held: Held, fraction: number | undefined, note: string): Promise<void> {
    if (held.ending || held.controller.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      held.progress = { fraction, note, told: [...(held.progress?.told ?? []), resolve] };
      this.#changed();
    });
  }

  #isAnythingToTell(): boolean {
    for (const held of this.#held.values()) {
      if (!held.sending && (held.ending || held.progress || (held.begun && !held.started))) return true;
    }
    return false;
  }

  /** The reports that are due, as many as fit into a request; each task's in order. */
  #take(): Sent[] {
    const sent: Sent[] = [];
    let chars = 0;
    for (const held of this.#held.values()) {
      if (held.sending || chars > REPORTS_CHARS_MAX) continue;
      const { task_id, attempt } = held.assignment;
      const add = (report: Report, told: (() => void)[] = []): void => {
        sent.push({ held, item: { task_id, attempt, report }, told });
      };
      const before = sent.length;
      if (held.begun && !held.started && !held.ending) add("started");
      if (held.progress) {
        const { fraction, note, told } = held.progress;
        add({ progressed: { fraction, note } }, told);
        held.progress = undefined;
      }
      if (held.ending) {
        add(held.ending);
        chars += length(held.ending);
      }
      held.sending = sent.length > before;
    }
    return sent;
  }

  /** Reports, and perhaps claims; what could not be told is told again later. */
  async #work(body: WorkBody, sent: Sent[], waitMs: number, signal: AbortSignal): Promise<WorkedBody> {
    const reports = sent.map(({ item }) => item);
    const path = { worker: this.#spec.id };
    const whole = { session: this.#session, reports, ...body };
    try {
      const call = { path, body: whole, waitMs, retryMs: 0, signal };
      const answer = await this.#client.connection.call("work", call);
      sent.forEach((one, at) => this.#answered(one, answer.reports[at] ?? null));
      return answer;
    } catch (error) {
      for (const { held, item, told } of sent) {
        if (typeof item.report === "object" && "progressed" in item.report) {
          // One that is newer replaces it; whoever waits for either is told by that.
          const { fraction, note } = item.report.progressed;
          held.progress ??= { fraction: fraction ?? undefined, note: note ?? "", told: [] };
          held.progress.told.unshift(...told);
        }
      }
      throw error;
    } finally {
      for (const { held } of sent) held.sending = false;
      this.#changed();
    }
  }

  #answered({ held, item, told }: Sent, problem: Problem | null): void {
    for (const resolve of told) resolve();
    const { report } = item;
    if (report === "started") held.started = true;
    if (problem) this.#log.warn("a report was refused", { task: item.task_id, attempt: item.attempt, ...shown(typed(problem)) });
    // An end is an end even when it was refused: the task went on without this attempt.
    const ended = report === held.ending;
    if (ended || problem?.code === "attempt.stale" || problem?.code === "task.unknown") {
      this.#drop(held, new Error(problem?.detail ?? "the attempt is over"));
    }
  }

  /** A request that can never be accepted as a whole: each report for itself, and what is wrong fails. */
  async #apart(sent: Sent[], whole: ChargehandError): Promise<void> {
    const { status = 0, code } = whole;
    if (isPassing(whole) || ![400, 413].includes(status) || code.startsWith("worker.")) return;
    for (const one of sent) {
      const { task_id, attempt } = one.item;
      if (this.#held.get(name(task_id, attempt)) !== one.held || one.item.report !== one.held.ending) continue;
      const body = { worker: this.#spec.id, report: one.item.report };
      try {
        await this.#client.connection.call("attempt_report", { path: { task: task_id, attempt }, body, retryMs: 0, signal: this.#over.signal });
        this.#answered(one, null);
      } catch (error) {
        if (!(error instanceof ChargehandError) || isPassing(error)) continue;
        if (error.code === "attempt.stale" || "failed" in Object(one.item.report)) {
          this.#drop(one.held, error);
        } else {
          one.held.ending = failed({ code: error.code, message: error.detail, retryable: false });
        }
      }
    }
  }
}

function name(task: string, attempt: number): string {
  return `${task}/${attempt}`;
}

/** Whether it may be different a moment later. */
function isPassing(error: unknown): boolean {
  return error instanceof ChargehandError && error.retryable;
}

function shown(error: unknown): Record<string, unknown> {
  return error instanceof ChargehandError ? { ...error.toJSON() } : { error: String(error) };
}

function failed(failure: Failure): Report {
  return { failed: { failure } };
}

function released({ checkpoint, reason }: Released): Report {
  const text = json(checkpoint ?? null);
  if (typeof text !== "string") return failed(text);
  return { released: { reason, ...(checkpoint === undefined ? {} : { checkpoint: JSON.parse(text) as unknown }) } };
}

function completed(output: unknown): Report {
  const text = json(output ?? null);
  if (typeof text !== "string") return failed(text);
  // A copy: it may have to be sent again, and must then be the same.
  return { completed: { output: JSON.parse(text) as unknown } };
}

/** The value as JSON, or why there is none. */
function json(value: unknown): string | Failure {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    return { code: "handler.output", message: `the output cannot be written as JSON: ${error}`, retryable: false };
  }
  if (text === undefined) return { code: "handler.output", message: `the output is a ${typeof value}, not JSON`, retryable: false };
  if (text.length <= OUTPUT_CHARS_MAX) return text;
  const message = `the output has ${text.length} characters of JSON`;
  return { code: "payload.too_large", message, retryable: false };
}

function failure(thrown: unknown): Failure {
  if (thrown instanceof PermanentError) return { code: thrown.code, message: thrown.message, retryable: false };
  if (thrown instanceof Error) {
    const { code } = thrown as { code?: unknown };
    const known = typeof code === "string" && code !== "" ? code : "handler.error";
    return { code: known, message: thrown.message || thrown.name, retryable: true };
  }
  return { code: "handler.error", message: typeof thrown === "string" ? thrown : "something that is no Error was thrown", retryable: true };
}

function length(report: Report): number {
  return JSON.stringify(report).length;
}
