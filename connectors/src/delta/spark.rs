//! A condition of a Delta table, which Spark wrote and has the last word on, in SQL that means the same
//! here.
//!
//! Names are found whatever their case, functions of Spark are those of the library that give the same
//! (or ours), number and text literals are what Spark takes them for. What is not known to be the same is
//! refused with the list of what is: to take a row that Spark would not is worse than to refuse one.
//! What is the same only for some types is for `meaning` to look at.
//!
//! <https://spark.apache.org/docs/latest/api/sql/>

use std::ops::ControlFlow;

use datafusion::arrow::datatypes::Schema;
use datafusion::sql::sqlparser::ast::{BinaryOperator, CastKind, CeilFloorKind};
use datafusion::sql::sqlparser::ast::{
    DateTimeField, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident,
    ObjectNamePart, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::java_regex;

/// Functions with the numbers of their arguments, and what they are in the library's words: `{0}` is
/// the first argument, `{..}` all of them; none stands there twice, or a condition of
/// nested calls would double at each. Differences to mind: a text counts in characters; nulls make
/// `concat` null and are left out by `concat_ws`; a null list has no size (null, as in Spark's ANSI mode);
/// `substring` begins at 1, takes 0 for 1 and counts from the end below that.
const CALLS: &[(&str, std::ops::RangeInclusive<usize>, &str)] = &[
    ("abs", 1..=1, "abs({0})"),
    ("array_element", 2..=2, "array_element({..})"),
    ("array_has", 2..=2, "array_has({..})"),
    ("array_length", 1..=1, "array_length({0})"),
    ("bit_length", 1..=1, "bit_length({0})"),
    ("btrim", 1..=1, "btrim({0})"),
    ("cardinality", 1..=1, "cardinality({0})"),
    ("ceil", 1..=1, "ceil({0})"),
    ("ceiling", 1..=1, "ceil({0})"),
    ("char_length", 1..=1, "character_length({0})"),
    ("character_length", 1..=1, "character_length({0})"),
    ("coalesce", 1..=64, "spark_coalesce({..})"),
    ("concat", 1..=64, "({||})"),
    ("concat_ws", 1..=64, "concat_ws({..})"),
    ("contains", 2..=2, "contains({..})"),
    ("current_date", 0..=0, "spark_today()"),
    ("current_timestamp", 0..=0, "spark_now()"),
    ("date_add", 2..=2, "spark_date_add(CAST({0} AS DATE), {1})"),
    (
        "date_diff",
        2..=2,
        "spark_date_diff(CAST({0} AS DATE), CAST({1} AS DATE))",
    ),
    ("date_part", 2..=2, "date_part({..})"),
    ("date_sub", 2..=2, "spark_date_add(CAST({0} AS DATE), -{1})"),
    ("date_trunc", 2..=2, "date_trunc({..})"),
    (
        "datediff",
        2..=2,
        "spark_date_diff(CAST({0} AS DATE), CAST({1} AS DATE))",
    ),
    ("day", 1..=1, "date_part('day', {0})"),
    ("dayofmonth", 1..=1, "date_part('day', {0})"),
    ("dayofyear", 1..=1, "date_part('doy', {0})"),
    ("digest", 2..=2, "digest({..})"),
    ("ends_with", 2..=2, "ends_with({..})"),
    ("endswith", 2..=2, "ends_with({..})"),
    ("floor", 1..=1, "floor({0})"),
    ("get_field", 2..=2, "get_field({..})"),
    ("greatest", 2..=64, "greatest({..})"),
    ("hour", 1..=1, "date_part('hour', {0})"),
    ("if", 3..=3, "(CASE WHEN {0} THEN {1} ELSE {2} END)"),
    ("ifnull", 2..=2, "spark_coalesce({..})"),
    ("instr", 2..=2, "strpos({0}, {1})"),
    ("isnan", 1..=1, "spark_isnan({0})"),
    ("isnotnull", 1..=1, "({0} IS NOT NULL)"),
    ("isnull", 1..=1, "({0} IS NULL)"),
    ("iszero", 1..=1, "iszero({0})"),
    ("lcase", 1..=1, "lower({0})"),
    ("least", 2..=64, "least({..})"),
    ("left", 2..=2, "spark_substring({0}, 1, {1})"),
    ("len", 1..=1, "character_length({0})"),
    ("length", 1..=1, "character_length({0})"),
    ("locate", 2..=2, "strpos({1}, {0})"),
    ("lower", 1..=1, "lower({0})"),
    ("ltrim", 1..=1, "ltrim({0})"),
    ("md5", 1..=1, "md5({0})"),
    ("minute", 1..=1, "date_part('minute', {0})"),
    ("mod", 2..=2, "({0} % {1})"),
    ("month", 1..=1, "date_part('month', {0})"),
    ("nanvl", 2..=2, "nanvl({..})"),
    ("now", 0..=0, "spark_now()"),
    ("nullif", 2..=2, "nullif({..})"),
    ("nvl", 2..=2, "spark_coalesce({..})"),
    (
        "nvl2",
        3..=3,
        "(CASE WHEN {0} IS NOT NULL THEN {1} ELSE {2} END)",
    ),
    ("octet_length", 1..=1, "octet_length({0})"),
    (
        "pow",
        2..=2,
        "power(CAST({0} AS DOUBLE), CAST({1} AS DOUBLE))",
    ),
    (
        "power",
        2..=2,
        "power(CAST({0} AS DOUBLE), CAST({1} AS DOUBLE))",
    ),
    ("quarter", 1..=1, "date_part('quarter', {0})"),
    ("regexp", 2..=2, "{~}"),
    ("regexp_like", 2..=2, "{~}"),
    ("reverse", 1..=1, "reverse({0})"),
    ("right", 2..=2, "spark_right({0}, {1})"),
    ("rlike", 2..=2, "{~}"),
    ("round", 1..=1, "round({0})"),
    ("rtrim", 1..=1, "rtrim({0})"),
    ("sha224", 1..=1, "sha224({0})"),
    ("sha256", 1..=1, "sha256({0})"),
    ("sha384", 1..=1, "sha384({0})"),
    ("sha512", 1..=1, "sha512({0})"),
    ("sign", 1..=1, "signum({0})"),
    ("signum", 1..=1, "signum({0})"),
    ("size", 1..=1, "cardinality({0})"),
    ("split_part", 3..=3, "split_part({..})"),
    ("sqrt", 1..=1, "sqrt(CAST({0} AS DOUBLE))"),
    ("starts_with", 2..=2, "starts_with({..})"),
    ("startswith", 2..=2, "starts_with({..})"),
    ("strpos", 2..=2, "strpos({..})"),
    ("substr", 2..=3, "spark_substring({..})"),
    ("substring", 2..=3, "spark_substring({..})"),
    ("to_date", 1..=1, "to_date({0})"),
    ("to_timestamp", 1..=1, "to_timestamp({0})"),
    ("to_timestamp_micros", 1..=1, "to_timestamp_micros({0})"),
    ("to_timestamp_millis", 1..=1, "to_timestamp_millis({0})"),
    ("to_timestamp_seconds", 1..=1, "to_timestamp_seconds({0})"),
    ("to_unixtime", 1..=1, "to_unixtime({0})"),
    ("translate", 3..=3, "translate({..})"),
    ("trim", 1..=1, "btrim({0})"),
    ("trunc", 1..=2, "trunc({..})"),
    ("ucase", 1..=1, "upper({0})"),
    ("upper", 1..=1, "upper({0})"),
    ("weekofyear", 1..=1, "date_part('week', {0})"),
    ("year", 1..=1, "date_part('year', {0})"),
];

/// What `date_part` and EXTRACT may ask for: days of a week are numbered in another way here.
const PARTS: &[&str] = &[
    "year", "quarter", "month", "week", "day", "doy", "hour", "minute",
];

/// Digits of a DECIMAL.
const MAX_DIGITS: usize = 38;

/// What is understood, for errors.
pub(super) fn understood() -> String {
    let names: Vec<&str> = CALLS.iter().map(|(name, _, _)| *name).collect();
    names.join(", ")
}

/// `sql`, a condition over `columns`, in the library's words.
///
/// # Errors
/// The part of it that is not known to mean the same.
pub(super) fn translated(sql: &str, columns: &Schema) -> Result<String, String> {
    let mut expr = parsed(sql)?;
    match expr.visit(&mut Translation { columns }) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(expr.to_string()),
    }
}

fn parsed(sql: &str) -> Result<Expr, String> {
    let parser = Parser::new(&GenericDialect {}).try_with_sql(sql);
    let mut parser = parser.map_err(|e| e.to_string())?;
    let expr = parser.parse_expr().map_err(|e| e.to_string())?;
    match parser.peek_token().token {
        datafusion::sql::sqlparser::tokenizer::Token::EOF => Ok(expr),
        more => Err(format!("it does not end before {more}")),
    }
}

struct Translation<'a> {
    columns: &'a Schema,
}

impl VisitorMut for Translation<'_> {
    type Break = String;

    // Arguments come before the calls that they are in.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<String> {
        match self.one(expr) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(other)) => {
                *expr = other;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}

impl Translation<'_> {
    fn one(&self, expr: &mut Expr) -> Result<Option<Expr>, String> {
        let sql = match expr {
            Expr::Identifier(name) => return self.name(name),
            Expr::CompoundIdentifier(names) => {
                let Some(first) = names.first_mut() else {
                    return Ok(None);
                };
                if let Some(Expr::Identifier(found)) = self.name(first)? {
                    *first = found;
                }
                return Ok(None);
            }
            Expr::Value(value) => return literal(&value.value),
            Expr::Function(call) => called(call)?,
            Expr::RLike {
                negated,
                expr,
                pattern,
                ..
            } => {
                let not = if *negated { "NOT " } else { "" };
                format!("({not}{})", matched(expr, pattern)?)
            }
            Expr::BinaryOp {
                left,
                op: BinaryOperator::Spaceship,
                right,
            } => {
                format!("(({left}) IS NOT DISTINCT FROM ({right}))")
            }
            Expr::Substring {
                expr,
                substring_from: Some(from),
                substring_for,
                ..
            } => match substring_for {
                Some(length) => format!("spark_substring({expr}, {from}, {length})"),
                None => format!("spark_substring({expr}, {from})"),
            },
            Expr::Substring { .. } => return Err("calls substring without a position".into()),
            Expr::Trim {
                trim_characters: Some(_),
                ..
            } => {
                return Err("calls trim with a second argument".into());
            }
            Expr::Extract { field, .. } => {
                let known = match field {
                    DateTimeField::Year
                    | DateTimeField::Quarter
                    | DateTimeField::Month
                    | DateTimeField::Day
                    | DateTimeField::Doy
                    | DateTimeField::Hour
                    | DateTimeField::Minute => true,
                    DateTimeField::Week(day) => day.is_none(),
                    _ => false,
                };
                return match known {
                    true => Ok(None),
                    false => Err(format!("extracts {field}")),
                };
            }
            Expr::Ceil { field, .. } | Expr::Floor { field, .. } => {
                return match field {
                    CeilFloorKind::DateTimeField(DateTimeField::NoDateTime) => Ok(None),
                    _ => Err("rounds to digits".into()),
                };
            }
            Expr::Cast {
                kind: CastKind::Cast | CastKind::DoubleColon,
                format: None,
                ..
            } => {
                return Ok(None);
            }
            Expr::Cast { kind, .. } => return Err(format!("has a cast of the kind {kind:?}")),
            Expr::Like {
                any: false,
                escape_char: None,
                ..
            } => return Ok(None),
            Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => {
                return Err("has a LIKE of another kind".into());
            }
            _ => return Ok(None),
        };
        parsed(&sql).map(Some)
    }

    /// A column under the name that the table has for it; a text in double quotes, which is no name.
    fn name(&self, name: &Ident) -> Result<Option<Expr>, String> {
        let fields = self.columns.fields().iter();
        let same = |f: &str| f.to_lowercase() == name.value.to_lowercase();
        let mut like: Vec<&str> = fields
            .map(|f| f.name().as_str())
            .filter(|f| same(f))
            .collect();
        if like.contains(&name.value.as_str()) {
            like = vec![&name.value];
        }
        match (&like[..], name.quote_style) {
            ([], Some('"')) => {
                literal(&Value::SingleQuotedString(name.value.clone())).map(|text| {
                    let own = Value::SingleQuotedString(name.value.clone());
                    Some(text.unwrap_or(Expr::Value(own.into())))
                })
            }
            ([], _) => Ok(None), // the planner names the columns that there are
            (_, Some('"')) => Err(format!(
                "has {name} in double quotes, which is a text in Spark and a column elsewhere"
            )),
            ([own], _) => Ok(Some(Expr::Identifier(Ident::with_quote('"', *own)))),
            (several, _) => Err(format!("has {name}, which may be {}", several.join(" or "))),
        }
    }
}

/// Digits with a point are a DECIMAL, with an exponent a DOUBLE; a backslash in a text is an escape.
fn literal(value: &Value) -> Result<Option<Expr>, String> {
    match value {
        Value::Number(digits, _) => {
            let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            if !plain || digits.parse::<i64>().is_ok() {
                return Ok(None);
            }
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            let whole = whole.trim_start_matches('0').len();
            let all = (whole + fraction.len()).max(1);
            if all > MAX_DIGITS {
                return Err(format!("has a number of more than {MAX_DIGITS} digits"));
            }
            let scale = fraction.len();
            parsed(&format!("CAST('{digits}' AS DECIMAL({all}, {scale}))")).map(Some)
        }
        Value::SingleQuotedString(text) if text.contains('\\') => {
            let mut plain = String::new();
            let mut rest = text.chars();
            while let Some(c) = rest.next() {
                if c == '\\' && rest.next() != Some('\\') {
                    return Err("has an escape with a backslash other than \\\\".into());
                }
                plain.push(c);
            }
            Ok(Some(Expr::Value(Value::SingleQuotedString(plain).into())))
        }
        Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(None),
        other => Err(format!("has {other}")),
    }
}

/// A call in the library's words.
fn called(call: &Function) -> Result<String, String> {
    let named = call.name.to_string();
    let name = match &call.name.0[..] {
        [ObjectNamePart::Identifier(name)] => name.value.to_lowercase(),
        _ => return Err(unknown(&named)),
    };
    let Some((_, count, words)) = CALLS.iter().find(|(known, _, _)| *known == name) else {
        return Err(unknown(&named));
    };
    let plain = call.filter.is_none()
        && call.over.is_none()
        && call.null_treatment.is_none()
        && call.within_group.is_empty()
        && call.parameters == FunctionArguments::None;
    let given = match &call.args {
        FunctionArguments::None => vec![],
        FunctionArguments::List(list)
            if plain && list.clauses.is_empty() && list.duplicate_treatment.is_none() =>
        {
            let args = list.args.iter().map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
                _ => Err(format!("calls {named} with arguments of another kind")),
            });
            args.collect::<Result<Vec<_>, _>>()?
        }
        _ => return Err(format!("calls {named} with arguments of another kind")),
    };
    if !count.contains(&given.len()) {
        return Err(format!("calls {named} with {} arguments", given.len()));
    }
    if name == "date_part" && !is_part(given[0]) {
        return Err(format!(
            "asks date_part for other than {}",
            PARTS.join(", ")
        ));
    }
    if *words == "{~}" {
        return matched(given[0], given[1]);
    }
    Ok(filled(words, &given))
}

/// `words` with the arguments `given` in their places.
fn filled(words: &str, given: &[&Expr]) -> String {
    let shown: Vec<String> = given.iter().map(|arg| format!("({arg})")).collect();
    let mut out = String::new();
    let mut rest = words;
    while let Some((before, after)) = rest.split_once('{') {
        let (mark, after) = after.split_once('}').unwrap_or((after, ""));
        out.push_str(before);
        out.push_str(&match mark {
            ".." => shown.join(", "),
            "||" => shown.join(" || "),
            at => at
                .parse()
                .ok()
                .and_then(|at: usize| shown.get(at).cloned())
                .unwrap_or_default(),
        });
        rest = after;
    }
    out + rest
}

fn unknown(name: &str) -> String {
    format!("calls {name}")
}

/// That `pattern` is found in `expr`.
fn matched(expr: &Expr, pattern: &Expr) -> Result<String, String> {
    let Some(java) = text(pattern) else {
        return Err("matches a pattern that is no text literal".into());
    };
    let pattern = java_regex::translated(java)
        .map_err(|part| format!("matches a pattern that may mean something else here ({part})"))?;
    let pattern = Value::SingleQuotedString(pattern);
    Ok(format!("regexp_like({expr}, {pattern})"))
}

fn is_part(expr: &Expr) -> bool {
    text(expr).is_some_and(|part| PARTS.iter().any(|known| known.eq_ignore_ascii_case(part)))
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}
