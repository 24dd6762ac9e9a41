//! Generates the cells of a row from the rules of its columns. A cell depends only on the school's seed, the table, the row number, the revision
//! and the rule, so rows can be generated in any order and any number of times.

use std::borrow::Cow;

use crate::demo::record::Cell;
use crate::demo::school::columns::rule::{NumberKind, Polymorphic, Rule, TextKind, TimeKind, UNSPECIFIED, ValueKind};
use crate::demo::school::values::keys::{GHOST, uuid};
use crate::demo::school::values::random::{Dice, mix, part_of, unit};
use crate::demo::school::values::text;
use crate::demo::school::values::text::{HEX, LETTERS, Person};
use crate::demo::school::world::World;
use crate::model::Timestamp;

const OVERSIZED: &str = "__dap_oversized_truncated__";
const PERSON: u64 = 0x5EED_0F0A_9E45_0E11;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
/// 9999-12-31T23:59:59Z, which people enter to mean "never".
const NEVER: i64 = 253_402_300_799 * SECOND;

/// The source of the cells of one row.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    world: &'a World,
    table: usize,
    row: u64,
    revision: u32,
    /// Seed that is the same for all revisions.
    lasting: u64,
    /// Seed that differs for each revision.
    fresh: u64,
    /// Whether the row is softly deleted.
    gone: bool,
    created: i64,
    written: i64,
    born: i64,
    /// Precision of all timestamps of the row, the same for all so that rounding keeps their order.
    precision: i64,
}

/// The revision of a row and the time of its write.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing {
    pub(crate) revision: u32,
    pub(crate) ts: i64,
    /// Time of the insert.
    pub(crate) born: i64,
    /// Whether the row is part of the initial load.
    pub(crate) old: bool,
}

impl<'a> Row<'a> {
    pub(crate) fn new(world: &'a World, table: usize, row: u64, writing: Writing) -> Self {
        let lasting = world.space(table).row_seed(row);
        let fresh = mix(lasting ^ (u64::from(writing.revision) << 20));
        let lot = mix(lasting ^ 0xA6E);
        // Old rows are up to five years old, most of them younger.
        let age = (unit(lot) * unit(lot) * 1_800.0 * DAY as f64) as i64;
        let created = writing.born - if writing.old { 4 * HOUR + age } else { part_of(lot, 30 * 60) as i64 * SECOND };
        let chance = mix(fresh ^ 0xDE1);
        let written = match writing.revision {
            0 => created + (unit(chance) * (writing.born - created) as f64) as i64,
            _ => (writing.ts - part_of(chance, 5_400_000) as i64 * 1_000 - 1).max(created),
        };
        let precision = match lot & 7 {
            0 => SECOND,
            1..6 => 1_000,
            _ => 1,
        };
        let gone = chance.is_multiple_of(if writing.revision > 0 { 12 } else { 32 });
        Self {
            world,
            table,
            row,
            revision: writing.revision,
            lasting,
            fresh,
            gone,
            created,
            written,
            born: writing.born,
            precision,
        }
    }

    pub(crate) fn cells(&self, rules: &[Rule]) -> Vec<Cell> {
        rules.iter().map(|rule| self.cell(rule)).collect()
    }

    #[inline]
    fn cell(&self, rule: &Rule) -> Cell {
        let hash = mix(if rule.lasting { self.lasting } else { self.fresh } ^ rule.salt);
        if hash & 1023 < rule.nulls {
            return Cell::Null;
        }
        let mut dice = Dice::new(hash);
        if rule.oversize && dice.once_in(400) {
            return Cell::Text(OVERSIZED.into());
        }
        self.filled(rule, hash, &mut dice)
    }

    fn filled(&self, rule: &Rule, hash: u64, dice: &mut Dice) -> Cell {
        match &rule.what {
            ValueKind::Bool(trues) => Cell::Bool((hash >> 20) & 255 < *trues),
            ValueKind::Toggle(words) => {
                let turn = (self.lasting >> 9) + u64::from(self.revision);
                Cell::Text(if dice.once_in(256) { UNSPECIFIED } else { words[turn as usize & 1] }.into())
            }
            ValueKind::Int { low, high, bits } => Cell::Int(integer(dice, *low, *high, *bits)),
            ValueKind::Code(wheel) => Cell::Int(wheel.at(hash >> 12)),
            ValueKind::Float(kind) => Cell::Float(float(dice, *kind)),
            ValueKind::Decimal { precision, scale } => Cell::Decimal(decimal(dice, *precision), *scale),
            ValueKind::Word { wheel, unspecified, gone } => {
                let word = match gone {
                    Some(word) if self.gone => word,
                    _ if *unspecified && dice.once_in(256) => UNSPECIFIED,
                    _ => wheel.at(hash >> 12),
                };
                Cell::Text(word.into())
            }
            ValueKind::OpenWord(words) => match dice.below(100) {
                0..3 => Cell::Text(UNSPECIFIED.into()),
                3 => Cell::Text(text::numbered("controller_not_yet_known_", dice.below(40))),
                _ => Cell::Text(dice.pick(words).into()),
            },
            ValueKind::Time(when) => {
                self.time(*when, dice).map_or(Cell::Null, |micros| Cell::Time(Timestamp::from_micros(micros)))
            }
            ValueKind::Date => Cell::Date((self.created.div_euclid(DAY) + dice.below(200) as i64) as i32),
            ValueKind::Uuid => Cell::Text(uuid(hash).into()),
            ValueKind::Address => Cell::Text(text::address(dice)),
            ValueKind::Id { strangers: true, to } if dice.once_in(50) => {
                Cell::Int(self.world.space(to.table).id(GHOST | dice.below(1_000)))
            }
            ValueKind::Id { to, .. } => Cell::Int(to.id(self.world, if rule.lasting { self.lasting } else { self.fresh })),
            ValueKind::Parent(table) => {
                // Earlier rows only, so that there are no cycles. One row in eight is a root.
                if self.row.is_multiple_of(8) || self.row & GHOST != 0 {
                    return Cell::Null;
                }
                let rows = self.world.space(*table).rows.clamp(1, self.row);
                Cell::Int(self.world.space(*table).id(part_of(mix(hash), rows)))
            }
            ValueKind::Via { by, then } => {
                let middle = by.row(self.world, self.lasting);
                Cell::Int(then.id(self.world, self.world.space(by.table).row_seed(middle)))
            }
            ValueKind::PolyId(poly) => self.poly_id(poly).map_or(Cell::Null, Cell::Int),
            ValueKind::PolyType(poly) => self.poly_type(poly).map_or(Cell::Null, |word| Cell::Text(word.into())),
            ValueKind::PolyCode(poly) => match (self.poly_id(poly), self.poly_type(poly)) {
                (Some(id), Some(word)) => {
                    let mut code = word.to_ascii_lowercase();
                    code.push('_');
                    text::id(&mut code, id);
                    Cell::Text(code.into())
                }
                _ => Cell::Null,
            },
            ValueKind::Text { words, max } => Cell::Text(self.text(words, *max, hash, dice)),
            ValueKind::Object(rules) => {
                let seed = mix(hash ^ 0x0B1);
                let member = Row { fresh: seed, lasting: seed, ..*self };
                // The service has no empty objects of fixed shape: an object without members is null.
                if dice.below(6) == 0 {
                    return Cell::Null;
                }
                let cells: Vec<_> = rules.iter().map(|(name, rule)| (Cow::Borrowed(*name), member.cell(rule))).collect();
                if cells.iter().all(|(_, cell)| *cell == Cell::Null) { Cell::Null } else { Cell::Object(cells) }
            }
            ValueKind::List(item) => {
                let member = |place: u64| Row { fresh: mix(hash ^ place), ..*self }.cell(item);
                Cell::List((0..dice.below(5)).map(member).collect())
            }
        }
    }

    fn time(&self, when: TimeKind, dice: &mut Dice) -> Option<i64> {
        let between = |dice: &mut Dice| self.created + (dice.unit() * (self.written - self.created) as f64) as i64;
        let micros = match when {
            TimeKind::Created => self.created,
            TimeKind::Written => self.written,
            TimeKind::Deleted => return self.gone.then(|| self.rounded(self.written)),
            TimeKind::Between => between(dice),
            TimeKind::Ahead(days, more) => match dice.below(2_000) {
                0 => return Some(NEVER),
                1 => return Some(0),
                2..1_200 => {
                    // The last second of a day in an American time zone.
                    let day = self.created.div_euclid(DAY) + (days + dice.below(more)) as i64;
                    return Some(day * DAY + (4 + dice.below(5) as i64) * HOUR - SECOND);
                }
                _ => self.created + (days * 86_400 + part_of(dice.next(), more * 86_400)) as i64 * SECOND,
            },
            // Before the commit's own four hours, so that no delivery is older than the event. Half are recent, half up to a month old.
            TimeKind::LogEvent => {
                let span = if dice.below(2) == 0 { 4 * HOUR } else { 29 * DAY };
                self.born - 4 * HOUR - part_of(dice.next(), span as u64) as i64
            }
        };
        Some(self.rounded(micros))
    }

    fn rounded(&self, micros: i64) -> i64 {
        micros - micros.rem_euclid(self.precision)
    }

    fn text(&self, words: &TextKind, max: Option<usize>, hash: u64, dice: &mut Dice) -> Cow<'static, str> {
        if words.is_free() {
            if dice.once_in(80) {
                return text::hard(dice, max);
            }
            if let Some(max) = max.filter(|max| *max > 255)
                && dice.once_in(8)
            {
                return text::long(dice, max);
            }
        }
        let made = match words {
            TextKind::Person(form) => Person::new(self.person()).write(*form),
            TextKind::PersonOf(user, form) => {
                let seed = self.world.space(user.table).row_seed(user.row(self.world, self.lasting));
                Person::new(mix(seed ^ PERSON)).write(*form)
            }
            TextKind::Choice(choices) => {
                // The first half of the choices is more frequent.
                let hash = mix(hash);
                let end = if hash & 3 == 0 { choices.len() } else { choices.len().div_ceil(2) };
                choices[part_of(hash, end as u64) as usize].into()
            }
            TextKind::Title => text::title(dice),
            TextKind::Remark => text::remark(dice),
            TextKind::Page(typical) => text::page(dice, *typical),
            TextKind::Url => text::url(dice),
            TextKind::Path => text::path(dice),
            TextKind::File => text::file_name(dice),
            TextKind::Slug => text::slug(dice),
            TextKind::Ids => text::id_list(dice),
            TextKind::Token(length) => text::token(dice, LETTERS, *length),
            TextKind::Hex("", length) => text::token(dice, HEX, *length),
            TextKind::Hex(prefix, length) => [*prefix, &text::token(dice, HEX, *length)].concat().into(),
            TextKind::Numbered(prefix) => text::numbered(prefix, dice.below(1_000_000)),
            TextKind::Address => text::address(dice),
            TextKind::Json(kind) => text::json(dice, *kind),
        };
        match max {
            Some(max) => text::clip(made, max),
            None => made,
        }
    }

    /// The seed of the person of this row, so that all forms of the name in a row agree.
    fn person(&self) -> u64 {
        mix(self.lasting ^ PERSON)
    }

    fn poly_seed(&self, poly: &Polymorphic) -> u64 {
        if poly.lasting { self.lasting } else { self.fresh }
    }

    /// The hash and the index of the choice.
    fn poly(&self, poly: &Polymorphic) -> (u64, usize) {
        let hash = mix(mix(self.poly_seed(poly) ^ poly.salt) ^ 0x901);
        (hash, poly.wheel.at(hash >> 12))
    }

    fn poly_id(&self, poly: &Polymorphic) -> Option<i64> {
        let (hash, choice) = self.poly(poly);
        if !poly.id_required && hash & 1023 < poly.nulls {
            return None;
        }
        match &poly.choices[choice].1 {
            Some(reference) => Some(reference.id(self.world, self.poly_seed(poly))),
            // The choice has no table: the id is meaningless, but it is required.
            None => poly.id_required.then(|| self.world.space(self.table).id(part_of(hash, 1_000))),
        }
    }

    fn poly_type(&self, poly: &Polymorphic) -> Option<&'static str> {
        let (hash, choice) = self.poly(poly);
        if !poly.type_required && !poly.id_required && hash & 1023 < poly.nulls {
            return None;
        }
        if poly.has_unspecified && (hash >> 32) & 255 == 0 {
            return Some(UNSPECIFIED);
        }
        Some(poly.choices[choice].0)
    }
}

fn integer(dice: &mut Dice, low: i64, high: i64, bits: u32) -> i64 {
    let greatest = i64::MAX >> (64 - bits);
    match dice.below(600) {
        0 => return greatest,
        1 => return -greatest - 1,
        2 => return -1,
        // Numbers that need 64 bits, if the schema says 64 bits.
        3..40 if bits == 64 => return (1 << 33) + dice.below(1 << 40) as i64,
        _ => {}
    }
    let part = dice.unit();
    (low + (part * part * (high - low + 1) as f64) as i64).clamp(-greatest - 1, greatest)
}

fn float(dice: &mut Dice, kind: NumberKind) -> f64 {
    const ODD: &[f64] = &[
        0.0,
        -0.5,
        1e-7,
        5e-324,
        1.797_693_134_862_315_7e308,
        -1e21,
        0.1 + 0.2,
        123_456_789.123_456_79,
        9_007_199_254_740_993.0,
    ];
    if kind != NumberKind::Money && dice.once_in(700) {
        return ODD[dice.below(ODD.len() as u64) as usize];
    }
    match kind {
        NumberKind::Score => {
            let part = dice.unit();
            ((1.0 - part * part) * 400.0).floor() / 4.0
        }
        NumberKind::Points => [10.0, 5.0, 100.0, 20.0, 1.0, 50.0, 0.0, 12.5][dice.below(8) as usize],
        NumberKind::Share => dice.unit(),
        NumberKind::Percent => (dice.unit() * 10_000.0).floor() / 100.0,
        NumberKind::Money => dice.below(50_000) as f64 / 100.0,
        NumberKind::Any => dice.below(100_000) as f64 / 8.0,
    }
}

fn decimal(dice: &mut Dice, precision: u8) -> i128 {
    let greatest = 10_i128.pow(u32::from(precision)) - 1;
    match dice.below(200) {
        0 => greatest,
        1 => -greatest,
        2..20 => 0,
        20..60 => i128::from(dice.below(20)) * 500 % greatest,
        _ if precision > 6 && dice.below(4) == 0 => i128::from(dice.below(greatest as u64)),
        _ => i128::from(dice.below(10_001)).min(greatest),
    }
}
