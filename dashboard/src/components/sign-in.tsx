import { useEffect, useState } from "preact/hooks";
import { account, signIn } from "../auth";

/** For who has no token yet, or one that does not do any more. */
export function SignIn() {
  const [token, setToken] = useState("");
  const { problem, status } = account.value;
  const checking = status === "checking";
  useEffect(() => { document.title = "streamgate"; }, []);
  return (
    <main class="sign-in">
      <form class="card" onSubmit={(event) => { event.preventDefault(); void signIn(token.trim()); }}>
        <span class="logo large" aria-hidden="true" />
        <h1>Sign in to streamgate</h1>
        <p class="hint">The link that the gateway prints at its start signs you in. Or paste a token:</p>
        <label for="token">Token</label>
        <input id="token" type="password" autocomplete="off" spellcheck={false} placeholder="rc_…" value={token} required
          aria-invalid={problem !== null} aria-describedby={problem ? "sign-in-problem" : undefined}
          onInput={(event) => setToken(event.currentTarget.value)} />
        {problem && <p class="problem" id="sign-in-problem" role="alert">{problem}</p>}
        <button type="submit" class="primary" disabled={checking || token.trim() === ""}>{checking ? "Signing in…" : "Sign in"}</button>
        <p class="hint">It stays in this tab only. Make one with <code>streamgate token create --user me</code>.</p>
      </form>
    </main>
  );
}
