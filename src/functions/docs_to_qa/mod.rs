//! `docs_to_qa`: a relation of documents in, question/answer rows out.
//!
//! ```sql
//! SELECT * FROM docs_to_qa('cases', profile => 'legal') WHERE status = 'ok' LIMIT 100
//! ```
//!
//! Read in this order: [`planner`] (SQL to a table scan), [`arguments`] and [`columns`] (what was
//! asked for), [`table`] (pushdown), [`exec`] (the plan node), [`generate`] (the work), [`pairs`]
//! (one document), [`asking`] and [`judging`] (one chunk), [`rows`].

use std::sync::Arc;

use datafusion::execution::context::SessionContext;

use crate::context::Casebook;
use crate::error::Result;

pub mod arguments;
mod asking;
mod budget;
mod chunking;
pub mod columns;
pub mod document;
mod documents;
pub mod exec;
mod generate;
mod input;
mod judging;
mod metrics;
mod pairs;
pub mod planner;
mod query;
mod rows;
mod spec;
pub mod table;
pub mod udtf;

/// Name of the function in SQL.
pub const NAME: &str = "docs_to_qa";

/// Adds the relation planner and the plain table function to `ctx`.
pub(crate) fn register(ctx: &SessionContext, casebook: &Arc<Casebook>) -> Result<()> {
    let planner = planner::DocsToQaPlanner::new(ctx.state_weak_ref(), Arc::clone(casebook));
    ctx.register_relation_planner(Arc::new(planner))?;
    ctx.register_udtf(
        NAME,
        Arc::new(udtf::DocsToQaFunction::new(Arc::clone(casebook))),
    );
    Ok(())
}
