//! Answers of the SQL Statement Execution API 2.0, as far as they are used. What is not documented
//! as required may be absent.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use super::catalog::ColumnInfo;
use crate::secret::Secret;

/// What a statement that succeeded has to show.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Manifest {
    pub(super) schema: Option<ManifestSchema>,
    pub(super) chunks: Option<Vec<ChunkInfo>>,
    pub(super) total_chunk_count: Option<u64>,
    pub(super) total_row_count: Option<u64>,
    #[serde(default)]
    pub(super) truncated: bool,
}

impl Manifest {
    /// How many chunks there are, as far as the server says. It leaves out what is 0.
    ///
    /// # Errors
    /// What it says does not go together.
    pub(super) fn chunk_count(&self, links: usize) -> Result<u64, String> {
        let listed = self.chunks.as_deref().unwrap_or_default();
        let count = self.total_chunk_count.unwrap_or(listed.len() as u64);
        let beyond = listed.iter().find(|c| u64::from(c.chunk_index) >= count);
        match (count, beyond, self.total_row_count) {
            (_, Some(chunk), _) => Err(format!(
                "there are {count} chunks, and chunk {} is listed",
                chunk.chunk_index
            )),
            (0, _, Some(1..)) => Err("there are rows but no chunks".into()),
            (0, ..) if links > 0 => Err("there are links but no chunks".into()),
            _ => Ok(count),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct ManifestSchema {
    pub(super) columns: Option<Vec<ColumnInfo>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct ChunkInfo {
    pub(super) chunk_index: u32,
    pub(super) row_count: Option<u64>,
    pub(super) byte_count: Option<u64>,
}

/// Rows, or where they are.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ResultData {
    pub(super) external_links: Option<Vec<Link>>,
    pub(super) data_array: Option<Vec<Vec<Value>>>,
}

/// A signed link to a chunk; whoever has it can read the rows.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Link {
    pub(super) chunk_index: u32,
    pub(super) external_link: Secret,
    #[serde(default)]
    pub(super) http_headers: Option<HashMap<String, Secret>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    pub(super) statement_id: String,
    pub(super) status: Status,
    pub(super) manifest: Option<Manifest>,
    pub(super) result: Option<ResultData>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) state: String,
    pub(super) error: Option<ServiceError>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ServiceError {
    #[serde(default)]
    pub(super) error_code: String,
    #[serde(default)]
    pub(super) message: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn links_are_secrets() {
        let link: Link = serde_json::from_value(json!({"chunk_index": 0,
            "external_link": "https://s/?sig=hidden", "http_headers": {"x-key": "hidden"},
            "expiration": "2026-01-01T00:00:00Z"}))
        .unwrap();
        assert!(!format!("{link:?}").contains("hidden"));
    }
}
