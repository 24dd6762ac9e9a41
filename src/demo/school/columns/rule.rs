//! The rule of a column: how its values are generated.

use std::sync::Arc;

use crate::demo::school::values::text::{Form, Json};
use crate::demo::school::world::Reference;

pub(crate) const UNSPECIFIED: &str = "__dap_unspecified__";

/// How the values of a column are generated.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) salt: u64,
    /// Whether the value stays the same when the row is updated.
    pub(crate) lasting: bool,
    /// Number of nulls per 1,024 values.
    pub(crate) nulls: u64,
    pub(crate) oversize: bool,
    pub(crate) what: ValueKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ValueKind {
    /// Number of `true` per 256 values.
    Bool(u64),
    /// One of two values, which alternate with each update: read and unread.
    Toggle([&'static str; 2]),
    Int {
        low: i64,
        high: i64,
        bits: u32,
    },
    Code(Weighted<i64>),
    Float(NumberKind),
    Decimal {
        precision: u8,
        scale: u8,
    },
    Word {
        wheel: Weighted<&'static str>,
        unspecified: bool,
        gone: Option<&'static str>,
    },
    OpenWord(&'static [&'static str]),
    Time(TimeKind),
    Date,
    Uuid,
    Address,
    /// An id in another table. With `strangers`, some ids belong to another institution.
    Id {
        to: Reference,
        strangers: bool,
    },
    /// The id of an earlier row of the same table.
    Parent(usize),
    Via {
        by: Reference,
        then: Reference,
    },
    PolyId(Arc<Polymorphic>),
    PolyType(Arc<Polymorphic>),
    PolyCode(Arc<Polymorphic>),
    Text {
        words: TextKind,
        max: Option<usize>,
    },
    Object(Vec<(&'static str, Rule)>),
    List(Box<Rule>),
}

/// A weighted choice: usually the first item, sometimes the second or third, one time in eight any of the others.
#[derive(Debug, Clone)]
pub(crate) struct Weighted<T> {
    items: Vec<T>,
}

impl<T: Copy> Weighted<T> {
    /// `items` must not be empty; the first ones are the most frequent.
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { items }
    }

    #[inline]
    pub(crate) fn at(&self, hash: u64) -> T {
        let rare = self.items.len().saturating_sub(3) as u64;
        if rare > 0 && hash & 7 == 0 {
            return self.items[3 + ((hash >> 9) % rare) as usize];
        }
        let item = match (hash >> 3) & 63 {
            0..46 => 0,
            46..58 => 1,
            _ => 2,
        };
        self.items[item.min(self.items.len() - 1)]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NumberKind {
    /// A multiple of a quarter.
    Score,
    Points,
    /// 0 to 1 with all digits.
    Share,
    Percent,
    Money,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeKind {
    Created,
    Written,
    Deleted,
    Between,
    /// Days after the creation, and the length of the range in days. May be in the future.
    Ahead(u64, u64),
    LogEvent,
}

#[derive(Debug, Clone)]
pub(crate) enum TextKind {
    Person(Form),
    PersonOf(Reference, Form),
    Choice(&'static [&'static str]),
    Title,
    Remark,
    Page(usize),
    Url,
    Path,
    File,
    Slug,
    Ids,
    Token(usize),
    Hex(&'static str, usize),
    Numbered(&'static str),
    Address,
    Json(Json),
}

impl TextKind {
    /// Whether people write the text, so that it can contain anything.
    pub(crate) fn is_free(&self) -> bool {
        use TextKind::*;
        matches!(self, Title | Remark | Page(_) | Person(Form::Full | Form::Sortable | Form::Short))
    }
}

/// A polymorphic reference: a pair of the columns `*_type` (table) and `*_id` (row).
#[derive(Debug, Clone)]
pub(crate) struct Polymorphic {
    pub(crate) salt: u64,
    pub(crate) lasting: bool,
    pub(crate) choices: Vec<(&'static str, Option<Reference>)>,
    /// Indexes into `choices`.
    pub(crate) wheel: Weighted<usize>,
    /// Number of nulls per 1,024 rows.
    pub(crate) nulls: u64,
    pub(crate) id_required: bool,
    pub(crate) type_required: bool,
    pub(crate) has_unspecified: bool,
}
