//! Page tokens: opaque to callers, bound to the list they were made for, so
//! that a token of one filter is refused with another instead of skipping rows.

/// Items of a page if the caller does not say.
pub const PAGE_SIZE_DEFAULT: usize = 100;
/// Most items of a page.
pub const PAGE_SIZE_MAX: usize = 1000;

const VERSION: u8 = 1;

/// Why a page token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageTokenError {
    /// It was not made here, or was changed on the way.
    #[error("is not a page token of this service")]
    Malformed,
    /// It was made for a list with another filter.
    #[error("was made for another list")]
    OtherList,
}

/// How many items a caller gets: 0 means the default, too many means the maximum.
#[must_use]
pub fn page_size(asked: u32) -> usize {
    match usize::try_from(asked).unwrap_or(PAGE_SIZE_MAX) {
        0 => PAGE_SIZE_DEFAULT,
        asked => asked.min(PAGE_SIZE_MAX),
    }
}

/// Makes the token of the page that begins behind `last_key`. `list` names the
/// list and its filter. The token is lower-case hexadecimal.
#[must_use]
pub fn encode(list: &str, last_key: &str) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&fnv1a(list.as_bytes()).to_be_bytes());
    bytes.extend_from_slice(last_key.as_bytes());
    let check = fnv1a(&bytes).to_be_bytes();
    bytes.extend_from_slice(&check);
    bytes.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 15)]).collect()
}

/// The key behind which the page begins.
///
/// # Errors
/// If the token was not made by [`encode`], or was made for another `list`.
pub fn decode(list: &str, token: &str) -> Result<String, PageTokenError> {
    let bytes = from_hex(token).ok_or(PageTokenError::Malformed)?;
    let (body, check) = bytes.split_last_chunk::<8>().ok_or(PageTokenError::Malformed)?;
    if u64::from_be_bytes(*check) != fnv1a(body) {
        return Err(PageTokenError::Malformed);
    }
    let (version, rest) = body.split_first().ok_or(PageTokenError::Malformed)?;
    let (bound_to, key) = rest.split_first_chunk::<8>().ok_or(PageTokenError::Malformed)?;
    if *version != VERSION {
        return Err(PageTokenError::Malformed);
    }
    if u64::from_be_bytes(*bound_to) != fnv1a(list.as_bytes()) {
        return Err(PageTokenError::OtherList);
    }
    String::from_utf8(key.to_vec()).map_err(|_| PageTokenError::Malformed)
}

/// One page of an ordered list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Token of the next page. Empty means this was the last one.
    pub next_page_token: String,
}

/// How much fits on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimits {
    /// Most items.
    pub items: usize,
    /// Most weight of all items; one item is given however much it weighs.
    pub weight: usize,
}

/// Cuts one page out of `rows`, which come in order of their keys and begin
/// behind the key of the page before, each with its weight. Takes no more rows
/// than it needs.
pub fn cut<K: AsRef<str>, T>(
    list: &str,
    limits: PageLimits,
    rows: impl IntoIterator<Item = (K, T, usize)>,
) -> Page<T> {
    let mut items = Vec::new();
    let mut weight = 0_usize;
    let mut last_key: Option<K> = None;
    for (key, item, own_weight) in rows {
        weight = weight.saturating_add(own_weight);
        let full = items.len() >= limits.items || weight > limits.weight;
        if let Some(last_key) = last_key.as_ref().filter(|_| full) {
            return Page { items, next_page_token: encode(list, last_key.as_ref()) };
        }
        items.push(item);
        last_key = Some(key);
    }
    Page { items, next_page_token: String::new() }
}

/// FNV-1a, 64 bits: tells accidents apart, not attacks. A forged token can only
/// name a key to begin behind, which is no secret.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    if digits.len() % 2 != 0 {
        return None;
    }
    Some(digits.chunks_exact(2).map(|pair| (pair[0] << 4) | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_capped() {
        assert_eq!(page_size(0), 100);
        assert_eq!(page_size(7), 7);
        assert_eq!(page_size(u32::MAX), 1000);
    }

    #[test]
    fn a_token_is_refused_by_another_list() {
        let token = encode("rooms", "lobby");
        assert_eq!(decode("rooms", &token).as_deref(), Ok("lobby"));
        assert_eq!(decode("nodes", &token), Err(PageTokenError::OtherList));
    }

    proptest! {
        #[test]
        fn tokens_round_trip(list in ".*", key in ".*") {
            prop_assert_eq!(decode(&list, &encode(&list, &key)), Ok(key));
        }

        #[test]
        fn anything_else_is_refused_without_panic(token in ".*") {
            prop_assert_eq!(decode("rooms", &token), Err(PageTokenError::Malformed));
        }

        #[test]
        fn a_changed_token_is_refused(key in "[a-z]{1,20}", at in any::<prop::sample::Index>()) {
            let mut token = encode("rooms", &key).into_bytes();
            let at = at.index(token.len());
            token[at] = if token[at] == b'0' { b'1' } else { b'0' };
            let token = String::from_utf8(token).unwrap();
            prop_assert!(decode("rooms", &token).is_err());
        }

        #[test]
        fn pages_give_every_row_once(
            rows in prop::collection::btree_set("[a-z]{1,6}", 0..60), size in 1_usize..9, weight in 1_usize..30,
        ) {
            let limits = PageLimits { items: size, weight };
            let mut seen = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let rest = rows.iter().filter(|row| after.as_ref().is_none_or(|after| *row > after));
                let page = cut("list", limits, rest.map(|row| (row, row.clone(), row.len())));
                prop_assert!(page.items.len() <= size);
                let weighs: usize = page.items.iter().map(String::len).sum();
                prop_assert!(weighs <= weight || page.items.len() == 1);
                seen.extend(page.items);
                if page.next_page_token.is_empty() {
                    break;
                }
                after = Some(decode("list", &page.next_page_token).unwrap());
            }
            prop_assert_eq!(seen, rows.into_iter().collect::<Vec<_>>());
        }
    }
}
