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
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, ident};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use deltalake::delta_datafusion::expr::parse_predicate_expression;
use deltalake::kernel::StructTypeExt;
use deltalake::table::state::DeltaTableState;

use super::{meaning, spark, spark_functions};
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
        let ctx = SessionContext::new();
        for function in spark_functions::all(chrono::Utc::now().timestamp_micros()) {
            ctx.register_udf(function);
        }
        let planner = Planner {
            session: ctx.state(),
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
        let same = spark::translated(sql, self.schema.as_arrow()).map_err(|what| {
            let known = spark::understood();
            let message = format!(
                "it {what}, which is not known to give the same here as in Spark, or whose results may \
                 be of any size; these functions are understood: {known}"
            );
            self.unsupported(name, message)
        })?;
        let parsed = parse_predicate_expression(&self.schema, same, &self.session)
            .map_err(|e| self.unsupported(name, e))?;
        meaning::as_spark(parsed, &self.schema).map_err(|e| self.unsupported(name, e))
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

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int32Array, ListArray,
        StringArray, StringViewArray, TimestampMicrosecondArray,
    };
    use datafusion::arrow::datatypes::Int32Type;
    use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

    use super::*;

    /// One row: values, and nulls of each type.
    fn row() -> RecordBatch {
        let list = |items| ListArray::from_iter_primitive::<Int32Type, _, _>([items]);
        let columns: [(&str, ArrayRef); 17] = [
            ("t", Arc::new(StringViewArray::from(vec!["Straße"]))),
            ("blank", Arc::new(StringArray::from(vec!["  a b  "]))),
            ("code", Arc::new(StringViewArray::from(vec!["AB-12"]))),
            ("nt", Arc::new(StringViewArray::from(vec![None::<&str>]))),
            ("i", Arc::new(Int32Array::from(vec![7]))),
            ("minus", Arc::new(Int32Array::from(vec![-7]))),
            ("zero", Arc::new(Int32Array::from(vec![0]))),
            ("ni", Arc::new(Int32Array::from(vec![None]))),
            ("d", Arc::new(Date32Array::from(vec![19_782]))), // 2024-02-29
            ("nd", Arc::new(Date32Array::from(vec![None]))),
            (
                "ts",
                Arc::new(
                    TimestampMicrosecondArray::from(vec![1_709_249_400_000_000])
                        .with_timezone("UTC"),
                ), // 2024-02-29 23:30:00
            ),
            ("f", Arc::new(Float64Array::from(vec![2.5]))),
            ("nf", Arc::new(Float64Array::from(vec![None]))),
            ("l", Arc::new(list(Some(vec![Some(1), None])))),
            ("nl", Arc::new(list(None::<Vec<Option<i32>>>))),
            (
                "m",
                Arc::new(
                    Decimal128Array::from(vec![150])
                        .with_precision_and_scale(10, 2)
                        .unwrap(),
                ),
            ),
            ("Flag", Arc::new(BooleanArray::from(vec![true]))),
        ];
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
            .unwrap()
    }

    fn value(sql: &str) -> Result<String> {
        let batch = row();
        let ctx = SessionContext::new();
        for function in spark_functions::all(1_709_249_400_123_456) {
            ctx.register_udf(function);
        }
        let planner = Planner {
            session: ctx.state(),
            schema: DFSchema::try_from(batch.schema().as_ref().clone()).unwrap(),
            location: "x",
        };
        let expr = planner.parse("test", sql)?;
        let failed = |e| Error::while_doing("evaluating", e);
        let expr = planner
            .session
            .create_physical_expr(expr, &planner.schema)
            .map_err(failed)?;
        let made = expr
            .evaluate(&batch)
            .and_then(|v| v.into_array(1))
            .map_err(failed)?;
        let shown = FormatOptions::new().with_null("NULL");
        let shown = ArrayFormatter::try_new(&made, &shown).unwrap();
        Ok(shown.value(0).to_string())
    }

    /// Expected: what Spark's documentation of functions and its sources say.
    #[test]
    fn functions_give_what_they_give_in_spark() {
        for (sql, expected) in [
            ("length(t)", "6"),
            ("LEN(blank)", "7"),
            ("Char_Length(nt)", "NULL"),
            ("upper(code)", "AB-12"),
            ("lower(code)", "ab-12"),
            ("UPPER(t)", "STRASSE"),
            ("trim(blank)", "a b"),
            ("ltrim(blank)", "a b  "),
            ("RTRIM(blank)", "  a b"),
            ("trim(nt)", "NULL"),
            ("substr(t, 1, 3)", "Str"),
            ("substring(t, 5, 1)", "ß"),
            ("SUBSTRING(t FROM 2 FOR 2)", "tr"),
            ("substr(t, 0, 2)", "St"),
            ("substr(t, -2)", "ße"),
            ("substr(t, 9)", ""),
            ("substr(nt, 1)", "NULL"),
            ("substr(t, ni)", "NULL"),
            ("left(t, 2)", "St"),
            ("left(t, -1)", ""),
            ("right(t, 2)", "ße"),
            ("right(t, 0)", ""),
            ("right(nt, 0)", "NULL"),
            ("concat(code, '/', t)", "AB-12/Straße"),
            ("concat(code, nt)", "NULL"),
            ("code || nt", "NULL"),
            ("concat_ws('-', code, nt, t)", "AB-12-Straße"),
            ("concat_ws('-', nt)", ""),
            ("concat_ws(nt, code, t)", "NULL"),
            ("coalesce(nt, 'x')", "x"),
            ("coalesce(nt, nt)", "NULL"),
            ("coalesce(ni, NULL, 2.5) = 2.5", "true"),
            ("coalesce(coalesce(nd, d), d)", "2024-02-29"),
            ("nvl(ni, 3)", "3"),
            ("ifnull(i, 3)", "7"),
            ("nvl2(nt, 1, 2)", "2"),
            ("nullif(i, 7)", "NULL"),
            ("if(i > 3, 'a', 'b')", "a"),
            ("if(ni > 3, 'a', 'b')", "b"),
            ("isnull(nt)", "true"),
            ("isnotnull(nt)", "false"),
            ("ISNULL(i)", "false"),
            ("isnan(nf)", "false"),
            ("year(d)", "2024"),
            ("month(d)", "2"),
            ("day(d)", "29"),
            ("dayofmonth(d)", "29"),
            ("dayofyear(d)", "60"),
            ("quarter(d)", "1"),
            ("weekofyear(d)", "9"),
            ("Year(nd)", "NULL"),
            ("year(ts)", "2024"),
            ("hour(ts)", "23"),
            ("minute(ts)", "30"),
            ("EXTRACT(MONTH FROM d)", "2"),
            ("date_part('YEAR', d)", "2024"),
            ("date_add(d, 1)", "2024-03-01"),
            ("date_add(d, -60)", "2023-12-31"),
            ("date_add(nd, 1)", "NULL"),
            ("date_add(d, ni)", "NULL"),
            ("date_sub(d, 29)", "2024-01-31"),
            ("date_add(ts, 1)", "2024-03-01"),
            ("datediff(d, DATE '2024-02-01')", "28"),
            ("datediff(DATE '2024-02-01', d)", "-28"),
            ("datediff(d, nd)", "NULL"),
            ("current_date", "2024-02-29"),
            ("current_date()", "2024-02-29"),
            ("now()", "2024-02-29T23:30:00.123456Z"),
            ("CURRENT_TIMESTAMP()", "2024-02-29T23:30:00.123456Z"),
            ("ts <= current_timestamp()", "true"),
            ("d > current_date()", "false"),
            ("size(l)", "2"),
            ("size(nl)", "NULL"),
            ("mod(i, 4)", "3"),
            ("i % 4", "3"),
            ("minus % 4", "-3"),
            ("mod(minus, 4)", "-3"),
            ("mod(ni, 4)", "NULL"),
            ("i / 2", "3.5"),
            ("i / zero", "NULL"),
            ("f / 0", "NULL"),
            ("ni / 2", "NULL"),
            ("i / 2 * 2 = i", "true"),
            ("code RLIKE '^[A-Z]{2}-\\\\d+$'", "true"),
            ("code NOT RLIKE '^[a-z]'", "true"),
            ("rlike(code, 'B')", "true"),
            ("code REGEXP 'x'", "false"),
            ("nt RLIKE 'x'", "NULL"),
            ("code LIKE 'AB-%' AND code LIKE 'A_-%'", "true"),
            ("startswith(code, 'AB')", "true"),
            ("endsWith(code, 'AB')", "false"),
            ("contains(code, '-')", "true"),
            ("contains(nt, '-')", "NULL"),
            ("instr(code, '-')", "3"),
            ("locate('-', code)", "3"),
            ("abs(minus)", "7"),
            ("round(f)", "3.0"),
            ("nt <=> NULL", "true"),
            ("i <=> ni", "false"),
            ("CODE = 'AB-12' AND FLAG", "true"), // Spark's columns have no case
            ("`Code` = \"AB-12\"", "true"),      // and its double quotes are texts
            ("m > 1.49", "true"),
            ("m = 1.5", "true"),
            ("f > 2.4999999999999999", "false"), // both as DOUBLE
            ("f IN (2.50, 7)", "true"),
            ("f BETWEEN 2.4999999999999999 AND 2.6", "true"),
            ("12345678901234567890.12 > 12345678901234567890.11", "true"),
            ("d >= '2024-02-29'", "true"),
            ("i IN (7, 8) AND i BETWEEN 1 AND 7", "true"),
            ("CASE WHEN i > 1 THEN 'x' ELSE t END", "x"),
            ("CAST(f AS INT)", "2"),
        ] {
            match value(sql) {
                Ok(found) => assert_eq!(found, expected, "{sql}"),
                Err(error) => panic!("{sql}: {error}"),
            }
        }
    }

    /// Nothing that is nested doubles what it is made of.
    #[test]
    fn nested_conditions_stay_as_small_as_they_are() {
        for (open, close, times) in [
            ("coalesce(", ", 1)", 20),
            ("1 / (", ")", 20),
            ("abs(", ")", 20),
            ("mod(", ", 7)", 20),
            // As deep as the parser goes.
            ("nvl2(", ", 1, 2)", 8),
            ("if(true, ", ", 2)", 8),
        ] {
            let sql = format!("{}i{} > 0", open.repeat(times), close.repeat(times));
            value(&sql).unwrap_or_else(|e| panic!("{open}: {e}"));
        }
        let sql = format!("length({}t{}) > 0", "right(".repeat(20), ", 9)".repeat(20));
        assert_eq!(value(&sql).unwrap(), "true");
    }

    #[test]
    fn what_is_not_known_to_be_the_same_is_refused_and_said() {
        for (sql, part) in [
            ("levenshtein(t, 'x') > 1", "calls levenshtein"),
            ("from_unixtime(i) > '2020'", "calls from_unixtime"),
            ("initcap(t) = t", "calls initcap"),
            ("repeat(t, 1000000000) <> ''", "calls repeat"),
            ("array_contains(l, 1)", "calls array_contains"),
            ("ltrim('x', t) = ''", "calls ltrim with 2"),
            ("trim(t, 'x') = ''", "second argument"),
            ("round(f, 2) = 2.5", "calls round with 2"),
            ("m / 2 > 1", "divides"),
            ("i / 2.0 > 1", "divides"),
            ("code RLIKE '(?i)ab'", "may mean something else here ((?)"),
            ("code RLIKE t", "no text literal"),
            ("date_part('dow', d) = 1", "date_part"),
            ("EXTRACT(DOW FROM d) = 1", "extracts"),
            ("code > 9", "two kinds"),
            ("i = '7'", "two kinds"),
            ("code IN (1, 2)", "two kinds"),
            ("i || code = '7AB'", "no text"),
            ("length(i) = 1", "another type"),
            ("year(code) = 2024", "another type"),
            ("CAST(f AS STRING) = '2.5'", "makes a text"),
            ("CAST(ts AS STRING) = 'x'", "makes a text"),
            ("TRY_CAST(t AS INT) IS NULL", "cast of the kind"),
            ("t ILIKE 'x'", "LIKE"),
            ("t = 'a\\'", "backslash"),
            ("\"code\" = 'x'", "double quotes"),
            ("i ^ 2 = 5", "operator"),
            ("coalesce(i, t) = 'x'", "one kind"),
            ("code + 1 > 2", "with a text"),
            ("spark_now() > ts", "calls spark_now"),
            ("count(DISTINCT i) > 0", "calls count"),
            ("1 > 0; DROP TABLE t", "does not end"),
        ] {
            let error = value(sql)
                .map(|made| panic!("{sql}: {made}"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{sql}: {error}");
        }
        let error = value("levenshtein(t, 'x') > 1").unwrap_err().to_string();
        assert!(error.contains("these functions are understood: abs, ") && error.contains("year"));
    }
}
