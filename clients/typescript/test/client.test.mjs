// The client against the real gateway.
import assert from "node:assert/strict";
import { connect, createServer } from "node:net";
import { after, afterEach, before, test } from "node:test";
import { WebSocketServer } from "ws";
import { ConnectionError, GatewayError, Streamgate } from "../dist/index.js";
import { Gateway } from "./gateway.mjs";

let gateway;
const gates = [];

before(async () => (gateway = await Gateway.start()));
after(() => gateway.stop());
afterEach(() => {
  for (const gate of gates.splice(0)) gate.close();
});

function open(options = {}) {
  const gate = new Streamgate({ url: gateway.url, token: gateway.token, ...options });
  gates.push(gate);
  return gate;
}

async function all(events) {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
}

const types = (events) => events.map(({ type }) => type);
const seqs = (events) => events.map(({ seq }) => seq);
const words = (events) => events.filter(({ type }) => type === "task:token").map(({ text }) => text).join("");
const tokens = (count) => Array.from({ length: count }, (_, at) => `t${at + 1} `).join("");
const ascends = (events) => seqs(events).every((seq, at, list) => at === 0 || seq > list[at - 1]);

/** The first value that satisfies `test`. */
function heard(gate, name, test) {
  return new Promise((resolve) => {
    const off = gate.on(name, (value) => {
      if (!test(value)) return;
      off();
      resolve(value);
    });
  });
}

/** A way to the gateway on which `pass` says what comes through of each part that it sends. */
async function proxied(pass) {
  const sockets = new Set();
  const server = createServer((outer) => {
    const inner = connect(gateway.port, "127.0.0.1");
    const cut = () => [outer, inner].forEach((side) => side.destroy());
    for (const side of [outer, inner]) sockets.add(side.on("error", cut).on("close", cut));
    let parts = 0;
    outer.pipe(inner);
    inner.on("data", (data) => {
      const part = pass(data, ++parts, cut);
      if (part && !outer.destroyed) outer.write(part);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const close = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, close };
}

test("a prompt streams, from its prompt to its end", async () => {
  const gate = open();
  const task = await gate.submit("Say hello");
  assert.match(task.sessionId, /^sess_[0-9a-f]{32}$/);
  assert.match(task.taskId, /^task_[0-9a-f]{32}$/);
  assert.match(task.ready.container_name, /^agent-/);
  const events = await all(task.events());
  assert.deepEqual(types(events).slice(0, 3), ["user.message", "task:queued", "task:started"]);
  assert.deepEqual(types(events).slice(-2), ["turn.done", "task:done"]);
  assert.equal(words(events), "You said: Say hello");
  assert.ok(ascends(events));
  assert.deepEqual(await all(task.events()), events, "read again, it is the same");
  const { end, turn } = await task.result();
  assert.deepEqual([end.status, turn.result_text], ["completed", "You said: Say hello"]);
});

test("turns of one session are told apart, and a follower sees both", async () => {
  const gate = open();
  const first = await gate.submit("/say one");
  const follower = gate.follow(first.sessionId);
  await first.result();
  const other = open();
  const second = await other.submit("/say two", { sessionId: first.sessionId, priority: "high", maxTurns: 3 });
  assert.equal(second.sessionId, first.sessionId);
  const ofSecond = await all(second.events());
  assert.deepEqual([words(ofSecond), ofSecond.every(({ task_id }) => task_id === second.taskId)], ["two", true]);
  await gate.end(first.sessionId);
  const everything = await all(follower);
  assert.equal(everything.at(-1).type, "session.closed");
  assert.deepEqual(words(everything), "onetwo");
  assert.deepEqual(everything, (await gate.rest.events(first.sessionId)).events);
  assert.deepEqual(await all(other.follow(first.sessionId)), everything, "history of a session that has ended");
  assert.deepEqual(await all(other.follow(first.sessionId, { after: everything.at(-1).seq })), []);
});

test("a question is answered", async () => {
  const gate = open();
  const task = await gate.submit("/ask Which one? | Red | Blue");
  const events = [];
  for await (const event of task.events()) {
    events.push(event);
    if (event.type === "task:ask_user") {
      assert.deepEqual(event.questions[0].options.map(({ label }) => label), ["Red", "Blue"]);
      await task.answer("Blue", event.ask_id);
    }
  }
  assert.equal(words(events), "You chose: Blue.");
});

test("a task is cancelled", async () => {
  const gate = open();
  const task = await gate.submit("/tokens 100000 20");
  for await (const event of task.events()) {
    if (event.type === "task:token") break;
  }
  assert.equal((await task.cancel()).status, "cancelled");
  const { end, turn } = await task.result();
  assert.deepEqual([end.type, end.status, turn.stop_reason], ["task:done", "cancelled", "cancelled"]);
});

test("a failure is an end like any other", async () => {
  const { end, turn } = await (await open().submit("/fail no luck")).result();
  assert.deepEqual([end.type, turn], ["task:failed", undefined]);
  assert.match(end.error, /no luck/);
});

test("refusals say why", async () => {
  const gate = open();
  const nothing = `sess_${"0".repeat(32)}`;
  const refused = (code) => (error) => error instanceof GatewayError && error.code === code;
  await assert.rejects(gate.submit("hello", { sessionId: nothing }), refused("SESSION_NOT_FOUND"));
  await assert.rejects(gate.submit(""), refused("VALIDATION_FAILED"));
  await assert.rejects(gate.cancel(`task_${"0".repeat(32)}`), refused("NOT_FOUND"));
  await assert.rejects(all(gate.follow(nothing)), refused("SESSION_NOT_FOUND"));
  const task = await gate.submit("hello");
  await task.result();
  await assert.rejects(all(gate.follow(task.sessionId, { after: 1_000 })), refused("CURSOR_AHEAD"));
});

test("a prompt that is repeated under its key is heard whole, whoever followed it before", async () => {
  const gate = open();
  const whole = tokens(40);
  const first = await gate.submit("/tokens 40 20", { idempotencyKey: "one" });
  await heard(gate, "frame", ({ type }) => type === "task:token");
  const repeated = await gate.submit("/tokens 40 20", { idempotencyKey: "one" });
  assert.equal(repeated.taskId, first.taskId);
  assert.deepEqual([words(await all(repeated.events())), words(await all(first.events()))], [whole, whole]);

  const turn = { sessionId: first.sessionId, idempotencyKey: "two" };
  const second = await gate.submit("/say two", turn);
  await second.result();
  const later = open();
  const again = await later.submit("/say two", turn);
  assert.equal(again.taskId, second.taskId);
  assert.equal(words(await all(again.events())), "two");
});

test("a token that can't be had now is asked for again", async () => {
  let asked = 0;
  const token = async () => {
    asked += 1;
    if (asked < 3) throw new TypeError("fetch failed");
    return gateway.token;
  };
  const task = await open({ token }).submit("/say well");
  assert.equal(words(await all(task.events())), "well");
  assert.equal(asked, 3);
});

test("a bad token is not tried again", async () => {
  const gate = open({ token: `rc_${"0".repeat(48)}` });
  await assert.rejects(gate.submit("hello"), (error) => error instanceof GatewayError && error.code === "UNAUTHORIZED");
  assert.equal(gate.state.status, "closed");
  await assert.rejects(gate.submit("hello"), (error) => error.code === "UNAUTHORIZED");
});

test("closing ends what is under way", async () => {
  const gate = open();
  const task = await gate.submit("/sleep 60000");
  const end = task.result();
  gate.close();
  await assert.rejects(end, ConnectionError);
  await assert.rejects(gate.submit("hello"), ConnectionError);
});

test("an aborted iteration ends", async () => {
  const gate = open();
  const task = await gate.submit("/tokens 100000 20");
  const ending = new AbortController();
  const events = gate.follow(task.sessionId, { signal: ending.signal });
  setTimeout(() => ending.abort(), 100);
  await all(events);
  await task.cancel();
});

test("a crash of the gateway in mid-stream loses nothing and doubles nothing", async () => {
  const gate = open({ maxBackoffMs: 500 });
  const task = await gate.submit("/tokens 400 10");
  const states = [];
  gate.on("state", ({ status }) => states.push(status));
  const follower = gate.follow(task.sessionId, { after: 0 });
  const followed = all(follower);
  const events = [];
  let killed;
  for await (const event of task.events()) {
    events.push(event);
    if (words(events).endsWith("t50 ")) {
      killed = gateway.kill().then(() => gateway.run());
    }
  }
  await killed;
  assert.equal(words(events), tokens(400));
  assert.deepEqual(types(events).slice(-2), ["turn.done", "task:done"]);
  assert.ok(states.includes("waiting") && states.at(-1) === "open", states.join());
  await gate.end(task.sessionId);
  assert.deepEqual((await followed).filter(({ task_id }) => task_id), events);
});

test("a restart of the gateway in mid-stream is not noticed either", async () => {
  const gate = open({ maxBackoffMs: 500 });
  const waits = [];
  gate.on("state", (state) => state.status === "waiting" && waits.push(state.why));
  const task = await gate.submit("/tokens 200 10");
  const events = [];
  let restarted;
  for await (const event of task.events()) {
    events.push(event);
    if (words(events).endsWith("t50 ")) restarted = gateway.drain().then(() => gateway.run());
  }
  await restarted;
  assert.equal(words(events), tokens(200));
  assert.equal(waits[0], "restart");
});

test("what a close code asks for is done", async () => {
  const reason = (code, wait) => JSON.stringify({ code, retry_after_ms: wait });
  // The code, what is told of it, and the least and the most that is waited; no number: it is over.
  for (const [code, told, least, most] of [
    [1001, "", 0, 500],
    [1012, reason("restart", 700), 700, 1_200],
    [1013, reason("try_later", 1_500), 1_500, 2_000],
    [4001, reason("unauthorized"), undefined, undefined],
    [4003, reason("origin_refused"), undefined, undefined],
    [4099, "", undefined, undefined],
    [4100, reason("flooding", 5_000), 5_000, 5_500],
    [4150, "", 1_000, 1_500],
    [4200, reason("max_age", 40), 0, 40],
    [4299, "", 0, 0],
  ]) {
    const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "streamgate.v1" });
    await new Promise((resolve) => server.once("listening", resolve));
    server.once("connection", (socket) => {
      socket.send('{"type":"pong","sessions":{}}');
      socket.close(code, told);
    });
    const gate = open({ url: `http://127.0.0.1:${server.address().port}` });
    const next = heard(gate, "state", ({ status }) => status === "waiting" || status === "closed");
    const asked = gate.submit("hello").catch((error) => error);
    const { status, retryInMs } = await next;
    if (least === undefined) {
      assert.equal(status, "closed", `${code}`);
      assert.ok((await asked) instanceof ConnectionError);
    } else {
      assert.ok(retryInMs >= least && retryInMs <= most, `${code}: ${retryInMs}`);
    }
    gate.close();
    server.close();
    for (const client of server.clients) client.terminate();
  }
});

test("a prompt that is said while the gateway is away runs once when it is back", async () => {
  const gate = open({ maxBackoffMs: 500 });
  const first = await gate.submit("/say before");
  await first.result();
  await gateway.kill();
  const waiting = [gate.submit("/say after", { sessionId: first.sessionId }), gate.submit("/say anew")];
  await gateway.run();
  const [after, anew] = await Promise.all(waiting);
  assert.equal(words(await all(after.events())), "after");
  assert.equal(words(await all(anew.events())), "anew");
  assert.deepEqual(words((await gate.rest.events(first.sessionId)).events), "beforeafter");
});

test("what is lost between a prompt and its reply is asked once more", async () => {
  let cuts = 0;
  // The first part on a connection is the answer to its upgrade.
  const proxy = await proxied((part, parts, cut) => (parts === 2 && cuts-- > 0 ? cut() : part));
  const gate = open({ url: proxy.url, maxBackoffMs: 100 });
  cuts = 2;
  const task = await gate.submit("/tokens 50");
  const events = await all(task.events());
  assert.equal(words(events), tokens(50));
  assert.equal(types(events)[0], "user.message");
  const again = open({ url: proxy.url, maxBackoffMs: 100 });
  cuts = 2;
  const turn = await again.submit("/tokens 30", { sessionId: task.sessionId });
  const ofTurn = await all(turn.events());
  assert.equal(words(ofTurn), tokens(30));
  assert.equal(types(ofTurn)[0], "user.message");
  assert.equal(words((await gate.rest.events(task.sessionId)).events), tokens(50) + tokens(30), "both ran once");
  proxy.close();
});

test("silence is noticed, and the gateway is asked for a sign of life", async () => {
  let frozen = false;
  const proxy = await proxied((part, parts) => {
    if (parts === 1) frozen = false;
    return frozen ? undefined : part;
  });
  const gate = open({ url: proxy.url, heartbeatMs: 300, maxBackoffMs: 100 });
  const pong = heard(gate, "frame", ({ type }) => type === "pong");
  const task = await gate.submit("/say before\n/sleep 2500\n/say after");
  assert.deepEqual((await pong).type, "pong");
  frozen = true;
  await heard(gate, "state", ({ status }) => status === "waiting");
  assert.equal(words(await all(task.events())), "beforeafter");
  proxy.close();
});

test("a page that was held up asks for a sign of life before it gives the connection up", async () => {
  const gate = open({ heartbeatMs: 100 });
  const states = [];
  gate.on("state", ({ status }) => states.push(status));
  const { session_id } = await gate.start();
  const pong = heard(gate, "frame", ({ type }) => type === "pong");
  // Longer than two silences: as timers are where a tab is hidden.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  await pong;
  assert.equal((await gate.end(session_id)).type, "ack");
  assert.deepEqual(states, ["connecting", "open"]);
});

test("a task whose events nobody reads is followed to its end and no further", async () => {
  const gate = open();
  // More than waits for a reader.
  const task = await gate.submit("/tokens 12000");
  const left = heard(gate, "frame", ({ type, session_id }) => type === "ack" && session_id === task.sessionId);
  await heard(gate, "frame", ({ type }) => type === "task:done");
  await left;
  const more = [];
  gate.on("frame", (frame) => frame.session_id === task.sessionId && more.push(frame.type));
  await (await open().submit("/say more", { sessionId: task.sessionId })).result();
  await gate.cancel(task.taskId); // Its answer comes after whatever the gateway had sent.
  assert.deepEqual(more, ["ack"]);
  assert.equal(words(await all(task.events())), tokens(12_000), "and is read when somebody does");
});

test("a reader that is slow holds little and misses nothing", async () => {
  const gate = open();
  const task = await gate.submit("/tokens 12000");
  const end = heard(gate, "frame", ({ type, task_id }) => type === "task:done" && task_id === task.taskId);
  const follower = gate.follow(task.sessionId);
  await end;
  // Nobody has read so far.
  const events = [];
  for await (const event of follower) {
    events.push(event);
    if (event.type === "task:done") break;
  }
  assert.equal(words(events), tokens(12_000));
  assert.equal(new Set(seqs(events)).size, events.length);
  assert.ok(ascends(events));
  assert.equal(words(await all(task.events())), tokens(12_000));
});

test("catching up is told, and so is the state of a session", async () => {
  const gate = open();
  const task = await gate.submit("/tokens 20");
  await task.result();
  const other = open();
  const told = [];
  other.on("catching_up", (value) => told.push(value.catchingUp));
  const state = heard(other, "session", ({ session_id }) => session_id === task.sessionId);
  const tail = other.follow(task.sessionId, { tail: 3 });
  const last = [(await tail.next()).value, (await tail.next()).value, (await tail.next()).value];
  assert.deepEqual(types(last), ["task:token", "turn.done", "task:done"]);
  assert.equal((await state).status, "active");
  assert.deepEqual(told, [true, false]);
});

test("a session is made, followed and left", async () => {
  const gate = open();
  const ready = await gate.start({ title: "Mine" });
  const events = gate.follow(ready.session_id);
  const task = await gate.submit("/say hello", { sessionId: ready.session_id });
  const seen = [];
  for await (const event of events) {
    seen.push(event);
    if (event.type === "task:done") break;
  }
  assert.equal(words(seen), "hello");
  assert.deepEqual(await all(task.events()), seen);
});

test("what has no need of a socket", async () => {
  const { rest } = open();
  const { session_id: id, profile_id } = await rest.startSession({ title: "First" });
  assert.equal(profile_id, "prof_demo");
  assert.equal((await rest.session(id)).title, "First");
  assert.equal((await rest.rename(id, "Second")).title, "Second");
  assert.ok((await rest.sessions({ limit: 1 })).sessions.some(({ session_id }) => session_id === id));
  assert.deepEqual(await rest.writeFile(id, "notes/a b.txt", "hello"), { created: true });
  assert.deepEqual(await rest.writeFile(id, "notes/a b.txt", "hello!"), { created: false });
  assert.deepEqual((await rest.files(id)).files.map(({ path, size }) => [path, size]), [["notes/a b.txt", 6]]);
  assert.equal(await (await rest.readFile(id, "notes/a b.txt")).text(), "hello!");
  const { task_id } = await rest.submit({ prompt: "/ask Which? | A | B", session_id: id });
  for (;;) {
    const task = await rest.task(task_id);
    if (task.pending_ask) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await rest.answer(task_id, "A");
  assert.equal((await rest.tasks({ session_id: id })).tasks[0].task_id, task_id);
  assert.ok(["completed", "cancelled"].includes((await rest.cancel(task_id)).status));
  assert.ok((await rest.profiles()).profiles.some(({ default: first }) => first));
  const { token, token_id } = await rest.createToken({ name: "mine" });
  assert.equal((await open({ token }).rest.tokens()).tokens[0].token_id, token_id);
  await rest.revokeToken(token_id);
  assert.match((await rest.health()).version, /^\d+\.\d+\.\d+/);
  assert.deepEqual(await rest.ready(), { ready: true, storage: true, draining: false });
  assert.equal(await rest.erase(id), undefined);
  await assert.rejects(rest.session(id), (error) => error instanceof GatewayError && error.status === 404);
});
