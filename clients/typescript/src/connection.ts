// One way to the server for everything else here: a typed call per operation, tried again when that
// is safe and may help, and every failure a ChargehandError. The key lives in a private field of this
// class, goes out in one header, and nowhere else.
//
// Deliberately absent: following redirects (a key must not follow them) and caching.

import { ChargehandError, KeyError, WaitTimedOut } from "./error.js";
import { backoff, child, pause, randomHex } from "./pause.js";
import { CREATING, ROUTES, type Operations, type Problem } from "./types.js";

/** Milliseconds before the first and at most before a later try. */
const BACKOFF_MS = { first: 100, max: 5_000 };
/** Milliseconds of a Retry-After that are believed. */
const RETRY_AFTER_MS_MAX = 60_000;
const RETRIED_STATUS = new Set([429, 502, 503, 504]);

/** How to reach a server. */
export interface ConnectionOptions {
  /** The server's address; CHARGEHAND_SERVER, then http://127.0.0.1:7420, when it is not given. */
  url?: string;
  /** The key (`chk_…`); CHARGEHAND_KEY when it is not given. A server without keys needs none. */
  key?: string;
  /** Milliseconds that one request may take, beyond what it waits for on purpose. Default 30,000. */
  timeoutMs?: number;
  /** Milliseconds for which a call that fails in passing is tried again. Default 30,000. */
  retryMs?: number;
  /** What to fetch with, when it is not the platform's own. */
  fetch?: typeof globalThis.fetch;
}

/** What every call takes besides its content. */
export interface CallOptions {
  /** Ends the call; it then throws the signal's reason. */
  signal?: AbortSignal;
}

export interface Call<Op extends keyof Operations> extends CallOptions {
  path?: Operations[Op]["path"];
  query?: Operations[Op]["query"];
  body?: Operations[Op]["body"];
  headers?: Record<string, string>;
  /** Milliseconds that the server is asked to wait. */
  waitMs?: number;
  /** Milliseconds that it may take beyond that, when it is not the connection's own number. */
  timeoutMs?: number;
  /** Milliseconds for trying again; 0 is a single try. */
  retryMs?: number;
  /** Sent twice it may do something twice, or refuse: never again after an answer may be lost. */
  once?: boolean;
}

interface Environment {
  process?: { env?: Record<string, string | undefined> };
}

/** A variable of the process, where there is one. */
function variable(name: string): string | undefined {
  return (globalThis as Environment).process?.env?.[name] || undefined;
}

export class Connection {
  /** The server's address, without a slash at its end. */
  readonly url: string;
  readonly #key: string | undefined;
  readonly #fetch: typeof globalThis.fetch;
  readonly #timeoutMs: number;
  readonly #retryMs: number;

  constructor(options: ConnectionOptions = {}) {
    this.url = address(options.url ?? variable("CHARGEHAND_SERVER") ?? "http://127.0.0.1:7420");
    const key = options.key ?? variable("CHARGEHAND_KEY");
    if (key !== undefined && !/^[\x21-\x7e]+$/.test(key)) {
      // Checked here, because the platform's own complaint would quote the header.
      throw new KeyError("key.refused", {
        detail: "the key has characters that a key does not have",
        hint: "Copy it as it was printed, without spaces or line ends.",
      });
    }
    this.#key = key;
    this.#fetch = options.fetch ?? ((...args) => globalThis.fetch(...args));
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#retryMs = options.retryMs ?? 30_000;
  }

  /** The address alone. */
  toJSON(): { url: string } {
    return { url: this.url };
  }

  /** Calls an operation, again while that is safe and may help. */
  async call<Op extends keyof Operations>(op: Op, call: Call<Op> = {}): Promise<Operations[Op]["answer"]> {
    const [method, template] = ROUTES[op];
    const target = this.url + place(template, call.path) + search(call.query);
    const headers = this.headers({ accept: "application/json", ...call.headers });
    if (CREATING.has(op) && !headers.has("idempotency-key")) {
      headers.set("idempotency-key", randomHex(16));
    }
    let body: string | undefined;
    if (call.body !== undefined) {
      body = JSON.stringify(call.body);
      headers.set("content-type", "application/json");
    }
    const retryMs = call.retryMs ?? this.#retryMs;
    const begin = Date.now();
    for (let n = 0; ; n += 1) {
      const outcome = await this.#once(target, { method, headers, body }, call);
      if ("answer" in outcome) return outcome.answer as Operations[Op]["answer"];
      const { error, again, afterMs } = outcome;
      const waitMs = Math.max(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), afterMs);
      const answered = error.status !== undefined;
      if (!again || (call.once && !answered) || Date.now() - begin + waitMs > retryMs) throw error;
      await pause(waitMs, call.signal);
      call.signal?.throwIfAborted();
    }
  }

  async #once(
    target: string,
    init: { method: string; headers: Headers; body: string | undefined },
    call: CallOptions & { waitMs?: number; timeoutMs?: number },
  ): Promise<{ answer: unknown } | Failed> {
    call.signal?.throwIfAborted();
    const { controller, release } = child(call.signal);
    const timeoutMs = (call.timeoutMs ?? this.#timeoutMs) + (call.waitMs ?? 0);
    const late = new Error(`no answer within ${timeoutMs} ms`);
    const timer = setTimeout(() => controller.abort(late), timeoutMs);
    const requestId = init.headers.get("x-request-id") ?? undefined;
    try {
      const response = await this.#fetch(target, { ...init, redirect: "manual", signal: controller.signal });
      const text = await response.text();
      if (!response.ok) return refused(response, text, requestId);
      if (response.status === 204 || text === "") return { answer: undefined };
      const json = (response.headers.get("content-type") ?? "").includes("json");
      try {
        return { answer: json ? JSON.parse(text) : text };
      } catch {
        return { error: strange("an answer that is not JSON", response.status, requestId), again: false, afterMs: 0 };
      }
    } catch (cause) {
      call.signal?.throwIfAborted();
      return { error: unreachable(this.url, cause, requestId), again: true, afterMs: 0 };
    } finally {
      clearTimeout(timer);
      release();
    }
  }

  /** Opens a stream of server-sent events. The caller ends it by aborting the signal. */
  async stream(path: string, headers: Record<string, string>, signal: AbortSignal): Promise<ReadableStream<Uint8Array>> {
    const sent = this.headers({ accept: "text/event-stream", ...headers });
    const requestId = sent.get("x-request-id") ?? undefined;
    const { controller, release } = child(signal);
    const timer = setTimeout(() => controller.abort(new Error("no answer in time")), this.#timeoutMs);
    try {
      const response = await this.#fetch(this.url + path, { headers: sent, redirect: "manual", signal: controller.signal });
      if (!response.ok) throw refused(response, await response.text(), requestId).error;
      if (!response.body || !(response.headers.get("content-type") ?? "").startsWith("text/event-stream")) {
        await response.body?.cancel();
        throw strange("an answer that is not a stream", response.status, requestId);
      }
      // From here on the stream follows the caller's signal; `child` keeps telling it.
      return response.body;
    } catch (cause) {
      release();
      if (signal.aborted) throw signal.reason;
      throw cause instanceof ChargehandError ? cause : unreachable(this.url, cause, requestId);
    } finally {
      clearTimeout(timer);
    }
  }

  private headers(more: Record<string, string>): Headers {
    const headers = new Headers(more);
    if (this.#key !== undefined) headers.set("authorization", `Bearer ${this.#key}`);
    headers.set("x-request-id", `ts_${randomHex(12)}`);
    return headers;
  }
}

interface Failed {
  error: ChargehandError;
  again: boolean;
  afterMs: number;
}

function address(text: string): string {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw strange("the server's address is not one", undefined, undefined);
  }
  if (!/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    // Not quoted: whoever writes a password into an address does not want to read it in a log.
    throw strange("the server's address must be http:// or https://, a host and a port, and nothing secret", undefined, undefined);
  }
  return url.href.replace(/\/+$/, "");
}

/** A path with its places filled. */
export function place(template: string, values: Record<string, unknown> = {}): string {
  return template.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(String(values[name])));
}

/** A query, of what is there. */
export function search(query: Record<string, unknown> = {}): string {
  const there = Object.entries(query).filter(([, value]) => value !== undefined && value !== null);
  if (there.length === 0) return "";
  return `?${new URLSearchParams(there.map(([name, value]) => [name, String(value)])).toString()}`;
}

function refused(response: Response, text: string, sent: string | undefined): Failed {
  const { status } = response;
  const requestId = response.headers.get("x-request-id") ?? sent;
  const seconds = Number(response.headers.get("retry-after") ?? 0);
  const afterMs = Number.isFinite(seconds) ? Math.min(seconds * 1_000, RETRY_AFTER_MS_MAX) : 0;
  const problem = parse(text);
  if (problem === undefined) {
    // Not Chargehand's own words: a gateway on the way.
    const again = RETRIED_STATUS.has(status);
    const code = again ? "server.unreachable" : "server.strange";
    const detail = `the answer has status ${status} and is not Chargehand's`;
    return { error: new ChargehandError(code, { detail, hint: CHECK, retryable: again, status, requestId }), again, afterMs };
  }
  return { error: typed(problem, requestId), again: problem.retryable && RETRIED_STATUS.has(status), afterMs };
}

/** The most fitting error for a problem. */
export function typed(problem: Problem, requestId?: string): ChargehandError {
  const { code, detail, hint, retryable, status } = problem;
  const parts = { detail, hint, retryable, status, requestId: problem.instance ?? requestId };
  if (code === "key.refused" || code === "key.scope_missing") return new KeyError(code, parts);
  if (code === "wait.timed_out") return new WaitTimedOut(detail, parts);
  return new ChargehandError(code, parts);
}

function parse(text: string): Problem | undefined {
  try {
    const found = JSON.parse(text) as Partial<Problem> | null;
    return typeof found?.code === "string" && typeof found.detail === "string" ? (found as Problem) : undefined;
  } catch {
    return undefined;
  }
}

const CHECK = "Check that the address is a Chargehand server's.";

function strange(detail: string, status: number | undefined, requestId: string | undefined): ChargehandError {
  return new ChargehandError("server.strange", { detail, hint: CHECK, status, requestId });
}

function unreachable(url: string, cause: unknown, requestId: string | undefined): ChargehandError {
  const deeper = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
  const why = deeper instanceof Error ? deeper.message || deeper.name : String(deeper);
  return new ChargehandError("server.unreachable", {
    detail: `${url} cannot be reached, or broke off: ${why}`,
    hint: "Check that `chargehand serve` runs, and the address.",
    retryable: true,
    requestId,
    cause,
  });
}
