//! The model: the pages that agents have open, and the tickets that each page views.

use std::collections::BTreeSet;

use crate::Random;

/// The number of tickets.
pub(super) const TICKETS: usize = 12;
/// The number of chat rooms. An agent is in the room of its number.
pub(super) const ROOMS: usize = 4;
/// The number of timelines. An agent is on the timeline of its number.
pub(super) const TIMELINES: usize = 4;
/// The number of campaigns.
pub(super) const CAMPAIGNS: usize = 2;
/// The greatest number of tickets that a page views.
const TICKETS_OF_A_PAGE: usize = 3;

/// A place where pages are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// A ticket that the page views.
    Ticket(usize),
    /// A chat room.
    Room(usize),
    /// The timeline of a ticket.
    Timeline(usize),
}

/// What a page is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    /// Connect.
    Open,
    /// Disconnect, with a closing handshake or without.
    Close {
        /// Whether there is a closing handshake.
        politely: bool,
    },
    /// View a ticket.
    View(usize),
    /// Leave a ticket.
    Leave(usize),
    /// Type an answer to a ticket.
    Type(usize),
    /// Write a message to the room.
    Say {
        /// Whether the message has a client's id, and is repeated until it is acknowledged.
        is_keyed: bool,
    },
}

/// A page of an agent: a tab of its browser.
#[derive(Debug, Clone)]
struct Page {
    agent: usize,
    is_open: bool,
    tickets: BTreeSet<usize>,
}

/// All pages. Page `n` is of agent `n % agents`, so that some agents have more than one.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pages: Vec<Page>,
    /// Agents that open no page for now.
    held: BTreeSet<usize>,
}

impl Model {
    /// This many agents, of whom half have two pages. All pages are closed.
    pub(super) fn new(agents: usize) -> Self {
        let page = |number| Page { agent: number % agents, is_open: false, tickets: BTreeSet::new() };
        Self { pages: (0..agents + agents / 2).map(page).collect(), held: BTreeSet::new() }
    }

    /// The number of pages.
    pub(super) fn n_pages(&self) -> usize {
        self.pages.len()
    }

    /// The agent whose page this is.
    pub(super) fn agent_of(&self, page: usize) -> usize {
        self.pages[page].agent
    }

    /// Whether a page is open.
    pub(super) fn is_open(&self, page: usize) -> bool {
        self.pages[page].is_open
    }

    /// The pages of an agent.
    pub(super) fn pages_of(&self, agent: usize) -> impl Iterator<Item = usize> {
        (0..self.pages.len()).filter(move |page| self.pages[*page].agent == agent)
    }

    /// The places where a page wants to be.
    pub(super) fn places_of(&self, page: usize) -> BTreeSet<Place> {
        let Page { agent, is_open, tickets } = &self.pages[page];
        let fixed = [Place::Room(agent % ROOMS), Place::Timeline(agent % TIMELINES)];
        let all = fixed.into_iter().chain(tickets.iter().map(|ticket| Place::Ticket(*ticket)));
        all.filter(|_| *is_open).collect()
    }

    /// The agents that each viewer of a ticket should see.
    pub(super) fn viewers(&self, ticket: usize) -> BTreeSet<usize> {
        let viewing = self.pages.iter().filter(|page| page.tickets.contains(&ticket));
        viewing.map(|page| page.agent).collect()
    }

    /// The number of pages in a room.
    pub(super) fn pages_in_room(&self, room: usize) -> usize {
        self.pages.iter().filter(|page| page.is_open && page.agent % ROOMS == room).count()
    }

    /// The number of agents on a timeline.
    pub(super) fn subscribers(&self, timeline: usize) -> usize {
        let there = self.pages.iter().filter(|page| page.is_open && page.agent % TIMELINES == timeline);
        there.map(|page| page.agent).collect::<BTreeSet<_>>().len()
    }

    /// Lets an agent open no page until [`Self::release`].
    pub(super) fn hold(&mut self, agent: usize) {
        self.held.insert(agent);
    }

    /// Lets all agents open pages again.
    pub(super) fn release(&mut self) {
        self.held.clear();
    }

    /// A command that a page may get, by chance.
    pub(super) fn choose(&self, random: &mut Random) -> Option<(usize, Command)> {
        let number = random.below(self.pages.len());
        let page = &self.pages[number];
        if !page.is_open {
            return (!self.held.contains(&page.agent)).then_some((number, Command::Open));
        }
        let ticket = random.below(TICKETS);
        let viewed: Vec<usize> = page.tickets.iter().copied().collect();
        let command = match random.below(100) {
            0..3 => Command::Close { politely: random.in_hundred(50) },
            3..40 if viewed.len() < TICKETS_OF_A_PAGE && !viewed.contains(&ticket) => Command::View(ticket),
            3..60 if !viewed.is_empty() => Command::Leave(*random.pick(&viewed)),
            60..75 if !viewed.is_empty() => Command::Type(*random.pick(&viewed)),
            75.. => Command::Say { is_keyed: random.in_hundred(70) },
            _ => return None,
        };
        Some((number, command))
    }

    /// What the command changes.
    pub(super) fn apply(&mut self, page: usize, command: Command) {
        let page = &mut self.pages[page];
        match command {
            Command::Open => page.is_open = true,
            Command::Close { .. } => {
                page.is_open = false;
                page.tickets.clear();
            }
            Command::View(ticket) => {
                page.tickets.insert(ticket);
            }
            Command::Leave(ticket) => {
                page.tickets.remove(&ticket);
            }
            Command::Type(_) | Command::Say { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_views_until_its_last_page_leaves() {
        let mut model = Model::new(2);
        assert_eq!(model.n_pages(), 3);
        for page in [0, 2] {
            model.apply(page, Command::Open);
            model.apply(page, Command::View(5));
        }
        model.apply(0, Command::Leave(5));
        assert_eq!(model.viewers(5), BTreeSet::from([0]));
        assert_eq!((model.pages_in_room(0), model.subscribers(0), model.pages_in_room(1)), (2, 1, 0));
        model.apply(2, Command::Close { politely: true });
        assert_eq!(model.viewers(5), BTreeSet::new());
    }

    #[test]
    fn closed_page_is_nowhere() {
        let mut model = Model::new(1);
        assert!(model.places_of(0).is_empty());
        model.apply(0, Command::Open);
        model.apply(0, Command::View(1));
        assert_eq!(model.places_of(0).len(), 3);
        model.apply(0, Command::Close { politely: false });
        assert!(model.places_of(0).is_empty());
    }

    #[test]
    fn same_seed_chooses_the_same_commands() {
        let commands = |seed| {
            let (mut model, mut random) = (Model::new(8), Random::new(seed));
            let mut chosen = Vec::new();
            for _ in 0..500 {
                if let Some((page, command)) = model.choose(&mut random) {
                    model.apply(page, command);
                    chosen.push((page, command));
                }
            }
            chosen
        };
        assert_eq!(commands(1), commands(1));
        assert_ne!(commands(1), commands(2));
        assert!(commands(3).iter().any(|(_, command)| matches!(command, Command::Leave(_))));
    }

    #[test]
    fn held_agent_opens_no_page() {
        let mut model = Model::new(1);
        model.hold(0);
        assert_eq!(model.choose(&mut Random::new(1)), None);
        model.release();
        assert_eq!(model.choose(&mut Random::new(1)), Some((0, Command::Open)));
    }
}
