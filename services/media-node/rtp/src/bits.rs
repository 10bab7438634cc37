//! Packet path: no allocation. Reading and writing of bit fields, most significant
//! bit first.

use crate::{DescriptorError, WriteError};

#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// An unsigned number of at most 32 bits.
    pub(crate) fn bits(&mut self, count: u32) -> Result<u32, DescriptorError> {
        debug_assert!(count <= 32);
        let mut value = 0_u64;
        let mut left = count;
        while left > 0 {
            let byte = *self.bytes.get(self.at / 8).ok_or(DescriptorError::Truncated)?;
            let available = 8 - (self.at % 8) as u32;
            let take = left.min(available);
            let chunk = (u32::from(byte) >> (available - take)) & ((1 << take) - 1);
            value = value << take | u64::from(chunk);
            self.at += take as usize;
            left -= take;
        }
        Ok(value as u32)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, DescriptorError> {
        Ok(self.bits(1)? != 0)
    }

    /// `ns(n)` of the AV1 specification, section 4.10.7: a number below `n`.
    pub(crate) fn non_symmetric(&mut self, n: u32) -> Result<u32, DescriptorError> {
        let (width, short) = non_symmetric_code(n);
        let value = self.bits(width - 1)?;
        if value < short {
            return Ok(value);
        }
        let extra = self.bits(1)?;
        Ok((value << 1) - short + extra)
    }
}

/// Bits of a long code word, and how many values take one bit less.
fn non_symmetric_code(n: u32) -> (u32, u32) {
    let width = u32::BITS - n.leading_zeros();
    let width = width.max(1);
    (width, (1 << width) - n)
}

pub(crate) struct BitWriter<'a> {
    bytes: &'a mut [u8],
    /// In bits.
    at: usize,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The low `count` bits of `value`.
    pub(crate) fn bits(&mut self, value: u32, count: u32) -> Result<(), WriteError> {
        debug_assert!(count <= 32);
        for shift in (0..count).rev() {
            let byte = self.bytes.get_mut(self.at / 8).ok_or(WriteError::NoRoom)?;
            let mask = 0x80 >> (self.at % 8);
            if value >> shift & 1 == 1 {
                *byte |= mask;
            } else {
                *byte &= !mask;
            }
            self.at += 1;
        }
        Ok(())
    }

    pub(crate) fn flag(&mut self, value: bool) -> Result<(), WriteError> {
        self.bits(u32::from(value), 1)
    }

    pub(crate) fn non_symmetric(&mut self, value: u32, n: u32) -> Result<(), WriteError> {
        let (width, short) = non_symmetric_code(n);
        if value < short { self.bits(value, width - 1) } else { self.bits(value + short, width) }
    }

    /// Fills the last byte with zeros and returns how many bytes were written.
    pub(crate) fn finish(mut self) -> Result<usize, WriteError> {
        while !self.at.is_multiple_of(8) {
            self.bits(0, 1)?;
        }
        Ok(self.at / 8)
    }
}
