//! `${env:NAME}`, `${env:NAME:-default}` and `${file:path}` inside string values; `$${` is `${`.
//!
//! As in a shell, the default of `:-` stands for a variable that is not set *or empty*; it can hold
//! further references, as a path can, and is only looked up if it is needed. A variable without a default must be
//! set, and may be empty. What a reference gave is hidden in messages: the reference stands there.

use std::io::Read;
use std::path::Path;

use super::document::{Fault, Keys, Node, Value};
use super::hidden::Hidden;
use super::shown;

/// Largest file behind `${file:...}`: a key, a certificate chain or a prompt fits in.
const MOST_BYTES: u64 = 1 << 20;
/// Where the system shows itself, its processes and its devices as files.
const SYSTEM: &[&str] = &["/proc", "/sys", "/dev"];
/// References within references.
const DEEPEST: usize = 8;

/// What references are looked up in.
pub(super) struct Places<'a> {
    /// `${file:path}` is relative to it.
    pub(super) folder: &'a Path,
    pub(super) environment: &'a dyn Fn(&str) -> Option<String>,
    /// Takes what was found.
    pub(super) hidden: &'a Hidden,
}

/// Longer values are hidden even if they are one word: it can be that of a pass phrase.
const LONGEST_WORD: usize = 12;
/// Longer numbers are hidden: they can be keys.
const LONGEST_NUMBER: usize = 6;

/// What a reference or a text with references gave.
struct Filled {
    text: String,
    /// Some of it is hidden from now on.
    is_hidden: bool,
}

/// Fills in every string of `keys`. The error names the line and the key.
pub(super) fn fill(keys: &mut Keys, places: &Places<'_>) -> Result<(), Fault> {
    for (key, node) in keys.iter_mut() {
        fill_node(key, node, places)?;
    }
    Ok(())
}

fn fill_node(key: &str, node: &mut Node, places: &Places<'_>) -> Result<(), Fault> {
    match &mut node.value {
        Value::Text(text) => {
            let is_secret = holds_secret(key);
            *text = filled(text, places, is_secret, 0)
                .map_err(|what| Fault::new(node.line, format!("{key}: {what}")))?
                .text;
        }
        Value::List(items) => {
            for item in items {
                fill_node(key, item, places)?;
            }
        }
        Value::Table(inner) => {
            for (name, item) in inner.iter_mut() {
                let known = shown::key(name);
                let name = if known.starts_with('\'') { name } else { "…" };
                fill_node(&format!("{key}.{name}"), item, places)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// True if what is at the dotted `key` is a secret, or may be.
fn holds_secret(key: &str) -> bool {
    let mut ends = key.rmatch_indices('.').map(|(at, _)| &key[at + 1..]);
    let (own, with_above) = (ends.next(), ends.next());
    [Some(key), own, with_above]
        .into_iter()
        .flatten()
        .any(shown::is_secret)
        || key.ends_with('…')
}

/// Fills in the value of `key`. `${file:path}` is relative to `folder`; `hidden` takes what was found
/// where it may be a secret.
///
/// # Errors
/// What cannot be looked up, and what to do about it.
pub fn fill_text(
    key: &str,
    text: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
    hidden: &Hidden,
) -> Result<String, String> {
    let places = Places {
        folder,
        environment,
        hidden,
    };
    filled(text, &places, holds_secret(key), 0).map(|filled| filled.text)
}

fn filled(
    text: &str,
    places: &Places<'_>,
    is_secret: bool,
    depth: usize,
) -> Result<Filled, String> {
    let mut out = String::new();
    let mut found = vec![];
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            out.push_str(&rest[..at - 1]);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inside = &rest[at + 2..];
        let end = closing(inside).ok_or("a ${ is not closed by }; write $${ for a plain ${")?;
        // As in user:PASSWORD@host and ?sig=SIGNATURE.
        let is_secret =
            is_secret || out.ends_with([':', '=']) || inside[end + 1..].starts_with('@');
        let value = look_up(&inside[..end], places, is_secret, depth)?;
        if value.is_hidden {
            found.push((out.len(), out.len() + value.text.len()));
        }
        out.push_str(&value.text);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    for (start, end) in &found {
        let (start, end) = (*start, *end);
        let word = word_around(&out, start, end);
        if word.len() > end - start {
            places.hidden.note(word, "***");
        }
    }
    Ok(Filled {
        text: out,
        is_hidden: !found.is_empty(),
    })
}

/// The value at `start..end` of `text` with the letters before and behind it, whose part it is.
fn word_around(text: &str, start: usize, end: usize) -> &str {
    let part = |c: &char| c.is_alphanumeric() || *c == '_';
    let before = text[..start].chars().rev().take_while(part);
    let behind = text[end..].chars().take_while(part);
    let before: usize = before.map(char::len_utf8).sum();
    let behind: usize = behind.map(char::len_utf8).sum();
    &text[start - before..end + behind]
}

/// Where the `}` is that closes a reference, those of references within it left out.
fn closing(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let mut open = 0_usize;
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'{' if at > 0 && bytes[at - 1] == b'$' => open += 1,
            b'}' if open == 0 => return Some(at),
            b'}' => open -= 1,
            _ => {}
        }
    }
    None
}

fn look_up(
    reference: &str,
    places: &Places<'_>,
    is_secret: bool,
    depth: usize,
) -> Result<Filled, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        if depth == DEEPEST {
            return Err(too_deep());
        }
        let named = filled(path, places, is_secret, depth + 1)?.text;
        let named = places.folder.join(named);
        let text = read(&named).map_err(|e| format!("${{file:{path}}}: {e}"))?;
        let text = text.trim_end_matches(['\n', '\r']);
        places.hidden.note(text, &format!("${{file:{path}}}"));
        return Ok(Filled {
            text: text.to_owned(),
            is_hidden: true,
        });
    }
    let Some(name) = reference.strip_prefix("env:") else {
        // Not quoted: a password can stand there.
        return Err(
            "a ${...} is neither ${env:NAME} nor ${file:path}; write $${ for a plain \
                    ${"
            .to_owned(),
        );
    };
    let (name, default) = match name.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (name, None),
    };
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if !name.starts_with(first) || !name.chars().all(plain) {
        return Err(
            "the name in a ${env:NAME} is not one of letters, digits and _; a default stands \
             behind it as ${env:NAME:-default}"
                .to_owned(),
        );
    }
    let value = (places.environment)(name);
    match (value, default) {
        (Some(value), None) => Ok(found(value, name, places, is_secret)),
        (Some(value), Some(_)) if !value.is_empty() => Ok(found(value, name, places, is_secret)),
        (_, Some(_)) if depth == DEEPEST => Err(too_deep()),
        (_, Some(default)) => filled(default, places, is_secret, depth + 1),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
        )),
    }
}

fn too_deep() -> String {
    format!("references are nested more than {DEEPEST} deep")
}

/// The value of a variable, which is hidden unless it is plainly none: an ordinary word or a short
/// number, in a place and under a name that are not those of secrets. Messages are made of such words.
fn found(value: String, name: &str, places: &Places<'_>, is_secret: bool) -> Filled {
    let is_hidden = is_secret || shown::is_secret(name) || !is_ordinary(&value);
    if is_hidden {
        places.hidden.note(&value, &format!("${{env:{name}}}"));
    }
    Filled {
        text: value,
        is_hidden,
    }
}

fn is_ordinary(value: &str) -> bool {
    let is_word = value.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    is_word && value.len() < LONGEST_WORD || is_number && value.len() < LONGEST_NUMBER
}

/// The text of a regular file of bounded size: a device or a pipe would never end, or wait. What the
/// system shows of itself as files, such as the environment of this process, is no file of a user.
fn read(path: &Path) -> Result<String, String> {
    let path = path.canonicalize().map_err(|e| e.to_string())?;
    if let Some(system) = SYSTEM.iter().find(|system| path.starts_with(system)) {
        return Err(format!(
            "files of the system below {system} are not read; name a file on a disk"
        ));
    }
    let is_file = std::fs::metadata(&path)
        .map_err(|e| e.to_string())?
        .is_file();
    if !is_file {
        return Err("this is no regular file; name one".to_owned());
    }
    let file = std::fs::File::open(&path).map_err(|e| e.to_string())?;
    let mut bytes = vec![];
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!(
            "the file is larger than {MOST_BYTES} bytes, which no key or prompt is; name another"
        ));
    }
    String::from_utf8(bytes).map_err(|_| "the file is not text in UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<String, String> {
        let environment = |name: &str| match name {
            "A" => Some("x\"\n[models]".to_owned()),
            "EMPTY" => Some(String::new()),
            "REF" => Some("${env:A}".to_owned()),
            _ => None,
        };
        fill_text("x", text, Path::new(""), &environment, &Hidden::default())
    }

    #[test]
    fn values_are_filled_and_cannot_inject() {
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("$", "$"),
            ("a } b", "a } b"),
            ("a ${env:A} b", "a x\"\n[models] b"),
            ("${env:A}${env:A}", "x\"\n[models]x\"\n[models]"),
            ("$${env:A}", "${env:A}"),
            ("$$${env:A}", "$${env:A}"),
            ("x$${", "x${"),
            // A value is not looked at again.
            ("${env:REF}", "${env:A}"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn defaults_are_those_of_a_shell() {
        for (text, expected) in [
            ("${env:B:-c}", "c"),
            ("${env:B:-}", ""),
            ("${env:EMPTY}", ""),
            ("${env:EMPTY:-c}", "c"),
            ("${env:EMPTY:-}", ""),
            ("${env:REF:-c}", "${env:A}"),
            ("${env:B:-a:-b}", "a:-b"),
            ("${env:B:-${env:C:-d}}", "d"),
            ("<${env:B:-1${env:EMPTY:-2${env:C:-3}4}5}>", "<12345>"),
            ("${env:B:-${env:REF}}", "${env:A}"),
            // Not needed, so not looked up.
            ("${env:REF:-${env:UNSET}}", "${env:A}"),
            ("${env:B:-{}}", "{}"),
        ] {
            assert_eq!(fill(text).as_deref(), Ok(expected), "{text}");
        }
        let deep = |n: usize| "${env:B:-".repeat(n) + "x" + &"}".repeat(n);
        assert_eq!(fill(&deep(8)).as_deref(), Ok("x"));
        assert!(fill(&deep(9)).unwrap_err().contains("more than 8 deep"));
        assert!(fill(&deep(100_000)).is_err());
    }

    #[test]
    fn errors_name_the_variable_and_never_what_may_be_a_secret() {
        for (text, part) in [
            ("${env:B}", "variable B is not set"),
            ("${env:B:-${env:C}}", "variable C is not set"),
            ("${env:A", "not closed"),
            ("${env:B:-${env:A}", "not closed"),
            ("${hunter2}", "neither"),
            ("${}", "neither"),
            ("${ENV:A}", "neither"),
            ("${env:}", "letters, digits"),
            ("${env:hunter-2}", "letters, digits"),
            ("${env:2hunter}", "letters, digits"),
            ("${env:A:hunter2}", "letters, digits"),
            ("${env:A?hunter2}", "letters, digits"),
        ] {
            let error = fill(text).unwrap_err();
            assert!(
                error.contains(part) && !error.contains("hunter"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn what_was_found_is_hidden() {
        let hidden = Hidden::default();
        let environment = |name: &str| (name == "PW").then(|| "hunter2".to_owned());
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), "swordfish\n").unwrap();
        let fill = |text: &str| fill_text("x", text, dir.path(), &environment, &hidden).unwrap();
        assert_eq!(fill("${env:PW:-x}/${file:key}"), "hunter2/swordfish");
        assert_eq!(fill("${file:${env:NO:-key}}"), "swordfish");
        assert_eq!(fill("pre${env:PW}post"), "prehunter2post");
        assert_eq!(hidden.out_of("'prehunter2post'"), "'***'");
        assert_eq!(
            hidden.out_of("hunter2 and swordfish"),
            "${env:PW} and ${file:key}"
        );
    }

    /// What of `text`, the value of `key`, is hidden where a variable has `value`.
    fn hidden_of(key: &str, text: &str, value: &str) -> String {
        let hidden = Hidden::default();
        let environment = |name: &str| (name != "UNSET").then(|| value.to_owned());
        let filled = fill_text(key, text, Path::new(""), &environment, &hidden).unwrap();
        hidden.out_of(&format!(
            "it is true that <{value}> in <{filled}> is no main.csv"
        ))
    }

    #[test]
    fn ordinary_words_stay_readable_where_no_secret_stands() {
        for value in ["true", "main", "prod", "csv", "production", "8080", "7"] {
            for (key, text) in [
                ("tables.cases.location", "${env:X}"),
                ("tables.cases.location", "data/${env:X}/cases.csv"),
                ("tables.cases.location", "s3://${env:X}/x_${env:X}.csv"),
                ("tables.cases.options.csv.allow_ragged", "${env:X}"),
                ("connections.wh.database", "${env:UNSET:-${env:X}}"),
                ("connections.wh.key_pair.private_key_path", "${env:X}"),
                ("location", "${env:X}"),
            ] {
                let shown = hidden_of(key, text, value);
                let whole = text.replace("${env:UNSET:-${env:X}}", "${env:X}");
                let whole = whole.replace("${env:X}", value);
                let expected = format!("it is true that <{value}> in <{whole}> is no main.csv");
                assert_eq!(shown, expected, "{key} {text}");
            }
        }
    }

    #[test]
    fn what_may_be_a_secret_is_hidden_whatever_it_looks_like() {
        for (key, text) in [
            ("connections.wh.password", "${env:X}"),
            ("connections.wh.snowflake.password", "${env:X}"),
            ("connections.dbx.token", "${env:UNSET:-${env:X}}"),
            ("connections.db.connection_string", "Driver=x;PWD=${env:X}"),
            ("tables.t.options.aws.secret_access_key", "${env:X}"),
            ("tables.t.options.…", "${env:X}"),
            ("aws.secret_access_key", "${env:X}"),
            ("tables.t.location", "https://me:${env:X}@host/x"),
            ("tables.t.location", "https://${env:X}@host/x"),
            ("tables.t.location", "https://host/x?sig=${env:X}"),
            ("tables.t.location", "${env:DB_PASSWORD}"),
        ] {
            for value in ["main", "hunter", "swordfish", "12345"] {
                let shown = hidden_of(key, text, value);
                assert!(
                    !shown.contains(&format!("<{value}>")),
                    "{key} {text}: {shown}"
                );
            }
        }
        // Where no secret is expected, everything that is no ordinary word.
        for value in [
            "hunter2",
            "Hunter",
            "correcthorses",
            "123456",
            "kX9+aa/bbb",
            "a b c d",
            "näher",
            "a-b-c",
        ] {
            let shown = hidden_of("tables.t.location", "${env:X}", value);
            assert!(!shown.contains(&format!("<{value}>")), "{value}: {shown}");
        }
    }

    #[test]
    fn only_files_of_a_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let fill = |path: &str| {
            let text = format!("${{file:{path}}}");
            fill_text("x", &text, dir.path(), &|_| None, &Hidden::default())
        };
        write("fits", &vec![b'x'; 1 << 20]);
        write("large", &vec![b'x'; (1 << 20) + 1]);
        write("binary", b"\xff");
        write("lines", b"a\n\nb\r\n\n");
        write("empty", b"");
        assert_eq!(fill("fits").unwrap().len(), 1 << 20);
        assert_eq!(fill("lines").unwrap(), "a\n\nb");
        assert_eq!(fill("empty").unwrap(), "");
        for (path, part) in [
            ("large", "larger than 1048576 bytes"),
            ("binary", "UTF-8"),
            (".", "no regular file"),
            ("/dev/zero", "below /dev are not read"),
            ("/proc/self/environ", "below /proc are not read"),
            ("/proc/../proc/self/cmdline", "below /proc are not read"),
            ("/sys", "below /sys are not read"),
            ("nowhere", "No such file"),
        ] {
            let error = fill(path).unwrap_err();
            assert!(error.contains(part) && error.contains(path), "{error}");
        }
        #[cfg(unix)]
        {
            // A secret that an orchestrator mounts is a link to a file.
            std::os::unix::fs::symlink(dir.path().join("lines"), dir.path().join("link")).unwrap();
            assert_eq!(fill("link").unwrap(), "a\n\nb");
            std::os::unix::fs::symlink("/proc/self/environ", dir.path().join("own")).unwrap();
            assert!(fill("own").unwrap_err().contains("below /proc"));
        }
    }
}
