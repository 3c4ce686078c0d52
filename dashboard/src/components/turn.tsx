import { useEffect, useState } from "preact/hooks";
import { openAsk, type Segment, type Turn } from "../conversation";
import { count, dollars, duration } from "../format";
import { agentName, again, clockSkew } from "../live";
import { Ask } from "./ask";
import { Dialog } from "./dialog";
import { Icon } from "./icon";
import { memo } from "./memo";
import { Text } from "./text";
import { Tools } from "./tools";

/** A prompt, and all that the agent did about it. */
export const TurnView = memo(function TurnView({ turn }: { turn: Turn }) {
  const live = turn.status === "running";
  return (
    <article class="turn" aria-busy={live}>
      {turn.prompt !== null && <Prompt text={turn.prompt} />}
      <div class="reply">
        <Header turn={turn} />
        <div class="segments">
          {turn.segments.map((segment) => <SegmentView key={segment.key} segment={segment} taskId={turn.taskId} live={live} />)}
          {live && waits(turn) && <div class="thinking" aria-hidden="true"><i /><i /><i /></div>}
          {turn.status === "cancelled" && <p class="note">Stopped.</p>}
          {turn.status === "failed" && <Failure turn={turn} />}
          {turn.status === "completed" && turn.segments.length === 0 && <p class="note">Done, without words.</p>}
        </div>
      </div>
    </article>
  );
});

export function Prompt({ text, state }: { text: string; state?: string }) {
  return (
    <div class={`prompt ${state ? "pending" : ""}`}>
      <span class="sr-only">You said:</span>
      <p>{text}</p>
      {state && <span class="prompt-state">{state}</span>}
    </div>
  );
}

function SegmentView({ segment, taskId, live }: { segment: Segment; taskId: string; live: boolean }) {
  switch (segment.kind) {
    case "text": return <Text text={segment.text} open={segment.open} />;
    case "tools": return <Tools segment={segment} live={live} />;
    case "ask": return <Ask ask={segment} taskId={taskId} />;
    case "continuing": return <p class="continuing"><span>Continuing {segment.continuation} of {segment.most}</span></p>;
  }
}

/** Whether nothing on the page moves although the agent is at work. */
function waits(turn: Turn): boolean {
  const last = turn.segments.at(-1);
  if (last?.kind === "tools") return last.calls.every((call) => call.endedAt !== null);
  if (last?.kind === "ask") return last.status !== "open";
  return last?.kind !== "text";
}

function Header({ turn }: { turn: Turn }) {
  const [shown, setShown] = useState(false);
  return (
    <header class="turn-header">
      <span class={`avatar ${turn.status === "running" ? "working" : ""}`} aria-hidden="true" />
      <h2>{agentName.value}</h2>
      <span class="facts">
        {turn.status === "running" && (openAsk(turn) ? <span>waits for your answer</span> : <Elapsed since={turn.startedAt ?? turn.askedAt} />)}
        {turn.durationMs !== null && <span>{duration(turn.durationMs)}</span>}
        {turn.usage && <span title="Tokens read and written">
          {count(turn.usage.input_tokens)} in · {count(turn.usage.output_tokens)} out</span>}
        {turn.usage && <span title={turn.costKnown ? "Cost" : "The agent doesn't say what it cost"}>
          {turn.costKnown ? dollars(turn.usage.cost_usd) : "cost unknown"}</span>}
      </span>
      {turn.systemPrompt !== null && <>
        <button type="button" class="link" onClick={() => setShown(true)}>View system prompt</button>
        {shown && <Dialog title="System prompt" onClose={() => setShown(false)}>
          <p class="hint">What the agent was told before this turn. Only admins see this.</p>
          <pre class="system-prompt" tabIndex={0}>{turn.systemPrompt}</pre>
        </Dialog>}
      </>}
    </header>
  );
}

function Elapsed({ since }: { since: number }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), 1_000);
    return () => clearInterval(timer);
  }, []);
  const passed = now - clockSkew() - since;
  return <span>working{passed >= 1_000 && ` · ${duration(Math.floor(passed / 1_000) * 1_000).replace(".0", "")}`}</span>;
}

function Failure({ turn }: { turn: Turn }) {
  return (
    <div class="failure">
      <Icon name="warning" size={20} />
      <div>
        <p class="failure-title">This turn failed</p>
        <p>{turn.error}</p>
        {turn.prompt !== null && <button type="button" class="secondary" onClick={() => again(turn)}>
          <Icon name="again" size={16} /> Try again
        </button>}
      </div>
    </div>
  );
}
