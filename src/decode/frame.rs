//! Splits a stream of bytes into records: lines, or CSV records with line ends inside quotes. Bytes may arrive in pieces of any size; at most
//! one record of bounded length is buffered between pieces.

use super::scan::{count_newlines, find, find2};

/// Finds the ends of records in a stream.
#[derive(Debug)]
pub(super) struct Frames {
    /// Whether line ends inside quotes belong to the record (CSV).
    quotes: bool,
    /// The maximum length of a record in bytes.
    max: usize,
    /// The start of a record whose end has not arrived yet.
    carry: Vec<u8>,
    /// Whether the record was too long and the rest of it is skipped.
    skipping: bool,
    state: State,
    /// The previous byte, in unquoted text.
    before: u8,
    /// The line of the current record, and the number of its quoted line ends so far below.
    line: u64,
    inner_lines: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the start of a record.
    Start,
    Unquoted,
    Quoted,
    /// After a quote that ends a quoted field or is the first of a doubled one.
    Closed,
}

/// The next event. `next` is the position to continue at; `line` is where the record began.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A record within the input, up to `end`.
    Whole { end: usize, next: usize, line: u64 },
    /// A record that is in [`Frames::take_carry`].
    Joined { next: usize, line: u64 },
    /// A record that is too long; its start is in [`Frames::take_carry`].
    TooLong { next: usize, line: u64 },
    /// The end of a record that was too long.
    Skipped { next: usize },
    /// The input is used up.
    More,
}

/// The state at the end of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After a record.
    Clean,
    /// In a record without a line end, which is in [`Frames::take_carry`].
    Record { line: u64 },
    /// Inside quotes of a record that is in [`Frames::take_carry`].
    OpenQuote { line: u64 },
    /// Inside quotes of a record that is too long to be buffered.
    LostInQuotes { line: u64 },
}

impl Frames {
    pub(super) fn new(quotes: bool, max: usize) -> Self {
        let state = State::Start;
        Self { quotes, max, carry: Vec::new(), skipping: false, state, before: 0, line: 1, inner_lines: 0 }
    }

    /// The next record of `input`, which is not empty.
    #[inline]
    pub(super) fn next(&mut self, input: &[u8]) -> Frame {
        let end = if self.quotes { self.scan_quoted(input) } else { find::<b'\n'>(input, 0) };
        if end < input.len() {
            let line = self.line;
            let next = end + 1;
            self.line += 1 + self.inner_lines;
            self.inner_lines = 0;
            if std::mem::take(&mut self.skipping) {
                Frame::Skipped { next }
            } else if self.carry.len() + end > self.max {
                self.keep_beginning(&input[..end]);
                Frame::TooLong { next, line }
            } else if self.carry.is_empty() {
                Frame::Whole { end, next, line }
            } else {
                self.carry.extend_from_slice(&input[..end]);
                Frame::Joined { next, line }
            }
        } else if self.skipping {
            Frame::More
        } else if self.carry.len() + input.len() > self.max {
            self.keep_beginning(input);
            self.skipping = true;
            Frame::TooLong { next: input.len(), line: self.line }
        } else {
            self.carry.extend_from_slice(input);
            Frame::More
        }
    }

    fn keep_beginning(&mut self, input: &[u8]) {
        let room = self.max.saturating_sub(self.carry.len()).min(input.len());
        self.carry.extend_from_slice(&input[..room]);
    }

    /// The position of the line end of the record, or the length.
    fn scan_quoted(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        loop {
            match self.state {
                State::Start => match input.get(at) {
                    None => return at,
                    Some(b'"') => {
                        at += 1;
                        self.state = State::Quoted;
                    }
                    Some(_) => self.state = State::Unquoted,
                },
                State::Unquoted => {
                    let found = find2::<b'"', b'\n'>(input, at);
                    match input.get(found) {
                        Some(b'\n') => {
                            self.state = State::Start;
                            return found;
                        }
                        Some(_) => {
                            // A quote is special only at the start of a field.
                            let before = found.checked_sub(1).map_or(self.before, |before| input[before]);
                            if before == b',' {
                                self.state = State::Quoted;
                            }
                            at = found + 1;
                        }
                        None => {
                            self.before = input.last().copied().unwrap_or(self.before);
                            return input.len();
                        }
                    }
                }
                State::Quoted => {
                    let found = find::<b'"'>(input, at);
                    self.inner_lines += count_newlines(&input[at..found]);
                    if found == input.len() {
                        return found;
                    }
                    at = found + 1;
                    self.state = State::Closed;
                }
                State::Closed => match input.get(at) {
                    None => return at,
                    Some(b'"') => {
                        at += 1;
                        self.state = State::Quoted;
                    }
                    Some(_) => {
                        self.before = b'"';
                        self.state = State::Unquoted;
                    }
                },
            }
        }
    }

    /// The bytes of a record that spans several inputs. Return the buffer with [`Frames::give_back`].
    pub(super) fn take_carry(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.carry)
    }

    /// Reuses the buffer for the next record, unless it is unusually large.
    pub(super) fn give_back(&mut self, mut carry: Vec<u8>) {
        carry.clear();
        carry.shrink_to(1 << 20);
        self.carry = carry;
    }

    /// Ends the stream.
    pub(super) fn end(&mut self) -> End {
        let line = self.line;
        let quoted = self.state == State::Quoted;
        self.state = State::Start;
        match (std::mem::take(&mut self.skipping), quoted) {
            (true, true) => End::LostInQuotes { line },
            (true, false) => End::Clean,
            (false, true) => End::OpenQuote { line },
            (false, false) if self.carry.is_empty() => End::Clean,
            (false, false) => End::Record { line },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Records with their lines; `!` before one that is too long, `?` before one with an open quote.
    fn records(quotes: bool, max: usize, parts: &[&[u8]]) -> Vec<(u64, String)> {
        let mut frames = Frames::new(quotes, max);
        let mut records = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let next = match frames.next(rest) {
                    Frame::Whole { end, next, line } => {
                        records.push((line, text(&rest[..end])));
                        next
                    }
                    Frame::Joined { next, line } => {
                        let carry = frames.take_carry();
                        records.push((line, text(&carry)));
                        frames.give_back(carry);
                        next
                    }
                    Frame::TooLong { next, line } => {
                        let carry = frames.take_carry();
                        records.push((line, format!("!{}", text(&carry))));
                        frames.give_back(carry);
                        next
                    }
                    Frame::Skipped { next } => next,
                    Frame::More => rest.len(),
                };
                rest = &rest[next..];
            }
        }
        match frames.end() {
            End::Clean => {}
            End::Record { line } => records.push((line, text(&frames.take_carry()))),
            End::OpenQuote { line } => records.push((line, format!("?{}", text(&frames.take_carry())))),
            End::LostInQuotes { line } => records.push((line, "?!".to_owned())),
        }
        records
    }

    fn shown(quotes: bool, max: usize, text: &str) -> Vec<String> {
        records(quotes, max, &[text.as_bytes()]).into_iter().map(|(line, text)| format!("{line}:{text}")).collect()
    }

    #[test]
    fn lines() {
        assert_eq!(shown(false, 99, "a\n\n\"b\nc"), ["1:a", "2:", "3:\"b", "4:c"]);
        assert_eq!(shown(false, 3, "abc\nabcd\nabcdef\nx\n"), ["1:abc", "2:!abc", "3:!abc", "4:x"]);
        assert_eq!(shown(false, 3, "abcd"), ["1:!abc"]);
        assert_eq!(shown(false, 99, ""), Vec::<String>::new());
    }

    #[test]
    fn quoted_line_ends_belong_to_the_record() {
        assert_eq!(shown(true, 99, "a,\"b\nc\",d\ne\n"), ["1:a,\"b\nc\",d", "3:e"]);
        assert_eq!(shown(true, 99, "\"a\"\"\n\"\"\",\"\n\"\nx"), ["1:\"a\"\"\n\"\"\",\"\n\"", "4:x"]);
        assert_eq!(shown(true, 99, "a\"b,c\nd \"e\nf"), ["1:a\"b,c", "2:d \"e", "3:f"], "quotes inside a field are characters");
        assert_eq!(shown(true, 99, "\"a\"x\"\nb"), ["1:\"a\"x\"", "2:b"]);
        assert_eq!(shown(true, 99, "a,\"b\nc"), ["1:?a,\"b\nc"]);
        assert_eq!(shown(true, 4, "a,\"b\nc\",d\ne"), ["1:!a,\"b", "3:e"]);
        assert_eq!(shown(true, 4, "a,\"b\nc,d\ne"), ["1:!a,\"b", "1:?!"]);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_records(
            text in proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'"'), Just(b'\n'), Just(b',')], 0..60),
            cuts in proptest::collection::vec(0_usize..61, 0..8),
            max in 1_usize..30,
            quotes: bool,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let parts: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(records(quotes, max, &parts), records(quotes, max, &[&text]));
        }
    }
}
