//! Text to [`Description`]: the grammar is rtc-sdp's, the meaning of the
//! attributes is here. Nothing that a peer writes may panic or cost more than
//! its own length.

use std::collections::BTreeSet;
use std::io::Cursor;

use headwater_model::media::MediaKind;
use rtc_sdp::description::common::Attribute;
use rtc_sdp::{MediaDescription, SessionDescription};

use crate::description::{
    CodecDescription, Description, Direction, ExtensionMapping, Fingerprint, IceCredentials, Msid,
    Rid, Section, SectionKind, Setup, Source, SourceGroup,
};
use crate::error::{ParseError, Problem};
use crate::{LINE_BYTES_MAX, SDP_BYTES_MAX, SECTION_ITEMS_MAX, SECTIONS_MAX, TOKEN_BYTES_MAX};

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// If the text is too large, is not SDP, or an attribute that matters is
    /// malformed; the error says where.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        check_size(text)?;
        let mut reader = Cursor::new(text.as_bytes());
        let session = SessionDescription::unmarshal(&mut reader).map_err(|source| {
            ParseError::Grammar { line: line_at(text, reader.position()), source }
        })?;
        from_grammar(&session)
    }
}

fn check_size(text: &str) -> Result<(), ParseError> {
    if text.len() > SDP_BYTES_MAX {
        return Err(ParseError::TooLong { bytes: text.len() });
    }
    let mut sections = 0;
    for (index, line) in text.split('\n').enumerate() {
        if line.len() > LINE_BYTES_MAX {
            return Err(ParseError::LineTooLong { line: index + 1 });
        }
        sections += usize::from(line.starts_with("m="));
    }
    if sections > SECTIONS_MAX {
        return Err(ParseError::TooManySections);
    }
    Ok(())
}

/// The line, from 1, that the byte before `position` is on.
fn line_at(text: &str, position: u64) -> usize {
    let end = usize::try_from(position).unwrap_or(usize::MAX).saturating_sub(1).min(text.len());
    1 + text.as_bytes()[..end].iter().filter(|byte| **byte == b'\n').count()
}

fn from_grammar(session: &SessionDescription) -> Result<Description, ParseError> {
    let shared = Shared::read(&session.attributes)
        .map_err(|(attribute, problem)| ParseError::SessionAttribute { attribute, problem })?;
    let mut description = Description {
        session_id: session.origin.session_id,
        session_version: session.origin.session_version,
        ..Description::default()
    };
    for attribute in &session.attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        match attribute.key.as_str() {
            "ice-lite" => description.ice_lite = true,
            "extmap-allow-mixed" => description.extmap_allow_mixed = true,
            "group" if description.bundle.is_empty() => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") {
                    description.bundle = words.take(SECTIONS_MAX).map(str::to_owned).collect();
                }
            }
            _ => {}
        }
    }
    let mut mids = BTreeSet::new();
    for (index, media) in session.media_descriptions.iter().enumerate() {
        let section = read_section(media, &shared).map_err(|(attribute, problem)| {
            ParseError::Attribute { section: index, attribute, problem }
        })?;
        if !section.mid.is_empty() && !mids.insert(section.mid.clone()) {
            return Err(ParseError::DuplicateMid { section: index });
        }
        description.sections.push(section);
    }
    Ok(description)
}

type AttributeError = (&'static str, Problem);

/// What a session may say once for all its sections.
#[derive(Default, Clone)]
struct Shared {
    ufrag: Option<String>,
    pwd: Option<String>,
    fingerprints: Vec<Fingerprint>,
    setup: Option<Setup>,
}

impl Shared {
    fn read(attributes: &[Attribute]) -> Result<Self, AttributeError> {
        let mut shared = Self::default();
        for attribute in attributes {
            let value = attribute.value.as_deref().unwrap_or_default();
            match attribute.key.as_str() {
                "ice-ufrag" => shared.ufrag = Some(ice_token("ice-ufrag", value, 4)?),
                "ice-pwd" => shared.pwd = Some(ice_token("ice-pwd", value, 22)?),
                "fingerprint" => {
                    push(&mut shared.fingerprints, "fingerprint", fingerprint(value)?)?
                }
                "setup" => shared.setup = Some(setup(value)?),
                _ => {}
            }
        }
        Ok(shared)
    }

    /// These values, with what they lack taken from the session's.
    fn or(self, session: &Self) -> Self {
        Self {
            ufrag: self.ufrag.or_else(|| session.ufrag.clone()),
            pwd: self.pwd.or_else(|| session.pwd.clone()),
            fingerprints: if self.fingerprints.is_empty() {
                session.fingerprints.clone()
            } else {
                self.fingerprints
            },
            setup: self.setup.or(session.setup),
        }
    }
}

fn read_section(media: &MediaDescription, session: &Shared) -> Result<Section, AttributeError> {
    let kind = match media.media_name.media.as_str() {
        "audio" => SectionKind::Media(MediaKind::Audio),
        "video" => SectionKind::Media(MediaKind::Video),
        "application" => SectionKind::Application,
        other => SectionKind::Other(other.to_owned()),
    };
    let mut section = Section::new(kind, "");
    section.port = u16::try_from(media.media_name.port.value)
        .map_err(|_| ("port of the m-line", Problem::Malformed))?;
    section.protocol = media.media_name.protos.join("/");
    check_text("m-line", &section.protocol)?;
    for format in &media.media_name.formats {
        check_text("m-line", format)?;
        push(&mut section.formats, "m-line", format.clone())?;
    }
    let shared = Shared::read(&media.attributes)?.or(session);
    section.ice = shared.ufrag.zip(shared.pwd).map(|(ufrag, pwd)| IceCredentials { ufrag, pwd });
    section.fingerprints = shared.fingerprints;
    section.setup = shared.setup;
    read_codecs(media, &mut section)?;
    let mut simulcast = None;
    for attribute in &media.attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        if attribute.key == "simulcast" {
            simulcast = Some(value);
        } else {
            read_attribute(&mut section, &attribute.key, value)?;
        }
    }
    if let Some(value) = simulcast {
        apply_simulcast(&mut section.rids, value);
    }
    if section.mid.is_empty() && !section.is_rejected() {
        return Err(("mid", Problem::Missing));
    }
    Ok(section)
}

fn read_attribute(section: &mut Section, key: &str, value: &str) -> Result<(), AttributeError> {
    match key {
        "mid" => section.mid = token("mid", value)?.to_owned(),
        "bundle-only" => section.bundle_only = true,
        "rtcp-mux" => section.rtcp_mux = true,
        "rtcp-rsize" => section.rtcp_rsize = true,
        "msid" => {
            let mut words = value.split_ascii_whitespace();
            let stream = words.next().ok_or(("msid", Problem::Malformed))?;
            let msid = Msid { stream: stream.to_owned(), track: words.next().map(str::to_owned) };
            push(&mut section.msids, "msid", msid)?;
        }
        "extmap" => {
            if let Some(mapping) = extension(value)? {
                push(&mut section.extensions, "extmap", mapping)?;
            }
        }
        "rid" => push(&mut section.rids, "rid", rid(value)?)?,
        "ssrc" => read_source(section, value)?,
        "ssrc-group" => {
            let mut words = value.split_ascii_whitespace();
            let semantics = words.next().ok_or(("ssrc-group", Problem::Malformed))?.to_owned();
            let ssrcs = words
                .take(SECTION_ITEMS_MAX)
                .map(|word| word.parse().map_err(|_| ("ssrc-group", Problem::Malformed)))
                .collect::<Result<_, _>>()?;
            push(&mut section.source_groups, "ssrc-group", SourceGroup { semantics, ssrcs })?;
        }
        "sctp-port" => {
            section.sctp_port = Some(value.parse().map_err(|_| ("sctp-port", Problem::Malformed))?);
        }
        "max-message-size" => {
            section.max_message_size =
                Some(value.parse().map_err(|_| ("max-message-size", Problem::Malformed))?);
        }
        other => {
            if let Some(direction) = Direction::from_name(other) {
                section.direction = direction;
            }
        }
    }
    Ok(())
}

fn read_codecs(media: &MediaDescription, section: &mut Section) -> Result<(), AttributeError> {
    if section.media_kind().is_none() {
        return Ok(());
    }
    for attribute in media.attributes.iter().filter(|attribute| attribute.key == "rtpmap") {
        let value = attribute.value.as_deref().unwrap_or_default();
        let codec = rtpmap(value)?;
        if section.codecs.iter().all(|other| other.payload_type != codec.payload_type) {
            push(&mut section.codecs, "rtpmap", codec)?;
        }
    }
    for attribute in &media.attributes {
        let Some((payload_type, rest)) =
            attribute.value.as_deref().and_then(|value| value.split_once(' '))
        else {
            continue;
        };
        let chosen = |codec: &CodecDescription| {
            payload_type == "*" || payload_type.parse() == Ok(codec.payload_type)
        };
        for codec in section.codecs.iter_mut().filter(|codec| chosen(codec)) {
            match attribute.key.as_str() {
                "fmtp" => {
                    check_text("fmtp", rest)?;
                    rest.trim().clone_into(&mut codec.format);
                }
                "rtcp-fb" => push(&mut codec.feedback, "rtcp-fb", rest.trim().to_owned())?,
                _ => {}
            }
        }
    }
    let place = |codec: &CodecDescription| {
        let text = codec.payload_type.to_string();
        section.formats.iter().position(|format| *format == text)
    };
    let mut codecs = std::mem::take(&mut section.codecs);
    codecs.retain(|codec| place(codec).is_some());
    codecs.sort_by_key(|codec| place(codec));
    section.codecs = codecs;
    Ok(())
}

fn rtpmap(value: &str) -> Result<CodecDescription, AttributeError> {
    let malformed = ("rtpmap", Problem::Malformed);
    let (payload_type, encoding) = value.split_once(' ').ok_or(malformed)?;
    let payload_type =
        payload_type.parse().ok().filter(|payload_type| *payload_type < 128).ok_or(malformed)?;
    let mut parts = encoding.trim().split('/');
    let name = token("rtpmap", parts.next().unwrap_or_default())?.to_owned();
    let clock_rate = parts.next().and_then(|rate| rate.parse().ok()).ok_or(malformed)?;
    let channels = match parts.next() {
        Some(channels) => channels.parse().map_err(|_| malformed)?,
        None => 0,
    };
    Ok(CodecDescription {
        payload_type,
        name,
        clock_rate,
        channels,
        format: String::new(),
        feedback: Vec::new(),
    })
}

/// An extension whose id cannot be used (0, or above 255 as RFC 8285 lets
/// offers write) is left out, not refused.
fn extension(value: &str) -> Result<Option<ExtensionMapping>, AttributeError> {
    let malformed = ("extmap", Problem::Malformed);
    let mut words = value.split_ascii_whitespace();
    let id = words.next().ok_or(malformed)?;
    let uri = words.next().ok_or(malformed)?.to_owned();
    let (id, direction) = match id.split_once('/') {
        Some((id, name)) => (id, Some(Direction::from_name(name).ok_or(malformed)?)),
        None => (id, None),
    };
    let id: u32 = id.parse().map_err(|_| malformed)?;
    Ok(u8::try_from(id).ok().filter(|id| *id != 0).map(|id| ExtensionMapping {
        id,
        direction,
        uri,
    }))
}

fn rid(value: &str) -> Result<Rid, AttributeError> {
    let mut words = value.split_ascii_whitespace();
    let id = words.next().unwrap_or_default();
    if id.is_empty()
        || id.len() > 16
        || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        return Err(("rid", Problem::Malformed));
    }
    let sends = match words.next() {
        Some("send") => true,
        Some("recv") => false,
        _ => return Err(("rid", Problem::Malformed)),
    };
    Ok(Rid { id: id.to_owned(), sends, paused: false })
}

/// Puts the encodings into the order of `a=simulcast`, notes the paused ones,
/// and drops those it does not name. Of alternatives (`a,b`) the first counts.
fn apply_simulcast(rids: &mut Vec<Rid>, value: &str) {
    let mut ordered: Vec<Rid> = Vec::new();
    let mut words = value.split_ascii_whitespace();
    while let (Some(direction), Some(list)) = (words.next(), words.next()) {
        let sends = direction == "send";
        for stream in list.split(';').take(SECTION_ITEMS_MAX) {
            let first = stream.split(',').next().unwrap_or_default();
            let (id, paused) = match first.strip_prefix('~') {
                Some(id) => (id, true),
                None => (first, false),
            };
            let known = rids.iter().any(|rid| rid.id == id && rid.sends == sends);
            if known && !ordered.iter().any(|rid| rid.id == id && rid.sends == sends) {
                ordered.push(Rid { id: id.to_owned(), sends, paused });
            }
        }
    }
    *rids = ordered;
}

fn read_source(section: &mut Section, value: &str) -> Result<(), AttributeError> {
    let (ssrc, rest) = value.split_once(' ').unwrap_or((value, ""));
    let ssrc: u32 = ssrc.parse().map_err(|_| ("ssrc", Problem::Malformed))?;
    let index = match section.sources.iter().position(|source| source.ssrc == ssrc) {
        Some(index) => index,
        None => {
            let source = Source { ssrc, cname: String::new(), stream_id: None, track_id: None };
            push(&mut section.sources, "ssrc", source)?;
            section.sources.len() - 1
        }
    };
    let source = &mut section.sources[index];
    match rest.split_once(':') {
        Some(("cname", cname)) => cname.trim().clone_into(&mut source.cname),
        Some(("msid", msid)) => {
            let mut words = msid.split_ascii_whitespace();
            source.stream_id = words.next().map(str::to_owned);
            source.track_id = words.next().map(str::to_owned);
        }
        _ => {}
    }
    Ok(())
}

fn fingerprint(value: &str) -> Result<Fingerprint, AttributeError> {
    let malformed = ("fingerprint", Problem::Malformed);
    let (algorithm, hash) = value.split_once(' ').ok_or(malformed)?;
    let hash = hash.trim();
    let is_hex = !hash.is_empty()
        && hash.len() <= 3 * 64
        && hash
            .split(':')
            .all(|byte| byte.len() == 2 && byte.bytes().all(|b| b.is_ascii_hexdigit()));
    if !is_hex {
        return Err(malformed);
    }
    let algorithm = token("fingerprint", algorithm)?.to_ascii_lowercase();
    Ok(Fingerprint { algorithm, value: hash.to_ascii_uppercase() })
}

fn setup(value: &str) -> Result<Setup, AttributeError> {
    [Setup::Active, Setup::Passive, Setup::ActPass]
        .into_iter()
        .find(|setup| setup.as_str() == value)
        .ok_or(("setup", Problem::Malformed))
}

fn ice_token(name: &'static str, value: &str, least: usize) -> Result<String, AttributeError> {
    let value = token(name, value)?;
    if value.len() < least {
        return Err((name, Problem::Malformed));
    }
    Ok(value.to_owned())
}

/// Visible ASCII without spaces, of bounded length: safe to write back.
fn token<'a>(name: &'static str, value: &'a str) -> Result<&'a str, AttributeError> {
    if value.is_empty()
        || value.len() > TOKEN_BYTES_MAX
        || !value.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err((name, Problem::Malformed));
    }
    Ok(value)
}

/// No control characters: safe to write back.
fn check_text(name: &'static str, value: &str) -> Result<(), AttributeError> {
    if value.chars().any(char::is_control) {
        return Err((name, Problem::Malformed));
    }
    Ok(())
}

fn push<T>(list: &mut Vec<T>, name: &'static str, item: T) -> Result<(), AttributeError> {
    if list.len() >= SECTION_ITEMS_MAX {
        return Err((name, Problem::TooMany));
    }
    list.push(item);
    Ok(())
}
