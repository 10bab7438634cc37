//! Packet path. One QUIC connection: its links' streams and their datagrams.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use headwater_model::ShardIndex;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::sync::Notify;

use super::Counters;
use crate::shell::in_process::Switchboard;
use crate::shell::pipe::{Parcel, Pipe, Wake};

/// First bytes of a link's stream: what it is, and which shard it is for.
const MAGIC: [u8; 4] = *b"HWR1";
/// Bytes before a datagram: the id of its link's stream.
const PREFIX: usize = 4;
/// Datagrams handed to shards with one lock.
const BATCH_MAX: usize = 64;
/// Longest piece of a stream that is read at once.
const PIECE_MAX: usize = 64 * 1024;
/// Messages that wait for a peer to take them, in bytes. Beyond, the link ends.
const WAITING_MAX: usize = 32 * 1024 * 1024;

/// Wakes a link's task when its shard has sent something.
#[derive(Debug, Clone, Default)]
pub(super) struct Doorbell(Arc<Notify>);

impl Doorbell {
    pub(super) fn wake(&self) -> Wake {
        let bell = Arc::clone(&self.0);
        Wake::new(move || bell.notify_one())
    }
}

/// A connection.
pub(super) struct Connection {
    quic: quinn::Connection,
    /// By stream.
    links: Mutex<BTreeMap<u32, Arc<Pipe>>>,
    counters: Arc<Counters>,
}

impl Connection {
    pub(super) fn new(quic: quinn::Connection, counters: Arc<Counters>) -> Arc<Self> {
        Arc::new(Self { quic, links: Mutex::default(), counters })
    }

    pub(super) fn is_open(&self) -> bool {
        self.quic.close_reason().is_none()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Pipe>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes datagrams and links of the peer until the connection ends.
    pub(super) async fn serve(self: Arc<Self>, switchboard: Switchboard) {
        let datagrams = Arc::clone(&self).read_datagrams();
        let streams = Arc::clone(&self).accept_links(switchboard);
        tokio::join!(datagrams, streams);
        self.lock().clear();
    }

    async fn accept_links(self: Arc<Self>, switchboard: Switchboard) {
        while let Ok((send, mut receive)) = self.quic.accept_bi().await {
            let switchboard = switchboard.clone();
            let connection = Arc::clone(&self);
            tokio::spawn(async move {
                let mut head = [0; MAGIC.len() + 2];
                if receive.read_exact(&mut head).await.is_err() || head[..4] != MAGIC {
                    return;
                }
                let shard = ShardIndex(u16::from_be_bytes([head[4], head[5]]));
                let Some(inbox) = switchboard.inbox_of(shard) else { return };
                let doorbell = Doorbell::default();
                let (near, far) = Pipe::pair(doorbell.wake(), inbox.wake());
                connection.tell_size(&near);
                inbox.offer(far);
                connection.carry(send, receive, near, doorbell).await;
            });
        }
    }

    /// Opens a link to a shard of the peer.
    pub(super) async fn open(self: Arc<Self>, shard: ShardIndex, pipe: Pipe, doorbell: Doorbell) {
        let Ok((mut send, receive)) = self.quic.open_bi().await else { return };
        let mut head = [0; MAGIC.len() + 2];
        head[..4].copy_from_slice(&MAGIC);
        head[4..].copy_from_slice(&shard.0.to_be_bytes());
        if send.write_all(&head).await.is_ok() {
            self.carry(send, receive, pipe, doorbell).await;
        }
    }

    /// Carries a link between its pipe and its stream until either ends.
    async fn carry(
        self: Arc<Self>,
        mut send: SendStream,
        mut receive: RecvStream,
        pipe: Pipe,
        doorbell: Doorbell,
    ) {
        let id = u64::from(VarInt::from(send.id())) as u32;
        let pipe = Arc::new(pipe);
        self.lock().insert(id, Arc::clone(&pipe));
        let mut parcels = VecDeque::new();
        // At most `WAITING_MAX` bytes, the first of which may be partly written.
        let mut waiting: VecDeque<Vec<u8>> = VecDeque::new();
        let (mut waiting_bytes, mut written) = (0, 0);
        let mut open = true;
        while open || !waiting.is_empty() {
            if open {
                open = pipe.receive(&mut parcels);
                self.tell_size(&pipe);
                for parcel in parcels.drain(..) {
                    match parcel {
                        Parcel::Datagram(bytes) => self.send_datagram(id, &bytes, &pipe),
                        Parcel::Messages(bytes) => {
                            waiting_bytes += bytes.len();
                            waiting.push_back(bytes);
                        }
                    }
                }
            }
            if waiting_bytes > WAITING_MAX {
                break;
            }
            let front = waiting.front().map_or(&[][..], |bytes| &bytes[written..]);
            tokio::select! {
                () = doorbell.0.notified(), if open => {}
                done = send.write(front), if !front.is_empty() => match done {
                    Ok(count) => written += count,
                    Err(_) => break,
                },
                chunk = receive.read_chunk(PIECE_MAX, true), if open => match chunk {
                    Ok(Some(chunk)) => {
                        let (_, taken) = pipe.send([Parcel::Messages(chunk.bytes.to_vec())]);
                        open &= taken;
                    }
                    Ok(None) | Err(_) => break,
                },
                else => {}
            }
            if waiting.front().is_some_and(|bytes| written >= bytes.len()) {
                waiting_bytes -= waiting.pop_front().map_or(0, |bytes| bytes.len());
                written = 0;
            }
        }
        self.lock().remove(&id);
        let _ = send.finish();
        pipe.close();
    }

    /// Tells the shard how long its datagrams may be.
    fn tell_size(&self, pipe: &Pipe) {
        let longest = self.quic.max_datagram_size().unwrap_or(0).saturating_sub(PREFIX);
        pipe.counters().datagram_max.store(longest, Ordering::Relaxed);
    }

    fn send_datagram(&self, id: u32, bytes: &[u8], pipe: &Pipe) {
        let len = PREFIX + bytes.len();
        let mut datagram = Vec::with_capacity(len);
        datagram.extend_from_slice(&id.to_be_bytes());
        datagram.extend_from_slice(bytes);
        // Without room QUIC would drop the oldest, which may be most of a keyframe.
        let fits = self.quic.datagram_send_buffer_space() >= len;
        if fits && self.quic.send_datagram(datagram.into()).is_ok() {
            Counters::add(&self.counters.datagrams_out, 1);
            Counters::add(&self.counters.datagram_bytes_out, len as u64);
        } else {
            Counters::add(&self.counters.congested, 1);
            pipe.counters().congested.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn read_datagrams(self: Arc<Self>) {
        while let Ok(first) = self.quic.read_datagram().await {
            let mut batch = BTreeMap::<u32, Vec<Parcel>>::new();
            self.sort_in(&first, &mut batch);
            for _ in 1..BATCH_MAX {
                match poll_once(self.quic.read_datagram()) {
                    Some(Ok(next)) => self.sort_in(&next, &mut batch),
                    Some(Err(_)) | None => break,
                }
            }
            for (id, parcels) in batch {
                let pipe = self.lock().get(&id).cloned();
                match pipe {
                    Some(pipe) => {
                        let (dropped, _) = pipe.send(parcels);
                        Counters::add(&self.counters.congested, dropped);
                    }
                    None => Counters::add(&self.counters.stray, parcels.len() as u64),
                }
            }
        }
    }

    fn sort_in(&self, datagram: &[u8], batch: &mut BTreeMap<u32, Vec<Parcel>>) {
        match datagram.split_first_chunk::<PREFIX>() {
            Some((id, bytes)) => batch
                .entry(u32::from_be_bytes(*id))
                .or_default()
                .push(Parcel::Datagram(bytes.to_vec())),
            None => Counters::add(&self.counters.stray, 1),
        }
    }
}

/// What is ready without waiting.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
