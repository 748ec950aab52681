//! What a Delta table demands of new rows: NOT NULL, CHECK constraints, column invariants and
//! generated columns, evaluated batch by batch before a row is written.
//!
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#check-constraints>: a condition
//! must be true; null does not do.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, ExprSchemable, Operator, binary_expr, ident};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use deltalake::delta_datafusion::expr::parse_predicate_expression;
use deltalake::kernel::StructTypeExt;
use deltalake::table::state::DeltaTableState;

use crate::cast::relaxed;
use crate::error::{Error, ErrorKind, Result};

/// Prefix of the table properties that are CHECK constraints.
const CONSTRAINT: &str = "delta.constraints.";

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
        let mut constraints: Vec<_> = state.metadata().configuration().iter().collect();
        constraints.sort();
        for (key, sql) in constraints {
            if let Some(name) = key.strip_prefix(CONSTRAINT) {
                let name = format!("CHECK constraint {name} ({sql})");
                let expr = planner.parse(&name, sql)?;
                conditions.push(planner.condition(name, expr)?);
            }
        }
        let columns = state.schema();
        let doing = || format!("reading the column settings of the Delta table at '{location}'");
        let invariants = columns
            .get_invariants()
            .map_err(|e| Error::while_doing(doing(), e))?;
        for invariant in invariants {
            let sql = &invariant.invariant_sql;
            let name = format!("invariant {sql} of column {}", invariant.field_name);
            let expr = planner.parse(&name, sql)?;
            conditions.push(planner.condition(name, expr)?);
        }
        let generated = columns
            .get_generated_columns()
            .map_err(|e| Error::while_doing(doing(), e))?;
        for column in generated {
            let sql = column.get_generation_expression();
            let name = format!("column {}, which is generated as {sql}", column.name);
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
        parse_predicate_expression(&self.schema, sql, &self.session)
            .map_err(|e| self.unsupported(name, e))
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
