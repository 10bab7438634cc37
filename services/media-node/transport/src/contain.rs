//! A last wall around the protocol libraries: a panic in one of them costs the
//! transport that it happened in, and not the thread with everybody else's.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a library call. `None` if it panicked; its state is then not to be used
/// again. Everything known to panic is refused before it gets here.
pub(crate) fn contain<T>(call: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(call));
    if result.is_err() {
        tracing::error!("a protocol library panicked; its transport ends");
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_turned_into_none() {
        let slice = [1, 2, 3];
        let beyond = slice.len();
        assert_eq!(contain(|| slice[..][beyond]), None);
        assert_eq!(contain(|| slice[0]), Some(1));
    }
}
