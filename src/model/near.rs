//! The name that was meant by a misspelt one.

/// The nearest of some names, if it is near enough to be meant. Case does not count.
pub fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    let (distance, near) = names.map(|name| (distance(&wanted, &name.to_lowercase()), name)).min_by_key(|near| near.0)?;
    (distance <= 3 && distance < wanted.chars().count().max(2)).then_some(near)
}

/// Levenshtein distance of two short names.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = row[j + 1];
            row[j + 1] = next;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_is_recognised_and_another_one_is_not() {
        let names = || ["canvas", "canvas_logs", "catalog"].into_iter();
        for (wanted, near) in
            [("canvs", Some("canvas")), ("Canvas", Some("canvas")), ("canvas_log", Some("canvas_logs")), ("moodle", None)]
        {
            assert_eq!(nearest(wanted, names()), near, "{wanted}");
        }
        assert_eq!(nearest("a", ["b"].into_iter()), Some("b"), "one of one letter");
        assert_eq!(nearest("x", std::iter::empty()), None);
    }
}
