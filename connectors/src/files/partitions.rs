//! Columns that folders name, such as `court=First`, as Hive and Spark write and read them.
//!
//! Names and values are percent-encoded; `__HIVE_DEFAULT_PARTITION__` is null.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use object_store::path::Path as StorePath;
use percent_encoding::percent_decode_str;

use super::locate::Located;
use crate::error::{Error, Result};
use crate::folders::NULL;

/// Names and types of the columns, the outermost folder first.
pub(super) type Partitions = Vec<(String, DataType)>;

/// Few values, each in many rows.
pub(super) fn undeclared_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
}

/// The columns in a schema.
pub(super) fn fields(partitions: &Partitions) -> Vec<FieldRef> {
    let fields = partitions.iter();
    fields
        .map(|(name, kind)| Arc::new(Field::new(name, kind.clone(), true)))
        .collect()
}

/// The folders of `path` that are columns, and their values.
fn folders(place: &Located, path: &StorePath) -> Vec<(String, String)> {
    let below = path.as_ref().strip_prefix(place.base.as_ref());
    let below = below.unwrap_or_default();
    let (folders, _) = below.rsplit_once('/').unwrap_or_default();
    let pairs = folders.split('/').filter_map(|f| f.split_once('='));
    pairs
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Bytes that are no text stay as they are written.
fn decoded(text: &str) -> String {
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => decoded.into_owned(),
        Err(_) => text.to_owned(),
    }
}

/// The columns that the folders of `files` name. All must name the same.
pub(super) fn found<'a>(
    place: &Located,
    files: impl Iterator<Item = &'a StorePath>,
) -> Result<Vec<String>> {
    let mut first: Option<(Vec<String>, &StorePath)> = None;
    for path in files {
        let names: Vec<String> = folders(place, path).into_iter().map(|(n, _)| n).collect();
        match &first {
            None => first = Some((names, path)),
            Some((expected, other)) if *expected != names => {
                return Err(Error::invalid(format!(
                    "the folders of {} and {} name different columns ({} and {}), and all files of \
                     a table are in folders of the same columns; name files that belong together by \
                     a pattern, or move those that are beside the folders",
                    place.name(other),
                    place.name(path),
                    listed(expected),
                    listed(&names)
                )));
            }
            Some(_) => {}
        }
    }
    Ok(first.map(|(names, _)| names).unwrap_or_default())
}

fn listed(names: &[String]) -> String {
    match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    }
}

/// The values of one file.
pub(super) fn values(
    place: &Located,
    path: &StorePath,
    partitions: &Partitions,
) -> Result<Vec<ScalarValue>> {
    let folders = folders(place, path);
    let value = |(name, kind): &(String, DataType)| {
        let Some((_, text)) = folders.iter().find(|(found, _)| found == name) else {
            return Err(Error::invalid(format!(
                "{} is in no folder {name}=..., by which the table is partitioned; move it there \
                 or name the files by a pattern",
                place.name(path)
            )));
        };
        let parsed = match text == NULL {
            true => ScalarValue::try_new_null(kind),
            false => ScalarValue::try_from_string(text.clone(), kind),
        };
        parsed.map_err(|e| {
            Error::while_doing(
                format!(
                    "the folder {name}={text} of {} is no value of type {kind}; declare {name} as \
                     VARCHAR",
                    place.name(path)
                ),
                e,
            )
        })
    };
    partitions.iter().map(value).collect()
}

/// Tells files by the values of their folders.
pub(super) struct Filter {
    expr: Arc<dyn PhysicalExpr>,
    schema: Arc<Schema>,
}

impl Filter {
    /// None if `filters` is empty. They must be about the columns of `partitions` alone.
    pub(super) fn new(
        partitions: &Partitions,
        filters: &[Expr],
        properties: &ExecutionProps,
    ) -> Result<Option<Self>, DataFusionError> {
        let Some(filter) = conjunction(filters.iter().cloned()) else {
            return Ok(None);
        };
        let schema = Arc::new(Schema::new(fields(partitions)));
        let named = DFSchema::try_from(Arc::clone(&schema))?;
        let expr = create_physical_expr(&filter, &named, properties, &Default::default())?;
        Ok(Some(Self { expr, schema }))
    }

    /// True for files that have rows of interest.
    pub(super) fn passes(&self, values: &[ScalarValue]) -> Result<bool, DataFusionError> {
        let arrays = values.iter().map(ScalarValue::to_array);
        let arrays = arrays.collect::<Result<Vec<_>, DataFusionError>>()?;
        let row = RecordBatch::try_new(Arc::clone(&self.schema), arrays)?;
        let found = self.expr.evaluate(&row)?.into_array(1)?;
        let found = found.as_boolean();
        Ok(found.is_valid(0) && found.value(0))
    }
}
