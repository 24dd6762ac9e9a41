//! TODO

use std::sync::Arc;

use crate::demo::school::values::text::{Form, Json};
use crate::demo::school::world::Reference;

pub(crate) const UNSPECIFIED: &str = "__dap_unspecified__";

/// How one column is filled.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) salt: u64,
    /// Drawn once for a row, not anew with each change of it.
    pub(crate) lasting: bool,
    /// Nulls in 1,024 values.
    pub(crate) nulls: u64,
    pub(crate) oversize: bool,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    /// Trues in 256 values.
    Bool(u64),
    /// One of two words, the other with each change: read and unread.
    Toggle([&'static str; 2]),
    Int {
        low: i64,
        high: i64,
        bits: u32,
    },
    Code(Wheel<i64>),
    Number(Number),
    Decimal {
        precision: u8,
        scale: u8,
    },
    Word {
        wheel: Wheel<&'static str>,
        unspecified: bool,
        gone: Option<&'static str>,
    },
    OpenWord(&'static [&'static str]),
    Time(When),
    Date,
    Uuid,
    Address,
    /// An id in another table; from the log, now and then one of another institution.
    Id {
        to: Reference,
        strangers: bool,
    },
    /// An earlier row of the same table.
    Parent(usize),
    Via {
        by: Reference,
        then: Reference,
    },
    PolyId(Arc<Poly>),
    PolyType(Arc<Poly>),
    PolyCode(Arc<Poly>),
    Text {
        words: Words,
        max: Option<usize>,
    },
    Object(Vec<(&'static str, Rule)>),
    List(Box<Rule>),
}

/// Choices with unequal chances: mostly the first, sometimes the second or third, one time in eight any of the others.
#[derive(Debug, Clone)]
pub(crate) struct Wheel<T> {
    items: Vec<T>,
}

impl<T: Copy> Wheel<T> {
    /// At least one item; the first ones are the likely ones.
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
pub(crate) enum Number {
    /// Quarters of a point.
    Score,
    Points,
    /// 0 to 1, all digits.
    Share,
    Percent,
    Money,
    Any,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Created,
    Written,
    Deleted,
    Between,
    /// Days after the creation, and how many days it may be more; also in the future.
    Ahead(u64, u64),
    LogEvent,
}

#[derive(Debug, Clone)]
pub(crate) enum Words {
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

impl Words {
    /// Written by people, so that anything can be in it.
    pub(crate) fn is_free(&self) -> bool {
        use Words::*;
        matches!(self, Title | Remark | Page(_) | Person(Form::Full | Form::Sortable | Form::Short))
    }
}

/// A pair of `*_type` and `*_id`: which table, and which row there.
#[derive(Debug, Clone)]
pub(crate) struct Poly {
    pub(crate) salt: u64,
    pub(crate) lasting: bool,
    pub(crate) choices: Vec<(&'static str, Option<Reference>)>,
    /// Indexes of `choices`.
    pub(crate) wheel: Wheel<usize>,
    /// Nulls in 1,024 rows.
    pub(crate) nulls: u64,
    pub(crate) id_required: bool,
    pub(crate) type_required: bool,
    pub(crate) has_unspecified: bool,
}
