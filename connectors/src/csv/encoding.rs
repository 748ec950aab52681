//! Texts of other encodings than UTF-8, converted block by block before they are decoded.

use datafusion::error::Result;
use encoding_rs::{DecoderResult, UTF_16BE, UTF_16LE, WINDOWS_1252};

use super::header::check_is_text;
use crate::csv_limits::InvalidUtf8;
use crate::error::Error;
use crate::text::Blocks;

/// Bytes at the start of a file that tell what it is: the longest mark.
const START_BYTES: usize = 4;

/// How texts are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Encoding {
    /// As the decoder takes it.
    #[default]
    Utf8,
    /// A byte order mark says which of the next two.
    Utf16,
    Utf16Le,
    Utf16Be,
    Windows1252,
    Latin1,
}

/// By name.
const ENCODINGS: &[(&str, Encoding)] = &[
    ("utf-8", Encoding::Utf8),
    ("utf-16", Encoding::Utf16),
    ("utf-16le", Encoding::Utf16Le),
    ("utf-16be", Encoding::Utf16Be),
    ("windows-1252", Encoding::Windows1252),
    ("latin-1", Encoding::Latin1),
];

impl Encoding {
    /// The value of `csv.encoding`.
    pub(super) fn parse(value: &str) -> crate::error::Result<Self> {
        let found = ENCODINGS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(value));
        found.map(|(_, encoding)| *encoding).ok_or_else(|| {
            let valid: Vec<&str> = ENCODINGS.iter().map(|(name, _)| *name).collect();
            Error::unknown("value of csv.encoding", value, &valid)
        })
    }

    /// Its name in options.
    pub(super) fn name(self) -> &'static str {
        let found = ENCODINGS.iter().find(|(_, encoding)| *encoding == self);
        found.map_or("utf-8", |(name, _)| name)
    }
}

/// A file as UTF-8, block by block.
pub(super) struct Text {
    blocks: Blocks,
    encoding: Encoding,
    invalid: InvalidUtf8,
    decoder: Option<encoding_rs::Decoder>,
    /// Bytes as they are stored.
    raw: Vec<u8>,
    /// Bytes of the file converted so far.
    consumed: u64,
    started: bool,
    ended: bool,
}

impl Text {
    pub(super) fn new(blocks: Blocks, encoding: Encoding, invalid: InvalidUtf8) -> Self {
        Self {
            blocks,
            encoding,
            invalid,
            decoder: None,
            raw: vec![],
            consumed: 0,
            started: false,
            ended: false,
        }
    }

    /// The middle of a file in UTF-8, whose start was looked at.
    pub(super) fn middle(blocks: Blocks) -> Self {
        Self {
            started: true,
            ..Self::new(blocks, Encoding::Utf8, InvalidUtf8::Error)
        }
    }

    /// Appends the next block to `buffer`; false at the end.
    pub(super) fn append(&mut self, buffer: &mut Vec<u8>) -> Result<bool> {
        if self.started && self.encoding == Encoding::Utf8 {
            return self.blocks.append(buffer);
        }
        if self.ended {
            return Ok(false);
        }
        let before = buffer.len();
        while buffer.len() == before && !self.ended {
            self.raw.clear();
            if self.started {
                self.ended = !self.blocks.append(&mut self.raw)?;
            } else {
                self.start()?;
            }
            self.convert(buffer)?;
        }
        Ok(buffer.len() > before)
    }

    /// Reads the first block, which must be long enough to tell what the file is.
    fn start(&mut self) -> Result<()> {
        self.started = true;
        while self.raw.len() < START_BYTES && !self.ended {
            self.ended = !self.blocks.append(&mut self.raw)?;
        }
        let mark = match &self.raw[..] {
            [0xff, 0xfe, ..] => Some(Encoding::Utf16Le),
            [0xfe, 0xff, ..] => Some(Encoding::Utf16Be),
            _ => None,
        };
        self.encoding = match (self.encoding, mark) {
            (Encoding::Utf16, Some(found)) => found,
            (Encoding::Utf16, None) if self.raw.is_empty() => Encoding::Utf16Le,
            (Encoding::Utf16, None) => {
                return Err(Error::invalid(
                    "the file does not begin with the byte order mark of UTF-16; say 'utf-16le' \
                     or 'utf-16be' as csv.encoding, or leave it out if the file is UTF-8",
                )
                .into());
            }
            (said @ (Encoding::Utf16Le | Encoding::Utf16Be), Some(found)) if said != found => {
                return Err(Error::invalid(format!(
                    "csv.encoding is {}, but the byte order mark of the file is that of {}; say \
                     'utf-16'",
                    said.name(),
                    found.name()
                ))
                .into());
            }
            (said, _) => said,
        };
        self.decoder = match self.encoding {
            Encoding::Utf16Le => Some(UTF_16LE.new_decoder_with_bom_removal()),
            Encoding::Utf16Be => Some(UTF_16BE.new_decoder_with_bom_removal()),
            Encoding::Windows1252 => Some(WINDOWS_1252.new_decoder_without_bom_handling()),
            Encoding::Utf8 | Encoding::Utf16 | Encoding::Latin1 => None,
        };
        if !matches!(self.encoding, Encoding::Utf16Le | Encoding::Utf16Be) {
            check_is_text(&self.raw)?;
        }
        Ok(())
    }

    /// Appends what `raw` holds, as UTF-8.
    fn convert(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(decoder) = &mut self.decoder else {
            if self.encoding == Encoding::Latin1 {
                let before = out.len();
                out.resize(before + 2 * self.raw.len(), 0);
                let written =
                    encoding_rs::mem::convert_latin1_to_utf8(&self.raw, &mut out[before..]);
                out.truncate(before + written);
            } else {
                out.extend_from_slice(&self.raw);
            }
            return Ok(());
        };
        let mut rest = &self.raw[..];
        loop {
            let length = decoder
                .max_utf8_buffer_length_without_replacement(rest.len())
                .unwrap_or(usize::MAX / 2)
                .min(4 * rest.len() + 16);
            let before = out.len();
            out.resize(before + length, 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(rest, &mut out[before..], self.ended);
            out.truncate(before + written);
            rest = &rest[read..];
            self.consumed += read as u64;
            match result {
                DecoderResult::InputEmpty => return Ok(()),
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) if self.invalid == InvalidUtf8::Replace => {
                    out.extend_from_slice("\u{fffd}".as_bytes());
                }
                DecoderResult::Malformed(..) => {
                    return Err(Error::invalid(format!(
                        "bytes that are not {}, before byte {}; say another csv.encoding, or set \
                         csv.invalid_utf8 to replace",
                        self.encoding.name(),
                        self.consumed
                    ))
                    .into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(bytes: &[u8], encoding: Encoding, invalid: InvalidUtf8) -> Result<String> {
        let blocks = Blocks::of(bytes);
        let mut text = Text::new(blocks, encoding, invalid);
        let mut out = vec![];
        while text.append(&mut out)? {}
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        let bytes = |unit: u16| match big {
            true => unit.to_be_bytes(),
            false => unit.to_le_bytes(),
        };
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn encodings_are_converted() {
        let strict = |bytes: &[u8], encoding| text(bytes, encoding, InvalidUtf8::Error);
        let marked = [b"\xfe\xff".to_vec(), utf16("a,é\n", true)].concat();
        assert_eq!(strict(&marked, Encoding::Utf16).unwrap(), "a,é\n");
        assert_eq!(strict(&marked, Encoding::Utf16Be).unwrap(), "a,é\n");
        let bytes = b"\x80 \xe9";
        assert_eq!(strict(bytes, Encoding::Windows1252).unwrap(), "€ é");
        assert_eq!(strict(bytes, Encoding::Latin1).unwrap(), "\u{80} é");
        let error = |bytes: &[u8], encoding| strict(bytes, encoding).unwrap_err().to_string();
        assert!(error(b"a,b\n", Encoding::Utf16).contains("'utf-16le'"));
        assert!(error(&marked, Encoding::Utf16Le).contains("utf-16be"));
        assert!(error(&marked, Encoding::Utf8).contains("csv.encoding"));
        assert!(error(b"a\0b", Encoding::Utf16Le).contains("not utf-16le"));
        assert_eq!(
            text(b"a\0b", Encoding::Utf16Le, InvalidUtf8::Replace).unwrap(),
            "a\u{fffd}"
        );
        assert_eq!(strict(b"", Encoding::Utf16).unwrap(), "");
    }

    proptest! {
        #[test]
        fn utf16_is_read_as_written(written in "\\PC{0,40}", big in any::<bool>()) {
            let encoding = if big { Encoding::Utf16Be } else { Encoding::Utf16Le };
            let read = text(&utf16(&written, big), encoding, InvalidUtf8::Error).unwrap();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..60), which in 0usize..6) {
            let encoding = ENCODINGS[which].1;
            let Ok(read) = text(&bytes, encoding, InvalidUtf8::Replace)
                .map_err(drop) else { return Ok(()); };
            prop_assert!(read.len() <= 3 * bytes.len() + 3);
        }
    }
}
