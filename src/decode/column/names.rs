//! Which member of an object a name in JSON text is. Writers keep an order, so the next name is guessed first and compared
//! together with its quote and colon; only a wrong guess looks the name up.

use std::collections::HashSet;

use super::super::fault::{Fault, Read};
use super::super::json::Cursor;
use super::super::scan::{find2, word};

const EMPTY: u32 = u32::MAX;
/// Names are reported up to this number and length: they come from outside and must not fill the memory.
const MAX_UNKNOWN: usize = 256;
const MAX_UNKNOWN_LENGTH: usize = 128;

#[derive(Debug)]
struct Name {
    /// The name, `"` and `:`.
    pattern: Box<[u8]>,
    /// First eight bytes of the pattern, and which of them count.
    head: u64,
    mask: u64,
}

impl Name {
    fn new(name: &str) -> Self {
        let pattern: Box<[u8]> = [name.as_bytes(), b"\":"].concat().into();
        let mut first = [0; 8];
        let length = pattern.len().min(8);
        first[..length].copy_from_slice(&pattern[..length]);
        // JSON text has other bytes for these names; a head that the mask cannot produce never matches.
        let escaped = name.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\'));
        let mask = if escaped { 0 } else { u64::MAX >> (64 - 8 * length) };
        let head = if escaped { 1 } else { u64::from_le_bytes(first) };
        Self { pattern, head, mask }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.pattern[..self.pattern.len() - 2]
    }

    /// The place after the colon, if this name stands at `at`.
    #[inline(always)]
    fn matches(&self, bytes: &[u8], at: usize) -> Option<usize> {
        if word(bytes, at)? & self.mask != self.head {
            return None;
        }
        let end = at + self.pattern.len();
        match self.pattern.get(8..) {
            Some(rest) if bytes.get(at + 8..end)? != rest => None,
            _ => Some(end),
        }
    }
}

/// The names of an object's members.
#[derive(Debug)]
pub(in crate::decode) struct Names {
    names: Vec<Name>,
    /// Open addressing by [`hash`], at most half full.
    slots: Vec<u32>,
    shift: u32,
    /// Which name was seen after each; the last entry is for the first name of an object.
    follows: Vec<u32>,
    /// The name seen last in this object.
    last: usize,
    /// Names that are no members.
    unknown: HashSet<Box<[u8]>>,
}

/// What stands at the cursor.
#[derive(Debug, PartialEq)]
pub(in crate::decode) enum Found {
    /// The member with this number.
    Member(usize),
    /// No member of ours; its name when it was not seen before.
    Unknown(Option<String>),
}

impl Names {
    pub(in crate::decode) fn new<'n>(names: impl Iterator<Item = &'n str>) -> Self {
        let names: Vec<Name> = names.map(Name::new).collect();
        let size = (2 * names.len()).next_power_of_two().max(8);
        let shift = 64 - size.trailing_zeros();
        let mut slots = vec![EMPTY; size];
        for (number, name) in names.iter().enumerate() {
            let mut slot = (hash(name.as_bytes()) >> shift) as usize;
            while slots[slot] != EMPTY {
                slot = (slot + 1) % size;
            }
            slots[slot] = number as u32;
        }
        // At first the schema's order is expected.
        let count = names.len() as u32;
        let follows = (0..count).map(|number| (number + 1) % count).chain([0]).collect();
        Self { last: names.len(), names, slots, shift, follows, unknown: HashSet::new() }
    }

    /// The number of the member of this name.
    pub(in crate::decode) fn find(&self, name: &[u8]) -> Option<usize> {
        let mut slot = (hash(name) >> self.shift) as usize;
        loop {
            let number = self.slots[slot];
            if number == EMPTY {
                return None;
            }
            if self.names[number as usize].as_bytes() == name {
                return Some(number as usize);
            }
            slot = (slot + 1) % self.slots.len();
        }
    }

    /// A new object begins.
    #[inline]
    pub(in crate::decode) fn begin(&mut self) {
        self.last = self.names.len();
    }

    /// Passes the name at the cursor (after blanks) and its colon.
    #[inline]
    pub(in crate::decode) fn next(&mut self, cursor: &mut Cursor<'_>) -> Read<Found> {
        if cursor.peek_after_blanks() != b'"' {
            return Err(Fault::new("not valid JSON: no member name where one should be"));
        }
        let at = cursor.at + 1;
        let mut guess = self.follows[self.last] as usize;
        // Null members are left out, so the one after the next is a good guess too.
        for _ in 0..2 {
            let Some(name) = self.names.get(guess) else { break };
            if let Some(end) = name.matches(cursor.bytes, at) {
                cursor.at = end;
                self.last = guess;
                return Ok(Found::Member(guess));
            }
            guess = self.follows[guess] as usize;
        }
        self.look_up(cursor)
    }

    fn look_up(&mut self, cursor: &mut Cursor<'_>) -> Read<Found> {
        const NO_COLON: &str = "not valid JSON: no colon after a member name";
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
        cursor.expect(b':', NO_COLON)?;
        Ok(match self.find(name) {
            Some(number) => {
                self.follows[self.last] = number as u32;
                self.last = number;
                Found::Member(number)
            }
            None if self.unknown.len() >= MAX_UNKNOWN || self.unknown.contains(name) => Found::Unknown(None),
            None => {
                self.unknown.insert(name.into());
                Found::Unknown(Some(String::from_utf8_lossy(name).chars().take(MAX_UNKNOWN_LENGTH).collect()))
            }
        })
    }
}

/// Eight bytes at a time, the last eight overlapping.
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
