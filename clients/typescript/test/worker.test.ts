// How a worker stops, hands back, and finds out that it is not wanted.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ChargehandError, Worker } from "chargehand";
import { latch, Place, SILENT, until } from "./place.js";

const LIMIT = { timeout: 30_000 };

test("of two workers with one id the later one works", LIMIT, async (t) => {
  const place = await Place.start(t);
  const begun = latch<AbortSignal>();
  const first = await place.work("only", (worker) =>
    worker.task("who", async (ctx) => {
      begun.open(ctx.signal);
      await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      return "the first";
    }),
  );
  const task = await place.client.submit("who");
  const signal = await begun.promise;
  await place.work("only", (worker) => worker.task("who", () => "the second"));
  await assert.rejects(first.ended, (error) => error instanceof ChargehandError && error.code === "worker.superseded");
  assert(signal.aborted, "what ran there counts no more");
  assert.equal(await task.wait({ timeoutMs: 20_000 }), "the second");
  assert.equal((await place.client.worker("only")).status, "available");
});

test("a worker that stops finishes what it can, and hands back the rest with its checkpoint", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  const [started, stop] = [latch(), new AbortController()];
  const old = new Worker("old", { url: place.url, log: SILENT })
    .task("finish", async (ctx) => {
      await until(() => ctx.shouldYield());
      return "finished";
    })
    .task("pages", async (ctx) => {
      started.open();
      await until(() => ctx.shouldYield());
      return ctx.release({ page: 7 });
    })
    .task("deaf", () => new Promise(() => {}));
  const ended = old.run({ signal: stop.signal, graceMs: 500 });
  const [finish, pages, deaf] = await client.submitMany([{ kind: "finish" }, { kind: "pages" }, { kind: "deaf" }]);
  await started.promise;
  await until(async () => (await deaf!.get()).status === "in_progress" && (await finish!.get()).status === "in_progress");
  stop.abort();
  await ended;
  assert.equal(await finish!.wait({ timeoutMs: 20_000 }), "finished");
  assert.equal((await client.worker("old")).status, "unavailable");
  assert.equal((await deaf!.get()).status, "pending");

  await place.work("new", (worker) =>
    worker.task("pages", (ctx) => ({ from: ctx.checkpoint, attempt: ctx.attempt })).task("deaf", () => "heard"),
  );
  assert.deepEqual(await pages!.wait({ timeoutMs: 20_000 }), { from: { page: 7 }, attempt: 2 });
  assert.equal(await deaf!.wait({ timeoutMs: 20_000 }), "heard");
});

test("urgent work makes a handler yield", LIMIT, async (t) => {
  const place = await Place.start(t);
  const order: unknown[] = [];
  await place.work("single", (worker) =>
    worker.task("work", async (ctx, input: string) => {
      order.push(`${input} ${ctx.attempt}`);
      if (input === "long" && ctx.attempt === 1) {
        await until(() => ctx.shouldYield());
        return ctx.release();
      }
      return input;
    }),
  );
  const long = await place.client.submit("work", "long", { priority: "low" });
  await until(async () => (await long.get()).status === "in_progress");
  const urgent = await place.client.submit("work", "urgent", { priority: "critical" });
  await Promise.all([urgent.wait({ timeoutMs: 20_000 }), long.wait({ timeoutMs: 20_000 })]);
  assert.deepEqual(order, ["long 1", "urgent 1", "long 2"]);
});

test("a worker that the server took for lost registers again", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  const begun = latch<AbortSignal>();
  await place.work("back", (worker) =>
    worker.task("work", async (ctx) => {
      if (ctx.attempt > 1) return ctx.attempt;
      begun.open(ctx.signal);
      await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
      return "late";
    }),
  );
  const task = await client.submit("work");
  const signal = await begun.promise;
  await client.setWorkerStatus("back", "unavailable", "somebody thought so");
  assert.equal(await task.wait({ timeoutMs: 20_000 }), 2);
  assert(signal.aborted);
  assert.equal((await client.statistics()).results_refused, 0);
});

test("a worker that is drained gets nothing until it is available again", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  await place.work("drained", (worker) => worker.task("work", () => "done"));
  await client.setWorkerStatus("drained", "draining");
  const task = await client.submit("work");
  await assert.rejects(task.wait({ timeoutMs: 300 }), { code: "wait.timed_out" });
  assert.equal((await client.worker("drained")).status, "draining");
  await client.setWorkerStatus("drained", "available");
  assert.equal(await task.wait({ timeoutMs: 20_000 }), "done");
});

test("SIGTERM lets a worker's process end in good order", LIMIT, async (t) => {
  const place = await Place.start(t);
  const script = fileURLToPath(new URL("./signalled.js", import.meta.url));
  const child = spawn(process.execPath, [script, place.url], { stdio: "inherit" });
  t.after(() => child.kill("SIGKILL"));
  const task = await place.client.submit("until-told");
  await until(async () => (await task.get()).status === "in_progress");
  const exit = once(child, "exit");
  child.kill("SIGTERM");
  assert.deepEqual(await exit, [0, null]);
  assert.equal(await task.wait({ timeoutMs: 20_000 }), "told");
  assert.equal((await place.client.worker("signalled")).status, "unavailable");
});
