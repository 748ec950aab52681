//! `ask(model, question)`: a model's answer without any document.
//!
//! `model` is the name of a LORA table (base and adapter), a `[models]` entry, `builtin:tiny`, a
//! model directory, or an adapter directory (on the default model). Answers are greedy. Volatile
//! and asynchronous: a literal call would otherwise be answered while planning.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::{Engine, Request, Sampling};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use futures::{StreamExt, TryStreamExt};

use super::lookup::{Host, lora_table};
use crate::context::Casebook;
use crate::models::{DEFAULT_MODEL, ModelSpec};

/// Questions of one batch that are with the engine at the same time.
const QUESTIONS_AHEAD: usize = 32;
/// Budget of an answer.
const MAX_ANSWER_TOKENS: usize = 256;

/// Adds the function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> crate::Result<()> {
    let types = vec![DataType::Utf8View, DataType::Utf8View];
    let ask = Ask {
        signature: Signature::exact(types, Volatility::Volatile),
        casebook: Arc::clone(casebook),
        host: ctx.state_weak_ref(),
    };
    ctx.register_udf(AsyncScalarUDF::new(Arc::new(ask)).into_scalar_udf());
    Ok(())
}

/// The model that `name` means in the session `host`.
pub(crate) async fn resolve(
    casebook: &Casebook,
    host: &Host,
    name: &str,
) -> crate::Result<ModelSpec> {
    if !casebook.models.contains(name)
        && let Some(table) = lora_table(host, name).await?
    {
        return Ok(table.tuned());
    }
    if Path::new(name).join("adapter_config.json").exists() {
        let base = casebook.models.spec(DEFAULT_MODEL)?;
        return Ok(ModelSpec {
            adapter: Some(name.into()),
            ..base
        });
    }
    casebook.models.spec(name)
}

/// The greedy answer of `engine` to `question`, without a document.
pub(crate) async fn answer(engine: &Engine, question: &str) -> crate::Result<String> {
    let request = Request {
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        seed: 0,
        max_new_tokens: MAX_ANSWER_TOKENS,
        stop: vec![],
    };
    let reply = engine.session().chat(None, question, &request).await?;
    Ok(reply.text.trim().to_owned())
}

#[derive(Debug)]
struct Ask {
    signature: Signature,
    casebook: Arc<Casebook>,
    host: Host,
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.casebook, &other.casebook)
    }
}

impl Eq for Ask {}

impl std::hash::Hash for Ask {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.casebook).hash(state);
    }
}

impl ScalarUDFImpl for Ask {
    fn name(&self) -> &str {
        "ask"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8View)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(datafusion::error::DataFusionError::Internal(
            "ask is asynchronous".into(),
        ))
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Ask {
    fn ideal_batch_size(&self) -> Option<usize> {
        Some(QUESTIONS_AHEAD)
    }

    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let (models, questions) = (arrays[0].as_string_view(), arrays[1].as_string_view());
        let mut engines: Vec<(String, Engine)> = vec![];
        let mut work = Vec::with_capacity(questions.len());
        for row in 0..questions.len() {
            if models.is_null(row) || questions.is_null(row) {
                work.push(None);
                continue;
            }
            let name = models.value(row);
            let engine = match engines.iter().find(|(known, _)| known == name) {
                Some((_, engine)) => engine.clone(),
                None => {
                    let spec = resolve(&self.casebook, &self.host, name).await?;
                    let engine = self.casebook.models.engine(&spec).await?;
                    engines.push((name.to_owned(), engine.clone()));
                    engine
                }
            };
            work.push(Some((engine, questions.value(row).to_owned())));
        }
        let answers: Vec<Option<String>> = futures::stream::iter(work)
            .map(|item| async move {
                match item {
                    Some((engine, question)) => answer(&engine, &question).await.map(Some),
                    None => Ok(None),
                }
            })
            .buffered(QUESTIONS_AHEAD)
            .try_collect()
            .await?;
        Ok(ColumnarValue::Array(
            Arc::new(StringViewArray::from_iter(answers)) as ArrayRef,
        ))
    }
}
