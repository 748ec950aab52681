//! The arguments of `docs_to_qa` after the input: which columns, which model, which profile.

use datafusion::error::{DataFusionError, Result};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, UnaryOperator, Value,
};

use crate::error::Error;

/// Named arguments that are not keys of the profile.
pub const ARGUMENTS: &[&str] = &[
    "text",
    "id",
    "title",
    "keep",
    "keep_document",
    "model",
    "profile",
];

/// Arguments as given; what is absent comes from the table's settings, the session, the profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QaArguments {
    /// Column that holds the text.
    pub text: Option<String>,
    /// Column that identifies a document.
    pub id: Option<String>,
    /// Columns rendered as header lines above the text.
    pub title: Option<Vec<String>>,
    /// Columns passed through.
    pub keep: Option<Vec<String>>,
    /// Rows carry the chunk as the model read it.
    pub keep_document: Option<bool>,
    /// Model name.
    pub model: Option<String>,
    /// Profile name.
    pub profile: Option<String>,
    /// Profile keys with their new values, in the order given.
    pub overrides: Vec<(String, String)>,
}

impl QaArguments {
    /// Takes one `key => value`. A key that is not of [`ARGUMENTS`] is one of the profile's, which
    /// checks it when it is resolved.
    pub fn set(&mut self, key: &str, value: String) -> Result<()> {
        let slot = match key {
            "text" => &mut self.text,
            "id" => &mut self.id,
            "model" => &mut self.model,
            "profile" => &mut self.profile,
            "title" | "keep" => return self.set_list(key, split_list(&value)),
            "keep_document" => {
                let keep = match value.as_str() {
                    "true" => true,
                    "false" => false,
                    other => {
                        return Err(invalid(format!(
                            "argument keep_document is {other}; it is true or false"
                        )));
                    }
                };
                return match self.keep_document.replace(keep) {
                    None => Ok(()),
                    Some(_) => Err(given_twice(key)),
                };
            }
            _ => {
                if self.overrides.iter().any(|(k, _)| k == key) {
                    return Err(given_twice(key));
                }
                self.overrides.push((key.to_owned(), value));
                return Ok(());
            }
        };
        if slot.replace(value).is_some() {
            return Err(given_twice(key));
        }
        Ok(())
    }

    /// Takes a list of columns: `title` or `keep`.
    fn set_list(&mut self, key: &str, names: Vec<String>) -> Result<()> {
        let list = match key {
            "title" => &mut self.title,
            _ => &mut self.keep,
        };
        match list.replace(names) {
            None => Ok(()),
            Some(_) => Err(given_twice(key)),
        }
    }

    /// Takes the arguments after the input from the SQL tree.
    pub fn from_sql(args: impl IntoIterator<Item = FunctionArg>) -> Result<Self> {
        let mut out = Self::default();
        for arg in args {
            let (name, value) = match arg {
                FunctionArg::Named { name, arg, .. } => (name.value, arg),
                // The PostgreSQL dialect allows any expression as the name.
                FunctionArg::ExprNamed {
                    name: SqlExpr::Identifier(name),
                    arg,
                    ..
                } => (name.value, arg),
                FunctionArg::ExprNamed { name, .. } => {
                    return Err(invalid(format!(
                        "argument name {name} is not an identifier"
                    )));
                }
                FunctionArg::Unnamed(value) => {
                    return Err(invalid(format!(
                        "unnamed argument {value} after the input; write key => value, for \
                         example profile => 'legal'"
                    )));
                }
            };
            let key = name.to_lowercase();
            let FunctionArgExpr::Expr(value) = value else {
                return Err(invalid(format!("argument {key} needs a literal value")));
            };
            if let (SqlExpr::Array(array), "title" | "keep") = (&value, key.as_str()) {
                // Names as they stand, whatever they hold.
                let names: Option<Vec<String>> = array.elem.iter().map(literal).collect();
                let names = names.ok_or_else(|| {
                    invalid(format!("argument {key} needs a list of names, not {value}"))
                })?;
                out.set_list(&key, names)?;
                continue;
            }
            let value = literal(&value)
                .ok_or_else(|| invalid(format!("argument {key} needs a literal, not {value}")))?;
            out.set(&key, value)?;
        }
        Ok(out)
    }
}

/// The text of a SQL literal: string, number, boolean, or a list of them joined by commas.
fn literal(expr: &SqlExpr) -> Option<String> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(n, _) => Some(n.to_string()),
            Value::Boolean(b) => Some(b.to_string()),
            value => value.clone().into_string(),
        },
        SqlExpr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        } => Some(format!("-{}", literal(expr)?)),
        SqlExpr::Array(array) => {
            let items: Option<Vec<String>> = array.elem.iter().map(literal).collect();
            Some(items?.join(","))
        }
        SqlExpr::Nested(expr) => literal(expr),
        _ => None,
    }
}

/// Names between commas; a name with a comma needs the form ['a, b', 'c'].
fn split_list(value: &str) -> Vec<String> {
    value
        .split(',')
        .map(|s| s.trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect()
}

fn given_twice(key: &str) -> DataFusionError {
    invalid(format!("argument {key} is given twice; keep one"))
}

/// An error in a call of `docs_to_qa`.
pub(super) fn invalid(message: String) -> DataFusionError {
    Error::invalid(format!("docs_to_qa: {message}")).into()
}
