//! Secrets in settings: taken from the setting itself or from a file, and never
//! shown again.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use headwater_rpc::{ClusterCredential, KeyRing};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::load;

const HIDDEN: &str = "(hidden)";

/// A text that is not shown.
#[derive(Debug, Clone, Default)]
pub struct Secret(SecretString);

impl Secret {
    /// From its text.
    pub fn new(text: &str) -> Self {
        Self(SecretString::from(text))
    }

    fn is_empty(&self) -> bool {
        self.0.expose_secret().is_empty()
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { HIDDEN })
    }
}

/// The secrets of one API key: one, or a list of the one that signs and the one
/// being retired.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<Secret>);

impl Secrets {
    /// One secret.
    pub fn one(text: &str) -> Self {
        Self(vec![Secret::new(text)])
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Secrets;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a secret in quotes, or a list of at most two")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secrets, E> {
                Ok(Secrets::one(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Secrets, A::Error> {
                let mut secrets = Vec::new();
                while let Some(secret) = list.next_element::<Secret>()? {
                    secrets.push(secret);
                }
                if secrets.is_empty() {
                    return Err(A::Error::custom("a key needs a secret"));
                }
                Ok(Secrets(secrets))
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

impl Serialize for Secrets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            more => more.serialize(serializer),
        }
    }
}

/// API keys and their secrets.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyPairs(BTreeMap<String, Secrets>);

impl KeyPairs {
    /// One pair.
    pub fn single(key: &str, secret: &str) -> Self {
        Self(BTreeMap::from([(key.to_owned(), Secrets::one(secret))]))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key ring of these pairs and those of the file, if there is one; what
    /// stands in both is taken from here.
    ///
    /// # Errors
    /// If there is no key, one cannot be used, or the file cannot be read.
    pub fn ring(&self, file: Option<&Path>, signing_key: Option<&str>) -> anyhow::Result<KeyRing> {
        let mut pairs = match file {
            Some(path) => load::extract_file(path)?,
            None => BTreeMap::new(),
        };
        pairs.extend(self.0.clone());
        if pairs.is_empty() {
            bail!(
                "there is no API key: set `keys` or `keys_file`, as in \
                HEADWATER_KEYS__mykey=$(openssl rand -hex 32)"
            );
        }
        let mut ordered: Vec<(String, Secrets)> = Vec::with_capacity(pairs.len());
        if let Some(name) = signing_key {
            let pair = pairs.remove_entry(name);
            ordered.push(pair.with_context(|| format!("signing_key {name} is not among `keys`"))?);
        }
        ordered.extend(pairs);
        let pairs = ordered
            .into_iter()
            .map(|(key, secrets)| (key, secrets.0.into_iter().map(|secret| secret.0).collect()));
        KeyRing::new(pairs).context("`keys` cannot be used")
    }
}

/// What the roles of one cluster know: the same in each of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterSecret {
    /// The secret, at least 16 characters.
    pub secret: Secret,
    /// File that holds it instead; a line break at its end is not part of it.
    pub secret_file: Option<PathBuf>,
    /// A secret that is still accepted while roles change to another.
    pub retiring_secret: Secret,
}

impl ClusterSecret {
    /// The credential made of it.
    ///
    /// # Errors
    /// If there is no secret, or it is too short, or its file cannot be read.
    pub fn credential(&self) -> anyhow::Result<ClusterCredential> {
        let secret = match &self.secret_file {
            Some(path) if self.secret.is_empty() => {
                let text = std::fs::read_to_string(path).with_context(|| {
                    format!("cluster.secret_file {} cannot be read", path.display())
                })?;
                Secret::new(text.trim_end_matches(['\r', '\n']))
            }
            Some(_) | None => self.secret.clone(),
        };
        if secret.is_empty() {
            bail!(
                "there is no cluster secret: set `cluster.secret` or `cluster.secret_file` to the \
                same random text in every role, as in \
                HEADWATER_CLUSTER__SECRET=$(openssl rand -hex 32)"
            );
        }
        let retiring = (!self.retiring_secret.is_empty()).then_some(&self.retiring_secret.0);
        ClusterCredential::rotating(&secret.0, retiring).context("`cluster.secret` cannot be used")
    }
}
