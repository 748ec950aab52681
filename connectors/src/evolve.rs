//! `table.evolve`: whether an existing target takes the declared columns that it lacks.

use std::sync::Arc;

use datafusion::arrow::datatypes::{FieldRef, Schema};

use crate::connector::OptionSpec;
use crate::declared::check_same;
use crate::error::{Error, Result};
use crate::options::TableOptions;

/// The option.
pub(crate) const EVOLVE: OptionSpec = OptionSpec {
    key: "table.evolve",
    secret: false,
    default: "a table that lacks declared columns is an error",
    doc: "add_columns: before its first row, INSERT adds the columns of table.create that an \
          existing table lacks; rows that are there have NULL in them",
};

/// The one value of [`EVOLVE`].
const ADD_COLUMNS: &str = "add_columns";

/// True if the target takes new columns.
///
/// # Errors
/// Another value, or no declared columns.
pub(crate) fn asked_for(options: &TableOptions) -> Result<bool> {
    match options.get(EVOLVE.key) {
        None => Ok(false),
        Some(ADD_COLUMNS) if options.get("table.create").is_some() => Ok(true),
        Some(ADD_COLUMNS) => Err(Error::invalid(format!(
            "option {} needs table.create, which says what columns the table should have",
            EVOLVE.key
        ))),
        Some(other) => Err(Error::unknown(
            &format!("value of {}", EVOLVE.key),
            other,
            &[ADD_COLUMNS],
        )),
    }
}

/// The declared columns that the table at `location`, which has the columns `found`, lacks.
///
/// # Errors
/// Any other difference; lacking columns, too, unless `evolve`.
pub(crate) fn missing(
    declared: &Schema,
    found: &Schema,
    evolve: bool,
    location: &str,
) -> Result<Vec<FieldRef>> {
    let lacking = declared.fields().iter();
    let lacking = lacking.filter(|field| found.column_with_name(field.name()).is_none());
    let lacking: Vec<FieldRef> = lacking.cloned().collect();
    if !evolve {
        let same = check_same(declared, found, location);
        return match (same, lacking.is_empty()) {
            (Ok(()), _) => Ok(vec![]),
            (Err(error), true) => Err(error),
            (Err(error), false) => Err(Error::invalid(format!(
                "{error}; or let INSERT add the missing ones: OPTIONS ('{}' '{ADD_COLUMNS}')",
                EVOLVE.key
            ))),
        };
    }
    // In the table's order, new ones last.
    let known = found.fields().iter();
    let known = known.filter_map(|field| declared.field_with_name(field.name()).ok());
    let known = known.map(|field| Arc::new(field.clone()));
    let expected: Vec<FieldRef> = known.chain(lacking.iter().cloned()).collect();
    let evolved = found.fields().iter().chain(&lacking).cloned();
    let evolved: Vec<FieldRef> = evolved.collect();
    check_same(&Schema::new(expected), &Schema::new(evolved), location)?;
    Ok(lacking)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field};

    fn schema(columns: &[(&str, DataType)]) -> Schema {
        let fields = columns.iter();
        let fields = fields.map(|(name, kind)| Field::new(*name, kind.clone(), true));
        Schema::new(fields.collect::<Vec<_>>())
    }

    #[test]
    fn what_a_table_lacks_is_added_only_if_asked_for() {
        use DataType::{Float64, Int64, Utf8};
        let declared = schema(&[("a", Utf8), ("b", Int64), ("c", Utf8)]);
        let found = schema(&[("a", Utf8), ("c", Utf8)]);
        let lacking = missing(&declared, &found, true, "t").unwrap();
        assert_eq!(lacking.len(), 1);
        assert_eq!(lacking[0].name(), "b");
        let error = missing(&declared, &found, false, "t")
            .unwrap_err()
            .to_string();
        assert!(error.contains("b is missing"), "{error}");
        assert!(error.contains("'table.evolve' 'add_columns'"), "{error}");
        for (wrong, part) in [
            (schema(&[("a", Float64), ("c", Utf8)]), "a has type"),
            (schema(&[("a", Utf8), ("d", Utf8)]), "d is not declared"),
        ] {
            let error = missing(&declared, &wrong, true, "t")
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
        assert!(missing(&declared, &declared, true, "t").unwrap().is_empty());
    }
}
