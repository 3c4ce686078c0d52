import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { announce } from "../announce";
import { activeTurn, openAsk, titleOf, type Turn } from "../conversation";
import { filesShown } from "../files";
import { count, dollars } from "../format";
import {
  asked, catchingUp, conversation, follows, loadProblem, pending, profiles, remove, reopen, showAll, trouble,
} from "../live";
import { words } from "../gateway";
import { sessionId } from "../route";
import { sizes } from "../screen";
import { sessions } from "../sessions";
import { Composer } from "./composer";
import { DeleteDialog, RenameDialog } from "./dialogs";
import { Icon, IconButton } from "./icon";
import { Prompt, TurnView } from "./turn";

/** The middle of the page: a session, or the place where one begins. */
export function Chat({ onMenu }: { onMenu: () => void }) {
  const id = sessionId.value;
  return (
    <main class="chat">
      <Bar onMenu={onMenu} />
      {id === null && pending.value.length === 0 ? <Welcome /> : <Open />}
    </main>
  );
}

function Bar({ onMenu }: { onMenu: () => void }) {
  const id = sessionId.value;
  const [dialog, setDialog] = useState<"rename" | "delete" | null>(null);
  const { state, usage, turns } = conversation.value;
  const first = turns[0]?.prompt ?? conversation.value.queue[0]?.prompt;
  const listed = sessions.value?.find((session) => session.session_id === id)?.title;
  const title = id === null ? "New session" : listed ?? state?.title ?? (first ? titleOf(first) : "Session");
  useEffect(() => { document.title = id === null ? "streamgate" : `${title} · streamgate`; }, [id, title]);
  return (
    <header class="bar chat-bar">
      {sizes.phone.value && <IconButton icon="menu" label="Sessions" onClick={onMenu} />}
      <h1 title={title}>{title}</h1>
      {id !== null && <IconButton icon="pencil" label="Rename session" class="bar-tool" onClick={() => setDialog("rename")} />}
      <span class="grow" />
      {id !== null && <>
        {usage && usage.output_tokens > 0 && !sizes.phone.value &&
          <span class="usage" title="Used by this session: tokens read and written, cost">
            {count(usage.input_tokens + usage.output_tokens)} tokens
            {/* Nothing may be free, or not known. */}
            {usage.cost_usd > 0 && <> · {dollars(usage.cost_usd)}</>}
          </span>}
        <IconButton icon="files" label="Files" pressed={filesShown.value} onClick={() => { filesShown.value = !filesShown.value; }} />
        <IconButton icon="trash" label="Delete session" onClick={() => setDialog("delete")} />
      </>}
      {id && dialog === "rename" && <RenameDialog session={{ session_id: id, title }} onClose={() => setDialog(null)} />}
      {id && dialog === "delete" && <DeleteDialog session={{ session_id: id, title }} onClose={() => setDialog(null)} />}
    </header>
  );
}

const EXAMPLES = [
  ["Run a command", "/tool ls -la && date"],
  ["Ask me something", "/ask Which color do you like? | Red | Green | Blue"],
  ["Stream a while", "/tokens 300 30"],
  ["Draw a picture", "/image picture.png"],
] as const;

function Welcome() {
  const known = profiles.value;
  const [chosen, setChosen] = useState<string | undefined>();
  const profile = known.find((other) => other.profile_id === chosen) ?? known.find((other) => other.default) ?? known[0];
  return (
    <div class="welcome">
      <div class="welcome-words">
        <span class="logo large" aria-hidden="true" />
        <h2>What should the agent do?</h2>
        {known.length > 1 && <p class="profile">
          <label for="profile">Agent</label>
          <select id="profile" value={profile?.profile_id} onChange={(event) => setChosen(event.currentTarget.value)}>
            {known.map((other) => <option key={other.profile_id} value={other.profile_id}>{other.name || other.profile_id}</option>)}
          </select>
        </p>}
      </div>
      <Composer {...(profile && known.length > 1 ? { profileId: profile.profile_id } : {})} />
      {profile?.profile_id === "prof_demo" && <div class="examples">
        <p class="hint">The demo agent repeats what you say, and knows some tricks:</p>
        <ul>{EXAMPLES.map(([name, prompt]) => (
          <li key={name}><button type="button" class="example" onClick={() => fill(prompt)}>
            <span>{name}</span><code>{prompt}</code>
          </button></li>
        ))}</ul>
      </div>}
    </div>
  );
}

/** Puts words where the user would write them. */
function fill(prompt: string): void {
  const field = document.querySelector<HTMLTextAreaElement>("#prompt");
  if (!field) return;
  field.value = prompt;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  field.focus();
}

function Open() {
  const { turns, queue, after, closed } = conversation.value;
  const scroller = useRef<HTMLDivElement>(null);
  const content = useRef<HTMLDivElement>(null);
  const [behind, setBehind] = useState(false);
  const end = useRef<End>({ sticks: true, top: 0 });
  useFollowingTheEnd(scroller, content, end);
  useAnnouncements();
  const sent = pending.value;
  useLayoutEffect(() => {
    if (sent.length > 0) toEnd();
  }, [sent.length]);
  function toEnd(): void {
    end.current.sticks = true;
    follow(scroller.current, end.current);
  }
  // With nothing before it, it is as good as begun.
  const next = activeTurn(conversation.value) ? null : queue[0] ?? null;
  const rest = next ? queue.slice(1) : queue;
  const empty = turns.length === 0 && queue.length === 0 && sent.length === 0;
  return (
    <>
      <CatchingUp />
      <div class="scroller" ref={scroller} onClick={(event) => {
        // Who unfolds something wants to see that, not the end.
        if ((event.target as Element).closest("summary")) end.current.sticks = false;
        copyCode(event);
      }} onScroll={() => {
        const box = scroller.current;
        if (!box) return;
        // Only who goes up leaves the end: an image may have moved it away before this is heard.
        if (box.scrollHeight - box.scrollTop - box.clientHeight < 40) end.current.sticks = true;
        else if (box.scrollTop < end.current.top) end.current.sticks = false;
        end.current.top = box.scrollTop;
        setBehind(!end.current.sticks);
      }}>
        <div class="conversation" ref={content}>
          {after > 0 && <p class="earlier">
            <button type="button" class="secondary" onClick={showAll}>Load the whole history</button>
          </p>}
          {turns.map((turn) => <TurnView key={turn.taskId} turn={turn} />)}
          {next && <Prompt text={next.prompt ?? ""} state="Waits its turn…" />}
          {sent.map((prompt) => <Prompt key={prompt.key} text={prompt.text} state={prompt.state} />)}
          {empty && (loadProblem.value
            ? <div class="empty" role="alert"><Icon name="warning" size={30} /><p>{loadProblem.value}</p>
              <button type="button" class="secondary" onClick={reopen}>Try again</button></div>
            : follows.value
              ? <div class="empty"><p>Nothing has been said here yet.</p></div>
              : <div class="skeleton conversation-skeleton" aria-hidden="true"><i /><i /><i /><i /></div>)}
          {closed !== null && <p class="continuing"><span>{CLOSED[closed] ?? "This session has ended"}</span></p>}
        </div>
      </div>
      {behind && <button type="button" class="to-end" onClick={toEnd}><Icon name="down" size={16} /> Latest</button>}
      <div class="bottom">
        {trouble.value && <p class="problem" role="alert">{trouble.value} <button type="button" class="link" onClick={() => { trouble.value = null; }}>Dismiss</button></p>}
        {rest.length > 0 && <QueueList queue={rest} />}
        <Composer />
      </div>
    </>
  );
}

const CLOSED: Record<string, string> = {
  ended: "This session has ended",
  batch_done: "This was a batch: it ended with its task",
  no_container: "This session ended: there was no container for it",
};

/** Whether the reader is at the end, and how far down that was. */
interface End {
  sticks: boolean;
  top: number;
}

function follow(scroller: HTMLElement | null, end: End): void {
  if (!end.sticks || !scroller) return;
  scroller.scrollTop = scroller.scrollHeight;
  end.top = scroller.scrollTop;
}

/** Keeps the end in view while the reader is there. */
function useFollowingTheEnd(
  scroller: { current: HTMLElement | null }, content: { current: HTMLElement | null }, end: { current: End },
): void {
  const id = sessionId.value;
  useLayoutEffect(() => { end.current.sticks = true; }, [id]);
  useLayoutEffect(() => {
    if (!scroller.current || !content.current) return;
    const observer = new ResizeObserver(() => follow(scroller.current, end.current));
    observer.observe(content.current);
    observer.observe(scroller.current);
    return () => observer.disconnect();
  }, []);
}

/** Says what a reader of the screen would notice: that it works, asks, and what came of it; of history only what was asked here. */
function useAnnouncements(): void {
  const turn = conversation.value.turns.at(-1);
  const ask = openAsk(activeTurn(conversation.value));
  /** The turn that is known to be at work, and the last one that is known to have ended. */
  const told = useRef<string | null>(null);
  const ended = useRef<string | null>(null);
  const replaying = conversation.value.replay !== null || !follows.value;
  useEffect(() => {
    if (!turn) return;
    const awaited = !replaying || asked.has(turn.taskId);
    if (turn.status !== "running") {
      const isNews = ended.current !== turn.taskId && (awaited || told.current === turn.taskId);
      ended.current = turn.taskId;
      asked.delete(turn.taskId);
      if (isNews) announce(outcome(turn));
    } else if (awaited && told.current !== turn.taskId) {
      told.current = turn.taskId;
      announce("The agent is working.");
    }
  }, [turn?.taskId, turn?.status, replaying]);
  useEffect(() => {
    if (ask && !replaying) announce(`The agent asks: ${ask.questions.map((question) => question.question).join(" ")}`);
  }, [ask?.askId, replaying]);
}

function outcome(turn: Turn): string {
  if (turn.status === "failed") return `The turn failed: ${turn.error ?? ""}`;
  if (turn.status === "cancelled") return "The agent was stopped.";
  const text = (turn.resultText ?? "").replace(/\]\([^)]*\)/g, "]").replace(/[*_`#[\]!]/g, "").trim();
  return `The agent answered: ${text.length > 600 ? `${text.slice(0, 600)}… The rest is in the conversation.` : text}`;
}

function CatchingUp() {
  if (catchingUp.value === null) return null;
  const { progress } = catchingUp.value;
  return (
    <div class="catching-up">
      <progress aria-label="Catching up" max={1} {...(progress === null ? {} : { value: progress })} />
      <span aria-hidden="true">Catching up{progress !== null && ` · ${Math.floor(progress * 100)} %`}</span>
    </div>
  );
}

function QueueList({ queue }: { queue: readonly Turn[] }) {
  const [problem, setProblem] = useState<string | null>(null);
  return (
    <section class="queue" aria-label="Queued messages">
      <h2>{queue.length === 1 ? "1 message waits" : `${queue.length} messages wait`}</h2>
      <ol>{queue.map((turn) => (
        <li key={turn.taskId}>
          <span>{turn.prompt}</span>
          <IconButton icon="close" label={`Remove “${titleOf(turn.prompt ?? "")}” from the queue`}
            onClick={() => remove(turn.taskId).then(() => setProblem(null), (error: unknown) => setProblem(words(error)))} />
        </li>
      ))}</ol>
      {problem && <p class="problem" role="alert">{problem}</p>}
    </section>
  );
}

/** The buttons in code are not components: their text was Markdown. */
function copyCode(event: MouseEvent): void {
  const button = (event.target as Element).closest<HTMLButtonElement>("button[data-copy]");
  const text = button?.closest(".code, .tool-block")?.querySelector("pre")?.textContent;
  if (!button || text == null) return;
  navigator.clipboard.writeText(text).then(() => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1_500);
  }, () => announce("The browser did not let this page copy."));
}
