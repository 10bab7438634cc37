//! Fragments of SDP in PATCH requests (RFC 8840, RFC 9725 4.3): candidates of the
//! client, or its new ICE credentials; and the node's side as a fragment. Pure.

use headwater_proto::node::v1::IceRestarted;

/// Longest user fragment and password (RFC 8839 5.4).
const TOKEN_BYTES_MAX: usize = 256;

/// Shortest of them.
const UFRAG_BYTES_MIN: usize = 4;
const PWD_BYTES_MIN: usize = 22;

/// What a fragment says. Candidates are not kept: the node is ICE-lite and
/// answers whoever knows the credentials (RFC 8445 2.5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// User fragment and password, if it tells them.
    pub(crate) credentials: Option<(String, String)>,
    /// Its lines that an answer repeats: groups, the first section and its mid.
    frame: Vec<String>,
}

/// Why a fragment cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// Not UTF-8.
    #[error("it is not text")]
    NotText,
    /// A line that is neither an attribute nor a section.
    #[error("line {0} is neither an attribute nor a section")]
    BadLine(usize),
    /// A user fragment without a password, or the other way round, or one that
    /// RFC 8839 does not allow.
    #[error("its ice-ufrag and ice-pwd do not make credentials")]
    BadCredentials,
    /// A restart of ICE without credentials.
    #[error("a restart of ICE needs a new ice-ufrag and ice-pwd")]
    NoCredentials,
}

/// Reads a fragment.
///
/// # Errors
/// If it is none, or its credentials are not whole.
pub fn decode_fragment(body: &[u8]) -> Result<Fragment, FragmentError> {
    let text = std::str::from_utf8(body).map_err(|_| FragmentError::NotText)?;
    let mut fragment = Fragment::default();
    let (mut ufrag, mut pwd) = (None, None);
    let mut sections = 0;
    for (index, line) in text.lines().map(str::trim_end).enumerate() {
        if line.starts_with("m=") {
            sections += 1;
            if sections == 1 {
                fragment.frame.push(line.to_owned());
            }
        } else if let Some(attribute) = line.strip_prefix("a=") {
            match attribute.split_once(':') {
                Some(("ice-ufrag", value)) => ufrag = ufrag.or(Some(value)),
                Some(("ice-pwd", value)) => pwd = pwd.or(Some(value)),
                Some(("group", _)) if sections == 0 => fragment.frame.push(line.to_owned()),
                Some(("mid", _)) if sections == 1 => fragment.frame.push(line.to_owned()),
                Some(_) | None => {}
            }
        } else if !line.is_empty() {
            return Err(FragmentError::BadLine(index + 1));
        }
    }
    fragment.credentials = match (ufrag, pwd) {
        (None, None) => None,
        (Some(ufrag), Some(pwd))
            if is_token(ufrag, UFRAG_BYTES_MIN) && is_token(pwd, PWD_BYTES_MIN) =>
        {
            Some((ufrag.to_owned(), pwd.to_owned()))
        }
        _ => return Err(FragmentError::BadCredentials),
    };
    Ok(fragment)
}

/// RFC 8839 5.4: characters of ICE.
fn is_token(text: &str, least: usize) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    (least..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(known)
}

impl Fragment {
    /// The node's side, in the frame that the client wrote.
    pub(crate) fn answer(&self, restarted: &IceRestarted) -> String {
        let (groups, section): (Vec<&String>, Vec<&String>) =
            self.frame.iter().partition(|line| line.starts_with("a=group"));
        let mut lines = vec!["a=ice-lite".to_owned(), "a=ice-options:trickle ice2".to_owned()];
        lines.extend(groups.into_iter().cloned());
        lines.extend(section.into_iter().cloned());
        lines.push(format!("a=ice-ufrag:{}", restarted.ufrag));
        lines.push(format!("a=ice-pwd:{}", restarted.pwd));
        lines.extend(restarted.candidates.iter().map(|value| format!("a=candidate:{value}")));
        lines.push("a=end-of-candidates".to_owned());
        lines.into_iter().flat_map(|line| [line, "\r\n".to_owned()]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTART: &str = "a=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:EsAw\r\n\
        a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=candidate:1 1 udp 2130706431 198.51.100.1 39132 typ host\r\n\
        a=end-of-candidates\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";

    #[test]
    fn credentials_are_read_and_the_nodes_side_fits_the_frame() {
        let fragment = decode_fragment(RESTART.as_bytes()).unwrap();
        let (ufrag, pwd) = fragment.credentials.clone().unwrap();
        assert_eq!((ufrag.as_str(), pwd.as_str()), ("EsAw", "P2uYro0UCOQ4zxjKXaWCBui1"));
        let answer = fragment.answer(&IceRestarted {
            ufrag: "2xabc".into(),
            pwd: "secret".into(),
            candidates: vec!["1 1 udp 5 127.0.0.1 7882 typ host".into()],
        });
        assert_eq!(
            answer,
            "a=ice-lite\r\na=ice-options:trickle ice2\r\na=group:BUNDLE 0 1\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:2xabc\r\na=ice-pwd:secret\r\n\
             a=candidate:1 1 udp 5 127.0.0.1 7882 typ host\r\na=end-of-candidates\r\n"
        );
    }

    #[test]
    fn candidates_alone_are_fine_and_half_a_pair_of_credentials_is_not() {
        let trickled = "m=audio 9 RTP/AVP 0\na=mid:0\na=candidate:1 1 udp 1 192.0.2.1 1 typ host\n";
        assert_eq!(decode_fragment(trickled.as_bytes()).unwrap().credentials, None);
        let half = b"a=ice-ufrag:EsAw\r\n";
        assert_eq!(decode_fragment(half), Err(FragmentError::BadCredentials));
        let short = b"a=ice-ufrag:EsAw\r\na=ice-pwd:short\r\n";
        assert_eq!(decode_fragment(short), Err(FragmentError::BadCredentials));
        assert_eq!(decode_fragment(b"{}"), Err(FragmentError::BadLine(1)));
        assert_eq!(decode_fragment(b"\xff"), Err(FragmentError::NotText));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = decode_fragment(&bytes);
        }
    }
}
