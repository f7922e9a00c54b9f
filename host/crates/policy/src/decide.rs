//! What a policy says about flags, settings, models and calls.

use manifest::Tier;
use toml::Spanned;

use crate::schema::{Commands, Grade, Mode, NetworkRule, WallMode};
use crate::{Forbidden, Policy, matches};

impl Policy {
    fn forbidden<T, V>(&self, what: impl Into<String>, rule: &Spanned<V>) -> Result<T, Forbidden> {
        Err(Forbidden { what: what.into(), place: self.place(rule) })
    }

    /// Whether a flag may be given.
    ///
    /// # Errors
    /// When it is forbidden. `said` is what the person wrote.
    pub fn flag(&self, flag: &str, said: &str) -> Result<(), Forbidden> {
        match self.rules().flags.forbid.iter().find(|rule| rule.get_ref() == flag) {
            Some(rule) => self.forbidden(said, rule),
            None => Ok(()),
        }
    }

    /// The mode of a run: the one that was asked for, or what a run of this kind has.
    ///
    /// # Errors
    /// When one was asked for that is forbidden. `said` is what the person wrote.
    pub fn mode(&self, asked: Option<(Mode, &str)>, usual: Mode) -> Result<Mode, Forbidden> {
        let rules = self.rules();
        if let Some(forced) = &rules.mode {
            return match asked {
                Some((mode, said)) if mode != *forced.get_ref() => self.forbidden(said, forced),
                _ => Ok(*forced.get_ref()),
            };
        }
        let rule = |mode: Mode| rules.forbid_modes.iter().find(|rule| *rule.get_ref() == mode);
        match asked {
            Some((mode, said)) => rule(mode).map_or(Ok(mode), |rule| self.forbidden(said, rule)),
            // Nobody asked for it: the next one that is stricter.
            None => {
                let stricter = [usual, Mode::Ask, Mode::Plan];
                let found = stricter.into_iter().find(|mode| rule(*mode).is_none());
                match (found, rule(Mode::Plan)) {
                    (None, Some(rule)) => self.forbidden("every permission mode", rule),
                    (found, _) => Ok(found.unwrap_or(Mode::Plan)),
                }
            }
        }
    }

    /// Whether calls of a tier may run.
    ///
    /// # Errors
    /// When they may not.
    pub fn tier(&self, tier: Tier) -> Result<(), Forbidden> {
        match self.rules().tiers.deny.iter().find(|rule| *rule.get_ref() == tier) {
            Some(rule) => self.forbidden(format!("a call of tier `{tier}`"), rule),
            None => Ok(()),
        }
    }

    /// Whether a run must be offline.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.rules().network.offline.as_ref().is_some_and(|offline| *offline.get_ref())
    }

    /// Whether commands may reach that much.
    ///
    /// # Errors
    /// When it is more than they may. `said` is why they would.
    pub fn commands(&self, network: Commands, said: &str) -> Result<(), Forbidden> {
        match &self.rules().network.commands {
            Some(most) if network > *most.get_ref() => self.forbidden(said, most),
            _ if network == Commands::Off => Ok(()),
            _ => match &self.rules().network.offline {
                Some(offline) if *offline.get_ref() => self.forbidden(said, offline),
                _ => Ok(()),
            },
        }
    }

    /// Whether a person may do without this program's own wall in that way.
    ///
    /// # Errors
    /// When it is forbidden. `said` is what the person wrote.
    pub fn wall(&self, mode: WallMode, said: &str) -> Result<(), Forbidden> {
        match self.rules().wall.forbid.iter().find(|rule| *rule.get_ref() == mode) {
            Some(rule) => self.forbidden(said, rule),
            None => Ok(()),
        }
    }

    /// Whether a wall is good enough; none: there is none of this program's own.
    ///
    /// # Errors
    /// When it is not.
    pub fn grade(&self, grade: Option<Grade>) -> Result<(), Forbidden> {
        let Some(least) = self.rules().wall.grade.as_ref().filter(|least| grade < Some(*least.get_ref()))
        else {
            return Ok(());
        };
        let has = match grade {
            None => "working without a wall of this program's own",
            Some(Grade::Partial) => "working behind a wall of grade partial",
            Some(Grade::Full) => "working behind a wall of grade full",
        };
        self.forbidden(format!("{has} (`ml-intern doctor` tells what is missing)"), least)
    }

    /// Whether a model may be used; `origin` is where it is asked.
    ///
    /// # Errors
    /// When it may not.
    pub fn model(&self, id: &str, origin: &egress::Origin) -> Result<(), Forbidden> {
        let models = &self.rules().models;
        if let Some(allow) = &models.allow
            && !allow.get_ref().iter().any(|pattern| matches(pattern, id))
        {
            return self.forbidden(format!("model `{id}`"), allow);
        }
        match &models.origins {
            Some(origins) if !origins.get_ref().iter().any(|rule| rule.0.is_of(origin)) => {
                self.forbidden(format!("model `{id}` at {origin}"), origins)
            }
            _ => Ok(()),
        }
    }

    /// Whether files of a project may count.
    ///
    /// # Errors
    /// When they may not. `said` is what would make them.
    pub fn project_files(&self, said: &str) -> Result<(), Forbidden> {
        match self.rules().project.files.as_ref().filter(|files| !files.get_ref()) {
            Some(rule) => self.forbidden(said, rule),
            None => Ok(()),
        }
    }

    /// US dollars that a run may cost at most, and where that stands.
    #[must_use]
    pub fn max_usd(&self) -> Option<(f64, String)> {
        self.rules().budget.max_usd.as_ref().map(|usd| (*usd.get_ref(), self.place(usd)))
    }

    /// What all requests are held to.
    #[must_use]
    pub fn ceiling(&self) -> egress::Ceiling {
        let network = &self.rules().network;
        let grants = |rules: &[NetworkRule]| rules.iter().map(|rule| rule.0.clone()).collect();
        egress::Ceiling {
            allow: network.allow.as_deref().map(grants),
            models: self.rules().models.origins.as_ref().map(|origins| grants(origins.get_ref())),
            mirrors: grants(&network.mirrors),
            deny: network.deny.iter().map(|rule| rule.0.clone()).collect(),
            by: self.path().display().to_string(),
        }
    }
}
