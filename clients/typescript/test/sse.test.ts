// The parser of server-sent events, against the standard's own rules.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Parser, type Frame } from "#sse";

function parse(pieces: string[]): [string, string, string | undefined][] {
  const parser = new Parser();
  return pieces.flatMap((piece) => parser.push(piece)).map(({ id, event, data }: Frame) => [id, event, data]);
}

test("fields, comments and line ends", () => {
  const text = "\ufeffretry: 10\n\n: beat\nid: 7\n\nid: 8\r\nevent: a.b\r\ndata: {\r\ndata:}\r\n\r\ndata\r\rnothing\n\nevent: lost\n\ndata:  two\n\n";
  const wanted = [
    ["", "message", undefined],
    ["7", "message", undefined],
    ["8", "a.b", "{\n}"],
    ["8", "message", ""],
    ["8", "message", " two"],
  ];
  assert.deepEqual(parse([text]), wanted);
  // However it is cut into pieces.
  for (let size = 1; size < 9; size += 1) {
    const pieces = text.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
    assert.deepEqual(parse(pieces), wanted, `in pieces of ${size}`);
  }
});

test("an event that does not end is an error, not memory", () => {
  for (const piece of ["x".repeat(60), "data: y\n"]) {
    const parser = new Parser(1_000);
    assert.throws(
      () => {
        for (let n = 0; n < 1_000; n += 1) parser.push(piece);
      },
      { code: "server.strange" },
    );
  }
  const parser = new Parser(1_000);
  for (let n = 0; n < 1_000; n += 1) assert.equal(parser.push(`data: ${"z".repeat(900)}\n\n`).length, 1);
});
