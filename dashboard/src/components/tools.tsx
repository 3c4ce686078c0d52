import { useState } from "preact/hooks";
import type { ToolCall, ToolsSegment } from "../conversation";
import { duration } from "../format";
import { Icon } from "./icon";
import { memo } from "./memo";

/** Characters of a result that are shown before somebody asks for all. */
const SHOWN = 20_000;

/** Tools at work at the same time, each folded. */
export const Tools = memo(function Tools({ segment, live }: { segment: ToolsSegment; live: boolean }) {
  const calls = segment.calls.map((call) => <Tool key={call.id} call={call} live={live} />);
  if (calls.length === 1) return <div class="tools">{calls}</div>;
  return (
    <div class="tools parallel" role="group" aria-label={`${calls.length} tools in parallel`}>
      <p class="tools-title" aria-hidden="true">{calls.length} in parallel</p>
      {calls}
    </div>
  );
});

const Tool = memo(function Tool({ call, live }: { call: ToolCall; live: boolean }) {
  const [open, setOpen] = useState(false);
  const state = stateOf(call, live);
  return (
    <details class={`tool ${state}`} open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="tool-state">{SIGNS[state]}<span class="sr-only">{state}</span></span>
        <span class="tool-name">{call.tool}</span>
        <span class="tool-gist">{gist(call.input)}</span>
        {call.endedAt !== null && call.endedAt - call.startedAt >= 100 &&
          <span class="tool-time">{duration(call.endedAt - call.startedAt)}</span>}
        <Icon name="chevron" size={16} />
      </summary>
      {open && <div class="tool-body">
        <Block title="Input" text={inputText(call.input)} />
        {call.output !== null && <Block title={call.isError ? "Error" : "Result"} text={call.output} />}
        {call.output === null && <p class="hint">{live ? "No result yet." : "It never got a result."}</p>}
        {call.truncated && <p class="hint">The gateway cut this at its size limit.</p>}
      </div>}
    </details>
  );
});

type ToolState = "running" | "done" | "failed" | "lost";

const SIGNS = {
  running: <span class="spinner" />,
  done: <Icon name="check" size={16} />,
  failed: <Icon name="cross" size={16} />,
  lost: <Icon name="cross" size={16} />,
};

function stateOf(call: ToolCall, live: boolean): ToolState {
  if (call.output === null) return live ? "running" : "lost";
  return call.isError ? "failed" : "done";
}

function Block({ title, text }: { title: string; text: string }) {
  const [all, setAll] = useState(false);
  const cut = !all && text.length > SHOWN;
  return (
    <section class="tool-block">
      <header>
        <h3>{title}</h3>
        <button type="button" class="copy" data-copy>Copy</button>
      </header>
      <pre tabIndex={0} role="region" aria-label={title}>{text === "" ? <em>nothing</em> : cut ? text.slice(0, SHOWN) : text}</pre>
      {cut && <button type="button" class="link" onClick={() => setAll(true)}>
        Show all {text.length.toLocaleString()} characters
      </button>}
    </section>
  );
}

/** One command, path or query tells more than the whole of the arguments. */
function gist(input: unknown): string {
  if (typeof input === "string") return input;
  if (typeof input !== "object" || input === null) return "";
  const values = Object.values(input).filter((value): value is string => typeof value === "string" && value !== "");
  return (values[0] ?? "").split("\n")[0]!.slice(0, 200);
}

function inputText(input: unknown): string {
  if (typeof input === "object" && input !== null) {
    const entries = Object.entries(input);
    if (entries.length === 1 && typeof entries[0]![1] === "string") return entries[0]![1];
  }
  return typeof input === "string" ? input : JSON.stringify(input, null, 2);
}
