//! What the host says to the model in the person's place. Each begins with a mark that says so.

use protocol::PlanItem;

/// The output was cut in the middle of tool calls, so none of them was run.
pub(crate) fn output_cut(tools: &[&str]) -> String {
    format!(
        "[SYSTEM: your answer met the output limit in the middle of these calls, so none of them was run: {}. \
         Do not send the same large content again. For `write`: write a first part and add the rest with several \
         `edit` calls, or use bash with a heredoc. For other tools: make the arguments smaller.]",
        tools.join(", ")
    )
}

/// How every result of a call with broken arguments begins; the streak is counted by it.
pub(crate) fn malformed_mark(tool: &str) -> String {
    format!("ERROR: Tool call to '{tool}' had malformed JSON arguments")
}

pub(crate) fn malformed(tool: &str, reason: &str) -> String {
    format!(
        "{} and was not run ({reason}). Send the call again with valid, smaller arguments; for `write`, write a first \
         part and add to it with `edit`.",
        malformed_mark(tool)
    )
}

pub(crate) fn malformed_streak(tool: &str) -> String {
    format!(
        "[SYSTEM: Repeated malformed tool arguments detected for '{tool}'. Stop sending calls of this shape. Use smaller, \
         valid JSON; for large files use bash with a heredoc or write them in parts.]"
    )
}

pub(crate) fn wrong_args(value: &str) -> String {
    format!("the field `args` must be a JSON object, not {value}; give the tool's own fields directly")
}

/// A text-only answer while the plan has open items.
pub(crate) fn continuation(open: &[&PlanItem]) -> String {
    let or = |text: &str, default: &str| {
        if text.is_empty() { default.to_owned() } else { text.to_owned() }
    };
    let item = |p: &&PlanItem| {
        format!("{}. {} [{}]", or(&p.id, "?"), or(&p.content, "(unnamed task)"), or(&p.status, "unknown"))
    };
    let mut items = open.iter().take(4).map(item).collect::<Vec<_>>().join("; ");
    if open.len() > 4 {
        items.push_str(&format!("; ... and {} more", open.len() - 4));
    }
    format!(
        "[SYSTEM: CONTINUATION GUARD] The task is not finished; open items: {items}. Do not hand back control. Make at least \
         one tool call now; if you are blocked, use a tool to look into what blocks you."
    )
}

pub(crate) fn repetition(tool: &str) -> String {
    format!(
        "[SYSTEM: REPETITION GUARD] You made the same call to '{tool}' several times with the same result. It will not \
         change. Stop, and try something else: other arguments, another tool, another approach, or ask the user."
    )
}

pub(crate) fn cycle(tools: &[&str]) -> String {
    format!(
        "[SYSTEM: REPETITION GUARD] You are going round in a cycle: [{}]. Stop, and try something else: other arguments, \
         another tool, another approach, or ask the user.",
        tools.join(" → ")
    )
}

pub(crate) const INTERRUPTED: &str = "not finished: interrupted by the user";
pub(crate) const NOT_RUN: &str = "not run: interrupted or failed before it started";
pub(crate) const OUTCOME_UNKNOWN: &str =
    "outcome unknown: the program ended while this call was running. Check what it did before you repeat it.";
pub(crate) const CARD_IS_OLD: &str = "not run: since the user was asked, another order went unanswered or the money \
                                        was taken elsewhere; make the call again";
pub(crate) const CUT_OFF_CALL: &str = "a call that ran when the program was ended";
pub(crate) const ABANDONED: &str = "not run: the user went on without approving it";

/// Asks for a summary of what is left out from now on.
pub(crate) const SUMMARISE: &str = "Summarise the conversation above for someone who goes on with the work and has not \
    read it: what was asked, what was decided and why, which files, data sets, models and jobs matter (with their exact \
    names), which problems were solved and how, what is left to do. Be concise and exact. Answer with the summary only.";
