import { useState } from "preact/hooks";
import { account, signOut } from "../auth";
import { ago, day } from "../format";
import { connection } from "../live";
import { open, sessionId } from "../route";
import { now, sizes } from "../screen";
import { listProblem, loadMore, more, reload, sessions, work, type Session } from "../sessions";
import { DeleteDialog, RenameDialog } from "./dialogs";
import { Icon, IconButton } from "./icon";

/** All sessions of the user. */
export function Sidebar({ onLeave }: { onLeave: () => void }) {
  const [renamed, setRenamed] = useState<Session | null>(null);
  const [deleted, setDeleted] = useState<Session | null>(null);
  const list = sessions.value;
  const choose = (id: string | null) => { open(id); onLeave(); };
  const groups = new Map<string, Session[]>();
  for (const session of list ?? []) {
    const heading = day(session.updated_at, now.value);
    groups.set(heading, [...(groups.get(heading) ?? []), session]);
  }
  return (
    <nav class="sidebar" aria-label="Sessions" onKeyDown={(event) => { if (event.key === "Escape") onLeave(); }}>
      <header class="bar">
        <span class="brand"><span class="logo" aria-hidden="true" />streamgate</span>
        <span class="grow" />
        {sizes.phone.value && <IconButton icon="close" label="Close sessions" onClick={onLeave} />}
      </header>
      <button type="button" class="new-session" aria-current={sessionId.value === null ? "page" : undefined} onClick={() => choose(null)}>
        <Icon name="plus" /> New session
      </button>
      <div class="session-list">
        {listProblem.value && connection.value === "online" && <div class="problem" role="alert">
          <p>{listProblem.value}</p><button type="button" class="link" onClick={() => void reload()}>Try again</button>
        </div>}
        {list === null && !listProblem.value && <div class="skeleton" aria-hidden="true"><i /><i /><i /><i /></div>}
        {list?.length === 0 && <p class="hint pad">Your sessions will be listed here.</p>}
        {[...groups].map(([heading, group]) => (
          <section key={heading}>
            <h2>{heading}</h2>
            <ul>{group.map((session) => (
              <Row key={session.session_id} session={session} onOpen={() => choose(session.session_id)}
                onRename={() => setRenamed(session)} onDelete={() => setDeleted(session)} />
            ))}</ul>
          </section>
        ))}
        {more.value && <button type="button" class="link pad" onClick={() => void loadMore()}>Show older ones</button>}
      </div>
      {!account.value.byCookie && <footer class="sidebar-foot">
        <button type="button" class="quiet" onClick={() => { open(null); signOut(); }}><Icon name="leave" /> Sign out</button>
      </footer>}
      {renamed && <RenameDialog session={renamed} onClose={() => setRenamed(null)} />}
      {deleted && <DeleteDialog session={deleted} onClose={() => setDeleted(null)} />}
    </nav>
  );
}

const STATES = {
  working: "at work", asking: "waits for you", queued: "waits its turn", idle: "", closed: "ended",
} as const;

function Row({ session, onOpen, onRename, onDelete }: {
  session: Session; onOpen: () => void; onRename: () => void; onDelete: () => void;
}) {
  const state = session.status === "closed" ? "closed" : work.value.get(session.session_id) ?? "idle";
  const title = session.title ?? "Untitled session";
  return (
    <li class="session">
      <button type="button" class="session-open" aria-current={sessionId.value === session.session_id ? "page" : undefined} onClick={onOpen}>
        <span class="session-title">{title}</span>
        <span class="session-facts">
          {STATES[state] && <span class={`state ${state}`}>{STATES[state]}</span>}
          <time dateTime={new Date(session.updated_at).toISOString()}>{ago(session.updated_at, now.value)}</time>
        </span>
      </button>
      <span class="session-tools">
        <IconButton icon="pencil" label={`Rename ${title}`} onClick={onRename} />
        <IconButton icon="trash" label={`Delete ${title}`} onClick={onDelete} />
      </span>
    </li>
  );
}
