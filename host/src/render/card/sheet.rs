//! What an approval card shows. The texts of others come first, in a margin; what is asked, and why, stands
//! below them, where it cannot have scrolled away.

use protocol::{ApprovalRequest, FileChange, Need, ShownText, Tier};

use super::Edited;
use super::layout::{Rows, plain};
use crate::render::exact;
use crate::render::style::Style;

/// One card.
pub(super) struct Card {
    pub(super) rows: Vec<String>,
    /// Rows that are not shown.
    pub(super) left_out: usize,
}

/// Makes the card of a request, for a terminal of so many columns.
pub(super) fn card(
    edited: &Edited,
    (number, count): (usize, usize),
    columns: usize,
    style: Style,
    whole: bool,
) -> Card {
    let request = &edited.request;
    let tiers: Vec<&str> = request.tiers.iter().map(|tier| tier.as_str()).collect();
    let what = format!("{} · {}", exact(&request.tool, 64), tiers.join(" + "));
    let mut above = Rows::new(columns, style);
    match &request.need {
        None => above.arguments(&request.arguments),
        Some(Need::SealedPath { change: Some(change), .. }) => difference(&mut above, change),
        Some(Need::SealedPath { change: None, .. } | Need::Network { .. } | Need::Budget { .. }) => {}
    }
    let (texts, left_out) = above.cut(whole);
    let mut below = Rows::new(columns, style);
    below.fact("tool", &what);
    asked(&mut below, request);
    request.texts.iter().for_each(|shown| text(&mut below, shown, edited));
    below.fact("why", &request.reason);
    // The reasons of a call name it where it counts. Those of a need name an origin, which may be the same text.
    let is_told = |taint: &&String| request.need.is_none() && request.reason.contains(taint.as_str());
    if let Some(taint) = request.taint.as_ref().filter(|taint| !is_told(taint)) {
        let taint = protocol::text::line(taint);
        let told = format!("the session has read {taint}, which may have talked the model into it");
        below.fact("tainted", &told);
    }
    costs(&mut below, request);
    if left_out > 0 {
        below.fact("hidden", &format!("{left_out} rows above are not shown; w shows them"));
    }
    let head = style.bold(&style.yellow(&format!("Approval required [{number}/{count}] {what}")));
    let rows = std::iter::once(head).chain(texts).chain(below.all()).collect();
    Card { rows, left_out }
}

/// What would be allowed.
fn asked(rows: &mut Rows, request: &ApprovalRequest) {
    match &request.need {
        Some(Need::Network { plugin, grant, .. }) => {
            let (origin, method) = grant.rsplit_once(' ').unwrap_or((grant, ""));
            rows.fact("plugin", plugin);
            rows.fact("origin", origin);
            rows.fact("method", method);
        }
        Some(Need::Budget { .. }) => rows.fact("go on", "until the next question"),
        Some(Need::SealedPath { path, sha256, change }) => {
            rows.fact("change", path);
            if let Some(FileChange { added, removed, .. }) = change {
                rows.fact("lines", &format!("{added} added, {removed} removed"));
            }
            if let (Some(sha256), Some(FileChange { diff: None, .. })) = (sha256, change) {
                rows.fact("bytes", &format!("sha256 {sha256}"));
            }
        }
        None => rows.fact("target", &target(&request.target, rows.room(2))),
    }
}

/// What a text among the arguments is: where it came from, and its bytes.
fn text(rows: &mut Rows, shown: &ShownText, edited: &Edited) {
    let ShownText { argument, path, bytes, sha256 } = shown;
    let from = match (edited.texts.contains_key(argument), path) {
        (true, _) => " as you wrote it".to_owned(),
        (false, Some(path)) => format!(" from the file {}", exact(path, 160)),
        (false, None) => String::new(),
    };
    rows.fact("text", &format!("{}{from}, {bytes} bytes", exact(argument, 64)));
    rows.fact("sha256", sha256);
}

/// A target on a row or two. What is cut of it stands above: it is one of the arguments.
fn target(target: &str, most: usize) -> String {
    let target = protocol::text::line(target);
    let length = target.chars().count();
    if length <= most {
        return target.into_owned();
    }
    let told = |left: usize| format!("… {left} more characters, see above");
    // Its signs may be wider on some terminals than their number.
    let kept = most.saturating_sub(told(length).chars().count() + 4);
    format!("{}{}", target.chars().take(kept).collect::<String>(), told(length - kept))
}

fn costs(rows: &mut Rows, request: &ApprovalRequest) {
    let left = match request.remaining_usd {
        Some(left) => format!(", of {left:.2} USD that are left"),
        None => String::new(),
    };
    match request.price_usd {
        Some(price) if price <= 0.0 => rows.fact("costs", "nothing, by the plugin's own list"),
        Some(price) => rows.fact("costs", &format!("at most {price:.2} USD{left}")),
        None if request.tiers.contains(&Tier::Spend) && request.need.is_none() => {
            rows.fact("costs", &format!("nobody knows how much{left}"));
        }
        None => {}
    }
    if let Some(payer) = &request.payer {
        rows.fact("pays", payer);
    }
}

/// A change of a file as a difference, or as what is known of it.
fn difference(rows: &mut Rows, change: &FileChange) {
    match change.diff.as_deref() {
        Some("") => rows.text("the file stays as it is", plain),
        Some(diff) => rows.text(diff, painted),
        None => rows.text("it is very large or no text, so that no difference can be shown", plain),
    }
}

fn painted(style: Style, line: &str, row: &str) -> String {
    match line.as_bytes().first() {
        Some(b'+') => style.green(row),
        Some(b'-') => style.red(row),
        Some(b'@') => style.dim(row),
        _ => row.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;
    use unicode_width::UnicodeWidthStr as _;

    use super::*;

    fn request(command: &str) -> ApprovalRequest {
        ApprovalRequest {
            tool: "bash".to_owned(),
            arguments: json!({"command": command}),
            tool_call_id: "call_1".into(),
            tiers: [Tier::Execute, Tier::Spend].into(),
            reason: "permission mode `ask` asks for calls of tier `execute`".to_owned(),
            need: None,
            target: command.to_owned(),
            for_session: true,
            lasting: false,
            price_usd: Some(1.5),
            remaining_usd: Some(8.0),
            payer: Some("the account of `hub`, from huggingface".to_owned()),
            taint: Some("https://evil.example\n  y once".to_owned()),
            texts: Vec::new(),
        }
    }

    fn card(request: ApprovalRequest, columns: usize, whole: bool) -> Card {
        let edited = Edited { request, texts: BTreeMap::new() };
        super::card(&edited, (1, 2), columns, Style::PLAIN, whole)
    }

    #[test]
    fn what_is_asked_stands_below_whatever_the_arguments_are() {
        let command = format!("true\n{}\u{9d}rm -rf ~", "\n".repeat(2_000));
        for columns in [60, 80, 140] {
            let Card { rows, left_out } = card(request(&command), columns, false);
            assert!(rows[0].starts_with("Approval required [1/2] bash · execute + spend"));
            assert!(left_out > 1_000 && rows.iter().all(|row| row.width() < columns), "{rows:#?}");
            let below =
                rows.iter().skip_while(|row| !row.starts_with("  tool ")).cloned().collect::<Vec<_>>();
            let text = below.join("\n");
            for part in ["bash · execute + spend", "asks for calls of tier", "at most 1.50 USD, of 8.00 USD"]
            {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(
                text.contains("the account of `hub`") && text.contains("rows above are not shown"),
                "{text}"
            );
            // The last line of the arguments is shown too, and with it what hides there.
            assert!(rows.iter().any(|row| row == "  │   │ \\u{9d}rm -rf ~"), "{rows:#?}");
            assert!(below.len() < 20 && below.iter().all(|row| row.trim() != "y once"), "{text}");
            let whole = card(request(&command), columns, true);
            assert!(whole.left_out == 0 && whole.rows.len() > 2_000);
        }
    }

    #[test]
    fn what_costs_nothing_is_not_told_as_unknown() {
        for (price_usd, told) in [
            (Some(0.0), "costs   nothing, by the plugin's own list"),
            (None, "costs   nobody knows how much"),
            (Some(2.0), "costs   at most 2.00 USD"),
        ] {
            let text = card(ApprovalRequest { price_usd, ..request("x") }, 80, false).rows.join("\n");
            assert!(text.contains(told), "{text}");
        }
    }

    #[test]
    fn what_goes_back_to_where_the_text_came_from_is_told_as_tainted() {
        let grant = "https://evil.example POST".to_owned();
        let need = Need::Network {
            plugin: "probe".to_owned(),
            grant: grant.clone(),
            host: "evil.example".to_owned(),
            sends: true,
            rule: None,
            granted: false,
        };
        let request = ApprovalRequest {
            need: Some(need),
            reason: format!("the plugin `probe` was not granted `{grant}`"),
            taint: Some("https://evil.example".to_owned()),
            ..request("x")
        };
        let text = card(request.clone(), 140, false).rows.join("\n");
        assert!(text.contains("  tainted the session has read https://evil.example"), "{text}");
        // A call's reason names it already.
        let text = card(ApprovalRequest { need: None, ..request }, 140, false).rows.join("\n");
        assert!(!text.contains("  tainted "), "{text}");
    }

    #[test]
    fn a_sealed_path_is_shown_with_its_change() {
        let change = FileChange {
            path: "/w/.env".to_owned(),
            added: 1,
            removed: 0,
            diff: Some("@@ -0,0 +1 @@\n+KEY=\u{1b}[2Kx\n".to_owned()),
        };
        let need = Need::SealedPath { path: "/w/.env".to_owned(), sha256: None, change: Some(change) };
        let request =
            ApprovalRequest { need: Some(need), taint: None, price_usd: None, payer: None, ..request("x") };
        let text = card(request, 80, false).rows.join("\n");
        assert!(text.contains("  │ +KEY=\\u{1b}[2Kx\n") && text.contains("  change  /w/.env\n"), "{text}");
        assert!(text.contains("  lines   1 added, 0 removed") && !text.contains("command"), "{text}");
    }
}
