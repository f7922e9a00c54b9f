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
}

/// The session's purse.
#[derive(Debug)]
pub(crate) struct Budget {
    session: String,
    limits: BudgetLimits,
    completions: f64,
    orders: f64,
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
            completions: 0.0,
            orders: 0.0,
            unpriced: 0,
            reservations: Reservations::new(state),
            next_question: FIRST_QUESTION,
        }
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
        self.limits.total.is_some()
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
        self.room().map(|room| (room - others).max(0.0))
    }

    /// What an order costs, against what is left.
    pub(crate) fn weigh(&self, cost: Cost) -> Money {
        let Cost::Known { usd, .. } = cost else {
            return Money::TooDear("nobody knows what this costs".to_owned());
        };
        if !usd.is_finite() || usd < 0.0 {
            return Money::TooDear(format!("its price is {usd} USD, which is none"));
        }
        if self.limits.total == Some(0.0) || self.limits.orders == Some(0.0) {
            return Money::TooDear("the budget is 0 USD: nothing is ordered".to_owned());
        }
        match self.remaining() {
            Some(left) if usd > left => {
                Money::TooDear(format!("it may cost {usd:.2} USD, and {left:.2} USD of the budget are left"))
            }
            _ => Money::Within(usd),
        }
    }

    /// Sets money aside for an order. A person who approved more than is left has decided.
    pub(crate) fn reserve(
        &mut self,
        order: &str,
        cost: (f64, f64),
        approved: bool,
    ) -> Result<(), ReserveError> {
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

    /// Why no further completion is paid for, if so.
    pub(crate) fn exhausted(&self) -> Option<String> {
        let limit = self.limits.total?;
        let spent = self.spent();
        (spent >= limit).then(|| format!("the budget of {limit:.2} USD is spent ({spent:.2} USD)"))
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
        Budget::new(dir, session, BudgetLimits { total, orders })
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
        assert_eq!(budget.weigh(known(1e6)), Money::Within(1e6));
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
