//! Unity Catalog of the fake: tables, listings in pages, credentials.

use super::*;

impl Fake {
    pub(super) async fn info(&self, name: &str) -> Option<Value> {
        let known = self.get(|inner| inner.tables.get(name).cloned());
        let table = self
            .ctx
            .table(format!("main.legal.{name}").as_str())
            .await
            .ok();
        let schema = table.map(|t| Arc::clone(t.schema().inner()));
        if known.is_none() && schema.is_none() {
            return None;
        }
        let mut info = json!({"name": name, "catalog_name": "main", "schema_name": "legal",
            "table_id": format!("id-{name}"), "table_type": "MANAGED",
            "data_source_format": "DELTA", "storage_location": format!("s3://managed/{name}")});
        if let Some(schema) = schema {
            info["columns"] = columns(&schema);
        }
        for (key, value) in known.iter().flat_map(|k| k.as_object().unwrap()) {
            info[key] = value.clone();
        }
        Some(info)
    }

    pub(super) fn page(&self, kind: &str, query: &HashMap<String, String>) -> Response {
        // Pages of two names; the first page is empty, as the documentation says pages can be.
        let catalog = query.get("catalog_name").map(String::as_str);
        let schema = query.get("schema_name").map(String::as_str);
        let names: Vec<String> = match kind {
            "catalogs" => vec!["main".into(), "samples".into()],
            "schemas" if catalog == Some("main") => vec!["legal".into(), "finance".into()],
            "tables" if (catalog, schema) == (Some("main"), Some("legal")) => {
                let legal = self.ctx.catalog("main").unwrap().schema("legal").unwrap();
                let mut names: Vec<String> = legal.table_names();
                names.extend(self.get(|inner| inner.tables.keys().cloned().collect::<Vec<_>>()));
                names.sort();
                names
            }
            _ => return error(404, "SCHEMA_DOES_NOT_EXIST", "no such thing"),
        };
        let at: usize = query.get("page_token").map_or(0, |t| t.parse().unwrap());
        let page: Vec<Value> = match at {
            0 => vec![],
            at => names
                .iter()
                .skip(2 * (at - 1))
                .take(2)
                .map(|n| json!({"name": n}))
                .collect(),
        };
        let mut answer = json!({ kind: page });
        if 2 * at < names.len() {
            answer["next_page_token"] = json!((at + 1).to_string());
        }
        axum::Json(answer).into_response()
    }

    pub(super) fn vend(&self, body: &Value) -> Response {
        let id = body["table_id"].as_str().unwrap().to_owned();
        let operation = body["operation"].as_str().unwrap().to_owned();
        let mut inner = self.inner.lock().unwrap();
        inner.vended.push((id.clone(), operation.clone()));
        let count = inner.vended.iter().filter(|(i, _)| *i == id).count() as u32;
        match inner.vends.get(&id) {
            Some(vend) => {
                let (status, answer) = vend(count, &operation);
                (status, axum::Json(answer)).into_response()
            }
            None => error(403, "PERMISSION_DENIED", "no EXTERNAL USE SCHEMA"),
        }
    }
}
