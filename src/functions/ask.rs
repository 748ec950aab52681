//! `ask(model, question)`: a model's answer without any document, and `ask_reply(model, question)`:
//! the same with why it ended (`stop`, or `length` where it was cut) and how many tokens it took.
//!
//! `model` is the name of a LORA table (base and adapter), a `[models]` entry, `builtin:tiny`, a
//! model directory, or an adapter directory (on the default model). Answers are greedy. Volatile
//! and asynchronous: a literal call would otherwise be answered while planning.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use casebook_llm::{Finish, Request, Sampling};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, StringViewArray, StructArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
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
use crate::generator::{Generator, Reply};
use crate::settings::{AskConfig, CasebookConfig};

/// Questions of one batch that are with the model at the same time.
const QUESTIONS_AHEAD: usize = 32;
/// Adds the function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> crate::Result<()> {
    for whole in [false, true] {
        let types = vec![DataType::Utf8View, DataType::Utf8View];
        let ask = Ask {
            signature: Signature::exact(types, Volatility::Volatile),
            casebook: Arc::clone(casebook),
            host: ctx.state_weak_ref(),
            whole,
        };
        ctx.register_udf(AsyncScalarUDF::new(Arc::new(ask)).into_scalar_udf());
    }
    Ok(())
}

/// The greedy answer of `model` to `question`, without a document.
async fn answer(model: &Generator, question: &str, most: usize) -> crate::Result<Reply> {
    let request = Request {
        sampling: Sampling {
            temperature: 0.0,
            ..Sampling::default()
        },
        seed: 0,
        max_new_tokens: most,
        stop: vec![],
    };
    let mut reply = model.session().chat(None, question, &request).await?;
    reply.text = reply.text.trim().to_owned();
    Ok(reply)
}

/// The columns of a whole reply.
fn fields() -> Fields {
    Fields::from(vec![
        Field::new("answer", DataType::Utf8View, true),
        Field::new("finish", DataType::Utf8View, true),
        Field::new("output_tokens", DataType::Int64, true),
    ])
}

/// Says that answers were cut, and how to get them whole.
fn note_cut(replies: &[Reply], most: usize) {
    let cut = replies
        .iter()
        .filter(|reply| reply.finish == Finish::Length)
        .count();
    if cut > 0 {
        log::warn!(
            target: "casebook",
            "ask: {cut} of {} answers were cut, at {most} tokens or where the model's context ends; \
             SET casebook.ask.max_tokens to more (casebook ask --max-tokens), or see which in the \
             finish of ask_reply(model, question)",
            replies.len()
        );
    }
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
    /// It is `ask_reply`.
    whole: bool,
}

impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.casebook, &other.casebook) && self.whole == other.whole
    }
}

impl Eq for Ask {}

impl std::hash::Hash for Ask {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.casebook).hash(state);
        self.whole.hash(state);
    }
}

impl ScalarUDFImpl for Ask {
    fn name(&self) -> &str {
        if self.whole { "ask_reply" } else { "ask" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.whole {
            true => DataType::Struct(fields()),
            false => DataType::Utf8View,
        })
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
        let settings = args.config_options.extensions.get::<CasebookConfig>();
        let most = settings.map_or_else(|| AskConfig::default().max_tokens, |s| s.ask.max_tokens);
        let work = self.casebook.begin_work();
        let (replies, rows) = tokio::select! {
            replies = self.replies(models, questions, most) => replies?,
            () = work.stopped() => return Err(stopped().into()),
        };
        note_cut(&replies, most);
        let of = |row: &Option<usize>| row.map(|n| &replies[n]);
        let answers: StringViewArray = rows
            .iter()
            .map(|row| of(row).map(|reply| reply.text.as_str()))
            .collect();
        if !self.whole {
            return Ok(ColumnarValue::Array(Arc::new(answers)));
        }
        let finish = |reply: &Reply| match reply.finish {
            Finish::Stop => "stop",
            Finish::Length => "length",
        };
        let finish: StringViewArray = rows.iter().map(|row| of(row).map(finish)).collect();
        let tokens = |reply: &Reply| reply.output_tokens.sum().map(|n| n as i64);
        let tokens: Int64Array = rows.iter().map(|row| of(row).and_then(tokens)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(answers), Arc::new(finish), Arc::new(tokens)];
        let nulls = rows.iter().map(Option::is_some).collect();
        let whole = StructArray::try_new(fields(), columns, Some(NullBuffer::new(nulls)))?;
        Ok(ColumnarValue::Array(Arc::new(whole)))
    }
}

impl Ask {
    /// Answers are greedy, so a question that a batch repeats is answered once: the replies, and which
    /// of them each row has.
    async fn replies(
        &self,
        models: &StringViewArray,
        questions: &StringViewArray,
        most: usize,
    ) -> crate::Result<(Vec<Reply>, Vec<Option<usize>>)> {
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
        let replies = futures::stream::iter(work)
            .map(|(model, question)| async move { answer(&model, &question, most).await })
            .buffered(QUESTIONS_AHEAD)
            .try_collect()
            .await?;
        Ok((replies, rows))
    }
}
