import { useId, useState } from "preact/hooks";
import { words } from "../gateway";
import { erase, rename, type Session } from "../sessions";
import { Dialog } from "./dialog";

type Named = Pick<Session, "session_id" | "title">;

/** What `action` does, whether it is under way, and what went wrong. */
function useAction(action: () => Promise<void>, done: () => void) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<string | null>(null);
  async function act(event: Event): Promise<void> {
    event.preventDefault();
    setBusy(true);
    setProblem(null);
    try {
      await action();
      done();
    } catch (error) {
      setProblem(words(error));
      setBusy(false);
    }
  }
  return { act, busy, problem };
}

export function RenameDialog({ session, onClose }: { session: Named; onClose: () => void }) {
  const id = useId();
  const [title, setTitle] = useState(session.title ?? "");
  const { act, busy, problem } = useAction(() => rename(session.session_id, title.trim()), onClose);
  return (
    <Dialog title="Rename session" onClose={onClose}>
      <form onSubmit={act}>
        <label for={id}>Title</label>
        <input id={id} type="text" value={title} maxLength={100} autofocus required onInput={(event) => setTitle(event.currentTarget.value)} />
        {problem && <p class="problem" role="alert">{problem}</p>}
        <footer>
          <button type="button" class="secondary" onClick={onClose}>Cancel</button>
          <button type="submit" class="primary" disabled={busy || title.trim() === ""}>Rename</button>
        </footer>
      </form>
    </Dialog>
  );
}

export function DeleteDialog({ session, onClose }: { session: Named; onClose: () => void }) {
  const { act, busy, problem } = useAction(() => erase(session.session_id), onClose);
  return (
    <Dialog title="Delete session?" onClose={onClose}>
      <form onSubmit={act}>
        <p>“{session.title ?? "Untitled session"}” goes with its history and all its files. This can't be undone.</p>
        {problem && <p class="problem" role="alert">{problem}</p>}
        <footer>
          <button type="button" class="secondary" autofocus onClick={onClose}>Keep it</button>
          <button type="submit" class="danger" disabled={busy}>{busy ? "Deleting…" : "Delete"}</button>
        </footer>
      </form>
    </Dialog>
  );
}
