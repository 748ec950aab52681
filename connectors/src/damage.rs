//! Libraries that decode what others wrote may panic on damaged bytes; here that becomes an error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, ErrorKind, Result};

/// Does `decode`; a panic in it is an error. What `decode` worked on must not be used again then.
pub(crate) fn guarded<T>(doing: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "{doing}: the data is damaged ({}); run the statement again, and if it stays so, \
                 read the table without its damaged part",
                said.unwrap_or("without a word")
            ),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_names_what_was_read() {
        assert_eq!(guarded("reading t", || Ok(1)).unwrap(), 1);
        let short: &[u8] = &[];
        let error = guarded("reading t", || Ok(short[short.len()])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(
            error
                .to_string()
                .starts_with("reading t: the data is damaged (index")
        );
    }
}
