//! `casebook ask`: one question, without documents, to one or two models.

use casebook::{Error, Result};
use clap::Args;
use datafusion::arrow::array::AsArray;

use super::{Program, output};

/// Arguments of `casebook ask`.
#[derive(Debug, Args)]
pub(super) struct Ask {
    /// The question
    question: String,
    /// A [models] entry, a LORA table, an adapter or model directory, or builtin:tiny
    #[arg(long, short, default_value = "default")]
    model: String,
    /// Ask this model too and show both answers
    #[arg(long)]
    base: Option<String>,
    /// Tokens of an answer at most; a longer one is cut, and a warning says so
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
}

impl Ask {
    pub(super) async fn run(self, program: &Program) -> Result<()> {
        if self.question.trim().is_empty() {
            return Err(Error::invalid(
                "the question is empty; put it in quotes: casebook ask \"Who won?\"",
            ));
        }
        let ctx = program.session()?;
        if let Some(most) = self.max_tokens {
            ctx.sql(&format!("SET casebook.ask.max_tokens = {most}"))
                .await?;
        }
        let models: Vec<&String> = self.base.iter().chain([&self.model]).collect();
        for model in &models {
            let literal = |text: &str| text.replace('\'', "''");
            let sql = format!(
                "SELECT ask('{}', '{}')",
                literal(model),
                literal(&self.question)
            );
            let batches = ctx.sql(&sql).await?.collect().await?;
            let answer = batches
                .first()
                .map(|b| b.column(0).as_string_view().value(0).to_owned());
            let answer = answer.unwrap_or_default();
            match models.len() {
                1 => output::line(&answer)?,
                _ => output::line(&format!("{model}: {answer}"))?,
            }
        }
        Ok(())
    }
}
