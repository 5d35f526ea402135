//! A room or a channel as one of its members sees it: each message is shown once, and confirmed once in the same order.

use std::collections::{HashMap, VecDeque};

use serde_json::Value;

use super::board::Check;
use super::group::SIZE;
use super::sequence::Sequence;
use super::tally::Kind;

/// What a member has seen.
#[derive(Debug, Default)]
pub(super) struct Talk {
    /// By the index of the sender, the numbers of the messages that were shown.
    by_sender: [Sequence; SIZE],
    /// The bodies of all messages, in the order in which they were shown.
    pub(super) shown: Vec<String>,
    /// The temporary ids of shown messages that are not confirmed.
    unconfirmed: VecDeque<String>,
    n_confirmed: u64,
    /// The receipts of the member's own messages.
    receipts: Sequence,
    /// The temporary ids of the member's own messages, by their numbers.
    own: HashMap<u64, String>,
}

/// The body of a message: the index of its sender, and its number.
pub(super) fn body(sender: usize, number: u64) -> String {
    format!("m{sender}:{number}")
}

fn read_body(body: &str) -> Option<(usize, u64)> {
    let (sender, number) = body.strip_prefix('m')?.split_once(':')?;
    Some((sender.parse().ok().filter(|sender| *sender < SIZE)?, number.parse().ok()?))
}

impl Talk {
    /// An event of the room or the channel has arrived; `event` is the last part of its name.
    pub(super) fn see(&mut self, me: usize, event: &str, data: &Value) -> Check {
        let temp = data["tempId"].as_str().unwrap_or_default();
        let of = |text: &Value| text.as_str().and_then(read_body);
        let unknown = || (Kind::Wrong, format!("{event} makes no sense: {data}"));
        match event {
            "MessageRecieved" => {
                let (sender, number) = of(&data["body"]).ok_or_else(unknown)?;
                self.unconfirmed.push_back(temp.to_owned());
                self.shown.push(body(sender, number));
                let taken = self.by_sender[sender].take(number);
                taken.map_err(|kind| (kind, format!("message {number} of {sender} was shown as {temp}")))?;
                if sender == me { self.is_known_as(number, temp) } else { Ok(()) }
            }
            "MessageConfirmed" => self.confirm(temp),
            "MessageSent" => {
                let (_, number) = of(&data["clientId"]).ok_or_else(unknown)?;
                let taken = self.receipts.take(number);
                taken.map_err(|kind| (kind, format!("the receipt of message {number} came")))?;
                self.is_known_as(number, temp)
            }
            _ => Err(unknown()),
        }
    }

    fn confirm(&mut self, temp: &str) -> Check {
        self.n_confirmed += 1;
        match self.unconfirmed.iter().position(|shown| shown == temp) {
            Some(0) => {
                self.unconfirmed.pop_front();
                Ok(())
            }
            Some(at) => {
                self.unconfirmed.remove(at);
                Err((Kind::Disordered, format!("{temp} was confirmed before {at} messages that were shown earlier")))
            }
            None => Err((Kind::Doubled, format!("{temp} was confirmed, and there is no such message left"))),
        }
    }

    /// The temporary id of an own message, which is the same wherever it is said.
    pub(super) fn is_known_as(&mut self, number: u64, temp: &str) -> Check {
        let known = self.own.entry(number).or_insert_with(|| temp.to_owned());
        match known == temp && !temp.is_empty() {
            true => Ok(()),
            false => Err((Kind::Doubled, format!("message {number} is {temp}, and was {known}"))),
        }
    }

    /// Whether all is seen, where senders have sent `said` messages.
    pub(super) fn is_complete(&self, me: usize, said: &[u64; SIZE]) -> bool {
        self.unconfirmed.is_empty()
            && self.receipts.is_complete(said[me])
            && self.by_sender.iter().zip(said).all(|(seen, said)| seen.is_complete(*said))
    }

    /// What is missing: the number of events, and a description.
    pub(super) fn missing(&self, me: usize, said: &[u64; SIZE]) -> Vec<(u64, String)> {
        let lost =
            |what: String, (n, first): (u64, Option<u64>)| first.map(|first| (n, format!("{what}, first {first}")));
        let shown = self.by_sender.iter().zip(said).enumerate();
        let shown = shown.filter_map(|(sender, (seen, said))| lost(format!("messages of {sender}"), seen.lost(*said)));
        let receipts = lost("receipts".to_owned(), self.receipts.lost(said[me]));
        let unconfirmed = self.unconfirmed.front().map(|first| {
            (self.unconfirmed.len() as u64, format!("confirmations, first of {first}, after {}", self.n_confirmed))
        });
        shown.chain(receipts).chain(unconfirmed).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn show(talk: &mut Talk, number: u64) -> Option<Kind> {
        let data = json!({ "tempId": format!("t{number}"), "body": body(1, number) });
        talk.see(0, "MessageRecieved", &data).err().map(|(kind, _)| kind)
    }

    fn confirm(talk: &mut Talk, number: u64) -> Option<Kind> {
        let data = json!({ "tempId": format!("t{number}") });
        talk.see(0, "MessageConfirmed", &data).err().map(|(kind, _)| kind)
    }

    #[test]
    fn messages_are_shown_and_confirmed_once_in_order() {
        let mut talk = Talk::default();
        let said = [0, 3, 0, 0, 0, 0];
        assert_eq!([0, 1, 2].map(|number| show(&mut talk, number)), [None; 3]);
        assert!(!talk.is_complete(0, &said));
        assert_eq!(talk.missing(0, &said)[0].0, 3, "no message is confirmed");
        assert_eq!([0, 2, 1].map(|number| confirm(&mut talk, number)), [None, Some(Kind::Disordered), None]);
        assert!(talk.is_complete(0, &said));
        assert_eq!((show(&mut talk, 1), confirm(&mut talk, 0)), (Some(Kind::Doubled), Some(Kind::Doubled)));
    }

    #[test]
    fn own_message_has_one_temporary_id() {
        let mut talk = Talk::default();
        let sent = |temp: &str| json!({ "tempId": temp, "clientId": body(0, 0) });
        assert_eq!(talk.see(0, "MessageSent", &sent("a")), Ok(()));
        assert_eq!(talk.is_known_as(0, "a"), Ok(()));
        assert!(talk.is_known_as(0, "b").is_err());
    }
}
