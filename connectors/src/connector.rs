//! The vocabulary of connectors: what one says of itself, its options, what a host chooses.
//! What it does not do: list them ([`crate::registry`]).

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{TableProvider, TableProviderFactory};
use futures::future::BoxFuture;

use crate::check::{CheckRequest, CheckStep, Steps};
use crate::csv_limits::CsvLimits;

/// A table format that SQL can name in `STORED AS`.
#[derive(Debug)]
pub struct Connector {
    /// `STORED AS` name, upper case.
    pub name: &'static str,
    /// One line of documentation.
    pub summary: &'static str,
    /// True if tables can be read.
    pub reads: bool,
    /// True if `INSERT INTO` works.
    pub writes: bool,
    /// What the source takes over from a query.
    pub pushdown: &'static str,
    /// How it is signed in to.
    pub authentication: &'static str,
    /// How far it is proven.
    pub maturity: Maturity,
    /// Options beside those of the object stores; `format.*` keys go to DataFusion.
    pub options: &'static [OptionSpec],
    /// What [`Connector::check`] runs; None as soon as a step failed.
    pub(crate) check: Check,
    /// True of its tables: what their INSERT casts, which names the value that it would change, the
    /// planner must not cast before.
    pub(crate) is_table: fn(&dyn TableProvider) -> bool,
    /// Makes what opens its tables.
    pub(crate) factory: fn(&'static Connector, &ConnectorOptions) -> Arc<dyn TableProviderFactory>,
}

impl Connector {
    /// Checks one table step by step; the steps after a failed one are not tried.
    pub async fn check(&'static self, request: CheckRequest) -> Vec<CheckStep> {
        let mut steps = Steps::default();
        (self.check)(self, &request, &mut steps).await;
        steps.done()
    }
}

/// Checks one table, and notes each step.
pub(crate) type Check =
    for<'a> fn(&'static Connector, &'a CheckRequest, &'a mut Steps) -> BoxFuture<'a, Option<()>>;

/// How far a connector is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maturity {
    /// Tested against a stand-in of our own; no real account has been seen.
    Preview,
    /// Tested against a third party's server or emulator of the same protocol.
    Beta,
    /// Tested against the real thing.
    Stable,
}

impl Maturity {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::Beta => "beta",
            Self::Stable => "stable",
        }
    }
}

/// One key of OPTIONS.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Dotted key, lower case.
    pub key: &'static str,
    /// True if the value must never be printed.
    pub secret: bool,
    /// What absence means.
    pub default: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
}

/// What a host gives to [`crate::register`].
#[derive(Debug, Clone)]
pub struct ConnectorOptions {
    /// Schemas that `'table.create' 'NAME'` can create.
    pub table_schemas: Vec<(&'static str, SchemaRef)>,
    /// What tells rejected rows from others; without it `write.rejects` is an error.
    pub accepted: Option<AcceptedRows>,
    /// Limits of the CSV reader where a table's options say nothing.
    pub csv_limits: CsvLimits,
    /// What becomes of the session's own readers of CSV, Parquet and JSON.
    pub files: FileReaders,
}

/// What becomes of `STORED AS CSV`, `PARQUET` and `JSON` in a session, for which DataFusion has
/// readers of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FileReaders {
    /// They are Casebook's.
    Replace,
    /// They stay, and Casebook's are `CASEBOOK_CSV`, `CASEBOOK_PARQUET` and `CASEBOOK_JSON`.
    Prefixed,
    /// They stay, and Casebook's are not there.
    #[default]
    Leave,
}

/// Which rows of an INSERT are accepted; the others are rejects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AcceptedRows {
    /// The column that says so.
    pub column: &'static str,
    /// What it says of accepted rows.
    pub value: &'static str,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            table_schemas: vec![],
            accepted: None,
            csv_limits: CsvLimits::default(),
            files: FileReaders::Replace,
        }
    }
}

/// The option of connectors that speak HTTPS.
pub(crate) const CA_FILE: OptionSpec = OptionSpec {
    key: "tls.ca_file",
    secret: false,
    default: "the authorities that this system and browsers trust",
    doc: "file of certificates (PEM) of an authority that is trusted as well, such as a company's",
};

/// The other one, under the connector's own name: `proxy` in its connections.
pub(crate) const fn proxy(key: &'static str) -> OptionSpec {
    OptionSpec {
        key,
        secret: true,
        default: "HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the environment",
        doc: "proxy of all its requests: a URL (http:// or https://, with user:password@ if it asks \
              for them), or none",
    }
}

/// How files are signed in to.
pub(crate) const FILES: &str = "keys, roles and tokens of the object store";

/// `first`, which is not empty, and `more`: `N` together.
pub(crate) const fn joined<const N: usize>(
    first: &[OptionSpec],
    more: &[OptionSpec],
) -> [OptionSpec; N] {
    assert!(first.len() + more.len() == N);
    let mut all = [first[0]; N];
    let mut i = 0;
    while i < N {
        all[i] = match i < first.len() {
            true => first[i],
            false => more[i - first.len()],
        };
        i += 1;
    }
    all
}
