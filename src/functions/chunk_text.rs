//! `chunk_text(text, max_tokens, overlap [, model])`: the chunks that `docs_to_qa` would make.
//!
//! ```sql
//! SELECT id, c['chunk_no'], c['text']
//! FROM (SELECT id, unnest(chunk_text(text, 200, 20)) AS c FROM cases)
//! ```
//!
//! Tokens are those of `model`; without one, of the default model.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use casebook_llm::TextTokenizer;
use casebook_llm::model::DecoderConfig;
use casebook_qa::chunk::{ChunkOptions, TokenCounter, chunks};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int32Builder, Int64Builder, ListBuilder, StringViewBuilder,
    StructBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Fields, Int64Type};
use datafusion::error::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature,
    Volatility,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use crate::context::Casebook;
use crate::error::Error;
use crate::models::{self, DEFAULT_MODEL, ModelSpec};
use crate::remote::TokenCount;

/// Most tokens of a chunk, as in profiles.
const MAX_CHUNK_TOKENS: usize = 10_000_000;

/// Adds the function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> crate::Result<()> {
    ctx.register_udf(ScalarUDF::from(ChunkText::new(casebook)));
    Ok(())
}

#[derive(Debug)]
struct ChunkText {
    signature: Signature,
    casebook: Arc<Casebook>,
    tokenizers: Mutex<HashMap<String, Arc<Tokenizer>>>,
}

impl PartialEq for ChunkText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.casebook, &other.casebook)
    }
}

impl Eq for ChunkText {}

impl std::hash::Hash for ChunkText {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.casebook).hash(state);
    }
}

impl ChunkText {
    fn new(casebook: &Arc<Casebook>) -> Self {
        let plain = vec![DataType::Utf8View, DataType::Int64, DataType::Int64];
        let with_model = [plain.clone(), vec![DataType::Utf8View]].concat();
        let signature = Signature::one_of(
            vec![
                TypeSignature::Exact(plain),
                TypeSignature::Exact(with_model),
            ],
            Volatility::Stable,
        );
        Self {
            signature,
            casebook: Arc::clone(casebook),
            tokenizers: Mutex::default(),
        }
    }

    fn tokenizer(&self, model: &str) -> crate::Result<Arc<Tokenizer>> {
        let spec = self.casebook.models.spec(model)?;
        let name = match spec.remote {
            Some(_) => model.to_owned(),
            None => spec.source.clone(),
        };
        let known = || self.tokenizers.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = known().get(&name) {
            return Ok(Arc::clone(found));
        }
        beside_async(|| self.load(name, &spec))
    }

    /// Opens the tokenizer of `spec`; its files may have to be fetched.
    fn load(&self, name: String, spec: &ModelSpec) -> crate::Result<Arc<Tokenizer>> {
        // Held meanwhile: others that want it need it as well.
        let mut cache = self.tokenizers.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(found) = cache.get(&name) {
            return Ok(Arc::clone(found));
        }
        let tokenizer = match &spec.remote {
            Some(remote) => Tokenizer::Remote(TokenCount::open(remote)?),
            None => {
                let files = models::source(&spec.source)?.open()?;
                let config = DecoderConfig::parse(&files.name, &files.require("config.json")?)?;
                Tokenizer::Local(Box::new(TextTokenizer::load(&files, &config)?))
            }
        };
        let tokenizer = Arc::new(tokenizer);
        cache.insert(name, Arc::clone(&tokenizer));
        Ok(tokenizer)
    }
}

/// Does blocking `work`, for which the other tasks of an async thread do not wait where there are
/// other threads.
fn beside_async<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => block_in_place(work),
        _ => work(),
    }
}

fn fields() -> Fields {
    Fields::from(vec![
        Field::new("chunk_no", DataType::Int32, true),
        Field::new("chunk_start", DataType::Int64, true),
        Field::new("chunk_end", DataType::Int64, true),
        Field::new("text", DataType::Utf8View, true),
    ])
}

impl ScalarUDFImpl for ChunkText {
    fn name(&self) -> &str {
        "chunk_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(
            DataType::Struct(fields()),
            true,
        ))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let text = arrays[0].as_string_view();
        let numbers = |i: usize| arrays[i].as_primitive::<Int64Type>();
        let models = arrays.get(3).map(|a| a.as_string_view());
        let builders: Vec<Box<dyn datafusion::arrow::array::ArrayBuilder>> = vec![
            Box::new(Int32Builder::new()),
            Box::new(Int64Builder::new()),
            Box::new(Int64Builder::new()),
            Box::new(StringViewBuilder::new()),
        ];
        let mut out = ListBuilder::new(StructBuilder::new(fields(), builders));
        for row in 0..text.len() {
            if text.is_null(row) || numbers(1).is_null(row) || numbers(2).is_null(row) {
                out.append_null();
                continue;
            }
            let model = models.filter(|m| !m.is_null(row)).map(|m| m.value(row));
            let tokenizer = self.tokenizer(model.unwrap_or(DEFAULT_MODEL))?;
            let options = options(numbers(1).value(row), numbers(2).value(row))?;
            append(&mut out, text.value(row), &tokenizer, &options);
        }
        Ok(ColumnarValue::Array(Arc::new(out.finish()) as ArrayRef))
    }
}

fn options(max_tokens: i64, overlap: i64) -> Result<ChunkOptions> {
    let sizes = usize::try_from(max_tokens)
        .ok()
        .zip(usize::try_from(overlap).ok());
    if sizes.is_some_and(|(most, _)| most > MAX_CHUNK_TOKENS) {
        return Err(Error::invalid(format!(
            "chunk_text: max_tokens is {max_tokens}; it may be at most {MAX_CHUNK_TOKENS}, more \
             than any model reads at once"
        ))
        .into());
    }
    match sizes {
        Some((max_tokens, overlap_tokens)) if max_tokens > overlap_tokens => Ok(ChunkOptions {
            max_tokens,
            overlap_tokens,
            normalize: true,
        }),
        _ => Err(Error::invalid(format!(
            "chunk_text: max_tokens {max_tokens} must be greater than overlap {overlap}, and both \
             must not be negative"
        ))
        .into()),
    }
}

/// Of a model in this process, or of one that is elsewhere.
#[derive(Debug)]
enum Tokenizer {
    Local(Box<TextTokenizer>),
    Remote(TokenCount),
}

impl TokenCounter for Tokenizer {
    fn count(&self, text: &str) -> usize {
        let count = match self {
            Self::Local(tokenizer) => tokenizer.count(text).ok(),
            Self::Remote(tokens) => tokens.count(text),
        };
        // A text that cannot be tokenised is left in one piece.
        count.unwrap_or(0)
    }
}

fn append(
    out: &mut ListBuilder<StructBuilder>,
    text: &str,
    tokenizer: &Tokenizer,
    options: &ChunkOptions,
) {
    let row = out.values();
    for chunk in chunks(text, tokenizer, options) {
        if let Some(b) = row.field_builder::<Int32Builder>(0) {
            b.append_value(chunk.no);
        }
        for (i, value) in [(1, chunk.start), (2, chunk.end)] {
            if let Some(b) = row.field_builder::<Int64Builder>(i) {
                b.append_value(value as i64);
            }
        }
        if let Some(b) = row.field_builder::<StringViewBuilder>(3) {
            b.append_value(&text[chunk.start..chunk.end]);
        }
        row.append(true);
    }
    out.append(true);
}
