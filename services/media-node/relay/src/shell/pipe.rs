//! Packet path: one lock for each batch. A pair of bounded queues, one for each
//! direction, between two threads.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Datagrams that wait in one direction: 40 ms of a link that carries ten thousand
/// packets a second in trains of eight, many times over. Beyond, new ones are dropped.
const DATAGRAMS_MAX: usize = 2_048;
/// Bytes of messages that wait in one direction. Beyond, the pipe is closed, because
/// messages must not be lost.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Pipes that wait to be taken by a shard. Beyond, they are closed.
const INBOX_MAX: usize = 256;

/// Called when something waits. It must not block.
#[derive(Clone)]
pub struct Wake(Arc<dyn Fn() + Send + Sync>);

impl Wake {
    /// Wakes by calling this.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wake")
    }
}

/// What goes through a pipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parcel {
    /// A datagram: whole or lost.
    Datagram(Vec<u8>),
    /// A piece of the stream of messages: in order, never lost, cut anywhere.
    Messages(Vec<u8>),
}

#[derive(Debug, Default)]
struct Queue {
    parcels: VecDeque<Parcel>,
    datagrams: usize,
    message_bytes: usize,
    closed: bool,
}

#[derive(Debug)]
struct Lane {
    queue: Mutex<Queue>,
    wake: Wake,
}

impl Lane {
    fn new(wake: Wake) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), wake })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts of what carries a pipe, shared by its two ends.
#[derive(Debug, Default)]
pub struct PipeCounters {
    /// Datagrams that the path had no room for.
    pub congested: AtomicU64,
    /// Longest datagram that fits the path now. 0 means not known.
    pub datagram_max: AtomicUsize,
}

/// One end of a pipe.
#[derive(Debug)]
pub struct Pipe {
    to: Arc<Lane>,
    from: Arc<Lane>,
    counters: Arc<PipeCounters>,
}

impl Pipe {
    /// Two ends; each is woken by its own call when the other sent something.
    #[must_use]
    pub fn pair(wake_a: Wake, wake_b: Wake) -> (Self, Self) {
        let (to_a, to_b) = (Lane::new(wake_a), Lane::new(wake_b));
        let counters = Arc::new(PipeCounters::default());
        let a = Self { to: Arc::clone(&to_b), from: Arc::clone(&to_a), counters };
        let b = Self { to: to_a, from: to_b, counters: Arc::clone(&a.counters) };
        (a, b)
    }

    /// Puts a batch in and wakes the other end if it slept. Returns how many datagrams
    /// were dropped because it is full. `false` beside it if the pipe is closed.
    pub fn send(&self, batch: impl IntoIterator<Item = Parcel>) -> (u64, bool) {
        let mut queue = self.to.lock();
        if queue.closed {
            return (0, false);
        }
        let slept = queue.parcels.is_empty();
        let mut dropped = 0;
        for parcel in batch {
            match &parcel {
                Parcel::Datagram(_) if queue.datagrams >= DATAGRAMS_MAX => {
                    dropped += 1;
                    continue;
                }
                Parcel::Datagram(_) => queue.datagrams += 1,
                Parcel::Messages(bytes) => queue.message_bytes += bytes.len(),
            }
            queue.parcels.push_back(parcel);
        }
        queue.closed |= queue.message_bytes > MESSAGE_BYTES_MAX;
        let (wake, open) = (slept && !queue.parcels.is_empty(), !queue.closed);
        drop(queue);
        if wake {
            self.to.wake.wake();
        }
        (dropped, open)
    }

    /// Takes all that came. `false` if the pipe is closed and nothing more comes.
    pub fn receive(&self, into: &mut VecDeque<Parcel>) -> bool {
        let mut queue = self.from.lock();
        into.append(&mut queue.parcels);
        queue.datagrams = 0;
        queue.message_bytes = 0;
        !queue.closed
    }

    /// Closes both directions; what is in it can still be taken.
    pub fn close(&self) {
        for lane in [&self.to, &self.from] {
            lane.lock().closed = true;
        }
        self.to.wake.wake();
    }

    /// Counts of what carries it.
    #[must_use]
    pub fn counters(&self) -> &PipeCounters {
        &self.counters
    }

    /// Takes how many datagrams the path had no room for since the last call.
    pub(crate) fn take_congested(&self) -> u64 {
        self.counters.congested.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.close();
    }
}

/// Pipes that others opened to a shard and that it has not taken yet.
#[derive(Debug)]
pub struct Inbox {
    pipes: Mutex<VecDeque<Pipe>>,
    /// Some wait. Read before the lock is taken, so that a shard without links pays
    /// none.
    waits: AtomicBool,
    wake: Wake,
}

impl Inbox {
    /// An empty one; `wake` is called when a pipe waits, and for all that comes out of
    /// such pipes.
    #[must_use]
    pub fn new(wake: Wake) -> Arc<Self> {
        Arc::new(Self { pipes: Mutex::default(), waits: AtomicBool::new(false), wake })
    }

    /// How its shard is woken.
    #[must_use]
    pub fn wake(&self) -> Wake {
        self.wake.clone()
    }

    /// Offers a pipe. It is closed if too many wait.
    pub fn offer(&self, pipe: Pipe) {
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        if pipes.len() >= INBOX_MAX {
            return;
        }
        pipes.push_back(pipe);
        self.waits.store(true, Ordering::Release);
        drop(pipes);
        self.wake.wake();
    }

    /// Takes the next.
    pub fn take(&self) -> Option<Pipe> {
        if !self.waits.load(Ordering::Acquire) {
            return None;
        }
        let mut pipes = self.pipes.lock().unwrap_or_else(PoisonError::into_inner);
        let next = pipes.pop_front();
        self.waits.store(!pipes.is_empty(), Ordering::Release);
        next
    }
}
