//! Listings of Unity Catalog: every page of them, and what they hold where a name is missing.

use std::collections::HashSet;

use serde::Deserialize;

use super::name::TableName;
use super::session::Client;
use crate::error::{Error, ErrorKind, Result};

/// Parameters of a request.
type Query<'a> = &'a [(&'a str, &'a str)];

/// Pages of a listing: far more than a schema has tables.
const MAX_PAGES: usize = 10_000;
/// Names shown where a table is missing.
const SHOWN_NAMES: usize = 8;

/// Says what there is where `name` was looked for, from the schema up to the catalogs.
pub(super) async fn missing(client: &Client, name: &TableName) -> Error {
    let TableName {
        catalog,
        schema,
        table,
    } = name;
    let tables = of_schema(name);
    let schemas = [("catalog_name", catalog.as_str())];
    let levels: [(&str, &str, Query<'_>, &str, String); 3] = [
        (
            "table",
            "tables",
            &tables,
            table,
            format!("in {catalog}.{schema}"),
        ),
        (
            "schema",
            "schemas",
            &schemas,
            schema,
            format!("in the catalog {catalog}"),
        ),
        (
            "catalog",
            "catalogs",
            &[],
            catalog,
            format!("in {}", client.host()),
        ),
    ];
    for (what, kind, query, wanted, place) in levels {
        match names(client, kind, query).await {
            Ok(names) if names.contains(wanted) => break,
            Ok(names) => return not_found(what, wanted, &place, names),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(_) => break,
        }
    }
    Error::new(
        ErrorKind::NotFound,
        format!("there is no table {name} that this token may see"),
    )
}

/// The names of all tables in the schema of `name`.
pub(super) async fn tables(client: &Client, name: &TableName) -> Result<HashSet<String>> {
    names(client, "tables", &of_schema(name)).await
}

/// The parameters of a listing of tables.
fn of_schema(name: &TableName) -> [(&str, &str); 4] {
    [
        ("catalog_name", name.catalog.as_str()),
        ("schema_name", name.schema.as_str()),
        ("omit_columns", "true"),
        ("omit_properties", "true"),
    ]
}

/// The names of all `kind`: every page, including those after an empty one.
async fn names(client: &Client, kind: &str, query: &[(&str, &str)]) -> Result<HashSet<String>> {
    let what = format!("listing {kind} in Unity Catalog");
    let path = ["api", "2.1", "unity-catalog", kind];
    let mut names = HashSet::new();
    let mut seen = HashSet::new();
    let mut token = String::new();
    loop {
        let mut query = query.to_vec();
        if !token.is_empty() {
            query.push(("page_token", token.as_str()));
        }
        let page: Page = client.get(&what, &path, &query).await?;
        let entries = [page.tables, page.schemas, page.catalogs];
        names.extend(entries.into_iter().flatten().flatten().map(|e| e.name));
        token = match page.next_page_token {
            Some(next) if !next.is_empty() => next,
            _ => return Ok(names),
        };
        if !seen.insert(token.clone()) || seen.len() >= MAX_PAGES {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("{what}: the pages of the server do not end"),
            ));
        }
    }
}

/// One page of a listing, whichever it is.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    tables: Option<Vec<Named>>,
    schemas: Option<Vec<Named>>,
    catalogs: Option<Vec<Named>>,
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

fn not_found(what: &str, wanted: &str, place: &str, names: HashSet<String>) -> Error {
    let mut names: Vec<(f64, String)> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wanted, &name), name))
        .collect();
    // The nearest first; ties by name, so that the message is the same every time.
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let hint = match names.first() {
        Some((score, name)) if *score > 0.8 => format!(" Did you mean '{name}'?"),
        _ => String::new(),
    };
    let shown: Vec<&str> = names
        .iter()
        .take(SHOWN_NAMES)
        .map(|(_, name)| name.as_str())
        .collect();
    let rest = match names.len().saturating_sub(shown.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let there = match shown.is_empty() {
        true => "there is none that this token may see".to_owned(),
        false => format!("there are {}{rest}", shown.join(", ")),
    };
    Error::new(
        ErrorKind::NotFound,
        format!("there is no {what} '{wanted}' {place}.{hint} {place} {there}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_shown() {
        let names: HashSet<String> = (0..20)
            .map(|i| format!("t{i}"))
            .chain(["cases".into()])
            .collect();
        let text = not_found("table", "case", "in a.b", names).to_string();
        assert!(
            text.contains("Did you mean 'cases'? in a.b there are cases, "),
            "{text}"
        );
        assert!(text.ends_with("and 13 more"), "{text}");
        let text = not_found("table", "case", "in a.b", HashSet::new()).to_string();
        assert!(text.contains("there is none"), "{text}");
    }
}
