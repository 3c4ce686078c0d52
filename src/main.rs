//! The command line: reads it and the settings, and hands over to the library.
//!
//! Every error is one line on stderr, `streamgate: <what> — <how to mend>`, and exit code 1.

mod chat;
mod health;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use std::sync::Arc;
use streamgate::auth::api_token::ApiTokens;
use streamgate::config::{Config, LogConfig, LogFormat, process_environment};
use streamgate::database::Database;
use streamgate::domain::{Clock, TokenId, UserId};
use tracing_subscriber::EnvFilter;

/// Libraries whose finer lines show headers, frames or bodies, and so tokens: never below this.
const CAPPED: &str =
    "hyper=info,hyper_util=info,h2=info,tungstenite=info,tokio_tungstenite=info,rustls=info,bollard=info,sqlx=info";

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
        #[arg(long)]
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
        Err(error) => fail(&format!("{error:#}")),
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
        Command::Serve => serve(config),
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

fn serve(mut config: Config) -> anyhow::Result<ExitCode> {
    config.check()?;
    start_logging(&config.log);
    if let Some(warning) = config.fit_open_files()? {
        tracing::warn!("{warning}");
    }
    block_on(streamgate::app::serve(config))??;
    Ok(ExitCode::SUCCESS)
}

fn check(mut config: Config) -> anyhow::Result<ExitCode> {
    config.check()?;
    match config.fit_open_files()? {
        None => print("the configuration is good\n"),
        Some(warning) => print(&format!("the configuration is good, but {warning}\n")),
    }
}

async fn token(config: Config, command: TokenCommand) -> anyhow::Result<ExitCode> {
    config.check()?;
    std::fs::create_dir_all(config.data_dir()).context("can't make the data directory")?;
    let database = Database::connect(&config.database_url(), 1)
        .await
        .with_context(|| format!("can't open the {} database", config.database_kind()))?;
    let tokens = ApiTokens::new(database, Arc::new(Clock::default()));
    match command {
        TokenCommand::Create { user, role, name } => {
            let (_, token) = tokens.create(&UserId(user), role.as_deref(), name.as_deref(), None).await?;
            print(&format!("{}\n", token.reveal()))
        }
        TokenCommand::List => {
            let mut after = None;
            loop {
                let page = tokens.list(None, after, 1_000).await?;
                let Some(last) = page.last() else { return Ok(ExitCode::SUCCESS) };
                after = Some(last.id);
                for token in &page {
                    let role = token.role.as_deref().unwrap_or("user");
                    let name = token.name.as_deref().unwrap_or("");
                    print(&format!("{}  {}…  {}  {role}  {name}\n", token.id, token.hint, token.user))?;
                }
            }
        }
        TokenCommand::Revoke { id } => {
            let token = TokenId::parse(&id).context("a token's id is `tok_` and 32 hex digits; see `token list`")?;
            anyhow::ensure!(tokens.revoke(token, None).await?, "no token {id}; see `streamgate token list`");
            print(&format!("{id} is revoked\n"))
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

/// Logs to stderr: stdout is for what was asked for.
fn start_logging(log: &LogConfig) {
    // `check` has seen the filter already.
    let filter = EnvFilter::try_new(format!("{},{CAPPED}", log.filter)).unwrap_or_else(|_| EnvFilter::new(CAPPED));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(text.as_bytes()).context("can't write to stdout")?;
    Ok(ExitCode::SUCCESS)
}

/// Clap's complaint without its help.
fn usage(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    format!("{} — see `streamgate --help`", first.strip_prefix("error: ").unwrap_or(first))
}

fn fail(error: &str) -> ExitCode {
    let mut line = error.split_whitespace().collect::<Vec<_>>().join(" ");
    if !line.contains(" — ") {
        line.push_str(" — `streamgate config print` shows the settings that led here");
    }
    // Nobody is left to tell when even stderr is gone.
    let _ = writeln!(std::io::stderr(), "streamgate: {line}");
    ExitCode::FAILURE
}
