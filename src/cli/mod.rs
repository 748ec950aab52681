//! Commands of the program, one file each, and what they share: options, exit codes, Ctrl-C.

mod ask;
mod check;
mod compare;
mod init;
mod memory;
mod notices;
mod print;
mod profiles;
mod progress;
mod run;
mod sql;
mod terminal;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use casebook::config::{Config, DEFAULT, Hidden, check_implicit};
use casebook::{Casebook, Error, ErrorKind, Result, SessionOptions, new_session_with};
use clap::{Parser, Subcommand};
use datafusion::prelude::SessionContext;

/// How long running work may take to finish its document or step after Ctrl-C.
const GRACE: Duration = Duration::from_secs(10);

/// Exit codes: 0 done, 1 failed work, 2 wrong input or usage, 78 wrong configuration, 130 stopped.
mod exit {
    pub(super) const OK: u8 = 0;
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const CONFIGURATION: u8 = 78;
    pub(super) const INTERRUPTED: u8 = 130;
}

/// Turns the text in your warehouse into a language model that knows it.
#[derive(Debug, Parser)]
#[command(
    name = "casebook",
    version,
    about,
    after_help = "Examples:
  casebook run quickstart --config examples/casebook.toml
  casebook sql -f sql/03_generate.sql
  casebook sql \"SELECT question, answer FROM docs_to_qa('cases') LIMIT 5\"
  casebook ask --model adapters/cases \"When was Monga v. Glover Landing decided?\"

Exit codes: 0 done, 1 failed, 2 wrong input, 78 wrong configuration, 130 stopped."
)]
struct Arguments {
    /// Configuration file [default: casebook.toml, if there is one]
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    /// Show the causes of an error
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a casebook.toml to start from
    Init(init::Init),
    /// Run SQL statements, a file of them, or a prompt
    Sql(sql::Sql),
    /// Run a job of casebook.toml: generate, write, train, compare
    Run(run::Run),
    /// Check that the tables of casebook.toml can be reached, read and written
    Check(check::Check),
    /// Ask a model a question, without documents
    Ask(ask::Ask),
    /// Ask base and tuned model the same questions, side by side
    Compare(compare::Compare),
    /// Show the profiles, or one of them in full
    Profiles(profiles::Profiles),
}

impl Command {
    /// True if it was asked to say nothing beside its results.
    fn is_quiet(&self) -> bool {
        match self {
            Self::Sql(sql) => sql.quiet,
            Self::Run(run) => run.quiet,
            Self::Compare(compare) => compare.quiet,
            Self::Init(_) | Self::Check(_) | Self::Ask(_) | Self::Profiles(_) => false,
        }
    }
}

/// What every command gets.
struct Program {
    casebook: Arc<Casebook>,
    config: Option<Config>,
}

impl Program {
    /// With the configuration at `path`, or the one that is found here: which one is said on standard
    /// error, because nobody named it. `hidden` takes what no message may hold.
    fn new(path: Option<&Path>, quiet: bool, hidden: &Arc<Hidden>) -> Result<Self> {
        let found = match path {
            Some(path) => Some(path),
            None => Some(Path::new(DEFAULT)).filter(|p| p.exists()),
        };
        if path.is_none()
            && let Some(found) = found
        {
            check_implicit(found)?;
            if !quiet {
                let shown = found.canonicalize();
                let shown = shown.as_deref().unwrap_or(found);
                eprintln!("configuration: {}", shown.display());
            }
        }
        let environment = |name: &str| std::env::var(name).ok();
        let config = found
            .map(|path| Config::load(path, &environment))
            .transpose()?;
        let mut casebook = match &config {
            Some(config) => config.casebook()?,
            None => Casebook::default(),
        };
        hidden.add(&casebook.hidden);
        casebook.hidden = Arc::clone(hidden);
        Ok(Self {
            casebook: Arc::new(casebook),
            config,
        })
    }

    /// A session that knows the configured tables; none is opened.
    fn session(&self) -> Result<SessionContext> {
        let named = match &self.config {
            Some(config) => config.memory_bytes()?,
            None => None,
        };
        let options = SessionOptions {
            memory_bytes: named.or_else(memory::default_limit),
        };
        let ctx = new_session_with(&self.casebook, options)?;
        if let Some(config) = &self.config {
            config.register_tables(&ctx)?;
        }
        Ok(ctx)
    }

    /// Does `work`, with its progress on standard error, until it is done or has been stopped for
    /// [`GRACE`]. Stopped work is an error even if it ended well.
    async fn until_stopped<T>(
        &self,
        quiet: bool,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let _progress = (!quiet).then(|| progress::show(&self.casebook));
        let stopped = || {
            Error::new(
                ErrorKind::Interrupted,
                "stopped; what was finished before is kept",
            )
        };
        let cancelled = async {
            while !self.casebook.is_cancelled() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            // Work that can end well does so by itself: rows are committed, a checkpoint is made.
            tokio::time::sleep(GRACE).await;
        };
        let done = tokio::select! {
            done = work => done?,
            () = cancelled => return Err(stopped()),
        };
        match self.casebook.is_cancelled() {
            true => Err(stopped()),
            false => Ok(done),
        }
    }
}

/// Runs the command that the arguments name; returns the exit code.
pub(crate) async fn run() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            error.print().ok();
            return if error.use_stderr() {
                exit::USAGE
            } else {
                exit::OK
            };
        }
    };
    let verbose = arguments.verbose;
    notices::show();
    let hidden = Arc::default();
    match command(arguments, &hidden).await {
        Ok(()) => exit::OK,
        Err(error) => {
            eprintln!(
                "error: {}",
                terminal::err(&hidden.out_of(&error.to_string()))
            );
            if verbose {
                print_causes(&error, &hidden);
            }
            code(&error)
        }
    }
}

async fn command(arguments: Arguments, hidden: &Arc<Hidden>) -> Result<()> {
    if let Command::Init(init) = &arguments.command {
        return init.run();
    }
    let quiet = arguments.command.is_quiet();
    let program = Program::new(arguments.config.as_deref(), quiet, hidden)?;
    stop_on_ctrl_c(Arc::clone(&program.casebook));
    match arguments.command {
        Command::Init(_) => Ok(()),
        Command::Sql(sql) => sql.run(&program).await,
        Command::Run(run) => run.run(&program).await,
        Command::Check(check) => check.run(&program).await,
        Command::Ask(ask) => ask.run(&program).await,
        Command::Compare(compare) => compare.run(&program).await,
        Command::Profiles(profiles) => profiles.run(&program),
    }
}

/// The first Ctrl-C lets running work finish its document or step; the second ends the program.
fn stop_on_ctrl_c(casebook: Arc<Casebook>) {
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if casebook.is_cancelled() {
                std::process::exit(i32::from(exit::INTERRUPTED));
            }
            eprintln!("stopping; finished work is kept (Ctrl-C again ends at once)");
            casebook.cancel();
        }
    });
}

/// The causes are of libraries, which put URLs and values into them.
fn print_causes(error: &dyn std::error::Error, hidden: &Hidden) {
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        let text = casebook_connectors::without_credentials(&text);
        eprintln!("  caused by: {}", terminal::err(&hidden.out_of(&text)));
        next = cause.source();
    }
}

fn code(error: &Error) -> u8 {
    match error.kind() {
        ErrorKind::Configuration => exit::CONFIGURATION,
        ErrorKind::Interrupted => exit::INTERRUPTED,
        ErrorKind::InvalidInput | ErrorKind::NotFound | ErrorKind::Unsupported => exit::USAGE,
        _ => exit::FAILED,
    }
}
