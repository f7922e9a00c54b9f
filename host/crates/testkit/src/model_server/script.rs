use std::collections::VecDeque;

use super::{Request, Step};

/// What is said after the last step.
const CLOSING: &str = "Done.";

/// Steps that are still to be played.
#[derive(Debug, Default)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
}

impl Script {
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        Self { steps: steps.into() }
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push_back(step);
    }

    /// The step for a request: one that was made for it, else the next that is for any.
    pub(crate) fn next(&mut self, request: &Request) -> Step {
        let made_for_it = |step: &Step| step.only_if.as_ref().is_some_and(|text| request.contains(text));
        let position = self.steps.iter().position(|step| step.repeat > 0 && made_for_it(step));
        let position =
            position.or_else(|| self.steps.iter().position(|step| step.repeat > 0 && step.only_if.is_none()));
        let Some(step) = position.and_then(|position| self.steps.get_mut(position)) else {
            return Step::text(CLOSING);
        };
        step.repeat -= 1;
        let chosen = step.clone();
        while self.steps.front().is_some_and(|step| step.repeat == 0) {
            self.steps.pop_front();
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_played_in_order_and_special_ones_first() {
        let steps =
            vec![Step::text("one").repeat(2), Step::text("two"), Step::text("summary").only_if("SUMMARISE")];
        let mut script = Script::new(steps);
        let request = |body: &'static str| Request {
            method: String::new(),
            path: String::new(),
            headers: std::collections::BTreeMap::new(),
            raw: body.into(),
        };
        let played: Vec<String> = ["a", "SUMMARISE this", "b", "SUMMARISE again", "c"]
            .map(|body| script.next(&request(body)).text)
            .into();
        assert_eq!(played, ["one", "summary", "one", "two", "Done."]);
    }
}
