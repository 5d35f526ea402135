//! Conditions in the Common Expression Language.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, anyhow, ensure};
use cel::common::ast::{EntryExpr, Expr, IdedEntryExpr};
use cel::objects::{Key, Map};
use cel::{Context, Env, IdedExpr, Program, Value};

use crate::model::Identity;

/// The longest expression, in bytes: the parser's time and memory grow with the text.
const MAX_BYTES: usize = 1024;

/// The deepest nesting of brackets and operators: the parser is recursive.
const MAX_DEPTH: usize = 24;

/// The stack of the thread that parses, in bytes.
const PARSER_STACK: usize = 64 * 1024 * 1024;

/// A condition, compiled.
#[derive(Clone)]
pub struct Expression {
    text: String,
    program: Arc<Program>,
    env: Arc<Env>,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Compiles an operator's text. `variables` are those that it may use.
    ///
    /// # Errors
    /// Where the text is too long or nested too deeply, is not an expression, uses another variable, or has a loop within
    /// a loop, whose time would not be bounded.
    pub fn compile(text: &str, variables: &[&str]) -> anyhow::Result<Self> {
        ensure!(!text.trim().is_empty(), "the expression is empty");
        ensure!(text.len() <= MAX_BYTES, "the expression is {} bytes long, and may be {MAX_BYTES}", text.len());
        check_depth(text)?;
        let env = Arc::new(Env::stdlib());
        let program = parse(text, env.clone())?;
        check(program.expression(), &mut variables.to_vec(), false)
            .map_err(|wrong| anyhow!("the expression {text:?} {wrong}; its variables are {}", variables.join(", ")))?;
        Ok(Self { text: text.to_owned(), program: Arc::new(program), env })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Evaluates the condition.
    ///
    /// # Errors
    /// Where the evaluation fails, such as for a claim that the identity lacks, or the result is not true or false.
    pub fn evaluate(&self, variables: &[(&str, Value)]) -> Result<bool, String> {
        let mut context = Context::with_env(self.env.clone());
        for (name, value) in variables {
            context.add_variable_from_value(*name, value.clone());
        }
        match self.program.execute(&context) {
            Ok(Value::Bool(verdict)) => Ok(verdict),
            Ok(other) => Err(format!("its result is a {}, not true or false", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Bounds the recursion of the parser: brackets, and operators in front of a value.
fn check_depth(text: &str) -> anyhow::Result<()> {
    let (mut depth, mut prefixes) = (0_usize, 0_usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' | b'?' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        prefixes = match byte {
            b'!' | b'-' => prefixes + 1,
            b' ' | b'\t' | b'\r' | b'\n' => prefixes,
            _ => 0,
        };
        ensure!(depth + prefixes <= MAX_DEPTH, "the expression {text:?} is nested more than {MAX_DEPTH} deep");
    }
    Ok(())
}

/// Parses on a thread of its own, whose stack is large, and whose panic is an error.
fn parse(text: &str, env: Arc<Env>) -> anyhow::Result<Program> {
    let owned = text.to_owned();
    let parser = thread::Builder::new()
        .name("policy".to_owned())
        .stack_size(PARSER_STACK)
        .spawn(move || env.compile(&owned).map_err(|errors| errors.to_string()))
        .context("no thread can be started to compile the expression")?;
    let parsed = parser.join().map_err(|_| anyhow!("the expression {text:?} cannot be parsed"))?;
    parsed.map_err(|errors| anyhow!("the expression {text:?} is not valid: {}", errors.trim()))
}

/// Checks that an expression uses only variables that it has or introduces, and has no loop within a loop.
///
/// # Errors
/// With the variable, or the loop.
fn check<'a>(expression: &'a IdedExpr, known: &mut Vec<&'a str>, in_loop: bool) -> Result<(), String> {
    match &expression.expr {
        Expr::Ident(name) if known.contains(&name.as_str()) => Ok(()),
        Expr::Ident(name) => Err(format!("uses {name}, which it does not have")),
        Expr::Literal(_) | Expr::Unspecified => Ok(()),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).try_for_each(|part| check(part, known, in_loop))
        }
        Expr::List(list) => list.elements.iter().try_for_each(|part| check(part, known, in_loop)),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| check_entry(entry, known, in_loop)),
        Expr::Struct(of) => of.entries.iter().try_for_each(|entry| check_entry(entry, known, in_loop)),
        Expr::Select(select) => check(&select.operand, known, in_loop),
        Expr::Comprehension(_) if in_loop => Err("has a loop (all, exists, map, filter) within a loop".to_owned()),
        Expr::Comprehension(each) => {
            // The range is evaluated once.
            check(&each.iter_range, known, false)?;
            check(&each.accu_init, known, false)?;
            let n_outside = known.len();
            known.extend([each.iter_var.as_str(), &each.accu_var]);
            known.extend(each.iter_var2.as_deref());
            let checked = [&each.loop_cond, &each.loop_step, &each.result]
                .into_iter()
                .try_for_each(|part| check(part, known, true));
            known.truncate(n_outside);
            checked
        }
    }
}

fn check_entry<'a>(entry: &'a IdedEntryExpr, known: &mut Vec<&'a str>, in_loop: bool) -> Result<(), String> {
    match &entry.expr {
        EntryExpr::StructField(field) => check(&field.value, known, in_loop),
        EntryExpr::MapEntry(entry) => {
            check(&entry.key, known, in_loop)?;
            check(&entry.value, known, in_loop)
        }
    }
}

/// The value of a text.
pub(super) fn text_value(text: &str) -> Value {
    Value::String(Arc::new(text.to_owned()))
}

/// The value of the variable `identity`.
pub(super) fn identity_value(identity: &Identity) -> Value {
    let roles = identity.roles.iter().map(|role| text_value(role)).collect();
    // The host wrote the claims, so they are JSON.
    let claims = serde_json::from_str(&identity.claims).map_or(Value::Null, |claims| json_value(&claims));
    let fields = [
        ("id", text_value(&identity.user)),
        ("name", identity.name.as_deref().map_or(Value::Null, text_value)),
        ("roles", Value::List(Arc::new(roles))),
        ("claims", claims),
        ("anonymous", Value::Bool(identity.principal != identity.user)),
    ];
    map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)))
}

fn json_value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        // Numbers in an expression are signed, so they are here as far as possible.
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        serde_json::Value::String(value) => text_value(value),
        serde_json::Value::Array(values) => Value::List(Arc::new(values.iter().map(json_value).collect())),
        serde_json::Value::Object(fields) => map(fields.iter().map(|(name, value)| (name.clone(), json_value(value)))),
    }
}

fn map(fields: impl Iterator<Item = (String, Value)>) -> Value {
    let fields: HashMap<Key, Value> = fields.map(|(name, value)| (Key::from(name), value)).collect();
    Value::Map(Map { map: Arc::new(fields) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Xorshift;

    const VARIABLES: [&str; 4] = ["identity", "id", "room", "event"];

    fn ana() -> Identity {
        Identity {
            name: Some("Ana".to_owned()),
            roles: vec!["agent".to_owned(), "admin".to_owned()],
            claims: r#"{"companyId":"c1","level":5,"tags":["a","b"],"org":{"id":7.5},"ok":true,"none":null}"#
                .to_owned(),
            ..Identity::of_user("ana")
        }
    }

    fn evaluate(text: &str) -> Result<bool, String> {
        let expression = Expression::compile(text, &VARIABLES).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        expression.evaluate(&[
            ("identity", identity_value(&ana())),
            ("id", text_value("c1")),
            ("room", text_value("campaign:c1")),
            ("event", text_value("campaign:watch")),
        ])
    }

    #[test]
    fn conditions_read_identity_room_and_event() {
        for (text, verdict) in [
            ("identity.claims.companyId == id", true),
            ("identity.id == 'ana' && identity.name == 'Ana'", true),
            ("'admin' in identity.roles", true),
            ("identity.roles.exists(role, role == 'boss')", false),
            ("identity.claims.level > 4 && identity.claims.org.id == 7.5", true),
            ("has(identity.claims.missing) || identity.claims.ok", true),
            ("identity.claims.none == null", true),
            ("identity.claims.tags.all(tag, size(tag) == 1)", true),
            ("room.startsWith('campaign:') && event.endsWith(':watch')", true),
            ("room.matches('^campaign:[a-z0-9]+$')", true),
            ("identity.anonymous", false),
            ("!identity.anonymous ? true : false", true),
        ] {
            assert_eq!(evaluate(text), Ok(verdict), "{text}");
        }
    }

    #[test]
    fn failed_evaluation_is_an_error() {
        for text in ["identity.claims.missing == 'x'", "id", "identity.claims.companyId > 5", "nofunction(id)"] {
            assert!(evaluate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn malformed_expressions_are_refused_with_the_reason() {
        let long = format!("id == '{}'", "x".repeat(MAX_BYTES));
        let (deep, negated) =
            (format!("{}true{}", "(".repeat(100), ")".repeat(100)), format!("{}true", "!".repeat(100)));
        for (text, reason) in [
            ("", "empty"),
            ("identity.", "not valid"),
            ("user == 'ana'", "uses user"),
            ("identity.roles.all(a, identity.roles.all(b, a == b))", "within a loop"),
            (&long, "bytes long"),
            (&deep, "deep"),
            (&negated, "deep"),
            ("identity.roles.all(r, r == q)", "uses q"),
        ] {
            let error = Expression::compile(text, &VARIABLES).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert!(Expression::compile("[1, 2].all(n, n > 0) && [3].exists(n, n == 3)", &VARIABLES).is_ok());
    }

    #[test]
    fn random_texts_never_end_the_host() {
        const ALPHABET: &[u8] = b"()[]{}?:!-+*/%<>=&|.,'\"\\ r\n01aid.in";
        let mut random = Xorshift::default();
        for _ in 0..200 {
            let length = random.next() % 60;
            let text: String = (0..length).map(|_| ALPHABET[random.next() as usize % ALPHABET.len()] as char).collect();
            // Most are refused; none may panic.
            let _ = Expression::compile(&text, &VARIABLES);
        }
    }
}
