//! What the person says about the hosts that plugins reach, besides what was granted.

use crate::{EgressError, Hosts, Origin};

/// A rule on hosts. It binds every request of every plugin, each hop of a redirect for itself.
#[derive(Clone, Debug)]
pub struct HostRule {
    pub hosts: Hosts,
    /// A person is asked before anything is sent there; else nothing is.
    pub asks: bool,
    /// The rule as it was written, and where it stands.
    pub text: String,
}

/// The rule that is about a host: one that denies comes before one that asks.
pub(crate) fn about<'a>(rules: &'a [HostRule], origin: &Origin) -> Option<&'a HostRule> {
    rules.iter().filter(|rule| rule.hosts.covers(&origin.host)).min_by_key(|rule| rule.asks)
}

/// Refuses what a rule denies, and what it asks about unless somebody said yes.
pub(crate) fn check(
    rules: &[HostRule],
    origin: &Origin,
    method: &str,
    is_approved: bool,
) -> Result<(), EgressError> {
    match about(rules, origin) {
        Some(rule) if !(rule.asks && is_approved) => Err(EgressError::Rule {
            origin: origin.to_string(),
            method: method.to_owned(),
            rule: rule.text.clone(),
            asks: rule.asks,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::NetworkGrant;

    fn checked(rules: &[(&str, bool)], url: &str, approved: &str) -> Result<(), String> {
        let rule = |(hosts, asks): &(&str, bool)| HostRule {
            hosts: Hosts::parse(hosts).unwrap(),
            asks: *asks,
            text: format!("host({hosts})"),
        };
        let rules: Vec<HostRule> = rules.iter().map(rule).collect();
        let origin = Origin::of(&Url::parse(url).unwrap()).unwrap();
        let is_approved = NetworkGrant::parse(approved).unwrap().allows(&origin, "GET");
        check(&rules, &origin, "GET", is_approved).map_err(|e| e.to_string())
    }

    #[test]
    fn a_rule_holds_for_every_spelling_port_and_scheme_of_its_host() {
        let rules = [("*.evil.example", false), ("127.0.0.1", false)];
        for url in [
            "https://evil.example/",
            "http://EVIL.example:8080/",
            "https://a.b.evil.example./x",
            "http://0x7f.1/",
            "http://2130706433:99/",
        ] {
            let refusal = checked(&rules, url, "https://other.example").unwrap_err();
            assert!(refusal.contains("the rule `host("), "{url}: {refusal}");
        }
        for url in ["https://notevil.example/", "http://127.0.0.2/", "https://evil.example.com/"] {
            checked(&rules, url, "https://other.example").unwrap();
        }
    }

    #[test]
    fn what_is_asked_about_is_sent_once_somebody_said_yes_and_what_is_denied_never() {
        let asks = [("a.example", true)];
        let refusal = checked(&asks, "https://a.example/", "https://b.example").unwrap_err();
        assert!(refusal.contains("asks"), "{refusal}");
        checked(&asks, "https://a.example/", "https://a.example").unwrap();
        // Another port is another origin.
        checked(&asks, "https://a.example:8443/", "https://a.example").unwrap_err();
        let both = [("a.example", true), ("*.example", false)];
        checked(&both, "https://a.example/", "https://a.example").unwrap_err();
    }
}
