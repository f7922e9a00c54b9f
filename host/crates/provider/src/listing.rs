use std::time::Duration;

use protocol::Usage;
use serde_json::Value;

use crate::catalog::Price;
use crate::model::Model;
use crate::probe::get;
use crate::target::Route;
use crate::usage::number;

/// How long the router has for its list of models.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the Hugging Face router says about a model: who serves it, with which window, at which price.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    pub providers: Vec<ListedProvider>,
}

/// One provider of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ListedProvider {
    pub name: String,
    pub is_live: bool,
    /// Tokens.
    pub context_window: Option<u64>,
    /// USD per million tokens.
    pub input_usd: Option<f64>,
    /// USD per million tokens.
    pub output_usd: Option<f64>,
    pub supports_tools: Option<bool>,
}

impl Model {
    /// Asks the router who serves the model. None: it goes elsewhere, the router does not answer within
    /// 5 s, or does not know the model.
    pub async fn listing(&self) -> Option<Listing> {
        if self.target.route != Route::Router {
            return None;
        }
        let models = tokio::time::timeout(PATIENCE, get(&self.target, "/v1/models")).await.ok()?;
        Listing::of(&models, self.plain_id())
    }

    /// The same model with the window and price that the listing gives it: those of the provider that its id
    /// names, else the smallest window and the highest price of those that are live.
    #[must_use]
    pub fn with_listing(mut self, listing: &Listing) -> Self {
        let named = self.id().split_once(':').map(|(_, provider)| provider.to_owned());
        let is_meant = |provider: &&ListedProvider| named.as_ref() == Some(&provider.name);
        let meant: Vec<&ListedProvider> = match listing.providers.iter().find(is_meant) {
            Some(provider) => vec![provider],
            None => listing.providers.iter().filter(|provider| provider.is_live).collect(),
        };
        if let Some(window) = meant.iter().filter_map(|provider| provider.context_window).min() {
            self.window = Some(window);
        }
        self.price = highest(&meant);
        self
    }

    /// USD for these tokens. None: its price is not known.
    #[must_use]
    pub fn cost_usd(&self, usage: &Usage) -> Option<f64> {
        self.price.map(|price| price.of(usage)).or_else(|| self.target.facts.cost(usage))
    }

    fn plain_id(&self) -> &str {
        self.id().split_once(':').map_or(self.id(), |(plain, _)| plain)
    }
}

/// A price that none of these exceeds; none if one of them does not say.
fn highest(providers: &[&ListedProvider]) -> Option<Price> {
    let all = |of: fn(&ListedProvider) -> Option<f64>| {
        let prices: Option<Vec<f64>> = providers.iter().map(|provider| of(provider)).collect();
        prices
            .filter(|prices| prices.iter().all(|price| price.is_finite() && *price > 0.0))?
            .into_iter()
            .reduce(f64::max)
    };
    let (input, output) = (all(|provider| provider.input_usd)?, all(|provider| provider.output_usd)?);
    Some(Price::of_tokens(input, output))
}

impl Listing {
    fn of(models: &Value, id: &str) -> Option<Self> {
        let entry = models["data"].as_array()?.iter().find(|entry| entry["id"] == id)?;
        let provider = |listed: &Value| {
            Some(ListedProvider {
                name: listed["provider"].as_str()?.to_owned(),
                is_live: listed["status"] == "live",
                context_window: number(&listed["context_length"]).filter(|tokens| *tokens > 0),
                input_usd: listed["pricing"]["input"].as_f64(),
                output_usd: listed["pricing"]["output"].as_f64(),
                supports_tools: listed["supports_tools"].as_bool(),
            })
        };
        Some(Self { providers: entry["providers"].as_array()?.iter().filter_map(provider).collect() })
    }
}

#[cfg(test)]
mod tests {
    use egress::{Egress, EgressConfig};
    use serde_json::json;
    use testkit::ModelServer;

    use super::*;
    use crate::catalog::Facts;
    use crate::settings::WireFormat;
    use crate::target::Draft;

    /// A model of the router, if the router were at `url`.
    fn routed(id: &str, url: &str) -> Model {
        let draft = Draft::new(id, id, WireFormat::Chat, Route::Router, url).unwrap();
        let egress = Egress::new(EgressConfig::default());
        Model::new(draft.finish(Facts::default(), String::new(), String::new(), egress))
    }

    #[test]
    fn the_routers_list_gives_windows_and_prices() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let server = ModelServer::start(vec![]);
        let provider = |name: &str, status: &str, window: u64, input: f64| {
            json!({"provider": name, "status": status, "context_length": window, "supports_tools": true,
                   "pricing": {"input": input, "output": input * 4.0}})
        };
        let providers = json!([
            provider("novita", "live", 200_000, 0.5),
            provider("together", "live", 100_000, 1.0),
            provider("sambanova", "error", 1_000, 9.0),
        ]);
        let free = json!([{"provider": "x", "status": "live"}]);
        server.serve(
            "/v1/models",
            json!({"data": [{"id": "a/b", "providers": providers}, {"id": "a/c", "providers": free}]}),
        );
        let usage = Usage { prompt_tokens: 1_000_000, completion_tokens: 1_000_000, ..Usage::default() };
        for (id, window, cost) in [
            ("a/b:novita", 200_000, Some(2.5)),
            ("a/b:fastest", 100_000, Some(5.0)),
            ("a/b", 100_000, Some(5.0)),
            ("a/c", 200_000, None),
        ] {
            let model = routed(id, &server.url());
            let listing = runtime.block_on(model.listing()).unwrap();
            let model = model.with_listing(&listing);
            assert_eq!((model.context_window(), model.cost_usd(&usage)), (window, cost), "{id}");
        }
        assert_eq!(runtime.block_on(routed("a/d", &server.url()).listing()), None);
    }

    #[test]
    fn what_a_catalogue_calls_a_price_and_is_none_is_not_known() {
        for odd in [json!(0), json!(-1), json!("free"), json!("NaN"), json!(null), json!({})] {
            let listed = json!({"provider": "x", "status": "live", "pricing": {"input": odd, "output": 1.0}});
            let models = json!({"data": [{"id": "a/b", "providers": [listed]}]});
            let listing = Listing::of(&models, "a/b").unwrap();
            let model = routed("a/b:x", "http://127.0.0.1:1").with_listing(&listing);
            assert_eq!(model.cost_usd(&Usage::default()), None, "{odd}");
        }
    }
}
