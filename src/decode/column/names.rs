//! Resolves the member names of JSON objects. Writers keep members in one order and omit some, so the next few names of that order are compared
//! at once, together with quote and colon and without branches, since a match cannot be predicted. Other names are looked up in a hash table.

use std::collections::HashSet;

use super::super::fault::{Fault, Read};
use super::super::json::Cursor;
use super::super::scan::{find2, word};

const EMPTY: u32 = u32::MAX;
/// The number of names that are compared at once.
const AHEAD: usize = 4;
/// The number of bytes of a name that are compared in words. Longer names are rare.
const WINDOW: usize = 32;
/// The limits for the number and length of reported names, which come from outside and must not fill the memory.
const MAX_UNKNOWN: usize = 256;
const MAX_UNKNOWN_LENGTH: usize = 128;

/// A name followed by `":`, as words for comparison.
#[derive(Debug, Clone)]
struct Pattern {
    words: [u64; WINDOW / 8],
    masks: [u64; WINDOW / 8],
    length: u32,
    /// The number of the member.
    number: u32,
    /// The bytes that do not fit into the words.
    rest: Box<[u8]>,
}

impl Pattern {
    fn new(name: &str, number: u32) -> Self {
        let text = [name.as_bytes(), b"\":"].concat();
        let mut padded = [0; WINDOW];
        let mut mask = [0; WINDOW];
        let (front, rest) = text.split_at(text.len().min(WINDOW));
        padded[..front.len()].copy_from_slice(front);
        mask[..front.len()].fill(u8::MAX);
        // These names are escaped in JSON text, and their bytes could match something else.
        if name.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
            return Self { number, ..Self::never() };
        }
        Self { words: words(&padded), masks: words(&mask), length: text.len() as u32, number, rest: rest.into() }
    }

    /// A pattern that matches nothing.
    fn never() -> Self {
        Self { words: [1; WINDOW / 8], masks: [0; WINDOW / 8], length: 0, number: EMPTY, rest: Box::default() }
    }

    #[inline(always)]
    fn begins_like(&self, text: &[u64; WINDOW / 8]) -> bool {
        (text[0] & self.masks[0] ^ self.words[0]) | (text[1] & self.masks[1] ^ self.words[1]) == 0
    }

    #[inline(always)]
    fn goes_on_like(&self, text: &[u64; WINDOW / 8]) -> bool {
        (text[2] & self.masks[2] ^ self.words[2]) | (text[3] & self.masks[3] ^ self.words[3]) == 0
    }
}

#[inline(always)]
fn words(bytes: &[u8; WINDOW]) -> [u64; WINDOW / 8] {
    std::array::from_fn(|number| bytes[8 * number..].first_chunk().map_or(0, |chunk| u64::from_le_bytes(*chunk)))
}

/// The names of an object's members.
#[derive(Debug)]
pub(in crate::decode) struct Names {
    names: Vec<Box<[u8]>>,
    /// A hash table with open addressing by [`hash`], at most half full.
    slots: Vec<u32>,
    shift: u32,
    /// The names in the observed order of the writer, followed by patterns that match nothing.
    order: Vec<Pattern>,
    /// The position in `order` of each member.
    places: Vec<u32>,
    /// The position in `order` of the name that is expected next.
    next: usize,
    /// How often the order may still be changed: a writer without any order must not cost more than the lookups.
    patience: usize,
    /// Names that are not members.
    unknown: HashSet<Box<[u8]>>,
}

/// The name at the cursor.
#[derive(Debug, PartialEq)]
pub(in crate::decode) enum Found {
    /// The member with this number.
    Member(usize),
    /// An unknown member, with its name if it is new.
    Unknown(Option<String>),
}

impl Names {
    pub(in crate::decode) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let mut order = Vec::new();
        let mut all: Vec<Box<[u8]>> = Vec::new();
        for name in names {
            order.push(Pattern::new(name, all.len() as u32));
            all.push(name.as_bytes().into());
        }
        let size = (2 * all.len()).next_power_of_two().max(8);
        let shift = 64 - size.trailing_zeros();
        let mut slots = vec![EMPTY; size];
        for (number, name) in all.iter().enumerate() {
            let mut slot = (hash(name) >> shift) as usize;
            while slots[slot] != EMPTY {
                slot = (slot + 1) % size;
            }
            slots[slot] = number as u32;
        }
        order.resize(all.len() + AHEAD, Pattern::never());
        Self {
            places: (0..all.len() as u32).collect(),
            next: 0,
            patience: 64 * all.len(),
            names: all,
            slots,
            shift,
            order,
            unknown: HashSet::new(),
        }
    }

    /// The number of the member with this name.
    pub(in crate::decode) fn find(&self, name: &[u8]) -> Option<usize> {
        let mut slot = (hash(name) >> self.shift) as usize;
        loop {
            let number = self.slots[slot];
            if number == EMPTY {
                return None;
            }
            if *self.names[number as usize] == *name {
                return Some(number as usize);
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    /// Begins a new object.
    #[inline]
    pub(in crate::decode) fn begin(&mut self) {
        self.next = 0;
    }

    /// Skips the name at the cursor, after white space, and its colon.
    #[inline]
    pub(in crate::decode) fn next(&mut self, cursor: &mut Cursor<'_>) -> Read<Found> {
        if cursor.peek_after_blanks() != b'"' {
            return Err(Fault::new("not valid JSON: no member name where one should be"));
        }
        let at = cursor.at + 1;
        let rest = cursor.bytes.get(at..).unwrap_or_default();
        let text = match rest.first_chunk::<WINDOW>() {
            Some(chunk) => words(chunk),
            None => {
                let mut padded = [0; WINDOW];
                padded[..rest.len()].copy_from_slice(rest);
                words(&padded)
            }
        };
        if let Some(ahead) = self.order.get(self.next..).and_then(|order| order.first_chunk::<AHEAD>()) {
            let mut hits = 0_u32;
            for (number, pattern) in ahead.iter().enumerate() {
                hits |= u32::from(pattern.begins_like(&text)) << number;
            }
            if let Some(pattern) = ahead.get(hits.trailing_zeros() as usize)
                && pattern.goes_on_like(&text)
                && (pattern.rest.is_empty() || rest.get(WINDOW..).is_some_and(|rest| rest.starts_with(&pattern.rest)))
            {
                self.next += hits.trailing_zeros() as usize + 1;
                cursor.at = at + pattern.length as usize;
                return Ok(Found::Member(pattern.number as usize));
            }
        }
        self.look_up(cursor)
    }

    fn look_up(&mut self, cursor: &mut Cursor<'_>) -> Read<Found> {
        let start = cursor.at + 1;
        let end = find2::<b'"', b'\\'>(cursor.bytes, start);
        let unescaped;
        let name = if cursor.bytes.get(end) == Some(&b'"') {
            cursor.at = end + 1;
            &cursor.bytes[start..end]
        } else {
            let mut name = Vec::new();
            cursor.string_into(&mut name)?;
            unescaped = name;
            &unescaped[..]
        };
        cursor.expect(b':', "not valid JSON: no colon after a member name")?;
        Ok(match self.find(name) {
            Some(number) => {
                self.learn(number);
                Found::Member(number)
            }
            None if self.unknown.len() >= MAX_UNKNOWN || self.unknown.contains(name) => Found::Unknown(None),
            None => {
                self.unknown.insert(name.into());
                Found::Unknown(Some(String::from_utf8_lossy(name).chars().take(MAX_UNKNOWN_LENGTH).collect()))
            }
        })
    }

    /// Handles an unexpected member. A later one in the order means that members were omitted. An earlier one is moved after the member that it
    /// followed.
    fn learn(&mut self, number: usize) {
        let place = self.places[number] as usize;
        if place >= self.next || self.patience == 0 {
            self.next = place + 1;
            return;
        }
        self.patience -= 1;
        self.order[place..self.next].rotate_left(1);
        for (place, pattern) in self.order.iter().enumerate().take(self.next).skip(place) {
            self.places[pattern.number as usize] = place as u32;
        }
    }
}

/// Hashes eight bytes at a time; the last eight overlap.
#[inline]
fn hash(name: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    let Some(last) = name.len().checked_sub(8).and_then(|at| word(name, at)) else {
        return mix(name.len() as u64, name.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)));
    };
    let mut hash = name.len() as u64;
    let mut at = 0;
    while let Some(word) = word(name, at) {
        hash = mix(hash, word);
        at += 8;
    }
    mix(hash, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(names: &mut Names, text: &str) -> Vec<Found> {
        let mut cursor = Cursor::new(text.as_bytes());
        names.begin();
        let mut found = Vec::new();
        while cursor.peek_after_blanks() == b'"' {
            found.push(names.next(&mut cursor).unwrap());
            cursor.skip_value().unwrap();
            cursor.peek_after_blanks();
            cursor.at += 1;
        }
        found
    }

    #[test]
    fn any_order_is_learned_and_any_name_is_found() {
        let all =
            ["id", "workflow_state", "workflow_status", "a", "", "say \"hi\"", "line\n", "größe", "workflow_state_of_parent"];
        let mut names = Names::new(all.into_iter());
        let member = |number: usize| format!("{}:1,", serde_json::to_string(all[number]).unwrap());
        for order in
            [vec![0, 1, 2, 3, 4, 5, 6, 7, 8], vec![8, 7, 6, 5, 4, 3, 2, 1, 0], vec![3, 0, 5], vec![3, 0, 5], vec![2, 2, 1]]
        {
            let text: String = order.iter().map(|&number| member(number)).collect();
            let expected: Vec<Found> = order.into_iter().map(Found::Member).collect();
            assert_eq!(walk(&mut names, &text), expected);
        }
        let unknown = |name: &str| Found::Unknown(Some(name.to_owned()));
        let expected = [Found::Member(0), unknown("idx"), Found::Member(7), unknown("i")];
        assert_eq!(walk(&mut names, r#" "\u0069d" : 1 , "idx":{"id":2}, "gr\u00f6\u00dfe" : 3,"i":4}"#), expected);
        assert_eq!(walk(&mut names, r#""idx":1"#), [Found::Unknown(None)]);
        assert!(Names::new(all.into_iter()).next(&mut Cursor::new(b"\"id\" 1")).is_err());
        assert!(Names::new(all.into_iter()).next(&mut Cursor::new(b"id:1")).is_err());
    }

    #[test]
    fn an_order_is_kept_once_it_was_seen() {
        let all = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"];
        let mut names = Names::new(all.into_iter());
        let mut sorted: Vec<usize> = (0..all.len()).collect();
        sorted.sort_by_key(|&number| all[number]);
        let text: String = sorted.iter().map(|&number| format!("\"{}\":1,", all[number])).collect();
        for _ in 0..3 {
            assert_eq!(walk(&mut names, &text), sorted.iter().map(|&number| Found::Member(number)).collect::<Vec<_>>());
        }
        let learned: Vec<usize> = names.order.iter().take(all.len()).map(|pattern| pattern.number as usize).collect();
        assert_eq!(learned, sorted);
        for (place, number) in learned.into_iter().enumerate() {
            assert_eq!(names.places[number] as usize, place);
        }
        // When the order is no longer changed, names are still found in any order.
        names.patience = 0;
        assert_eq!(walk(&mut names, "\"zeta\":1,\"alpha\":2,\"beta\":3"), [5, 0, 1].map(Found::Member));
    }

    #[test]
    fn names_with_common_ends_are_distinguished() {
        let all = [
            "a",
            "ab",
            "abcdefgh",
            "abcdefghi",
            "abcdefghijklmno",
            "abcdefghijklmnop",
            "abcdefghijklmnopqrstuvwxyz0123",
            "abcdefghijklmnopqrstuvwxyz01234",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "abcdefghijklmnopqrstuvwxyz0123456788",
        ];
        let mut names = Names::new(all.into_iter());
        for name in all {
            let text = format!("\"{name}\":1");
            let expected = all.iter().position(|other| *other == name).unwrap();
            assert_eq!(walk(&mut names, &text), [Found::Member(expected)]);
            let text = format!("\"{name}\":\"{}\"", "x".repeat(40));
            assert_eq!(walk(&mut names, &text), [Found::Member(expected)]);
        }
    }

    #[test]
    fn no_names_at_all() {
        let mut names = Names::new(std::iter::empty());
        assert_eq!(walk(&mut names, r#""x":1"#), [Found::Unknown(Some("x".to_owned()))]);
    }

    #[test]
    fn many_names() {
        let all: Vec<String> = (0..5000).map(|number| format!("column_with_a_common_start_{number}_and_end")).collect();
        let names = Names::new(all.iter().map(String::as_str));
        for (number, name) in all.iter().enumerate() {
            assert_eq!(names.find(name.as_bytes()), Some(number));
        }
        assert_eq!(names.find(b"column_with_a_common_start_5000_and_end"), None);
    }
}
