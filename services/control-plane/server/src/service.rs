//! The gRPC surface: one file a service; a handler parses, calls, maps.

mod cluster;
mod placement;
mod room;

pub(crate) use cluster::ClusterApi;
pub(crate) use placement::PlacementApi;
pub(crate) use room::RoomApi;

use headwater_control_core::page::{self, Page, PageLimits, PageTokenError};
use headwater_rpc::status;
use prost::Message;
use tonic::Status;

/// Metadata of responses that were made without the registry, from what was
/// watched before; its value is `true`.
pub const STALE_KEY: &str = "x-headwater-stale";

/// Most bytes of the items of a page: what a response may have, with room for
/// its frame and for what encoding adds.
const PAGE_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Cuts the page that a caller asked for out of rows in order of their keys.
fn cut_page<T: Message>(
    list: &str,
    page_size: u32,
    page_token: &str,
    rows: impl IntoIterator<Item = (String, T)>,
) -> Result<Page<T>, Status> {
    let after = if page_token.is_empty() {
        None
    } else {
        let key = page::decode(list, page_token);
        Some(key.map_err(|error: PageTokenError| {
            status::invalid_argument("page_token", error.to_string())
        })?)
    };
    let limits = PageLimits { items: page::page_size(page_size), weight: PAGE_BYTES_MAX };
    let rows = rows
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .map(|(key, item)| {
            let bytes = item.encoded_len();
            (key, item, bytes)
        });
    Ok(page::cut(list, limits, rows))
}
