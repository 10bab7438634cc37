//! What is told of a track before its first packet: who publishes it, what was
//! negotiated for it, and the way it came.

use headwater_model::media::{
    Codec, Encoding, ExtensionIds, MediaKind, PayloadMapping, Publication,
};
use headwater_model::{ParticipantUid, TrackUid};
use headwater_sfu::{CODECS_MAX, ENCODINGS_MAX};

use crate::codec::{Malformed, Reader, Writer};
use crate::frame::HOPS_MAX;
use crate::plan::ShardTag;

/// Longest text of a publication.
const TEXT_MAX: usize = 1_024;

/// A published track as other shards know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackInfo {
    /// The track.
    pub track: TrackUid,
    /// Who publishes it. Tracks of one participant share a clock.
    pub participant: ParticipantUid,
    /// Counts the origins of the track: when its publisher moves to another shard the
    /// next is higher, and what the old one still sends is refused.
    pub epoch: u32,
    /// What was negotiated with the publisher, without SSRCs and header extension ids:
    /// those are of its own transport.
    pub publication: Publication,
}

impl TrackInfo {
    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.text(self.track.as_str());
        writer.text(self.participant.as_str());
        writer.u32(self.epoch);
        let publication = &self.publication;
        writer.u8(u8::from(publication.kind == MediaKind::Video));
        writer.text(&publication.mid);
        writer.list(&publication.codecs, write_mapping);
        writer.list(&publication.encodings, write_encoding);
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let track = TrackUid::from_raw(reader.text(TEXT_MAX)?);
        let participant = ParticipantUid::from_raw(reader.text(TEXT_MAX)?);
        let epoch = reader.u32()?;
        let kind = if reader.u8()? == 0 { MediaKind::Audio } else { MediaKind::Video };
        let mid = reader.text(255)?.to_owned();
        let codecs = reader.list(CODECS_MAX, read_mapping)?;
        let encodings = reader.list(ENCODINGS_MAX, read_encoding)?;
        if encodings.is_empty() {
            return Err(reader.malformed());
        }
        let extensions = ExtensionIds::default();
        let publication = Publication { kind, mid, codecs, extensions, encodings };
        Ok(Self { track, participant, epoch, publication })
    }
}

fn codec_number(codec: Codec) -> u8 {
    match codec {
        Codec::Opus => 0,
        Codec::Vp8 => 1,
        Codec::H264 => 2,
        Codec::Vp9 => 3,
        Codec::Av1 => 4,
    }
}

/// In place of the codec's number: RED (RFC 2198) around Opus.
const RED_NUMBER: u8 = 128;

fn write_mapping(writer: &mut Writer<'_>, mapping: &PayloadMapping) {
    // What a block carries stands in front of the rest.
    if let Some(payload_type) = mapping.red_of {
        writer.u8(RED_NUMBER);
        writer.u8(payload_type);
    } else {
        writer.u8(codec_number(mapping.codec));
    }
    writer.u8(mapping.payload_type);
    writer.text(&mapping.format);
}

/// Between shards everything can be asked for again, and retransmissions are packets
/// like any other.
fn read_mapping(reader: &mut Reader<'_>) -> Result<PayloadMapping, Malformed> {
    let number = reader.u8()?;
    let (codec, red_of) = if number == RED_NUMBER {
        (Some(Codec::Opus), Some(reader.u8()? & 0x7f))
    } else {
        (Codec::ALL.into_iter().find(|codec| codec_number(*codec) == number), None)
    };
    Ok(PayloadMapping {
        codec: codec.ok_or(reader.malformed())?,
        payload_type: reader.u8()? & 0x7f,
        rtx_payload_type: None,
        format: reader.text(TEXT_MAX)?.to_owned(),
        nack: true,
        pli: true,
        transport_cc: false,
        red_of,
    })
}

fn write_encoding(writer: &mut Writer<'_>, encoding: &Encoding) {
    writer.u8(encoding.spatial);
    writer.text(encoding.rid.as_deref().unwrap_or_default());
    writer.u32(encoding.width);
    writer.u32(encoding.height);
    writer.u32(encoding.bitrate);
}

fn read_encoding(reader: &mut Reader<'_>) -> Result<Encoding, Malformed> {
    let spatial = reader.u8()?;
    let rid = reader.text(255)?;
    Ok(Encoding {
        spatial,
        rid: (!rid.is_empty()).then(|| rid.to_owned()),
        ssrc: None,
        rtx_ssrc: None,
        width: reader.u32()?,
        height: reader.u32()?,
        bitrate: reader.u32()?,
    })
}

/// The shards an announcement has passed, its origin first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(Vec<ShardTag>);

impl Path {
    /// The way from a shard to itself.
    #[must_use]
    pub fn from_origin(origin: ShardTag) -> Self {
        Self(vec![origin])
    }

    /// One shard further. `None` if that shard is on it already, or it is too long.
    #[must_use]
    pub fn extended(&self, shard: ShardTag) -> Option<Self> {
        if self.0.contains(&shard) || self.0.len() >= usize::from(HOPS_MAX) {
            return None;
        }
        let mut longer = self.0.clone();
        longer.push(shard);
        Some(Self(longer))
    }

    /// Links from the origin to here.
    #[must_use]
    pub fn hops(&self) -> u8 {
        u8::try_from(self.0.len().saturating_sub(1)).unwrap_or(u8::MAX)
    }

    /// It passed this shard.
    #[must_use]
    pub fn contains(&self, shard: ShardTag) -> bool {
        self.0.contains(&shard)
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.list(&self.0, |writer, tag| writer.u64(tag.0));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let tags = reader.list(usize::from(HOPS_MAX), |reader| Ok(ShardTag(reader.u64()?)))?;
        if tags.is_empty() { Err(reader.malformed()) } else { Ok(Self(tags)) }
    }
}
