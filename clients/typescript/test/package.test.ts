// The package itself: types that are the server's, nothing of Node in what browsers load, a README
// that is true.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Chargehand } from "chargehand";
import { Place } from "./place.js";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const LIMIT = { timeout: 30_000 };

test("the types are those of the server's OpenAPI document", LIMIT, async (t) => {
  const { generate } = (await import(join(ROOT, "generate.mjs"))) as { generate: (document: unknown) => string };
  const place = await Place.start(t);
  const document: unknown = await (await fetch(`${place.url}/openapi.json`)).json();
  const types = await readFile(join(ROOT, "src/types.ts"), "utf8");
  const advice = "run `npm run generate` in clients/typescript";
  assert(generate(document) === types, `src/types.ts is not what the server serves: ${advice}`);
  const kept = join(ROOT, "../../docs/openapi.json");
  if (existsSync(kept)) {
    assert(generate(JSON.parse(await readFile(kept, "utf8"))) === types, `src/types.ts is not what docs/openapi.json says: ${advice}`);
  }
});

test("what browsers load needs nothing of Node, and nothing else", async () => {
  const dist = join(ROOT, "dist");
  const files = (await readdir(dist)).filter((name) => name.endsWith(".js"));
  assert(files.includes("index.js"));
  for (const name of files) {
    const text = await readFile(join(dist, name), "utf8");
    const imports = [...text.matchAll(/(?:from|import)\s*\(?\s*"([^"]+)"/g)].map(([, from]) => from!);
    assert.deepEqual(imports.filter((from) => !from.startsWith("./")), [], name);
    assert(!/from "node:|\brequire\(|\bBuffer\b/.test(text), name);
  }
  const manifest = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8")) as Record<string, unknown>;
  assert.equal(manifest.dependencies, undefined);
});

test("the README's example runs", LIMIT, async (t) => {
  const place = await Place.start(t);
  const readme = await readFile(join(ROOT, "README.md"), "utf8");
  const example = /```js\n([^]*?)```/.exec(readme)?.[1];
  assert(example, "the README has an example");
  assert(example.trim().split("\n").length <= 5);
  // Within the package, so that it finds it by its name.
  const folder = await mkdtemp(join(ROOT, "dist/example-"));
  t.after(() => rm(folder, { recursive: true }));
  await writeFile(join(folder, "example.mjs"), example);
  const env = { ...process.env, CHARGEHAND_SERVER: place.url };
  const child = spawn(process.execPath, [join(folder, "example.mjs")], { env, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  let printed = "";
  child.stdout!.on("data", (data) => (printed += data));
  const [code] = (await once(child, "close")) as [number];
  assert.deepEqual([code, printed.trim()], [0, "HELLO"]);
});

test("blackboards, messages, pools, queues and the audit trail", LIMIT, async (t) => {
  const place = await Place.start(t);
  const client: Chargehand = place.client;
  const entry = await client.blackboard.write({ author: "me", content: { found: 3 }, tags: ["finding"], importance: 0.8 });
  const [read] = await client.blackboard.read({ tagsAll: ["finding"], importanceMin: 0.5 });
  assert.deepEqual([read?.id, read?.content], [entry, { found: 3 }]);
  await client.blackboard.claim(entry, { by: "me" });
  await assert.rejects(client.blackboard.claim(entry, { by: "you" }), { code: "entry.claimed" });
  assert.equal((await client.blackboard.statistics()).entries, 1);

  await assert.rejects(client.messages.send({ from: "a", to: { agent: "b" }, kind: "hello" }), { code: "message.no_recipient" });
  await client.messages.subscribe("b");
  const asking = client.messages.request({ from: "a", to: { agent: "b" }, kind: "ask", payload: 1 }, { timeoutMs: 20_000 });
  const [question] = await client.messages.receive("b", { waitMs: 10_000 });
  assert.equal(question?.message.kind, "ask");
  await client.messages.settle(question!.id, "b");
  await client.messages.send({ from: "b", to: { agent: "a" }, kind: "answer", payload: 2, correlation: question!.id });
  assert.equal((await asking).message.payload, 2);
  await client.messages.unsubscribe("b");

  await place.work("pool-worker", (worker) => worker.task("work", () => 1), { capabilities: ["paint"] });
  const made = await client.pools.define("painters", { strategy: "least_loaded", members: ["pool-worker"], version: 0 });
  await assert.rejects(client.pools.define("painters", { strategy: "round_robin", version: 0 }), { code: "version.stale" });
  assert.equal((await client.pools.define("painters", { strategy: "round_robin", version: made.version ?? 0 })).strategy, "round_robin");
  assert.equal((await client.pools.statistics("painters")).total_workers, 1);
  assert.equal(await client.pools.reserve("painters", { holder: "me", keepMs: 60_000, capability: "paint" }), "pool-worker");
  await client.pools.unreserve("pool-worker", "me");
  const workers = [];
  for await (const worker of client.workers({ capability: "PAINT" })) workers.push(worker.worker_id);
  assert.deepEqual(workers, ["pool-worker"]);

  await client.pauseQueue("default");
  const task = await client.submit("work");
  assert.equal((await task.get()).waits_for?.reason, "paused");
  assert.deepEqual((await client.queues()).map(({ queue, paused, pending }) => [queue, paused, pending]), [["default", true, 1]]);
  await client.resumeQueue("default");
  assert.equal(await task.wait({ timeoutMs: 20_000 }), 1);
  assert.deepEqual((await client.audit()).items, [], "nobody had to show a key");
  for await (const event of client.events({ after: "now", signal: AbortSignal.timeout(50) })) assert.fail(event.type);
});
