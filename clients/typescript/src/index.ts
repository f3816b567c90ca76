/**
 * Submit tasks to a Chargehand server, follow them, and work on them: in Node 20 or later and in
 * browsers, with nothing but the platform (`fetch`, `AbortController`, Web Streams).
 *
 * @module
 */

export * from "./client.js";
export type { CallOptions, ConnectionOptions } from "./connection.js";
export { Context, Released, type Logger, type TaskBoard } from "./context.js";
export * from "./error.js";
export type { EventData, EventQuery, EventType, LogEvent } from "./events.js";
export {
  Worker,
  type Handler,
  type RunOptions,
  type TaskTypeOptions,
  type WorkerOptions,
} from "./worker.js";
/** What the API sends, as it documents it. */
export type * as wire from "./types.js";
