//! What becomes of a call: the facts are put together here, and decided in one pure function.

use std::collections::BTreeSet;
use std::path::PathBuf;

use manifest::Cost;
use protocol::{ApprovalRequest, PermissionDenial, Tier, ToolCall, ToolCallId, ToolResult};
use runtime::Plugin;
use serde_json::Value;

use crate::StoreError;
use crate::approval::{
    BY_FLAG, Decision, Denied, Facts, IN_SETTINGS, Money, Ways, decide, holds_for_session, leaves,
};
use crate::edits::Texts;
use crate::orders::Order;
use crate::reservations::ReserveError;
use crate::rules::Asked;
use crate::session::Session;
use crate::tools::Fate;

/// What a call is about.
struct About {
    target: String,
    paths: Vec<PathBuf>,
    is_command: bool,
}

impl Session {
    /// Decides what becomes of a call, and records it.
    pub(crate) fn decide_call(
        &mut self,
        call: &ToolCall,
        arguments: &Value,
        texts: &Texts,
    ) -> Result<Fate, StoreError> {
        self.decide_as(call, arguments, texts, false)
    }

    /// Decides what becomes of a call that looks for an order, as its manifest says.
    pub(crate) fn decide_lookup(&mut self, call: &ToolCall, arguments: &Value) -> Result<Fate, StoreError> {
        self.decide_as(call, arguments, &Texts::default(), true)
    }

    fn decide_as(
        &mut self,
        call: &ToolCall,
        arguments: &Value,
        texts: &Texts,
        is_lookup: bool,
    ) -> Result<Fate, StoreError> {
        let Some(policy) =
            self.runtime.policy(&call.name).filter(|_| self.tools.iter().any(|t| t.name == call.name))
        else {
            let names: Vec<&str> = self.tools.iter().map(|t| t.name.as_str()).collect();
            let text = format!("there is no tool `{}`; the tools are {}", call.name, names.join(", "));
            return Ok(Fate::Known(ToolResult::failed(text)));
        };
        let weight = policy.weigh(arguments);
        let mut tiers = weight.tiers;
        if self.runtime.can_exec(&call.name) {
            tiers.insert(Tier::Execute);
        }
        // What a stranger's plugin says of itself lowers nothing: what it can do counts too.
        let strange = self.runtime.plugin(&call.name).filter(|_| !self.runtime.is_bundled(&call.name));
        if strange.is_some_and(Plugin::can_send) {
            tiers.insert(Tier::Remote);
        }
        let cost = tiers.contains(&Tier::Spend).then(|| policy.cost(arguments));
        let money = cost.map_or(Money::None, |cost| self.budget.weigh(cost));
        let is_too_dear = matches!(money, Money::TooDear(_));
        let mut about = self.about(call, arguments, policy.target_argument.as_deref(), &tiers);
        about.paths.extend(texts.files.iter().map(|file| file.real.clone()));
        let shown = texts.shown(policy, arguments);
        let asked = Asked {
            tool: &call.name,
            arguments,
            target: &about.target,
            paths: &about.paths,
            files: &texts.files,
            workspace: &self.context.folders().workspace,
            tiers: &tiers,
            target_argument: policy.target_argument.as_deref(),
            is_lookup,
            is_command: about.is_command,
        };
        // All of them are named: the person's word is about those, and no other.
        let again = if leaves(&tiers) { self.unknown_of(&call.name) } else { Vec::new() };
        let unknown = self.told_of(&again);
        let by_policy = tiers.iter().find_map(|tier| self.settings.policy.tier(*tier).err());
        let facts = Facts {
            mode: self.settings.mode,
            tiers: &tiers,
            walled: self.settings.walled,
            allowed_before: self.allowed.contains(&(call.name.clone(), self.scope(&call.name, arguments))),
            interactive: self.settings.interactive,
            rules: self.settings.rules.matched(&asked),
            taint: self.taint.as_deref(),
            never_automatic: weight.never_automatic,
            money,
            own: self.own(&call.name, arguments),
            unknown_order: unknown.as_deref(),
            ways: self.ways(),
        };
        let for_session = holds_for_session(&facts);
        let decision = by_policy.map_or_else(|| decide(&facts), forbidden);
        // Rules were about the target as it is. Records and cards may be about the text of a file.
        let mut target = about.target;
        self.journal.secrets.clean(&mut target);
        self.audit_decision(call, arguments, texts, &tiers, &target, &decision)?;
        let order = leaves(&tiers).then(|| Order { is_too_dear, again, ..order(cost, target.clone()) });
        Ok(match decision {
            Decision::Allow { .. } => match order {
                Some(order) => self.reserved(order, call, tiers, target),
                None => Fate::Run(None),
            },
            Decision::Ask { mut reason, .. } => {
                for name in self.runtime.unread_files(&self.context, &call.name, arguments) {
                    let name = protocol::text::line(&name);
                    reason.push_str(&format!(
                        "\n{name} was not read: the plugin may not read the folder it lies in"
                    ));
                }
                let price_usd = match cost {
                    Some(Cost::Known { usd, .. }) => Some(usd),
                    _ => None,
                };
                let remaining_usd = cost.and_then(|_| self.budget.remaining());
                let taint = self.taint.clone().filter(|_| leaves(&tiers));
                let payer = cost.map(|_| self.payer(&call.name));
                let request = ApprovalRequest {
                    tool: call.name.clone(),
                    arguments: arguments.clone(),
                    tool_call_id: call.id.clone(),
                    tiers,
                    reason,
                    need: None,
                    lasting: false,
                    target,
                    for_session,
                    price_usd,
                    remaining_usd,
                    payer,
                    taint,
                    texts: shown,
                };
                Fate::Ask(Box::new(request), order)
            }
            Decision::Deny(denied) => Fate::Known(refused(denied, &call.name, &call.id, tiers, target)),
        })
    }

    /// Sets aside what an order may cost; another run may have taken it meanwhile.
    fn reserved(&mut self, order: Order, call: &ToolCall, tiers: BTreeSet<Tier>, target: String) -> Fate {
        let Some(cost) = order.cost.filter(|(usd, _)| *usd > 0.0) else { return Fate::Run(Some(order)) };
        match self.budget.reserve(&order.id, cost, false) {
            Ok(()) => Fate::Run(Some(order)),
            Err(error) => {
                let denied = not_set_aside(&error, self.ways());
                Fate::Known(refused(denied, &call.name, &call.id, tiers, target))
            }
        }
    }

    /// What a person can say that would have allowed a call: not what the policy forbids to say.
    pub(crate) fn ways(&self) -> Ways {
        let (policy, by_hand) = (&self.settings.policy, self.by_hand);
        let may = |flag: &str| policy.flag(flag, flag).is_ok();
        let mode = |mode| policy.mode(Some((mode, "")), mode).is_ok();
        Ways {
            allow: may("--allow").then_some(if by_hand { IN_SETTINGS } else { BY_FLAG }),
            auto: !by_hand && may("--permission-mode") && mode(policy::Mode::Auto),
            yolo: !by_hand && may("--yolo") && mode(policy::Mode::Yolo),
            budget: !by_hand && may("--max-budget-usd"),
        }
    }

    /// Says of what a rule refused what would allow it: of the policy's nobody here can take one away.
    pub(crate) fn say_remedy(&self, result: &mut ToolResult) {
        let Some(denial) = &mut result.denial else { return };
        if let Some(rule) = self.settings.rules.of_denial(&denial.rule) {
            denial.remedy = rule.remedy();
        }
    }

    /// Who pays for what a tool orders, as far as the host can know: whose credentials its plugin was given.
    fn payer(&self, tool: &str) -> String {
        let given = self.runtime.plugin(tool).map(|plugin| &plugin.granted().credentials);
        let accounts: Vec<String> =
            given.into_iter().flatten().map(|(name, source)| format!("`{name}` ({source})")).collect();
        match accounts.as_slice() {
            [] => "whoever the service charges: the plugin was given no credential".to_owned(),
            accounts => format!("the account behind the credential {}", accounts.join(" or ")),
        }
    }

    fn about(
        &self,
        call: &ToolCall,
        arguments: &Value,
        named: Option<&str>,
        tiers: &BTreeSet<Tier>,
    ) -> About {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        let found = named.into_iter().chain(["command", "path"]).find_map(|name| Some((name, text(name)?)));
        let (name, target) = found.unwrap_or(("", call.name.as_str()));
        // Looking up where a path really leads costs calls of the system: only for rules that care.
        let paths = if self.settings.rules.is_empty() { None } else { text("path") };
        About {
            target: target.to_owned(),
            paths: paths.map(|path| self.context.folders().real(path)).into_iter().collect(),
            is_command: name == "command" && tiers.contains(&Tier::Execute),
        }
    }

    /// What an approval for the session covers: changes of this file, or this very call, by this very
    /// component with what it was granted now.
    pub(crate) fn scope(&self, tool: &str, arguments: &Value) -> String {
        let plugin = self.runtime.plugin(tool);
        let component = plugin.map(|plugin| plugin.described.digest.as_str()).unwrap_or_default();
        let granted =
            plugin.and_then(|plugin| serde_json::to_string(plugin.granted()).ok()).unwrap_or_default();
        let what = match (tool, arguments.get("path").and_then(Value::as_str)) {
            ("write" | "edit", Some(path)) => format!("path {path}"),
            _ => canonical(arguments),
        };
        audit::digest(format!("{component}\n{granted}\n{what}").as_bytes())
    }
}

/// Money could not be set aside for an order.
pub(crate) fn not_set_aside(error: &ReserveError, ways: Ways) -> Denied {
    Denied { rule: "budget".to_owned(), message: format!("refused: {error}"), remedy: ways.raised() }
}

/// What the machine's policy forbids: no mode, rule or person allows it.
pub(crate) fn forbidden(by: policy::Forbidden) -> Decision {
    Decision::Deny(Denied {
        rule: "policy".to_owned(),
        message: format!("refused: {by}"),
        remedy: format!("another policy, by this machine's administrator ({})", by.place),
    })
}

/// An order with an id of its own.
pub(crate) fn order(cost: Option<Cost>, target: String) -> Order {
    let spends = cost.is_some();
    let cost = match cost {
        Some(Cost::Known { usd, hours }) => Some((usd, hours)),
        _ => None,
    };
    let unpriced = spends && cost.is_none();
    let id = format!("order-{}", uuid::Uuid::new_v4().simple());
    Order { id, target, cost, unpriced, is_too_dear: false, again: Vec::new() }
}

pub(crate) fn refused(
    denied: Denied,
    tool: &str,
    id: &ToolCallId,
    tiers: BTreeSet<Tier>,
    target: String,
) -> ToolResult {
    let Denied { rule, message, remedy } = denied;
    let denial =
        PermissionDenial { tool: tool.to_owned(), tool_call_id: id.clone(), tiers, rule, target, remedy };
    ToolResult::denied(message, denial)
}

/// Arguments as one text, however their fields were ordered.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let one = |(name, value): (&String, &Value)| {
                format!("{}:{}", Value::from(name.as_str()), canonical(value))
            };
            format!("{{{}}}", fields.into_iter().map(one).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_order_of_fields_changes_nothing() {
        let one = json!({"b": [{"y": 1, "x": "a\"b"}], "a": null});
        let other = json!({"a": null, "b": [{"x": "a\"b", "y": 1}]});
        assert_eq!(canonical(&one), canonical(&other));
        assert_ne!(canonical(&one), canonical(&json!({"a": null, "b": [{"x": "a", "y": 1}]})));
        assert_eq!(serde_json::from_str::<Value>(&canonical(&one)).unwrap(), other);
    }
}
