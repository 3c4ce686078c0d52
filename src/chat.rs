//! `streamgate chat`: talks to a gateway from a terminal, over the public protocol.
//!
//! Owns the socket, the keyboard and the way back after a break; `chat::conversation` remembers and
//! decides what to send, `chat::screen` shows.

mod conversation;
mod screen;

use std::io::{BufRead as _, IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::http::{HeaderValue, header};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value};
use streamgate::config::Config;
use streamgate::protocol::SUBPROTOCOL;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use self::conversation::Conversation;

/// How long a connection may take to be made, and a goodbye to be said.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Silence after which the gateway is asked for a sign of life; after twice that it is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// The pause before the first try to come back; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a connection must hold to count as a new beginning.
const STABLE: Duration = Duration::from_secs(10);
/// Tries to come back in a row before a single turn is given up; a conversation never is.
const TRIES: u32 = 10;

/// What `streamgate chat` is told. The token is not among it: command lines are for all to see.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The gateway: `ws://HOST:PORT` or `wss://HOST` [default: this configuration's]
    #[arg(long, env = "STREAMGATE_URL", hide_env_values = true)]
    url: Option<String>,
    /// A session to come back to: `sess_…`
    #[arg(long)]
    session: Option<String>,
    /// The agent to talk to: `demo` or `prof_demo`
    #[arg(long)]
    profile: Option<String>,
    /// One prompt: shows its turn and ends, with exit code 0 if it completed. Without it, what is
    /// piped in is the prompt, and a terminal begins a conversation.
    prompt: Vec<String>,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Talks until the turn or the conversation is over. The token comes from `STREAMGATE_TOKEN`, else
/// from the first-token file of a gateway on this machine.
pub(crate) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let url = arguments.url.unwrap_or_else(|| format!("ws://{}", config.local_address()));
    let request = request(&url, &token(&config)?)?;
    let profile = arguments.profile.map(|name| if name.starts_with("prof_") { name } else { format!("prof_{name}") });
    let mut conversation = Conversation::new(arguments.session, profile);
    let mut prompt = arguments.prompt.join(" ");
    if prompt.is_empty() && !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_string(&mut prompt).context("can't read stdin")?;
        if prompt.trim().is_empty() {
            bail!("nothing was piped in — pipe a prompt, or give it as an argument");
        }
    }
    let one_turn = !prompt.is_empty();
    conversation.say(&prompt)?;
    let interrupts = signal(SignalKind::interrupt()).context("can't listen to Ctrl-C")?;
    Chat { url, request, conversation, one_turn, keyboard: None, typed_out: false, interrupts, cancelling: false }
        .run()
        .await
}

/// The request to upgrade.
fn request(url: &str, token: &str) -> anyhow::Result<Request> {
    let how = "write ws://HOST:PORT or wss://HOST";
    let (scheme, rest) = url.split_once("://").with_context(|| format!("`{url}` is no URL — {how}"))?;
    let scheme = match scheme {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => bail!("`{url}` is no address of a gateway — {how}"),
    };
    let host = rest.trim_end_matches('/').trim_end_matches("/v1/stream");
    let mut request = format!("{scheme}://{host}/v1/stream")
        .into_client_request()
        .with_context(|| format!("`{url}` is no address of a gateway — {how}"))?;
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .context("the token holds what no token does — copy it again")?;
    bearer.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    Ok(request)
}

fn token(config: &Config) -> anyhow::Result<String> {
    if let Some(token) = std::env::var("STREAMGATE_TOKEN").ok().filter(|token| !token.trim().is_empty()) {
        return Ok(token.trim().to_owned());
    }
    let file = config.data_dir().join("first-token");
    let token = std::fs::read_to_string(&file).with_context(|| {
        format!(
            "no token: STREAMGATE_TOKEN is not set, and {} can't be read — set it to what `streamgate token create \
             --user YOU` prints",
            file.display()
        )
    })?;
    Ok(token.trim().to_owned())
}

/// What is typed.
enum Line {
    Text(String),
    End,
}

/// How a connection ended.
enum End {
    /// All is said.
    Done(ExitCode),
    /// It broke; come back after this pause.
    Broken(Pause),
}

/// How long to stay away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// A moment, so that not all come back at once. The server may name one.
    Moment(Duration),
    /// Longer each time, and at least this long.
    Growing(Duration),
}

struct Chat {
    url: String,
    request: Request,
    conversation: Conversation,
    one_turn: bool,
    /// What is typed; read only when somebody wants it, so that a turn in a script leaves the
    /// script's stdin alone.
    keyboard: Option<mpsc::Receiver<Line>>,
    /// Whether nothing more will be typed.
    typed_out: bool,
    /// Presses of Ctrl-C.
    interrupts: Signal,
    /// Whether it was pressed for the task at work.
    cancelling: bool,
}

impl Chat {
    async fn run(mut self) -> anyhow::Result<ExitCode> {
        let mut socket = self.connect().await?;
        if !self.one_turn {
            let hello = format!("connected to {}; Ctrl-C cancels a task, Ctrl-D leaves", self.url);
            self.conversation.screen().note(&hello)?;
        }
        let mut tries = 0;
        loop {
            let began = Instant::now();
            let pause = match self.talk(socket).await? {
                End::Done(code) => return Ok(code),
                End::Broken(pause) => pause,
            };
            if began.elapsed() > STABLE {
                tries = 0;
            }
            let mut wait = pause.jittered(tries);
            self.conversation.screen().aside("the connection broke; coming back")?;
            socket = loop {
                tries += 1;
                tokio::select! {
                    () = sleep(wait) => (),
                    _ = self.interrupts.recv() => return self.leave(),
                }
                match self.connect().await {
                    Ok(socket) => break socket,
                    Err(error) if self.one_turn && tries >= TRIES => return Err(error),
                    Err(_) => wait = Pause::Growing(Duration::ZERO).jittered(tries),
                }
            };
        }
    }

    async fn connect(&self) -> anyhow::Result<Socket> {
        let connecting = tokio_tungstenite::connect_async(self.request.clone());
        let url = &self.url;
        match timeout(CONNECT_DEADLINE, connecting).await {
            Ok(Ok((socket, _))) => Ok(socket),
            Ok(Err(error)) => {
                bail!("no gateway at {url}: {error} — start one with `streamgate`, or name it by `--url`")
            }
            Err(_) => bail!("no answer from {url} within {CONNECT_DEADLINE:?} — is that the right address?"),
        }
    }

    /// One connection, from hello to goodbye.
    async fn talk(&mut self, mut socket: Socket) -> anyhow::Result<End> {
        self.conversation.connected();
        let mut asked_for_life = false;
        loop {
            while let Some(frame) = self.conversation.next_frame() {
                if socket.send(Message::text(frame)).await.is_err() {
                    return Ok(End::Broken(Pause::Growing(Duration::ZERO)));
                }
            }
            if let Some(code) = self.is_over()? {
                // The gateway may be gone already.
                let _ = timeout(CLOSE_DEADLINE, socket.close(None)).await;
                return Ok(End::Done(code));
            }
            if self.typed_out && self.conversation.is_asked() {
                self.conversation.screen().line("the agent asks, and nobody is here to answer")?;
                self.conversation.cancel();
                continue;
            }
            if self.conversation.is_idle() && (!self.one_turn || self.conversation.is_asked()) {
                self.conversation.screen().prompt("> ")?;
                self.keyboard.get_or_insert_with(read_keyboard);
            }
            tokio::select! {
                message = socket.next() => {
                    asked_for_life = false;
                    match message {
                        Some(Ok(Message::Text(text))) => {
                            let frame: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
                            self.conversation.receive(&frame)?;
                        }
                        Some(Ok(Message::Close(close))) => return Ok(End::Broken(after_close(close.as_ref())?)),
                        Some(Ok(_)) => (), // Pings are answered by the library.
                        Some(Err(_)) | None => return Ok(End::Broken(Pause::Growing(Duration::ZERO))),
                    }
                }
                line = typed(&mut self.keyboard) => {
                    self.conversation.screen().entered();
                    match line {
                        Line::Text(line) => self.conversation.say(&line)?,
                        Line::End if !self.one_turn => return self.leave().map(End::Done),
                        Line::End => {
                            self.keyboard = None;
                            self.typed_out = true;
                        }
                    }
                }
                _ = self.interrupts.recv() => {
                    if self.cancelling || !self.conversation.cancel() {
                        return self.leave().map(End::Done);
                    }
                    self.cancelling = true;
                    self.conversation.screen().note("cancelling; Ctrl-C again to leave")?;
                }
                () = sleep(SILENCE) => {
                    if asked_for_life || socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return Ok(End::Broken(Pause::Growing(Duration::ZERO)));
                    }
                    asked_for_life = true;
                }
            }
            if self.conversation.is_idle() {
                self.cancelling = false;
            }
        }
    }

    /// The exit code, when there is nothing more to do.
    fn is_over(&mut self) -> anyhow::Result<Option<ExitCode>> {
        if self.one_turn
            && let Some(completed) = self.conversation.outcome()
        {
            self.conversation.screen().end_line()?;
            return Ok(Some(if completed { ExitCode::SUCCESS } else { ExitCode::FAILURE }));
        }
        match self.conversation.refusal() {
            Some(refusal) => bail!("{refusal}"),
            None => Ok(None),
        }
    }

    /// The user has had enough; the session stays.
    fn leave(&mut self) -> anyhow::Result<ExitCode> {
        if let Some(session) = self.conversation.session().map(str::to_owned) {
            self.conversation.screen().note(&format!("come back with: streamgate chat --session {session}"))?;
        }
        Ok(if self.one_turn { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

impl Pause {
    fn jittered(self, tries: u32) -> Duration {
        let (least, spread) = match self {
            Self::Moment(least) => (least, FIRST_PAUSE),
            Self::Growing(least) => (least, FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_PAUSE)),
        };
        least + spread.mul_f64(rand::random())
    }
}

/// What a close code asks of us, by its range; an error when coming back unchanged is no use.
fn after_close(close: Option<&CloseFrame>) -> anyhow::Result<Pause> {
    let Some(close) = close else { return Ok(Pause::Growing(Duration::ZERO)) };
    let reason: Value = serde_json::from_str(&close.reason).unwrap_or_default();
    let named = reason["retry_after_ms"].as_u64().map(Duration::from_millis);
    match u16::from(close.code) {
        1000 | 1001 | 1012 | 4200..=4299 => Ok(Pause::Moment(named.unwrap_or_default())),
        4001 => {
            bail!("the gateway refuses the token — set STREAMGATE_TOKEN to one that `streamgate token create` made")
        }
        code @ (1002 | 1003 | 1007 | 1009 | 4000..=4099) => {
            bail!("the gateway closed the connection ({code} {}) — this client can't mend that", close.reason)
        }
        _ => Ok(Pause::Growing(named.unwrap_or(Duration::from_secs(1)))),
    }
}

/// The next line; never, while nobody reads the keyboard.
async fn typed(keyboard: &mut Option<mpsc::Receiver<Line>>) -> Line {
    match keyboard {
        Some(lines) => lines.recv().await.unwrap_or(Line::End),
        None => std::future::pending().await,
    }
}

/// Reads lines on a thread of its own: a read of a terminal can't be given up.
fn read_keyboard() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.blocking_send(Line::Text(line)).is_err() {
                return;
            }
        }
        // Nobody listens any more: the conversation is over.
        let _ = sender.blocking_send(Line::End);
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(code: u16, reason: &str) -> anyhow::Result<Pause> {
        after_close(Some(&CloseFrame { code: code.into(), reason: reason.to_owned().into() }))
    }

    #[test]
    fn close_codes_are_followed_by_their_range() {
        for code in [1000, 1001, 1012, 4200, 4242] {
            assert_eq!(close(code, "").unwrap(), Pause::Moment(Duration::ZERO), "{code}");
        }
        for code in [1011, 1013, 4100, 4102, 4199, 4300] {
            assert_eq!(close(code, "").unwrap(), Pause::Growing(Duration::from_secs(1)), "{code}");
        }
        for code in [1002, 1003, 1007, 1009, 4001, 4003, 4099] {
            assert!(close(code, "").unwrap_err().to_string().contains(" — "), "{code}");
        }
        let named = close(4104, r#"{"code":"too_many_connections","retry_after_ms":5000}"#).unwrap();
        assert_eq!(named, Pause::Growing(Duration::from_secs(5)));
        assert_eq!(after_close(None).unwrap(), Pause::Growing(Duration::ZERO));
    }

    #[test]
    fn pauses_grow_up_to_a_limit_and_keep_the_least() {
        for tries in [0, 1, 5, 50] {
            let pause = Pause::Growing(Duration::from_secs(1)).jittered(tries);
            assert!(pause >= Duration::from_secs(1) && pause <= Duration::from_secs(31), "{pause:?}");
        }
    }

    #[test]
    fn a_gateway_can_be_named_in_all_the_usual_ways() {
        for (url, expected) in [
            ("ws://h:1", "ws://h:1/v1/stream"),
            ("http://h:1/", "ws://h:1/v1/stream"),
            ("https://h", "wss://h/v1/stream"),
            ("wss://h/v1/stream", "wss://h/v1/stream"),
        ] {
            assert_eq!(request(url, "rc_1").unwrap().uri().to_string(), expected);
        }
        for bad in ["h:1", "ftp://h", "ws://"] {
            assert!(request(bad, "rc_1").is_err(), "{bad}");
        }
        assert!(!format!("{:?}", request("ws://h", "rc_1").unwrap()).contains("rc_1"));
    }
}
