//! Generated strings: names, titles, addresses, pages, URLs, JSON. Each is a function of its random numbers. Columns are unknown here.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::demo::school::values::random::{Dice, mix};
use crate::demo::school::values::vocabulary::{DOMAINS, EXTENSIONS, FIRST, HARD, LAST, OPENINGS, PATHS, SENTENCES, SUBJECTS};

type Text = Cow<'static, str>;

/// A fictitious person, derived from a seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Person {
    first: usize,
    last: usize,
    number: u64,
}

/// A form of a person's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Full,
    Sortable,
    Short,
    Email,
    Login,
}

impl Person {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        Self {
            first: dice.below(FIRST.len() as u64) as usize,
            last: dice.below(LAST.len() as u64) as usize,
            number: dice.next(),
        }
    }

    pub(crate) fn write(&self, form: Form) -> Text {
        let ((first, plain_first), (last, plain_last)) = (FIRST[self.first], LAST[self.last]);
        let mut text = String::with_capacity(40);
        match form {
            Form::Short => return first.into(),
            Form::Full => text.extend([first, " ", last]),
            Form::Sortable => text.extend([last, ", ", first]),
            Form::Login | Form::Email => {
                text.extend([plain_first, ".", plain_last]);
                number(&mut text, self.number % 10_000);
                if form == Form::Email {
                    text.extend(["@", DOMAINS[(self.number >> 20) as usize % DOMAINS.len()]]);
                }
            }
        }
        text.into()
    }
}

/// Appends a number in decimal, faster than `write!`.
pub(crate) fn number(text: &mut String, mut value: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    text.extend(digits[start..].iter().map(|digit| char::from(*digit)));
}

pub(crate) fn id(text: &mut String, id: i64) {
    number(text, id.unsigned_abs());
}

/// A prefix followed by a number, such as `g17`.
pub(crate) fn numbered(words: &str, value: u64) -> Text {
    let mut text = String::with_capacity(words.len() + 12);
    text.push_str(words);
    number(&mut text, value);
    text.into()
}

/// Random characters of an alphabet.
pub(crate) fn token(dice: &mut Dice, alphabet: &[u8], length: usize) -> Text {
    let mut text = String::with_capacity(length);
    let mut bits = 0;
    for place in 0..length {
        if place % 8 == 0 {
            bits = dice.next();
        }
        text.push(char::from(alphabet[(bits & 0xFF) as usize % alphabet.len()]));
        bits >>= 8;
    }
    text.into()
}

pub(crate) const HEX: &[u8] = b"0123456789abcdef";
pub(crate) const LETTERS: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz0123456789";

pub(crate) fn title(dice: &mut Dice) -> Text {
    let (opening, subject) = (dice.pick(OPENINGS), dice.pick(SUBJECTS));
    match dice.below(8) {
        0 => subject.into(),
        1 => {
            let mut text = numbered(subject, dice.below(400)).into_owned();
            text.insert(subject.len(), ' ');
            text.into()
        }
        _ => {
            let mut text = String::with_capacity(opening.len() + subject.len() + 1);
            text.extend([opening, " ", subject]);
            text.into()
        }
    }
}

/// One to three sentences.
pub(crate) fn remark(dice: &mut Dice) -> Text {
    let first = dice.pick(SENTENCES);
    if dice.below(3) > 0 {
        return first.into();
    }
    let mut text = String::with_capacity(320);
    text.push_str(first);
    for _ in 0..=dice.below(2) {
        text.push(' ');
        text.push_str(dice.pick(SENTENCES));
    }
    text.into()
}

/// Paragraphs of HTML: usually shorter than `typical` bytes, sometimes three times as long, very rarely 100 KB.
pub(crate) fn page(dice: &mut Dice, typical: usize) -> Text {
    let length = match dice.below(4_000) {
        0 => 100_000,
        1..400 => typical * 3,
        400..1_600 => typical,
        1_600..3_200 => typical / 2,
        _ => typical / 6,
    };
    let mut text = String::with_capacity(length + 200);
    while text.len() < length {
        text.push_str("<p>");
        for _ in 0..=dice.below(4) {
            text.push_str(dice.pick(SENTENCES));
            text.push(' ');
        }
        text.push_str("</p>\n");
    }
    text.into()
}

/// A string that is difficult to transport, or one of exactly the maximum length in multi-byte characters.
pub(crate) fn hard(dice: &mut Dice, max: Option<usize>) -> Text {
    match max {
        Some(max) if dice.below(5) == 0 => {
            let filler = dice.pick(&["x", "é", "语", "🎓"]);
            filler.repeat(max).into()
        }
        _ => dice.pick(HARD).into(),
    }
}

/// Long plain text of at most `max` characters.
pub(crate) fn long(dice: &mut Dice, max: usize) -> Text {
    let length = max / 3 + dice.below(max as u64 * 2 / 3) as usize;
    let mut text = String::with_capacity(length * 2);
    let mut characters = 0;
    while characters < length {
        let sentence = dice.pick(SENTENCES);
        text.push_str(sentence);
        characters += sentence.chars().count();
    }
    clip(text.into(), max)
}

/// Truncates to `max` characters.
pub(crate) fn clip(text: Text, max: usize) -> Text {
    if text.len() <= max {
        return text;
    }
    match (text.char_indices().nth(max), text) {
        (None, text) => text,
        (Some((end, _)), Cow::Borrowed(text)) => text[..end].into(),
        (Some((end, _)), Cow::Owned(mut text)) => {
            text.truncate(end);
            text.into()
        }
    }
}

/// A path that contains an id.
pub(crate) fn path(dice: &mut Dice) -> Text {
    let pattern = dice.pick(PATHS);
    let mut text = String::with_capacity(pattern.len() + 6);
    let mut parts = pattern.splitn(2, "{}");
    text.push_str(parts.next().unwrap_or_default());
    number(&mut text, 1 + dice.below(90_000));
    text.push_str(parts.next().unwrap_or_default());
    text.into()
}

pub(crate) fn url(dice: &mut Dice) -> Text {
    let mut text = String::with_capacity(100);
    text.extend(["https://", dice.pick(DOMAINS), &path(dice)]);
    text.into()
}

pub(crate) fn file_name(dice: &mut Dice) -> Text {
    let mut text = title(dice).replace(['/', '"', ':'], "_");
    text.extend([".", dice.pick(EXTENSIONS)]);
    text.into()
}

/// `4,9,12`, rarely empty.
pub(crate) fn id_list(dice: &mut Dice) -> Text {
    let mut text = String::new();
    for place in 0..dice.below(5) {
        if place > 0 {
            text.push(',');
        }
        number(&mut text, 1 + dice.below(500_000));
    }
    text.into()
}

pub(crate) fn address(dice: &mut Dice) -> Text {
    let bits = dice.next();
    let mut text = String::with_capacity(40);
    if bits.is_multiple_of(6) {
        text.push_str("2001:db8:");
        let part = |shift: u32| (mix(bits) >> shift) & 0xFFFF;
        // Without leading zeros, as in the usual short form.
        let _ = write!(text, "{:x}:{:x}:{:x}::{:x}", part(0), part(16), part(32), part(48) | 1);
    } else {
        for (place, octet) in (bits >> 8).to_le_bytes().into_iter().take(4).enumerate() {
            if place > 0 {
                text.push('.');
            }
            number(&mut text, if place == 0 { 1 + u64::from(octet) % 222 } else { u64::from(octet) });
        }
    }
    text.into()
}

/// The words of a title in lower-case ASCII, separated by hyphens.
pub(crate) fn slug(dice: &mut Dice) -> Text {
    let title = title(dice).to_ascii_lowercase();
    let mut text = String::with_capacity(title.len());
    for part in title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|part| !part.is_empty()) {
        if !text.is_empty() {
            text.push('-');
        }
        text.push_str(part);
    }
    if text.is_empty() { "page".into() } else { text.into() }
}

/// The shape of a generated JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Json {
    /// Member names and values of all kinds.
    Settings,
    /// An array of strings.
    Scopes,
    /// An array of objects with numbers and strings.
    Items,
}

/// Valid JSON, including escapes, several scripts, large numbers, nulls and nesting.
pub(crate) fn json(dice: &mut Dice, kind: Json) -> Text {
    const NAMES: &[&str] =
        &["id", "hidden", "points", "description", "ratings", "mastery_points", "caption", "größe", "a.b", "weight"];
    const SCOPES: &[&str] = &[
        "url:GET|/api/v1/courses",
        "url:POST|/api/v1/courses/:course_id/assignments",
        "url:GET|/api/v1/users/:user_id/profile",
        "https://purl.imsglobal.org/spec/lti-ags/scope/score",
    ];
    let mut text = String::with_capacity(160);
    match kind {
        Json::Scopes => {
            text.push('[');
            for place in 0..dice.below(4) {
                text.push_str(if place > 0 { ",\"" } else { "\"" });
                text.push_str(dice.pick(SCOPES));
                text.push('"');
            }
            text.push(']');
        }
        Json::Settings => object(&mut text, dice, NAMES),
        Json::Items => {
            text.push('[');
            for place in 0..dice.below(5) {
                if place > 0 {
                    text.push(',');
                }
                object(&mut text, dice, NAMES);
            }
            text.push(']');
        }
    }
    text.into()
}

fn object(text: &mut String, dice: &mut Dice, names: &[&'static str]) {
    // Values in their JSON form.
    const VALUES: &[&str] = &[
        "true",
        "false",
        "null",
        "\"\"",
        "[]",
        "{}",
        "0.5",
        "-1.25e-3",
        "9007199254740993",
        "\"Full marks\"",
        "\"He said \\\"no\\\"\"",
        "\"line\\nbreak\\ttab\"",
        "\"C:\\\\temp\"",
        "\"caf\\u00e9 \\ud83c\\udf93\"",
        "\"语言\"",
        "[1,2,3]",
        "{\"nested\":{\"deep\":[null,{\"x\":1}]}}",
        "\"<p>Text &amp; more</p>\"",
    ];
    let first = dice.below(names.len() as u64) as usize;
    text.push('{');
    for place in 0..dice.below(5) as usize {
        text.push_str(if place > 0 { ",\"" } else { "\"" });
        text.push_str(names[(first + place) % names.len()]);
        text.push_str("\":");
        if dice.below(3) == 0 {
            number(text, dice.below(100_000));
        } else {
            text.push_str(dice.pick(VALUES));
        }
    }
    text.push('}');
}
