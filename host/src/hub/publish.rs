//! The way of a publication: whom it means, on which shards.

use std::sync::Arc;

use super::{Audience, Delivery, Hub, Publication, ShardCommand, Target, USER_ROOM_PREFIX};

impl Hub {
    /// Sends a publication to the shards that have somebody to give it to.
    pub fn publish(&self, publication: Publication) {
        let mut targets: Vec<Vec<Target>> = vec![Vec::new(); self.shards.len()];
        for audience in &publication.to {
            self.resolve(audience, &mut targets);
        }
        if targets.iter().all(Vec::is_empty) {
            return;
        }
        let mut except = vec![Vec::new(); self.shards.len()];
        for audience in &publication.except {
            self.resolve(audience, &mut except);
        }
        for ((shard, to), except) in self.shards.iter().zip(targets).zip(except) {
            if !to.is_empty() {
                let (outgoing, guard) = (publication.outgoing.clone(), publication.guard.clone());
                let volatile = publication.volatile;
                shard.push(ShardCommand::Deliver(Delivery { to, except, outgoing, volatile, guard }));
            }
        }
    }

    /// Adds whom an audience means on each shard.
    fn resolve(&self, audience: &Audience, targets: &mut [Vec<Target>]) {
        match audience {
            Audience::Room(name) => match name.strip_prefix(USER_ROOM_PREFIX) {
                Some(user) => self.resolve_user(user, targets),
                None => {
                    let Some(room) = self.rooms.get(name.as_str()) else { return };
                    for (target, members) in targets.iter_mut().zip(&room.shards) {
                        if *members > 0 {
                            target.push(Target::Room(room.id));
                        }
                    }
                }
            },
            Audience::Users(users) => users.iter().for_each(|user| self.resolve_user(user, targets)),
            Audience::Roles(roles) => {
                if !roles.iter().any(|role| self.roles.contains_key(role.as_str())) {
                    return;
                }
                let roles: Arc<[String]> = roles.as_slice().into();
                for target in targets {
                    target.push(Target::Roles(roles.clone()));
                }
            }
            Audience::Connection(id) => {
                if let Some(target) = targets.get_mut(id.shard()) {
                    target.push(Target::Connection(*id));
                }
            }
            Audience::All => {
                for target in targets {
                    target.push(Target::All);
                }
            }
        }
    }

    fn resolve_user(&self, user: &str, targets: &mut [Vec<Target>]) {
        if let Some(connections) = self.users.get(user) {
            for id in connections.iter() {
                targets[id.shard()].push(Target::Connection(*id));
            }
        }
    }
}
