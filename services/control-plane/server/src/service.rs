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

/// Cuts the page that a caller asked for out of rows in order of their keys;
/// only rows of the page (and one more) become messages.
fn cut_page<R, T: Message>(
    list: &str,
    page_size: u32,
    page_token: &str,
    rows: impl IntoIterator<Item = (String, R)>,
    message: impl Fn(R) -> T,
) -> Result<Page<T>, Status> {
    let refused = |error: PageTokenError| status::invalid_argument("page_token", error.to_string());
    let after = match page_token {
        "" => None,
        token => Some(page::decode(list, token).map_err(refused)?),
    };
    let limits = PageLimits { items: page::page_size(page_size), weight: PAGE_BYTES_MAX };
    let rows = rows
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .map(|(key, row)| {
            let item = message(row);
            let bytes = item.encoded_len();
            (key, item, bytes)
        });
    Ok(page::cut(list, limits, rows))
}
