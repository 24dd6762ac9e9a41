//! The error of an unreadable row. It is one pointer wide, so that reading values stays fast.

use std::borrow::Cow;

/// A reason, and the path of the column as far as it is known.
#[derive(Debug)]
pub(super) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    reason: Cow<'static, str>,
    /// The path of names, innermost first.
    path: Vec<String>,
    /// Whether the reason is a time or date outside the years 1 to 9999.
    is_out_of_range: bool,
}

/// The result of reading a value.
pub(super) type Read<T> = std::result::Result<T, Fault>;

impl Fault {
    #[cold]
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { reason: reason.into(), path: Vec::new(), is_out_of_range: false }))
    }

    /// The fault of a time or date outside the years 1 to 9999.
    #[cold]
    pub(super) fn out_of_range(is_late: bool) -> Self {
        let mut fault = Self::new(if is_late { "a year beyond 9999" } else { "a year before 1" });
        fault.0.is_out_of_range = true;
        fault
    }

    pub(super) fn is_out_of_range(&self) -> bool {
        self.0.is_out_of_range
    }

    /// Adds the name of the enclosing column, member or group.
    #[cold]
    pub(super) fn inside(mut self, name: &str) -> Self {
        self.0.path.push(name.to_owned());
        self
    }

    pub(super) fn reason(&self) -> &str {
        &self.0.reason
    }

    /// The path of the column, such as `value.settings.limit`, if known.
    pub(super) fn column(&self) -> Option<String> {
        let names: Vec<&str> = self.0.path.iter().rev().map(String::as_str).collect();
        (!names.is_empty()).then(|| names.join("."))
    }
}
