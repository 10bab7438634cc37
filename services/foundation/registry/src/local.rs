//! One task that owns an [`Engine`] and, if there is one, its journal, and does
//! what it is sent one after the other. The memory and the embedded registry
//! are handles to such a task.

use std::fmt;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::engine::{Engine, Prepared, restrict};
use crate::key::{Key, Prefix};
use crate::store::{
    Change, ChangeStream, Changes, Entry, Lease, LeaseId, Revision, Snapshot, Store, StoreError,
    WatchError,
};
use crate::transaction::{Committed, Transaction};

/// Commands waiting for the task; who sends one more waits.
const COMMANDS_MAX: usize = 256;

/// Revisions waiting for one watcher. One that falls further behind is cut off
/// and resumes from the history.
const WATCHER_REVISIONS_MAX: usize = 1024;

/// Most watchers. The one that has read least is not known, so a further one is
/// refused.
const WATCHERS_MAX: usize = 4096;

/// Sleep of a task without leases; any length would do.
const IDLE: Duration = Duration::from_secs(3600);

/// Where writes are kept before anybody is told of them.
pub trait Journal: Send + 'static {
    /// Keeps one revision's changes, all or none.
    fn append(&mut self, revision: Revision, changes: &[Change]) -> Result<(), StoreError>;
}

/// Keeps nothing.
#[derive(Debug)]
pub struct NoJournal;

impl Journal for NoJournal {
    fn append(&mut self, _: Revision, _: &[Change]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Why a local watch ended.
#[derive(Debug, thiserror::Error)]
enum Interruption {
    #[error(
        "the watcher fell more than {WATCHER_REVISIONS_MAX} revisions behind, or the registry was closed"
    )]
    CutOff,
    #[error("there are {WATCHERS_MAX} watchers already")]
    TooManyWatchers,
    #[error("the registry is closed")]
    Closed,
}

type Reply<T> = oneshot::Sender<T>;
type Following = (Vec<Changes>, mpsc::Receiver<Changes>);

enum Command {
    Revision(Reply<Revision>),
    Get(Key, Reply<Option<Entry>>),
    List(Prefix, Reply<Snapshot>),
    Commit(Transaction, Reply<Result<Committed, StoreError>>),
    Grant(Duration, Reply<Result<Lease, StoreError>>),
    KeepAlive(LeaseId, Reply<Result<(), StoreError>>),
    Revoke(LeaseId, Reply<Result<(), StoreError>>),
    Watch(Prefix, Revision, Reply<Result<Following, WatchError>>),
    Compact(Revision, Reply<()>),
}

/// The task's state. [`Owner::run`] is the task.
pub struct Owner<J> {
    engine: Engine,
    journal: J,
    commands: mpsc::Receiver<Command>,
    watchers: Vec<(Prefix, mpsc::Sender<Changes>)>,
}

/// A handle, and the task to run somewhere.
pub fn local<J: Journal>(engine: Engine, journal: J) -> (Local, Owner<J>) {
    let (sender, commands) = mpsc::channel(COMMANDS_MAX);
    (Local { commands: sender }, Owner { engine, journal, commands, watchers: Vec::new() })
}

impl<J: Journal> Owner<J> {
    /// Works until all handles are gone.
    pub async fn run(mut self) {
        loop {
            let wake = self.engine.poll_timeout().map_or_else(|| Instant::now() + IDLE, Into::into);
            let command = tokio::select! {
                biased;
                () = tokio::time::sleep_until(wake) => None,
                command = self.commands.recv() => match command {
                    Some(command) => Some(command),
                    None => return,
                },
            };
            self.end_leases();
            if let Some(command) = command {
                self.handle(command);
            }
        }
    }

    fn handle(&mut self, command: Command) {
        // A caller that went away no longer wants the answer.
        match command {
            Command::Revision(reply) => drop(reply.send(self.engine.revision())),
            Command::Get(key, reply) => drop(reply.send(self.engine.get(&key))),
            Command::List(prefix, reply) => drop(reply.send(self.engine.list(&prefix))),
            Command::Commit(transaction, reply) => drop(reply.send(self.commit(transaction))),
            Command::Grant(ttl, reply) => {
                drop(reply.send(self.engine.grant(Instant::now().into_std(), ttl)));
            }
            Command::KeepAlive(lease, reply) => {
                drop(reply.send(self.engine.keep_alive(Instant::now().into_std(), lease)));
            }
            Command::Revoke(lease, reply) => drop(reply.send(self.end_lease(lease))),
            Command::Watch(prefix, after, reply) => drop(reply.send(self.watch(prefix, after))),
            Command::Compact(up_to, reply) => {
                self.engine.compact(up_to);
                let _ = reply.send(());
            }
        }
    }

    fn commit(&mut self, transaction: Transaction) -> Result<Committed, StoreError> {
        let prepared = self.engine.prepare(transaction)?;
        self.write(prepared)
    }

    fn write(&mut self, prepared: Prepared) -> Result<Committed, StoreError> {
        if !prepared.changes.is_empty() {
            self.journal.append(prepared.committed.revision, &prepared.changes)?;
        }
        let (committed, told) = self.engine.apply(prepared);
        if let Some(changes) = told {
            self.tell(&changes);
        }
        Ok(committed)
    }

    /// Hands changes to the watchers; one whose queue is full is cut off.
    fn tell(&mut self, changes: &Changes) {
        self.watchers.retain(|(prefix, watcher)| match restrict(changes, prefix) {
            Some(concerned) => watcher.try_send(concerned).is_ok(),
            None => !watcher.is_closed(),
        });
    }

    fn end_leases(&mut self) {
        while let Some(lease) = self.engine.expired(Instant::now().into_std()) {
            if let Err(error) = self.end_lease(lease) {
                // Leaving the lease as it is would spin; it starts anew instead.
                tracing::warn!(%lease, error = &error as &dyn std::error::Error,
                    "the end of a lease could not be written");
                drop(self.engine.keep_alive(Instant::now().into_std(), lease));
            }
        }
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        if let Some(prepared) = self.engine.prepare_end(lease) {
            let _ = self.write(prepared)?;
            self.engine.forget_lease(lease);
        }
        Ok(())
    }

    fn watch(&mut self, prefix: Prefix, after: Revision) -> Result<Following, WatchError> {
        let backlog = self.engine.changes_after(after, &prefix)?;
        self.watchers.retain(|(_, watcher)| !watcher.is_closed());
        if self.watchers.len() >= WATCHERS_MAX {
            return Err(WatchError::Interrupted(Interruption::TooManyWatchers.into()));
        }
        let (sender, receiver) = mpsc::channel(WATCHER_REVISIONS_MAX);
        self.watchers.push((prefix, sender));
        Ok((backlog, receiver))
    }
}

/// A handle to the task.
#[derive(Clone)]
pub struct Local {
    commands: mpsc::Sender<Command>,
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}

impl Local {
    /// A handle to nothing.
    pub fn closed() -> Self {
        Self { commands: mpsc::channel(1).0 }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    pub async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.ask(|reply| Command::Compact(up_to, reply)).await
    }
}

#[async_trait::async_trait]
impl Store for Local {
    async fn revision(&self) -> Result<Revision, StoreError> {
        self.ask(Command::Revision).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.ask(|reply| Command::Get(key.clone(), reply)).await
    }

    async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError> {
        self.ask(|reply| Command::List(prefix.clone(), reply)).await
    }

    async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        self.ask(|reply| Command::Commit(transaction, reply)).await?
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
        self.ask(|reply| Command::Grant(ttl, reply)).await?
    }

    async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Command::KeepAlive(lease, reply)).await?
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Command::Revoke(lease, reply)).await?
    }

    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<ChangeStream, WatchError> {
        let asked = self.ask(|reply| Command::Watch(prefix.clone(), after, reply)).await;
        let Ok(following) = asked else {
            return Err(WatchError::Interrupted(Interruption::Closed.into()));
        };
        let (backlog, live) = following?;
        let live = stream::unfold(live, |mut live| async move {
            let changes = live.recv().await?;
            Some((Ok(changes), live))
        });
        let end = stream::once(async { Err(WatchError::Interrupted(Interruption::CutOff.into())) });
        Ok(stream::iter(backlog.into_iter().map(Ok)).chain(live).chain(end).boxed())
    }
}

/// Implements [`Store`] for a type by handing every call to its field `local`.
macro_rules! store_by_local {
    ($store:ty) => {
        #[async_trait::async_trait]
        impl crate::store::Store for $store {
            async fn revision(&self) -> Result<Revision, StoreError> {
                self.local.revision().await
            }
            async fn get(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
                self.local.get(key).await
            }
            async fn list(&self, prefix: &Prefix) -> Result<Snapshot, StoreError> {
                self.local.list(prefix).await
            }
            async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
                self.local.commit(transaction).await
            }
            async fn grant_lease(&self, ttl: Duration) -> Result<Lease, StoreError> {
                self.local.grant_lease(ttl).await
            }
            async fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
                self.local.keep_alive(lease).await
            }
            async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
                self.local.revoke_lease(lease).await
            }
            async fn watch(
                &self,
                prefix: &Prefix,
                after: Revision,
            ) -> Result<ChangeStream, WatchError> {
                self.local.watch(prefix, after).await
            }
        }
    };
}
pub(crate) use store_by_local;

#[cfg(test)]
mod tests;
