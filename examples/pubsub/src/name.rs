//! The name of a channel.

use super::limits::NAME_BYTES;
use std::fmt;
use std::str::FromStr;

/// 1 to 64 letters, digits, dots, underscores and hyphens, but not `.` or `..`: nothing that means
/// something in a path, a header or a log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAName;

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let may = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_one = (1..=NAME_BYTES).contains(&text.len()) && text.bytes().all(may) && !["..", "."].contains(&text);
        if is_one { Ok(Name(text.to_owned())) } else { Err(NotAName) }
    }
}

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a channel's name is 1 to {NAME_BYTES} letters, digits, dots, underscores and hyphens, but not . or .."
        )
    }
}
