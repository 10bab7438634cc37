//! Puts handshake messages together from fragments that arrive in any order,
//! repeatedly or never, within fixed bounds.

use std::collections::VecDeque;

use super::record::Fragment;

/// The longest message taken: a ClientHello with post-quantum key shares has
/// 1.5 kB, a certificate chain of a WebRTC peer under 2 kB.
const MESSAGE_MAX: usize = 16 * 1024;
/// Messages put together at a time, from the next expected one on. The longest
/// flight has five.
const AHEAD_MAX: usize = 8;
/// Separate pieces of one message. A sender cuts at its MTU: 16 kB make 15.
const PIECES_MAX: usize = 64;

/// A whole message in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub message_type: u8,
    pub sequence: u16,
    pub body: Vec<u8>,
}

/// Collects fragments and hands out whole messages strictly in order, each one
/// once. Beyond its bounds fragments are dropped; the peer repeats them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    next: u16,
    /// `partial[i]` collects message `next + i`.
    partial: VecDeque<Option<Partial>>,
}

#[derive(Debug)]
struct Partial {
    message_type: u8,
    body: Vec<u8>,
    /// What has arrived: disjoint, sorted, not touching.
    pieces: Vec<(usize, usize)>,
}

impl Inbox {
    /// The sequence number of the message that is waited for.
    pub const fn next_sequence(&self) -> u16 {
        self.next
    }

    /// Takes a fragment. `false` if it was dropped: an earlier message, too far
    /// ahead, or out of bounds.
    pub fn push(&mut self, fragment: Fragment<'_>) -> bool {
        let ahead = usize::from(fragment.sequence.wrapping_sub(self.next));
        let hollow = fragment.data.is_empty() && fragment.length > 0;
        if ahead >= AHEAD_MAX || fragment.length > MESSAGE_MAX || hollow {
            return false;
        }
        while self.partial.len() <= ahead {
            self.partial.push_back(None);
        }
        let partial = self.partial[ahead].get_or_insert_with(|| Partial::new(fragment));
        if partial.message_type != fragment.message_type || partial.body.len() != fragment.length {
            // Fragments of two different messages under one number: somebody
            // else's came first, or comes now. The latest wins.
            *partial = Partial::new(fragment);
        }
        partial.add(fragment)
    }

    /// The next message, if it is whole.
    pub fn pop(&mut self) -> Option<Message> {
        let partial = self.partial.front_mut()?.take_if(|partial| partial.is_whole())?;
        self.partial.pop_front();
        let sequence = self.next;
        self.next = self.next.wrapping_add(1);
        Some(Message { message_type: partial.message_type, sequence, body: partial.body })
    }

    /// Waits for message `sequence` again: it turned out to be worthless.
    pub fn rewind(&mut self, sequence: u16) {
        self.next = sequence;
        self.partial.clear();
    }
}

impl Partial {
    fn new(fragment: Fragment<'_>) -> Self {
        Self {
            message_type: fragment.message_type,
            body: vec![0; fragment.length],
            pieces: Vec::new(),
        }
    }

    fn add(&mut self, fragment: Fragment<'_>) -> bool {
        let (mut start, mut end) = (fragment.offset, fragment.offset + fragment.data.len());
        let touching = |piece: &(usize, usize), start, end| piece.0 <= end && start <= piece.1;
        if self.pieces.len() >= PIECES_MAX
            && !self.pieces.iter().any(|piece| touching(piece, start, end))
        {
            return false;
        }
        self.body[start..end].copy_from_slice(fragment.data);
        self.pieces.retain(|piece| {
            let merges = touching(piece, start, end);
            if merges {
                start = start.min(piece.0);
                end = end.max(piece.1);
            }
            !merges
        });
        let at = self.pieces.partition_point(|piece| piece.0 < start);
        self.pieces.insert(at, (start, end));
        true
    }

    fn is_whole(&self) -> bool {
        self.pieces == [(0, self.body.len())]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fragment(sequence: u16, message: &[u8], offset: usize, length: usize) -> Fragment<'_> {
        Fragment {
            message_type: 1,
            length: message.len(),
            sequence,
            offset,
            data: &message[offset..offset + length],
        }
    }

    #[test]
    fn messages_come_out_in_order_and_once() {
        let mut inbox = Inbox::default();
        assert!(inbox.push(fragment(1, b"second", 0, 6)));
        assert_eq!(inbox.pop(), None);
        assert!(inbox.push(fragment(0, b"first!", 3, 3)));
        assert!(inbox.push(fragment(0, b"first!", 0, 3)));
        assert_eq!(inbox.pop().unwrap().body, b"first!");
        assert_eq!(inbox.pop().unwrap().body, b"second");
        assert_eq!(inbox.pop(), None);
        assert!(!inbox.push(fragment(0, b"first!", 0, 6)), "an old message is dropped");
    }

    #[test]
    fn an_empty_message_is_whole_with_its_first_fragment() {
        let mut inbox = Inbox::default();
        assert!(inbox.push(fragment(0, b"", 0, 0)));
        assert_eq!(inbox.pop().unwrap().body, b"");
    }

    #[test]
    fn bounds_hold() {
        let mut inbox = Inbox::default();
        assert!(!inbox.push(fragment(AHEAD_MAX as u16, b"x", 0, 1)));
        let long = vec![0; MESSAGE_MAX + 1];
        assert!(!inbox.push(fragment(0, &long, 0, 10)));
        let many = vec![7; 1000];
        let taken = (0..500).filter(|index| inbox.push(fragment(0, &many, index * 2, 1))).count();
        assert_eq!(taken, PIECES_MAX);
        assert!(inbox.push(fragment(0, &many, 0, 1000)), "a whole one is still taken");
        assert_eq!(inbox.pop().unwrap().body, many);
    }

    proptest! {
        #[test]
        fn any_order_with_repeats_gives_the_message(
            message in prop::collection::vec(any::<u8>(), 1..300),
            cuts in prop::collection::vec((0usize..300, 1usize..80), 0..40),
        ) {
            let mut inbox = Inbox::default();
            for (offset, length) in cuts {
                let offset = offset % message.len();
                let length = length.min(message.len() - offset);
                inbox.push(fragment(0, &message, offset, length));
            }
            for offset in (0..message.len()).step_by(50).rev() {
                inbox.push(fragment(0, &message, offset, 50.min(message.len() - offset)));
            }
            prop_assert_eq!(inbox.pop().map(|message| message.body), Some(message));
        }
    }
}
