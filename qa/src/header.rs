//! The lines above a text: what the document is called, where and when it is from.

use crate::normalize::normalize;

/// A column shown above the text, so that questions can name what they are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TitleField {
    /// The column's name in the source.
    pub column: String,
    /// Its value in this row.
    pub value: String,
}

impl TitleField {
    /// A field of a document.
    pub fn new(column: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            column: column.into(),
            value: value.into(),
        }
    }
}

/// The label under which the checks find the name that questions must contain.
pub(crate) const CASE_LABEL: &str = "Case";

/// The lines above the text, one per field that has a value, without a last newline.
///
/// ```
/// use casebook_qa::prompt::{TitleField, header};
/// let fields = [TitleField::new("name", "Lauvera v. INS"), TitleField::new("docket_no", "93-1921")];
/// assert_eq!(header(&fields), "Case: Lauvera v. INS\nDocket no: 93-1921");
/// ```
pub fn header(fields: &[TitleField]) -> String {
    let mut lines = Vec::with_capacity(fields.len());
    for field in fields {
        let value = normalize(&field.value).replace('\n', " ");
        if !value.is_empty() {
            lines.push(format!("{}: {value}", label(&field.column)));
        }
    }
    lines.join("\n")
}

fn label(column: &str) -> String {
    match column.to_ascii_lowercase().as_str() {
        "name" | "title" | "case_name" => return CASE_LABEL.to_owned(),
        "decision_date" | "date" => return "Date".to_owned(),
        _ => {}
    }
    let words = column.replace('_', " ");
    let mut letters = words.trim().chars();
    letters.next().map_or_else(String::new, |first| {
        first
            .to_uppercase()
            .chain(letters.flat_map(char::to_lowercase))
            .collect()
    })
}
