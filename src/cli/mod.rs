//! Commands of the program, one file each, and what they share: options and exit codes.

mod ask;
mod check;
mod compare;
mod exit;
mod init;
mod json_floats;
mod memory;
mod notices;
pub(crate) mod output;
mod print;
mod profiles;
mod progress;
mod run;
mod sql;
mod stop;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook::config::{Config, DEFAULT, Hidden, check_implicit};
use casebook::{Casebook, Error, ErrorKind, Result, SessionOptions, new_session_with};
use clap::{Parser, Subcommand};
use datafusion::prelude::SessionContext;

use stop::Stop;

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
    /// Print results and errors only: no progress, notes or warnings
    #[arg(long, short, global = true)]
    quiet: bool,
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

/// What every command gets.
struct Program {
    casebook: Arc<Casebook>,
    config: Option<Config>,
    stop: Arc<Stop>,
    /// Nothing but results and errors is said.
    quiet: bool,
}

impl Program {
    /// With the configuration at `path`, or the one that is found here: which one is said on standard
    /// error, because nobody named it. `hidden` takes what no message may hold.
    fn new(path: Option<&Path>, quiet: bool, hidden: &Arc<Hidden>) -> Result<Self> {
        let found = match path {
            Some(path) => Some(path),
            // Also a link that leads nowhere, or a file that may not be looked at: that is said.
            None => Some(Path::new(DEFAULT)).filter(|p| p.symlink_metadata().is_ok()),
        };
        if path.is_none()
            && let Some(found) = found
        {
            check_implicit(found)?;
            if !quiet {
                let shown = found.canonicalize();
                let shown = shown.as_deref().unwrap_or(found);
                output::note(&format!("configuration: {}", shown.display()));
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
        let casebook = Arc::new(casebook);
        let stop = Stop::listen(&casebook)?;
        Ok(Self {
            casebook,
            config,
            stop,
            quiet,
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

    /// Does `work`, with its progress on standard error, until it is done or has been stopped and
    /// has had its grace time. Stopped work is an error even if it ended well.
    async fn until_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let _progress = (!self.quiet).then(|| progress::show(&self.casebook));
        let running = self.stop.begin();
        let stopped = |message: &str| Err(Error::new(ErrorKind::Interrupted, message));
        let done = tokio::select! {
            done = work => done?,
            () = running.over() => {
                return stopped("stopped; what was not finished by then is not written");
            }
        };
        match running.is_stopping() {
            true => stopped("stopped after this was done"),
            false => Ok(done),
        }
    }
}

/// Runs the command that the arguments name; returns the exit code.
pub(crate) async fn run() -> u8 {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if let (false, Err(closed)) = (error.use_stderr(), output::check_open()) {
                return ended(Err(output::failed(closed)), false, &Hidden::default());
            }
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            return match error.use_stderr() {
                true => exit::USAGE,
                // Help, which was asked for.
                false => ended(printed.map_err(output::failed), false, &Hidden::default()),
            };
        }
    };
    let (verbose, hidden) = (arguments.verbose, Arc::default());
    if !arguments.quiet {
        notices::show(&hidden);
    }
    let done = command(arguments, &hidden).await;
    ended(done, verbose, &hidden)
}

/// Says how it ended, where that is an error; the exit code.
fn ended(done: Result<()>, verbose: bool, hidden: &Hidden) -> u8 {
    match done {
        Ok(()) => exit::OK,
        Err(error) if output::is_unread(&error) => exit::OK,
        Err(error) => {
            let text = hidden.out_of(&error.to_string());
            output::note(&format!("error: {text}"));
            if verbose {
                print_causes(&error, hidden);
            }
            code(&error)
        }
    }
}

async fn command(arguments: Arguments, hidden: &Arc<Hidden>) -> Result<()> {
    if let Command::Init(init) = &arguments.command {
        return init.run();
    }
    let program = Program::new(arguments.config.as_deref(), arguments.quiet, hidden)?;
    match arguments.command {
        Command::Init(_) => Ok(()),
        Command::Sql(sql) => sql.run(&program).await,
        Command::Run(run) => run.run(&program).await,
        Command::Check(check) => program.until_stopped(check.run(&program)).await,
        Command::Ask(ask) => program.until_stopped(ask.run(&program)).await,
        Command::Compare(compare) => compare.run(&program).await,
        Command::Profiles(profiles) => profiles.run(&program),
    }
}

/// The causes are of libraries, which put URLs and values into them.
fn print_causes(error: &dyn std::error::Error, hidden: &Hidden) {
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        let text = casebook_connectors::without_credentials(&text);
        output::note(&format!("  caused by: {}", hidden.out_of(&text)));
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
