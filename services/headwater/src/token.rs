//! `headwater token`: mints a token to join a room or to call the API.

use std::path::Path;

use anyhow::{Context as _, bail};
use headwater_model::{Grants, Identity, Permission, RoomId};
use headwater_rpc::token::unix_seconds;
use headwater_rpc::{KeyRing, TokenRequest};

use crate::cli::{KeyArguments, TokenArguments};
use crate::output;
use crate::settings::key_pairs_of_file;

/// The key pair of `headwater dev`, which everybody knows.
pub const DEV_KEY: &str = "devkey";
/// See [`DEV_KEY`].
pub const DEV_SECRET: &str = "secret";

/// Prints a token and, if a gateway is given, a link to join.
///
/// # Errors
/// If the token would allow nothing, or there is no key pair to sign it.
pub fn run(arguments: &TokenArguments) -> anyhow::Result<()> {
    let keys = key_ring(&arguments.keys)?;
    let request = TokenRequest { grants: grants(arguments)?, ttl: arguments.ttl };
    let token = keys.mint(&request, unix_seconds())?;
    output::say(&token);
    if let (Some(url), Some(room)) = (&arguments.url, &arguments.room) {
        output::say(&join_link(url, room, &token));
    }
    Ok(())
}

/// The page's link by which the bearer of a token joins a room.
pub fn join_link(gateway_url: &str, room: &str, token: &str) -> String {
    format!("{}/room/{}?token={token}", gateway_url.trim_end_matches('/'), percent_encode(room))
}

/// The key pair that the flags name.
///
/// # Errors
/// If they name none, or one that cannot be used.
pub fn key_ring(arguments: &KeyArguments) -> anyhow::Result<KeyRing> {
    match (&arguments.key, &arguments.secret, &arguments.config) {
        (Some(key), Some(secret), _) => {
            KeyRing::single(key, secret).context("the key pair cannot be used")
        }
        (_, _, Some(path)) => key_pairs_of_file(Path::new(path)),
        _ if arguments.dev => {
            KeyRing::single(DEV_KEY, DEV_SECRET).context("the key pair cannot be used")
        }
        _ => bail!(
            "there is no key pair: give --key and --secret, or --config with a role's file, or \
            --dev for the pair of `headwater dev`"
        ),
    }
}

fn grants(arguments: &TokenArguments) -> anyhow::Result<Grants> {
    let room = arguments.room.clone().unwrap_or_default();
    let identity = arguments.identity.clone().unwrap_or_default();
    if !room.is_empty() {
        RoomId::new(room.as_str()).context("--room")?;
    }
    if !identity.is_empty() {
        Identity::new(identity.as_str()).context("--identity")?;
    }
    let joins = !room.is_empty() && !identity.is_empty();
    if !joins && !arguments.admin && !arguments.create && !arguments.list {
        bail!(
            "the token would allow nothing: give --room and --identity to join, or --admin with \
            --room, --create or --list for the API"
        );
    }
    Ok(Grants {
        identity,
        display_name: arguments.name.clone(),
        metadata: arguments.metadata.clone(),
        room,
        room_join: joins,
        room_admin: arguments.admin,
        room_create: arguments.create,
        room_list: arguments.list,
        permission: Permission {
            can_publish: !arguments.no_publish,
            can_publish_data: !arguments.no_publish,
            hidden: arguments.hidden,
            ..Permission::default()
        },
        ..Grants::default()
    })
}

/// Everything but what RFC 3986 calls unreserved.
fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_holds_any_room() {
        let link = join_link("http://localhost:7880/", "a b/ü", "x.y.z");
        assert_eq!(link, "http://localhost:7880/room/a%20b%2F%C3%BC?token=x.y.z");
    }
}
