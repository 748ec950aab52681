//! Which columns of the input are id, text, title and kept ones.

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::DFSchema;
use datafusion::error::Result;

use std::sync::Arc;

use super::arguments::{QaArguments, invalid};
use crate::context::TableSettings;
use crate::schema::{qa_pairs, qa_pairs_with_document};

/// Text columns recognised without being named.
const TEXT_NAMES: &[&str] = &["text", "content", "body", "opinion", "case_text"];
/// Id columns recognised without being named, best first.
const ID_NAMES: &[&str] = &["id", "doc_id", "doc_uri", "case_id"];
/// Title columns used without being named, in the order of the header lines.
const TITLE_NAMES: &[&str] = &[
    "name",
    "title",
    "case_name",
    "court",
    "decision_date",
    "date",
    "citation",
];

/// Columns of the input by role, as indices into its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The text.
    pub text: usize,
    /// The identifier; absent: a hash of the text.
    pub id: Option<usize>,
    /// Header lines above the text: (name, index).
    pub title: Vec<(String, usize)>,
    /// Passed through: (name, index).
    pub keep: Vec<(String, usize)>,
    /// The output has the column `document`.
    pub document: bool,
}

impl Columns {
    /// Finds the roles. Arguments win over the table's settings, which win over known names.
    pub fn resolve(
        schema: &DFSchema,
        arguments: &QaArguments,
        settings: &TableSettings,
    ) -> Result<Self> {
        let text = match arguments.text.as_ref().or(settings.text.as_ref()) {
            Some(name) => find(schema, name, "text")?,
            None => only_text_column(schema)?,
        };
        check_is_text(schema, text)?;
        let id = match arguments.id.as_ref().or(settings.id.as_ref()) {
            Some(name) => Some(find(schema, name, "id")?),
            None => first_known(schema, ID_NAMES)?,
        };
        if let Some(id) = id {
            check_is_id(schema, id)?;
        }
        let title = match arguments.title.as_ref().or(settings.title.as_ref()) {
            Some(names) => named(schema, names, "title")?,
            None => {
                let mut title = vec![];
                for name in TITLE_NAMES {
                    if let Some(i) = first_known(schema, &[name])?
                        && i != text
                    {
                        title.push(((*name).to_owned(), i));
                    }
                }
                title
            }
        };
        let keep = match arguments.keep.as_ref().or(settings.keep.as_ref()) {
            Some(names) => named(schema, names, "keep")?,
            None => vec![],
        };
        for (i, (name, _)) in keep.iter().enumerate() {
            if qa_pairs_with_document().column_with_name(name).is_some() {
                return Err(invalid(format!(
                    "keep column {name} has the name of an output column; rename it in the input: \
                     docs_to_qa((SELECT {name} AS source_{name}, ... ))"
                )));
            }
            if keep[..i].iter().any(|(other, _)| other == name) {
                return Err(invalid(format!("keep column {name} is listed twice")));
            }
        }
        Ok(Self {
            text,
            id,
            title,
            keep,
            document: arguments.keep_document.unwrap_or(false),
        })
    }

    /// The contract's columns followed by the kept ones.
    pub fn output_schema(&self, input: &DFSchema) -> SchemaRef {
        let contract = match self.document {
            true => qa_pairs_with_document(),
            false => qa_pairs(),
        };
        let mut fields: Vec<Arc<Field>> = contract.fields().iter().cloned().collect();
        fields.extend(self.keep.iter().map(|(name, i)| {
            let field = input.field(*i);
            Arc::new(Field::new(
                name,
                field.data_type().clone(),
                field.is_nullable(),
            ))
        }));
        Arc::new(Schema::new(fields))
    }
}

fn named(schema: &DFSchema, names: &[String], role: &str) -> Result<Vec<(String, usize)>> {
    names
        .iter()
        .map(|name| {
            let i = find(schema, name, role)?;
            Ok((schema.field(i).name().clone(), i))
        })
        .collect()
}

/// The column called `name`: exactly, else ignoring case.
fn find(schema: &DFSchema, name: &str, role: &str) -> Result<usize> {
    matching(schema, name)?.ok_or_else(|| {
        invalid(format!(
            "{role} column '{name}' is not in the input; its columns are {}",
            list(schema)
        ))
    })
}

fn matching(schema: &DFSchema, name: &str) -> Result<Option<usize>> {
    let by = |test: &dyn Fn(&str) -> bool| -> Vec<usize> {
        let names = schema.fields().iter().enumerate();
        names
            .filter(|(_, f)| test(f.name()))
            .map(|(i, _)| i)
            .collect()
    };
    let mut found = by(&|field| field == name);
    if found.is_empty() {
        found = by(&|field| field.eq_ignore_ascii_case(name));
    }
    match found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(invalid(format!(
            "column '{name}' is ambiguous: {} columns of the input match; rename them in a \
             subquery: docs_to_qa((SELECT ... AS {name} ...))",
            found.len()
        ))),
    }
}

fn first_known(schema: &DFSchema, names: &[&str]) -> Result<Option<usize>> {
    for name in names {
        if let Some(i) = matching(schema, name)? {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn only_text_column(schema: &DFSchema) -> Result<usize> {
    let mut found = vec![];
    for name in TEXT_NAMES {
        if let Some(i) = matching(schema, name)? {
            found.push((name, i));
        }
    }
    match found[..] {
        [(_, i)] => Ok(i),
        [] => Err(invalid(format!(
            "the input has no text column: none is called {}; name it with text => 'column'. \
             Columns: {}",
            TEXT_NAMES.join(", "),
            list(schema)
        ))),
        _ => {
            let names: Vec<&str> = found.iter().map(|(n, _)| **n).collect();
            Err(invalid(format!(
                "the input has {} candidate text columns: {}; choose one, for example \
                 text => '{}'",
                names.len(),
                names.join(", "),
                names[0]
            )))
        }
    }
}

fn check_is_text(schema: &DFSchema, i: usize) -> Result<()> {
    let field = schema.field(i);
    let mut data_type = field.data_type();
    if let DataType::Dictionary(_, value) = data_type {
        data_type = value;
    }
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Ok(()),
        other => Err(invalid(format!(
            "text column {} has type {other}, not text; cast it in a subquery or name another \
             column with text => 'column'",
            field.name()
        ))),
    }
}

/// An id must come out as it went in; a fraction's digits do not.
fn check_is_id(schema: &DFSchema, i: usize) -> Result<()> {
    let field = schema.field(i);
    let mut data_type = field.data_type();
    if let DataType::Dictionary(_, value) = data_type {
        data_type = value;
    }
    let name = field.name();
    if data_type.is_floating() {
        return Err(invalid(format!(
            "id column {name} has type {data_type}, which does not keep the digits of large \
             numbers, so that two documents could become one; read it as a text or whole number, \
             or cast it: docs_to_qa((SELECT CAST(\"{name}\" AS BIGINT) AS id, ... ))"
        )));
    }
    if data_type.is_nested() {
        return Err(invalid(format!(
            "id column {name} has type {data_type}, which is not one value; choose another \
             with id => 'column'"
        )));
    }
    Ok(())
}

fn list(schema: &DFSchema) -> String {
    schema
        .fields()
        .iter()
        .map(|f| f.name().as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
