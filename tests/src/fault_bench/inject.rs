//! The faults, from their beginning to their end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::bench::Bench;
use super::fault::Fault;
use super::model::Command;
use super::presence;
use super::violation::Violation;
use crate::guests::relabelled;

/// An hour, in seconds.
const HOUR: i64 = 3_600;

impl Bench {
    /// Lets a fault begin, last for a while and end, while pages go on.
    pub(super) async fn inject(&mut self, fault: Fault) -> Result<(), Violation> {
        let node = self.random.below(self.options.nodes);
        match fault {
            Fault::Kill => return self.kill(node).await,
            Fault::Swap => return self.swap(node).await,
            Fault::Rollout => return self.roll_out(node).await,
            Fault::Stop => self.stop(node).await,
            Fault::Cut => self.cut(node).await,
            Fault::RedisEmpty => self.restart_redis(true).await,
            Fault::RedisData => self.restart_redis(false).await,
            Fault::Sentinel => self.fail_over().await,
            Fault::Clock => self.put_clock_off(node).await,
        }
        Ok(())
    }

    async fn kill(&mut self, node: usize) -> Result<(), Violation> {
        let dead = self.choose_dead(node);
        self.begin(&[node], format!("host {node} is killed; agents {dead:?} do not come back"));
        self.cluster.kill(node);
        let died = Instant::now();
        for agent in &dead {
            self.model.hold(*agent);
            for page in self.model.pages_of(*agent).filter(|page| self.model.is_open(*page)).collect::<Vec<_>>() {
                self.tell(page, Command::Close { politely: false });
            }
        }
        self.until_gone(&dead, died).await?;
        let time = self.between(0, 3_000);
        self.work(time).await;
        self.model.release();
        self.note(format!("host {node} starts again"));
        self.cluster.start_again(node);
        self.end(&[node]);
        Ok(())
    }

    /// Half of the agents who have all their pages on a host.
    fn choose_dead(&mut self, node: usize) -> BTreeSet<usize> {
        let mut dead = BTreeSet::new();
        for agent in 0..self.options.agents {
            let open: Vec<usize> = self.model.pages_of(agent).filter(|page| self.model.is_open(*page)).collect();
            let are_there = open.iter().all(|page| self.shared.record().node_of(*page) == Some(node));
            if are_there && !open.is_empty() && self.random.in_hundred(50) {
                dead.insert(agent);
            }
        }
        dead
    }

    async fn until_gone(&mut self, dead: &BTreeSet<usize>, died: Instant) -> Result<(), Violation> {
        loop {
            self.report.checks += 1;
            let ghost = presence::ghosts(&self.shared.record(), dead);
            match ghost {
                None => break,
                Some(violation) if died.elapsed() > self.options.ghosts => return Err(violation),
                Some(_) => self.work(Duration::from_millis(100)).await,
            }
        }
        if !dead.is_empty() && self.options.nodes > 1 {
            self.report.deaths.push(died.elapsed().as_millis() as u64);
        }
        Ok(())
    }

    async fn stop(&mut self, node: usize) {
        let time = if self.random.in_hundred(50) { self.between(500, 1_500) } else { self.between(6_000, 8_000) };
        self.begin(&[node], format!("host {node} is suspended for {time:?}"));
        self.cluster.suspend(node);
        self.work(time).await;
        self.cluster.resume(node);
        self.end(&[node]);
    }

    async fn cut(&mut self, node: usize) {
        let time = self.between(500, 8_000);
        let kind = *self.random.pick(&["breaks", "hangs", "is refused", "is slow"]);
        self.begin(&[node], format!("the way from host {node} to Redis {kind} (for {time:?} if that lasts)"));
        match kind {
            "breaks" => self.cluster.proxy(node).reset(),
            "hangs" => {
                self.cluster.proxy(node).stall();
                self.work(time).await;
                self.cluster.proxy(node).flow();
            }
            "is refused" => {
                self.cluster.proxy(node).refuse();
                self.cluster.proxy(node).reset();
                self.work(time).await;
                self.cluster.proxy(node).accept();
            }
            _ => {
                self.cluster.proxy(node).delay(Duration::from_millis(50));
                self.work(time).await;
                self.cluster.proxy(node).delay(Duration::ZERO);
            }
        }
        self.end(&[node]);
    }

    async fn restart_redis(&mut self, empty: bool) {
        let all: Vec<usize> = (0..self.options.nodes).collect();
        let time = self.between(0, 3_000);
        self.begin(
            &all,
            format!("Redis dies, to come back after {time:?} {}", if empty { "empty" } else { "as it was" }),
        );
        self.cluster.redis().kill();
        self.lose(empty);
        self.work(time).await;
        if empty {
            self.cluster.redis().restart_empty();
        } else {
            self.cluster.redis().restart_with_data();
        }
        self.lose(empty);
        self.end(&all);
    }

    async fn fail_over(&mut self) {
        let all: Vec<usize> = (0..self.options.nodes).collect();
        let tail = self.between(0, 2_000);
        self.begin(&all, format!("Redis fails over to a replica that lacks the last {tail:?}"));
        self.cluster.sentinel().cut_replication();
        self.work(tail).await;
        self.lose(true);
        self.cluster.sentinel().fail_over();
        self.lose(true);
        self.end(&all);
        self.cluster.sentinel().rejoin();
    }

    async fn put_clock_off(&mut self, node: usize) {
        let seconds = if self.random.in_hundred(50) { HOUR } else { -HOUR };
        self.note(format!("the clock of host {node} is put off by {seconds} s"));
        self.cluster.clock(node).put(seconds);
        self.work(Duration::from_secs(3)).await;
        self.cluster.clock(node).put(0);
    }

    async fn swap(&mut self, node: usize) -> Result<(), Violation> {
        let build = self.build.as_ref().expect("a build was made for this fault");
        let label = self.report.commands.to_string();
        let component = relabelled(build, &label);
        self.note(format!("host {node} is given another build of ticket-collision"));
        let answer = self.cluster.host(node).try_load("ticket-collision", component).await;
        if answer.status != 200 {
            let what = format!("host {node} answered {}: {}", answer.status, answer.text);
            return Err(Violation::new("a healthy host loads a build", what));
        }
        self.work(Duration::from_secs(2)).await;
        Ok(())
    }

    /// Tries a build that does the same, of which no event may differ and no scope may go back.
    async fn roll_out(&mut self, node: usize) -> Result<(), Violation> {
        let build = self.build.as_ref().expect("a build was made for this fault");
        let component = relabelled(build, &format!("try {}", self.report.commands));
        let how = *self.random.pick(&["shadows?seconds=60", "canaries?percent=40", "canaries?percent=100"]);
        let end = *self.random.pick(&["promote", "rollback"]);
        self.note(format!("host {node} tries another build of ticket-collision, {how}, and then: {end}"));
        let host = self.cluster.host(node);
        let begun = host.call("POST", &format!("/v1/{how}"), component).await;
        let violation = |what: String| Violation::new("a healthy host tries a build", format!("host {node}: {what}"));
        if begun.status != 200 {
            return Err(violation(format!("{}: {}", begun.status, begun.text)));
        }
        self.work(Duration::from_secs(3)).await;
        let host = self.cluster.host(node);
        let report = host.call("GET", "/v1/plugins/ticket-collision/rollout", "").await;
        let comparison = &report.body["comparison"];
        if comparison["different"] != 0 || comparison["failed"] != 0 || report.body["pinnedScopes"] != 0 {
            return Err(violation(format!("the same build does something else: {}", report.text)));
        }
        let ended = host.call("POST", &format!("/v1/plugins/ticket-collision/{end}"), "").await;
        if ended.status != 200 {
            return Err(violation(format!("{end} answered {}: {}", ended.status, ended.text)));
        }
        self.work(Duration::from_secs(1)).await;
        Ok(())
    }

    fn begin(&self, nodes: &[usize], what: String) {
        let mut record = self.shared.record();
        let now = record.now();
        record.note(what);
        for node in nodes {
            record.health.harm(*node, now);
        }
    }

    fn end(&self, nodes: &[usize]) {
        let mut record = self.shared.record();
        let now = record.now();
        for node in nodes {
            record.health.heal(*node, now);
        }
    }

    /// Records that writes up to now may be lost.
    fn lose(&self, is_lost: bool) {
        let mut record = self.shared.record();
        let now = record.now();
        record.losses.extend(is_lost.then_some(now));
    }

    fn between(&mut self, least: usize, most: usize) -> Duration {
        Duration::from_millis((least + self.random.below(most - least)) as u64)
    }
}
