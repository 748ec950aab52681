//! Which tables must hold documents: targets of jobs that train some pairs with their document.
//!
//! Such a job writes rows with one column more than `qa_pairs` has, so its target is made with that
//! column, and one that is there gets it, without a word in the file.

use std::collections::BTreeMap;

use casebook_connectors::GivenOptions;
use casebook_llm::lora::LoraSettings;

use super::Config;
use super::raw::RawTable;
use super::tables::{connector, flatten};
use crate::schema::{QA_PAIRS, QA_PAIRS_WITH_DOCUMENT};

/// The option that lets a table take new columns, and what it must say.
const EVOLVE: (&str, &str) = ("table.evolve", "add_columns");

impl Config {
    /// Changes the `options` of the table `name` of the connector `format` if a job needs it to.
    pub(super) fn make_room_for_documents(
        &self,
        name: &str,
        format: &str,
        options: &mut GivenOptions,
    ) {
        if options
            .get("table.create")
            .is_none_or(|schema| schema != QA_PAIRS)
            || !self.holds_documents(name)
        {
            return;
        }
        options.insert("table.create".into(), QA_PAIRS_WITH_DOCUMENT.into());
        let evolves = connector(format)
            .is_some_and(|connector| connector.options.iter().any(|o| o.key == EVOLVE.0));
        if evolves {
            options
                .entry(EVOLVE.0.into())
                .or_insert_with(|| EVOLVE.1.into());
        }
    }

    /// True if a job writes its pairs to `table` and trains some with their document.
    fn holds_documents(&self, table: &str) -> bool {
        let of_table = self.raw.jobs.values().filter(|job| job.target == table);
        of_table
            .filter_map(|job| self.raw.tables.get(&job.train.as_ref()?.target))
            .any(trains_with_documents)
    }
}

/// What the options of a LORA table say, without checking them: that is the table's own matter.
fn trains_with_documents(table: &RawTable) -> bool {
    let mut options = BTreeMap::new();
    for (key, value) in &table.options {
        // A mistake in the options is told where they are used.
        flatten(key, value, &mut options).ok();
    }
    let share = options
        .get("lora.with_document_share")
        .and_then(|share| share.parse().ok());
    share.unwrap_or(LoraSettings::default().with_document_share) > 0.0
}
