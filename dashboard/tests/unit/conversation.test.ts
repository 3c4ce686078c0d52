import { readFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "@playwright/test";

import { activeTurn, advance, emptyConversation, openAsk, titleOf, withResult, type Frame, type Segment } from "../../src/conversation";

/** What a gateway sent for a session with everything in it. */
const recorded = readFileSync(join(import.meta.dirname, "recorded.ndjson"), "utf8").trim().split("\n").map((line) => JSON.parse(line) as Frame);

const kinds = (segments: readonly Segment[]) => segments.map((segment) => segment.kind);

test("a recorded session becomes its turns", () => {
  const { turns, queue, seq, replay } = advance(emptyConversation(), recorded);
  expect(turns.map(({ prompt, status }) => [prompt?.split("\n")[0], status])).toEqual([
    ["Show me everything", "completed"], ["/ask Which one? | Red | Blue || Why?", "completed"], ["/tokens 5000 20", "cancelled"],
    ["/fail no luck", "failed"],
  ]);
  expect(queue).toEqual([]);
  expect(replay).toBeNull();
  expect(seq).toBe(Math.max(...recorded.map((frame) => ("seq" in frame ? frame.seq : 0))));
  const [first, second, , failed] = turns;
  expect(kinds(first!.segments)).toEqual(["text", "tools", "tools", "text", "continuing", "text"]);
  const parallel = first!.segments[2]!;
  expect(parallel.kind === "tools" && parallel.calls.map(({ input, output }) => [input, output])).toEqual([
    [{ command: "echo one" }, "one\n"], [{ command: "echo two" }, "two\n"],
  ]);
  expect(first!.segments[3]).toMatchObject({ kind: "text", open: false, text: expect.stringMatching(/^!\[plot.png\]\(http.*_pvt=.*\)/) });
  expect(first).toMatchObject({ usage: { input_tokens: 1234, output_tokens: 567, cost_usd: 0.0123 }, costKnown: true });
  expect(second!.segments[0]).toMatchObject({ kind: "ask", status: "answered", answer: { "Which one?": "Red", "Why?": "It is warm" } });
  expect(kinds(second!.segments)).toEqual(["ask", "text"]);
  expect(failed).toMatchObject({ error: "no luck", usage: { cost_usd: 0 } });
});

test("however the frames are cut, the conversation is the same, and repeats change nothing", () => {
  const whole = advance(emptyConversation(), recorded);
  for (const size of [1, 2, 3, 7, 50]) {
    let conversation = emptyConversation();
    for (let at = 0; at < recorded.length; at += size) {
      const piece = recorded.slice(at, at + size);
      conversation = advance(advance(conversation, piece), piece.filter((frame) => "seq" in frame));
    }
    expect(conversation).toEqual(whole);
  }
});

test("what an event does not touch stays the same object", () => {
  const begun = advance(emptyConversation(), recorded);
  const turn = { session_id: "s", task_id: "task_new", ts: 1 };
  const before = advance(begun, [
    { ...turn, type: "user.message", seq: 100_001, text: "go on" }, { ...turn, type: "task:started", seq: 100_002, container_id: "c", container_name: "c" },
    { ...turn, type: "task:token", seq: 100_003, text: "a " },
    { ...turn, type: "task:tool_use", seq: 100_004, tool: "Bash", tool_use_id: "t", input: {} },
  ]);
  const after = advance(before, [{ ...turn, type: "task:token", seq: 100_005, text: "b " }]);
  expect(after.turns.slice(0, -1).every((same, index) => same === before.turns[index])).toBe(true);
  expect(after.turns.at(-1)).not.toBe(before.turns.at(-1));
  expect(after.turns.at(-1)!.segments.slice(0, 2).every((same, index) => same === before.turns.at(-1)!.segments[index])).toBe(true);
  expect(before.turns.at(-1)!.segments).toHaveLength(2);
});

test("prompts wait in line, in the order of their turns, and leave it when they are taken back", () => {
  const of = (task_id: string) => ({ session_id: "s", task_id, ts: 1 });
  let conversation = advance(emptyConversation(), [
    { ...of("a"), type: "user.message", seq: 1, text: "A" }, { ...of("a"), type: "task:started", seq: 2, container_id: "c", container_name: "c" },
    { ...of("b"), type: "user.message", seq: 3, text: "B" }, { ...of("c"), type: "user.message", seq: 4, text: "C" },
    { ...of("a"), type: "task:token", seq: 5, text: "x" },
  ]);
  expect(activeTurn(conversation)?.taskId).toBe("a");
  expect(conversation.queue.map(({ prompt }) => prompt)).toEqual(["B", "C"]);
  conversation = advance(conversation, [{ ...of("b"), type: "task:done", seq: 6, status: "cancelled" }]);
  expect(conversation.queue.map(({ prompt }) => prompt)).toEqual(["C"]);
  conversation = advance(conversation, [
    { ...of("a"), type: "task:done", seq: 7, status: "completed" }, { ...of("c"), type: "task:started", seq: 8, container_id: "c", container_name: "c" },
  ]);
  expect(conversation.turns.map(({ prompt }) => prompt)).toEqual(["A", "C"]);
  expect(conversation.queue).toEqual([]);
});

test("a question is open until it is answered, or its call or task ends", () => {
  const of = { session_id: "s", task_id: "a", ts: 1 };
  const asked = advance(emptyConversation(), [
    { ...of, type: "user.message", seq: 1, text: "A" }, { ...of, type: "task:started", seq: 2, container_id: "c", container_name: "c" },
    { ...of, type: "task:tool_use", seq: 3, tool: "AskUserQuestion", tool_use_id: "t", input: { questions: [] } },
    { ...of, type: "task:ask_user", seq: 4, ask_id: "q", questions: [{ question: "?", options: [] }] },
  ]);
  expect(kinds(asked.turns[0]!.segments)).toEqual(["ask"]);
  expect(openAsk(activeTurn(asked))?.askId).toBe("q");
  for (const end of [
    { ...of, type: "task:answered", seq: 5, ask_id: "q", answer: "yes" },
    { ...of, type: "task:tool_result", seq: 5, tool: "AskUserQuestion", tool_use_id: "t", output: "", is_error: true },
    { ...of, type: "task:failed", seq: 5, error: "x", retryable: false, input_tokens: 0, output_tokens: 0, cost_usd: 0 },
  ] satisfies Frame[]) {
    expect(openAsk(advance(asked, [end]).turns[0]!)).toBeNull();
  }
});

test("a history that begins in the middle of a turn shows the rest of it", () => {
  const middle = recorded.findIndex((frame) => frame.type === "turn.continuing");
  const { turns } = advance(emptyConversation(1), recorded.slice(middle));
  expect(turns[0]).toMatchObject({ prompt: null, status: "completed" });
});

test("the polished text is divided as the streamed one was", () => {
  const text = (key: number, words: string): Segment => ({ kind: "text", key, text: words, open: false });
  const tools: Segment = { kind: "tools", key: 2, calls: [] };
  const told = (segments: Segment[]) => segments.map((segment) => (segment.kind === "text" ? segment.text : segment.kind));
  const check = (streamed: Segment[], result: string, expected: string[]) => expect(told(withResult(streamed, result, 9))).toEqual(expected);
  check([text(1, "One.  "), tools, text(3, "Two.")], "One.\n\nTwo.", ["One.", "tools", "Two."]);
  check([text(1, "![a](a.png) x"), tools, text(3, "Two.")], "![a](https://g/a.png?_pvt=1) x\n\nTwo.", ["![a](https://g/a.png?_pvt=1) x", "tools", "Two."]);
  check([text(1, "<img src=\"a.png\">"), tools, text(3, "Two.")], "<img src=\"https://g/a.png\">\n\nTwo.", ["<img src=\"https://g/a.png\">", "tools", "Two."]);
  check([text(1, "```\ncode"), tools, text(3, "Two.")], "```\ncode\n\nTwo.\n```", ["```\ncode", "tools", "Two.\n```"]);
  check([text(1, " "), tools, text(3, "Two.")], "Two.", ["tools", "Two."]);
  // Something else than what was streamed: it is shown, after what was done.
  check([text(1, "One."), tools, text(3, "Two.")], "Uno. Due.", ["tools", "Uno. Due."]);
  check([tools], "Only at the end.", ["tools", "Only at the end."]);
});

test("a title is the first words of the prompt", () => {
  expect(titleOf("  \n# Plan a   trip\nmore")).toBe("Plan a trip");
  expect(titleOf("word ".repeat(30))).toBe(`${"word ".repeat(12).trim()}…`);
  expect(titleOf("---")).toBe("---");
});
