// Following the log: one stream after the other, each from where the last one ended, so that a reader
// sees every event once and in order however often the connection or the server goes away.

import type { Connection } from "./connection.js";
import { search } from "./connection.js";
import { ChargehandError } from "./error.js";
import { backoff, child, pause } from "./pause.js";
import { Parser } from "./sse.js";
import { ROUTES, type Event, type Recorded, type Time } from "./types.js";

/** Milliseconds without a sign of life (the server gives one every 15 s) after which a stream is dead. */
const SILENCE_MS = 45_000;
/** Milliseconds before the first and at most before a later connection. */
const BACKOFF_MS = { first: 100, max: 5_000 };

type EventNames<E> = E extends unknown ? keyof E : never;
/** The type of an event, such as `task.completed`. */
export type EventType = EventNames<Event> & string;
/** What an event of a type carries. */
export type EventData<T extends EventType> = Extract<Event, Record<T, unknown>>[T];

interface EventPlace {
  /** 1, 2, 3, … in the one order of the log. */
  position: number;
  /** When it was decided, in milliseconds since 1970. */
  at: Time;
  /** The label of the key of whoever asked for it. */
  by?: string;
  /** The request that caused it. */
  cause?: string;
}

/** An event of the log. `switch` on `type` and `data` has that type's fields. */
export type LogEvent = { [T in EventType]: EventPlace & { type: T; data: EventData<T> } }[EventType];

/** Which events. */
export interface EventQuery {
  /** After this position; 0, the default, is the whole log, and `"now"` what comes from now on. */
  after?: number | "now";
  /** Only these types; `task.*` is every type of that noun. */
  types?: (EventType | `${string}.*`)[];
  /** Only of this run. */
  run?: string;
  /** Only what the bearer of the key with this label asked for. */
  by?: string;
  /** Ends the stream; the iterator is then done, without an error. */
  signal?: AbortSignal;
}

/** Follows the log until the signal is aborted or the loop is left. */
export async function* follow(connection: Connection, query: EventQuery): AsyncGenerator<LogEvent, void, undefined> {
  const { types, run, by, signal } = query;
  const filter = { type: types?.length ? types.join(",") : undefined, run, by };
  let position = typeof query.after === "number" ? query.after : 0;
  if (query.after === "now") {
    if (signal?.aborted) return;
    try {
      position = (await connection.call("event_head", { signal })).position;
    } catch (error) {
      if (signal?.aborted) return;
      throw error;
    }
  }
  for (let n = 0; !signal?.aborted; n += 1) {
    const { controller, release } = child(signal);
    // What the server asks for; one that was heard a moment ago is asked again sooner.
    let [waitMs, heard] = [0, false];
    try {
      const path = ROUTES.event_list[1] + search({ after: position, ...filter });
      const headers = { "last-event-id": String(position) };
      const stream = await connection.stream(path, headers, controller.signal);
      for await (const frame of frames(stream, controller)) {
        waitMs = Math.min(frame.retry ?? waitMs, BACKOFF_MS.max);
        heard ||= frame.id !== "";
        const seen = Number(frame.id);
        if (frame.data === undefined || frame.event === "lagging") {
          // A beat: everything up to here was looked at and did not pass the filter.
          if (frame.id !== "" && seen > position) position = seen;
          continue;
        }
        if (!(seen > position)) continue;
        const event = opened(frame.data);
        position = seen;
        yield event;
      }
    } catch (error) {
      if (signal?.aborted) return;
      if (error instanceof ChargehandError && !error.retryable) throw error;
    } finally {
      // Also when the loop over this iterator is left early.
      controller.abort();
      release();
    }
    if (heard) n = 0;
    await pause(Math.max(backoff(n, BACKOFF_MS.first, BACKOFF_MS.max), heard ? 0 : waitMs), signal);
  }
}

async function* frames(stream: ReadableStream<Uint8Array>, controller: AbortController) {
  const parser = new Parser();
  const text = new TextDecoder();
  const reader = stream.getReader();
  try {
    for (;;) {
      // Armed only while it reads: a slow reader of events is not a silent server.
      const timer = setTimeout(() => controller.abort(new Error("the stream is silent")), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(timer));
      if (done) return;
      yield* parser.push(text.decode(value, { stream: true }));
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** An event in the shape that TypeScript can tell apart. */
function opened(line: string): LogEvent {
  let recorded: Recorded;
  try {
    recorded = JSON.parse(line) as Recorded;
  } catch (cause) {
    throw new ChargehandError("server.strange", { detail: "an event is not JSON", cause });
  }
  return logEvent(recorded);
}

/** A recorded event with its type beside its data. */
export function logEvent(recorded: Recorded): LogEvent {
  const { position, at, by, cause, event } = recorded;
  const [type = "", data] = Object.entries(event)[0] ?? [];
  const shown = { type, position, at, data, ...(by ? { by } : {}), ...(cause ? { cause } : {}) };
  return shown as LogEvent;
}
