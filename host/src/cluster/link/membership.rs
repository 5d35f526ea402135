//! The membership of this node, and what it does about the others'.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::bail;
use redis::Value;

use super::super::nodes::{NodeInfo, View};
use super::super::ops;
use super::super::scripts::{self, call};
use super::{Link, Op};
use crate::model::NodeId;

/// How long the nodes have to put back what they know, after Redis has lost everything, before partitions are taken.
const SETTLE_MS: u64 = 2000;

/// After which time what partitions have of a node that has gone is removed.
const FORGET_AFTER_MS: u64 = 10_000;

impl Link {
    pub(super) async fn register(&mut self) -> anyhow::Result<()> {
        let (keys, name) = (&self.keys, &self.config.node);
        self.registered = format!("{name}\0{}", random_text());
        let keys_of = [keys.nodes(), keys.beats(), keys.run(), keys.number(), keys.secret()];
        let mut cmd = call(&scripts::REGISTER, &keys_of);
        let [low, high, ..] = random_bytes();
        let begin = u16::from_le_bytes([low, high]);
        cmd.arg(&self.registered).arg(random_text()).arg(begin).arg(keys.news());
        cmd.arg([random_bytes(), random_bytes()].concat());
        let answer = self.connection.redis.ask(&cmd).await?;
        let [number, run, secret, began] = ops::items(&answer)? else { bail!("Redis answers {answer:?}") };
        if ops::number(began)? > 0 {
            // The cluster is new, or Redis has lost it, and the others have yet to put it back.
            self.settles_at = self.now() + SETTLE_MS;
        }
        self.status.secret.store(Arc::new(ops::octets(secret)?.to_vec()));
        (self.me, self.run) = (NodeId(u16::try_from(ops::number(number)?)?), ops::octets(run)?.to_vec());
        self.status.me.store(self.me.0, Ordering::Release);
        Ok(())
    }

    pub(super) fn beat(&mut self) {
        let keys = [self.keys.nodes(), self.keys.beats(), self.keys.run(), self.keys.plugins_revision()];
        let mut cmd = call(&scripts::BEAT, &keys);
        cmd.arg(self.me.0).arg(&self.registered);
        self.outgoing.push_back((Op::Beat, cmd));
    }

    pub(super) async fn beaten(&mut self, answer: &Value) -> anyhow::Result<()> {
        let [known, run, lists @ ..] = ops::items(answer)? else { bail!("Redis answers {answer:?}") };
        let is_same = ops::octets(run).is_ok_and(|run| run == self.run);
        let is_known = ops::number(known)? > 0;
        if !is_same {
            self.revive();
            return Ok(());
        }
        let [names, beats, plugins] = lists else {
            return if is_known { Ok(()) } else { self.begin_anew().await };
        };
        let now = self.now();
        let beats = ops::pairs(ops::items(beats)?)?.into_iter();
        let beats = beats.map(|(node, beats)| Ok((NodeId(ops::text_number(node)?), ops::text_number(beats)?)));
        let mut beats = beats.collect::<anyhow::Result<HashMap<_, _>>>()?;
        beats.remove(&self.me);
        self.observer.note_beats(now, &beats);
        let names = ops::pairs(ops::items(names)?)?.into_iter();
        let nodes = names.map(|(node, name)| {
            let registered = String::from_utf8_lossy(name).into_owned();
            let name = registered.split('\0').next().unwrap_or_default().to_owned();
            Ok((NodeId(ops::text_number(node)?), NodeInfo { name, registered }))
        });
        let missed = if self.config.clients_return { self.observer.missed(now) } else { BTreeSet::new() };
        let view = Arc::new(View { nodes: nodes.collect::<anyhow::Result<_>>()?, missed });
        if now < self.settles_at {
            return Ok(());
        }
        self.metrics.nodes.set(view.nodes.len() as i64);
        let before = self.status.view.swap(view.clone());
        for node in before.nodes.keys().filter(|node| !view.nodes.contains_key(node)) {
            self.gone.insert(*node, now);
        }
        let plugins = ops::text_number(ops::octets(plugins)?)?;
        self.tell(|listener| listener.plugins(plugins));
        self.tell(|listener| listener.nodes(&view));
        self.give_up_gone();
        Ok(())
    }

    /// Redis has lost everything: this node puts the nodes back, and heals its partitions.
    pub(super) fn revive(&mut self) {
        tracing::error!("Redis has lost the cluster's data: this node puts what it knows of it back");
        let keys = [self.keys.nodes(), self.keys.beats(), self.keys.run(), self.keys.number()];
        let view = self.status.view.load_full();
        let highest = view.nodes.keys().map(|node| node.0).max().unwrap_or(0).max(self.me.0);
        let mut cmd = call(&scripts::REVIVE, &keys);
        cmd.arg(random_text()).arg(highest);
        cmd.arg(self.me.0).arg(&self.registered);
        for (node, info) in view.nodes.iter().filter(|(node, _)| **node != self.me) {
            cmd.arg(node.0).arg(&info.registered);
        }
        self.settles_at = self.now() + SETTLE_MS;
        self.outgoing.push_back((Op::Revive, cmd));
        let owned: Vec<_> = self.owned.keys().copied().collect();
        owned.into_iter().for_each(|partition| self.check(partition));
    }

    /// The other nodes have removed this one from the cluster, so it joins again under another number.
    pub(super) async fn begin_anew(&mut self) -> anyhow::Result<()> {
        tracing::error!(
            node = self.me.0,
            "the other nodes gave this one up, which begins anew: its clients connect again"
        );
        self.metrics.reborn.inc();
        // Nothing of the old number counts any more.
        self.lasting.clear();
        self.outgoing.clear();
        self.owned.clear();
        self.outputs.clear();
        self.register().await?;
        self.tell(|listener| listener.reborn(self.me));
        // Answers to what was asked before would be taken for those to what is asked now.
        bail!("a new number needs a new connection")
    }

    pub(super) fn look(&mut self) {
        let view = self.status.view.load();
        let nodes: Vec<NodeId> = view.nodes.keys().copied().filter(|node| *node != self.me).collect();
        if nodes.is_empty() {
            return;
        }
        let mut cmd = redis::cmd("PUBSUB");
        cmd.arg("NUMSUB").arg(nodes.iter().map(|node| self.keys.presence(*node)).collect::<Vec<_>>());
        self.outgoing.push_back((Op::Look(nodes), cmd));
    }

    pub(super) fn give_up_gone(&mut self) {
        for (node, beats) in self.observer.gone(self.now()) {
            let mut cmd = call(&scripts::GIVE_UP, &[self.keys.nodes(), self.keys.beats()]);
            cmd.arg(node.0).arg(beats).arg(self.keys.news());
            self.outgoing.push_back((Op::GiveUp(node), cmd));
        }
    }

    /// Removes what partitions have of nodes that have gone for long.
    pub(super) fn forget_gone(&mut self) {
        let now = self.now();
        let gone: Vec<_> =
            self.gone.extract_if(|_, since| now >= *since + FORGET_AFTER_MS).map(|(node, _)| node).collect();
        let view = self.status.view.load_full();
        let gone: Vec<_> = gone.into_iter().filter(|node| !view.nodes.contains_key(node)).collect();
        if gone.is_empty() {
            return;
        }
        for (partition, owned) in self.owned.iter().filter(|(_, owned)| owned.epoch > 0) {
            let cmd = ops::forget(&self.keys, *partition, self.me, owned.epoch, &gone);
            self.outgoing.push_back((Op::Other, cmd));
        }
    }
}

pub(in crate::cluster) fn random_text() -> String {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid().to_string()
}

fn random_bytes() -> [u8; 16] {
    let mut bytes = [0; 16];
    // Without the kernel's random numbers nothing of the host would work.
    getrandom::fill(&mut bytes).expect("the kernel has random numbers");
    bytes
}
