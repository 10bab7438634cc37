//! [`Description`] to text, in the order of lines that browsers write.

use std::fmt::{self, Display, Write};

use headwater_model::media::MediaKind;

use crate::description::{Candidate, CandidateProtocol, Description, Section, SectionKind};

impl Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Lines(f);
        out.line(format_args!("v=0"))?;
        out.line(format_args!(
            "o=- {} {} IN IP4 127.0.0.1",
            self.session_id, self.session_version
        ))?;
        out.line(format_args!("s=-"))?;
        out.line(format_args!("t=0 0"))?;
        if self.ice_lite {
            out.line(format_args!("a=ice-lite"))?;
        }
        if !self.bundle.is_empty() {
            out.line(format_args!("a=group:BUNDLE {}", self.bundle.join(" ")))?;
        }
        if self.extmap_allow_mixed {
            out.line(format_args!("a=extmap-allow-mixed"))?;
        }
        out.line(format_args!("a=msid-semantic: WMS *"))?;
        self.sections.iter().try_for_each(|section| write_section(&mut out, section))
    }
}

struct Lines<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Lines<'_, '_> {
    fn line(&mut self, line: fmt::Arguments<'_>) -> fmt::Result {
        self.0.write_fmt(line)?;
        self.0.write_str("\r\n")
    }

    fn lines(&mut self, name: &str, values: impl IntoIterator<Item = impl Display>) -> fmt::Result {
        values.into_iter().try_for_each(|value| self.line(format_args!("a={name}:{value}")))
    }
}

fn write_section(out: &mut Lines<'_, '_>, section: &Section) -> fmt::Result {
    let kind = match &section.kind {
        SectionKind::Media(MediaKind::Audio) => "audio",
        SectionKind::Media(MediaKind::Video) => "video",
        SectionKind::Application => "application",
        SectionKind::Other(other) => other,
    };
    let formats = section.formats.join(" ");
    out.line(format_args!("m={kind} {} {} {formats}", section.port, section.protocol))?;
    out.line(format_args!("c=IN IP4 0.0.0.0"))?;
    if !section.mid.is_empty() {
        out.line(format_args!("a=mid:{}", section.mid))?;
    }
    if section.is_rejected() {
        return match section.kind {
            SectionKind::Media(_) => out.line(format_args!("a=inactive")),
            SectionKind::Application | SectionKind::Other(_) => Ok(()),
        };
    }
    if section.bundle_only {
        out.line(format_args!("a=bundle-only"))?;
    }
    write_transport(out, section)?;
    match section.kind {
        SectionKind::Media(_) => write_media(out, section),
        SectionKind::Application => {
            out.lines("sctp-port", section.sctp_port)?;
            out.lines("max-message-size", section.max_message_size)
        }
        SectionKind::Other(_) => Ok(()),
    }
}

fn write_transport(out: &mut Lines<'_, '_>, section: &Section) -> fmt::Result {
    if let Some(ice) = &section.ice {
        out.line(format_args!("a=ice-ufrag:{}", ice.ufrag))?;
        out.line(format_args!("a=ice-pwd:{}", ice.pwd))?;
    }
    for fingerprint in &section.fingerprints {
        out.line(format_args!("a=fingerprint:{} {}", fingerprint.algorithm, fingerprint.value))?;
    }
    out.lines("setup", section.setup.map(crate::Setup::as_str))?;
    for (index, candidate) in section.candidates.iter().enumerate() {
        out.line(format_args!("a=candidate:{}", candidate.attribute(index)))?;
    }
    if !section.candidates.is_empty() {
        out.line(format_args!("a=end-of-candidates"))?;
    }
    Ok(())
}

impl Candidate {
    /// The value of its `a=candidate` line. `index` is its place among the node's.
    /// Priorities by RFC 8445 5.1.2: host candidates, those over UDP first, those
    /// named earlier before later ones.
    #[must_use]
    pub fn attribute(&self, index: usize) -> String {
        let local_preference = 65_535_u32.saturating_sub(u32::try_from(index).unwrap_or(u32::MAX));
        let (type_preference, protocol, suffix) = match self.protocol {
            CandidateProtocol::Udp => (126, "udp", ""),
            CandidateProtocol::Tcp => (99, "tcp", " tcptype passive"),
        };
        let priority = (type_preference << 24) | (local_preference << 8) | 255;
        format!(
            "{} 1 {protocol} {priority} {} {} typ host{suffix}",
            index + 1,
            self.address.ip(),
            self.address.port(),
        )
    }
}

fn write_media(out: &mut Lines<'_, '_>, section: &Section) -> fmt::Result {
    for extension in &section.extensions {
        out.line(format_args!("a=extmap:{} {}", extension.id, extension.uri))?;
    }
    out.line(format_args!("a={}", section.direction.as_str()))?;
    for msid in &section.msids {
        match &msid.track {
            Some(track) => out.line(format_args!("a=msid:{} {track}", msid.stream))?,
            None => out.line(format_args!("a=msid:{}", msid.stream))?,
        }
    }
    if section.rtcp_mux {
        out.line(format_args!("a=rtcp-mux"))?;
    }
    if section.rtcp_rsize {
        out.line(format_args!("a=rtcp-rsize"))?;
    }
    for codec in &section.codecs {
        let payload_type = codec.payload_type;
        match codec.channels {
            0 => out.line(format_args!(
                "a=rtpmap:{payload_type} {}/{}",
                codec.name, codec.clock_rate
            ))?,
            channels => out.line(format_args!(
                "a=rtpmap:{payload_type} {}/{}/{channels}",
                codec.name, codec.clock_rate
            ))?,
        }
        for feedback in &codec.feedback {
            out.line(format_args!("a=rtcp-fb:{payload_type} {feedback}"))?;
        }
        if !codec.format.is_empty() {
            out.line(format_args!("a=fmtp:{payload_type} {}", codec.format))?;
        }
    }
    write_encodings(out, section)
}

fn write_encodings(out: &mut Lines<'_, '_>, section: &Section) -> fmt::Result {
    for rid in &section.rids {
        let direction = if rid.sends { "send" } else { "recv" };
        out.line(format_args!("a=rid:{} {direction}", rid.id))?;
    }
    let mut simulcast = String::new();
    for (sends, name) in [(true, "send"), (false, "recv")] {
        let rids: Vec<&str> = section
            .rids
            .iter()
            .filter(|rid| rid.sends == sends)
            .map(|rid| rid.id.as_str())
            .collect();
        if !rids.is_empty() {
            write!(simulcast, " {name} {}", rids.join(";"))?;
        }
    }
    if !simulcast.is_empty() {
        out.line(format_args!("a=simulcast:{}", simulcast.trim_start()))?;
    }
    for group in &section.source_groups {
        let ssrcs: Vec<String> = group.ssrcs.iter().map(u32::to_string).collect();
        out.line(format_args!("a=ssrc-group:{} {}", group.semantics, ssrcs.join(" ")))?;
    }
    for source in &section.sources {
        out.line(format_args!("a=ssrc:{} cname:{}", source.ssrc, source.cname))?;
        if let (Some(stream), Some(track)) = (&source.stream_id, &source.track_id) {
            out.line(format_args!("a=ssrc:{} msid:{stream} {track}", source.ssrc))?;
        }
    }
    Ok(())
}
