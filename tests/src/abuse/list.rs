//! The list of all attacks.

use super::attack::{Attack, Group};
use super::attacks;

impl Group {
    /// The attacks of this group.
    pub fn attacks(self) -> &'static [Attack] {
        match self {
            Self::Payloads => attacks::payloads::ATTACKS,
            Self::Scopes => attacks::scopes::ATTACKS,
            Self::Turns => attacks::turns::ATTACKS,
            Self::Memory => attacks::memory::ATTACKS,
            Self::Floods => attacks::floods::ATTACKS,
            Self::Wire => attacks::wire::ATTACKS,
            Self::Services => attacks::services::ATTACKS,
            Self::Plugins => attacks::plugins::ATTACKS,
            Self::Entry => attacks::entry::ATTACKS,
        }
    }
}

/// All attacks, with their groups.
pub fn all() -> impl Iterator<Item = (Group, &'static Attack)> {
    Group::ALL.into_iter().flat_map(|group| group.attacks().iter().map(move |attack| (group, attack)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The least number of attacks.
    const AT_LEAST: usize = 60;

    #[test]
    fn attack_names_are_unique() {
        let names: HashSet<_> = all().map(|(_, attack)| attack.name).collect();
        assert_eq!(names.len(), all().count(), "two attacks have one name");
        assert!(names.len() >= AT_LEAST, "{} attacks", names.len());
        for (_, attack) in all() {
            assert!(!attack.what.contains('|') && attack.length > 0, "{}: it stands in a table", attack.name);
        }
    }
}
