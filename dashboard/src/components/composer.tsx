import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import type { Streamgate } from "streamgate";
import { announce } from "../announce";
import { activeTurn } from "../conversation";
import { uploadFiles } from "../files";
import { client, words } from "../gateway";
import { conversation, send, stop, stopping } from "../live";
import { sessionId } from "../route";
import { sizes } from "../screen";
import { IconButton } from "./icon";

/** Drafts outlive a look at another session, but not whose they are. */
const draftsOf = new WeakMap<Streamgate, Map<string, string>>();

function ownDrafts(): Map<string, string> {
  const drafts = draftsOf.get(client()) ?? new Map<string, string>();
  draftsOf.set(client(), drafts);
  return drafts;
}

/** Where prompts are written. */
export function Composer({ profileId }: { profileId?: string }) {
  const id = sessionId.value;
  const place = id ?? "new";
  const [drafts] = useState(ownDrafts);
  const [text, setText] = useState(drafts.get(place) ?? "");
  const [problem, setProblem] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const field = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const active = activeTurn(conversation.value);

  useEffect(() => {
    setText(drafts.get(place) ?? "");
    setProblem(null);
    // On a phone the keyboard would cover what was opened to be read.
    if (!sizes.phone.value) field.current?.focus();
  }, [place]);

  useLayoutEffect(() => {
    const area = field.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 240)}px`;
  }, [text]);

  function write(value: string): void {
    drafts.set(place, value);
    setText(value);
  }

  async function submit(): Promise<void> {
    const prompt = text.trim();
    if (prompt === "" || busy) return;
    write("");
    setProblem(null);
    setBusy(id === null);
    try {
      await send(prompt, profileId);
    } catch (error) {
      // Unless something new has been written meanwhile.
      if ((drafts.get(place) ?? "") === "") write(prompt);
      setProblem(words(error));
    } finally {
      setBusy(false);
    }
  }

  async function attach(files: FileList | null): Promise<void> {
    if (!files || files.length === 0 || !id) return;
    setProblem(null);
    try {
      const names = await uploadFiles(id, [...files]);
      announce(`Uploaded ${names.join(", ")}`);
      write(`${text}${text && !text.endsWith(" ") ? " " : ""}${names.join(" ")} `);
      field.current?.focus();
    } catch (error) {
      setProblem(words(error));
    }
  }

  return (
    <form class="composer" onSubmit={(event) => { event.preventDefault(); void submit(); }}>
      {problem && <p class="problem" role="alert">{problem}</p>}
      <div class="composer-box">
        <label class="sr-only" for="prompt">Message to the agent</label>
        <textarea id="prompt" ref={field} rows={1} value={text} disabled={conversation.value.closed !== null && id !== null}
          placeholder={conversation.value.closed !== null && id !== null ? "This session has ended" : active ? "Say what comes next…" : "Message the agent…"}
          onInput={(event) => write(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
            // On a phone Enter makes a line, as its keyboard says; a button sends.
            if (sizes.phone.value) return;
            event.preventDefault();
            void submit();
          }} />
        <div class="composer-buttons">
          {id && <>
            <input ref={picker} type="file" multiple hidden aria-hidden="true" tabIndex={-1}
              onChange={(event) => { void attach(event.currentTarget.files); event.currentTarget.value = ""; }} />
            <IconButton icon="clip" label="Upload files to the workspace" onClick={() => picker.current?.click()} />
          </>}
          <span class="grow" />
          {active && <IconButton icon="stop" label={stopping.value === active.taskId ? "Stopping…" : "Stop"} class="stop"
            disabled={stopping.value === active.taskId}
            onClick={() => stop(active.taskId).catch((error: unknown) => setProblem(words(error)))} />}
          <button type="submit" class="icon-button send" aria-label={active ? "Add to the queue" : "Send"}
            title={active ? "Add to the queue" : "Send"} disabled={text.trim() === "" || busy}>
            <svg class="icon" viewBox="0 0 24 24" width="20" height="20" aria-hidden="true"><path d="M12 19V5M6 11l6-6 6 6" fill="none" stroke="currentColor" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round" /></svg>
          </button>
        </div>
      </div>
    </form>
  );
}
