//! DTLS 1.2 records (RFC 6347 §4.1) and handshake fragments (§4.2.2) as views
//! over received bytes, and plain handshake records written whole.

pub(super) const RECORD_HEADER: usize = 13;
pub(super) const HANDSHAKE_HEADER: usize = 12;

pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
pub(super) const ALERT: u8 = 21;
pub(super) const HANDSHAKE: u8 = 22;
pub(super) const APPLICATION_DATA: u8 = 23;

pub(super) const CLIENT_HELLO: u8 = 1;
pub(super) const HELLO_VERIFY_REQUEST: u8 = 3;
const FINISHED: u8 = 20;

const DTLS_1_0: [u8; 2] = [0xfe, 0xff];
const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];

/// One record of a datagram.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record<'a> {
    pub content: u8,
    pub epoch: u16,
    /// Header and body as received.
    pub raw: &'a [u8],
    pub body: &'a [u8],
}

/// The records of a datagram up to the first malformed one.
pub(super) fn records(datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.len() <= RECORD_HEADER {
            return None;
        }
        let version = [rest[1], rest[2]];
        let length = usize::from(u16::from_be_bytes([rest[11], rest[12]]));
        let end = RECORD_HEADER + length;
        if length == 0 || rest.len() < end || (version != DTLS_1_0 && version != DTLS_1_2) {
            return None;
        }
        let (raw, behind) = rest.split_at(end);
        rest = behind;
        Some(Record {
            content: raw[0],
            epoch: u16::from_be_bytes([raw[3], raw[4]]),
            raw,
            body: &raw[RECORD_HEADER..],
        })
    })
}

/// One fragment of a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment<'a> {
    pub message_type: u8,
    /// Length of the whole message.
    pub length: usize,
    pub sequence: u16,
    pub offset: usize,
    pub data: &'a [u8],
}

/// The handshake fragments of a plain record's body up to the first bad one.
pub(super) fn fragments(body: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.len() < HANDSHAKE_HEADER {
            return None;
        }
        let (header, behind) = rest.split_at(HANDSHAKE_HEADER);
        let (length, offset, data_len) = (u24(header, 1), u24(header, 6), u24(header, 9));
        if data_len > behind.len() || offset + data_len > length {
            return None;
        }
        let (data, behind) = behind.split_at(data_len);
        rest = behind;
        Some(Fragment {
            message_type: header[0],
            length,
            sequence: u16::from_be_bytes([header[4], header[5]]),
            offset,
            data,
        })
    })
}

/// A whole handshake message as one plain record of epoch 0.
pub(super) fn plain_message(
    record_sequence: u64,
    message_type: u8,
    sequence: u16,
    body: &[u8],
) -> Vec<u8> {
    let mut message = Vec::with_capacity(HANDSHAKE_HEADER + body.len());
    message.push(message_type);
    push_u24(&mut message, body.len());
    message.extend_from_slice(&sequence.to_be_bytes());
    push_u24(&mut message, 0);
    push_u24(&mut message, body.len());
    message.extend_from_slice(body);
    plain_record(record_sequence, HANDSHAKE, &message)
}

/// A record of epoch 0.
pub(super) fn plain_record(record_sequence: u64, content: u8, body: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD_HEADER + body.len());
    record.push(content);
    record.extend_from_slice(&DTLS_1_2);
    record.extend_from_slice(&[0, 0]);
    record.extend_from_slice(&record_sequence.to_be_bytes()[2..]);
    // Messages are bounded far below 2^16 by the inbox.
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(body);
    record
}

/// An empty Finished with a sequence number long past: tells the library that
/// the peer repeats its last flight, and leaves nothing behind in its buffers.
pub(super) fn repeat_notice(record_sequence: u64) -> Vec<u8> {
    plain_message(record_sequence, FINISHED, 0, &[])
}

/// Gives every plain record of an outgoing datagram the next record sequence
/// number, so that repeated flights are not repeated records (RFC 6347 §4.2.4).
pub(super) fn renumber(datagram: &mut [u8], next: &mut u64) {
    let mut offset = 0;
    while let Some(header) = datagram.get_mut(offset..offset + RECORD_HEADER) {
        if header[3..5] == [0, 0] {
            header[5..11].copy_from_slice(&next.to_be_bytes()[2..]);
            *next += 1;
        }
        offset += RECORD_HEADER + usize::from(u16::from_be_bytes([header[11], header[12]]));
    }
}

fn u24(bytes: &[u8], offset: usize) -> usize {
    usize::from(bytes[offset]) << 16
        | usize::from(bytes[offset + 1]) << 8
        | usize::from(bytes[offset + 2])
}

fn push_u24(bytes: &mut Vec<u8>, value: usize) {
    bytes.extend_from_slice(&(value as u32).to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_message_reads_back() {
        let record = plain_message(7, CLIENT_HELLO, 3, b"hello");
        let read: Vec<_> = records(&record).collect();
        assert_eq!(read.len(), 1);
        assert_eq!((read[0].content, read[0].epoch), (HANDSHAKE, 0));
        let expected = Fragment {
            message_type: CLIENT_HELLO,
            length: 5,
            sequence: 3,
            offset: 0,
            data: b"hello",
        };
        assert_eq!(fragments(read[0].body).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn reading_stops_at_the_first_malformed_record_or_fragment() {
        let good = plain_message(0, CLIENT_HELLO, 0, b"x");
        let mut two = good.clone();
        two.extend_from_slice(&good[..good.len() - 1]);
        assert_eq!(records(&two).count(), 1);
        let mut wrong_version = good.clone();
        wrong_version[1] = 3;
        assert_eq!(records(&wrong_version).count(), 0);
        let mut body = good[RECORD_HEADER..].to_vec();
        body[8] = 1;
        assert_eq!(fragments(&body).count(), 0, "offset beyond the message");
    }

    #[test]
    fn renumbering_touches_plain_records_only() {
        let mut datagram = plain_message(0, CLIENT_HELLO, 0, b"a");
        let mut sealed = plain_record(9, APPLICATION_DATA, b"b");
        sealed[4] = 1;
        datagram.extend_from_slice(&sealed);
        datagram.extend_from_slice(&plain_record(0, CHANGE_CIPHER_SPEC, &[1]));
        let mut next = 40;
        renumber(&mut datagram, &mut next);
        let sequences: Vec<u8> = records(&datagram).map(|record| record.raw[10]).collect();
        assert_eq!((sequences, next), (vec![40, 9, 41], 42));
    }
}
