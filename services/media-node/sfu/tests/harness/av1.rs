//! Dependency descriptors of a stream with two spatial and two temporal layers (L2T2),
//! written bit by bit from the AV1 RTP specification, appendix A.

struct Bits {
    bytes: Vec<u8>,
    len: usize,
}

impl Bits {
    fn push(&mut self, value: u32, width: usize) {
        for bit in (0..width).rev() {
            if self.len.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let one = (value >> bit & 1) as u8;
            let last = self.bytes.last_mut().unwrap();
            *last |= one << (7 - self.len % 8);
            self.len += 1;
        }
    }
}

/// Indications of the templates S0T0, S0T1, S1T0, S1T1 for the decode targets in the
/// same order: 0 not present, 1 discardable, 2 switch, 3 required.
const INDICATIONS: [[u32; 4]; 4] = [[2, 2, 3, 3], [0, 1, 0, 3], [0, 0, 2, 2], [0, 0, 0, 1]];
/// Distances to the frames that each template needs (frames are numbered S0, S1, S0, …).
const DIFFS: [&[u32]; 4] = [&[4], &[2], &[4, 1], &[2, 1]];

/// The descriptor of a packet of layer (spatial, temporal); with the structure if
/// `structure`.
pub fn descriptor(
    spatial: u8,
    temporal: u8,
    start: bool,
    end: bool,
    frame_number: u16,
    structure: bool,
) -> Vec<u8> {
    let mut bits = Bits { bytes: Vec::new(), len: 0 };
    bits.push(u32::from(start), 1);
    bits.push(u32::from(end), 1);
    bits.push(u32::from(spatial * 2 + temporal), 6);
    bits.push(u32::from(frame_number), 16);
    if !structure {
        return bits.bytes;
    }
    // Structure present, no active targets, no custom indications, custom references
    // (a keyframe has none), no custom chains.
    bits.push(0b10010, 5);
    bits.push(0, 6);
    bits.push(4 - 1, 5);
    for step in [1, 2, 1, 3] {
        bits.push(step, 2);
    }
    for template in INDICATIONS {
        for indication in template {
            bits.push(indication, 2);
        }
    }
    for template in DIFFS {
        for diff in template {
            bits.push(1, 1);
            bits.push(diff - 1, 4);
        }
        bits.push(0, 1);
    }
    // No chains: 0 out of 5 takes two bits.
    bits.push(0, 2);
    // No resolutions.
    bits.push(0, 1);
    // Custom references: none.
    bits.push(0, 2);
    bits.bytes
}
