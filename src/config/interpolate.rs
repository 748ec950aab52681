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
            *text = filled(text, places, 0)
                .map_err(|what| Fault::new(node.line, format!("{key}: {what}")))?;
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

/// Fills in one value. `${file:path}` is relative to `folder`; `hidden` takes what was found.
///
/// # Errors
/// What cannot be looked up, and what to do about it.
pub fn fill_text(
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
    filled(text, &places, 0)
}

fn filled(text: &str, places: &Places<'_>, depth: usize) -> Result<String, String> {
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
        let value = look_up(&inside[..end], places, depth)?;
        found.push((out.len(), out.len() + value.len()));
        out.push_str(&value);
        rest = &inside[end + 1..];
    }
    out.push_str(rest);
    for (start, end) in found {
        let word = word_around(&out, start, end);
        if word.len() > end - start {
            places.hidden.note(word, "***");
        }
    }
    Ok(out)
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

fn look_up(reference: &str, places: &Places<'_>, depth: usize) -> Result<String, String> {
    if let Some(path) = reference.strip_prefix("file:") {
        if depth == DEEPEST {
            return Err(too_deep());
        }
        let named = places.folder.join(filled(path, places, depth + 1)?);
        let text = read(&named).map_err(|e| format!("${{file:{path}}}: {e}"))?;
        let text = text.trim_end_matches(['\n', '\r']);
        places.hidden.note(text, &format!("${{file:{path}}}"));
        return Ok(text.to_owned());
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
        (Some(value), None) => Ok(found(value, name, places)),
        (Some(value), Some(_)) if !value.is_empty() => Ok(found(value, name, places)),
        (_, Some(_)) if depth == DEEPEST => Err(too_deep()),
        (_, Some(default)) => filled(default, places, depth + 1),
        (None, None) => Err(format!(
            "the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
        )),
    }
}

fn too_deep() -> String {
    format!("references are nested more than {DEEPEST} deep")
}

fn found(value: String, name: &str, places: &Places<'_>) -> String {
    places.hidden.note(&value, &format!("${{env:{name}}}"));
    value
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
        fill_text(text, Path::new(""), &environment, &Hidden::default())
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
        let fill = |text: &str| fill_text(text, dir.path(), &environment, &hidden).unwrap();
        assert_eq!(fill("${env:PW:-x}/${file:key}"), "hunter2/swordfish");
        assert_eq!(fill("${file:${env:NO:-key}}"), "swordfish");
        assert_eq!(fill("pre${env:PW}post"), "prehunter2post");
        assert_eq!(hidden.out_of("'prehunter2post'"), "'***'");
        assert_eq!(
            hidden.out_of("hunter2 and swordfish"),
            "${env:PW} and ${file:key}"
        );
    }

    #[test]
    fn only_files_of_a_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        let fill = |path: &str| {
            let text = format!("${{file:{path}}}");
            fill_text(&text, dir.path(), &|_| None, &Hidden::default())
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
