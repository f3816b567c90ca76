// What breaks: connections in the middle of an answer, and servers in the middle of work.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Chargehand, ChargehandError, type LogEvent } from "chargehand";
import { latch, Place, Proxy, SILENT, until } from "./place.js";

const LIMIT = { timeout: 40_000 };

test("a server that is killed and started again loses no task and repeats no accepted result", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  const gate = latch();
  const ran = new Map<number, number>();
  await place.work("steady", (worker) =>
    worker.task("work", { concurrency: 4 }, async (_, n: number) => {
      ran.set(n, (ran.get(n) ?? 0) + 1);
      if (n >= 8) await gate.promise;
      return n;
    }),
  );
  const handles = await client.submitMany<number>(Array.from({ length: 24 }, (_, input) => ({ kind: "work", input })));
  await until(() => ran.size === 12);
  await place.kill();
  // These end while nobody is there to be told.
  gate.open();
  const waiting = Promise.all(handles.map((handle) => handle.wait({ timeoutMs: 30_000 })));
  await new Promise((resolve) => setTimeout(resolve, 200));
  await place.open();
  assert.deepEqual(await waiting, Array.from({ length: 24 }, (_, n) => n));
  await exactlyOnce(client, 24);
  assert.deepEqual([...ran.values()], Array(24).fill(1), "what was in hand was kept, not done again");
});

test("connections that break in the middle of an answer cost nothing but time", LIMIT, async (t) => {
  const place = await Place.start(t);
  const proxy = await Proxy.start(t, place.port);
  const submitter = new Chargehand({ url: proxy.url });
  // Every third answer is lost: some before its first byte, some after a few.
  let n = 0;
  proxy.cut = () => (++n % 3 === 0 ? (n * 7) % 90 : undefined);
  await place.work("cut-off", (worker) => worker.task("work", { concurrency: 3 }, (_, input: number) => input + 1), {
    client: new Chargehand({ url: proxy.url }),
  });
  const handles = [];
  for (let input = 0; input < 30; input += 1) handles.push(await submitter.submit<number>("work", input));
  handles.push(...(await submitter.submitMany<number>(Array.from({ length: 30 }, (_, k) => ({ kind: "work", input: 30 + k })))));
  const outputs = await Promise.all(handles.map((handle) => handle.wait({ timeoutMs: 30_000 })));
  assert.deepEqual(outputs, Array.from({ length: 60 }, (_, k) => k + 1));
  assert(proxy.cuts > 10, `${proxy.cuts} answers were lost`);
  await exactlyOnce(place.client, 60);
  const { attempts, results_refused } = await place.client.statistics();
  assert.deepEqual([attempts, results_refused], [60, 0], "every claim and report that was lost was made good");
});

/** Reads the log: each task was submitted once and completed once. */
async function exactlyOnce(client: Chargehand, tasks: number): Promise<void> {
  const statistics = await client.statistics();
  assert.deepEqual([statistics.total_tasks_submitted, statistics.tasks_completed], [tasks, tasks]);
  const completed = new Map<string, number>();
  for await (const event of client.events({ types: ["task.completed", "result.refused"] })) {
    assert.equal(event.type, "task.completed");
    if (event.type !== "task.completed") continue;
    completed.set(event.data.lease.task, (completed.get(event.data.lease.task) ?? 0) + 1);
    if (completed.size === tasks) break;
  }
  assert.deepEqual([...completed.values()], Array(tasks).fill(1));
}

test("a reader of events misses and repeats nothing over restarts and cuts", LIMIT, async (t) => {
  const place = await Place.start(t);
  const proxy = await Proxy.start(t, place.port);
  const direct = place.client;
  const [all, some]: [LogEvent[], LogEvent[]] = [[], []];
  const [stop, both] = [new AbortController(), new Chargehand({ url: proxy.url })];
  const reading = Promise.all([
    (async () => {
      for await (const event of both.events({ signal: stop.signal })) all.push(event);
    })(),
    (async () => {
      for await (const event of both.events({ types: ["task.cancelled"], signal: stop.signal })) some.push(event);
    })(),
  ]);
  const batch = async (size: number): Promise<void> => {
    const handles = await direct.submitMany(Array.from({ length: size }, () => ({ kind: "nobody", input: "x".repeat(300) })));
    await handles[0]!.cancel("one of them");
  };
  await batch(20);
  await until(() => all.length >= 10);
  await place.kill();
  await place.open();
  await batch(20);
  await until(() => all.length >= 30);
  await place.stop();
  await place.open();
  // And cut within an event.
  let n = 0;
  proxy.cut = (data) => (++n % 2 === 0 && n < 20 ? Math.floor(data.length / 2) : undefined);
  await batch(50);
  const { position } = await direct.statistics();
  await until(() => all.at(-1)?.position === position && some.length === 3);
  stop.abort();
  await reading;
  assert.deepEqual(all.map((event) => event.position), Array.from({ length: position }, (_, k) => k + 1));
  assert(proxy.cuts > 0);
  assert.deepEqual(some.map(({ position }) => position), all.filter(({ type }) => type === "task.cancelled").map(({ position }) => position));
  const kept = all[9]!.position;
  for await (const event of direct.events({ after: kept })) {
    assert.equal(event.position, kept + 1);
    break;
  }
});

test("a client that reaches nobody says so, after it has tried for as long as it may", LIMIT, async (t) => {
  const place = await Place.start(t);
  await place.kill();
  const client = new Chargehand({ url: place.url, retryMs: 300 });
  await assert.rejects(client.submit("work"), (error) => {
    assert(error instanceof ChargehandError);
    assert.deepEqual([error.code, error.retryable, error.status], ["server.unreachable", true, undefined]);
    assert.match(error.message, /127\.0\.0\.1/);
    return true;
  });
  // And one that comes back in time was never away.
  const patient = place.client.submit("work");
  await new Promise((resolve) => setTimeout(resolve, 200));
  await place.open();
  assert.match((await patient).id, /^task_/);
});

test("a worker waits for a server that is away, and stops all the same", LIMIT, async (t) => {
  const place = await Place.start(t);
  const { worker, ended } = await place.work("alone", (worker) => worker.task("work", () => 1), { log: SILENT });
  await place.kill();
  worker.stop();
  await ended;
});
