//! Formats sizes, ages and changes for people. Used by pages and by the terminal.

pub(crate) use crate::model::{counted, grouped};

/// `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A change with its sign and in the form of `shown`, such as `+1,234` or `\u{2212}3`.
#[cfg(feature = "lake")]
pub(crate) fn signed(change: i64, shown: impl Fn(u64) -> String) -> String {
    let sign = if change < 0 { '\u{2212}' } else { '+' };
    format!("{sign}{}", shown(change.unsigned_abs()))
}

/// The two largest units, the second omitted when zero: `3d 2h`, `5h 12m`, `3m`, `42s`.
#[cfg(feature = "lake")]
pub(crate) fn age(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(3);
    let mut text = format!("{}{}", parts[first].0, parts[first].1);
    if let Some((count, unit)) = parts.get(first + 1)
        && *count > 0
    {
        text.push_str(&format!(" {count}{unit}"));
    }
    text
}

/// A count for narrow places: `950`, `12k`, `1.5M`.
#[cfg(feature = "lake")]
pub(crate) fn short_count(value: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut value = value;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{}{}", text.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_formatted_for_people() {
        assert_eq!(size(1536), "1.5 KiB");
        #[cfg(feature = "lake")]
        assert_eq!([1234, -3].map(|change| signed(change, grouped)), ["+1,234", "\u{2212}3"]);
        #[cfg(feature = "lake")]
        assert_eq!([0.0, 950.0, 12_000.0, 1_500_000.0, 2e9].map(short_count), ["0", "950", "12k", "1.5M", "2G"]);
        assert_eq!(age(1057 * 86_400 + 9 * 3_600 + 5), "1057d 9h");
        assert_eq!(age(5 * 3_600 + 12 * 60), "5h 12m");
        assert_eq!(age(180), "3m");
        assert_eq!(age(42), "42s");
        assert_eq!(age(-3), "0s");
    }

    #[test]
    fn an_age_has_two_units_at_most() {
        let shown = [42, 180, 65, 18_720, 3_600, 91_357_200, 86_400, -5].map(age);
        assert_eq!(shown, ["42s", "3m", "1m 5s", "5h 12m", "1h", "1057d 9h", "1d", "0s"]);
    }
}
