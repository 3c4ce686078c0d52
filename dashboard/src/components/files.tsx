import { useEffect, useRef, useState } from "preact/hooks";
import { announce } from "../announce";
import { download, files, filesProblem, filesShown, preview, refreshFiles, uploadFiles, uploading, type Preview } from "../files";
import { ago, bytes } from "../format";
import { words } from "../gateway";
import { sessionId } from "../route";
import { now } from "../screen";
import { Dialog } from "./dialog";
import { Icon, IconButton } from "./icon";

/** The workspace beside the conversation. */
export function Files() {
  const id = sessionId.value;
  const picker = useRef<HTMLInputElement>(null);
  const [shown, setShown] = useState<string | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  const [over, setOver] = useState(false);
  if (!id) return null;

  async function upload(chosen: FileList | null | undefined): Promise<void> {
    if (!id || !chosen || chosen.length === 0) return;
    setProblem(null);
    try {
      announce(`Uploaded ${(await uploadFiles(id, [...chosen])).join(", ")}`);
    } catch (error) {
      setProblem(words(error));
    }
  }

  const trouble = problem ?? filesProblem.value;
  return (
    <aside class={`files ${over ? "over" : ""}`} aria-label="Files"
      onKeyDown={(event) => { if (event.key === "Escape") filesShown.value = false; }}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); void upload(event.dataTransfer?.files); }}>
      <header class="bar">
        <h2>Files</h2>
        <span class="grow" />
        <IconButton icon="again" label="Look again" onClick={() => void refreshFiles()} />
        <IconButton icon="up" label="Upload files" onClick={() => picker.current?.click()} />
        <IconButton icon="close" label="Close files" onClick={() => { filesShown.value = false; }} />
        <input ref={picker} type="file" multiple hidden aria-hidden="true" tabIndex={-1}
          onChange={(event) => { void upload(event.currentTarget.files); event.currentTarget.value = ""; }} />
      </header>
      {trouble && <p class="problem" role="alert">{trouble}</p>}
      {uploading.value > 0 && <p class="hint pad"><span class="spinner" /> Uploading…</p>}
      {files.value === null && !trouble && <div class="skeleton pad" aria-hidden="true"><i /><i /><i /></div>}
      {files.value?.length === 0 && <div class="empty">
        <Icon name="files" size={30} />
        <p>No files yet</p>
        <p class="hint">What the agent makes shows here. Drop files to give it some.</p>
      </div>}
      <ul class="file-list">
        {files.value?.map((file) => (
          <li key={file.path}>
            <button type="button" class="file" onClick={() => setShown(file.path)}>
              <Icon name="document" />
              <span class="file-name">{file.path}</span>
              <span class="file-facts">{bytes(file.size)} · {ago(file.modified_ms, now.value)}</span>
            </button>
            <IconButton icon="download" label={`Download ${file.path}`}
              onClick={() => download(id, file.path).catch((error: unknown) => setProblem(words(error)))} />
          </li>
        ))}
      </ul>
      {shown !== null && <Viewer id={id} path={shown} onClose={() => setShown(null)} />}
    </aside>
  );
}

function Viewer({ id, path, onClose }: { id: string; path: string; onClose: () => void }) {
  const [content, setContent] = useState<Preview | null>(null);
  const [problem, setProblem] = useState<string | null>(null);
  useEffect(() => {
    let address: string | null = null;
    let gone = false;
    preview(id, path).then((loaded) => {
      if (loaded.kind === "image") address = loaded.url;
      if (gone && address) URL.revokeObjectURL(address);
      else setContent(loaded);
    }, (error: unknown) => setProblem(words(error)));
    return () => {
      gone = true;
      if (address) URL.revokeObjectURL(address);
    };
  }, [id, path]);
  return (
    <Dialog title={path} onClose={onClose} class="viewer">
      {problem && <p class="problem" role="alert">{problem}</p>}
      {!content && !problem && <p class="hint"><span class="spinner" /> Loading…</p>}
      {content?.kind === "image" && <div class="picture"><img src={content.url} alt={path} /></div>}
      {content?.kind === "text" && <pre tabIndex={0}>{content.text}</pre>}
      {content?.kind === "text" && content.cut && <p class="hint">This is the beginning: download it for all of it.</p>}
      {content?.kind === "none" && <p class="hint">{content.why}</p>}
      <footer>
        <button type="button" class="secondary" onClick={() => download(id, path).catch((error: unknown) => setProblem(words(error)))}>
          <Icon name="download" size={16} /> Download
        </button>
      </footer>
    </Dialog>
  );
}
