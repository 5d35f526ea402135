//! The trail of what a shard has delivered lately, from which it is told what each of its connections got, and why.
//!
//! A delivery is noted once, with its targets, and not for each recipient. Who was a recipient is found out when somebody asks:
//! from the lists in which a connection is now, and the joins and leaves on the way back.

use std::collections::{HashSet, VecDeque};

use super::connection::MemberList;
use crate::hub::{Delivery, Target, Traced};
use crate::model::ConnId;
use crate::protocol::Outgoing;

/// The most steps that are remembered. The oldest go first.
const MAX_STEPS: usize = 4096;

/// The most targets of the deliveries that are remembered.
const MAX_TARGETS: usize = 65_536;

/// What happened on a shard.
#[derive(Debug)]
enum Step {
    Delivered(Delivered),
    Joined(ConnId, MemberList),
    Left(ConnId, MemberList),
}

#[derive(Debug)]
struct Delivered {
    to: Vec<Target>,
    except: Vec<Target>,
    traced: Traced,
}

/// The last deliveries, joins and leaves of a shard, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Trail {
    steps: VecDeque<Step>,
    n_targets: usize,
}

impl Step {
    fn n_targets(&self) -> usize {
        if let Self::Delivered(delivered) = self { delivered.to.len() + delivered.except.len() } else { 0 }
    }
}

impl Trail {
    fn push(&mut self, step: Step) {
        self.n_targets += step.n_targets();
        self.steps.push_back(step);
        while (self.steps.len() > MAX_STEPS || self.n_targets > MAX_TARGETS)
            && let Some(oldest) = self.steps.pop_front()
        {
            self.n_targets -= oldest.n_targets();
        }
    }

    pub(super) fn delivered(&mut self, delivery: Delivery) {
        let Delivery { to, except, outgoing, .. } = delivery;
        self.push(Step::Delivered(Delivered { to, except, traced: traced(&outgoing) }));
    }

    pub(super) fn asked(&mut self, connection: ConnId, outgoing: &Outgoing) {
        let to = vec![Target::Connection(connection)];
        self.push(Step::Delivered(Delivered { to, except: Vec::new(), traced: traced(outgoing) }));
    }

    pub(super) fn joined(&mut self, connection: ConnId, list: MemberList) {
        self.push(Step::Joined(connection, list));
    }

    pub(super) fn left(&mut self, connection: ConnId, list: MemberList) {
        self.push(Step::Left(connection, list));
    }

    /// The last events that a connection got, the newest first, at most `most`. `lists` are those in which it is now.
    pub(super) fn of(&self, connection: ConnId, mut lists: HashSet<MemberList>, most: usize) -> Vec<Traced> {
        let mut found = Vec::new();
        for step in self.steps.iter().rev() {
            match step {
                Step::Joined(who, list) if *who == connection => drop(lists.remove(list)),
                Step::Left(who, list) if *who == connection => drop(lists.insert(list.clone())),
                Step::Delivered(delivered) if found.len() < most => {
                    let is_in = |target: &Target| match target {
                        Target::Room(room) => lists.contains(&MemberList::Room(*room)),
                        Target::Roles(roles) => {
                            roles.iter().any(|role| lists.contains(&MemberList::Role(role.as_str().into())))
                        }
                        Target::Connection(id) => *id == connection,
                        Target::All => lists.contains(&MemberList::All),
                    };
                    let Delivered { to, except, traced } = delivered;
                    if to.iter().any(is_in) && !except.iter().any(is_in) {
                        found.push(traced.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }
}

fn traced(outgoing: &Outgoing) -> Traced {
    Traced { event: outgoing.name().clone(), number: outgoing.number(), cause: outgoing.cause().cloned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::hub::RoomId;
    use crate::model::Payload;

    fn delivery(event: &str, to: &[Target], except: &[Target]) -> Delivery {
        let outgoing = Arc::new(Outgoing::new(event, Payload::empty()));
        Delivery { to: to.to_vec(), except: except.to_vec(), outgoing, volatile: false, receipt: None }
    }

    #[test]
    fn trail_knows_who_got_what() {
        let (ana, ben) = (ConnId::new(0, 1, 1), ConnId::new(0, 2, 1));
        let (list, room) = (MemberList::Room(RoomId(7)), [Target::Room(RoomId(7))]);
        let mut trail = Trail::default();
        trail.delivered(delivery("before", &room, &[]));
        trail.joined(ana, list.clone());
        trail.delivered(delivery("both", &room, &[]));
        trail.delivered(delivery("not ana", &room, &[Target::Connection(ana)]));
        trail.delivered(delivery("all", &[Target::All], &[]));
        trail.left(ana, list.clone());
        trail.delivered(delivery("after", &room, &[]));
        trail.asked(ana, &Outgoing::new("asked", Payload::empty()));
        let names = |id, lists: &[MemberList], most| {
            let found = trail.of(id, lists.iter().cloned().collect(), most);
            found.iter().map(|traced| traced.event.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(ana, &[MemberList::All], 9), ["asked", "all", "both"]);
        assert_eq!(names(ana, &[MemberList::All], 2), ["asked", "all"]);
        assert_eq!(names(ben, &[MemberList::All, list], 9), ["after", "all", "not ana", "both", "before"]);
    }

    #[test]
    fn trail_is_bounded() {
        let mut trail = Trail::default();
        (0..MAX_STEPS + 10).for_each(|_| trail.delivered(delivery("x", &[Target::All], &[])));
        assert_eq!(trail.steps.len(), MAX_STEPS);
        let many: Vec<_> = (0..1000).map(|n| Target::Connection(ConnId::new(0, n, 1))).collect();
        (0..100).for_each(|_| trail.delivered(delivery("many", &many, &[])));
        assert_eq!((trail.n_targets, trail.steps.len()), (65_000, 65));
    }
}
