//! `casebook sql`: statements one after the other, stopping at the first error.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook::config::{Hidden, fill_text};
use casebook::{Error, ErrorKind, Result, exact_literals};
use clap::Args;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
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
        let statements =
            DFParser::parse_sql(text).map_err(|e| Error::invalid(e.strip_backtrace()))?;
        let count = statements.len();
        let mut statements = (1..).zip(statements);
        while let Some((i, statement)) = statements.next() {
            let Err(error) = self.run_statement(program, ctx, statement).await else {
                continue;
            };
            if output::is_unread(&error) && statements.any(|(_, left)| writes(&left)) {
                // A filter may end when nobody reads it; with an INSERT to come it is no filter.
                let message =
                    format!("statement {i} of {count}: {error}; those after it were not run");
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            return Err(match count {
                1 => error,
                _ => {
                    let message = format!("statement {i} of {count}: {error}");
                    Error::new(error.kind(), message).with_source(error)
                }
            });
        }
        Ok(())
    }

    async fn run_statement(
        &self,
        program: &Program,
        ctx: &SessionContext,
        mut statement: Statement,
    ) -> Result<()> {
        let work = async {
            exact_literals(&mut statement)?;
            check_format(&statement, ctx)?;
            let plan = ctx.state().statement_to_plan(statement).await?;
            // A plan names locations, as an error does; other rows are data.
            let is_plan = matches!(plan, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_));
            let hidden = is_plan.then_some(&*program.casebook.hidden);
            let frame = ctx.execute_logical_plan(filled(plan, program)?).await?;
            self.print(frame, hidden).await
        };
        program.until_stopped(work).await
    }

    /// Prints the rows of `frame`; what is `hidden` stays so.
    async fn print(&self, frame: DataFrame, hidden: Option<&Hidden>) -> Result<()> {
        let schema = Arc::clone(frame.schema().inner());
        let mut stream = frame.execute_stream().await?;
        let mut printer = Printer::new(self.format, schema);
        while let Some(batch) = stream.next().await.transpose()? {
            match hidden {
                Some(hidden) => printer.print(&without(&batch, hidden)?)?,
                None => printer.print(&batch)?,
            }
        }
        printer.finish()
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

/// `${env:NAME}` and `${file:path}` in LOCATION and OPTIONS are looked up here, after parsing, so that
/// secrets stand in no statement and a value cannot inject one.
fn filled(mut plan: LogicalPlan, program: &Program) -> Result<LogicalPlan> {
    let LogicalPlan::Ddl(DdlStatement::CreateExternalTable(create)) = &mut plan else {
        return Ok(plan);
    };
    let environment = |name: &str| std::env::var(name).ok();
    let table = create.name.to_string();
    let values = create
        .locations
        .iter_mut()
        .chain(create.options.values_mut());
    for value in values.filter(|value| value.contains("${")) {
        *value = fill_text(value, Path::new(""), &environment, &program.casebook.hidden)
            .map_err(|e| Error::invalid(format!("CREATE EXTERNAL TABLE {table}: {e}")))?;
    }
    Ok(plan)
}
