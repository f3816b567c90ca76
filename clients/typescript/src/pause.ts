// Time and chance: pauses that can be cut short, signals that follow others, numbers nobody guesses.
// AbortSignal.any and AbortSignal.timeout are deliberately not used: signals derived from one that
// lives as long as the process would pile up on it.

/** Resolves after so many milliseconds, or at once when the signal is aborted; never rejects. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}

/** Milliseconds before try number `n` (from 0): doubling, bounded, half of it by chance. */
export function backoff(n: number, firstMs: number, maxMs: number): number {
  const whole = Math.min(maxMs, firstMs * 2 ** Math.min(n, 30));
  return whole / 2 + (Math.random() * whole) / 2;
}

/** A controller that is aborted with its parent; call `release` when it is over. */
export function child(parent: AbortSignal | undefined): { controller: AbortController; release: () => void } {
  const controller = new AbortController();
  const follow = (): void => controller.abort(parent?.reason);
  if (parent?.aborted) follow();
  parent?.addEventListener("abort", follow);
  return { controller, release: () => parent?.removeEventListener("abort", follow) };
}

/** So many random bytes in hexadecimal. */
export function randomHex(bytes: number): string {
  const found = crypto.getRandomValues(new Uint8Array(bytes));
  return Array.from(found, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** A random whole number from 1 to 2^53 - 1, which JSON numbers hold exactly. */
export function randomSession(): number {
  const [high = 0, low = 0] = crypto.getRandomValues(new Uint32Array(2));
  return (high % 2 ** 21) * 2 ** 32 + low || 1;
}
