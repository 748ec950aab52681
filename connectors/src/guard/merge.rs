//! The columns of several Parquet files as those of one table: all of them, as long as those of one
//! name have one type.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};

use super::parquet::in_other_case;
use crate::error::{Error, Result};

/// The columns of `files`, in the order in which they first appear. Each comes with its name, as an
/// error shows it.
pub(super) fn merged(files: Vec<(SchemaRef, String)>) -> Result<SchemaRef> {
    let mut files = files.into_iter();
    let Some((mut table, first)) = files.next() else {
        return Err(Error::invalid("there is no file to read the columns of"));
    };
    // Which file a column was first found in.
    let mut sources = vec![first; table.fields().len()];
    for (found, name) in files {
        if found.fields() == table.fields() {
            continue;
        }
        for field in found.fields() {
            if table.column_with_name(field.name()).is_none()
                && let Some(other) = in_other_case(field.name(), table.fields(), found.fields())
            {
                let at = table.index_of(other.name()).unwrap_or_default();
                return Err(Error::invalid(format!(
                    "the column {} of {name} is called {} in {}: whether they are one cannot be \
                     told by the case of their letters; write the files with the same names, or \
                     make a table of each",
                    field.name(),
                    other.name(),
                    sources[at]
                )));
            }
        }
        let both = Schema::try_merge([table.as_ref().clone(), found.as_ref().clone()]);
        table = match both {
            Ok(both) => Arc::new(both),
            Err(error) => return Err(differs(&table, &sources, &found, &name).with_source(error)),
        };
        sources.resize(table.fields().len(), name);
    }
    Ok(table)
}

/// The first column whose types are not those of one table.
fn differs(table: &Schema, sources: &[String], found: &Schema, name: &str) -> Error {
    let differing = found.fields().iter().find_map(|field| {
        let (at, other) = table.column_with_name(field.name())?;
        let apart = other.clone().try_merge(field).is_err();
        apart.then(|| (field, other.data_type(), &sources[at]))
    });
    match differing {
        Some((field, kind, source)) => Error::invalid(format!(
            "the column {} is {} in {name}, and {kind} in {source}; declare the columns of the \
             table with types that hold the values of all files, or make a table of each kind",
            field.name(),
            field.data_type(),
        )),
        None => Error::invalid(format!(
            "the columns of {name} do not go with those of {}",
            sources.first().map_or("the other files", String::as_str)
        )),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::{DataType, Field};

    use super::*;

    fn file(name: &str, columns: &[(&str, DataType)]) -> (SchemaRef, String) {
        let columns = columns.iter();
        let fields = columns.map(|(name, kind)| Field::new(*name, kind.clone(), true));
        let fields: Vec<Field> = fields.collect();
        (Arc::new(Schema::new(fields)), name.to_owned())
    }

    #[test]
    fn the_files_of_a_column_that_differs_are_named() {
        use DataType::{Int64, Utf8};
        let names = |files: Vec<_>| -> Vec<String> {
            let fields = merged(files).unwrap();
            fields.fields().iter().map(|f| f.name().clone()).collect()
        };
        let (a, b) = (file("a", &[("id", Int64)]), file("b", &[("x", Utf8)]));
        assert_eq!(names(vec![a.clone(), a.clone(), b.clone()]), ["id", "x"]);
        let both = file("c", &[("id", Int64), ("ID", Int64)]);
        assert_eq!(names(vec![a.clone(), both.clone()]), ["id", "ID"]);
        let other = file("d", &[("x", Int64)]);
        let error = merged(vec![a.clone(), b, other]).unwrap_err().to_string();
        for part in ["column x is Int64 in d", "Utf8 in b", "declare"] {
            assert!(error.contains(part), "{error}");
        }
        let upper = file("e", &[("ID", Int64)]);
        let error = merged(vec![a, upper.clone()]).unwrap_err().to_string();
        for part in ["ID of e", "called id in a"] {
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(names(vec![both, upper]), ["id", "ID"]);
        assert!(merged(vec![]).is_err());
    }
}
