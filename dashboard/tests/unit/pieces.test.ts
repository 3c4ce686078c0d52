import { expect, test } from "@playwright/test";

import { marked, Pieces } from "../../src/pieces";

const TEXT = "# Title\n\nA paragraph\nof two lines.\n\n- one\n\n- two\n\n  still two\n\n```js\nconst a = 1;\n\nconst b = 2;\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n> quote\n\nThe end.";

test("pieces put together are the text, and what is finished stays", () => {
  const pieces = new Pieces();
  let finished: readonly string[] = [];
  for (let end = 1; end <= TEXT.length; end++) {
    expect(pieces.grow(TEXT.slice(0, end))).toBe(true);
    expect(pieces.finished.join("") + pieces.tail).toBe(TEXT.slice(0, end));
    expect(pieces.finished.slice(0, finished.length)).toEqual(finished);
    finished = [...pieces.finished];
  }
  expect(finished.length).toBeGreaterThan(3);
});

test("each piece alone shows what it shows in the whole", () => {
  const pieces = new Pieces();
  for (let end = 1; end <= TEXT.length; end += 3) pieces.grow(TEXT.slice(0, end));
  pieces.grow(TEXT);
  const html = (text: string) => marked.parse(text, { async: false });
  expect([...pieces.finished, pieces.tail].map(html).join("")).toBe(html(TEXT));
});

test("another text is no growth", () => {
  const pieces = new Pieces();
  pieces.grow("abc");
  expect(pieces.grow("abd")).toBe(false);
});

test("what is nested too deep to be read stays one piece", () => {
  const pieces = new Pieces();
  const text = `Before.\n\n${">".repeat(20_000)} deep\n\nAfter.\n\n`;
  expect(() => marked.lexer(text)).toThrow();
  expect(pieces.grow(text)).toBe(true);
  expect([pieces.finished, pieces.tail]).toEqual([[], text]);
});
