//! Orders work from a server, the way a jobs tool does. For the tests.

use schemars::JsonSchema;
use sdk::http::Request;
use sdk::{Call, Output, Tool, ToolError};
use serde::Deserialize;

/// Arguments of `order`.
#[derive(Deserialize, JsonSchema)]
struct Order {
    operation: Operation,
    /// What the work is called.
    name: Option<String>,
    /// What it runs on.
    flavor: Option<String>,
    /// How long it may run, as `30m` or `3h`.
    timeout: Option<String>,
    /// The order to look for.
    order: Option<String>,
    /// The server's origin.
    server: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Run,
    Schedule,
    Find,
}

impl Tool for Order {
    const NAME: &'static str = "order";
    const DESCRIPTION: &'static str = "Orders work, or looks for an order.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let Self { operation, name, flavor, timeout, order, server } = self;
        let server = server.unwrap_or_else(|| "http://127.0.0.1:00001".to_owned());
        if let Operation::Find = operation {
            let status = Request::get(format!("{server}/{}", order.unwrap_or_default())).send()?.status;
            let state = if status == 200 { "found" } else { "absent" };
            let answer = serde_json::json!({"order": {"state": state}});
            return Ok(Output::text(state).with_structured(answer));
        }
        let order = call.order().unwrap_or("none");
        let body = serde_json::json!({"name": name, "flavor": flavor, "timeout": timeout, "label": order});
        let answer = Request::post_json(format!("{server}/{order}"), &body).send()?;
        Ok(Output::text(format!("{}: {}", answer.status, answer.text())).failed_if(answer.status != 200))
    }
}

sdk::export!(Order);
