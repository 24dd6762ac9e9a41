//! The active faults. Handlers ask here whether a fault applies; the effects are theirs.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::demo::serve::faults::fault::{Fault, Times};
use crate::model::TableRef;

/// An active fault.
#[derive(Debug)]
struct Rule {
    fault: Fault,
    table: Option<TableRef>,
    /// Occasions to skip.
    skip: u64,
    /// Remaining occurrences; `None` without an end.
    left: Option<u64>,
}

/// The active faults, and how often each has occurred.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    struck: Mutex<BTreeMap<String, u64>>,
}

impl Faults {
    pub(crate) fn add(&self, table: Option<TableRef>, fault: Fault, times: Times, skip: u64) {
        let skip = if let Fault::TokenDies { after } = fault { skip + after } else { skip };
        let left = match times {
            Times::Once => Some(1),
            Times::N(times) => Some(times),
            Times::Always => None,
        };
        self.rules.lock().push(Rule { fault, table, skip, left });
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().clear();
    }

    /// Occurrences by the name of the variant, such as `Throttle` or `WrongCrc`.
    pub(crate) fn struck(&self) -> BTreeMap<String, u64> {
        self.struck.lock().clone()
    }

    /// Takes the first fault that `pick` selects and that applies to the table, unless it has occasions to skip. `table` is `None` for
    /// calls without a table, to which faults of a single table do not apply.
    pub(crate) fn take<T>(&self, table: Option<&TableRef>, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let mut rules = self.rules.lock();
        for place in 0..rules.len() {
            let rule = &mut rules[place];
            if rule.left == Some(0) || rule.table.as_ref().is_some_and(|wanted| Some(wanted) != table) {
                continue;
            }
            let Some(picked) = pick(&rule.fault) else { continue };
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if let Fault::TokenDies { after } = rule.fault {
                rule.skip = after;
            }
            rule.left = rule.left.map(|left| left - 1);
            let word = rule.fault.word();
            *self.struck.lock().entry(word).or_default() += 1;
            return Some(picked);
        }
        None
    }

    /// Whether a fault without arguments occurs now.
    pub(crate) fn strikes(&self, table: Option<&TableRef>, fault: &Fault) -> bool {
        self.take(table, |candidate| (candidate == fault).then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_occur_as_often_and_for_the_tables_as_configured() {
        let faults = Faults::default();
        let (one, two) = (TableRef::new("n", "one"), TableRef::new("n", "two"));
        faults.add(Some(one.clone()), Fault::Redirect, Times::N(2), 1);
        let strikes = |table: Option<&TableRef>| faults.strikes(table, &Fault::Redirect);
        assert!(!strikes(None) && !strikes(Some(&two)));
        assert!(!strikes(Some(&one)), "the first occasion is skipped");
        assert!(strikes(Some(&one)) && strikes(Some(&one)) && !strikes(Some(&one)));

        faults.add(None, Fault::Redirect, Times::Always, 0);
        assert!(strikes(None) && strikes(Some(&two)));
        faults.clear();
        assert!(!strikes(None));
        assert_eq!(faults.struck()["Redirect"], 4);
    }
}
