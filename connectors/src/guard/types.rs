//! The columns of a Parquet file in the types of their table, each value as it is.
//!
//! The library casts a column whose type in the file is not the table's, and rounds or cuts what has
//! no place there: 1.2345 in a DECIMAL(10, 2), a time in a DATE. Here that is an error which names
//! column and value. A cast that can only widen or fail is left to the library, because pruning looks
//! through it; the rest is opaque to pruning.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::expressions::{CastExpr, Column};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};
use datafusion::physical_plan::PhysicalExpr;

use crate::cast::as_declared;
use crate::error::Error;
use crate::exact;

/// Fits the expressions of a scan to a file as another factory does, without a change of any value.
#[derive(Debug)]
pub(crate) struct ExactTypes(Arc<dyn PhysicalExprAdapterFactory>);

impl ExactTypes {
    /// Over the factory of the scan, or the library's own.
    pub(crate) fn over(
        inner: Option<Arc<dyn PhysicalExprAdapterFactory>>,
    ) -> Arc<dyn PhysicalExprAdapterFactory> {
        Arc::new(Self(
            inner.unwrap_or_else(|| Arc::new(DefaultPhysicalExprAdapterFactory)),
        ))
    }
}

impl PhysicalExprAdapterFactory for ExactTypes {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        Ok(Arc::new(ExactAdapter {
            inner: self.0.create(Arc::clone(&table), Arc::clone(&file))?,
            table,
            file,
        }))
    }
}

#[derive(Debug)]
struct ExactAdapter {
    inner: Arc<dyn PhysicalExprAdapter>,
    table: SchemaRef,
    file: SchemaRef,
}

impl PhysicalExprAdapter for ExactAdapter {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        // A column that is read, not compared: nothing is pruned by it, and our error is the better.
        let is_read = expr.is::<Column>();
        let marked = expr.transform(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else {
                return Ok(Transformed::no(expr));
            };
            let name = column.name();
            let fields = (self.table.field_with_name(name), self.file.field_with_name(name));
            let (Ok(wanted), Ok(own)) = fields else {
                return Ok(Transformed::no(expr));
            };
            let (from, to) = (own.data_type(), wanted.data_type());
            let nested = from.is_nested() || to.is_nested();
            match exact::widens(to, from) {
                true if nested || !is_read || from == to => Ok(Transformed::no(expr)),
                false if nested => Err(Error::invalid(format!(
                    "column {name} is {from} in the file and {to} in the table, which does not hold \
                     each of its values; declare it as it is in the file, and cast it in the query"
                ))
                .into()),
                _ => Ok(Transformed::yes(Arc::new(ExactColumn {
                    name: name.to_owned(),
                    cast: expr,
                }))),
            }
        });
        self.inner.rewrite(marked.data()?)
    }
}

/// A column whose values are the same before and after the cast into the table's type.
#[derive(Debug, Clone)]
struct ExactColumn {
    name: String,
    /// The column, under a cast once it is fitted to a file.
    cast: Arc<dyn PhysicalExpr>,
}

// Deriving them asks for a copy of the expression (rust-lang/rust#78808).
impl PartialEq for ExactColumn {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.cast.eq(&other.cast)
    }
}

impl Eq for ExactColumn {}

impl Hash for ExactColumn {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.cast.hash(state);
    }
}

impl fmt::Display for ExactColumn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cast.fmt(f)
    }
}

impl PhysicalExpr for ExactColumn {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.cast.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.cast.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.cast.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        let Some(cast) = self.cast.downcast_ref::<CastExpr>() else {
            return self.cast.evaluate(batch);
        };
        let own = cast.expr().evaluate(batch)?.into_array(batch.num_rows())?;
        let fitted = as_declared(&self.name, &own, cast.cast_type())?;
        Ok(ColumnarValue::Array(fitted))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.cast]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        let cast = children.into_iter().next();
        Ok(Arc::new(Self {
            name: self.name.clone(),
            cast: cast.unwrap_or_else(|| Arc::clone(&self.cast)),
        }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cast.fmt_sql(f)
    }
}
