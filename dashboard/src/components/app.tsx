import { useEffect, useRef, useState } from "preact/hooks";
import { announcement } from "../announce";
import { account } from "../auth";
import { filesShown } from "../files";
import { connection } from "../live";
import { sessionId } from "../route";
import { sizes } from "../screen";
import { Chat } from "./chat";
import { Files } from "./files";
import { Sidebar } from "./sidebar";
import { SignIn } from "./sign-in";

export function App() {
  const { status } = account.value;
  return (
    <>
      {status === "in" ? <Dashboard /> : status === "starting" ? <p class="starting" role="status"><span class="spinner" /><span class="sr-only">Loading</span></p> : <SignIn />}
      <div class="sr-only" role="status" aria-live="polite">{announcement.value}</div>
    </>
  );
}

function Dashboard() {
  const phone = sizes.phone.value;
  const [menu, setMenu] = useState(false);
  const side = useRef<HTMLDivElement>(null);
  const covered = phone && menu;
  useEffect(() => { if (covered) side.current?.querySelector("button")?.focus(); }, [covered]);
  const files = filesShown.value && sessionId.value !== null;
  return (
    <>
      <a class="skip" href="#prompt" onClick={(event) => { event.preventDefault(); document.querySelector<HTMLElement>("#prompt")?.focus(); }}>Skip to the message</a>
      <Connection />
      <div class={`dashboard ${files ? "with-files" : ""}`}>
        <div ref={side} class={`side ${menu ? "shown" : ""}`} inert={phone && !menu}><Sidebar onLeave={() => setMenu(false)} /></div>
        {covered && <div class="curtain" onClick={() => setMenu(false)} />}
        <div class="middle" inert={covered || (files && phone)}><Chat onMenu={() => setMenu(true)} /></div>
        {files && <Files />}
      </div>
    </>
  );
}

/** Says that the connection is away, once it has been for a moment. */
function Connection() {
  const state = connection.value;
  const [shown, setShown] = useState(false);
  useEffect(() => {
    if (state === "online") return setShown(false);
    const timer = setTimeout(() => setShown(true), 800);
    return () => clearTimeout(timer);
  }, [state]);
  if (!shown) return null;
  return (
    <p class="connection" role="status">
      <span class="spinner" />
      {state === "offline" ? "You are offline. This goes on by itself when you are back." : "The connection is lost. Connecting again…"}
    </p>
  );
}
