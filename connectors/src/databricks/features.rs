//! What stands in the way of reading or writing a table's files from outside Databricks.
//!
//! Two sources say so: the catalog (views, filters, masks, formats) and the table's own Delta
//! protocol. A reason completes the sentence "the table cannot be reached as files, because it".

use deltalake::kernel::Snapshot;
use deltalake::{DeltaTableBuilder, DeltaTableError};
use serde::Deserialize;
use url::Url;

use super::catalog::TableInfo;
use super::settings::Version;
use crate::error::{Error, Result};

/// Reader features that deltalake 1.1 reads correctly.
const READABLE: &[&str] = &[
    "columnMapping",
    "deletionVectors",
    "timestampNtz",
    "v2Checkpoint",
    "variantType",
    "variantType-preview",
];

/// Writer features with which rows can be appended; those of readers, too.
const APPENDABLE: &[&str] = &[
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "generatedColumns",
    "invariants",
];

/// Features of the catalog's property list that only a Databricks engine can follow, readers
/// included.
const UNREADABLE: &[&str] = &[
    "catalogManaged",
    "catalogOwned-preview",
    "typeWidening",
    "typeWidening-preview",
    "vacuumProtocolCheck",
    "variantShredding",
    "variantShredding-preview",
];

/// Why the catalog says that the table cannot be read as files.
pub(super) fn against_reading(table: &TableInfo) -> Option<String> {
    let kind = match table.table_type.as_str() {
        "VIEW" | "METRIC_VIEW" => Some("is a view"),
        "MATERIALIZED_VIEW" => Some("is a materialized view"),
        "STREAMING_TABLE" => Some("is a streaming table"),
        "FOREIGN" => Some("is a table of a foreign system"),
        "MANAGED_SHALLOW_CLONE" | "EXTERNAL_SHALLOW_CLONE" => Some("is a shallow clone"),
        _ => None,
    };
    if let Some(kind) = kind {
        return Some(kind.to_owned());
    }
    if table.row_filter.as_ref().is_some_and(|f| !f.is_null()) {
        return Some("has a row filter".to_owned());
    }
    let masked = table
        .columns
        .iter()
        .flatten()
        .find(|c| c.mask.as_ref().is_some_and(|mask| !mask.is_null()));
    if let Some(column) = masked {
        return Some(format!("has a mask on column {}", column.name));
    }
    match table.data_source_format.as_deref() {
        Some("DELTA") => {}
        Some(other) => return Some(format!("has the format {other}, not DELTA")),
        None => return Some("has no format that the catalog names".to_owned()),
    }
    let properties = table.properties.iter().flatten();
    let mut enabled = properties.filter_map(|(key, _)| key.strip_prefix("delta.feature."));
    if let Some(feature) = enabled.find(|feature| UNREADABLE.contains(feature)) {
        return Some(format!("has the Delta feature {feature}"));
    }
    if table.storage_location.is_none() || table.table_id.is_none() {
        return Some("has no storage location that the catalog names".to_owned());
    }
    None
}

/// Why the catalog says that the table cannot be appended to from outside.
pub(super) fn against_writing(table: &TableInfo) -> Option<String> {
    match table.table_type.as_str() {
        "MANAGED" => Some("is a managed table, which only Databricks may write to".to_owned()),
        _ => against_reading(table),
    }
}

/// The protocol of a table's log.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Protocol {
    reader_features: Option<Vec<String>>,
    writer_features: Option<Vec<String>>,
}

impl Protocol {
    /// The protocol of the table at `url`, whose store is known to deltalake. Files are not
    /// listed.
    pub(super) async fn read(url: &Url, version: Option<&Version>) -> Result<Self> {
        let doing = || format!("reading the log of {url}");
        let failed = |e: DeltaTableError| Error::while_doing(doing(), e);
        let store = DeltaTableBuilder::from_url(url.clone())
            .and_then(|builder| builder.build_storage())
            .map_err(failed)?;
        let number = match version {
            Some(Version::Number(n)) => Some(*n),
            _ => None,
        };
        let snapshot = Snapshot::try_new(store.as_ref(), number)
            .await
            .map_err(failed)?;
        serde_json::to_value(snapshot.protocol())
            .and_then(serde_json::from_value)
            .map_err(|e| Error::while_doing(doing(), e))
    }

    /// The features that deltalake cannot read.
    pub(super) fn against_reading(&self) -> Option<String> {
        reason(self.reader_features.iter().flatten(), &[READABLE])
    }

    /// The features with which deltalake cannot append.
    pub(super) fn against_writing(&self) -> Option<String> {
        reason(
            self.writer_features.iter().flatten(),
            &[READABLE, APPENDABLE],
        )
    }
}

fn reason<'a>(features: impl Iterator<Item = &'a String>, known: &[&[&str]]) -> Option<String> {
    let known = |f: &str| known.iter().any(|list| list.contains(&f));
    let unknown: Vec<&str> = features.map(String::as_str).filter(|f| !known(f)).collect();
    match &unknown[..] {
        [] => None,
        [one] => Some(format!("has the Delta feature {one}")),
        more => Some(format!("has the Delta features {}", more.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(more: serde_json::Value) -> TableInfo {
        let mut all = json!({"table_id": "1", "table_type": "EXTERNAL",
            "data_source_format": "DELTA", "storage_location": "s3://b/t"});
        for (key, value) in more.as_object().unwrap() {
            all[key] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn what_stands_in_the_way_is_named() {
        let check = |more, expected: Option<&str>| {
            assert_eq!(against_reading(&table(more)).as_deref(), expected);
        };
        check(json!({}), None);
        check(
            json!({"row_filter": null, "columns": [{"name": "a", "mask": null}]}),
            None,
        );
        check(json!({"table_type": "VIEW"}), Some("is a view"));
        check(
            json!({"row_filter": {"function_name": "f"}}),
            Some("has a row filter"),
        );
        check(
            json!({"columns": [{"name": "a", "mask": {"function_name": "f"}}]}),
            Some("has a mask on column a"),
        );
        check(
            json!({"data_source_format": "ICEBERG"}),
            Some("has the format ICEBERG, not DELTA"),
        );
        check(
            json!({"properties": {"delta.feature.typeWidening": "supported"}}),
            Some("has the Delta feature typeWidening"),
        );
        assert!(against_writing(&table(json!({"table_type": "MANAGED"}))).is_some());
        assert!(against_writing(&table(json!({}))).is_none());
    }

    #[test]
    fn features_of_the_protocol() {
        let protocol: Protocol = serde_json::from_value(json!({"minReaderVersion": 3,
            "readerFeatures": ["deletionVectors", "typeWidening"],
            "writerFeatures": ["deletionVectors", "invariants", "clustering", "domainMetadata"]}))
        .unwrap();
        assert_eq!(
            protocol.against_reading().as_deref(),
            Some("has the Delta feature typeWidening")
        );
        assert_eq!(
            protocol.against_writing().as_deref(),
            Some("has the Delta features clustering, domainMetadata")
        );
        assert_eq!(Protocol::default().against_writing(), None);
    }
}
