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

    /// Takes one `key => [value, ...]`, each value as it stands: a column's name may hold a comma.
    pub fn set_list(&mut self, key: &str, values: Vec<String>) -> Result<()> {
        let list = match key {
            "title" => &mut self.title,
            "keep" => &mut self.keep,
            key if ARGUMENTS.contains(&key) => {
                return Err(invalid(format!(
                    "argument {key} takes one value, not a list"
                )));
            }
            // The profile reads lists as TOML writes them.
            _ => {
                let values = values.into_iter().map(toml::Value::String).collect();
                return self.set(key, toml::Value::Array(values).to_string());
            }
        };
        match list.replace(values) {
            Some(_) => Err(given_twice(key)),
            None => Ok(()),
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
            match literal(&value) {
                Some(Literal::One(value)) => out.set(&key, value)?,
                Some(Literal::Many(values)) => out.set_list(&key, values)?,
                None => {
                    return Err(invalid(format!(
                        "argument {key} needs a literal, not {value}"
                    )));
                }
            }
        }
        Ok(out)
    }
}

/// A SQL literal as text.
enum Literal {
    One(String),
    Many(Vec<String>),
}

/// The text of a SQL literal: string, number, boolean, or a list of them.
fn literal(expr: &SqlExpr) -> Option<Literal> {
    match expr {
        SqlExpr::Array(array) => {
            let items = array.elem.iter().map(scalar);
            Some(Literal::Many(items.collect::<Option<_>>()?))
        }
        SqlExpr::Nested(expr) => literal(expr),
        expr => scalar(expr).map(Literal::One),
    }
}

fn scalar(expr: &SqlExpr) -> Option<String> {
    match expr {
        SqlExpr::Value(value) => match &value.value {
            Value::Number(n, _) => Some(n.to_string()),
            Value::Boolean(b) => Some(b.to_string()),
            value => value.clone().into_string(),
        },
        SqlExpr::UnaryOp {
            op: op @ (UnaryOperator::Minus | UnaryOperator::Plus),
            expr,
        } => match expr.as_ref() {
            SqlExpr::Value(value) => match &value.value {
                Value::Number(n, _) if *op == UnaryOperator::Plus => Some(n.to_string()),
                Value::Number(n, _) => Some(format!("-{n}")),
                _ => None,
            },
            _ => None,
        },
        SqlExpr::Nested(expr) => scalar(expr),
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

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::FunctionArguments;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;
    use proptest::prelude::*;

    /// The arguments of a call as the planner hands them over; none if it is no call.
    fn call(arguments: &str) -> Option<Result<QaArguments>> {
        let sql = format!("docs_to_qa({arguments})");
        let mut parser = Parser::new(&GenericDialect {}).try_with_sql(&sql).ok()?;
        let SqlExpr::Function(function) = parser.parse_expr().ok()? else {
            return None;
        };
        match function.args {
            FunctionArguments::List(list) => Some(QaArguments::from_sql(list.args)),
            _ => None,
        }
    }

    fn good(arguments: &str) -> QaArguments {
        call(arguments).unwrap().unwrap()
    }

    fn bad(arguments: &str) -> String {
        call(arguments).unwrap().unwrap_err().strip_backtrace()
    }

    fn texts(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|v| (*v).to_owned()).collect())
    }

    #[test]
    fn every_argument_finds_its_place() {
        let found = good(
            "text => 'body', id => 'case_id', title => 'name, court ,', keep => ARRAY['a,b', 'c'], \
             model => 'm', profile => 'p', seed => 7, \"checks.min_grounding\" => 0.5",
        );
        let expected = QaArguments {
            text: Some("body".into()),
            id: Some("case_id".into()),
            title: texts(&["name", "court"]),
            keep: texts(&["a,b", "c"]),
            keep_document: None,
            model: Some("m".into()),
            profile: Some("p".into()),
            overrides: vec![
                ("seed".into(), "7".into()),
                ("checks.min_grounding".into(), "0.5".into()),
            ],
        };
        assert_eq!(found, expected);
        assert_eq!(good(""), QaArguments::default());
        assert_eq!(good("TEXT => 'Body'").text.as_deref(), Some("Body"));
        assert_eq!(good("keep => []").keep, texts(&[]));
        assert_eq!(good("keep => ''").keep, texts(&[]));
    }

    #[test]
    fn literals_are_taken_as_they_are_written() {
        let value = |literal: &str| good(&format!("seed => {literal}")).overrides[0].1.clone();
        for (literal, expected) in [
            ("7", "7"),
            ("-7", "-7"),
            ("+7", "7"),
            ("(7)", "7"),
            ("0.25", "0.25"),
            ("true", "true"),
            ("FALSE", "false"),
            ("'it''s'", "it's"),
            ("''", ""),
            ("ARRAY['a', 'b\"c']", "[\"a\", 'b\"c']"),
        ] {
            assert_eq!(value(literal), expected, "{literal}");
        }
    }

    #[test]
    fn what_is_no_literal_is_refused_by_name() {
        for (arguments, part) in [
            ("seed => 1 + 1", "argument seed needs a literal, not 1 + 1"),
            ("seed => x", "argument seed needs a literal, not x"),
            ("seed => NULL", "argument seed needs a literal"),
            ("seed => -'7'", "argument seed needs a literal"),
            ("seed => - -7", "argument seed needs a literal"),
            ("seed => NOT true", "argument seed needs a literal"),
            ("keep => [a]", "argument keep needs a literal"),
            ("keep => [['a']]", "argument keep needs a literal"),
            ("text => ['a', 'b']", "argument text takes one value"),
            ("'cases'", "unnamed argument 'cases' after the input"),
            ("text => 'a', text => 'b'", "argument text is given twice"),
            ("Text => 'a', text => 'a'", "argument text is given twice"),
            ("keep => 'a', keep => ['b']", "argument keep is given twice"),
            (
                "title => 'a', title => 'b'",
                "argument title is given twice",
            ),
            ("seed => 1, SEED => 1", "argument seed is given twice"),
        ] {
            assert!(
                bad(arguments).contains(part),
                "{arguments}: {}",
                bad(arguments)
            );
        }
    }

    proptest! {
        #[test]
        fn texts_arrive_unchanged(value in any::<String>(), key in "[a-z][a-z_]{3,12}") {
            // A name is quoted where it could be a keyword.
            let quoted = value.replace('\'', "''");
            let found = call(&format!("\"{key}\" => '{quoted}'"));
            let Some(Ok(found)) = found else {
                return Err(TestCaseError::fail(format!("{value:?}")));
            };
            let expected = Some(&value);
            match key.as_str() {
                "text" => prop_assert_eq!(found.text.as_ref(), expected),
                "model" => prop_assert_eq!(found.model.as_ref(), expected),
                "profile" => prop_assert_eq!(found.profile.as_ref(), expected),
                "keep" | "title" => {}
                _ => prop_assert_eq!(found.overrides, vec![(key, value)]),
            }
        }

        #[test]
        fn lists_arrive_unchanged(values in prop::collection::vec(any::<String>(), 0..4)) {
            let quoted: Vec<String> =
                values.iter().map(|v| format!("'{}'", v.replace('\'', "''"))).collect();
            let found = call(&format!("keep => ARRAY[{}], focus => ARRAY[{0}]", quoted.join(", ")));
            let Some(Ok(found)) = found else {
                return Err(TestCaseError::fail(format!("{values:?}")));
            };
            prop_assert_eq!(found.keep.as_ref(), Some(&values));
            // And once more through TOML, which is how the profile reads them.
            let text = format!("v = {}", found.overrides[0].1);
            let table: toml::Table = text.parse().unwrap();
            let read: Vec<&str> =
                table["v"].as_array().unwrap().iter().filter_map(toml::Value::as_str).collect();
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_arguments_are_taken_or_refused(text in "[a-z'\",=>()\\[\\]0-9 .+-]{0,40}") {
            let _ = call(&text);
        }
    }
}
