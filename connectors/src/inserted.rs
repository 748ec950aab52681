//! The rows of an INSERT as the statement gives them, not as the planner casts them.
//!
//! SQL's planner lays a cast into the table's type over each column, which rounds, cuts and fails
//! without a word about where. Our sinks cast for themselves and look at each value (`cast`), so an
//! analyzer rule takes the planner's casts off where the target is ours. In a list of VALUES each
//! value has a cast of its own: there a function of ours takes its place and refuses the same
//! values. Casts that a user writes in a SELECT are his and stay.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::datasource::DefaultTableSource;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{
    ColumnarValue, DmlStatement, Expr, LogicalPlan, Projection, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Values, Volatility, WriteOp,
};
use datafusion::optimizer::AnalyzerRule;

use crate::cast::CheckedCast;
use crate::rejects::WithRejects;

/// True of the tables of one connector.
type IsTable = fn(&dyn TableProvider) -> bool;

/// Lets the tables of connectors, which `own` tells from others, take rows as they are given, in `ctx`.
pub(crate) fn register(ctx: &SessionContext, own: impl IntoIterator<Item = IsTable>) {
    let state = ctx.state();
    let mut known = state.analyzer().rules.iter();
    if !known.any(|rule| rule.name() == RULE) {
        let own = own.into_iter().collect();
        ctx.add_analyzer_rule(Arc::new(AsGiven { own }));
    }
}

const RULE: &str = "casebook_rows_as_given";

#[derive(Debug)]
struct AsGiven {
    own: Vec<IsTable>,
}

impl AnalyzerRule for AsGiven {
    fn name(&self) -> &str {
        RULE
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let analyzed = plan.transform_down(|plan| match plan {
            LogicalPlan::Dml(dml) if self.is_insert_into_ours(&dml) => as_given(dml),
            other => Ok(Transformed::no(other)),
        });
        Ok(analyzed?.data)
    }
}

impl AsGiven {
    fn is_insert_into_ours(&self, dml: &DmlStatement) -> bool {
        let source = dml.target.downcast_ref::<DefaultTableSource>();
        let is_ours = |table: &dyn TableProvider| {
            table.is::<WithRejects>() || self.own.iter().any(|is_own| is_own(table))
        };
        matches!(dml.op, WriteOp::Insert(_)) && source.is_some_and(|s| is_ours(&*s.table_provider))
    }
}

fn as_given(dml: DmlStatement) -> Result<Transformed<LogicalPlan>> {
    let table = dml.table_name.clone();
    let mut input = Arc::unwrap_or_clone(dml.input);
    // The names that VALUES get in the table, by their own.
    let mut names: Vec<(String, String)> = vec![];
    if let LogicalPlan::Projection(projection) = input {
        let exprs = projection.expr.into_iter().map(|expr| {
            let (name, bare) = match expr {
                Expr::Alias(alias) if alias.relation.is_none() => (alias.name, *alias.expr),
                other => return other,
            };
            let bare = match bare {
                Expr::Cast(cast) if matches!(*cast.expr, Expr::Column(_) | Expr::Literal(_, _)) => {
                    *cast.expr
                }
                other => other,
            };
            if let Expr::Column(column) = &bare {
                names.push((column.name.clone(), name.clone()));
            }
            bare.alias(name)
        });
        let exprs: Vec<Expr> = exprs.collect();
        input = LogicalPlan::Projection(Projection::try_new(exprs, projection.input)?);
    }
    let table = table.to_string();
    if input.exists(|plan| Ok(matches!(plan, LogicalPlan::Values(_))))? {
        input = with_values(input, &names, &table)?;
    }
    let dml = DmlStatement::new(dml.table_name, dml.target, dml.op, Arc::new(input));
    Ok(Transformed::yes(LogicalPlan::Dml(dml)))
}

/// `input` with lists of VALUES of which a cast loses nothing.
fn with_values(input: LogicalPlan, names: &[(String, String)], table: &str) -> Result<LogicalPlan> {
    // A value may be null until the sink has named its row.
    let relaxed = |values: &Values| -> Result<DFSchemaRef> {
        let fields = values.schema.fields().iter();
        let fields = fields.map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
        let schema = DFSchema::from_unqualified_fields(fields.collect(), HashMap::new())?;
        Ok(Arc::new(schema))
    };
    let input = input.transform_up(|plan| match plan {
        LogicalPlan::Values(mut values) => {
            values.schema = relaxed(&values)?;
            let values = looked_at(values, names, table);
            Ok(Transformed::yes(LogicalPlan::Values(values)))
        }
        other => Ok(Transformed::yes(other.recompute_schema()?)),
    })?;
    Ok(input.data)
}

/// `values` for `table`, of which a cast loses nothing.
fn looked_at(values: Values, names: &[(String, String)], table: &str) -> Values {
    let schema = Arc::clone(&values.schema);
    let look = |row: usize, at: usize, value: Expr| {
        let column = schema.field(at);
        match value {
            Expr::Cast(cast) if cast.field.data_type() == column.data_type() => {
                let name = names.iter().find(|(own, _)| own == column.name());
                let value = GivenValue {
                    column: name.map_or(column.name(), |(_, name)| name).clone(),
                    target: column.data_type().clone(),
                    row,
                    table: table.to_owned(),
                    signature: Signature::any(1, Volatility::Volatile),
                };
                ScalarUDF::from(value).call(vec![*cast.expr])
            }
            other => other,
        }
    };
    let rows = values.values.into_iter().enumerate().map(|(row, cells)| {
        let cells = cells.into_iter().enumerate();
        cells.map(|(at, value)| look(row, at, value)).collect()
    });
    Values {
        values: rows.collect(),
        schema: values.schema,
    }
}

/// One value of a list of VALUES, in its column's type. Volatile, so that no optimizer computes it
/// ahead and wraps the error into its own words.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GivenValue {
    column: String,
    target: DataType,
    /// From 0.
    row: usize,
    table: String,
    signature: Signature,
}

impl ScalarUDFImpl for GivenValue {
    fn name(&self) -> &str {
        "casebook_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.target.clone())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let batch = RecordBatch::try_from_iter(arrays.into_iter().map(|value| ("value", value)))?;
        let field = Field::new(&self.column, self.target.clone(), true);
        let schema = Arc::new(Schema::new(vec![field]));
        let cast = CheckedCast::new(schema, format!("the table {}", self.table));
        let cast = cast.after(self.row).cast(&batch)?;
        Ok(ColumnarValue::Array(Arc::clone(cast.column(0))))
    }
}
