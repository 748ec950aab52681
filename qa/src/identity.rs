//! Which row is this?
//!
//! Same input, same id: the key of merges and the unit of resume. Fields are hashed with their
//! lengths, so that no two different inputs run together.

use blake3::Hasher;

/// Everything a pair depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QaKey<'a> {
    /// The document's id.
    pub doc_id: &'a str,
    /// The rendered document part of the prompt ([`crate::prompt::document`]).
    pub prefix: &'a str,
    /// First byte of the chunk in the original text.
    pub chunk_start: usize,
    /// Byte after the chunk's last one.
    pub chunk_end: usize,
    /// [`crate::profile::Profile::prompt_hash`].
    pub profile_hash: &'a str,
    /// Digest of the model's weights and tokenizer.
    pub model_digest: &'a str,
    /// The profile's seed.
    pub seed: u64,
    /// 1-based within the chunk; 0 for the row of a chunk or document without questions.
    pub question_no: i32,
}

/// The id of a pair: 32 hexadecimal digits.
pub fn qa_id(key: &QaKey<'_>) -> String {
    let mut hasher = Hasher::new();
    field(&mut hasher, b"casebook qa_id 1");
    field(&mut hasher, key.doc_id.as_bytes());
    field(&mut hasher, key.prefix.as_bytes());
    field(&mut hasher, &(key.chunk_start as u64).to_le_bytes());
    field(&mut hasher, &(key.chunk_end as u64).to_le_bytes());
    field(&mut hasher, key.profile_hash.as_bytes());
    field(&mut hasher, key.model_digest.as_bytes());
    field(&mut hasher, &key.seed.to_le_bytes());
    field(&mut hasher, &key.question_no.to_le_bytes());
    hex32(&hasher)
}

/// The id of a document that has none: 32 hexadecimal digits of its text.
pub fn document_id(text: &str) -> String {
    let mut hasher = Hasher::new();
    field(&mut hasher, b"casebook document 1");
    field(&mut hasher, text.as_bytes());
    hex32(&hasher)
}

/// The id of a document that has neither an id nor a text: of its header and of whether the text is
/// null or empty, so that rows that differ in them stay two documents.
pub fn textless_document_id(is_null: bool, header: &str) -> String {
    let mut hasher = Hasher::new();
    field(&mut hasher, b"casebook document without text 1");
    field(&mut hasher, &[u8::from(is_null)]);
    field(&mut hasher, header.as_bytes());
    hex32(&hasher)
}

/// The seed of one branch, the same whatever else is generated beside it. `question_no` is 1-based;
/// other numbers are the caller's, for seeds that belong to no question.
pub fn branch_seed(seed: u64, doc_id: &str, chunk_no: i32, question_no: i32) -> u64 {
    let mut hasher = Hasher::new();
    field(&mut hasher, b"casebook branch 1");
    field(&mut hasher, &seed.to_le_bytes());
    field(&mut hasher, doc_id.as_bytes());
    field(&mut hasher, &chunk_no.to_le_bytes());
    field(&mut hasher, &question_no.to_le_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

fn field(hasher: &mut Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

fn hex32(hasher: &Hasher) -> String {
    hasher.finalize().to_hex().as_str()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const KEY: QaKey<'static> = QaKey {
        doc_id: "cl-194563",
        prefix: "Case: A",
        chunk_start: 0,
        chunk_end: 7,
        profile_hash: "p",
        model_digest: "m",
        seed: 0,
        question_no: 1,
    };

    #[test]
    fn every_field_counts_and_none_run_together() {
        let keys = [
            KEY,
            QaKey {
                doc_id: "cl-194563C",
                prefix: "ase: A",
                ..KEY
            },
            QaKey {
                prefix: "Case: B",
                ..KEY
            },
            QaKey {
                chunk_start: 1,
                ..KEY
            },
            QaKey {
                chunk_end: 8,
                ..KEY
            },
            QaKey {
                profile_hash: "pm",
                model_digest: "",
                ..KEY
            },
            QaKey {
                model_digest: "n",
                ..KEY
            },
            QaKey { seed: 1, ..KEY },
            QaKey {
                question_no: 2,
                ..KEY
            },
        ];
        let ids: HashSet<String> = keys.iter().map(qa_id).collect();
        assert_eq!(ids.len(), keys.len());
        assert!(ids.iter().all(|id| id.len() == 32));
        assert_eq!(qa_id(&KEY), qa_id(&KEY.clone()));
    }

    #[test]
    fn documents_without_text_are_not_one_document() {
        let ids = [
            textless_document_id(true, ""),
            textless_document_id(false, ""),
            textless_document_id(false, "Case: A"),
            textless_document_id(true, "Case: A"),
            textless_document_id(true, "Case: B"),
            document_id(""),
            document_id("Case: A"),
        ];
        let different: HashSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len(), "{ids:?}");
    }

    #[test]
    fn ids_stay_what_they_are() {
        // changing these renames every row already written: do it knowingly
        assert_eq!(qa_id(&KEY), "116e27b8160b279f293c7182da76372e");
        assert_eq!(document_id("text"), "828d8d31e7f020b69210b046f4026856");
        assert_eq!(
            textless_document_id(true, "Case: A"),
            "862ec203c54c7782b4f9ff2956ff0ca3"
        );
        assert_eq!(branch_seed(0, "d", 0, 1), 14_317_771_007_313_278_272);
        assert_ne!(branch_seed(0, "d", 1, 1), branch_seed(0, "d", 0, 1));
        assert_ne!(branch_seed(0, "d", 0, 2), branch_seed(0, "d", 0, 1));
        assert_ne!(branch_seed(1, "d", 0, 1), branch_seed(0, "d", 0, 1));
    }
}
