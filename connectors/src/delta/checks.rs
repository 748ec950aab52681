//! What a Delta table demands of new rows: NOT NULL, CHECK constraints, column invariants and
//! generated columns, evaluated batch by batch before a row is written.
//!
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#check-constraints>: a condition
//! must be true; null does not do.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, ident};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use deltalake::delta_datafusion::expr::parse_predicate_expression;
use deltalake::kernel::StructTypeExt;
use deltalake::table::state::DeltaTableState;

use crate::cast::relaxed;
use crate::error::{Error, ErrorKind, Result};

/// Prefix of the table properties that are CHECK constraints.
const CONSTRAINT: &str = "delta.constraints.";

/// Characters of a condition. Those that people write have a few hundred.
const MAX_CHARACTERS: usize = 65_536;
/// Names, operators and brackets of a condition, its literals and commas not counted: `1 + 1 + ...` is
/// as deep as it is long, and planning and evaluating it take the stack.
const MAX_WORDS: usize = 400;
/// Characters of a text of the log that an error shows.
const SHOWN: usize = 200;
/// Conditions of a table.
const MAX_CONDITIONS: usize = 1000;
/// Functions that a condition may call: they mean here what they mean in Spark, which has the last
/// word on a condition (`concat` with a null does not), and what they give is not larger than what they
/// are given. The log may be anyone's, and `repeat('x', 1000000000)` is a condition, too.
const FUNCTIONS: &[&str] = &[
    "abs",
    "array_element",
    "array_has",
    "array_length",
    "ascii",
    "bit_length",
    "btrim",
    "cardinality",
    "ceil",
    "character_length",
    "chr",
    "contains",
    "date_part",
    "date_trunc",
    "digest",
    "ends_with",
    "floor",
    "from_unixtime",
    "get_field",
    "greatest",
    "initcap",
    "isnan",
    "iszero",
    "least",
    "left",
    "lower",
    "ltrim",
    "md5",
    "nanvl",
    "nullif",
    "octet_length",
    "power",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "reverse",
    "right",
    "round",
    "rtrim",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "signum",
    "split_part",
    "sqrt",
    "starts_with",
    "strpos",
    "to_date",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_seconds",
    "to_unixtime",
    "translate",
    "trunc",
    "upper",
];

/// The conditions of one table.
#[derive(Debug)]
pub(super) struct Checks {
    location: String,
    conditions: Vec<Condition>,
    rows_before: usize,
}

#[derive(Debug)]
struct Condition {
    /// How the table names it, for the error.
    name: String,
    holds: Arc<dyn PhysicalExpr>,
}

impl Checks {
    /// The conditions of the table with `state` at `location`, for batches of `schema`.
    pub(super) fn new(state: &DeltaTableState, schema: &Schema, location: &str) -> Result<Self> {
        // As far as the planner knows, any column may be null: it would take IS NOT NULL of a
        // NOT NULL column for granted.
        let nullable = relaxed(schema);
        let planner = Planner {
            session: SessionContext::new().state(),
            schema: DFSchema::try_from(nullable)
                .map_err(|e| Error::while_doing(format!("reading the columns of {location}"), e))?,
            location,
        };
        let mut conditions = vec![];
        for field in schema.fields().iter().filter(|f| !f.is_nullable()) {
            let name = format!("NOT NULL of column {}", field.name());
            conditions.push(planner.condition(name, ident(field.name()).is_not_null())?);
        }
        let mut constraints: Vec<_> = state
            .metadata()
            .configuration()
            .iter()
            .filter_map(|(key, sql)| Some((key.strip_prefix(CONSTRAINT)?, sql)))
            .collect();
        constraints.sort();
        let columns = state.schema();
        let doing = || format!("reading the column settings of the Delta table at '{location}'");
        let invariants = columns
            .get_invariants()
            .map_err(|e| Error::while_doing(doing(), e))?;
        let generated = columns
            .get_generated_columns()
            .map_err(|e| Error::while_doing(doing(), e))?;
        let count = constraints.len() + invariants.len() + generated.len();
        if count > MAX_CONDITIONS {
            let message = format!("at most {MAX_CONDITIONS} are evaluated");
            return Err(planner.unsupported(&format!("{count} conditions"), message));
        }
        for (name, sql) in constraints {
            let name = format!("CHECK constraint {} ({})", shown(name), shown(sql));
            let expr = planner.parse(&name, sql)?;
            conditions.push(planner.condition(name, expr)?);
        }
        for invariant in invariants {
            let sql = &invariant.invariant_sql;
            let name = format!(
                "invariant {} of column {}",
                shown(sql),
                invariant.field_name
            );
            let expr = planner.parse(&name, sql)?;
            conditions.push(planner.condition(name, expr)?);
        }
        for column in generated {
            let sql = column.get_generation_expression();
            let name = format!(
                "column {}, which is generated as {}",
                column.name,
                shown(sql)
            );
            let expr = planner.generated(&name, &column.name, sql)?;
            conditions.push(planner.condition(name, expr)?);
        }
        Ok(Self {
            location: location.to_owned(),
            conditions,
            rows_before: 0,
        })
    }

    /// An error that names the first row of `batch` for which a condition does not hold.
    pub(super) fn check(&mut self, batch: &RecordBatch) -> Result<()> {
        for condition in &self.conditions {
            let held = condition
                .holds
                .evaluate(batch)
                .and_then(|value| value.into_array(batch.num_rows()))
                .map_err(|e| Error::while_doing(format!("checking {}", condition.name), e))?;
            if let Some(row) = first_not_true(held.as_boolean()) {
                return Err(Error::invalid(format!(
                    "row {} of the INSERT violates {} of the Delta table at '{}'; nothing was \
                     written: filter such rows out or correct them",
                    self.rows_before + row + 1,
                    condition.name,
                    self.location
                )));
            }
        }
        self.rows_before += batch.num_rows();
        Ok(())
    }
}

/// The beginning of a text of the log, as an error shows it.
fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// What a condition is made of, but for values. What is no SQL is for its parser to refuse.
fn words(sql: &str) -> usize {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.unwrap_or_default().into_iter();
    let is_word = |token: &Token| {
        !matches!(
            token,
            Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_)
        )
    };
    tokens.filter(is_word).count()
}

fn first_not_true(held: &BooleanArray) -> Option<usize> {
    if held.null_count() == 0 && held.true_count() == held.len() {
        return None;
    }
    (0..held.len()).find(|i| held.is_null(*i) || !held.value(*i))
}

/// Turns the SQL of a table's settings into expressions over its rows.
struct Planner<'a> {
    session: SessionState,
    schema: DFSchema,
    location: &'a str,
}

impl Planner<'_> {
    fn parse(&self, name: &str, sql: &str) -> Result<Expr> {
        if sql.len() > MAX_CHARACTERS {
            let message = format!("it has more than {MAX_CHARACTERS} characters");
            return Err(self.unsupported(name, message));
        }
        if words(sql) > MAX_WORDS {
            let message = format!("it has more than {MAX_WORDS} names, operators and brackets");
            return Err(self.unsupported(name, message));
        }
        let parsed = parse_predicate_expression(&self.schema, sql, &self.session)
            .map_err(|e| self.unsupported(name, e))?;
        let mut other = None;
        let walked = parsed.apply(|expr| {
            if let Expr::BinaryExpr(division) = expr
                && division.op == Operator::Divide
                && !division.left.get_type(&self.schema)?.is_floating()
                && !division.right.get_type(&self.schema)?.is_floating()
            {
                other = Some("divides whole or decimal numbers".to_owned());
                return Ok(TreeNodeRecursion::Stop);
            }
            if let Expr::ScalarFunction(call) = expr
                && !FUNCTIONS.contains(&call.name())
            {
                other = Some(format!("calls {}", call.name()));
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_err(|e| self.unsupported(name, e))?;
        match other {
            None => Ok(parsed),
            Some(what) => {
                let message = format!(
                    "it {what}, which is not known to give the same here as in Spark, or whose results \
                     may be of any size"
                );
                Err(self.unsupported(name, message))
            }
        }
    }

    /// `column` is what `sql` makes of the row, null where that is null.
    fn generated(&self, name: &str, column: &str, sql: &str) -> Result<Expr> {
        let made = self.parse(name, sql)?;
        let field = self
            .schema
            .field_with_unqualified_name(column)
            .map_err(|e| self.unsupported(name, e))?;
        let made = made
            .cast_to(field.data_type(), &self.schema)
            .map_err(|e| self.unsupported(name, e))?;
        Ok(binary_expr(
            ident(column),
            Operator::IsNotDistinctFrom,
            made,
        ))
    }

    fn condition(&self, name: String, expr: Expr) -> Result<Condition> {
        let kind = expr.get_type(&self.schema);
        let kind = kind.map_err(|e| self.unsupported(&name, e))?;
        if kind != DataType::Boolean {
            return Err(self.unsupported(&name, format!("it gives {kind}, not true or false")));
        }
        let holds = self
            .session
            .create_physical_expr(expr, &self.schema)
            .map_err(|e| self.unsupported(&name, e))?;
        Ok(Condition { name, holds })
    }

    fn unsupported(
        &self,
        name: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let error = error.into();
        Error::new(
            ErrorKind::Unsupported,
            format!(
                "rows for the Delta table at '{}' cannot be checked against its {name}: {error}; \
                 write to a table without it",
                self.location
            ),
        )
        .with_source(error)
    }
}
