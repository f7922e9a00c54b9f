//! Orders work from a server and makes repositories, the way a jobs tool and a Hub tool do. For the tests.

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
    /// What is run: a text, or the path of a file with it.
    script: Option<String>,
    /// What goes wrong once the server has answered.
    then: Option<Then>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Then {
    /// The work fails, which the tool says.
    Fail,
    /// The tool crashes.
    Crash,
    /// The tool follows the work, which has no end.
    Follow,
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
        let Self { operation, name, flavor, timeout, order, server, script, then } = self;
        let server = server.unwrap_or_else(|| "http://127.0.0.1:00001".to_owned());
        if let Operation::Find = operation {
            let status = Request::get(format!("{server}/{}", order.unwrap_or_default())).send()?.status;
            // A server that wants more than a look.
            if status == 418 {
                Request::post_json(format!("{server}/again"), &serde_json::json!({})).send()?;
            }
            let state = if status == 200 { "found" } else { "absent" };
            let answer = serde_json::json!({"order": {"state": state}});
            return Ok(Output::text(state).with_structured(answer));
        }
        let order = call.order().unwrap_or("none");
        let body = serde_json::json!({
            "name": name, "flavor": flavor, "timeout": timeout, "label": order, "script": script,
        });
        let answer = Request::post_json(format!("{server}/{order}"), &body).send()?;
        match then {
            Some(Then::Fail) => return Ok(Output::text("the work failed").failed_if(true)),
            Some(Then::Crash) => panic!("the tool does not know what to do"),
            Some(Then::Follow) => drop(Request::get(format!("{server}/follow")).send()?),
            None => {}
        }
        let output = Output::text(format!("{}: {}", answer.status, answer.text()));
        // What the server says that it costs.
        let cost = answer.json::<serde_json::Value>().ok().and_then(|answer| answer["cost_usd"].as_f64());
        let output = match cost {
            Some(cost) => output.with_structured(serde_json::json!({"order": {"cost_usd": cost}})),
            None => output,
        };
        Ok(output.failed_if(answer.status != 200))
    }
}

/// Arguments of `repo`.
#[derive(Deserialize, JsonSchema)]
struct Repo {
    operation: Verb,
    /// `NAMESPACE/NAME`.
    repo: String,
    /// `model`, `dataset` or `space`.
    kind: Option<String>,
    private: Option<bool>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Create,
    Change,
    Publish,
    Delete,
}

impl Tool for Repo {
    const NAME: &'static str = "repo";
    const DESCRIPTION: &'static str = "Makes, changes or deletes a repository of the Hub.";

    fn run(self, _call: &Call) -> Result<Output, ToolError> {
        let Self { operation, repo, kind, private } = self;
        let body = serde_json::json!({"repo": repo, "kind": kind, "private": private});
        let verb = format!("{operation:?}").to_lowercase();
        let url = format!("https://huggingface.co/api/repos/{verb}");
        let answer = Request::post_json(url, &body).credential("hub").send()?;
        let output = Output::text(format!("{}: {}", answer.status, answer.text()));
        let created = matches!(operation, Verb::Create) && answer.status == 200;
        let told = serde_json::json!({"repository": {"created": created}});
        Ok(output.with_structured(told).failed_if(!matches!(answer.status, 200 | 409)))
    }
}

sdk::export!(Order, Repo);
