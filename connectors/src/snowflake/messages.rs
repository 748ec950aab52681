//! What is said to Snowflake and what it says, as far as it concerns us.
//!
//! Every field may be missing: servers differ, and snowflake-api's own types refuse an answer as
//! soon as one field is unknown or absent. Tokens and signed URLs are secrets from the start.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::secret::Secret;

/// The frame of every answer.
#[derive(Deserialize)]
pub(super) struct Reply<T> {
    #[serde(default)]
    pub(super) success: bool,
    #[serde(default, deserialize_with = "text")]
    pub(super) code: Option<String>,
    #[serde(default)]
    pub(super) message: Option<String>,
    #[serde(default = "none")]
    pub(super) data: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

/// Codes are texts, except where they are numbers.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Option::<Value>::deserialize(from)? {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text),
        Some(other) => Some(other.to_string()),
    })
}

impl<T> Reply<T> {
    /// The code, empty if there is none.
    pub(super) fn code(&self) -> &str {
        self.code.as_deref().unwrap_or_default()
    }
}

/// Answer to a login.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Login {
    pub(super) token: Option<Secret>,
    pub(super) master_token: Option<Secret>,
    pub(super) validity_in_seconds: Option<i64>,
}

/// Answer to a renewal.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Renewal {
    pub(super) session_token: Option<Secret>,
    pub(super) master_token: Option<Secret>,
    #[serde(rename = "validityInSecondsST")]
    pub(super) validity_in_seconds: Option<i64>,
}

/// A statement to run.
#[derive(Serialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Query<'a> {
    pub(super) sql_text: &'a str,
    pub(super) async_exec: bool,
    pub(super) sequence_id: u64,
    pub(super) is_internal: bool,
    pub(super) describe_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bindings: Option<&'a Value>,
}

/// Answer to a statement.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct QueryData {
    pub(super) query_id: Option<String>,
    pub(super) get_result_url: Option<String>,
    pub(super) sql_state: Option<String>,
    pub(super) rowtype: Option<Vec<RowType>>,
    pub(super) rowset: Option<Vec<Vec<Value>>>,
    pub(super) rowset_base64: Option<String>,
    pub(super) chunks: Option<Vec<ChunkRef>>,
    pub(super) chunk_headers: Option<HashMap<String, Secret>>,
    pub(super) qrmk: Option<Secret>,
    pub(super) total: Option<u64>,
    /// Answer to PUT.
    pub(super) stage_info: Option<StageInfo>,
    /// Answer to PUT, where files must be encrypted before they are sent.
    pub(super) encryption_material: Option<Value>,
}

/// The storage behind a stage, and what is lent to write to it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct StageInfo {
    pub(super) location_type: String,
    /// Bucket or container, and prefix.
    pub(super) location: String,
    pub(super) region: Option<String>,
    end_point: Option<String>,
    /// Azure's account.
    pub(super) storage_account: Option<String>,
    pub(super) presigned_url: Option<Secret>,
    pub(super) creds: HashMap<String, Secret>,
}

impl StageInfo {
    /// Host or URL of the storage, where it is not the cloud's usual one.
    pub(super) fn end_point(&self) -> Option<&str> {
        self.end_point.as_deref().filter(|e| !e.is_empty())
    }
}

/// One column of a result as the server declares it.
#[derive(Deserialize, Clone, Debug, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RowType {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) precision: Option<i64>,
    pub(super) scale: Option<i64>,
    pub(super) nullable: Option<bool>,
    pub(super) collation: Option<String>,
}

/// A part of a result that lies in the account's object store.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChunkRef {
    pub(super) url: Secret,
    pub(super) row_count: u64,
    #[serde(default)]
    pub(super) uncompressed_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_and_missing_fields_are_no_matter() {
        let expired = r#"{"data": null, "code": 390112, "message": "m", "headers": null}"#;
        let reply: Reply<QueryData> = serde_json::from_str(expired).unwrap();
        assert_eq!((reply.success, reply.code()), (false, "390112"));
        let vector = r#"{"success": true, "data": {"new": 1, "rowtype":
            [{"name": "V", "type": "vector", "vectorDimension": 3}]}}"#;
        let reply: Reply<QueryData> = serde_json::from_str(vector).unwrap();
        assert_eq!(reply.data.unwrap().rowtype.unwrap()[0].kind, "vector");
    }
}
