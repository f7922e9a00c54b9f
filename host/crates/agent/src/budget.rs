//! What a session may cost, has cost, and has set aside.

use std::path::Path;

use manifest::Cost;

use crate::approval::Money;
use crate::reservations::{Reservations, ReserveError};

/// The first amount at which a person is asked whether it goes on; then at twice that, and so on.
const FIRST_QUESTION: f64 = 5.0;

/// What a session may cost, in USD.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetLimits {
    /// Everything: completions and orders.
    pub total: Option<f64>,
    /// What is ordered elsewhere: jobs, sandboxes.
    pub orders: Option<f64>,
    /// Everything, by the machine's policy: no person lifts it, and no new conversation of the same run.
    pub most: Option<f64>,
}

/// The session's purse.
#[derive(Debug)]
pub(crate) struct Budget {
    session: String,
    limits: BudgetLimits,
    /// What earlier conversations of this run cost.
    before: f64,
    completions: f64,
    orders: f64,
    /// What orders of the same answer cost that a person is about to be asked for.
    expected: f64,
    /// Orders of which nobody knows what they cost. They are in no sum: they are told beside it.
    unpriced: usize,
    reservations: Reservations,
    next_question: f64,
}

impl Budget {
    pub(crate) fn new(state: &Path, session: &str, limits: BudgetLimits) -> Self {
        Self {
            session: session.to_owned(),
            limits,
            before: 0.0,
            completions: 0.0,
            orders: 0.0,
            expected: 0.0,
            unpriced: 0,
            reservations: Reservations::new(state),
            next_question: FIRST_QUESTION,
        }
    }

    /// Another conversation begins, in the same run.
    pub(crate) fn renew(&mut self, session: &str) {
        self.before += self.spent();
        session.clone_into(&mut self.session);
        self.restore(0.0, 0.0, 0);
        self.next_question = FIRST_QUESTION;
    }

    /// Counts an order that a person will be asked for, for those behind it in the same answer.
    pub(crate) fn expect(&mut self, usd: f64) {
        self.expected += usd;
    }

    /// The answer is decided: what was expected is ordered now, or not.
    pub(crate) fn expect_nothing(&mut self) {
        self.expected = 0.0;
    }

    /// Takes in what the session cost in earlier runs.
    pub(crate) fn restore(&mut self, completions: f64, orders: f64, unpriced: usize) {
        self.completions = completions;
        self.orders = orders;
        self.unpriced = unpriced;
        self.agreed();
    }

    /// Orders of which nobody knows what they cost.
    pub(crate) fn unpriced(&self) -> usize {
        self.unpriced
    }

    /// Counts an order that a person approved although nobody knows what it costs.
    pub(crate) fn order_without_price(&mut self) {
        self.unpriced += 1;
    }

    /// Takes back the count of such an order: it was not made, or its price is known now.
    pub(crate) fn forget_order_without_price(&mut self) {
        self.unpriced = self.unpriced.saturating_sub(1);
    }

    pub(crate) fn spent(&self) -> f64 {
        self.completions + self.orders
    }

    /// Whether everything counts, so that what has no price cannot be used.
    pub(crate) fn counts_everything(&self) -> bool {
        self.limits.total.is_some() || self.limits.most.is_some()
    }

    /// What is left of what the machine's policy lets a run cost.
    fn left_of_most(&self) -> Option<f64> {
        self.limits.most.map(|most| most - self.before - self.spent())
    }

    /// What is left for an order, before what other runs have set aside.
    fn room(&self) -> Option<f64> {
        let total = self.limits.total.map(|limit| limit - self.spent());
        let orders = self.limits.orders.map(|limit| limit - self.orders);
        match (total, orders) {
            (Some(total), Some(orders)) => Some(total.min(orders)),
            (one, other) => one.or(other),
        }
    }

    /// What is left for an order.
    pub(crate) fn remaining(&self) -> Option<f64> {
        let others = self.reservations.of_others(&self.session).unwrap_or(f64::INFINITY);
        let room = self.room().map(|room| room - others);
        let left = room.into_iter().chain(self.left_of_most()).reduce(f64::min);
        left.map(|left| (left - self.expected).max(0.0))
    }

    /// What an order costs, against what is left.
    pub(crate) fn weigh(&self, cost: Cost) -> Money {
        let is_bounded = self.limits.most.is_some();
        let unknown = |why: String| match is_bounded {
            true => Money::Forbidden(format!("{why}, and this machine's policy bounds what a run costs")),
            false => Money::TooDear(why),
        };
        let Cost::Known { usd, .. } = cost else { return unknown("nobody knows what this costs".to_owned()) };
        if !usd.is_finite() || usd < 0.0 {
            return unknown(format!("its price is {usd} USD, which is none"));
        }
        if let Some(left) = self.left_of_most().filter(|left| usd > *left) {
            let left = left.max(0.0);
            return Money::Forbidden(format!(
                "it may cost {usd:.2} USD, and {left:.2} USD are left of what this machine's policy lets a run cost"
            ));
        }
        if self.limits.total == Some(0.0) || self.limits.orders == Some(0.0) {
            return Money::TooDear("the budget is 0 USD: nothing is ordered".to_owned());
        }
        match self.remaining() {
            Some(left) if usd > left => {
                Money::TooDear(format!("it may cost {usd:.2} USD, and {left:.2} USD of the budget are left"))
            }
            _ if usd > 0.0 && self.is_asked_about() => {
                let sum = self.spent() + self.expected + usd;
                match sum >= self.next_question {
                    true => Money::Asked(format!(
                        "it may cost {usd:.2} USD, {sum:.2} USD with what this session has cost"
                    )),
                    false => Money::Within(usd),
                }
            }
            _ => Money::Within(usd),
        }
    }

    /// Whether a person is asked at certain amounts: nobody said what it may cost.
    fn is_asked_about(&self) -> bool {
        self.limits.total.is_none() && self.limits.orders.is_none()
    }

    /// Sets money aside for an order. A person who `approved` that it is more than what is left has decided,
    /// but not beyond what the machine's policy bounds.
    pub(crate) fn reserve(
        &mut self,
        order: &str,
        cost: (f64, f64),
        approved: bool,
    ) -> Result<(), ReserveError> {
        if let Some(left) = self.left_of_most().filter(|left| cost.0 > *left) {
            return Err(ReserveError::Forbidden(left.max(0.0)));
        }
        let room = if approved { None } else { self.room() };
        self.reservations.reserve(order, &self.session, cost, room)?;
        self.orders += cost.0;
        Ok(())
    }

    /// Gives back what was set aside for an order that was not made.
    pub(crate) fn release(&mut self, order: &str, usd: f64) -> Result<(), ReserveError> {
        self.orders = (self.orders - usd).max(0.0);
        self.reservations.release(order)
    }

    /// Puts what an order really costs in the place of what it might have cost. Other runs see that until it
    /// would have ended: what was spent a moment ago is not there for them to spend.
    pub(crate) fn reconcile(&mut self, order: &str, reserved: f64, actual: f64) -> Result<(), ReserveError> {
        self.orders = (self.orders - reserved).max(0.0) + actual;
        self.reservations.reprice(order, actual)
    }

    /// Counts a completion.
    pub(crate) fn completion(&mut self, usd: f64) {
        if usd.is_finite() && usd > 0.0 {
            self.completions += usd;
        }
    }

    /// Whether it has cost more than it was to cost, by the person's word or the policy's.
    pub(crate) fn is_exceeded(&self) -> bool {
        let spent = self.spent();
        self.limits.most.is_some_and(|most| self.before + spent > most)
            || self.limits.total.is_some_and(|limit| spent > limit)
    }

    /// Why no further completion is paid for, if so.
    pub(crate) fn exhausted(&self) -> Option<String> {
        let spent = self.spent();
        if let Some(most) = self.limits.most.filter(|most| self.before + spent >= *most) {
            let spent = self.before + spent;
            return Some(format!(
                "the {most:.2} USD that this machine's policy lets a run cost are spent ({spent:.2} USD)"
            ));
        }
        let limit = self.limits.total.filter(|limit| spent >= *limit)?;
        Some(format!("the budget of {limit:.2} USD is spent ({spent:.2} USD) (--max-budget-usd)"))
    }

    /// What was spent, if that is more than the person agreed to.
    pub(crate) fn question(&self) -> Option<f64> {
        let spent = self.spent();
        (self.limits.total.is_none() && spent >= self.next_question).then_some(spent)
    }

    /// The person agreed to what was spent: the next question comes at the next amount.
    pub(crate) fn agreed(&mut self) {
        while self.spent() >= self.next_question {
            self.next_question *= 2.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(dir: &Path, session: &str, total: Option<f64>, orders: Option<f64>) -> Budget {
        Budget::new(dir, session, BudgetLimits { total, orders, most: None })
    }

    fn known(usd: f64) -> Cost {
        Cost::Known { usd, hours: 1.0 }
    }

    #[test]
    fn what_is_no_price_is_too_dear() {
        let dir = tempfile::tempdir().unwrap();
        let budget = budget(dir.path(), "a", None, None);
        for cost in [Cost::Unknown, known(f64::NAN), known(f64::INFINITY), known(-1.0)] {
            assert!(matches!(budget.weigh(cost), Money::TooDear(_)), "{cost:?}");
        }
        assert!(matches!(budget.weigh(known(1e6)), Money::Asked(_)));
    }

    #[test]
    fn no_yes_and_no_new_conversation_lifts_what_the_policy_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let limits = BudgetLimits { total: None, orders: None, most: Some(10.0) };
        let mut budget = Budget::new(dir.path(), "a", limits);
        budget.completion(1.0);
        assert!(matches!(budget.weigh(known(9.5)), Money::Forbidden(_)));
        assert!(matches!(budget.weigh(Cost::Unknown), Money::Forbidden(_)));
        assert!(matches!(budget.reserve("1", (9.5, 1.0), true), Err(ReserveError::Forbidden(9.0))));
        budget.reserve("1", (6.0, 1.0), true).unwrap();
        budget.renew("b");
        assert_eq!((budget.spent(), budget.remaining()), (0.0, Some(3.0)));
        assert!(matches!(budget.weigh(known(3.5)), Money::Forbidden(_)));
        assert!(budget.exhausted().is_none());
        budget.completion(3.0);
        assert!(budget.exhausted().unwrap().contains("policy"));
    }

    #[test]
    fn orders_of_one_answer_are_weighed_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = budget(dir.path(), "a", Some(10.0), None);
        assert_eq!(budget.weigh(known(8.0)), Money::Within(8.0));
        budget.expect(8.0);
        assert_eq!(budget.remaining(), Some(2.0));
        assert!(
            matches!(budget.weigh(known(8.0)), Money::TooDear(why) if why.contains("2.00 USD of the budget"))
        );
        budget.expect_nothing();
        budget.reserve("1", (8.0, 1.0), false).unwrap();
        assert!(matches!(budget.reserve("2", (8.0, 1.0), false), Err(ReserveError::Taken(_))));
    }

    #[test]
    fn an_order_is_asked_about_that_brings_a_session_over_the_next_question() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = budget(dir.path(), "a", None, None);
        open.completion(1.0);
        assert_eq!(
            (open.weigh(known(3.9)), open.weigh(known(0.0))),
            (Money::Within(3.9), Money::Within(0.0))
        );
        assert!(matches!(open.weigh(known(4.0)), Money::Asked(why) if why.contains("5.00 USD with")));
        open.reserve("1", (4.0, 1.0), true).unwrap();
        open.agreed();
        assert_eq!((open.question(), open.weigh(known(4.0))), (None, Money::Within(4.0)));
        // Who said what it may cost is not asked.
        assert_eq!(budget(dir.path(), "b", None, Some(50.0)).weigh(known(9.0)), Money::Within(9.0));
    }

    #[test]
    fn completions_and_orders_count_against_what_they_are_limited_by() {
        let dir = tempfile::tempdir().unwrap();
        let mut total = budget(dir.path(), "a", Some(10.0), None);
        total.completion(4.0);
        total.completion(f64::NAN);
        total.completion(-3.0);
        assert_eq!(total.weigh(known(6.0)), Money::Within(6.0));
        assert!(matches!(total.weigh(known(6.01)), Money::TooDear(_)));
        total.reserve("1", (5.0, 1.0), false).unwrap();
        assert!(total.exhausted().is_none());
        total.completion(1.0);
        assert!(total.exhausted().unwrap().contains("10.00 USD"));
        let mut orders = budget(dir.path(), "b", None, Some(10.0));
        orders.completion(100.0);
        // Session `a` has 5 set aside.
        assert_eq!(orders.remaining(), Some(5.0));
        assert!(orders.reserve("2", (5.5, 1.0), false).is_err());
        orders.reserve("2", (5.5, 1.0), true).unwrap();
        orders.release("2", 5.5).unwrap();
        total.reconcile("1", 5.0, 0.5).unwrap();
        assert_eq!((orders.remaining(), total.spent()), (Some(9.5), 5.5));
        assert!(matches!(budget(dir.path(), "c", None, Some(0.0)).weigh(known(0.0)), Money::TooDear(_)));
    }

    #[test]
    fn a_person_is_asked_at_5_10_20() {
        let dir = tempfile::tempdir().unwrap();
        let mut budget = budget(dir.path(), "a", None, None);
        let mut asked = Vec::new();
        for _ in 0..25 {
            budget.completion(1.0);
            asked.extend(budget.question());
            budget.agreed();
        }
        assert_eq!(asked, [5.0, 10.0, 20.0]);
        budget.restore(30.0, 0.0, 0);
        assert_eq!(budget.question(), None);
        // Who does not agree is asked again.
        budget.completion(10.0);
        assert_eq!((budget.question(), budget.question()), (Some(40.0), Some(40.0)));
    }
}
