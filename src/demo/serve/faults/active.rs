//! The faults that are switched on. It does not make anything go wrong; the places where it happens ask here whether it is their
//! turn.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::demo::serve::faults::fault::{Fault, Times};
use crate::model::TableRef;

/// A fault that is switched on.
#[derive(Debug)]
struct Rule {
    fault: Fault,
    table: Option<TableRef>,
    /// Occasions that still pass unharmed.
    skip: u64,
    /// Strikes left; `None`: no end.
    left: Option<u64>,
}

/// The faults that are switched on, and how often each kind of occasion was struck.
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
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(Rule { fault, table, skip, left });
    }

    pub(crate) fn clear(&self) {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Strikes by the name of the variant, such as `Throttle` or `WrongCrc`.
    pub(crate) fn struck(&self) -> BTreeMap<String, u64> {
        self.struck.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An occasion: the first fault that `pick` wants (and that is meant for this table) strikes, unless it has occasions to
    /// skip. `table` is `None` where a call concerns no table; faults for one table do not strike there.
    pub(crate) fn take<T>(&self, table: Option<&TableRef>, pick: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
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
            *self.struck.lock().unwrap_or_else(PoisonError::into_inner).entry(word).or_default() += 1;
            return Some(picked);
        }
        None
    }

    /// An occasion for a fault without arguments.
    pub(crate) fn strikes(&self, table: Option<&TableRef>, fault: &Fault) -> bool {
        self.take(table, |candidate| (candidate == fault).then_some(())).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_strike_as_often_and_where_they_should() {
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
