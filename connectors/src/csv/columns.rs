//! Which cell of a record is which column of the table: by the names in the header of each file,
//! by position where there is none.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use super::header::{Header, names};
use crate::error::{Error, Result};

/// What a scan wants of its files.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The columns of the table that are in its files.
    pub(super) table: SchemaRef,
    /// Which of them are read, in order.
    pub(super) projection: Arc<[usize]>,
    /// Columns that folders give; a file may have them, too.
    pub(super) folders: Arc<[String]>,
    /// The columns were declared: a file may have others.
    pub(super) declared: bool,
    /// A file may lack columns.
    pub(super) truncated: bool,
}

/// Where the cells of a record go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    /// For each cell its place among the columns that are read.
    pub(super) places: Vec<Option<usize>>,
    /// Places that no cell fills.
    pub(super) absent: Vec<usize>,
    /// A record may end with a delimiter that begins no cell.
    pub(super) trailing: bool,
}

impl Wanted {
    /// The columns of a file without a header: those of the table, in order.
    pub(super) fn by_position(&self) -> Columns {
        let cells = (0..self.table.fields().len()).map(Some);
        self.placed(cells.collect(), false)
    }

    /// The columns of a file with this header.
    ///
    /// # Errors
    /// A header that does not go with the table, with what differs.
    pub(super) fn by_name(&self, header: &Header) -> Result<Columns> {
        let (found, trailing) = names(header);
        let table: Vec<&str> = self
            .table
            .fields()
            .iter()
            .map(|f| f.name().trim())
            .collect();
        let mut cells: Vec<Option<usize>> = vec![None; found.len()];
        let mut missing = vec![];
        for (column, name) in table.iter().enumerate() {
            match find(name, &table, &found)? {
                Some(cell) => cells[cell] = Some(column),
                None => missing.push(column),
            }
        }
        // A column without a name can only be meant by its place.
        missing.retain(|column| {
            let nameless = header.get(*column).is_some_and(String::is_empty);
            let free = cells.get(*column) == Some(&None);
            if nameless && free {
                cells[*column] = Some(*column);
            }
            !(nameless && free)
        });
        let extra = found.iter().zip(&cells).filter(|(name, cell)| {
            cell.is_none() && !self.declared && !self.folders.contains(name)
        });
        let extra: Vec<&str> = extra.map(|(name, _)| name.as_str()).collect();
        let lacks = !missing.is_empty() && (!self.truncated || missing.len() == table.len());
        if lacks || !extra.is_empty() {
            let missing: Vec<&str> = missing.iter().map(|column| table[*column]).collect();
            return Err(self.differs(&found, &missing, &extra));
        }
        Ok(self.placed(cells, trailing))
    }

    /// `cells` are columns of the table.
    fn placed(&self, cells: Vec<Option<usize>>, trailing: bool) -> Columns {
        let place = |column: usize| self.projection.iter().position(|p| *p == column);
        let places: Vec<Option<usize>> = cells.iter().map(|cell| place((*cell)?)).collect();
        let filled = |p: &usize| !places.contains(&Some(*p));
        Columns {
            absent: (0..self.projection.len()).filter(filled).collect(),
            places,
            trailing,
        }
    }

    fn differs(&self, found: &[String], missing: &[&str], extra: &[&str]) -> Error {
        let mut differences = vec![];
        if !missing.is_empty() {
            differences.push(format!("it has no {}", missing.join(", ")));
        }
        if !extra.is_empty() {
            differences.push(format!("{} is not in the table", extra.join(", ")));
        }
        let advice = match self.declared {
            true => {
                "declare columns that the file has, or set format.has_header to false if its first \
                 record is data"
            }
            false => {
                "make a table of files with the same columns, or declare the columns to read of \
                 all of them"
            }
        };
        let lacking = match missing.is_empty() || missing.len() == self.table.fields().len() {
            true => "",
            false => "; with format.truncated_rows a missing column is null",
        };
        Error::invalid(format!(
            "the header is {}, the table has {}: {}; {advice}{lacking}",
            found.join(", "),
            self.names().join(", "),
            differences.join(", and "),
        ))
    }

    fn names(&self) -> Vec<&str> {
        let fields = self.table.fields().iter();
        fields.map(|f| f.name().as_str()).collect()
    }
}

/// The cell called `name`; written in another case if that can only be this one.
fn find(name: &str, table: &[&str], found: &[String]) -> Result<Option<usize>> {
    if let Some(cell) = found.iter().position(|other| other == name) {
        return Ok(Some(cell));
    }
    let lower = name.to_lowercase();
    let alike = |other: &str| other.to_lowercase() == lower;
    let taken = |other: &str| table.contains(&other);
    let cells = found.iter().enumerate();
    let mut cells = cells.filter(|(_, other)| alike(other) && !taken(other));
    let (Some((cell, first)), second) = (cells.next(), cells.next()) else {
        return Ok(None);
    };
    let columns: Vec<&&str> = table.iter().filter(|other| alike(other)).collect();
    match second {
        None if columns.len() == 1 => Ok(Some(cell)),
        second => Err(Error::invalid(format!(
            "the header has {}, and the table {}: which is which cannot be told by the case of \
             their letters; declare the columns as the header writes them",
            [Some(first), second.map(|(_, name)| name)]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", "),
            columns
                .iter()
                .map(|name| **name)
                .collect::<Vec<_>>()
                .join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};

    fn wanted(table: &[&str], projection: &[usize], declared: bool) -> Wanted {
        let fields = table
            .iter()
            .map(|name| Field::new(*name, DataType::Utf8View, true));
        Wanted {
            table: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            projection: projection.into(),
            folders: Arc::new(["year".to_owned()]),
            declared,
            truncated: false,
        }
    }

    fn header(names: &[&str]) -> Header {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The places of a file's cells, all columns read.
    fn places(table: &[&str], names: &[&str], declared: bool) -> Result<Vec<Option<usize>>> {
        let all: Vec<usize> = (0..table.len()).collect();
        let columns = wanted(table, &all, declared).by_name(&header(names))?;
        assert!(columns.absent.is_empty());
        Ok(columns.places)
    }

    #[test]
    fn columns_are_found_by_name() {
        let some = |places: &[usize]| places.iter().copied().map(Some).collect::<Vec<_>>();
        let found = |table: &[&str], names: &[&str]| places(table, names, true).unwrap();
        assert_eq!(found(&["id", "text"], &["text", "id"]), some(&[1, 0]));
        assert_eq!(found(&["id", "text"], &["TEXT", "Id"]), some(&[1, 0]));
        assert_eq!(found(&["id", "ID"], &["ID", "id"]), some(&[1, 0]));
        assert_eq!(found(&["n", "id"], &["", "id"]), some(&[0, 1]));
        assert_eq!(found(&["date", "date_2"], &["date", "date"]), some(&[0, 1]));
        assert_eq!(
            found(&["text"], &["id", "Text", "note"]),
            [None, Some(0), None]
        );
        let inferred = places(&["id"], &["year", "id"], false).unwrap();
        assert_eq!(inferred, [None, Some(0)]);
    }

    #[test]
    fn what_differs_is_listed() {
        let error = |table: &[&str], names: &[&str], declared| {
            places(table, names, declared).unwrap_err().to_string()
        };
        let text = error(&["id", "name", "body"], &["id", "title", "text"], true);
        for part in ["no name, body", "id, title, text", "has_header"] {
            assert!(text.contains(part), "{text}");
        }
        let text = error(&["id", "text"], &["id", "text", "note"], false);
        assert!(text.contains("note is not in the table"), "{text}");
        let text = error(&["text"], &["Text", "TEXT"], true);
        assert!(text.contains("case of their letters"), "{text}");
        let text = error(&["id", "ID"], &["Id", "x"], true);
        assert!(text.contains("case of their letters"), "{text}");
    }

    #[test]
    fn the_projection_says_the_places() {
        let mut scan = wanted(&["a", "b", "c"], &[2, 0], true);
        assert_eq!(scan.by_position().places, [Some(1), None, Some(0)]);
        let columns = scan.by_name(&header(&["c", "a", "b", ""])).unwrap();
        assert_eq!(columns.places, [Some(0), Some(1), None]);
        assert!(columns.trailing);
        assert!(scan.by_name(&header(&["a", "b"])).is_err());
        scan.truncated = true;
        let columns = scan.by_name(&header(&["b", "a"])).unwrap();
        assert_eq!(
            (columns.places, columns.absent),
            (vec![None, Some(1)], vec![0])
        );
        assert!(scan.by_name(&header(&["x", "y"])).is_err());
    }
}
