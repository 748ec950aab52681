//! The rows of a result: those in the answer itself first, then the chunks in order.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;

use super::chunks::Chunks;
use super::decode::{Decoder, Layout};
use super::messages::QueryData;
use super::session::Session;
use crate::error::{Error, ErrorKind, Result};

/// A result that is being read.
pub(super) struct Reader {
    layout: Arc<Layout>,
    current: Option<Decoder>,
    /// Rows of the parts that were read.
    read: u64,
    chunks: Chunks,
}

impl Reader {
    /// The rows of `data` as batches of `schema` with at most `batch_rows` rows.
    pub(super) fn open(
        session: &Arc<Session>,
        mut data: QueryData,
        schema: &SchemaRef,
        batch_rows: usize,
        doing: &str,
    ) -> Result<Self> {
        let rowtype = data.rowtype.take().unwrap_or_default();
        if rowtype.is_empty() {
            let what = format!("{doing}: the answer names no columns; run the statement again");
            return Err(Error::new(ErrorKind::Corrupt, what));
        }
        let layout = Arc::new(Layout::new(doing, schema, rowtype, batch_rows)?);
        let chunks = Chunks::new(session, &mut data, doing)?;
        let inline = data.rowset_base64.take().unwrap_or_default();
        let inline = STANDARD.decode(inline).map_err(|e| {
            Error::new(
                ErrorKind::Corrupt,
                format!("{doing}: the rows in the answer are not base64 ({e})"),
            )
        })?;
        if data.rowset.is_some_and(|rows| !rows.is_empty()) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "{doing}: Snowflake answered in JSON, not in Arrow; set the user's or \
                     account's parameter GO_QUERY_RESULT_FORMAT to ARROW"
                ),
            ));
        }
        let expected = match data.total {
            None => None,
            Some(total) => Some(total.checked_sub(chunks.rows()).ok_or_else(|| {
                let what = format!(
                    "{doing}: Snowflake announces {total} rows, and more in the chunks that it lists"
                );
                Error::new(ErrorKind::Corrupt, what)
            })?),
        };
        let current = match (inline.is_empty(), expected) {
            (true, None | Some(0)) => None,
            _ => Some(Decoder::new(
                Arc::clone(&layout),
                Bytes::from(inline),
                0,
                expected,
            )?),
        };
        Ok(Self {
            layout,
            current,
            read: 0,
            chunks,
        })
    }

    /// The next batch; None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(decoder) = &mut self.current {
                if let Some(batch) = decoder.next()? {
                    return Ok(Some(batch));
                }
                self.read = decoder.reached();
                self.current = None;
            }
            let Some(chunk) = self.chunks.next().await? else {
                return Ok(None);
            };
            let layout = Arc::clone(&self.layout);
            self.current = Some(Decoder::new(
                layout,
                chunk.bytes,
                self.read,
                Some(chunk.rows),
            )?);
        }
    }
}
