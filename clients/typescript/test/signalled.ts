// A worker in a process of its own, for the test that sends it a signal.

import { Worker } from "chargehand";
import { until } from "./place.js";

const url = process.argv[2];
const worker = new Worker("signalled", url ? { url } : {});
worker.task("until-told", async (ctx) => {
  await until(() => ctx.shouldYield());
  return "told";
});
await worker.run({ handleSignals: true });
