//! `casebook sql`: statements one after the other, stopping at the first error.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook::config::{Hidden, fill_text};
use casebook::{Error, ErrorKind, Result};
use clap::Args;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use datafusion::sql::sqlparser::tokenizer::Token;
use futures::StreamExt;

use super::print::{Format, Printer};
use super::{Program, output};

/// Most bytes of statements: they are parsed as a whole, in many times their size.
const MOST_TEXT: u64 = 64 << 20;

/// Arguments of `casebook sql`.
#[derive(Debug, Args)]
pub(super) struct Sql {
    /// Statements, separated by semicolons; without any and without --file, a prompt or stdin
    #[arg(allow_hyphen_values = true)] // a statement may begin with a comment
    statements: Option<String>,
    /// A file of statements
    #[arg(long, short, conflicts_with = "statements")]
    file: Option<PathBuf>,
    /// How rows are printed
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Sql {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        let ctx = program.session()?;
        let text = match (&self.statements, &self.file) {
            (Some(text), _) if text.starts_with("--") && !text.contains(char::is_whitespace) => {
                return Err(Error::invalid(format!(
                    "unknown option '{text}'; `casebook sql --help` lists those that there are"
                )));
            }
            (Some(text), _) => text.clone(),
            (None, Some(path)) => {
                let what = path.display().to_string();
                text_of(&what, std::fs::File::open(path))?
            }
            (None, None) if std::io::stdin().is_terminal() => {
                return self.prompt(program, &ctx).await;
            }
            (None, None) => text_of("statements from stdin", Ok(std::io::stdin()))?,
        };
        self.run_text(program, &ctx, &text).await
    }

    async fn run_text(&self, program: &Program, ctx: &SessionContext, text: &str) -> Result<()> {
        // Editors of Windows begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let statements = parsed(text).map_err(|e| self.of_file(e))?;
        let count = statements.len();
        let mut statements = (1..).zip(statements);
        while let Some((i, (line, statement))) = statements.next() {
            let Err(error) = self.run_statement(program, ctx, statement).await else {
                continue;
            };
            if output::is_unread(&error) && statements.any(|(_, (_, left))| writes(&left)) {
                // A filter may end when nobody reads it; with an INSERT to come it is no filter.
                let message =
                    format!("statement {i} of {count}: {error}; those after it were not run");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            let message = match count {
                1 => return Err(self.of_file(error)),
                _ => {
                    let left = match statements.next() {
                        Some(_) if is_unsaid(&error) => "; those after it were not run",
                        _ => "",
                    };
                    let place = place(line, text);
                    format!("statement {i} of {count}{place}: {error}{left}")
                }
            };
            return Err(self.of_file(Error::new(error.kind(), message).with_source(error)));
        }
        Ok(())
    }

    /// `error`, which names a statement, with the file that it is in.
    fn of_file(&self, error: Error) -> Error {
        match &self.file {
            Some(path) => {
                let message = format!("{}: {error}", path.display());
                Error::new(error.kind(), message).with_source(error)
            }
            None => error,
        }
    }

    async fn run_statement(
        &self,
        program: &Program,
        ctx: &SessionContext,
        statement: Statement,
    ) -> Result<()> {
        let work = async {
            check_format(&statement, ctx)?;
            let plan = ctx.state().statement_to_plan(statement).await?;
            // A plan names locations, as an error does; other rows are data.
            let is_plan = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
            let hidden = is_plan.then_some(&*program.casebook.hidden);
            let is_write = matches!(plan, LogicalPlan::Dml(_) | LogicalPlan::Copy(_));
            let frame = ctx.execute_logical_plan(filled(plan, program)?).await?;
            self.print(frame, hidden, is_write).await
        };
        program.until_stopped(work).await
    }

    /// Prints the rows of `frame`, of which there is a count alone if it `is_write`; what is `hidden`
    /// stays so.
    async fn print(&self, frame: DataFrame, hidden: Option<&Hidden>, is_write: bool) -> Result<()> {
        let schema = Arc::clone(frame.schema().inner());
        let mut stream = frame.execute_stream().await?;
        let mut printer = Printer::new(self.format, schema);
        let failed = |error| match is_write {
            true => unsaid(error),
            false => error,
        };
        while let Some(batch) = stream.next().await.transpose()? {
            let batch = match hidden {
                Some(hidden) => without(&batch, hidden)?,
                None => batch,
            };
            printer.print(&batch).map_err(failed)?;
        }
        printer.finish().map_err(failed)
    }

    /// Reads statements line by line until `\q`.
    async fn prompt(&self, program: &Program, ctx: &SessionContext) -> Result<()> {
        let failed = |e| Error::new(ErrorKind::Internal, format!("the prompt failed: {e}"));
        let mut editor = rustyline::DefaultEditor::new().map_err(failed)?;
        output::line(concat!(
            "Casebook ",
            env!("CARGO_PKG_VERSION"),
            ". End statements with ; and leave with \\q."
        ))?;
        let mut text = String::new();
        loop {
            let prompt = if text.is_empty() {
                "casebook> "
            } else {
                "       -> "
            };
            let line = match editor.readline(prompt) {
                Ok(line) => line,
                Err(rustyline::error::ReadlineError::Interrupted) => {
                    text.clear();
                    continue;
                }
                Err(rustyline::error::ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(failed(error)),
            };
            if text.is_empty() && matches!(line.trim(), "\\q" | "quit" | "exit") {
                return Ok(());
            }
            text.push_str(&line);
            text.push('\n');
            if !line.trim_end().ends_with(';') {
                continue;
            }
            editor.add_history_entry(text.trim()).map_err(failed)?;
            if let Err(error) = self.run_text(program, ctx, &text).await {
                let text = program.casebook.hidden.out_of(&error.to_string());
                output::note(&format!("error: {text}"));
            }
            text.clear();
        }
    }
}

/// The statement has written its rows, of which the count alone could not be printed.
#[derive(Debug)]
struct Unsaid(Error);

impl std::fmt::Display for Unsaid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the rows are written, only their count is not said: {}",
            self.0
        )
    }
}

impl std::error::Error for Unsaid {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

fn unsaid(error: Error) -> Error {
    let (kind, unsaid) = (error.kind(), Unsaid(error));
    Error::new(kind, unsaid.to_string()).with_source(unsaid)
}

fn is_unsaid(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<Unsaid>())
}

/// `batch`, whose columns are texts, without what is `hidden`.
fn without(batch: &RecordBatch, hidden: &Hidden) -> Result<RecordBatch> {
    let columns = batch.columns().iter().map(|column| {
        let Some(texts) = column.as_string_opt::<i32>() else {
            return Arc::clone(column);
        };
        let shown = texts.iter().map(|text| Some(hidden.out_of(text?)));
        Arc::new(shown.collect::<StringArray>()) as ArrayRef
    });
    let shown = RecordBatch::try_new(batch.schema(), columns.collect());
    shown.map_err(|e| Error::new(ErrorKind::Internal, format!("printing a plan: {e}")))
}

/// The statements of `text`, each with the line that it begins in.
fn parsed(text: &str) -> Result<Vec<(u64, Statement)>> {
    let failed = |e: DataFusionError| Error::invalid(e.strip_backtrace());
    let mut parser = DFParserBuilder::new(text).build().map_err(failed)?;
    let mut statements = vec![];
    loop {
        let mut is_apart = statements.is_empty();
        while parser.parser.consume_token(&Token::SemiColon) {
            is_apart = true;
        }
        let next = parser.parser.peek_token();
        if next.token == Token::EOF {
            return Ok(statements);
        }
        let parsed = match is_apart {
            true => parser.parse_statement().map_err(failed),
            false => Err(Error::invalid(format!(
                "SQL error: Expected: end of statement, found: {next}{}",
                next.span.start
            ))),
        };
        // What follows a statement without a semicolon belongs to it.
        let (number, line) = match statements.last() {
            Some((line, _)) if !is_apart => (statements.len(), *line),
            _ => (statements.len() + 1, next.span.start.line),
        };
        match parsed {
            Ok(statement) => statements.push((line, statement)),
            // The first of several cannot be told from the only one.
            Err(error) if number == 1 => return Err(error),
            Err(error) => {
                let message = format!("statement {number}{}: {error}", place(line, text));
                return Err(Error::invalid(message).with_source(error));
            }
        }
    }
}

/// Where a statement of `text` begins; nothing in a text of one line.
fn place(line: u64, text: &str) -> String {
    match text.trim_end().contains('\n') {
        true => format!(", line {line}"),
        false => String::new(),
    }
}

/// All that `source` gives, which messages call `what`.
fn text_of(what: &str, source: std::io::Result<impl Read>) -> Result<String> {
    let mut text = String::new();
    let read = source.and_then(|source| source.take(MOST_TEXT + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MOST_TEXT => {
            let megabytes = MOST_TEXT >> 20;
            Err(Error::invalid(format!(
                "reading {what}: more than {megabytes} MB are no statements; rows come from tables, \
                 such as one STORED AS CSV"
            )))
        }
        Ok(_) => Ok(text),
        Err(e) => {
            Err(Error::new(ErrorKind::NotFound, format!("reading {what}: {e}")).with_source(e))
        }
    }
}

/// True if leaving it out leaves something undone that lasts.
fn writes(statement: &Statement) -> bool {
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            SqlStatement::Insert(_)
                | SqlStatement::Update(_)
                | SqlStatement::Delete(_)
                | SqlStatement::Merge(_)
                | SqlStatement::Truncate(_)
        ),
        Statement::CopyTo(_) => true,
        _ => false,
    }
}

/// What the library says of an unknown format does not tell which there are.
fn check_format(statement: &Statement, ctx: &SessionContext) -> Result<()> {
    let state = ctx.state();
    let (name, mut known): (&str, Vec<&str>) = match statement {
        Statement::CreateExternalTable(create) => {
            let known = state.table_factories().keys().map(String::as_str);
            (&create.file_type, known.collect())
        }
        Statement::CopyTo(copy) => {
            let known = ["ARROW", "AVRO", "CSV", "JSON", "PARQUET"].into_iter();
            let known = known.filter(|name| state.get_file_format_factory(name).is_some());
            (copy.stored_as.as_deref().unwrap_or("CSV"), known.collect())
        }
        _ => return Ok(()),
    };
    if known.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    known.sort_unstable();
    let error = Error::unknown("format", name, &known);
    Err(match name.eq_ignore_ascii_case("TSV") {
        true => error.hint(
            "Cells between tabs are CSV: a file called .tsv is read so, another one with \
             'format.delimiter' '\\t'.",
        ),
        false => error,
    })
}

/// `${env:NAME}` and `${file:path}` in LOCATION and OPTIONS, and in what COPY writes to, are looked up here, after parsing, so that
/// secrets stand in no statement and a value cannot inject one.
fn filled(mut plan: LogicalPlan, program: &Program) -> Result<LogicalPlan> {
    let (what, locations, options) = match &mut plan {
        LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) => (
            format!("CREATE EXTERNAL TABLE {}", create.name),
            &mut create.locations[..],
            &mut create.options,
        ),
        LogicalPlan::Copy(copy) => (
            "COPY".to_owned(),
            std::slice::from_mut(&mut copy.output_url),
            &mut copy.options,
        ),
        _ => return Ok(plan),
    };
    let environment = |name: &str| std::env::var(name).ok();
    let options = options.iter_mut().map(|(key, value)| (key.as_str(), value));
    let values = locations.iter_mut().map(|location| ("location", location));
    for (key, value) in values
        .chain(options)
        .filter(|(_, value)| value.contains("${"))
    {
        let hidden = &program.casebook.hidden;
        *value = fill_text(key, value, Path::new(""), &environment, hidden)
            .map_err(|e| Error::invalid(format!("{what}: {e}")))?;
    }
    Ok(plan)
}
