//! `ask(model, question)`: a model's answer without any document.
//!
//! `model` is the name of a LORA table (base and adapter), a `[models]` entry, `builtin:tiny`, a
//! model directory, or an adapter directory (on the default model). Answers are greedy. Volatile
//! and asynchronous: a literal call would otherwise be answered while planning.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::{Request, Sampling};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::async_udf::{AsyncScalarUDF, AsyncScalarUDFImpl};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use futures::{StreamExt, TryStreamExt};

use super::lookup;
use crate::context::Casebook;
use crate::context::Host;
use crate::generator::Generator;

/// Questions of one batch that are with the model at the same time.
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

/// The greedy answer of `model` to `question`, without a document.
pub(crate) async fn answer(model: &Generator, question: &str) -> crate::Result<String> {
    let request = Request {
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        seed: 0,
        max_new_tokens: MAX_ANSWER_TOKENS,
        stop: vec![],
    };
    let reply = model.session().chat(None, question, &request).await?;
    Ok(reply.text.trim().to_owned())
}

/// Rows before it may be kept, as the rows of `docs_to_qa` are.
fn stopped() -> casebook_connectors::Error {
    let message = "ask: stopped before its end; nothing of this statement was written, unless its \
                   target adds rows by key: run it again";
    casebook_connectors::Error::new(casebook_connectors::ErrorKind::Interrupted, message)
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
    /// One answer per row of the batch, also where all arguments are constants.
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let column = |i: usize| args.args[i].to_array(args.number_rows);
        let (models, questions) = (column(0)?, column(1)?);
        let (models, questions) = (models.as_string_view(), questions.as_string_view());
        let work = self.casebook.begin_work();
        let answers = tokio::select! {
            answers = self.answers(models, questions) => answers?,
            () = work.stopped() => return Err(stopped().into()),
        };
        Ok(ColumnarValue::Array(Arc::new(answers) as ArrayRef))
    }
}

impl Ask {
    /// Answers are greedy, so a question that a batch repeats is answered once.
    async fn answers(
        &self,
        models: &StringViewArray,
        questions: &StringViewArray,
    ) -> crate::Result<StringViewArray> {
        let mut ready: HashMap<&str, Generator> = HashMap::new();
        let mut numbers: HashMap<(&str, &str), usize> = HashMap::new();
        let mut work: Vec<(Generator, String)> = vec![];
        let mut rows: Vec<Option<usize>> = Vec::with_capacity(questions.len());
        for pair in models.iter().zip(questions) {
            let (Some(model), Some(question)) = pair else {
                rows.push(None);
                continue;
            };
            if !ready.contains_key(model) {
                let spec = lookup::model(&self.casebook.models, &self.host, model).await?;
                ready.insert(model, self.casebook.models.generator(&spec).await?);
            }
            let number = *numbers.entry((model, question)).or_insert(work.len());
            if number == work.len() {
                work.push((ready[model].clone(), question.to_owned()));
            }
            rows.push(Some(number));
        }
        let answers: Vec<String> = futures::stream::iter(work)
            .map(|(model, question)| async move { answer(&model, &question).await })
            .buffered(QUESTIONS_AHEAD)
            .try_collect()
            .await?;
        let answers = rows.into_iter().map(|n| n.map(|n| answers[n].as_str()));
        Ok(answers.collect())
    }
}
