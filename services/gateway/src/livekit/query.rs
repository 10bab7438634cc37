//! The query of a request, as names and values in their order.

use axum::extract::Query as AxumQuery;
use http::Uri;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

impl Query {
    /// Reads the query of a URI. One that cannot be read is empty.
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = AxumQuery::<Vec<(String, String)>>::try_from_uri(uri);
        Self { pairs: pairs.map(|query| query.0).unwrap_or_default() }
    }

    #[cfg(test)]
    pub(crate) fn parse(query: &str) -> Self {
        Self::of(&format!("/?{}", query.replace(' ', "")).parse().unwrap())
    }

    /// The first value of a name, if it is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(known, _)| known == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// All values of a name that are not empty.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let named = self.pairs.iter().filter(|(known, value)| known == name && !value.is_empty());
        named.map(|(_, value)| value.clone()).collect()
    }

    /// LiveKit's booleans: exactly `1` and `true` are true.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// As [`Query::flag`], with what its absence means.
    pub(crate) fn flag_or(&self, name: &str, absent: bool) -> bool {
        self.get(name).map_or(absent, |value| value == "1" || value == "true")
    }
}
