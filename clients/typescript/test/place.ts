// Real servers for the tests: the program named by CHARGEHAND_BIN on a port and a store of its own,
// stopped by its process id; and a proxy that can break connections in the middle of an answer.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, connect, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { Chargehand, Worker, type Logger, type WorkerOptions } from "chargehand";

const BIN = process.env.CHARGEHAND_BIN;
// What a person has set for their own server is not for these.
delete process.env.CHARGEHAND_KEY;
delete process.env.CHARGEHAND_SERVER;

/** Nothing printed. */
export const SILENT: Logger = { debug() {}, info() {}, warn() {}, error() {} };

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** A server with a store of its own. */
export class Place {
  #process: ChildProcess | undefined;
  readonly #workers: Running[] = [];

  private constructor(
    readonly folder: string,
    readonly port: number,
  ) {}

  /** Starts one that ends with the test. */
  static async start(t: TestContext): Promise<Place> {
    const folder = await mkdtemp(join(tmpdir(), "chargehand-ts-"));
    const place = new Place(folder, await freePort());
    t.after(async () => {
      // Workers first: with the server gone they would wait to say good-bye.
      for (const { worker } of place.#workers) worker.stop();
      await Promise.allSettled(place.#workers.map(({ ended }) => ended));
      await place.kill();
      await rm(folder, { recursive: true, force: true });
    });
    await place.open();
    return place;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get client(): Chargehand {
    return new Chargehand({ url: this.url });
  }

  /** Starts it, again on the same port and store. */
  async open(): Promise<void> {
    if (!BIN) throw new Error("set CHARGEHAND_BIN to the chargehand program");
    const args = ["serve", "--store", join(this.folder, "store"), "--listen", `127.0.0.1:${this.port}`];
    const child = spawn(BIN, args, { cwd: this.folder, stdio: ["ignore", "ignore", "pipe"] });
    this.#process = child;
    const said: string[] = [];
    const lines = createInterface({ input: child.stderr! });
    await new Promise<void>((resolve, reject) => {
      lines.on("line", (line) => {
        said.push(line);
        if (line.includes(" serves at ")) resolve();
      });
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}: ${said.join("\n")}`)));
      child.once("error", reject);
    });
  }

  /** Kills it where it stands. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  /** Lets it end in good order. */
  async stop(): Promise<void> {
    await this.#end("SIGTERM");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const exit = once(child, "exit");
    child.kill(signal);
    await exit;
  }

  /** Runs a worker until the test ends; resolves when it has registered. */
  async work(id: string, set: (worker: Worker) => void, options: WorkerOptions = {}): Promise<Running> {
    const worker = new Worker(id, { url: this.url, log: SILENT, ...options });
    set(worker);
    let ended!: Promise<void>;
    await new Promise<void>((resolve, reject) => {
      ended = worker.run({ onReady: resolve, graceMs: 0 });
      ended.catch(reject);
    });
    const running = { worker, ended };
    this.#workers.push(running);
    return running;
  }
}

export interface Running {
  worker: Worker;
  ended: Promise<void>;
}

/** A proxy before a server that breaks connections when it is told to. */
export class Proxy {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Asked for each piece of an answer: how much of it still goes through before the cut. */
  cut: (answer: Buffer) => number | undefined = () => undefined;
  /** Connections that were broken. */
  cuts = 0;

  private constructor(port: number) {
    this.#server = createServer((near) => {
      const far = connect(port, "127.0.0.1");
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("close", () => {
          this.#sockets.delete(socket);
          near.destroy();
          far.destroy();
        });
        socket.on("error", () => {});
      }
      near.on("data", (data) => far.write(data));
      far.on("data", (data) => {
        const through = this.cut(data);
        if (through === undefined) {
          near.write(data);
          return;
        }
        this.cuts += 1;
        near.write(data.subarray(0, through), () => near.resetAndDestroy());
      });
    });
  }

  static async start(t: TestContext, port: number): Promise<Proxy> {
    const proxy = new Proxy(port);
    proxy.#server.listen(0, "127.0.0.1");
    await once(proxy.#server, "listening");
    t.after(() => {
      proxy.#server.close();
      for (const socket of proxy.#sockets) socket.destroy();
    });
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }
}

/** Asks again until it is so; the test's own time limit is the bound. */
export async function until(is: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await is())) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A promise and what settles it. */
export function latch<T = void>(): { promise: Promise<T>; open: (value: T) => void } {
  let open!: (value: T) => void;
  const promise = new Promise<T>((resolve) => (open = resolve));
  return { promise, open };
}
