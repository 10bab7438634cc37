//! Deadlines: read from `grpc-timeout`, kept with the task that serves the
//! call, and handed on, a little shortened, to the calls that it makes.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

/// Deadline of a unary call that names none.
pub const UNARY_DEFAULT: Duration = Duration::from_secs(10);

/// Longest deadline of a unary call.
pub const UNARY_MAX: Duration = Duration::from_secs(60);

/// What a call made while serving another leaves over, so that its failure
/// can still be answered in time.
pub const HANDED_ON_LESS: Duration = Duration::from_millis(50);

const HEADER: &str = "grpc-timeout";

tokio::task_local! {
    static DEADLINE: Instant;
}

/// When the call that this task serves ends. `None` outside of unary calls.
#[must_use]
pub fn current() -> Option<Instant> {
    DEADLINE.try_with(|deadline| *deadline).ok()
}

/// Runs a future as part of a call with this deadline: the calls it makes end before it.
pub async fn within<F: Future>(deadline: Instant, future: F) -> F::Output {
    DEADLINE.scope(deadline, future).await
}

/// The time a unary call may take: what its headers say, at most [`UNARY_MAX`].
pub(crate) fn of_unary(headers: &HeaderMap) -> Duration {
    parse(headers).unwrap_or(UNARY_DEFAULT).min(UNARY_MAX)
}

/// The time a streaming call may take: what its headers say, else for ever.
pub(crate) fn of_stream(headers: &HeaderMap) -> Option<Duration> {
    parse(headers)
}

/// Gives an outgoing unary call a deadline if it has none: what is left of the
/// call being served less [`HANDED_ON_LESS`], else [`UNARY_DEFAULT`].
pub(crate) fn hand_on(headers: &mut HeaderMap) {
    if headers.contains_key(HEADER) {
        return;
    }
    let left = current().map(|end| end.saturating_duration_since(Instant::now()));
    let timeout = left.map_or(UNARY_DEFAULT, |left| left.saturating_sub(HANDED_ON_LESS));
    let millis = timeout.as_millis().clamp(1, 99_999_999);
    let value = HeaderValue::try_from(format!("{millis}m")).expect("digits are header text");
    headers.insert(HEADER, value);
}

/// `grpc-timeout`: up to eight digits and a unit. Anything else counts as absent.
fn parse(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(HEADER)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let well_formed = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn every_unit_is_read_and_nonsense_counts_as_absent() {
        assert_eq!(parse(&headers("2H")), Some(Duration::from_secs(7200)));
        assert_eq!(parse(&headers("3M")), Some(Duration::from_secs(180)));
        assert_eq!(parse(&headers("1S")), Some(Duration::from_secs(1)));
        assert_eq!(parse(&headers("250m")), Some(Duration::from_millis(250)));
        assert_eq!(parse(&headers("7u")), Some(Duration::from_micros(7)));
        assert_eq!(parse(&headers("99999999n")), Some(Duration::from_nanos(99_999_999)));
        for bad in ["", "S", "1", "+1S", "-1S", "1 S", "123456789S", "1.5S", "1s", "1x"] {
            assert_eq!(parse(&headers(bad)), None, "{bad}");
        }
    }

    #[test]
    fn a_unary_call_has_a_deadline_whatever_the_client_says() {
        assert_eq!(of_unary(&HeaderMap::new()), UNARY_DEFAULT);
        assert_eq!(of_unary(&headers("9H")), UNARY_MAX);
        assert_eq!(of_unary(&headers("5m")), Duration::from_millis(5));
        assert_eq!(of_stream(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_handed_on_less_a_little() {
        let end = Instant::now() + Duration::from_millis(800);
        let mut inner = HeaderMap::new();
        within(end, async { hand_on(&mut inner) }).await;
        assert_eq!(inner[HEADER], "750m");
        let mut outer = HeaderMap::new();
        hand_on(&mut outer);
        assert_eq!(outer[HEADER], "10000m");
    }
}
