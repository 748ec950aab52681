//! The Statement Execution API of the fake: statements run in DataFusion.

use super::*;

impl Fake {
    /// The `sql` of statement `id` in DataFusion's words: parameters as literals, rows in JSON as a
    /// table, MERGE as INSERT of what is missing.
    fn translated(&self, id: &str, sql: &str, parameters: &Value) -> String {
        let mut sql = sql.to_owned();
        for parameter in parameters.as_array().unwrap() {
            let (name, value) = (&parameter["name"], parameter["value"].as_str().unwrap());
            assert_eq!(parameter["type"], "STRING");
            if name == "rows" {
                sql = self.with_json(id, &sql, value);
            } else {
                let literal = format!("'{}'", value.replace('\'', "''"));
                let name = format!(":{}", name.as_str().unwrap());
                assert!(sql.contains(&name), "{sql} has no {name}");
                sql = sql.replacen(&name, &literal, 1);
            }
        }
        let Some(merge) = sql.strip_prefix("MERGE INTO ") else {
            return sql;
        };
        let (target, rest) = merge.split_once(" t USING ").unwrap();
        let (rows, rest) = rest.split_once(" s ON ").unwrap();
        let (on, insert) = rest.split_once(" WHEN NOT MATCHED THEN INSERT ").unwrap();
        let (names, values) = insert.split_once(" VALUES ").unwrap();
        let values = values.trim_matches(['(', ')']);
        format!(
            "INSERT INTO {target} {names} SELECT {values} FROM {rows} AS s WHERE NOT EXISTS \
             (SELECT 1 FROM {target} AS t WHERE {on})"
        )
    }

    fn with_json(&self, id: &str, sql: &str, rows: &str) -> String {
        let start = sql.find("(SELECT explode(from_json(:rows").unwrap();
        let end = start + sql[start..].find(" AS r)").unwrap() + " AS r)".len();
        let width = sql[start..end].matches(":string").count();
        let rows: Vec<BTreeMap<String, String>> = serde_json::from_str(rows).unwrap();
        let names: Vec<String> = (0..width - 1).map(|i| format!("c{i}")).collect();
        let names = std::iter::once("n".to_owned()).chain(names);
        let columns: Vec<(String, ArrayRef)> = names
            .map(|name| {
                let values = rows.iter().map(|row| row.get(&name).map(String::as_str));
                let values: StringArray = values.collect();
                (name, Arc::new(values) as ArrayRef)
            })
            .collect();
        let fields: Vec<Field> = columns
            .iter()
            .map(|(n, _)| Field::new(n, DataType::Utf8, true))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        let columns = columns.into_iter().map(|(_, c)| c).collect();
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let table = Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap());
        // Statements run at the same time, each with rows of its own.
        let name = format!("\"rows of {id}\"");
        self.ctx.register_table(&*name, table).unwrap();
        format!("{}{name} AS r{}", &sql[..start], &sql[end..])
    }

    pub(super) async fn execute(&self, body: &Value) -> Response {
        let sql = body["statement"].as_str().unwrap().to_owned();
        assert_eq!(body["on_wait_timeout"], "CONTINUE");
        let (id, dead) = {
            let mut inner = self.inner.lock().unwrap();
            inner.statements.push(sql.clone());
            let dead = inner.dies_at.is_some_and(|n| inner.statements.len() > n);
            (format!("st-{}", inner.statements.len()), dead)
        };
        if dead {
            return error(503, "TEMPORARILY_UNAVAILABLE", "the end");
        }
        let mut failing = self.get(|i| i.failing.clone().filter(|(part, _)| sql.contains(part)));
        let conflict = sql.starts_with("MERGE")
            && self.set(|inner| {
                let left = inner.conflicts.checked_sub(1);
                inner.conflicts = left.unwrap_or_default();
                left.is_some()
            });
        if conflict {
            let says = "[DELTA_CONCURRENT_APPEND] files were added by a concurrent update";
            failing = Some((
                sql.clone(),
                json!({"error_code": "BAD_REQUEST", "message": says}),
            ));
        }
        // What the API takes.
        if body["parameters"].as_array().is_some_and(|p| p.len() > 256) {
            return error(400, "INVALID_PARAMETER_VALUE", "more than 256 parameters");
        }
        let answer = match failing {
            Some((_, error)) => {
                json!({"statement_id": id, "status": {"state": "FAILED", "error": error}})
            }
            None => {
                let sql = self.translated(&id, &sql, &body["parameters"]);
                let ran = self.run(&id, &sql, body["disposition"] == "INLINE").await;
                self.ctx
                    .deregister_table(&*format!("\"rows of {id}\""))
                    .unwrap();
                match ran {
                    Ok(answer) => answer,
                    Err(e) => json!({"statement_id": id, "status": {"state": "FAILED", "error":
                        {"error_code": "BAD_REQUEST", "message": e.to_string()}}}),
                }
            }
        };
        let mut inner = self.inner.lock().unwrap();
        let polls = inner.polls;
        inner.left.insert(id.clone(), polls);
        inner.answers.insert(id.clone(), answer);
        drop(inner);
        self.look(&id)
    }

    /// The state of a statement, which ends after `polls` looks.
    pub(super) fn look(&self, id: &str) -> Response {
        let mut inner = self.inner.lock().unwrap();
        let left = inner.left.get_mut(id).unwrap();
        if *left == 0 {
            return axum::Json(inner.answers[id].clone()).into_response();
        }
        *left -= 1;
        axum::Json(json!({"statement_id": id, "status": {"state": "RUNNING"}})).into_response()
    }

    async fn run(&self, id: &str, sql: &str, inline: bool) -> datafusion::error::Result<Value> {
        let frame = self.ctx.sql(sql).await?;
        let schema = Arc::clone(frame.schema().inner());
        let batches = frame.collect().await?;
        if inline {
            let count = batches.first().filter(|b| b.num_columns() == 1).map(|b| {
                datafusion::arrow::util::display::array_value_to_string(b.column(0), 0).unwrap()
            });
            return Ok(json!({"statement_id": id, "status": {"state": "SUCCEEDED"},
                "manifest": {"schema": {"columns": [{"name": "num_affected_rows"},
                    {"name": "num_inserted_rows"}]}},
                "result": {"data_array": [[count, count]]}}));
        }
        let all = datafusion::arrow::compute::concat_batches(&schema, &batches)?;
        let size = self.get(|inner| inner.rows_per_chunk);
        let (cut, truncated) = self.get(|inner| (inner.cut, inner.truncated));
        let (turned, count) = self.get(|inner| (inner.turned, inner.chunk_count));
        let (change, said) = self.get(|inner| (inner.chunk, inner.manifest.clone()));
        let chunks: Vec<(usize, Bytes)> = (0..all.num_rows())
            .step_by(size)
            .map(|at| {
                let part = all.slice(at, size.min(all.num_rows() - at));
                let part = change.map_or(part.clone(), |change| change(at / size, part));
                let mut bytes = vec![];
                let mut writer = StreamWriter::try_new(&mut bytes, &part.schema()).unwrap();
                writer.write(&part).unwrap();
                writer.finish().unwrap();
                bytes.truncate(bytes.len() - cut);
                if let Some(byte) = turned.and_then(|at| bytes.get_mut(at)) {
                    *byte ^= 8;
                }
                (part.num_rows(), bytes.into())
            })
            .collect();
        let infos: Vec<Value> = chunks
            .iter()
            .enumerate()
            .map(|(i, (rows, bytes))| {
                json!({"chunk_index": i, "row_count": rows, "byte_count": bytes.len()})
            })
            .collect();
        let mut manifest = json!({"format": "ARROW_STREAM", "schema": {"columns": columns(&schema)},
            "total_chunk_count": count.unwrap_or(chunks.len() as u64), "total_row_count": all.num_rows(),
            "chunks": infos, "truncated": truncated});
        let first = !chunks.is_empty();
        self.set(|inner| inner.results.insert(id.to_owned(), chunks));
        let said = said.unwrap_or(Some(json!({})));
        for (key, value) in said.iter().flat_map(|s| s.as_object().unwrap()) {
            manifest[key] = value.clone();
        }
        let mut answer = json!({"statement_id": id, "status": {"state": "SUCCEEDED"},
            "manifest": said.map(|_| manifest)});
        if first {
            answer["result"] = json!({"external_links": [self.link(id, 0)]});
        }
        Ok(answer)
    }

    /// A link that has a use number, by which it can be called expired.
    pub(super) fn link(&self, id: &str, chunk: u32) -> Value {
        let mut inner = self.inner.lock().unwrap();
        let number = inner.links.entry((id.to_owned(), chunk)).or_default();
        *number += 1;
        let (mut leads, mut number) = (chunk, *number);
        if inner.same_link == Some(chunk) {
            (leads, number) = (chunk - 1, 1);
        }
        json!({"chunk_index": chunk,
            "external_link": format!("{}/storage/{id}/{leads}/{number}?sig=hidden-signature", self.url),
            "expiration": "2026-11-25T12:00:00Z",
            "http_headers": {"x-encryption-key": "hidden-key"}})
    }
}
