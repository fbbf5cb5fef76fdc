//! JSON objects, as much of JSON as the face says.

use std::fmt::{Display, Write};

/// An object that is being written.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Object {
        Object("{".to_owned())
    }

    /// Adds a number, or another value that is written as JSON.
    pub(super) fn value(mut self, name: &str, value: impl Display) -> Object {
        let comma = if self.0.len() > 1 { "," } else { "" };
        let _ = write!(self.0, "{comma}\"{name}\":{value}"); // a string takes everything
        self
    }

    pub(super) fn text(self, name: &str, text: &str) -> Object {
        self.value(name, quoted(text))
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// Returns a list of values.
pub(super) fn list(values: impl IntoIterator<Item = String>) -> String {
    let values: Vec<String> = values.into_iter().collect();
    format!("[{}]", values.join(","))
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c < ' ' => drop(write!(quoted, "\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: every program that reads what the face says.
    #[test]
    fn it_is_json() {
        let text =
            Object::new().value("a", 1).text("b", "\"\\\n\u{e4}").value("c", list(["1".into(), "2".into()])).end();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, serde_json::json!({"a": 1, "b": "\"\\\n\u{e4}", "c": [1, 2]}));
    }
}
