//! Connections and rooms of the simulated host: membership, delivery, and the events for scopes on joins and departures.

use std::collections::BTreeSet;

use roundhouse_contract::{Audience, MIN_CHAINED_MS};

use super::simulation::Simulation;
use super::state::{Connection, ConnectionSet, Due, Frame, Key, PendingAck};
use crate::{Event, Failure, Feature, LeaveReason};

impl<F: Feature> Simulation<F> {
    /// Delivers an event. Returns the recipients.
    pub(super) fn deliver(
        &mut self,
        to: &[Audience<Connection>],
        except: &[Audience<Connection>],
        frame: &Frame,
    ) -> BTreeSet<usize> {
        let recipients = &self.recipients(to) - &self.recipients(except);
        for position in &recipients {
            self.clients[*position].inbox.push(frame.clone());
        }
        recipients
    }

    /// Delivers an event to open connections, which must all acknowledge it.
    pub(super) fn deliver_with_ack(
        &mut self,
        key: &Key,
        connections: &[Connection],
        frame: &Frame,
        tag: &str,
        timeout_ms: u64,
    ) {
        for connection in connections {
            if !self.is_open(*connection) {
                continue;
            }
            self.clients[connection.0].inbox.push(frame.clone());
            let at = self.agenda.add(self.now.saturating_add(timeout_ms.max(MIN_CHAINED_MS)), Due::AnswerTimeout);
            self.pending_acks.push(PendingAck { key: key.clone(), tag: tag.to_owned(), connection: connection.0, at });
        }
    }

    fn recipients(&self, audiences: &[Audience<Connection>]) -> BTreeSet<usize> {
        let open = || self.clients.iter().enumerate().filter(|(_, client)| client.closed.is_none());
        let mut recipients = BTreeSet::new();
        for audience in audiences {
            match audience {
                Audience::Room(room) => {
                    recipients.extend(self.rooms.get(room).into_iter().flat_map(ConnectionSet::members));
                }
                Audience::Connection(one) => recipients.extend(self.is_open(*one).then_some(one.0)),
                Audience::All => recipients.extend(open().map(|(position, _)| position)),
                Audience::Users(ids) => ids.iter().for_each(|id| self.of_user(id, &mut recipients)),
                Audience::Roles(roles) => recipients.extend(
                    open()
                        .filter(|(_, client)| roles.iter().any(|role| client.member.identity.has_role(role)))
                        .map(|(position, _)| position),
                ),
            }
        }
        recipients
    }

    pub(super) fn is_open(&self, connection: Connection) -> bool {
        self.clients[connection.0].closed.is_none()
    }

    fn of_user(&self, id: &str, recipients: &mut BTreeSet<usize>) {
        recipients.extend(self.rooms.get(&format!("user:{id}")).into_iter().flat_map(ConnectionSet::members));
    }

    /// An open connection by its id.
    pub(super) fn position(&self, id: &str) -> Option<usize> {
        let position: usize = id.strip_prefix('c')?.parse::<usize>().ok()?.checked_sub(1)?;
        self.clients.get(position).filter(|client| client.closed.is_none()).map(|_| position)
    }

    /// Adds a connection to a room, by an effect of the scope `by` or from outside.
    pub(super) fn enter(&mut self, position: usize, room: &str, by: Option<&Key>) {
        let member = self.clients[position].member.clone();
        let new = self.rooms.entry(room.to_owned()).or_default().insert(position, member.user_id());
        if new
            && by.is_none_or(|by| by.scope != room)
            && let Some(key) = self.find_key(room)
        {
            self.pending.push_back((key, Event::Joined(member)));
        }
        if new && self.clients[position].is_away {
            self.report_presence(position, room);
        }
    }

    /// Sets whether a client is away. A change is reported to the scopes with presence.
    pub(super) fn set_away(&mut self, position: usize, is_away: bool) {
        if std::mem::replace(&mut self.clients[position].is_away, is_away) == is_away {
            return;
        }
        let rooms = self.rooms.iter().filter(|(_, members)| members.has(position)).map(|(room, _)| room);
        let watching =
            self.scopes.iter().filter(|(_, slot)| slot.watched.contains_key(&position)).map(|(scope, _)| scope);
        let scopes: BTreeSet<String> = rooms.chain(watching).cloned().collect();
        for scope in scopes {
            self.report_presence(position, &scope);
        }
    }

    /// Reports to a scope, if it has presence, whether a client is away.
    pub(super) fn report_presence(&mut self, position: usize, scope: &str) {
        let key = self.find_key(scope).filter(|key| self.manifest.scopes[key.template].has_presence);
        if let Some(key) = key {
            let member = self.clients[position].member.clone();
            let event = if self.clients[position].is_away { Event::Away(member) } else { Event::Back(member) };
            self.pending.push_back((key, event));
        }
    }

    /// Removes a connection from a room, by an effect of the scope `by` or from outside.
    pub(super) fn exit(&mut self, position: usize, room: &str, by: Option<&Key>, reason: LeaveReason) {
        let member = self.clients[position].member.clone();
        let was_in = self.rooms.get_mut(room).is_some_and(|members| members.remove(position, member.user_id()));
        if was_in
            && by.is_none_or(|by| by.scope != room)
            && let Some(key) = self.find_key(room)
        {
            self.pending.push_back((key, Event::Left(member, reason)));
        }
    }

    /// Closes a connection. Each scope whose room it was in, or which watched it, gets `left` once.
    pub(super) fn close(&mut self, position: usize, reason: &str) {
        if self.clients[position].closed.is_some() {
            return;
        }
        self.clients[position].closed = Some(reason.to_owned());
        let member = self.clients[position].member.clone();
        let mut scopes: BTreeSet<String> = BTreeSet::new();
        for (room, members) in &mut self.rooms {
            if members.remove(position, member.user_id()) {
                scopes.insert(room.clone());
            }
        }
        for (scope, slot) in &mut self.scopes {
            if slot.watched.remove(&position).is_some() {
                scopes.insert(scope.clone());
            }
        }
        for scope in scopes {
            if let Some(key) = self.find_key(&scope) {
                self.pending.push_back((key, Event::Left(member.clone(), LeaveReason::Disconnected)));
            }
        }
        let (gone, kept) =
            std::mem::take(&mut self.pending_acks).into_iter().partition(|asked| asked.connection == position);
        self.pending_acks = kept;
        for asked in Vec::<PendingAck>::from_iter(gone) {
            self.agenda.remove(asked.at);
            self.answer(asked, Err(Failure::unanswered("disconnected")));
        }
    }
}
