//! Suggestions for misspelled names.

use strsim::levenshtein;

/// The name nearest to `wanted`, if it is near enough to be a likely misspelling: at most three edits. Letter case is ignored.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let (distance, near) = names.map(|name| (levenshtein(&wanted, &name.to_lowercase()), name)).min_by_key(|near| near.0)?;
    (distance <= 3 && distance < wanted.chars().count().max(2)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_likely_misspellings_are_suggested() {
        let names = || ["canvas", "canvas_logs", "catalog"].into_iter();
        for (wanted, near) in
            [("canvs", Some("canvas")), ("Canvas", Some("canvas")), ("canvas_log", Some("canvas_logs")), ("moodle", None)]
        {
            assert_eq!(nearest(wanted, names()), near, "{wanted}");
        }
        assert_eq!(nearest("a", ["b"].into_iter()), Some("b"), "names of one letter");
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
