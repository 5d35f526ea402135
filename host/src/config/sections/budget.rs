//! `[limits.user]` and `[limits.service]`: the budgets of principals.

use anyhow::ensure;
use serde::Deserialize;

use crate::ledger::Budget;

/// The budgets of each user or network of anonymous clients, and of each API key.
#[derive(Debug, Clone, Copy)]
pub struct Budgets {
    /// The budget of a user, or of a network of anonymous clients.
    pub user: Budget,
    /// The budget of an API key.
    pub service: Budget,
}

/// `[limits.user]` or `[limits.service]`. Omitted keys have the ledger's defaults; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct BudgetSection {
    scopes: Option<usize>,
    rooms: Option<usize>,
    timers: Option<usize>,
    timer_bytes: Option<usize>,
    acknowledgements: Option<usize>,
    documents: Option<usize>,
    document_bytes: Option<usize>,
    fetches: Option<usize>,
    saved_bytes_per_second: Option<usize>,
    saved_burst_bytes: Option<usize>,
    fetched_bytes_per_second: Option<usize>,
    fetched_burst_bytes: Option<usize>,
}

impl BudgetSection {
    fn over(self, default: Budget, table: &str) -> anyhow::Result<Budget> {
        let budget = Budget {
            scopes: self.scopes.unwrap_or(default.scopes),
            rooms: self.rooms.unwrap_or(default.rooms),
            timers: self.timers.unwrap_or(default.timers),
            timer_bytes: self.timer_bytes.unwrap_or(default.timer_bytes),
            acknowledgements: self.acknowledgements.unwrap_or(default.acknowledgements),
            documents: self.documents.unwrap_or(default.documents),
            document_bytes: self.document_bytes.unwrap_or(default.document_bytes),
            fetches: self.fetches.unwrap_or(default.fetches),
            saved_bytes_per_second: self.saved_bytes_per_second.unwrap_or(default.saved_bytes_per_second),
            saved_burst_bytes: self.saved_burst_bytes.unwrap_or(default.saved_burst_bytes),
            fetched_bytes_per_second: self.fetched_bytes_per_second.unwrap_or(default.fetched_bytes_per_second),
            fetched_burst_bytes: self.fetched_burst_bytes.unwrap_or(default.fetched_burst_bytes),
        };
        for (key, per_second, burst) in [
            ("saved", budget.saved_bytes_per_second, budget.saved_burst_bytes),
            ("fetched", budget.fetched_bytes_per_second, budget.fetched_burst_bytes),
        ] {
            ensure!(
                per_second == 0 || burst > 0,
                "{table}.{key}_burst_bytes must be more than 0 where {table}.{key}_bytes_per_second is"
            );
        }
        Ok(budget)
    }
}

impl Budgets {
    /// # Errors
    /// Where a rate has a burst of 0.
    pub(in crate::config) fn of(user: BudgetSection, service: BudgetSection) -> anyhow::Result<Self> {
        Ok(Self {
            user: user.over(Budget::of_user(), "limits.user")?,
            service: service.over(Budget::of_service(), "limits.service")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::file;

    fn budgets(toml: &str, env: &[(&str, &str)]) -> anyhow::Result<Budgets> {
        file::parse(toml, env)?.limits.budgets()
    }

    #[test]
    fn each_table_has_its_own_defaults() {
        let env = [("ROUNDHOUSE_LIMITS__SERVICE__SCOPES", "7")];
        let Budgets { user, service } = budgets("[limits.user]\nscopes = 3", &env).unwrap();
        assert_eq!(user, Budget { scopes: 3, ..Budget::of_user() });
        assert_eq!(service, Budget { scopes: 7, ..Budget::of_service() });
    }

    #[test]
    fn budget_mistakes_are_refused_by_key() {
        for (toml, said) in [
            ("limits.user.timer = 1", "limits.user.timer: did you mean timers?"),
            ("limits.service.rooms = -1", "limits.service.rooms"),
            ("limits.user.saved_burst_bytes = 0", "limits.user.saved_burst_bytes must be more than 0"),
            ("limits.service.fetched_burst_bytes = 0", "limits.service.fetched_burst_bytes must be more than 0"),
        ] {
            let error = format!("{:#}", budgets(toml, &[]).expect_err(toml));
            assert!(error.contains(said), "{toml}: {error}");
        }
        assert!(budgets("limits.user = {saved_bytes_per_second = 0, saved_burst_bytes = 0}", &[]).is_ok());
    }
}
