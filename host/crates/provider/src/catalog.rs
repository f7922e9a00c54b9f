use std::collections::BTreeMap;

use protocol::Usage;
use serde::Deserialize;

use crate::effort::Effort;

/// A model worth naming to someone who has to choose one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Suggestion {
    pub id: String,
    pub label: String,
}

/// Why the providers cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// `models.toml` cannot be read.
    #[error("models.toml cannot be read: {0}")]
    Syntax(#[from] Box<toml::de::Error>),
    /// A provider of the user's settings has a name that means something else.
    #[error(
        "a provider in the settings cannot be called `{0}`: ids that start with `{0}/` go elsewhere; rename it"
    )]
    ReservedName(String),
}

/// `models.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Catalog {
    #[serde(default, rename = "suggestion")]
    pub(crate) suggestions: Vec<Suggestion>,
    #[serde(default)]
    exceptions: Exceptions,
    #[serde(default)]
    misspelt: BTreeMap<String, String>,
    #[serde(default)]
    unknown: BTreeMap<String, Facts>,
    #[serde(default, rename = "model")]
    models: BTreeMap<String, Facts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    /// Beginnings of ids.
    router: Vec<String>,
}

/// What is known about a model.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Facts {
    #[serde(default)]
    spellings: Vec<String>,
    pub(crate) context: Option<u64>,
    pub(crate) output: Option<u32>,
    pub(crate) thinking: Option<Thinking>,
    #[serde(default)]
    pub(crate) efforts: Vec<Effort>,
    pub(crate) price: Option<Price>,
    long: Option<LongPrice>,
}

/// How a model is told to think.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Thinking {
    /// It decides by itself, guided by an effort.
    Adaptive,
    /// It is given a number of tokens.
    Budget,
    /// It takes an effort and returns its reasoning encrypted.
    Effort,
}

/// USD per million tokens.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Price {
    pub(crate) input: f64,
    pub(crate) output: f64,
    pub(crate) cache_read: Option<f64>,
    pub(crate) cache_write: Option<f64>,
}

/// The price of a request whose input is longer than `above` tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongPrice {
    above: u64,
    input: f64,
    output: f64,
    cache_read: Option<f64>,
    cache_write: Option<f64>,
}

impl Catalog {
    pub(crate) fn parse(text: &str) -> Result<Self, CatalogError> {
        toml::from_str(text).map_err(|e| CatalogError::Syntax(Box::new(e)))
    }

    /// Facts about an id without its `:provider`.
    pub(crate) fn find(&self, id: &str) -> Option<(&str, &Facts)> {
        self.find_exactly(id).or_else(|| self.find_exactly(without_date(id)?))
    }

    /// A copy of the facts about an id.
    pub(crate) fn facts(&self, id: &str) -> Option<Facts> {
        self.find(id).map(|(_, facts)| facts.clone())
    }

    fn find_exactly(&self, id: &str) -> Option<(&str, &Facts)> {
        let (name, facts) = match self.models.get_key_value(id) {
            Some(found) => found,
            None => self.models.iter().find(|(_, facts)| facts.is_spelt(id))?,
        };
        Some((name, facts))
    }

    /// What to take an unknown model of `vendor` for.
    pub(crate) fn unknown(&self, vendor: &str) -> Facts {
        self.unknown.get(vendor).cloned().unwrap_or_default()
    }

    /// Whether a vendor's API does not serve an id that carries its name.
    pub(crate) fn is_router_only(&self, id: &str) -> bool {
        self.exceptions.router.iter().any(|start| id.starts_with(start))
    }

    /// The local prefix that someone meant.
    pub(crate) fn meant(&self, prefix: &str) -> Option<&str> {
        self.misspelt.get(prefix).map(String::as_str)
    }
}

impl Facts {
    /// Of a model that costs nothing.
    pub(crate) fn free() -> Self {
        let price = Price { input: 0.0, output: 0.0, cache_read: None, cache_write: None };
        Self { price: Some(price), ..Self::default() }
    }

    /// Without a price, for a provider that is not the vendor: what it asks is not known.
    pub(crate) fn without_price(mut self) -> Self {
        self.price = None;
        self.long = None;
        self
    }

    /// Whether `id` is one of the other spellings.
    pub(crate) fn is_spelt(&self, id: &str) -> bool {
        self.spellings.iter().any(|spelling| spelling == id)
    }

    /// The price of these tokens in USD.
    pub(crate) fn cost(&self, usage: &Usage) -> Option<f64> {
        let price = match self.long {
            Some(long) if usage.prompt_tokens > long.above => long.price(),
            _ => self.price?,
        };
        Some(price.of(usage))
    }
}

impl Price {
    /// USD per million tokens of input and of output.
    pub(crate) fn of_tokens(input: f64, output: f64) -> Self {
        Self { input, output, cache_read: None, cache_write: None }
    }

    pub(crate) fn of(&self, usage: &Usage) -> f64 {
        let cached = usage.cache_read_tokens + usage.cache_creation_tokens;
        let parts = [
            (usage.prompt_tokens.saturating_sub(cached), self.input),
            (usage.cache_read_tokens, self.cache_read.unwrap_or(self.input)),
            (usage.cache_creation_tokens, self.cache_write.unwrap_or(self.input)),
            (usage.completion_tokens, self.output),
        ];
        parts.iter().map(|(tokens, per_million)| *tokens as f64 * per_million).sum::<f64>() / 1e6
    }
}

impl LongPrice {
    fn price(self) -> Price {
        let Self { above: _, input, output, cache_read, cache_write } = self;
        Price { input, output, cache_read, cache_write }
    }
}

/// An id without `-20260101`, `-2026-01-01` or `-latest` at its end.
fn without_date(id: &str) -> Option<&str> {
    if let Some(name) = id.strip_suffix("-latest") {
        return Some(name);
    }
    ["-20YYMMDD", "-20YY-MM-DD"].iter().find_map(|pattern| {
        let (name, date) = id.split_at_checked(id.len().checked_sub(pattern.len())?)?;
        let fits = |(byte, wanted): (u8, u8)| {
            byte == wanted || (wanted.is_ascii_uppercase() && byte.is_ascii_digit())
        };
        date.bytes().zip(pattern.bytes()).all(fits).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODELS: &str = include_str!("../../../../configs/models.toml");

    #[test]
    fn the_bundled_file_is_readable_and_finds_names_in_all_their_spellings() {
        let catalog = Catalog::parse(MODELS).unwrap();
        assert_eq!(catalog.suggestions.len(), 6);
        for (id, name) in [
            ("anthropic/claude-opus-4.8", Some("anthropic/claude-opus-4-8")),
            ("anthropic/claude-opus-4-8", Some("anthropic/claude-opus-4-8")),
            ("anthropic/claude-opus-4-5-20251101", Some("anthropic/claude-opus-4-5")),
            ("openai/gpt-5-2025-08-07", Some("openai/gpt-5")),
            ("openai/gpt-5.5-2026-04-23", Some("openai/gpt-5.5")),
            ("openai/gpt-5-latest", Some("openai/gpt-5")),
            ("openai/gpt-5.5-pro", None),
            ("openai/gpt-5-20", None),
            ("nobody/knows", None),
        ] {
            assert_eq!(catalog.find(id).map(|(name, _)| name), name, "{id}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = Catalog::parse("[model.\"a/b\"]\ncontxt = 1").unwrap_err().to_string();
        assert!(error.contains("contxt"), "{error}");
    }

    #[test]
    fn cost_counts_cached_tokens_at_their_own_price() {
        let catalog = Catalog::parse(MODELS).unwrap();
        let cost = |id: &str, usage: Usage| catalog.find(id).unwrap().1.cost(&usage);
        let usage = Usage {
            prompt_tokens: 1_000_000,
            completion_tokens: 100_000,
            cache_read_tokens: 800_000,
            cache_creation_tokens: 100_000,
            ..Usage::default()
        };
        // 100k at 5.00, 800k at 0.50, 100k at 6.25, 100k at 25.00
        assert_eq!(cost("anthropic/claude-opus-4.8", usage), Some(0.5 + 0.4 + 0.625 + 2.5));
        let long = Usage { prompt_tokens: 300_000, completion_tokens: 10_000, ..Usage::default() };
        assert_eq!(cost("openai/gpt-5.5", long), Some(3.0 + 0.45));
        let short = Usage { prompt_tokens: 200_000, completion_tokens: 10_000, ..Usage::default() };
        assert_eq!(cost("openai/gpt-5.5", short), Some(1.0 + 0.3));
        assert_eq!(cost("openai/gpt-oss-20b", short), None);
    }
}
