//! Which filters and statistics may decide about rows that are not read.
//!
//! Parquet and Delta leave NaN out of the least and the greatest value of a column, and take 0.0 and
//! -0.0 for one, while a filter takes NaN for greater than all numbers: a row group of 1 and NaN says
//! "1 to 1", and nothing that depends on it is true. So no floating column is judged by statistics,
//! in row groups, pages, bloom filters, files or `max()`; all others are. The library also looks
//! through every cast, though not all keep the order of values (the times of two days). A bound that
//! is not known for each row group, or is of another type than the table's column, is none.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Fields, Schema};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ColumnStatistics, DFSchema, Statistics};
use datafusion::execution::SessionState;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::expr_rewriter::unnormalize_col;
use datafusion::parquet::arrow::parquet_to_arrow_schema;
use datafusion::parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use datafusion::physical_expr::LexOrdering;
use datafusion::physical_expr::expressions::{CastExpr, Column, TryCastExpr};
use datafusion::physical_plan::PhysicalExpr;

use crate::exact;

/// True if `data_type` is floating, or something within it is.
fn floats(data_type: &DataType) -> bool {
    use DataType::*;
    let any = |fields: &Fields| fields.iter().any(|field| floats(field.data_type()));
    match data_type {
        Float16 | Float32 | Float64 => true,
        Struct(fields) => any(fields),
        List(item)
        | LargeList(item)
        | ListView(item)
        | LargeListView(item)
        | FixedSizeList(item, _)
        | Map(item, _) => floats(item.data_type()),
        Dictionary(_, value) => floats(value),
        RunEndEncoded(_, value) => floats(value.data_type()),
        _ => false,
    }
}

/// True if a `filter` over columns of `schema` may skip what statistics say is not there.
pub(crate) fn may_prune(filter: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let mut sound = true;
    let walked = filter.apply(|expr| {
        let cast = match expr.downcast_ref::<CastExpr>() {
            Some(cast) => Some((cast.expr(), cast.cast_type())),
            None => {
                let cast = expr.downcast_ref::<TryCastExpr>();
                cast.map(|cast| (cast.expr(), cast.cast_type()))
            }
        };
        sound = match (expr.downcast_ref::<Column>(), cast) {
            (Some(column), _) => {
                let field = schema.field_with_name(column.name());
                field.is_ok_and(|field| !floats(field.data_type()))
            }
            (None, Some((from, to))) => keeps_order(&from.data_type(schema)?, to),
            (None, None) => true,
        };
        Ok(match sound {
            true => TreeNodeRecursion::Continue,
            false => TreeNodeRecursion::Stop,
        })
    });
    sound && walked.is_ok()
}

/// The same for a `filter` that is not planned yet.
pub(crate) fn may_prune_planned(filter: &Expr, schema: &Schema, session: &SessionState) -> bool {
    let planned = DFSchema::try_from(schema.clone())
        .and_then(|schema| session.create_physical_expr(unnormalize_col(filter.clone()), &schema));
    planned.is_ok_and(|filter| may_prune(&filter, schema))
}

fn keeps_order(from: &DataType, to: &DataType) -> bool {
    let moment = |t: &DataType| {
        matches!(
            t,
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..)
        )
    };
    exact::widens(to, from) || from.is_numeric() && to.is_numeric() || moment(from) && moment(to)
}

/// `statistics` of columns of `schema` without bounds of floating columns.
pub(crate) fn without_floats(mut statistics: Statistics, schema: &Schema) -> Statistics {
    let columns = statistics.column_statistics.iter_mut();
    for (column, field) in columns.zip(schema.fields()) {
        if floats(field.data_type()) {
            forget_bounds(column);
        }
    }
    statistics
}

fn forget_bounds(column: &mut ColumnStatistics) {
    column.min_value = Precision::Absent;
    column.max_value = Precision::Absent;
    column.sum_value = Precision::Absent;
    column.distinct_count = Precision::Absent;
}

/// What the library made of the `footer` of a file for the columns of `table`, as far as it is so.
pub(super) fn trusted(
    statistics: Statistics,
    footer: &ParquetMetaData,
    table: &Schema,
) -> Statistics {
    let mut statistics = without_floats(statistics, table);
    let file = footer.file_metadata();
    let found = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata());
    let found = found.unwrap_or_else(|_| Schema::empty());
    let leaves = file.schema_descr().columns().iter().enumerate();
    let leaves: HashMap<String, usize> = leaves
        .filter(|(_, leaf)| leaf.path().parts().len() == 1)
        .map(|(at, leaf)| (leaf.name().to_owned(), at))
        .collect();
    let columns = statistics.column_statistics.iter_mut();
    for (column, wanted) in columns.zip(table.fields()) {
        let Ok(own) = found.field_with_name(wanted.name()) else {
            continue;
        };
        if layout(own.data_type()) != layout(wanted.data_type()) {
            // The library leaves them null where it does not cast, and calls that exact.
            forget_bounds(column);
            continue;
        }
        let leaf = leaves.get(wanted.name());
        let known = |group| leaf.is_some_and(|at| has_bounds(group, *at));
        if !footer.row_groups().iter().all(known) {
            column.min_value = column.min_value.clone().to_inexact();
            column.max_value = column.max_value.clone().to_inexact();
        }
    }
    statistics
}

/// The type whose values the library's bounds of a column are.
fn layout(data_type: &DataType) -> DataType {
    use DataType::*;
    match data_type {
        Utf8 | LargeUtf8 | Utf8View => Utf8,
        Binary | LargeBinary | BinaryView => Binary,
        Dictionary(_, value) => layout(value),
        other => other.clone(),
    }
}

/// True if `group` says what the least and the greatest value of a column are, or that it has none.
fn has_bounds(group: &RowGroupMetaData, column: usize) -> bool {
    let column = group.columns().get(column);
    let Some(known) = column.and_then(|column| column.statistics()) else {
        return group.num_rows() == 0;
    };
    let all_null = known.null_count_opt() == u64::try_from(group.num_rows()).ok();
    all_null || known.min_is_exact() && known.max_is_exact()
}

/// The part of an order that does not depend on where NaN stands in it.
pub(super) fn without_float_order(order: LexOrdering, schema: &Schema) -> Option<LexOrdering> {
    let sound = order
        .into_iter()
        .take_while(|sort| may_prune(&sort.expr, schema));
    LexOrdering::new(sound)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{Field, TimeUnit};
    use datafusion::common::ScalarValue;
    use datafusion::prelude::{SessionContext, cast, col, lit};

    use super::*;

    #[test]
    fn floating_columns_and_casts_that_turn_the_order_are_not_judged_by_statistics() {
        let moment = DataType::Timestamp(TimeUnit::Microsecond, None);
        let within = Fields::from(vec![Field::new("f", DataType::Float32, true)]);
        let schema = Schema::new(vec![
            Field::new("i", DataType::Int64, true),
            Field::new("f", DataType::Float64, true),
            Field::new("s", DataType::Struct(within), true),
            Field::new("t", moment, true),
            Field::new("x", DataType::Utf8View, true),
        ]);
        let session = SessionContext::new().state();
        let check = |filter: Expr| may_prune_planned(&filter, &schema, &session);
        for fine in [
            col("i").gt(lit(1_i64)),
            cast(col("i"), DataType::Float64).gt(lit(1.5)),
            col("q.i").eq(lit(1_i64)),
            cast(col("t"), DataType::Date32).eq(lit(ScalarValue::Date32(Some(1)))),
            col("x").gt(lit("a")).and(col("i").lt(lit(3_i64))),
        ] {
            assert!(check(fine.clone()), "{fine}");
        }
        for other in [
            col("f").gt(lit(1.0)),
            col("q.f").gt(lit(1.0)),
            cast(col("f"), DataType::Int64).gt(lit(1_i64)),
            col("i").lt(lit(1_i64)).or(col("f").is_null()),
            col("s").is_not_null(),
            cast(col("t"), DataType::Time64(TimeUnit::Microsecond)).is_not_null(),
            cast(col("i"), DataType::Boolean),
            cast(col("i"), DataType::Utf8).gt(lit("5")),
            col("gone").is_null(),
        ] {
            assert!(!check(other.clone()), "{other}");
        }
    }
}
