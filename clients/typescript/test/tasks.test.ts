// Tasks and runs as a submitter sees them, and handlers as their authors do.

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ChargehandError,
  PermanentError,
  RunFailed,
  SubmitRefused,
  TaskCancelled,
  TaskFailed,
  WaitTimedOut,
} from "chargehand";
import { latch, Place, until } from "./place.js";

const LIMIT = { timeout: 30_000 };

test("a task's output comes back", LIMIT, async (t) => {
  const place = await Place.start(t);
  const traces: string[] = [];
  await place.work("doubler", (worker) =>
    worker.task("double", async (ctx, input: { n: number }) => {
      traces.push(ctx.traceparent);
      assert.deepEqual([ctx.worker, ctx.kind, ctx.metadata], ["doubler", "double", { for: "test" }]);
      return input.n * 2;
    }),
  );
  const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  const options = { priority: "high", metadata: { for: "test" }, traceparent: `00-${trace}-00f067aa0ba902b7-01` } as const;
  const task = await place.client.submit<number>("double", { n: 21 }, options);
  assert.equal(await task.wait({ timeoutMs: 20_000 }), 42);
  assert.match(traces.join(), new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
  const same = { idempotencyKey: "once", ...options };
  const [one, two] = [await place.client.submit("double", { n: 1 }, same), await place.client.submit("double", { n: 1 }, same)];
  assert.equal(one.id, two.id);
  const view = await task.get();
  assert.equal(view.status, "completed");
  assert.equal(view.band, "high");
  assert.deepEqual(view.metadata, { for: "test" });
  assert.equal(view.worker, "doubler");
});

test("many tasks run beside each other, but never more than the concurrency", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  let [now, most] = [0, 0];
  await place.work("crew", (worker) =>
    worker
      .task("wide", { concurrency: 3 }, async (_, n: number) => {
        most = Math.max(most, ++now);
        await new Promise((resolve) => setTimeout(resolve, 15));
        now -= 1;
        return n;
      })
      .task("narrow", (_, n: number) => -n),
  );
  const tasks = Array.from({ length: 40 }, (_, n) => ({ kind: n % 4 === 0 ? "narrow" : "wide", input: n }));
  const handles = await client.submitMany<number>(tasks);
  const outputs = await Promise.all(handles.map((handle) => handle.wait({ timeoutMs: 20_000 })));
  assert.deepEqual(outputs, tasks.map(({ kind, input }) => (kind === "narrow" ? -input || 0 : input)));
  assert.equal(most, 3);
  const { tasks_completed, attempts } = await client.statistics();
  assert.deepEqual([tasks_completed, attempts], [40, 40]);

  // The list goes on over its pages, and ends.
  const listed: string[] = [];
  for await (const task of client.tasks({ kind: "wide", pageSize: 7 })) listed.push(task.task_id);
  assert.deepEqual(listed, handles.filter((_, n) => n % 4 !== 0).map(({ id }) => id));
});

test("tasks that are refused are told apart from the rest", LIMIT, async (t) => {
  const place = await Place.start(t);
  const submitting = place.client.submitMany([{ kind: "a" }, { kind: "b", priority: 5_000 }, { kind: "c" }]);
  await assert.rejects(submitting, (error) => {
    assert(error instanceof SubmitRefused);
    assert.equal(error.code, "value.out_of_range");
    assert.deepEqual(error.results.map((result) => result instanceof ChargehandError), [false, true, false]);
    return true;
  });
});

test("a failed attempt is followed by another; a permanent error is not", LIMIT, async (t) => {
  const place = await Place.start(t);
  await place.work("shaky", (worker) =>
    worker
      .task("third-time", (ctx) => {
        if (ctx.attempt < 3) throw new Error(`attempt ${ctx.attempt} had no luck`);
        return { attempt: ctx.attempt, key: ctx.idempotencyKey };
      })
      .task("never", () => {
        throw new PermanentError("there is no such picture", { code: "picture.missing" });
      })
      .task("unwritable", () => ({ n: 1n }))
      .task("too-large", (_, chars: number) => "x".repeat(chars)),
  );
  const retry = { attempts: 3, backoffMs: 1 };
  const lucky = await place.client.submit("third-time", null, { retry });
  assert.deepEqual(await lucky.wait({ timeoutMs: 20_000 }), { attempt: 3, key: lucky.id });
  const { ended } = await lucky.attempts();
  assert.deepEqual(ended.map(({ state, failure }) => [state, failure?.message]), [
    ["failed", "attempt 1 had no luck"],
    ["failed", "attempt 2 had no luck"],
    ["succeeded", undefined],
  ]);

  const hopeless = await place.client.submit("never", null, { retry });
  await assert.rejects(hopeless.wait({ timeoutMs: 20_000 }), (error) => {
    assert(error instanceof TaskFailed && error instanceof ChargehandError);
    assert.deepEqual([error.code, error.detail, error.task.attempts], ["picture.missing", "there is no such picture", 1]);
    return true;
  });
  const unwritable = await place.client.submit("unwritable", null, { retry });
  await assert.rejects(unwritable.wait({ timeoutMs: 20_000 }), { name: "TaskFailed", code: "handler.output" });
  // Beyond what an output may have, and beyond what a request may.
  for (const chars of [1_500_000, 9_000_000]) {
    const large = await place.client.submit("too-large", chars, { retry });
    await assert.rejects(large.wait({ timeoutMs: 20_000 }), { name: "TaskFailed", code: "payload.too_large" });
  }
});

test("a handler tells how far it is", LIMIT, async (t) => {
  const place = await Place.start(t);
  const done = latch();
  await place.work("teller", (worker) =>
    worker.task("slow", async (ctx) => {
      await ctx.progress(0.25, "a quarter");
      void ctx.progress(0.5);
      void ctx.progress(0.75, "nearly");
      await done.promise;
    }),
  );
  const task = await place.client.submit("slow");
  await until(async () => (await task.get()).progress?.fraction === 0.75);
  const { progress } = await task.get();
  assert.deepEqual([progress?.note, progress?.worker, progress?.attempt], ["nearly", "teller", 1]);
  done.open();
  await task.wait({ timeoutMs: 20_000 });
});

test("a cancellation reaches the handler", LIMIT, async (t) => {
  const place = await Place.start(t);
  const [begun, stopped] = [latch(), latch<unknown>()];
  await place.work("patient", (worker) =>
    worker.task("endless", async (ctx) => {
      begun.open();
      await new Promise<void>((resolve) => ctx.signal.addEventListener("abort", () => resolve()));
      stopped.open(ctx.signal.reason);
      ctx.signal.throwIfAborted();
    }),
  );
  const task = await place.client.submit("endless");
  await begun.promise;
  await place.client.cancel(task, "nobody wants it");
  assert.match(String(await stopped.promise), /nobody wants it/);
  await assert.rejects(task.wait({ timeoutMs: 20_000 }), (error) => {
    assert(error instanceof TaskCancelled);
    assert.equal(error.detail, "nobody wants it");
    return true;
  });
  const refused = (await place.client.statistics()).results_refused;
  assert.equal(refused, 0, "nothing is reported that nobody wants");
});

test("a wait ends at its time limit and with its signal", LIMIT, async (t) => {
  const place = await Place.start(t);
  const task = await place.client.submit("nobody does this");
  await assert.rejects(task.wait({ timeoutMs: 30 }), (error) => error instanceof WaitTimedOut && error.retryable);
  const reason = new Error("enough");
  await assert.rejects(task.wait({ signal: AbortSignal.abort(reason) }), reason);
  const controller = new AbortController();
  const waiting = task.wait({ signal: controller.signal });
  setTimeout(() => controller.abort(reason), 30);
  await assert.rejects(waiting, reason);
});

test("a run collects what its tasks made; one that fails keeps what there is", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client = place.client;
  await place.work("squares", (worker) =>
    worker.task("square", { concurrency: 2 }, async (ctx, n: number) => {
      if (n < 0) throw new PermanentError("not a length");
      await ctx.blackboard.write(`${n} is done`, { tags: ["note"], importance: 0.9 });
      return n * n;
    }),
  );
  const plan = (items: number[]) => ({
    goal: "squares",
    graph: {
      steps: [
        { id: "each", each: { items, task: { kind: "square" } } },
        { id: "all", needs: ["each"], gate: { join: "all" as const, reduce: "collect" as const } },
      ],
    },
  });
  const run = await client.startRun<number[]>(plan([1, 2, 3]));
  assert.deepEqual(await run.wait({ timeoutMs: 20_000 }), [1, 4, 9]);
  const entries = await client.blackboard.read({ run: run.id, tagsAny: ["note"] });
  assert.deepEqual(entries.map(({ content }) => content).sort(), ["1 is done", "2 is done", "3 is done"]);
  assert(entries.every(({ author, provenance }) => author === "squares" && provenance?.attempt === 1));

  const bad = await client.startRun(plan([2, -1]));
  await assert.rejects(bad.wait({ timeoutMs: 20_000 }), (error) => error instanceof RunFailed && error.run.status === "failed");
  const runs: string[] = [];
  for await (const { run_id } of client.runs({ pageSize: 1 })) runs.push(run_id);
  assert.deepEqual(runs, [bad.id, run.id]);
});
