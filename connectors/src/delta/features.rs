//! Table features that stand in the way of reading or appending, and what to do about each.
//!
//! A Delta table lists what a program must know to read it and to write it (the protocol action,
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#table-features>). It is compared
//! here, before anything is read or written, so that the error can name the feature.

use deltalake::DeltaTable;
use deltalake::kernel::Protocol;
use deltalake::kernel::transaction::{PROTOCOL, TransactionError};
use deltalake::logstore::commit_uri_from_version;
use deltalake::table::state::DeltaTableState;
use object_store::ObjectStoreExt;

use crate::error::{Error, ErrorKind, Result};

/// Commits that are searched for a protocol when a table does not open at all.
const SEARCHED_COMMITS: u64 = 100;

/// An error if the table at `location` cannot be read.
pub(super) fn check_read(state: &DeltaTableState, location: &str) -> Result<()> {
    PROTOCOL
        .can_read_from(state)
        .map_err(|e| refused("read", location, e))
}

/// An error if rows cannot be added to the table at `location`, or replaced where `overwrite`.
pub(super) fn check_write(state: &DeltaTableState, location: &str, overwrite: bool) -> Result<()> {
    PROTOCOL
        .can_write_to(state)
        .map_err(|e| refused("written to", location, e))?;
    let append_only = state.metadata().configuration().get("delta.appendOnly");
    if overwrite && append_only.map(String::as_str) == Some("true") {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the Delta table at '{location}' is append-only (delta.appendOnly), so INSERT \
                 OVERWRITE cannot replace its rows: use INSERT INTO"
            ),
        ));
    }
    Ok(())
}

/// Why the table, which did not open, cannot be read, if its newest commits tell.
pub(super) async fn in_the_way(table: &DeltaTable, location: &str) -> Option<Error> {
    let store = table.object_store();
    let latest = table.log_store().get_latest_version(0).await.ok()?;
    for version in (0..=latest).rev().take(SEARCHED_COMMITS as usize) {
        let commit = store.get(&commit_uri_from_version(Some(version))).await;
        let bytes = commit.ok()?.bytes().await.ok()?;
        let protocol = bytes.split(|b| *b == b'\n').find_map(|line| {
            let mut action: serde_json::Value = serde_json::from_slice(line).ok()?;
            serde_json::from_value::<Protocol>(action.get_mut("protocol")?.take()).ok()
        });
        if let Some(protocol) = protocol {
            let checked = PROTOCOL.can_read_from_protocol(&protocol);
            return checked.err().map(|e| refused("read", location, e));
        }
    }
    None
}

fn refused(what: &str, location: &str, error: TransactionError) -> Error {
    let TransactionError::UnsupportedTableFeatures(features) = &error else {
        return Error::while_doing(
            format!("checking whether the Delta table at '{location}' can be {what}"),
            error,
        );
    };
    let mut names: Vec<String> = features.iter().map(ToString::to_string).collect();
    names.sort();
    let shown: Vec<String> = names
        .iter()
        .map(|name| match meaning(name) {
            "" => name.clone(),
            meaning => format!("{name} ({meaning})"),
        })
        .collect();
    let dropped: Vec<String> = names
        .iter()
        .map(|name| format!("DROP FEATURE {name}"))
        .collect();
    Error::new(
        ErrorKind::Unsupported,
        format!(
            "the Delta table at '{location}' cannot be {what}: it needs {}. If it is a Databricks \
             table, set databricks.warehouse_id to go through its SQL warehouse; otherwise use \
             another table, or take the feature off with ALTER TABLE ... {}",
            shown.join(", "),
            dropped.join(", ")
        ),
    )
    .with_source(error)
}

/// What the user may know the feature as.
fn meaning(feature: &str) -> &'static str {
    match feature {
        "typeWidening" | "typeWidening-preview" => "columns whose type was widened in place",
        "catalogManaged" | "catalogOwned-preview" => "its catalog keeps the commits",
        "clustering" => "liquid clustering",
        "rowTracking" => "row ids that every writer must assign",
        "domainMetadata" => "settings of other features, such as liquid clustering",
        "inCommitTimestamp" => "times that every writer must keep in order",
        "identityColumns" => "numbers that every writer must assign",
        "allowColumnDefaults" => "column defaults",
        "vacuumProtocolCheck" => "a check before VACUUM",
        "icebergCompatV1" | "icebergCompatV2" => "Iceberg reads",
        "variantShredding" | "variantShredding-preview" => "shredded variants",
        _ => "",
    }
}
