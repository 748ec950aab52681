//! Mutations of small valid inputs through what fuzzing calls: every seed is the same on every
//! machine, so that a failure repeats.

use crate::fuzzed;

/// Counter-based random numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }
}

/// `bytes` with one to four changes: bits, bytes, pieces left out, doubled or moved.
fn mutated(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..1 + random.below(4) {
        if out.is_empty() {
            return out;
        }
        let at = random.below(out.len());
        let end = (at + 1 + random.below(16)).min(out.len());
        match random.below(6) {
            0 => out[at] ^= 1 << random.below(8),
            1 => out[at] = [0, 0xFF, b'"', b'\'', b'{', b'[', b'\n', b'9'][random.below(8)],
            2 => drop(out.drain(at..end)),
            3 => {
                let piece = out[at..end].to_vec();
                let to = random.below(out.len());
                out.splice(to..to, piece);
            }
            4 => out.truncate(at),
            _ => drop(
                out.splice(
                    at..at,
                    [0xF0, 0x9F, b'\\', b'}']
                        .into_iter()
                        .take(1 + random.below(4)),
                ),
            ),
        }
    }
    out
}

fn hammer(seed: &[u8], times: u64, target: fn(&[u8])) {
    target(seed);
    for i in 0..times {
        target(&mutated(seed, &mut Random(i)));
    }
}

#[test]
fn configurations() {
    let seed = include_bytes!("../../examples/casebook.toml");
    hammer(seed, 3000, fuzzed::config);
    let deep = |open: &str, close: &str| {
        format!("a = {}1{}", open.repeat(100_000), close.repeat(100_000)).into_bytes()
    };
    for (open, close) in [("[", "]"), ("{a=", "}"), ("[{a=", "}]")] {
        fuzzed::config(&deep(open, close));
    }
}

#[test]
fn arguments_of_docs_to_qa() {
    let seed = b"title => ['a,b', 'c'], \"checks.min_grounding\" => -0.5, seed => 7, id => 'x'";
    hammer(seed, 3000, fuzzed::arguments);
    // The SQL parser bounds nesting.
    for open in ["(", "[", "-", "f("] {
        fuzzed::arguments(format!("seed => {}", open.repeat(100_000)).as_bytes());
    }
}

#[test]
fn csv_files() {
    let seed = b"id,text,n\n1,\"a \"\"quoted\"\"\nline\",2.5\n2,\xC3\xA9,\n3,plain,1e9\n";
    hammer(seed, 300, fuzzed::csv);
}

#[test]
fn json_files() {
    let seed = br#"{"id":1,"text":"a\u00e9\n","l":[1,2.5,null],"o":{"k":true}}
{"id":9007199254740993,"text":null,"l":[],"o":{"k":false}}
"#;
    hammer(seed, 300, fuzzed::json);
    for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
        let deep = 200_000;
        let text = format!("{{\"id\":{}1{}}}\n", open.repeat(deep), close.repeat(deep));
        fuzzed::json(text.as_bytes());
        fuzzed::json(open.repeat(deep).as_bytes());
    }
}
