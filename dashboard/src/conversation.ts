// What a conversation looks like, made from its events. Pure: no I/O, no clock; recorded frames are a complete test.
//
// Nothing that is shown changes in place: what an event touches is replaced, all else stays the same object, so a
// component whose object is the same has nothing to do.

import type {
  Question, SessionClosedEvent, SessionEvent, SessionReplayEndFrame, SessionReplayStartFrame, SessionStateFrame, TaskAskUserEvent,
  TaskToolResultEvent, TaskToolUseEvent, Usage,
} from "streamgate";

/** What tells something of a session. */
export type Frame = SessionEvent | SessionReplayStartFrame | SessionReplayEndFrame | SessionStateFrame;

export type TurnStatus = "queued" | "running" | "completed" | "cancelled" | "failed";

export interface Turn {
  readonly taskId: string;
  /** `null` while it is not known: the history that was loaded begins later. */
  readonly prompt: string | null;
  readonly status: TurnStatus;
  readonly segments: readonly Segment[];
  readonly askedAt: number;
  readonly startedAt: number | null;
  readonly endedAt: number | null;
  readonly durationMs: number | null;
  readonly usage: Usage | null;
  readonly costKnown: boolean;
  readonly error: string | null;
  readonly retryable: boolean;
  /** Only admins are told. */
  readonly systemPrompt: string | null;
  /** All the text of the turn, once it has ended. */
  readonly resultText: string | null;
}

export type Segment = TextSegment | ToolsSegment | AskSegment | ContinuingSegment;

export interface TextSegment {
  readonly kind: "text";
  readonly key: number;
  readonly text: string;
  /** Whether more of it may come. */
  readonly open: boolean;
}

/** Tools at work at the same time. */
export interface ToolsSegment {
  readonly kind: "tools";
  readonly key: number;
  readonly calls: readonly ToolCall[];
}

export interface ToolCall {
  readonly id: string;
  readonly tool: string;
  readonly input: unknown;
  readonly output: string | null;
  readonly isError: boolean;
  readonly truncated: boolean;
  readonly startedAt: number;
  readonly endedAt: number | null;
}

export interface AskSegment {
  readonly kind: "ask";
  readonly key: number;
  readonly askId: string;
  /** The call that ends with its answer, where it is known. */
  readonly callId: string | null;
  readonly questions: readonly Question[];
  readonly answer: string | Readonly<Record<string, string>> | null;
  readonly status: "open" | "answered" | "withdrawn";
}

export interface ContinuingSegment {
  readonly kind: "continuing";
  readonly key: number;
  readonly continuation: number;
  readonly most: number;
}

export interface Conversation {
  /** Turns that have begun, in that order. */
  readonly turns: readonly Turn[];
  /** Turns that wait, next first. */
  readonly queue: readonly Turn[];
  /** The last event that is in here. */
  readonly seq: number;
  /** The event that the loaded history follows; 0 when it is all there. */
  readonly after: number;
  /** History that is on its way. */
  readonly replay: { readonly from: number; readonly to: number } | null;
  /** What the gateway said of the session when it was attached. */
  readonly state: SessionStateFrame | null;
  readonly usage: Usage | null;
  readonly closed: string | null;
  /** When the last event happened, by the gateway's clock. */
  readonly lastAt: number;
}

export function emptyConversation(after = 0): Conversation {
  return {
    turns: [], queue: [], seq: after, after, replay: null, state: null, usage: null, closed: null, lastAt: 0,
  };
}

type TaskEvent = Exclude<SessionEvent, SessionClosedEvent> & { task_id: string };

function isOfTask(frame: Exclude<SessionEvent, SessionClosedEvent>): frame is TaskEvent {
  return frame.task_id !== undefined;
}

/** The conversation after `frames`. */
export function advance(before: Conversation, frames: readonly Frame[]): Conversation {
  const draft = new Draft(before);
  for (const frame of frames) draft.apply(frame);
  return draft.finished();
}

/** The turn at work, if there is one. */
export function activeTurn(conversation: Conversation): Turn | null {
  const last = conversation.turns.at(-1);
  return last?.status === "running" ? last : null;
}

/** The question that waits for the user, if there is one. */
export function openAsk(turn: Turn | null): AskSegment | null {
  return turn?.segments.find((segment): segment is AskSegment => segment.kind === "ask" && segment.status === "open") ?? null;
}

/** The tool whose calls are shown as the question that follows them. */
const ASKING_TOOL = "AskUserQuestion";

type Writable<T> = { -readonly [K in keyof T]: T[K] };

class Draft {
  private readonly next: Writable<Conversation>;
  private readonly turns: Turn[];
  private queue: Turn[];
  /** Turns that were made or copied for this batch, with their own list of segments. */
  private readonly fresh = new Map<string, Writable<Turn> & { segments: Segment[] }>();

  constructor(before: Conversation) {
    this.next = { ...before };
    this.turns = [...before.turns];
    this.queue = [...before.queue];
  }

  finished(): Conversation {
    for (const [index, turn] of this.turns.entries()) this.turns[index] = this.fresh.get(turn.taskId) ?? turn;
    this.queue = this.queue.map((turn) => this.fresh.get(turn.taskId) ?? turn);
    return { ...this.next, turns: this.turns, queue: this.queue };
  }

  apply(frame: Frame): void {
    if ("seq" in frame) {
      if (frame.seq <= this.next.seq) return;
      this.next.seq = frame.seq;
      this.next.lastAt = frame.ts;
    }
    switch (frame.type) {
      case "session.replay_start":
        this.next.replay = frame.last_seq > frame.after_seq ? { from: frame.after_seq, to: frame.last_seq } : null;
        return;
      case "session.replay_end":
        this.next.replay = null;
        return;
      case "session.state":
        this.next.state = frame;
        this.next.usage = frame.usage;
        this.next.closed ??= frame.status === "closed" ? "ended" : null;
        return;
      case "session.closed":
        this.next.closed = frame.reason;
        return;
      default:
        if (isOfTask(frame)) this.applyToTask(frame);
    }
  }

  private applyToTask(frame: TaskEvent): void {
    switch (frame.type) {
      case "user.message":
        this.enqueue(frame.task_id, frame.text, frame.ts);
        return;
      case "task:started":
        this.start(frame.task_id, frame.ts);
        return;
      case "task:done":
        this.end(frame.task_id, frame.status === "cancelled" ? "cancelled" : "completed", frame.ts);
        return;
      case "task:failed": {
        const turn = this.running(frame.task_id, frame.ts);
        turn.error = frame.error;
        turn.retryable = frame.retryable ?? false;
        this.bill(turn, frame);
        this.end(frame.task_id, "failed", frame.ts);
        return;
      }
      case "task:token":
        this.token(frame.task_id, frame.text, frame.ts);
        return;
      case "task:tool_use":
        this.toolUse(frame);
        return;
      case "task:tool_result":
        this.toolResult(frame);
        return;
      case "task:ask_user":
        this.ask(frame);
        return;
      case "task:answered": {
        const turn = this.running(frame.task_id, frame.ts);
        const at = turn.segments.findIndex((segment) => segment.kind === "ask" && segment.askId === frame.ask_id);
        const ask = turn.segments[at];
        if (ask?.kind === "ask") turn.segments[at] = { ...ask, status: "answered", answer: frame.answer };
        return;
      }
      case "task:system_prompt":
        this.running(frame.task_id, frame.ts).systemPrompt = frame.prompt;
        return;
      case "turn.continuing": {
        const turn = this.running(frame.task_id, frame.ts);
        closeText(turn.segments);
        turn.segments.push({
          kind: "continuing", key: frame.seq, continuation: frame.continuation, most: frame.max_continuations,
        });
        return;
      }
      case "turn.done": {
        const turn = this.running(frame.task_id, frame.ts);
        turn.durationMs = frame.duration_ms;
        turn.costKnown = frame.cost_known;
        this.bill(turn, frame);
        closeText(turn.segments);
        // Cut at the gateway's limit it holds less than what was streamed.
        if (!frame.truncated) {
          turn.resultText = frame.result_text;
          turn.segments = withResult(turn.segments, frame.result_text, frame.seq);
        }
        return;
      }
    }
  }

  private enqueue(taskId: string, prompt: string, ts: number): void {
    if (this.find(taskId)) return;
    const turn = newTurn(taskId, prompt, ts, "queued");
    this.fresh.set(taskId, turn);
    this.queue.push(turn);
  }

  private start(taskId: string, ts: number): void {
    const turn = this.running(taskId, ts);
    turn.startedAt = ts;
  }

  /** The turn, which has begun by now, to be changed. */
  private running(taskId: string, ts: number): Writable<Turn> & { segments: Segment[] } {
    const waiting = this.queue.findIndex((turn) => turn.taskId === taskId);
    const turn = this.change(taskId) ?? newTurn(taskId, null, ts, "running");
    this.fresh.set(taskId, turn);
    if (waiting >= 0) this.queue.splice(waiting, 1);
    if (turn.status === "queued" || !this.turns.some((other) => other.taskId === taskId)) {
      turn.status = "running";
      turn.startedAt ??= ts;
      this.turns.push(turn);
    }
    return turn;
  }

  private end(taskId: string, status: TurnStatus, ts: number): void {
    const waiting = this.queue.findIndex((turn) => turn.taskId === taskId);
    if (waiting >= 0 && status === "cancelled") {
      // It never began: there is nothing to show of it.
      this.queue.splice(waiting, 1);
      return;
    }
    const turn = this.running(taskId, ts);
    turn.status = status;
    turn.endedAt = ts;
    closeText(turn.segments);
    turn.segments = turn.segments.map((segment) =>
      segment.kind === "ask" && segment.status === "open" ? { ...segment, status: "withdrawn" } : segment);
  }

  private token(taskId: string, text: string, ts: number): void {
    const turn = this.running(taskId, ts);
    const last = turn.segments.at(-1);
    if (last?.kind === "text") {
      turn.segments[turn.segments.length - 1] = { ...last, text: last.text + text };
    } else {
      turn.segments.push({ kind: "text", key: this.next.seq, text, open: true });
    }
  }

  private toolUse(frame: TaskEvent & TaskToolUseEvent): void {
    const turn = this.running(frame.task_id, frame.ts);
    closeText(turn.segments);
    const call: ToolCall = {
      id: frame.tool_use_id, tool: frame.tool, input: frame.input, output: null, isError: false,
      truncated: frame.truncated ?? false, startedAt: frame.ts, endedAt: null,
    };
    const last = turn.segments.at(-1);
    if (last?.kind === "tools" && last.calls.some((other) => other.endedAt === null)) {
      turn.segments[turn.segments.length - 1] = { ...last, calls: [...last.calls, call] };
    } else {
      turn.segments.push({ kind: "tools", key: frame.seq, calls: [call] });
    }
  }

  private toolResult(frame: TaskEvent & TaskToolResultEvent): void {
    const turn = this.running(frame.task_id, frame.ts);
    turn.segments = turn.segments.map((segment) => {
      if (segment.kind === "ask" && segment.callId === frame.tool_use_id && segment.status === "open") {
        return { ...segment, status: "withdrawn" };
      }
      if (segment.kind !== "tools" || !segment.calls.some((call) => call.id === frame.tool_use_id)) return segment;
      const calls = segment.calls.map((call) => call.id !== frame.tool_use_id ? call : {
        ...call, output: frame.output, isError: frame.is_error ?? false, endedAt: frame.ts,
        truncated: call.truncated || (frame.truncated ?? false),
      });
      return { ...segment, calls };
    });
  }

  private ask(frame: TaskEvent & TaskAskUserEvent): void {
    const turn = this.running(frame.task_id, frame.ts);
    closeText(turn.segments);
    const open = turn.segments.flatMap((segment) => segment.kind === "tools" ? segment.calls : [])
      .filter((call) => call.endedAt === null);
    const call = open.findLast((candidate) => candidate.tool === ASKING_TOOL) ?? open.at(-1);
    if (call?.tool === ASKING_TOOL) {
      turn.segments = turn.segments.flatMap((segment) => {
        if (segment.kind !== "tools" || !segment.calls.includes(call)) return [segment];
        const calls = segment.calls.filter((other) => other !== call);
        return calls.length > 0 ? [{ ...segment, calls }] : [];
      });
    }
    turn.segments.push({
      kind: "ask", key: frame.seq, askId: frame.ask_id, callId: call?.id ?? null, questions: frame.questions,
      answer: null, status: "open",
    });
  }

  private bill(turn: Writable<Turn>, used: Usage): void {
    const { input_tokens, output_tokens, cost_usd } = used;
    turn.usage = { input_tokens, output_tokens, cost_usd };
    // Until the gateway says what the session used before, that is not known.
    if (this.next.usage && !this.next.replay) {
      const sum = this.next.usage;
      this.next.usage = {
        input_tokens: sum.input_tokens + input_tokens,
        output_tokens: sum.output_tokens + output_tokens,
        cost_usd: sum.cost_usd + cost_usd,
      };
    }
  }

  private find(taskId: string): Turn | undefined {
    return this.fresh.get(taskId) ?? this.turns.findLast((turn) => turn.taskId === taskId)
      ?? this.queue.find((turn) => turn.taskId === taskId);
  }

  private change(taskId: string): (Writable<Turn> & { segments: Segment[] }) | undefined {
    const known = this.fresh.get(taskId);
    if (known) return known;
    const turn = this.find(taskId);
    return turn && { ...turn, segments: [...turn.segments] };
  }
}

function newTurn(taskId: string, prompt: string | null, askedAt: number, status: TurnStatus) {
  return {
    taskId, prompt, status, askedAt, segments: [] as Segment[], startedAt: null as number | null, endedAt: null,
    durationMs: null, usage: null, costKnown: true, error: null, retryable: false, systemPrompt: null,
    resultText: null,
  } satisfies Turn as Writable<Turn> & { segments: Segment[] };
}

function closeText(segments: Segment[]): void {
  const last = segments.at(-1);
  if (last?.kind === "text" && last.open) segments[segments.length - 1] = { ...last, open: false };
}

/**
 * The segments with the polished text in place of the streamed one: it has the addresses of images. It comes as one
 * text for the whole turn; what was streamed says where tools and questions part it. Where the two can't be brought
 * together, it follows what parted it, as a whole.
 */
export function withResult(segments: readonly Segment[], result: string, key: number): Segment[] {
  const texts = segments.filter((segment) => segment.kind === "text");
  const parts = divide(result, texts.map((segment) => segment.text));
  if (parts) {
    let at = 0;
    return segments.flatMap((segment): Segment[] => {
      if (segment.kind !== "text") return [segment];
      const text = parts[at++] ?? "";
      return text.trim() === "" ? [] : [{ ...segment, text, open: false }];
    });
  }
  const others = segments.filter((segment) => segment.kind !== "text");
  return result.trim() === "" ? others : [...others, { kind: "text", key, text: result, open: false }];
}

/** `result` in as many parts as there are `streamed` ones, each with the same words; `null` if the words differ. */
function divide(result: string, streamed: readonly string[]): string[] | null {
  if (streamed.length === 0) return result.trim() === "" ? [] : null;
  const words = withoutAddresses(result);
  const parts: string[] = [];
  let begin = 0;
  for (const text of streamed.slice(0, -1)) {
    let end = begin;
    for (const character of withoutAddresses(text).replace(/\s+/g, "")) {
      while (end < words.length && /\s/.test(words[end]!)) end++;
      if (!words.startsWith(character, end)) return null;
      end += character.length;
    }
    parts.push(result.slice(begin, end).replace(/^\n+/, ""));
    begin = end;
  }
  parts.push(result.slice(begin).replace(/^\n+/, ""));
  return parts;
}

/** The text with spaces in place of the addresses of links and images, which are what differs. */
function withoutAddresses(text: string): string {
  return text.replace(/(?<=\]\()[^)\n]*|(?<=^ {0,3}\[[^\]\n]+\]:)[^\n]*|(?<=(?:src|href)=["'])[^"'\n]*/gm,
    (address) => " ".repeat(address.length));
}

/** What to call a session: the first words of its first prompt. */
export function titleOf(prompt: string): string {
  const line = prompt.split("\n").map((text) => text.trim()).find((text) => text !== "") ?? "";
  const words = line.replace(/^[#>*\-\s]+/, "").replace(/\s+/g, " ") || line;
  if (words.length <= 60) return words;
  const cut = words.slice(0, 60);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), 40)).trimEnd()}…`;
}
