//! Publishing: fan-out of an event to targets on each shard.

use std::sync::Arc;

use super::{Audience, Delivery, Hub, Publication, ShardCommand, Target, USER_ROOM_PREFIX, WakeBatch};

impl Hub {
    /// Sends a publication, and returns how many connections get it.
    pub fn publish_counted(&self, publication: Publication) -> usize {
        let recipients = self.count_recipients(&publication.to, &publication.except);
        if recipients.connections > 0 {
            self.publish(publication, &WakeBatch::default());
        }
        recipients.connections
    }

    /// Sends a publication to the shards that have recipients. Returns an upper bound of the recipients: a connection in two
    /// audiences counts twice, and the excepted ones count, too.
    pub fn publish(&self, publication: Publication, wakes: &WakeBatch) -> usize {
        let mut targets: Vec<Vec<Target>> = vec![Vec::new(); self.shards.len()];
        let reached = publication.to.iter().map(|audience| self.resolve(audience, &mut targets)).sum();
        if targets.iter().all(Vec::is_empty) {
            return reached;
        }
        let mut except = vec![Vec::new(); self.shards.len()];
        for audience in &publication.except {
            self.resolve(audience, &mut except);
        }
        for ((shard, to), except) in self.shards.iter().zip(targets).zip(except) {
            if !to.is_empty() {
                let (outgoing, receipt) = (publication.outgoing.clone(), publication.receipt.clone());
                let volatile = publication.volatile;
                let delivery = Delivery { to, except, outgoing, volatile, receipt };
                shard.push_quietly(ShardCommand::Deliver(delivery), wakes);
            }
        }
        reached
    }

    /// Adds the targets of an audience on each shard, and returns the number of its connections.
    fn resolve(&self, audience: &Audience, targets: &mut [Vec<Target>]) -> usize {
        match audience {
            Audience::Room(name) => match name.strip_prefix(USER_ROOM_PREFIX) {
                Some(user) => self.resolve_user(user, targets),
                None => {
                    let Some(room) = self.rooms.get(name.as_str()) else { return 0 };
                    for (target, members) in targets.iter_mut().zip(&room.shards) {
                        if *members > 0 {
                            target.push(Target::Room(room.id));
                        }
                    }
                    room.connections.n_connections()
                }
            },
            Audience::Users(users) => users.iter().map(|user| self.resolve_user(user, targets)).sum(),
            Audience::Roles(roles) => {
                let n_connections = |role: &String| Some(self.roles.get(role.as_str())?.n_connections());
                let reached = roles.iter().filter_map(n_connections).sum();
                if reached == 0 {
                    return 0;
                }
                let roles: Arc<[String]> = roles.as_slice().into();
                for target in targets {
                    target.push(Target::Roles(roles.clone()));
                }
                reached
            }
            Audience::Connection(id) => {
                if let Some(target) = targets.get_mut(self.shard_of(*id)) {
                    target.push(Target::Connection(*id));
                }
                1
            }
            Audience::All => {
                for target in targets {
                    target.push(Target::All);
                }
                self.connections.len()
            }
        }
    }

    fn resolve_user(&self, user: &str, targets: &mut [Vec<Target>]) -> usize {
        let Some(connections) = self.users.get(user) else { return 0 };
        for id in connections.iter() {
            targets[self.shard_of(*id)].push(Target::Connection(*id));
        }
        connections.len()
    }
}
