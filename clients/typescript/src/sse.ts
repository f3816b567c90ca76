// Server-sent events, as the HTML standard has them: fields, comments, all three line ends, a byte
// order mark. Bounded: an event that does not end is an error, not memory.
//
// Deliberately absent: connecting again, which is the reader's business, for only it knows what it
// has seen.

import { ChargehandError } from "./error.js";

/** Characters of one event, about; the largest payloads are a few MiB. */
export const EVENT_CHARS_MAX = 16 * 1024 * 1024;

/** One event of a stream. `data` is absent when only an id or a retry time was sent. */
export interface Frame {
  /** The last id that was sent, with this event or before. */
  id: string;
  event: string;
  data: string | undefined;
  /** Milliseconds to wait before connecting again, when the stream says so here. */
  retry: number | undefined;
}

/** Turns pieces of text into events. */
export class Parser {
  #rest = "";
  #begun = false;
  #id = "";
  #event = "";
  #data: string[] = [];
  #retry: number | undefined;
  #said = false;
  #chars = 0;
  readonly #max: number;

  constructor(max = EVENT_CHARS_MAX) {
    this.#max = max;
  }

  /** The events that end in this piece. */
  push(piece: string): Frame[] {
    if (!this.#begun && piece !== "") {
      this.#begun = true;
      if (piece.charCodeAt(0) === 0xfeff) piece = piece.slice(1);
    }
    const frames: Frame[] = [];
    const text = this.#rest + piece;
    let from = 0;
    // Only the new part can have a line end, but for a CR that waited for its LF.
    let at = Math.max(0, this.#rest.length - 1);
    for (; at < text.length; at += 1) {
      const char = text.charCodeAt(at);
      if (char !== 10 && char !== 13) continue;
      // Whether a CR at the very end is followed by an LF is not known yet.
      if (char === 13 && at + 1 === text.length) break;
      const frame = this.#line(text.slice(from, at));
      if (frame) frames.push(frame);
      if (char === 13 && text.charCodeAt(at + 1) === 10) at += 1;
      from = at + 1;
    }
    this.#rest = text.slice(from);
    if (this.#chars + this.#rest.length > this.#max) {
      throw new ChargehandError("server.strange", {
        detail: `an event is longer than ${this.#max} characters`,
        hint: "Check that the address is a Chargehand server's.",
      });
    }
    return frames;
  }

  #line(line: string): Frame | undefined {
    if (line === "") return this.#end();
    this.#chars += line.length;
    const colon = line.indexOf(":");
    if (colon === 0) return undefined;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(line.charCodeAt(colon + 1) === 32 ? colon + 2 : colon + 1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) [this.#id, this.#said] = [value, true];
    else if (field === "retry" && /^\d+$/.test(value)) [this.#retry, this.#said] = [Number(value), true];
    return undefined;
  }

  #end(): Frame | undefined {
    const data = this.#data.length > 0 ? this.#data.join("\n") : undefined;
    const frame = { id: this.#id, event: this.#event || "message", data, retry: this.#retry };
    const said = this.#said || data !== undefined;
    [this.#event, this.#data, this.#retry, this.#said, this.#chars] = ["", [], undefined, false, 0];
    return said ? frame : undefined;
  }
}
