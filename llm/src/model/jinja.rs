//! How a chat template is rendered: as transformers renders it, with bounded work and memory.
//!
//! Reference: `utils/chat_template_utils.py` of transformers 5. There Jinja's environment has
//! `trim_blocks` and `lstrip_blocks`, loop controls, a `tojson` that does not escape for HTML,
//! `raise_exception`, `strftime_now`, and a `generation` block that prints its content. A template
//! is code from outside: it gets so much fuel and no more.

use chrono::format::{Item, StrftimeItems};
use chrono::{NaiveDate, NaiveTime};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::tokenizer_file::token_text;

/// What one rendering may cost: an instruction is one, and so are 64 bytes of text or list. The
/// longest published templates take a few thousand.
const FUEL: u64 = 1_000_000;
/// Calls of macros within each other: each takes some kilobytes of stack.
const MOST_NESTED_CALLS: usize = 64;
/// Templates larger than this are no chat templates.
const MOST_SOURCE_BYTES: usize = 1 << 20;
/// Bytes of what a template may write, and of what `tojson` may make of a value.
const MOST_OUTPUT_BYTES: usize = 1 << 20;
/// Bytes of a format of `strftime_now`.
const MOST_FORMAT_BYTES: usize = 256;

/// The names under which transformers gives a template the tokenizer's special tokens.
const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// A compiled template with what does not change between renderings.
#[derive(Debug)]
pub(super) struct Renderer {
    environment: Environment<'static>,
    tokens: Vec<(&'static str, String)>,
    enable_thinking: bool,
}

/// A message of a conversation.
pub(super) fn message(role: &str, content: &str) -> Value {
    Value::from_pairs([("role", role), ("content", content)])
}

/// A message for templates that know contents in parts alone.
pub(super) fn message_in_parts(role: &str, content: &str) -> Value {
    let part = Value::from_pairs([("type", "text"), ("text", content)]);
    Value::from_pairs([("role", role.into()), ("content", Value::from(vec![part]))])
}

impl Renderer {
    /// Compiles `source`; `settings` is tokenizer_config.json, `date` is what `strftime_now` says.
    pub(super) fn new(
        source: &str,
        settings: &serde_json::Value,
        date: NaiveDate,
        enable_thinking: bool,
    ) -> Result<Self, Error> {
        if source.len() > MOST_SOURCE_BYTES {
            let what = format!("it has more than {MOST_SOURCE_BYTES} bytes");
            return Err(Error::new(ErrorKind::SyntaxError, what));
        }
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MOST_NESTED_CALLS);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?;
        environment.set_syntax(syntax);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| {
            Err::<Value, _>(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", move |format: &str| strftime(date, format));
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned("chat", without_generation_blocks(&with_plain_lines(source)))?;
        let tokens = TOKENS.into_iter();
        let tokens = tokens.filter_map(|key| Some((key, token_text(settings, key)?)));
        Ok(Self {
            environment,
            tokens: tokens.collect(),
            enable_thinking,
        })
    }

    /// The text of a conversation; `reply` adds the start of the assistant's.
    pub(super) fn render(&self, messages: Vec<Value>, reply: bool) -> Result<String, Error> {
        let tokens = self.tokens.iter();
        let mut context: Vec<(&str, Value)> = tokens
            .map(|(key, token)| (*key, token.as_str().into()))
            .collect();
        context.extend([
            ("messages", Value::from(messages)),
            ("tools", ().into()),
            ("documents", ().into()),
            ("add_generation_prompt", reply.into()),
            ("enable_thinking", self.enable_thinking.into()),
        ]);
        let template = self.environment.get_template("chat")?;
        let text = template.render(Value::from_pairs(context))?;
        match text.len() > MOST_OUTPUT_BYTES {
            true => Err(too_much("the template writes")),
            false => Ok(text),
        }
    }
}

fn too_much(what: &str) -> Error {
    let what = format!("{what} more than {MOST_OUTPUT_BYTES} bytes");
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Jinja reads every line end as a newline, those within texts of the template too.
fn with_plain_lines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// transformers' `{% generation %}` marks what a reply is; it prints nothing itself. A block that
/// always holds takes its place, so that whitespace control keeps its meaning.
fn without_generation_blocks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end + 2);
        match tag[2..end].trim_matches(['-', '+', ' ', '\t', '\n']) {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Python's `strftime` at midnight of `date`.
fn strftime(date: NaiveDate, format: &str) -> Result<String, Error> {
    let wrong = |what: String| Err(Error::new(ErrorKind::InvalidOperation, what));
    if format.len() > MOST_FORMAT_BYTES {
        return wrong(format!(
            "strftime_now has a format of {} bytes",
            format.len()
        ));
    }
    let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
    let mut text = String::new();
    let time = date.and_time(NaiveTime::MIN);
    let written = std::fmt::Write::write_fmt(
        &mut text,
        format_args!("{}", time.format_with_items(items.iter())),
    );
    match items.contains(&Item::Error) || written.is_err() {
        true => wrong(format!(
            "strftime_now does not know the format \"{format}\""
        )),
        false => Ok(text),
    }
}

/// Python's `json.dumps` as transformers calls it: nothing is escaped for HTML, non-ASCII letters
/// stay unless asked for, separators are followed by a blank.
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<(String, String)> = match options.get::<Option<Value>>("separators")? {
        None => None,
        Some(pair) => Some((
            pair.get_item_by_index(0)?.to_string(),
            pair.get_item_by_index(1)?.to_string(),
        )),
    };
    let plain = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (plain.into(), ": ".into()));
    let mut json = Json {
        out: String::new(),
        indent,
        item,
        key,
        ascii: options
            .get::<Option<bool>>("ensure_ascii")?
            .unwrap_or(false),
        sorted: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    json.value(value, 0)?;
    Ok(Value::from_safe_string(json.out))
}

/// A JSON text as it grows.
struct Json {
    out: String,
    indent: Option<usize>,
    item: String,
    key: String,
    ascii: bool,
    sorted: bool,
}

impl Json {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MOST_NESTED_CALLS {
            return Err(Error::new(
                ErrorKind::BadSerialization,
                "the value is nested too deeply",
            ));
        }
        match value.kind() {
            ValueKind::None => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut first = true;
                self.push("[")?;
                for item in value.try_iter()? {
                    self.separate(&mut first, depth)?;
                    self.value(&item, depth + 1)?;
                }
                self.close(first, depth, "]")
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sorted {
                    keys.sort();
                }
                let mut first = true;
                self.push("{")?;
                for key in keys {
                    self.separate(&mut first, depth)?;
                    self.string(&key.to_string())?;
                    self.push(&self.key.clone())?;
                    self.value(&value.get_item(&key)?, depth + 1)?;
                }
                self.close(first, depth, "}")
            }
            kind => Err(Error::new(
                ErrorKind::BadSerialization,
                format!("tojson cannot write a value of the kind {kind}"),
            )),
        }
    }

    fn push(&mut self, text: &str) -> Result<(), Error> {
        self.out.push_str(text);
        match self.out.len() > MOST_OUTPUT_BYTES {
            true => Err(too_much("tojson makes")),
            false => Ok(()),
        }
    }

    fn separate(&mut self, first: &mut bool, depth: usize) -> Result<(), Error> {
        if !std::mem::take(first) {
            self.push(&self.item.clone())?;
        }
        self.new_line(depth + 1)
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: &str) -> Result<(), Error> {
        if !empty {
            self.new_line(depth)?;
        }
        self.push(bracket)
    }

    fn new_line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = self.indent else {
            return Ok(());
        };
        let width = indent.saturating_mul(depth);
        if width > MOST_OUTPUT_BYTES {
            return Err(too_much("tojson makes"));
        }
        self.push("\n")?;
        self.push(&" ".repeat(width))
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.push("\"")?;
        for letter in text.chars() {
            let escape = match letter {
                '"' => "\\\"",
                '\\' => "\\\\",
                '\n' => "\\n",
                '\r' => "\\r",
                '\t' => "\\t",
                '\u{8}' => "\\b",
                '\u{c}' => "\\f",
                _ if letter < ' ' || (self.ascii && !letter.is_ascii()) => {
                    let mut units = [0; 2];
                    for unit in letter.encode_utf16(&mut units) {
                        self.push(&format!("\\u{unit:04x}"))?;
                    }
                    continue;
                }
                _ => {
                    self.push(letter.encode_utf8(&mut [0; 4]))?;
                    continue;
                }
            };
            self.push(escape)?;
        }
        self.push("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DATE: NaiveDate = match NaiveDate::from_ymd_opt(2024, 7, 26) {
        Some(date) => date,
        None => NaiveDate::MIN,
    };

    fn render(source: &str) -> Result<String, Error> {
        let settings = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
        let messages = vec![message("user", "Who \"won\" the caf\u{e9}?\u{1}\u{1f642}")];
        Renderer::new(source, &settings, DATE, false)?.render(messages, true)
    }

    fn check(source: &str, expected: &str) {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }

    // Expected values: Python 3.11 and transformers 5.24 with a clock at 2024-07-26.
    #[test]
    fn json_is_python_s() {
        check(
            "{{ messages[0] | tojson }}",
            r#"{"role": "user", "content": "Who \"won\" the café?\u0001🙂"}"#,
        );
        check(
            "{{ messages | tojson(ensure_ascii=true) }}",
            r#"[{"role": "user", "content": "Who \"won\" the caf\u00e9?\u0001\ud83d\ude42"}]"#,
        );
        check(
            "{{ {'b': [1, 2.5, none], 'a': {}} | tojson(indent=2) }}",
            "{\n  \"b\": [\n    1,\n    2.5,\n    null\n  ],\n  \"a\": {}\n}",
        );
        check(
            "{{ {'b': [], 'a': true} | tojson(sort_keys=true, separators=(',', ':')) }}",
            r#"{"a":true,"b":[]}"#,
        );
        check("{{ '<b>&' | tojson }}", "\"<b>&\"");
        assert!(render("{{ missing | tojson }}").is_err());
        assert!(render("{{ 1 | tojson(intent=2) }}").is_err());
    }

    #[test]
    fn the_clock_stands_still() {
        check("{{ strftime_now('%d %b %Y') }}", "26 Jul 2024");
        check(
            "{{ strftime_now('%Y-%m-%d %H:%M:%S, %A %j') }}",
            "2024-07-26 00:00:00, Friday 208",
        );
        check("{{ strftime_now('%-d %B %y %%') }}", "26 July 24 %");
        let error = render("{{ strftime_now('%Q') }}").unwrap_err().to_string();
        assert!(error.contains("%Q"), "{error}");
        assert!(render("{{ strftime_now('%c' * 1000) }}").is_err());
    }

    #[test]
    fn lines_end_as_jinja_s_do() {
        let source = "{{ bos_token }}\n{% if true %}\na\n{% endif %}\nb\n\n";
        for ends in ["\r\n", "\r", "\n"] {
            check(&source.replace('\n', ends), "<s>\na\nb\n");
        }
        check("{{ 'a\r\nb' }}", "a\nb");
        check("{{ 'a\\r\\nb' }}", "a\r\nb");
    }

    #[test]
    fn tokens_that_a_model_lacks_are_undefined() {
        let source = "{{ eos_token }}{% if sep_token is defined %}x{% endif %}{{ pad_token }}.";
        check(source, "</s>.");
    }

    #[test]
    fn work_and_memory_are_bounded() {
        for source in [
            "{% for a in range(10000) %}{% for b in range(10000) %}{% endfor %}{% endfor %}",
            "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
            "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
            "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x.replace('a', n.x) %}{% endfor %}",
            "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x | replace('a', n.x) %}{% endfor %}",
            "{% set n = namespace(x='ab') %}{% for a in range(60) %}{% set n.x = n.x.join(n.x) %}{% endfor %}",
            "{% set n = namespace(x=[1]) %}{% for a in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
            "{{ 'x' * 100000000000 }}",
            "{{ '%100000000000d' | format(1) }}",
            "{{ [[1]] | tojson(indent=10000000) }}",
            "{{ 'x' * 3000000 }}",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% for a in range(100000) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% endfor %}",
        ] {
            // a thread with the stack that the program's threads have
            let source = source.to_string();
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let run = move || (render(&source).is_err(), source);
            let (refused, source) = thread.spawn(run).unwrap().join().unwrap();
            assert!(refused, "{source}");
        }
        let large = format!("{{# {} #}}", "x".repeat(MOST_SOURCE_BYTES));
        assert!(render(&large).is_err());
    }
}
