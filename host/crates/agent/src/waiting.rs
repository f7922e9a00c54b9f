//! The calls of an answer that wait for the others: decided about anew once those have run.

use std::collections::BTreeSet;

use protocol::Tier;
use tokio_util::sync::CancellationToken;

use crate::notes;
use crate::session::Session;
use crate::tools::{Fate, Planned};
use crate::turn::Fault;

impl Session {
    /// The calls of an answer that wait for the others, and those. What a person is asked for waits, and so does
    /// what may name a file beside a call that may change files: it is about the bytes that are there then.
    pub(crate) fn in_two(&mut self, planned: Vec<Planned>) -> (Vec<Planned>, Vec<Planned>) {
        let changes = planned.iter().any(|p| self.may_change_files(p));
        let (mut waiting, mut free) = (Vec::new(), Vec::new());
        for mut planned in planned {
            match &planned.fate {
                Fate::Ask(..) => waiting.push(planned),
                Fate::Run(order) if changes && self.may_name_files(&planned) => {
                    // It is decided about anew, and sets aside what it takes then.
                    if let Some(order) = order.clone() {
                        self.drop_order(&order);
                    }
                    planned.fate = Fate::Run(None);
                    waiting.push(planned);
                }
                _ => free.push(planned),
            }
        }
        (waiting, free)
    }

    /// Whether a call has arguments that may be the names of files.
    fn may_name_files(&self, planned: &Planned) -> bool {
        self.runtime.policy(&planned.call.name).is_some_and(|policy| policy.texts().next().is_some())
    }

    /// Whether a call that runs without being asked for may change a file that another one names.
    fn may_change_files(&self, planned: &Planned) -> bool {
        let name = &planned.call.name;
        let only_reads = |tiers: &BTreeSet<Tier>| tiers.iter().all(|tier| *tier == Tier::Read);
        let policy = self.runtime.policy(name).filter(|_| !self.may_name_files(planned));
        matches!(planned.fate, Fate::Run(_))
            && policy.is_some_and(|policy| {
                self.runtime.can_exec(name) || !only_reads(&policy.weigh(&planned.arguments).tiers)
            })
    }

    /// Counts what an order that a person is asked about would take: the next one of the answer has less.
    pub(crate) fn expect(&mut self, planned: &Planned) {
        if let Fate::Ask(_, Some(order)) = &planned.fate {
            self.budget.expect(order.reserved());
        }
    }

    /// What calls change that a card tells of other calls.
    pub(crate) fn what_cards_tell(&self) -> (Vec<String>, bool) {
        (self.unknown_orders.iter().map(|order| order.id.clone()).collect(), self.taint.is_some())
    }

    /// Decides anew about calls that waited, because others of the same answer changed what there is to tell, or
    /// the files that they name. `ran`: some others did run. Returns those that a person is to be asked for.
    pub(crate) async fn decide_again(
        &mut self,
        mut asked: Vec<Planned>,
        mut known: (Vec<String>, bool),
        mut ran: bool,
        cancel: &CancellationToken,
    ) -> Result<Vec<Planned>, Fault> {
        // Each time fewer of them are left.
        while !asked.is_empty()
            && (self.what_cards_tell() != known || ran && asked.iter().any(|p| self.may_name_files(p)))
        {
            known = self.what_cards_tell();
            let (mut still, mut decided) = (Vec::with_capacity(asked.len()), Vec::new());
            for planned in asked {
                let planned = self.plan_call(planned.call)?;
                self.expect(&planned);
                match planned.fate {
                    Fate::Ask(..) => still.push(planned),
                    _ => decided.push(planned),
                }
            }
            self.budget.expect_nothing();
            for planned in &decided {
                self.announce(planned).await?;
            }
            ran = !decided.is_empty();
            if self.run_batch(decided, cancel).await? {
                self.give_up_planned(still, notes::NOT_RUN).await?;
                return Err(Fault::Interrupted);
            }
            asked = still;
        }
        Ok(asked)
    }
}
