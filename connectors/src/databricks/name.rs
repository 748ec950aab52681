//! Names of tables: three parts, as the catalog, a LOCATION and SQL write them.

use crate::error::{Error, Result};
use crate::sql::dialect::DATABRICKS;

/// The three parts of a table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) catalog: String,
    pub(super) schema: String,
    pub(super) table: String,
}

impl TableName {
    /// The name in a LOCATION: `catalog.schema.table`, parts in back quotes if one likes.
    pub(super) fn parse(location: &str) -> Result<Self> {
        let parts: Vec<String> = location
            .split('.')
            .map(|part| {
                let bare = part.strip_prefix('`').and_then(|p| p.strip_suffix('`'));
                bare.unwrap_or(part).replace("``", "`")
            })
            .collect();
        match &parts[..] {
            [catalog, schema, table] if parts.iter().all(|p| !p.is_empty()) => Ok(Self {
                catalog: catalog.clone(),
                schema: schema.clone(),
                table: table.clone(),
            }),
            _ => Err(Error::invalid(format!(
                "location '{location}' of a DATABRICKS table has {} parts; expected \
                 'catalog.schema.table'",
                parts.len()
            ))),
        }
    }

    /// The name as SQL of the warehouse writes it.
    pub(super) fn sql(&self) -> String {
        DATABRICKS.table(&[&self.catalog, &self.schema, &self.table])
    }

    /// Another table of the same schema.
    pub(super) fn sibling(&self, table: String) -> Self {
        Self {
            table,
            ..self.clone()
        }
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.catalog, self.schema, self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_three_parts() {
        let name = TableName::parse("main.`my legal`.cases").unwrap();
        assert_eq!(name.to_string(), "main.my legal.cases");
        assert_eq!(name.sql(), "`main`.`my legal`.`cases`");
        for wrong in ["cases", "legal.cases", "a..c", "a.b.c.d"] {
            assert!(TableName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
