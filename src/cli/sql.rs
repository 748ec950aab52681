//! `casebook sql`: statements one after the other, stopping at the first error.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use casebook::config::{Hidden, fill_text};
use casebook::{Error, ErrorKind, Result};
use clap::Args;
use datafusion::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{DdlStatement, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use futures::StreamExt;

use super::print::{Format, Printer};
use super::{Program, terminal};

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
    /// Print no progress
    #[arg(long, short)]
    pub(super) quiet: bool,
}

impl Sql {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        let ctx = program.session()?;
        let text = match (&self.statements, &self.file) {
            (Some(text), _) => text.clone(),
            (None, Some(path)) => std::fs::read_to_string(path).map_err(|e| {
                let message = format!("reading {}: {e}", path.display());
                Error::new(ErrorKind::NotFound, message).with_source(e)
            })?,
            (None, None) if std::io::stdin().is_terminal() => {
                return self.prompt(program, &ctx).await;
            }
            (None, None) => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|e| Error::invalid(format!("reading statements from stdin: {e}")))?;
                text
            }
        };
        self.run_text(program, &ctx, &text).await
    }

    async fn run_text(&self, program: &Program, ctx: &SessionContext, text: &str) -> Result<()> {
        // Editors of Windows begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let statements =
            DFParser::parse_sql(text).map_err(|e| Error::invalid(e.strip_backtrace()))?;
        let count = statements.len();
        for (i, statement) in statements.into_iter().enumerate() {
            self.run_statement(program, ctx, statement)
                .await
                .map_err(|error| match count {
                    1 => error,
                    _ => {
                        let message = format!("statement {} of {count}: {error}", i + 1);
                        Error::new(error.kind(), message).with_source(error)
                    }
                })?;
        }
        Ok(())
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
            let frame = ctx.execute_logical_plan(filled(plan, program)?).await?;
            self.print(frame, hidden).await
        };
        program.until_stopped(self.quiet, work).await
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
        println!(
            "Casebook {}. End statements with ; and leave with \\q.",
            env!("CARGO_PKG_VERSION")
        );
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
                eprintln!("error: {}", terminal::err(&text));
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
