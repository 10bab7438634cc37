//! A watch that never ends: what is there, then every change once and in order,
//! over broken streams, changes of leader and compactions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::key::{Key, Prefix};
use crate::store::{Change, Changes, Entry, Revision, Snapshot, Store, WatchError};

/// Events waiting for the owner. When they are not fetched the watch stops
/// reading; falling too far behind costs a listing, never a change.
const EVENTS_MAX: usize = 256;

/// Pauses before watching again: the first one and the longest one, each varied
/// by half.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What a watch tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// What is there: the first event, and only that.
    Snapshot(Snapshot),
    /// What changed since the event before. After a gap in the history these
    /// are the differences, deletions first, without the steps between.
    Changes(Changes),
}

/// Whether what a watch has told is up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchState {
    /// There has been no snapshot yet.
    Connecting,
    /// Changes are told as they happen.
    Following,
    /// The registry cannot be heard; what was told may be out of date.
    Interrupted,
}

/// Follows a prefix. It works in a task of its own until it is dropped.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<WatchEvent>,
    state: watch::Receiver<WatchState>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Begins to follow a prefix. One watch a process and prefix is enough: hand
    /// its events on within the process.
    ///
    /// # Panics
    /// If called outside a tokio runtime.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, prefix: Prefix) -> Self {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let (states, state) = watch::channel(WatchState::Connecting);
        let follower = Follower {
            store,
            prefix,
            events: sender,
            state: states,
            known: None,
            after: Revision(0),
            backoff: BACKOFF_MIN,
            complained: false,
        };
        Self { events, state, task: tokio::spawn(follower.run()) }
    }

    /// The next event; waits for it however long the registry is away. May be
    /// dropped without losing an event.
    pub async fn next(&mut self) -> WatchEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The task ends before this only when its runtime shuts down.
            None => std::future::pending().await,
        }
    }

    /// Whether what was told is up to date, now and whenever that changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<WatchState> {
        self.state.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The owner of the watch was dropped.
struct Unwanted;

struct Follower {
    store: Arc<dyn Store>,
    prefix: Prefix,
    events: mpsc::Sender<WatchEvent>,
    state: watch::Sender<WatchState>,
    /// The revision of every key that was told, once there was a snapshot.
    known: Option<BTreeMap<Key, Revision>>,
    after: Revision,
    backoff: Duration,
    /// The present trouble is in the log already.
    complained: bool,
}

impl Follower {
    async fn run(mut self) {
        // It ends when nobody wants its events any more.
        let _: Result<(), Unwanted> = async {
            loop {
                self.list().await?;
                self.follow().await?;
            }
        }
        .await;
    }

    /// Lists until it succeeds and tells what is there, or what is different.
    async fn list(&mut self) -> Result<(), Unwanted> {
        let snapshot = loop {
            match self.store.list(&self.prefix).await {
                Ok(snapshot) => break snapshot,
                Err(error) => self.interrupted(&error),
            }
            self.pause().await;
        };
        self.after = snapshot.revision;
        let now = snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.mod_revision));
        match self.known.replace(now.collect()) {
            None => self.tell(WatchEvent::Snapshot(snapshot)).await,
            Some(before) => match differences(&before, snapshot) {
                Some(changes) => self.tell(WatchEvent::Changes(changes)).await,
                None => Ok(()),
            },
        }
    }

    /// Tells changes until the history has a gap.
    async fn follow(&mut self) -> Result<(), Unwanted> {
        loop {
            match self.follow_stream().await? {
                WatchError::Interrupted(cause) => self.interrupted(&*cause),
                gap @ WatchError::Gap { .. } => {
                    tracing::info!(prefix = %self.prefix, reason = %gap, "watch lists again");
                    self.state.send_replace(WatchState::Interrupted);
                    // A member that lags would else be asked in a tight loop.
                    self.pause().await;
                    return Ok(());
                }
            }
            self.pause().await;
        }
    }

    /// Tells the changes of one stream until it breaks.
    async fn follow_stream(&mut self) -> Result<WatchError, Unwanted> {
        let mut stream = match self.store.watch(&self.prefix, self.after).await {
            Ok(stream) => stream,
            Err(error) => return Ok(error),
        };
        self.state.send_replace(WatchState::Following);
        self.complained = false;
        while let Some(news) = stream.next().await {
            let mut changes = match news {
                Ok(changes) => changes,
                Err(error) => return Ok(error),
            };
            self.backoff = BACKOFF_MIN;
            changes.changes.retain(|change| change.revision() > self.after);
            if !changes.changes.is_empty() {
                self.after = changes.revision;
                self.learn(&changes);
                self.tell(WatchEvent::Changes(changes)).await?;
            }
        }
        Ok(WatchError::Interrupted("the stream ended".into()))
    }

    fn learn(&mut self, changes: &Changes) {
        let known = self.known.get_or_insert_default();
        for change in &changes.changes {
            match change {
                Change::Put(entry) => known.insert(entry.key.clone(), entry.mod_revision),
                Change::Deleted { key, .. } => known.remove(key),
            };
        }
    }

    async fn tell(&self, event: WatchEvent) -> Result<(), Unwanted> {
        self.events.send(event).await.map_err(|_| Unwanted)
    }

    /// Notes that the registry cannot be heard.
    fn interrupted(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.state.send_replace(match &self.known {
            Some(_) => WatchState::Interrupted,
            None => WatchState::Connecting,
        });
        if !self.complained {
            self.complained = true;
            tracing::info!(prefix = %self.prefix, error, "watch interrupted, trying again");
        }
    }

    async fn pause(&mut self) {
        sleep(self.backoff.mul_f64(rand::random_range(0.5..1.5))).await;
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }
}

/// What leads from the keys known before to a listing; `None` if nothing.
fn differences(before: &BTreeMap<Key, Revision>, now: Snapshot) -> Option<Changes> {
    let revision = now.revision;
    let there: BTreeMap<&Key, &Entry> = now.entries.iter().map(|e| (&e.key, e)).collect();
    let gone = before.keys().filter(|key| !there.contains_key(key));
    let mut changes: Vec<Change> =
        gone.map(|key| Change::Deleted { key: key.clone(), revision }).collect();
    let mut written: Vec<Entry> = now
        .entries
        .into_iter()
        .filter(|entry| before.get(&entry.key) != Some(&entry.mod_revision))
        .collect();
    written.sort_by_key(|entry| entry.mod_revision);
    changes.extend(written.into_iter().map(Change::Put));
    (!changes.is_empty()).then_some(Changes { revision, changes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, revision: u64) -> Entry {
        Entry {
            key: Key::new(name).unwrap(),
            value: "v".into(),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            version: 1,
            lease: None,
        }
    }

    #[test]
    fn differences_are_deletions_then_writes_in_order() {
        let before: BTreeMap<_, _> = [("a", 1), ("b", 2), ("c", 3)]
            .map(|(name, revision)| (Key::new(name).unwrap(), Revision(revision)))
            .into();
        let now = Snapshot {
            entries: vec![entry("b", 9), entry("c", 3), entry("d", 7)],
            revision: Revision(10),
        };
        let changes = differences(&before, now).unwrap();
        assert_eq!(
            changes.changes,
            [
                Change::Deleted { key: Key::new("a").unwrap(), revision: Revision(10) },
                Change::Put(entry("d", 7)),
                Change::Put(entry("b", 9)),
            ]
        );
    }

    #[test]
    fn a_value_that_went_back_in_time_is_a_difference() {
        // The registry was restored from a backup.
        let before = [(Key::new("a").unwrap(), Revision(9))].into();
        let now = Snapshot { entries: vec![entry("a", 3)], revision: Revision(4) };
        assert_eq!(differences(&before, now).unwrap().changes, [Change::Put(entry("a", 3))]);
    }

    #[test]
    fn nothing_new_is_nothing_told() {
        let before = [(Key::new("a").unwrap(), Revision(3))].into();
        let now = Snapshot { entries: vec![entry("a", 3)], revision: Revision(4) };
        assert_eq!(differences(&before, now), None);
    }
}
