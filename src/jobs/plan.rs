//! Which SQL a job comes to.

use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;

use super::{Job, Training};
use crate::context::Casebook;
use crate::error::{Error, Result};
use crate::functions::lookup::lora_table;
use crate::schema::{DOCUMENT, QA_PAIRS_WITH_DOCUMENT};
use crate::settings::CasebookConfig;

/// Digits of a qa_id that decide whether a pair is held out; ids are hashes, so the share is even
/// and a pair stays on its side when others are added.
const HOLDOUT_DIGITS: u32 = 4;

/// What a step belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Documents become rows of the QA table.
    Generate,
    /// Accepted pairs become an adapter.
    Train,
    /// Base and tuned model are asked.
    Compare,
}

impl Phase {
    /// For a line of progress.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Train => "train",
            Self::Compare => "compare",
        }
    }
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it belongs to.
    pub phase: Phase,
    /// The statement.
    pub sql: String,
}

/// What a job comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Its statements, in order.
    pub steps: Vec<Step>,
    /// The model that generates.
    pub model: String,
    /// The view of the pairs that training held out, if it holds any out.
    pub held_out_pairs: Option<String>,
}

/// The statements of `job` on the tables of `ctx`. Reads schemas and settings; changes nothing. What of
/// them would be refused, [`super::plan()`] finds.
///
/// # Errors
/// A table that is not there; a target of training that is no LORA table or holds another run; a
/// target of pairs that cannot hold the documents that training wants.
pub(super) async fn statements(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
) -> Result<Plan> {
    let mut steps = vec![];
    let mut step = |phase, sql| steps.push(Step { phase, sql });
    if let Some(budget) = job.error_budget {
        step(
            Phase::Generate,
            format!("SET casebook.qa.error_budget = {budget}"),
        );
    }
    let arguments: String = job
        .arguments
        .iter()
        .map(|(key, value)| format!(", {} => {value}", argument_name(key)))
        .collect();
    let source = quoted(&job.source);
    let generate = match trains_with_documents(ctx, job).await? {
        false => format!(
            "INSERT INTO {} SELECT * FROM docs_to_qa({source}{arguments})",
            quoted(&job.target)
        ),
        true => {
            let call = format!("docs_to_qa({source}{arguments}, keep_document => true)");
            insert_with_documents(ctx, job, &call).await?
        }
    };
    step(Phase::Generate, generate);
    let mut held_out_pairs = None;
    if let Some(training) = &job.train {
        step(Phase::Train, examples(ctx, casebook, job, training).await?);
        if let Some(threshold) = threshold(training.holdout_share) {
            let view = format!("{}_held_out_pairs", job.name);
            step(
                Phase::Compare,
                format!(
                    "CREATE OR REPLACE VIEW {} AS SELECT question, answer FROM {} \
                     WHERE status = 'ok' AND substr(qa_id, 1, {HOLDOUT_DIGITS}) < '{threshold}' \
                     ORDER BY qa_id",
                    quoted(&view),
                    quoted(&job.target)
                ),
            );
            held_out_pairs = Some(view);
        }
    }
    Ok(Plan {
        steps,
        model: model(ctx, job),
        held_out_pairs,
    })
}

/// The model that generates.
pub(super) fn model(ctx: &SessionContext, job: &Job) -> String {
    let named = job.model.clone();
    let state = ctx.state();
    let settings = state.config_options().extensions.get::<CasebookConfig>();
    named.unwrap_or_else(|| settings.map(|s| s.qa.model.clone()).unwrap_or_default())
}

/// True if some examples of the job are trained with the text that they are about.
async fn trains_with_documents(ctx: &SessionContext, job: &Job) -> Result<bool> {
    let Some(training) = &job.train else {
        return Ok(false);
    };
    let table = lora_table(&ctx.state_weak_ref(), &training.target).await?;
    Ok(table.is_some_and(|table| table.settings.with_document_share > 0.0))
}

/// The INSERT of rows that carry their document. By name: in a table that got the column later it
/// comes last, behind columns of the source that are kept.
async fn insert_with_documents(ctx: &SessionContext, job: &Job, call: &str) -> Result<String> {
    let target = ctx.table(TableReference::bare(job.target.as_str())).await?;
    if !target.schema().has_column_with_unqualified_name(DOCUMENT) {
        return Err(Error::invalid(format!(
            "job {}: training with documents needs the column {DOCUMENT} in {}; set 'table.create' \
             = '{QA_PAIRS_WITH_DOCUMENT}' and, for a table that is there, 'table.evolve' = \
             'add_columns' in [tables.{}], or train without: 'lora.with_document_share' = 0",
            job.name, job.target, job.target
        )));
    }
    let rows = ctx.sql(&format!("SELECT * FROM {call}")).await?;
    let names: Vec<String> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| quoted(f.name()))
        .collect();
    let names = names.join(", ");
    Ok(format!(
        "INSERT INTO {} ({names}) SELECT {names} FROM {call}",
        quoted(&job.target)
    ))
}

/// The INSERT that trains. Its rows are sorted, so that the same pairs make the same adapter.
async fn examples(
    ctx: &SessionContext,
    casebook: &Arc<Casebook>,
    job: &Job,
    training: &Training,
) -> Result<String> {
    let (target, qa) = (quoted(&training.target), quoted(&job.target));
    let Some(table) = lora_table(&ctx.state_weak_ref(), &training.target).await? else {
        return Err(Error::invalid(format!(
            "[jobs.{}.train] target = '{}' is not a LORA table; write format = \"lora\" in [tables.{}]",
            job.name, training.target, training.target
        )));
    };
    table.check(casebook).await?;
    let held_out = threshold(training.holdout_share).map_or(String::new(), |threshold| {
        format!(" AND substr(q.qa_id, 1, {HOLDOUT_DIGITS}) >= '{threshold}'")
    });
    // What every branch of the UNION needs when some examples are trained with their document. The
    // pair brings its own: the source may have changed since, or hold an id twice.
    let (columns, document, none) = match table.settings.with_document_share > 0.0 {
        false => ("", "", ""),
        true => (", document", ", q.document", ", NULL AS document"),
    };
    let mut rows = format!(
        "SELECT q.doc_id, q.question, q.answer{document} FROM {qa} q \
         WHERE q.status = 'ok'{held_out}"
    );
    if let Some(also) = &training.also {
        let has_id = ctx
            .table(TableReference::bare(also.as_str()))
            .await?
            .schema()
            .has_column_with_unqualified_name("doc_id");
        let doc_id = if has_id { "doc_id" } else { "NULL AS doc_id" };
        rows = format!(
            "{rows} UNION ALL SELECT {doc_id}, question, answer{none} FROM {}",
            quoted(also)
        );
    }
    Ok(format!(
        "INSERT INTO {target} (doc_id, question, answer{columns}) \
         SELECT * FROM ({rows}) ORDER BY doc_id, question, answer"
    ))
}

/// The smallest leading digits of the qa_id of a pair that is trained; none if all are.
fn threshold(holdout_share: f64) -> Option<String> {
    let all = 16u32.pow(HOLDOUT_DIGITS);
    // A digit more would be compared as a text, which begins with a 1.
    let cut = ((holdout_share * f64::from(all)).round() as u32).min(all - 1);
    (cut > 0).then(|| format!("{cut:0width$x}", width = HOLDOUT_DIGITS as usize))
}

/// A name as SQL takes it whatever it holds.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Arguments with a dot are quoted.
fn argument_name(key: &str) -> String {
    match key.contains('.') {
        true => quoted(key),
        false => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_out_as_much_as_it_says() {
        for share in [0.0, 0.00001, 0.1, 0.5, 0.9, 0.9999, 0.999_993, 0.999_999_9] {
            let threshold = threshold(share).unwrap_or_default();
            let held_out = (0..0x1_0000u32).filter(|id| format!("{id:04x}") < threshold);
            let found = held_out.count() as f64 / f64::from(0x1_0000);
            assert!((found - share).abs() < 0.0001, "{share}: {found}");
        }
    }

    /// A session with the tables of a job, of which `share` of the examples have their document.
    async fn planned(share: &str, document: bool, also: &str) -> Result<Vec<String>> {
        let dir = tempfile::tempdir().unwrap();
        let casebook = Arc::new(Casebook::default());
        let ctx = crate::new_session(&casebook).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let schema = match document {
            true => "qa_pairs_with_document",
            false => "qa_pairs",
        };
        for sql in [
            "CREATE TABLE cases AS SELECT 'a' AS id, 'Some text.' AS text".to_owned(),
            format!("CREATE TABLE also AS SELECT {also}"),
            format!(
                "CREATE EXTERNAL TABLE qa STORED AS DELTA LOCATION '{}' OPTIONS ('table.create' \
                 '{schema}')",
                at("qa")
            ),
            format!(
                "CREATE EXTERNAL TABLE tuned STORED AS LORA LOCATION '{}' OPTIONS \
                 ('lora.with_document_share' '{share}')",
                at("adapter")
            ),
        ] {
            ctx.sql(&sql).await.unwrap().collect().await.unwrap();
        }
        let job = Job {
            name: "j".into(),
            source: "cases".into(),
            target: "qa".into(),
            model: None,
            doubles: true,
            arguments: vec![("seed".into(), "7".into())],
            error_budget: None,
            train: Some(Training {
                target: "tuned".into(),
                also: Some("also".into()),
                holdout_share: 0.1,
            }),
            compare: None,
            output: dir.path().join("out"),
        };
        let plan = statements(&ctx, &casebook, &job).await?;
        Ok(plan.steps.into_iter().map(|step| step.sql).collect())
    }

    #[tokio::test]
    async fn examples_have_their_document_where_some_are_trained_with_it() {
        let also = "'q' AS question, 'a' AS answer";
        for share in ["0.5", "1", "0.001"] {
            let steps = planned(share, true, also).await.unwrap();
            assert!(
                steps[0].contains("seed => 7, keep_document => true)"),
                "{steps:?}"
            );
            assert_eq!(
                steps[1],
                "INSERT INTO \"tuned\" (doc_id, question, answer, document) SELECT * FROM (SELECT \
                 q.doc_id, q.question, q.answer, q.document FROM \"qa\" q WHERE q.status = 'ok' AND \
                 substr(q.qa_id, 1, 4) >= '199a' UNION ALL SELECT NULL AS doc_id, question, answer, \
                 NULL AS document FROM \"also\") ORDER BY doc_id, question, answer",
                "{share}"
            );
        }
        let also = "'d' AS doc_id, 'q' AS question, 'a' AS answer";
        let steps = planned("0", false, also).await.unwrap();
        assert_eq!(
            steps[0],
            "INSERT INTO \"qa\" SELECT * FROM docs_to_qa(\"cases\", seed => 7)"
        );
        assert_eq!(
            steps[1],
            "INSERT INTO \"tuned\" (doc_id, question, answer) SELECT * FROM (SELECT q.doc_id, \
             q.question, q.answer FROM \"qa\" q WHERE q.status = 'ok' AND substr(q.qa_id, 1, 4) >= \
             '199a' UNION ALL SELECT doc_id, question, answer FROM \"also\") ORDER BY doc_id, \
             question, answer"
        );
        let error = planned("0.5", false, also).await.unwrap_err().to_string();
        assert!(error.contains("needs the column document in qa"), "{error}");
    }
}
