//! The built-in agent, `streamgate demo-agent`: no key, no network, and every event of the protocol on
//! demand, by directives in the prompt (`demo::directive` lists them).
//!
//! It speaks the native protocol of `docs/agent-protocol.md` on stdio and uses nothing else of the
//! gateway, which knows it no better than any other agent. Its workspace is its current directory.

mod directive;
mod job;
mod tool;
mod wire;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use job::{Job, Stop};
use wire::{Command, Inbox, Out};

/// Turns that may wait behind the running one. The gateway sends none; whoever sends more hears on
/// stderr that they are dropped.
const WAITING_TURNS: usize = 16;
/// Answers on their way to the question that is open.
const WAITING_ANSWERS: usize = 16;

/// Serves stdio until stdin closes and the current turn has ended. SIGINT and SIGTERM end the process
/// at once, and the tools it runs with it; `/crash` and a closed stdout end the process too.
pub async fn run() -> anyhow::Result<()> {
    let workspace = std::env::current_dir().context("the demo agent needs a current directory to work in")?;
    let hanging = AtomicBool::new(false);
    let mut interrupted = signal(SignalKind::interrupt()).context("can't listen for SIGINT")?;
    let mut terminated = signal(SignalKind::terminate()).context("can't listen for SIGTERM")?;

    // Dropping the service kills the process groups of its tools.
    let code = tokio::select! {
        served = serve(tokio::io::stdin(), tokio::io::stdout(), &workspace, &hanging) => match served {
            Ok(None) => return Ok(()),
            Ok(Some(code)) => code,
            Err(error) => {
                eprintln!("demo-agent: stdout is closed: {error}");
                1
            }
        },
        () = async { while interrupted.recv().await.is_some() && hanging.load(Ordering::Relaxed) {} } => 128 + 2,
        _ = terminated.recv() => 128 + 15,
    };
    // Returning would wait for a read of stdin that may never end.
    std::process::exit(code)
}

/// Reads commands and works on them one at a time until stdin closes, or until `/crash`, whose
/// exit code it returns. `hanging` tells signal handlers that `/hang` is on.
async fn serve(
    stdin: impl AsyncRead + Unpin,
    stdout: impl AsyncWrite + Unpin,
    workspace: &Path,
    hanging: &AtomicBool,
) -> io::Result<Option<i32>> {
    let mut inbox = Inbox::new(stdin);
    let mut out = Out::new(stdout);
    let mut waiting = VecDeque::new();
    // Outlives its leg when that stops at the turn limit.
    let mut current: Option<Job> = None;
    loop {
        let command = match waiting.pop_front() {
            Some(turn) => turn,
            None => match inbox.next().await {
                Some(command) => command,
                None => return Ok(None),
            },
        };
        let mut job = match command {
            Command::Turn(turn) => Job::new(turn, workspace),
            Command::Continue => {
                let Some(job) = current.take() else {
                    out.error("there is nothing to continue", &wire::Usage::default(), 0);
                    out.flush().await?;
                    continue;
                };
                job
            }
            // Whatever it was meant for has stopped already, and said so.
            Command::Interrupt => {
                current = None;
                continue;
            }
            Command::Answer { .. } | Command::Unknown => continue,
        };
        let stop = attend(&mut job, &mut inbox, &mut out, &mut waiting, hanging).await?;
        let usage = job.usage(out.take_words());
        match &stop {
            Stop::EndTurn => out.done("end_turn", &usage, job.model_calls()),
            Stop::MaxTurns => out.done("max_turns", &usage, job.model_calls()),
            Stop::Interrupted => {
                job.kill_tools().await;
                out.close_open_tools();
                out.done("interrupted", &usage, job.model_calls());
            }
            Stop::Failed(message) => out.error(message, &usage, job.model_calls()),
            Stop::Crash(_) => (),
        }
        out.flush().await?;
        match stop {
            Stop::Crash(code) => return Ok(Some(code)),
            Stop::MaxTurns => current = Some(job),
            Stop::EndTurn | Stop::Interrupted | Stop::Failed(_) => {
                job.leave_background_processes();
                current = None;
            }
        }
    }
}

/// Works on `job` while listening: an interrupt drops the work where it stands.
async fn attend(
    job: &mut Job,
    inbox: &mut Inbox<impl AsyncRead + Unpin>,
    out: &mut Out<impl AsyncWrite + Unpin>,
    waiting: &mut VecDeque<Command>,
    hanging: &AtomicBool,
) -> io::Result<Stop> {
    let (sender, mut answers) = mpsc::channel(WAITING_ANSWERS);
    let mut sender = Some(sender);
    let mut work = std::pin::pin!(job.work(out, &mut answers, hanging));
    loop {
        tokio::select! {
            // An interrupt that has arrived goes before more output.
            biased;
            command = inbox.next(), if !inbox.closed() => match command {
                Some(Command::Interrupt) if hanging.load(Ordering::Relaxed) => (),
                Some(Command::Interrupt) => return Ok(Stop::Interrupted),
                Some(Command::Answer { id, answer }) => {
                    if sender.as_ref().is_none_or(|sender| sender.try_send((id, answer)).is_err()) {
                        eprintln!("demo-agent: dropped an answer to a question that is not open");
                    }
                }
                Some(turn @ Command::Turn(_)) if waiting.len() < WAITING_TURNS => waiting.push_back(turn),
                Some(Command::Turn(_)) => eprintln!("demo-agent: dropped a turn: {WAITING_TURNS} are waiting"),
                Some(Command::Continue | Command::Unknown) => (),
                // Tells the work that no answer will come.
                None => sender = None,
            },
            stop = &mut work => return stop,
        }
    }
}

#[cfg(test)]
mod tests;
