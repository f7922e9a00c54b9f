//! Which plugins may be used.

use manifest::is_plugin_id;
use semver::Version;
use serde::Deserialize;
use toml::Spanned;

use crate::schema::{Bundled, Fault};
use crate::{Digest, Forbidden, Policy, PublisherKey};

/// Which plugins may be used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plugins {
    /// Nothing but bundled plugins and those in `allow`.
    pub(crate) only_listed: Option<Spanned<bool>>,
    #[serde(default)]
    pub(crate) allow: Vec<Spanned<Allowed>>,
    /// Digests of components that never run, whoever signed them.
    #[serde(default)]
    pub(crate) revoked: Vec<Spanned<Digest>>,
    /// Keys whose signatures count for nothing any more.
    #[serde(default)]
    pub(crate) revoked_publishers: Vec<Spanned<PublisherKey>>,
    /// Bundled plugins by id; `false` leaves one out.
    #[serde(default)]
    pub(crate) bundled: Bundled,
}

/// A plugin that may be used, if it is the right one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Allowed {
    pub(crate) id: String,
    /// Any of these, if there are any.
    #[serde(default)]
    pub(crate) digests: Vec<Digest>,
    /// Signed by this key.
    pub(crate) publisher: Option<PublisherKey>,
    #[serde(default, deserialize_with = "version")]
    pub(crate) min_version: Option<Version>,
}

fn version<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Version>, D::Error> {
    let text = String::deserialize(from)?;
    let told = |e| serde::de::Error::custom(format!("`{text}` is no version ({e}); write it like `1.2.0`"));
    Version::parse(&text).map(Some).map_err(told)
}

/// What a policy has to know of a plugin.
#[derive(Clone, Copy, Debug)]
pub struct PluginFacts<'a> {
    pub id: &'a str,
    pub version: &'a str,
    /// SHA-256 of the component, in hexadecimal digits.
    pub digest: &'a str,
    /// The key whose signature over the component was verified.
    pub publisher: Option<&'a str>,
    pub bundled: bool,
}

impl Plugins {
    /// Bundled plugins that it says something about.
    pub fn bundled_ids(&self) -> impl Iterator<Item = &str> {
        self.bundled.keys().map(String::as_str)
    }

    pub(crate) fn check(&self) -> Result<(), Fault> {
        for (id, rule) in &self.bundled {
            if !is_plugin_id(id) {
                return Err((rule.span(), format!("`{id}` is no plugin id")));
            }
        }
        for (n, rule) in self.allow.iter().enumerate() {
            let Allowed { id, digests, publisher, .. } = rule.get_ref();
            if !is_plugin_id(id) {
                return Err((rule.span(), format!("`{id}` is no plugin id")));
            }
            if digests.is_empty() && publisher.is_none() {
                // Anyone can give a plugin any id.
                let reason = format!("`{id}` is allowed by its name alone; add `publisher` or `digests`");
                return Err((rule.span(), reason));
            }
            if self.allow[..n].iter().any(|other| other.get_ref().id == *id) {
                return Err((rule.span(), format!("`{id}` is in the list twice")));
            }
        }
        Ok(())
    }
}

impl Policy {
    /// The key that must have signed a plugin.
    #[must_use]
    pub fn publisher_of(&self, id: &str) -> Option<&PublisherKey> {
        self.rules().plugins.allow.iter().map(Spanned::get_ref).find(|rule| rule.id == id)?.publisher.as_ref()
    }

    /// The keys of all publishers that it names.
    pub fn publishers(&self) -> impl Iterator<Item = &PublisherKey> {
        self.rules().plugins.allow.iter().filter_map(|rule| rule.get_ref().publisher.as_ref())
    }

    /// Whether a plugin may be used.
    ///
    /// # Errors
    /// Says why not, and which line says so.
    pub fn plugin(&self, plugin: PluginFacts<'_>) -> Result<(), Forbidden> {
        let rules = &self.rules().plugins;
        let refuse = |why: String, place: String| {
            Err(Forbidden { what: format!("plugin `{}` ({why})", plugin.id), place })
        };
        if let Some(line) = rules.revoked.iter().find(|d| d.get_ref().hex() == plugin.digest) {
            return refuse("this component is revoked".to_owned(), self.place(line));
        }
        let signed_by = |key: &PublisherKey| plugin.publisher == Some(key.as_str());
        if let Some(line) = rules.revoked_publishers.iter().find(|key| signed_by(key.get_ref())) {
            return refuse("its publisher's key is revoked".to_owned(), self.place(line));
        }
        if let Some(line) = rules.bundled.get(plugin.id).filter(|on| plugin.bundled && !on.get_ref()) {
            return refuse("it is left out".to_owned(), self.place(line));
        }
        let Some(line) = rules.allow.iter().find(|rule| rule.get_ref().id == plugin.id) else {
            return match &rules.only_listed {
                Some(only) if *only.get_ref() && !plugin.bundled => {
                    refuse("it is not listed there".to_owned(), self.place(only))
                }
                _ => Ok(()),
            };
        };
        let Allowed { digests, publisher, min_version, .. } = line.get_ref();
        if !digests.is_empty() && !digests.iter().any(|d| d.hex() == plugin.digest) {
            return refuse(format!("its digest is sha256:{}", plugin.digest), self.place(line));
        }
        if let Some(key) = publisher.as_ref().filter(|key| !signed_by(key)) {
            return refuse(format!("it is not signed by {key}"), self.place(line));
        }
        match min_version {
            Some(least) if Version::parse(plugin.version).map_or(true, |version| version < *least) => {
                refuse(format!("version {} is older than {least}", plugin.version), self.place(line))
            }
            _ => Ok(()),
        }
    }
}
