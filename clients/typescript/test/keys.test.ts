// Keys: a wrong one is an error of its own kind, and no key is ever shown.

import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";
import { Chargehand, KeyError, Worker } from "chargehand";
import { Place, SILENT } from "./place.js";

const LIMIT = { timeout: 30_000 };

test("keys open what they are for, and nothing else", LIMIT, async (t) => {
  const place = await Place.start(t);
  const { key: admin } = await place.client.keys.create({ label: "root", scopes: ["admin"] });
  const keys = new Chargehand({ url: place.url, key: admin }).keys;
  const { key } = await keys.create({ label: "crew", scopes: ["worker"] });
  assert.deepEqual((await keys.list()).map(({ label }) => label).sort(), ["crew", "root"]);

  const wrong = `${key.slice(0, -4)}AAAA`;
  const attempts: [string, Chargehand, string][] = [
    ["none", place.client, "key.refused"],
    ["a wrong one", new Chargehand({ url: place.url, key: wrong }), "key.refused"],
    ["one for something else", new Chargehand({ url: place.url, key }), "key.scope_missing"],
  ];
  for (const [what, client, code] of attempts) {
    await assert.rejects(client.submit("work"), (error) => {
      assert(error instanceof KeyError, what);
      assert.deepEqual([error.code, error.retryable], [code, false], what);
      assert.match(error.requestId ?? "", /^ts_/);
      assert(!reveals(error, wrong) && !reveals(error, key), what);
      return true;
    });
  }
  const worker = new Worker("w", { url: place.url, key: wrong, log: SILENT }).task("work", () => 1);
  await assert.rejects(worker.run(), (error) => error instanceof KeyError && !reveals(error, wrong));

  // A worker needs no more than its own scope, and stops when its key is revoked.
  const running = await place.work("crew", (worker) => worker.task("work", () => 1), { key, leaseMs: 500 });
  const task = await new Chargehand({ url: place.url, key: admin }).submit("work");
  assert.equal(await task.wait({ timeoutMs: 20_000 }).catch((error: unknown) => error), 1);
  await keys.revoke((await keys.list()).find(({ label }) => label === "crew")!.id);
  await assert.rejects(running.ended, KeyError);
});

function reveals(what: unknown, key: string): boolean {
  const secret = key.slice(-12);
  const shown = [String(what), JSON.stringify(what), inspect(what, { depth: 9, showHidden: true })];
  return shown.some((text) => text?.includes(secret));
}

test("a key is not shown by whatever holds it", async () => {
  const key = "chk_default_0123456789abcdef";
  const client = new Chargehand({ url: "http://127.0.0.1:9", key, retryMs: 0 });
  const worker = new Worker("w", { url: "http://127.0.0.1:9", key });
  for (const one of [client, worker, client.submit, client.task("task_x"), client.keys]) assert(!reveals(one, key));
  await assert.rejects(client.statistics(), (error) => !reveals(error, key));
  assert.throws(() => new Chargehand({ key: `${key}\n` }), (error) => error instanceof KeyError && !reveals(error, key));
  const address = `http://user:${key}@127.0.0.1:9`;
  assert.throws(() => new Chargehand({ url: address }), (error) => !reveals(error, key));
});
