//! `streamgate chat`: talks to a gateway from a terminal, over the public protocol.
//!
//! Owns the connection, the keyboard and the signals; `chat::conversation` remembers and decides what to send,
//! `chat::screen` shows, `chat::connect` finds the way back after a break.

mod asking;
mod connect;
mod conversation;
mod key;
mod keyboard;
mod panel;
mod picker;
mod screen;
mod tools;

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Map, Value};
use streamgate::config::Config;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use self::connect::{Gateway, Pause, Socket, after_close};
use self::conversation::Conversation;
use self::key::Key;
use self::keyboard::{Keyboard, Typed};

/// How long a goodbye may take to be said.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// Silence after which the gateway is asked for a sign of life; after twice that it is gone.
const SILENCE: Duration = Duration::from_secs(35);
/// After how long a user hears that a task has not begun.
const LONG_WAIT: Duration = Duration::from_secs(3);
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

/// Talks until the turn or the conversation is over. The token comes from `STREAMGATE_TOKEN`, else
/// from the first-token file of a gateway on this machine.
pub(crate) async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let gateway = Gateway::new(arguments.url, &config)?;
    let profile = arguments.profile.map(|name| if name.starts_with("prof_") { name } else { format!("prof_{name}") });
    let mut prompt = arguments.prompt.join(" ");
    if prompt.is_empty() && !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_string(&mut prompt).context("can't read stdin")?;
        if prompt.trim().is_empty() {
            bail!("nothing was piped in — pipe a prompt, or give it as an argument");
        }
    }
    let one_turn = !prompt.is_empty();
    let keyboard = Keyboard::new();
    let mut conversation = Conversation::new(arguments.session, profile, keyboard.has_keys(), !one_turn);
    conversation.say(&prompt)?;
    let interrupts = signal(SignalKind::interrupt()).context("can't listen to Ctrl-C")?;
    let at_terminal = keyboard.has_keys();
    let mut chat = Chat { gateway, conversation, one_turn, keyboard, typed_out: false, interrupts };
    let result = tokio::select! {
        result = chat.run() => result,
        code = ended(), if at_terminal => code.context("can't listen to signals"),
    };
    // Whatever it ended by: what is written next comes below.
    let cleared = chat.conversation.screen().drop_panel();
    let code = result?;
    cleared?;
    Ok(code)
}

/// Waits for a signal that ends this process, which at a terminal has to wait until that is as it was before.
/// Returns the exit code that shells give to such an end.
async fn ended() -> std::io::Result<ExitCode> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(ExitCode::from(tokio::select! {
        _ = hangup.recv() => 128 + 1,
        _ = quit.recv() => 128 + 3,
        _ = terminate.recv() => 128 + 15,
    }))
}

/// How a connection ended.
enum End {
    /// All is said.
    Done(ExitCode),
    /// It broke; come back after this pause.
    Broken(Pause),
}

struct Chat {
    gateway: Gateway,
    conversation: Conversation,
    one_turn: bool,
    keyboard: Keyboard,
    /// Whether nothing more will be typed.
    typed_out: bool,
    /// Presses of Ctrl-C.
    interrupts: Signal,
}

impl Chat {
    async fn run(&mut self) -> anyhow::Result<ExitCode> {
        let mut socket = tokio::select! {
            socket = self.gateway.connect() => socket?,
            _ = self.interrupts.recv() => {
                show_echo(&mut self.conversation, &self.keyboard);
                return self.leave();
            }
        };
        if !self.one_turn {
            let hello = format!("connected to {}; Ctrl-C cancels a task, Ctrl-D leaves", self.gateway.url());
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
            // What was asked may be answered by somebody else meanwhile.
            self.conversation.screen().drop_panel()?;
            self.keyboard.read_keys(false)?;
            self.conversation.screen().aside("the connection broke; coming back")?;
            socket = match self.come_back(pause, &mut tries).await? {
                Some(socket) => socket,
                None => return self.leave(),
            };
        }
    }

    /// A new connection, however long it takes. `None`: the user has had enough.
    async fn come_back(&mut self, pause: Pause, tries: &mut u32) -> anyhow::Result<Option<Socket>> {
        let (gateway, one_turn) = (&self.gateway, self.one_turn);
        let mut connecting = std::pin::pin!(async {
            let mut wait = pause.jittered(*tries);
            loop {
                *tries += 1;
                sleep(wait).await;
                match gateway.connect().await {
                    Err(_) if !one_turn || *tries < TRIES => wait = Pause::Growing(Duration::ZERO).jittered(*tries),
                    made => return made,
                }
            }
        });
        loop {
            tokio::select! {
                made = &mut connecting => return made.map(Some),
                _ = self.interrupts.recv() => {
                    if !interrupted(&mut self.conversation, &self.keyboard)? {
                        return Ok(None);
                    }
                }
            }
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
            self.listen()?;
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
                typed = self.keyboard.next() => {
                    if let Some(code) = self.heed(typed)? {
                        return Ok(End::Done(code));
                    }
                }
                _ = self.interrupts.recv() => {
                    if !interrupted(&mut self.conversation, &self.keyboard)? {
                        return self.leave().map(End::Done);
                    }
                }
                () = sleep(LONG_WAIT), if self.conversation.waits_for_others() => self.conversation.note_wait()?,
                () = sleep(SILENCE) => {
                    if asked_for_life || socket.send(Message::Ping(Bytes::new())).await.is_err() {
                        return Ok(End::Broken(Pause::Growing(Duration::ZERO)));
                    }
                    asked_for_life = true;
                }
            }
        }
    }

    /// Has the keyboard say what is waited for: keys for a question, where there are any, or lines.
    fn listen(&mut self) -> anyhow::Result<()> {
        let by_keys = self.keyboard.has_keys() && self.conversation.is_asked();
        self.keyboard.read_keys(by_keys)?;
        self.conversation.show_choices()?;
        if !by_keys && self.conversation.is_idle() && (!self.one_turn || self.conversation.is_asked()) {
            self.conversation.screen().prompt("> ")?;
            self.keyboard.read_lines();
        }
        Ok(())
    }

    /// Heeds what was typed. The exit code, when that was the end.
    fn heed(&mut self, typed: Typed) -> anyhow::Result<Option<ExitCode>> {
        match typed {
            Typed::Line(line) => {
                self.conversation.screen().entered();
                if !self.conversation.unfold(&line)? {
                    self.conversation.say(&line)?;
                }
            }
            Typed::Key(Key::Leave) => return self.leave().map(Some),
            Typed::Key(key) => self.conversation.press(key)?,
            Typed::End if !self.one_turn => return self.leave().map(Some),
            Typed::End => {
                self.keyboard.close();
                self.typed_out = true;
            }
        }
        Ok(None)
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
        self.conversation.screen().drop_panel()?;
        self.conversation.screen().end_line()?;
        if let Some(session) = self.conversation.session().map(str::to_owned) {
            self.conversation.screen().note(&format!("come back with: streamgate chat --session {session}"))?;
        }
        Ok(if self.one_turn { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Ctrl-C: the first cancels what is at work. False: it was not the first, or nothing is at work.
fn interrupted(conversation: &mut Conversation, keyboard: &Keyboard) -> anyhow::Result<bool> {
    show_echo(conversation, keyboard);
    let cancels = conversation.cancel();
    if cancels {
        conversation.show_choices()?;
        conversation.screen().note("cancelling; Ctrl-C again to leave")?;
    }
    Ok(cancels)
}

/// A terminal shows `^C` where the cursor is.
fn show_echo(conversation: &mut Conversation, keyboard: &Keyboard) {
    if keyboard.echoes() {
        conversation.screen().echoed();
    }
}
