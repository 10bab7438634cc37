//! What a v0 client says of itself in its query, completed from `User-Agent`. Pure.

use livekit_protocol as lk;
use lk::client_info::{Capability, Sdk};

use super::query::Query;

/// The client's description in a v0 query.
pub(crate) fn client_info(query: &Query) -> lk::ClientInfo {
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let number = |name| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
    lk::ClientInfo {
        sdk: i32::from(sdk(query.get("sdk").unwrap_or_default())),
        version: text("version"),
        protocol: number("protocol"),
        os: text("os"),
        os_version: text("os_version"),
        device_model: text("device_model"),
        browser: text("browser"),
        browser_version: text("browser_version"),
        network: text("network"),
        client_protocol: number("client_protocol"),
        capabilities: query
            .get("capabilities")
            .unwrap_or_default()
            .split(',')
            .filter_map(|name| Capability::from_str_name(name.trim()))
            .map(i32::from)
            .collect(),
        ..Default::default()
    }
}

fn sdk(name: &str) -> Sdk {
    match name {
        "ios" | "swift" => Sdk::Swift,
        "reactnative" => Sdk::ReactNative,
        "unityweb" => Sdk::UnityWeb,
        other => Sdk::from_str_name(&other.to_ascii_uppercase()).unwrap_or(Sdk::Unknown),
    }
}

/// Fills in the browser and the system of those clients that run in one and do
/// not say which. Only what [`super::codec`] decides by is told apart.
pub(crate) fn complete_from_user_agent(client: &mut lk::ClientInfo, user_agent: &str) {
    let in_browser = matches!(
        Sdk::try_from(client.sdk),
        Ok(Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity | Sdk::Unknown)
    );
    if !in_browser {
        return;
    }
    if client.browser.is_empty() {
        let (name, mark) = browser(user_agent);
        client.browser = name.to_owned();
        client.browser_version = version_after(user_agent, mark);
    }
    if client.os.is_empty() {
        client.os = system(user_agent).to_owned();
    }
}

/// Browsers name their ancestors too, so the order matters.
fn browser(user_agent: &str) -> (&'static str, &'static str) {
    let known = [
        ("Firefox", "Firefox/"),
        ("Edge", "Edg/"),
        ("Opera", "OPR/"),
        ("Chrome", "Chrome/"),
        ("Safari", "Version/"),
    ];
    known.into_iter().find(|(_, mark)| user_agent.contains(mark)).unwrap_or(("", ""))
}

fn version_after(user_agent: &str, mark: &str) -> String {
    match user_agent.split_once(mark) {
        Some((_, rest)) if !mark.is_empty() => {
            rest.chars().take_while(|char| char.is_ascii_digit() || *char == '.').take(32).collect()
        }
        Some(_) | None => String::new(),
    }
}

fn system(user_agent: &str) -> &'static str {
    let known = [
        ("Android", "Android"),
        ("iPhone", "iOS"),
        ("iPad", "iOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "Mac OS X"),
        ("Linux", "Linux"),
    ];
    known.into_iter().find(|(mark, _)| user_agent.contains(mark)).map_or("", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_describes_the_client() {
        let query = Query::parse(
            "sdk=js&version=2.23.0&protocol=17&client_protocol=2\
             &capabilities=CAP_PACKET_TRAILER,CAP_WARP,CAP_COMPRESSION_DEFLATE_RAW",
        );
        let client = client_info(&query);
        assert_eq!(client.sdk(), Sdk::Js);
        assert_eq!((client.protocol, client.client_protocol), (17, 2));
        assert_eq!(client.capabilities, [1, 2]);
        assert_eq!(client_info(&Query::parse("sdk=reactnative")).sdk(), Sdk::ReactNative);
        assert_eq!(client_info(&Query::parse("protocol=x")).protocol, 0);
    }

    #[test]
    fn browsers_are_told_by_their_user_agent() {
        let described = |user_agent: &str| {
            let mut client = lk::ClientInfo { sdk: Sdk::Js.into(), ..Default::default() };
            complete_from_user_agent(&mut client, user_agent);
            (client.browser, client.browser_version, client.os)
        };
        let safari = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/18.5 Safari/605.1.15";
        assert_eq!(described(safari), ("Safari".into(), "18.5".into(), "Mac OS X".into()));
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Firefox/153.0";
        assert_eq!(described(firefox), ("Firefox".into(), "153.0".into(), "Linux".into()));
        let chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/156.0.0.0 Safari/537.36";
        assert_eq!(described(chrome), ("Chrome".into(), "156.0.0.0".into(), "Linux".into()));
        assert_eq!(described(""), Default::default());
    }

    #[test]
    fn what_the_client_says_itself_stands() {
        let mut client = lk::ClientInfo {
            sdk: Sdk::Js.into(),
            browser: "Brave".into(),
            os: "Plan 9".into(),
            ..Default::default()
        };
        complete_from_user_agent(&mut client, "Firefox/1.0 Linux");
        assert_eq!((client.browser.as_str(), client.os.as_str()), ("Brave", "Plan 9"));
    }
}
