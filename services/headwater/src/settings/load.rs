//! Brings settings together from defaults, a file, the environment and flags,
//! and says precisely what is wrong with them.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use figment::error::Kind;
use figment::providers::{Format as _, Toml, Yaml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use serde::de::DeserializeOwned;

use super::Settings;

/// Environment variables that begin with it are settings.
const PREFIX: &str = "HEADWATER_";

/// Variables with the prefix that are flags' own.
const NO_SETTINGS: [&str; 3] = ["HEADWATER_CONFIG", "HEADWATER_API_KEY", "HEADWATER_API_SECRET"];

/// One setting from outside of a file, with the name of where it comes from.
#[derive(Debug, Clone)]
pub struct Override {
    source: String,
    setting: String,
    value: Value,
}

impl Override {
    /// A setting from a flag. The value is a text; `[...]` is a list and `{...}`
    /// a table.
    pub fn new(flag: &str, setting: &str, value: &str) -> Self {
        Self { source: format!("flag {flag}"), setting: setting.to_owned(), value: read(value) }
    }

    /// A list from a flag that can be repeated.
    pub fn list(flag: &str, setting: &str, values: Vec<String>) -> Self {
        Self { source: format!("flag {flag}"), setting: setting.to_owned(), value: values.into() }
    }

    /// A setting from the environment, if the variable is one: `HEADWATER_A__B_C`
    /// is `a.b_c`. Names of API keys keep their case.
    fn from_environment(name: &str, value: &str) -> Option<Self> {
        let setting = name.strip_prefix(PREFIX)?;
        if NO_SETTINGS.contains(&name) || setting.is_empty() {
            return None;
        }
        let setting = match setting.split_once("__") {
            Some((section, key)) if section.eq_ignore_ascii_case("keys") => format!("keys.{key}"),
            Some(_) | None => setting.to_ascii_lowercase().replace("__", "."),
        };
        Some(Self { source: format!("environment variable {name}"), setting, value: read(value) })
    }
}

/// Lists and tables are read as such; everything else stays a text, so that a
/// secret of digits is no number. Numbers and flags are made of texts where a
/// setting is one.
fn read(text: &str) -> Value {
    if text.trim_start().starts_with(['[', '{']) {
        let Ok(value) = text.trim().parse::<Value>();
        return value;
    }
    Value::from(text)
}

impl Provider for Override {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let nested = figment::util::nest(&self.setting, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}

/// A file that was read, TOML or YAML by its name.
#[derive(Debug)]
struct File {
    name: String,
    content: Map<Profile, Dict>,
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let content = match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Toml::string(&text).data(),
            Some("yaml" | "yml") => Yaml::string(&text).data(),
            Some(_) | None => bail!("{shown} must end with .toml, .yaml or .yml"),
        };
        // What is wrong with the syntax is text that may quote a line with a
        // secret, but the line is in a file that whoever reads this can read.
        let content = content.map_err(|error| anyhow!("{shown} cannot be read: {}", error.kind))?;
        Ok(Self { name: format!("file {shown}"), content })
    }
}

impl Provider for File {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        Ok(self.content.clone())
    }
}

/// The settings of a role, from the process's environment too.
///
/// # Errors
/// If a setting is not known or its value cannot be used; the error names the
/// setting, where it stands and what is allowed.
pub fn load<T: Settings>(file: Option<&Path>, flags: Vec<Override>) -> anyhow::Result<T> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, environment, flags)
}

pub(super) fn load_from<T: Settings>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: Vec<Override>,
) -> anyhow::Result<T> {
    let mut figment = Figment::new();
    for (setting, value) in T::DEFAULTS {
        figment = figment.merge(Override::new("default", setting, value));
    }
    if let Some(path) = file {
        figment = figment.merge(File::read(path)?);
    }
    let mut environment: Vec<(String, String)> = environment.into_iter().collect();
    environment.sort();
    for (name, value) in &environment {
        if let Some(setting) = Override::from_environment(name, value) {
            figment = figment.merge(setting);
        }
    }
    for flag in flags {
        figment = figment.merge(flag);
    }
    extract(&figment).with_context(|| format!("the settings of {} cannot be used", T::ROLE))
}

/// A file by itself.
pub(super) fn extract_file<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    extract(&Figment::from(File::read(path)?))
}

/// The typed settings, or the first thing that is wrong with them.
fn extract<T: DeserializeOwned>(figment: &Figment) -> anyhow::Result<T> {
    figment.extract_lossy().map_err(|error| explain(figment, &error))
}

fn explain(figment: &Figment, error: &Error) -> anyhow::Error {
    let mut path = error.path.clone();
    let problem = match &error.kind {
        Kind::UnknownField(name, allowed) => {
            if path.last() != Some(name) {
                path.push(name.clone());
            }
            format!("is not known; allowed here are: {}", allowed.join(", "))
        }
        Kind::UnknownVariant(name, allowed) => {
            format!("must not be `{name}`; allowed are: {}", allowed.join(", "))
        }
        // The text of others may show the value, which may be a secret.
        Kind::InvalidType(_, expected) => format!("must be {expected}"),
        Kind::InvalidValue(_, expected) => format!("must be {expected}"),
        other => other.to_string(),
    };
    let setting = path.join(".");
    let from = figment.find_metadata(&setting).or(error.metadata.as_ref());
    let place = from.map(|from| format!("{}: ", from.name)).unwrap_or_default();
    anyhow!("{place}setting `{setting}` {problem}")
}
