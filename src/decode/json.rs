//! Scans JSON text: strings with escapes, numbers, and whole values to skip or to copy. Builds no tree. The text must be valid UTF-8, which the
//! caller has checked.

use super::fault::{Fault, Read};
use super::scan::{append, find2};

/// The maximum nesting of a value that is skipped or copied.
const MAX_DEPTH: usize = 256;

/// A position in JSON text.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

/// The kind of the value at the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    Null,
    Bool,
    Number,
    String,
    Object,
    Array,
}

impl Token {
    /// The name for error messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Token::Null => "null",
            Token::Bool => "a boolean",
            Token::Number => "a number",
            Token::String => "a string",
            Token::Object => "an object",
            Token::Array => "an array",
        }
    }
}

#[cold]
fn broken(reason: &'static str) -> Fault {
    Fault::new(reason)
}

impl<'a> Cursor<'a> {
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The byte at the cursor, or 0 at the end. A 0 is not valid in JSON outside of strings.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    /// Skips white space and returns the next byte.
    #[inline(always)]
    pub(super) fn peek_after_blanks(&mut self) -> u8 {
        let byte = self.peek();
        if byte > b' ' { byte } else { self.skip_blanks() }
    }

    fn skip_blanks(&mut self) -> u8 {
        while matches!(self.peek(), b' ' | b'\t' | b'\r' | b'\n') {
            self.at += 1;
        }
        self.peek()
    }

    /// Skips white space and the byte `wanted`. Fails with `reason` if there is another byte.
    #[inline(always)]
    pub(super) fn expect(&mut self, wanted: u8, reason: &'static str) -> Read<()> {
        if self.peek_after_blanks() != wanted {
            return Err(broken(reason));
        }
        self.at += 1;
        Ok(())
    }

    /// Fails unless only white space is left.
    pub(super) fn end(&mut self) -> Read<()> {
        self.skip_blanks();
        if self.at == self.bytes.len() { Ok(()) } else { Err(broken("not valid JSON: text after the end of the value")) }
    }

    /// The kind of the next value, after white space.
    #[inline]
    pub(super) fn token(&mut self) -> Read<Token> {
        match self.peek_after_blanks() {
            b'"' => Ok(Token::String),
            b'{' => Ok(Token::Object),
            b'[' => Ok(Token::Array),
            b't' | b'f' => Ok(Token::Bool),
            b'n' => Ok(Token::Null),
            b'-' | b'0'..=b'9' => Ok(Token::Number),
            0 if self.at >= self.bytes.len() => Err(broken("not valid JSON: it ends where a value should be")),
            _ => Err(broken("not valid JSON: no value where one should be")),
        }
    }

    #[inline]
    fn literal(&mut self, word: &'static [u8]) -> Read<()> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            // `nullx` and the like fail at the missing comma.
            Ok(())
        } else {
            Err(broken("not valid JSON: an unknown word"))
        }
    }

    /// The word `null`.
    #[inline]
    pub(super) fn null(&mut self) -> Read<()> {
        self.literal(b"null")
    }

    /// `true` or `false`.
    #[inline]
    pub(super) fn bool(&mut self) -> Read<bool> {
        if self.peek() == b't' { self.literal(b"true").map(|()| true) } else { self.literal(b"false").map(|()| false) }
    }

    /// The text of a number, verified by the grammar of JSON.
    pub(super) fn number(&mut self) -> Read<&'a [u8]> {
        let start = self.at;
        if self.peek() == b'-' {
            self.at += 1;
        }
        let first = self.peek();
        let whole = self.digits();
        if whole == 0 || (first == b'0' && whole > 1) {
            return Err(broken("not valid JSON: a malformed number"));
        }
        if self.peek() == b'.' {
            self.at += 1;
            if self.digits() == 0 {
                return Err(broken("not valid JSON: a malformed number"));
            }
        }
        if matches!(self.peek(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(), b'+' | b'-') {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(broken("not valid JSON: a malformed number"));
            }
        }
        Ok(&self.bytes[start..self.at])
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.at - start
    }

    /// The content of the string at the cursor if it has no escapes, else `None`, and the cursor stays.
    #[inline]
    pub(super) fn plain_string(&mut self) -> Read<Option<&'a [u8]>> {
        let start = self.at + 1;
        let end = find2::<b'"', b'\\'>(self.bytes, start);
        match self.bytes.get(end) {
            Some(b'"') => {
                self.at = end + 1;
                Ok(Some(&self.bytes[start..end]))
            }
            Some(_) => Ok(None),
            None => Err(broken("not valid JSON: a string does not end")),
        }
    }

    /// Appends the content of the string at the cursor to `out`. After a fault `out` may contain a part of it.
    #[inline]
    pub(super) fn string_into(&mut self, out: &mut Vec<u8>) -> Read<()> {
        let start = self.at + 1;
        let end = find2::<b'"', b'\\'>(self.bytes, start);
        match self.bytes.get(end) {
            Some(b'"') => {
                append(out, self.bytes, start, end);
                self.at = end + 1;
                Ok(())
            }
            Some(_) => self.escaped_string_into(start, end, out),
            None => Err(broken("not valid JSON: a string does not end")),
        }
    }

    #[inline(never)]
    fn escaped_string_into(&mut self, mut start: usize, mut end: usize, out: &mut Vec<u8>) -> Read<()> {
        loop {
            out.extend_from_slice(&self.bytes[start..end]);
            match self.bytes.get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(());
                }
                Some(_) => {
                    start = self.escape(end, out)?;
                    end = find2::<b'"', b'\\'>(self.bytes, start);
                }
                None => return Err(broken("not valid JSON: a string does not end")),
            }
        }
    }

    /// Decodes the escape whose backslash is at `at`, and returns the position after it.
    fn escape(&self, at: usize, out: &mut Vec<u8>) -> Read<usize> {
        let plain = match self.bytes.get(at + 1) {
            Some(b'"') => b'"',
            Some(b'\\') => b'\\',
            Some(b'/') => b'/',
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                let first = self.hex(at + 2)?;
                let (code, after) = match first {
                    0xD800..=0xDBFF if self.bytes.get(at + 6..at + 8) == Some(b"\\u") => {
                        let second = self.hex(at + 8)?;
                        if !(0xDC00..=0xDFFF).contains(&second) {
                            return Err(broken("half of a surrogate pair in a string"));
                        }
                        (0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00), at + 12)
                    }
                    code => (code, at + 6),
                };
                let character = char::from_u32(code).ok_or_else(|| broken("half of a surrogate pair in a string"))?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(after);
            }
            _ => return Err(broken("not valid JSON: an unknown escape in a string")),
        };
        out.push(plain);
        Ok(at + 2)
    }

    fn hex(&self, at: usize) -> Read<u32> {
        let digits = self.bytes.get(at..at + 4).ok_or_else(|| broken("not valid JSON: an escape is cut short"))?;
        digits.iter().try_fold(0, |code, &digit| {
            let value =
                (digit as char).to_digit(16).ok_or_else(|| broken("not valid JSON: an escape without four hex digits"))?;
            Ok(code << 4 | value)
        })
    }

    /// Skips the value at the cursor and returns its verified text.
    pub(super) fn raw(&mut self) -> Read<&'a [u8]> {
        self.peek_after_blanks();
        let start = self.at;
        self.skip(0)?;
        Ok(&self.bytes[start..self.at])
    }

    /// Skips the value at the cursor.
    pub(super) fn skip_value(&mut self) -> Read<()> {
        self.skip(0)
    }

    fn skip(&mut self, depth: usize) -> Read<()> {
        if depth > MAX_DEPTH {
            return Err(broken("JSON nested too deeply"));
        }
        match self.token()? {
            Token::Null => self.null(),
            Token::Bool => self.bool().map(drop),
            Token::Number => self.number().map(drop),
            Token::String => self.skip_string(),
            Token::Object => {
                self.at += 1;
                if self.peek_after_blanks() == b'}' {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    if self.peek_after_blanks() != b'"' {
                        return Err(broken("not valid JSON: no member name where one should be"));
                    }
                    self.skip_string()?;
                    self.expect(b':', "not valid JSON: no colon after a member name")?;
                    self.skip(depth + 1)?;
                    if self.comma_or(b'}')? {
                        return Ok(());
                    }
                }
            }
            Token::Array => {
                self.at += 1;
                if self.peek_after_blanks() == b']' {
                    self.at += 1;
                    return Ok(());
                }
                loop {
                    self.skip(depth + 1)?;
                    if self.comma_or(b']')? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Skips a comma (returns `false`) or the closing bracket (returns `true`).
    #[inline(always)]
    pub(super) fn comma_or(&mut self, closing: u8) -> Read<bool> {
        let byte = self.peek_after_blanks();
        self.at += 1;
        if byte == b',' {
            Ok(false)
        } else if byte == closing {
            Ok(true)
        } else {
            Err(broken("not valid JSON: neither comma nor closing bracket after a value"))
        }
    }

    fn skip_string(&mut self) -> Read<()> {
        let mut at = self.at + 1;
        loop {
            at = find2::<b'"', b'\\'>(self.bytes, at);
            match (self.bytes.get(at), self.bytes.get(at + 1)) {
                (Some(b'"'), _) => {
                    self.at = at + 1;
                    return Ok(());
                }
                (Some(_), Some(b'u')) => {
                    self.hex(at + 2)?;
                    at += 6;
                }
                (Some(_), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => at += 2,
                (Some(_), Some(_)) => return Err(broken("not valid JSON: an unknown escape in a string")),
                _ => return Err(broken("not valid JSON: a string does not end")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> std::result::Result<String, String> {
        let mut out = Vec::new();
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.string_into(&mut out).and_then(|()| cursor.end()).map_err(|fault| fault.reason().to_owned())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn skips(text: &str) -> bool {
        let mut cursor = Cursor::new(text.as_bytes());
        cursor.raw().is_ok() && cursor.end().is_ok()
    }

    #[test]
    fn strings_with_escapes() {
        for (text, expected) in [
            (r#""""#, ""),
            (r#""plain""#, "plain"),
            (r#""a\"b\\c\/d\b\f\n\r\te""#, "a\"b\\c/d\u{8}\u{c}\n\r\te"),
            (r#""\u0041\u00e4\u20AC\uD83D\uDE00\u0000""#, "A\u{e4}\u{20ac}\u{1f600}\0"),
        ] {
            assert_eq!(string(text).as_deref(), Ok(expected));
        }
        for (text, reason) in [
            (r#""open"#, "does not end"),
            (r#""open\"#, "unknown escape"),
            (r#""\x""#, "unknown escape"),
            (r#""\u12"#, "cut short"),
            (r#""\u12g4""#, "four hex digits"),
            (r#""\u+123""#, "four hex digits"),
            (r#""\ud83d""#, "surrogate"),
            (r#""\ud83d\u0041""#, "surrogate"),
            (r#""\ude00""#, "surrogate"),
        ] {
            assert!(string(text).unwrap_err().contains(reason), "{text}");
        }
    }

    #[test]
    fn nesting_has_a_limit() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(skips(&nested(MAX_DEPTH)));
        assert!(!skips(&nested(MAX_DEPTH + 2)));
        assert!(!skips(&"[".repeat(1_000_000)));
    }

    proptest! {
        /// The grammar is that of serde_json, except that raw control characters in strings are accepted.
        #[test]
        fn accepts_what_serde_json_accepts(text in "[\\[\\]{}\",:0-9eE+.truefalsn \\\\-]{0,24}|\"[a-z\\\\u0-9/\"]{0,12}\"") {
            let theirs = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
            prop_assert_eq!(skips(&text), theirs, "{}", text);
        }

        #[test]
        fn strings_round_trip(text in any::<String>()) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(string(&written), Ok(text));
        }
    }
}
