//! One value of a row, however long it is and whatever width the driver reports for its column.
//!
//! The driver fills a buffer that is kept for all rows; a value that does not fit is fetched in
//! parts, which the protocol allows for texts and bytes.

use odbc_api::buffers::Indicator;
use odbc_api::parameter::{Binary, Text, VarCell, VarKind, WideText};
use odbc_api::{CursorRow, Error};

/// Elements that a buffer begins with: a page of text fits, so most values take one call.
const FIRST_ELEMENTS: usize = 16 << 10;

/// Elements that a buffer keeps from one value to the next; a buffer that grew beyond that for a
/// giant is let go.
const KEPT_ELEMENTS: usize = 8 << 20;

/// Texts as the driver's own bytes, which are UTF-8 where we ask for them.
pub(super) type Utf8 = Text;
/// Texts as UTF-16, which no client locale can damage.
pub(super) type Utf16 = WideText;
/// Bytes.
pub(super) type Bytes = Binary;

/// A buffer for one column.
pub(super) struct LongValue<K: VarKind> {
    buffer: Vec<K::Element>,
}

impl<K: VarKind> Default for LongValue<K> {
    fn default() -> Self {
        Self {
            buffer: vec![K::ZERO; FIRST_ELEMENTS],
        }
    }
}

impl<K: VarKind> LongValue<K>
where
    for<'a> VarCell<&'a mut [K::Element], K>:
        odbc_api::parameter::CElement + odbc_api::handles::CDataMut,
{
    /// The value of `column`, counted from 1; none if it is null.
    pub(super) fn get(
        &mut self,
        row: &mut CursorRow<'_>,
        column: u16,
    ) -> Result<Option<&[K::Element]>, Error> {
        if self.buffer.len() > KEPT_ELEMENTS {
            *self = Self::default();
        }
        let element = size_of::<K::Element>();
        let mut filled = 0;
        loop {
            // The last element of a text is the driver's terminating zero.
            let usable = self.buffer.len() - filled - K::TERMINATING_ZEROES;
            let window = &mut self.buffer[filled..];
            let mut cell = VarCell::<&mut [K::Element], K>::from_buffer(window, Indicator::Null);
            row.get_data(column, &mut cell)?;
            let missing = match cell.indicator() {
                Indicator::Null => return Ok(None),
                Indicator::Length(bytes) if bytes / element <= usable => {
                    return Ok(Some(&self.buffer[..filled + bytes / element]));
                }
                Indicator::Length(bytes) => bytes / element - usable,
                // The driver does not know how much there is: twice as much next time.
                Indicator::NoTotal => self.buffer.len(),
            };
            filled += usable;
            self.buffer
                .resize(filled + missing + K::TERMINATING_ZEROES, K::ZERO);
        }
    }
}
