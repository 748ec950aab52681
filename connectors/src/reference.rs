//! The connectors and their options as Markdown, for the documentation.

use crate::connector::Connector;
use crate::registry::CONNECTORS;

/// A row for each connector.
pub fn connector_table() -> String {
    let mut out = String::from(
        "| STORED AS | what | reads | writes | the source takes over | sign in | maturity |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for c in CONNECTORS {
        let yes = |flag| if flag { "yes" } else { "no" };
        out += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |\n",
            c.name,
            c.summary,
            yes(c.reads),
            yes(c.writes),
            c.pushdown,
            c.authentication,
            c.maturity.name()
        );
    }
    out
}

/// A section for each connector, with a row for each of its options.
pub fn option_reference() -> String {
    CONNECTORS.iter().map(|c| options_of(c)).collect()
}

fn options_of(connector: &Connector) -> String {
    let mut out = format!(
        "### {}\n\n{}.\n\n| option | meaning | default |\n|---|---|---|\n",
        connector.name, connector.summary
    );
    for option in connector.options {
        let secret = if option.secret { " (secret)" } else { "" };
        out += &format!(
            "| `{}`{secret} | {} | {} |\n",
            option.key, option.doc, option.default
        );
    }
    out + "\n"
}
