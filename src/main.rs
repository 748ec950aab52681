//! The `casebook` program: argv, the environment and signals enter here and nowhere else.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    casebook_connectors::hide_caught_panics();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            cli::output::note(&format!("error: the runtime cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(cli::run());
    // Generation may still be busy on a blocking thread; its results are not wanted any more.
    runtime.shutdown_background();
    ExitCode::from(code)
}
