//! Names of codecs as LiveKit clients spell them, and which codecs a client had
//! better not be offered.

use headwater_model::media::Codec;
use livekit_protocol as lk;

/// The MIME type of a codec that a client names `vp8` or `video/VP8`.
pub(crate) fn mime_type(name: &str, track_type: i32) -> String {
    if name.is_empty() {
        return String::new();
    }
    if let Some(codec) = Codec::from_mime_type(name) {
        return codec.mime_type().to_owned();
    }
    if name.contains('/') {
        return name.to_owned();
    }
    let kind = if track_type == i32::from(lk::TrackType::Audio) { "audio" } else { "video" };
    format!("{kind}/{name}")
}

/// The name LiveKit uses in dynacast messages: lower case, without the kind.
pub(crate) fn short_name(mime_type: &str) -> String {
    mime_type.rsplit('/').next().unwrap_or(mime_type).to_ascii_lowercase()
}

/// The configured codecs without those that this client publishes badly:
/// AV1 in Safari, VP9 in Safari after 18.3, H.264 in Firefox on Linux and Android.
pub(crate) fn publishable(configured: &[String], client: &lk::ClientInfo) -> Vec<String> {
    let browser = client.browser.to_ascii_lowercase();
    let os = client.os.to_ascii_lowercase();
    let safari = browser == "safari";
    let late_safari = safari && version(&client.browser_version) > (18, 3);
    let firefox = browser.starts_with("firefox") && (os == "linux" || os == "android");
    configured
        .iter()
        .filter(|mime| match Codec::from_mime_type(mime) {
            Some(Codec::Av1) => !safari,
            Some(Codec::Vp9) => !late_safari,
            Some(Codec::H264) => !firefox,
            Some(Codec::Vp8 | Codec::Opus) | None => true,
        })
        .cloned()
        .collect()
}

fn version(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_become_mime_types() {
        assert_eq!(mime_type("vp8", 1), "video/VP8");
        assert_eq!(mime_type("video/h264", 1), "video/H264");
        assert_eq!(mime_type("red", 0), "audio/red");
        assert_eq!(mime_type("", 1), "");
        assert_eq!(short_name("video/VP9"), "vp9");
    }

    #[test]
    fn browsers_are_not_offered_what_they_do_badly() {
        let all: Vec<String> =
            Codec::ALL.into_iter().map(|codec| codec.mime_type().to_owned()).collect();
        let offered = |browser: &str, browser_version: &str, os: &str| {
            let client = lk::ClientInfo {
                browser: browser.into(),
                browser_version: browser_version.into(),
                os: os.into(),
                ..Default::default()
            };
            publishable(&all, &client).join(" ")
        };
        assert_eq!(offered("Chrome", "150.0", "Linux"), all.join(" "));
        assert!(!offered("Safari", "17.5", "Mac OS X").contains("AV1"));
        assert!(offered("Safari", "17.5", "Mac OS X").contains("VP9"));
        assert!(!offered("Safari", "18.4", "Mac OS X").contains("VP9"));
        assert!(!offered("Firefox", "140.0", "Linux").contains("H264"));
        assert!(offered("Firefox", "140.0", "Windows").contains("H264"));
    }
}
