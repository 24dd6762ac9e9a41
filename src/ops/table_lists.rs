//! The table lists of several namespaces. One that fails or is slow does not delay the others.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use crate::api::Client;
use crate::error::{Error, ErrorContext, Kind, Result};
use crate::model::Namespace;

/// How long a namespace has before the next one is requested as well.
const STAGGER: Duration = Duration::from_secs(2);

/// Lists the tables of `namespaces`, in this order. `patience` is the time after which the answers so far are enough, if there is one with
/// tables.
///
/// # Errors
/// The login failed, so other namespaces would fail in the same way.
pub(super) async fn table_lists<'n>(
    client: &Client,
    namespaces: &[&'n str],
    patience: Option<Duration>,
) -> Result<Vec<(&'n str, Result<Vec<String>>)>> {
    let begun = Instant::now();
    let deadline = patience.map(|patience| begun + patience);
    // The service allows few of these calls: retries for one namespace must not use up those of the others.
    let reserved = Reserved(client);
    let mut answers: Vec<Option<Result<Vec<String>>>> = namespaces.iter().map(|_| None).collect();
    let mut running = FuturesUnordered::new();
    let mut waiting = namespaces.iter().enumerate();
    loop {
        let is_late = deadline.is_some_and(|deadline| deadline <= Instant::now());
        if is_late && answers.iter().any(|answer| matches!(answer, Some(Ok(_)))) {
            break;
        }
        match waiting.next() {
            Some((place, namespace)) => {
                reserved.set(waiting.len());
                running.push(async move { (place, client.tables(&Namespace::new(*namespace)).await) });
            }
            None if running.is_empty() => break,
            None => {}
        }
        let next_start = (waiting.len() > 0).then(|| Instant::now() + STAGGER);
        let wake = next_start.into_iter().chain(deadline.filter(|_| !is_late)).min();
        let sleep = async {
            match wake {
                Some(wake) => sleep_until(wake).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            biased;
            ended = running.next() => ended,
            () = sleep => None,
        };
        if let Some((place, answer)) = ended {
            if let Err(error) = &answer
                && error.get("call") == Some("login")
            {
                return answer.map(|_| Vec::new()).with_field("namespace", namespaces[place]);
            }
            answers[place] = Some(answer);
        }
    }
    let late = || {
        Err(Error::new(Kind::Unavailable, "The service did not list the tables of the namespace in time")
            .with_field("waited", format!("{} s", begun.elapsed().as_secs()))
            .hint("run the command again; a longer --time-budget waits longer"))
    };
    Ok(namespaces.iter().copied().zip(answers.into_iter().map(|answer| answer.unwrap_or_else(late))).collect())
}

/// The reservation of calls for namespaces that were not requested yet.
struct Reserved<'c>(&'c Client);

impl Reserved<'_> {
    fn set(&self, calls: usize) {
        self.0.reserve_table_lists(calls);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.set(0);
    }
}
