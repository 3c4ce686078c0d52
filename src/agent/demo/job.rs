//! The work on one prompt, which may take several legs: it stops at its turn limit and goes on when
//! the gateway says so.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::directive::{Directive, Question, read_prompt};
use super::tool::{Outcome, Running, Tools};
use super::wire::{Out, Turn, Usage};

/// Where the agent's own memory of the session is, in the workspace.
const MEMORY: &str = ".demo-agent-memory";
/// What `/image` writes.
const IMAGE: &[u8] = include_bytes!("image.png");
/// How long `/hang` goes on when stdin is closed and nobody is left to kill it: longer than any
/// gateway tries, and no agent stays behind for ever.
const HANG_WITHOUT_GATEWAY: Duration = Duration::from_mins(1);
/// The tool of `/tool` and `/parallel`.
const BASH: &str = "Bash";

/// Why a leg of work ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    EndTurn,
    MaxTurns,
    Interrupted,
    Failed(String),
    Crash(i32),
}

/// Answers of the user: the tool use, and what was said.
pub(super) type Answers = mpsc::Receiver<(String, Value)>;

/// A prompt and how far the work on it is.
pub(super) struct Job {
    todo: VecDeque<Directive>,
    workspace: PathBuf,
    allowed_tools: Option<Vec<String>>,
    max_turns: Option<u32>,
    tools: Tools,
    /// Model calls of this leg: one, and one more to read each tool result.
    model_calls: u32,
    /// Words of the prompt that no stop has reported yet.
    input_words: u64,
    /// Whether the prompt says what to report.
    usage_told: bool,
    /// What the prompt says that the next stop reports.
    next_usage: Option<Usage>,
}

impl Job {
    pub(super) fn new(turn: Turn, workspace: &Path) -> Self {
        let todo = read_prompt(&turn.prompt);
        let usage_told = todo.iter().any(|directive| matches!(directive, Directive::Usage(_)));
        Self {
            todo,
            workspace: workspace.to_owned(),
            allowed_tools: turn.allowed_tools,
            max_turns: turn.max_turns.filter(|limit| *limit > 0),
            tools: Tools::default(),
            model_calls: 0,
            input_words: turn.prompt.split_whitespace().count() as u64,
            usage_told,
            next_usage: None,
        }
    }

    /// What this leg used, in which `words` were said.
    pub(super) fn usage(&mut self, words: u64) -> Usage {
        let input_tokens = std::mem::take(&mut self.input_words);
        let counted = Usage { input_tokens, output_tokens: words, cost_usd: Some(0.0) };
        let nothing = Usage { cost_usd: Some(0.0), ..Usage::default() };
        self.next_usage.take().unwrap_or(if self.usage_told { nothing } else { counted })
    }

    /// Model calls of this leg.
    pub(super) fn model_calls(&self) -> u32 {
        self.model_calls
    }

    /// Ends whatever the commands of this job started.
    pub(super) async fn kill_tools(&mut self) {
        self.tools.kill().await;
    }

    /// Lets what commands left in the background live on.
    pub(super) fn leave_background_processes(&mut self) {
        self.tools.release();
    }

    /// Works until something ends the leg. May be dropped at any time; then [`Job::kill_tools`].
    pub(super) async fn work(
        &mut self,
        out: &mut Out<impl AsyncWrite + Unpin>,
        answers: &mut Answers,
        hanging: &AtomicBool,
    ) -> io::Result<Stop> {
        self.model_calls = 1;
        while let Some(directive) = self.todo.pop_front() {
            let uses_tool = match directive {
                Directive::Tool(command) => {
                    self.bash(out, &[&command]).await?;
                    true
                }
                Directive::Parallel(first, second) => {
                    self.bash(out, &[&first, &second]).await?;
                    true
                }
                Directive::Ask(questions) => {
                    self.ask(out, answers, &questions).await?;
                    true
                }
                Directive::Big(bytes) => {
                    let id = out.tool_use("Big", &json!({ "bytes": bytes }));
                    out.tool_result(&id, &"x".repeat(bytes), false);
                    true
                }
                Directive::Twice => {
                    let id = out.tool_use("Twice", &json!({}));
                    out.tool_result(&id, "first", false);
                    out.tool_result(&id, "second", false);
                    true
                }
                Directive::Orphan => {
                    out.tool_use_without_result("Orphan", &json!({}));
                    return Ok(Stop::EndTurn);
                }
                Directive::Continue(0) => false,
                Directive::Continue(times) => {
                    self.todo.push_front(Directive::Continue(times - 1));
                    return Ok(Stop::MaxTurns);
                }
                Directive::Fail(message) => return Ok(Stop::Failed(message)),
                Directive::Crash(code) => return Ok(Stop::Crash(code)),
                Directive::Hang => {
                    // First: who has seen what was said before must find it hanging.
                    hanging.store(true, Ordering::Relaxed);
                    out.flush().await?;
                    while answers.recv().await.is_some() {}
                    sleep(HANG_WITHOUT_GATEWAY).await;
                    return Ok(Stop::Crash(1));
                }
                Directive::Usage(usage) => {
                    self.next_usage = Some(usage);
                    false
                }
                other => {
                    self.speak(out, other).await?;
                    false
                }
            };
            out.relieve().await?;
            if uses_tool {
                if self.max_turns.is_some_and(|limit| self.model_calls >= limit) {
                    return Ok(Stop::MaxTurns);
                }
                self.model_calls += 1;
            }
        }
        Ok(Stop::EndTurn)
    }

    /// The directives that are done by saying something, or nothing.
    async fn speak(&mut self, out: &mut Out<impl AsyncWrite + Unpin>, directive: Directive) -> io::Result<()> {
        match directive {
            Directive::Say(text) => {
                for word in text.split_inclusive(' ') {
                    out.text(word);
                    out.relieve().await?;
                }
            }
            Directive::Tokens { count, interval } => {
                // A ticker keeps the pace that sleeps would lose; it can't tick all the time.
                let mut pace = (!interval.is_zero()).then(|| tokio::time::interval(interval));
                for number in 1..=count {
                    if let Some(pace) = &mut pace {
                        out.flush().await?;
                        pace.tick().await;
                    }
                    out.text(&format!("t{number} "));
                    out.relieve().await?;
                }
            }
            Directive::Image(name) => match self.write_image(&name) {
                Ok(()) => out.text(&image_markdown(&name)),
                Err(error) => out.text(&format!("Can't write `{name}`: {error}")),
            },
            Directive::Sleep(duration) => {
                out.flush().await?;
                sleep(duration).await;
            }
            Directive::Remember(text) => match self.remember(&text) {
                Ok(()) => out.text("Remembered."),
                Err(error) => out.text(&format!("Can't remember: {error}")),
            },
            Directive::Recall => match std::fs::read_to_string(self.workspace.join(MEMORY)) {
                Ok(memory) => out.text(memory.trim_end_matches('\n')),
                Err(error) if error.kind() == io::ErrorKind::NotFound => out.text("I remember nothing."),
                Err(error) => out.text(&format!("Can't recall: {error}")),
            },
            Directive::Env(name) => match std::env::var_os(&name) {
                Some(value) => out.text(&value.to_string_lossy()),
                None => out.text(&format!("{name} is not set.")),
            },
            Directive::Id => out.text(&format!(
                "uid={} pid={} host={}",
                rustix::process::getuid().as_raw(),
                std::process::id(),
                host_name(),
            )),
            Directive::Garbage => {
                out.raw(b"this line is not JSON\n");
                out.raw(b"{\"type\":\"text\",\"text\":\"\xff\xfe\"}\n");
                out.raw(&vec![b'x'; 3 << 20]);
                out.raw(b"\n");
            }
            // The others are more than words: `work` does them.
            _ => (),
        }
        Ok(())
    }

    /// Runs `commands` side by side; their results come in reverse order.
    async fn bash(&mut self, out: &mut Out<impl AsyncWrite + Unpin>, commands: &[&str]) -> io::Result<()> {
        let started: Vec<_> = commands
            .iter()
            .map(|command| (out.tool_use(BASH, &json!({ "command": command })), self.start(command)))
            .collect();
        out.flush().await?;
        let outcomes = futures_util::future::join_all(started.into_iter().map(async |(id, running)| {
            let outcome = match running {
                Ok(running) => running.finish().await,
                Err(outcome) => outcome,
            };
            (id, outcome)
        }))
        .await;
        self.tools.forget_ended();
        for (id, outcome) in outcomes.iter().rev() {
            out.tool_result(id, &outcome.output, outcome.is_error);
        }
        Ok(())
    }

    fn start(&mut self, command: &str) -> Result<Running, Outcome> {
        let allowed = self.allowed_tools.as_ref().is_none_or(|tools| tools.iter().any(|tool| tool == BASH));
        if !allowed {
            return Err(Outcome::refused(format!("the tool `{BASH}` is not allowed here")));
        }
        self.tools.start(command, &self.workspace)
    }

    /// Asks and waits. Asking is always allowed.
    async fn ask(
        &mut self,
        out: &mut Out<impl AsyncWrite + Unpin>,
        answers: &mut Answers,
        questions: &[Question],
    ) -> io::Result<()> {
        let asked: Vec<Value> = questions
            .iter()
            .map(|Question { text, options, several }| {
                let options: Vec<Value> = options.iter().map(|label| json!({ "label": label })).collect();
                let mut asked = json!({ "question": text, "options": options });
                if *several {
                    asked["multiSelect"] = json!(true);
                }
                asked
            })
            .collect();
        let id = out.tool_use("AskUserQuestion", &json!({ "questions": asked }));
        out.flush().await?;
        let answer = loop {
            match answers.recv().await {
                Some((to, answer)) if to == id => break answer,
                Some(_) => eprintln!("demo-agent: dropped an answer to a question that is not open"),
                None => {
                    out.tool_result(&id, "stdin was closed before the answer came", true);
                    return Ok(());
                }
            }
        };
        let chosen = chosen(questions, &answer);
        out.tool_result(&id, &chosen, false);
        // Said after the limit of model calls has been checked, as a model would.
        self.todo.push_front(Directive::Say(format!("You chose: {chosen}.")));
        Ok(())
    }

    /// Never outside the workspace, whatever the name is and whichever links lie in its way.
    fn write_image(&self, name: &str) -> io::Result<()> {
        let workspace = cap_std::fs::Dir::open_ambient_dir(&self.workspace, cap_std::ambient_authority())?;
        if let Some(parent) = Path::new(name).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            workspace.create_dir_all(parent)?;
        }
        workspace.write(name, IMAGE)
    }

    fn remember(&self, text: &str) -> io::Result<()> {
        let mut memory: File = OpenOptions::new().create(true).append(true).open(self.workspace.join(MEMORY))?;
        writeln!(memory, "{text}")
    }
}

/// The answers in the order of the questions.
fn chosen(questions: &[Question], answer: &Value) -> String {
    let by_question = |answers: &Map<String, Value>| {
        let texts = questions.iter().map(|asked| answers.get(&asked.text).and_then(Value::as_str).unwrap_or(""));
        texts.collect::<Vec<_>>().join(", ")
    };
    match answer {
        Value::Object(answers) => by_question(answers),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Markdown that shows the image; a name that would end the link early goes in angle brackets.
fn image_markdown(name: &str) -> String {
    if name.contains([' ', '\t', '(', ')']) { format!("![{name}](<{name}>)") } else { format!("![{name}]({name})") }
}

fn host_name() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}
