//! The command line: reads it and the settings, and hands over to the library.
//!
//! Every error is one line on stderr, `streamgate: <what> — <how to mend>`, and exit code 1.

mod chat;
mod health;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand};
use streamgate::app;
use streamgate::auth::api_token::ApiTokens;
use streamgate::config::{Config, LogConfig, LogFormat, process_environment};
use streamgate::database::Database;
use streamgate::domain::{Clock, TokenId, UserId};
use streamgate::node::make_data_dir;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

/// Libraries whose finer lines show headers, frames or bodies, and so tokens: never below this.
const CAPPED: &str =
    "hyper=info,hyper_util=info,h2=info,tungstenite=info,tokio_tungstenite=info,rustls=info,bollard=info,sqlx=info";
/// Lines of the log that wait for whoever reads it.
const LOG_LINES: usize = 10_000;
/// Tokens read at once for `token list`.
const PAGE: u32 = 500;

/// A WebSocket gateway that streams AI agents at work.
#[derive(Parser)]
#[command(name = "streamgate", version, about)]
struct Cli {
    /// A TOML file of settings; config/streamgate.toml shows them all
    #[arg(long, global = true, env = "STREAMGATE_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway (also without any command)
    Serve,
    /// Make, list and revoke API tokens, also beside a running gateway
    #[command(arg_required_else_help = false)]
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Talk to a gateway from this terminal
    Chat(chat::Arguments),
    /// The built-in agent, on stdin and stdout
    DemoAgent,
    /// Look at the settings
    #[command(arg_required_else_help = false)]
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Ask a gateway whether it is well: exit code 0 if so
    Health {
        /// The gateway: http://HOST:PORT [default: this configuration's]
        #[arg(long)]
        url: Option<String>,
    },
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print it, alone, on stdout
    Create {
        /// Whose it is
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        user: String,
        /// What its user may do besides: `admin`
        #[arg(long)]
        role: Option<String>,
        /// What to call it
        #[arg(long)]
        name: Option<String>,
    },
    /// List all tokens, without their secret part
    List,
    /// Make a token useless, at once
    Revoke {
        /// Its id, as `token list` shows it: `tok_…`
        id: String,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether a gateway can run on these settings
    Check,
    /// Show what a gateway would go by, as TOML, secrets as ***
    Print,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version, which were asked for.
        Err(error) if !error.use_stderr() => error.exit(),
        Err(error) => return fail(&usage(&error)),
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => fail(&with_causes(&error)),
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let command = cli.command.unwrap_or(Command::Serve);
    if matches!(command, Command::DemoAgent) {
        return demo_agent();
    }
    let file = cli.config.filter(|path| !path.as_os_str().is_empty());
    let config = Config::load(file.as_deref(), process_environment())?;
    match command {
        Command::Serve => serve(config, file.as_deref()),
        Command::Token { command } => block_on(token(config, command))?,
        Command::Chat(arguments) => block_on(chat::run(arguments, config))?,
        Command::DemoAgent => demo_agent(),
        Command::Config { command: ConfigCommand::Check } => check(config),
        Command::Config { command: ConfigCommand::Print } => print(&config.to_public_toml()?),
        Command::Health { url } => {
            let url = url.unwrap_or_else(|| format!("http://{}", config.local_address()));
            block_on(health::ask(&url))??;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve(mut config: Config, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    config.check()?;
    config.find_programs()?;
    let _logging = start_logging(&config.log);
    if let Some(warning) = config.fit_open_files()? {
        tracing::warn!("{warning}");
    }
    block_on(app::serve(config, file))??;
    Ok(ExitCode::SUCCESS)
}

fn check(mut config: Config) -> anyhow::Result<ExitCode> {
    config.check()?;
    config.find_programs()?;
    match config.fit_open_files()? {
        None => print("the configuration is good\n"),
        Some(warning) => print(&format!("the configuration is good, but {warning}\n")),
    }
}

async fn token(config: Config, command: TokenCommand) -> anyhow::Result<ExitCode> {
    config.check_database()?;
    // Who is in the wrong directory should hear of it.
    let missing = config.own_database().filter(|file| !file.exists());
    if let Some(file) = &missing
        && !matches!(command, TokenCommand::Create { .. })
    {
        let file = file.display();
        bail!(
            "no gateway has run here: there is no `{file}` — go where one runs, or name its settings: `--config FILE`"
        );
    }
    let database = open_database(&config).await?;
    if let Some(file) = missing {
        // Nobody may be left to tell.
        let _ = writeln!(std::io::stderr(), "no gateway has run here yet: made its database, `{}`", file.display());
    }
    let tokens = ApiTokens::new(database.clone(), Arc::new(Clock::default()));
    let printed = match command {
        TokenCommand::Create { user, role, name } => {
            let (_, token) = tokens.create(&UserId(user), role.as_deref(), name.as_deref(), None).await?;
            format!("{}\n", token.reveal())
        }
        TokenCommand::List => list(&tokens).await?,
        TokenCommand::Revoke { id } => {
            let known = TokenId::parse(&id);
            let revoked = match known {
                Some(id) => tokens.revoke(id, None).await?,
                None => false,
            };
            if !revoked {
                bail!("no token `{id}` — `streamgate token list` shows them");
            }
            format!("{id} is revoked\n")
        }
    };
    database.close().await;
    print(&printed)
}

/// Opens the database beside a gateway, or before the first one.
async fn open_database(config: &Config) -> anyhow::Result<Database> {
    make_data_dir(&config.data_dir())?;
    Database::connect(&config.database_url(), 1).await.with_context(|| config.database_trouble())
}

/// All tokens, newest first, one a line: id, first characters, user, role, name.
async fn list(tokens: &ApiTokens) -> anyhow::Result<String> {
    let mut lines = String::new();
    let mut after = None;
    loop {
        let page = tokens.list(None, after, PAGE).await?;
        for token in &page {
            let role = token.role.as_deref().unwrap_or("user");
            let name = token.name.as_deref().unwrap_or_default();
            lines.push_str(format!("{}  {}…  {}  {role}  {name}", token.id, token.hint, token.user).trim_end());
            lines.push('\n');
        }
        match page.last() {
            Some(last) => after = Some(last.id),
            None => return Ok(lines),
        }
    }
}

fn demo_agent() -> anyhow::Result<ExitCode> {
    block_on(streamgate::agent::demo::run())??;
    Ok(ExitCode::SUCCESS)
}

/// Runs `work` to its end. What it left in the background ends with the process.
fn block_on<T>(work: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("can't start threads")?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(result)
}

/// Logs to stderr: stdout is for what was asked for. By a thread of its own, until what is returned is dropped: whoever
/// reads the log, slowly or no more, must not hold up or end the gateway. What is too much for them is left out.
fn start_logging(log: &LogConfig) -> WorkerGuard {
    // `check` has seen the filter already.
    let filter = EnvFilter::try_new(format!("{},{CAPPED}", log.filter)).unwrap_or_else(|_| EnvFilter::new(CAPPED));
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LOG_LINES).finish(std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
    guard
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes()).context("can't write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// Clap's complaint without its help.
fn usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let complaint = text.split("\n\n").next().unwrap_or_default();
    format!("{} — see `streamgate --help`", complaint.strip_prefix("error: ").unwrap_or(complaint))
}

/// What happened and why, then how to mend it.
fn with_causes(error: &anyhow::Error) -> String {
    let top = error.to_string();
    let (what, mend) = top.split_once(" — ").unwrap_or((&top, ""));
    let mut line = what.to_owned();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many an error repeats its cause.
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    if mend.is_empty() { line } else { format!("{line} — {mend}") }
}

fn fail(error: &str) -> ExitCode {
    let mut line = error.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.contains(" — ") {
        line = match line.rsplit_once("; ") {
            Some((what, mend)) => format!("{what} — {mend}"),
            None => line + " — `streamgate config print` shows the settings that led here",
        };
    }
    // Nobody is left to tell when even stderr is gone.
    let _ = writeln!(std::io::stderr(), "streamgate: {line}");
    ExitCode::FAILURE
}
