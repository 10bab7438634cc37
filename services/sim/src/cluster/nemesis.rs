//! Who breaks things: kills, freezes, cuts, bad weather, and the repair of each.

use std::time::Duration;

use headwater_control_core::Lifecycle;

use super::links::Place;
use super::registry::{Key, Value, Write};
use super::world::{Happening, World};

/// What mends a fault.
#[derive(Debug)]
pub(crate) enum Repair {
    StartNode(usize),
    Thaw(usize, u64),
    Mend(Place, Place),
    RegistryBack,
    StartReplica(usize),
    ClearSky,
    /// An operator takes the order to a node back.
    Uncordon(usize),
    /// A node that was asked to stop has had its time.
    Stop(usize, u64),
}

impl World {
    fn seconds(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(self.luck.between(least, most))
    }

    fn some_node(&mut self) -> usize {
        self.luck.below(self.nodes.len() as u64) as usize
    }

    fn is_whole(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.alive && !it.frozen && !it.leaving
    }

    /// Something breaks.
    pub(crate) fn strike(&mut self) {
        if self.is_calm {
            return;
        }
        let pause = self.seconds(0.4, 4.0);
        self.later(pause, Happening::Nemesis);
        let node = self.some_node();
        let whole = (0..self.nodes.len()).filter(|node| self.is_whole(*node)).count();
        match self.luck.below(13) {
            0 | 1 if self.is_whole(node) && whole > 1 => {
                self.say(format!("kill node {node}"));
                self.kill_node(node);
                let after = self.seconds(0.5, 14.0);
                self.later(after, Happening::Repair(Repair::StartNode(node)));
            }
            2 | 3 if self.is_whole(node) && whole > 1 => {
                let life = self.nodes[node].life;
                let after = self.seconds(0.2, 9.0);
                self.say(format!("freeze node {node} for {after:?}"));
                self.nodes[node].frozen = true;
                self.later(after, Happening::Repair(Repair::Thaw(node, life)));
            }
            4 | 5 => {
                let other = self.some_node();
                self.cut_for_a_while(Place::Node(node), Place::Node(other));
            }
            6 => {
                let replica = self.luck.below(self.replicas.len() as u64) as usize;
                let ends = [
                    (Place::Node(node), Place::Registry),
                    (Place::Replica(replica), Place::Registry),
                    (Place::Replica(replica), Place::Node(node)),
                    (Place::Door, Place::Node(node)),
                    (Place::Door, Place::Replica(replica)),
                ];
                let (a, b) = ends[self.luck.below(ends.len() as u64) as usize];
                self.cut_for_a_while(a, b);
            }
            7 if !self.registry.is_away() => {
                let after = self.seconds(0.5, 14.0);
                self.say(format!("the registry is away for {after:?}"));
                self.registry.set_away(self.now, true);
                self.later(after, Happening::Repair(Repair::RegistryBack));
            }
            8 => self.strike_replica(),
            9 | 10 => {
                self.weather.loss = self.luck.between(0.0, 0.3);
                self.weather.jitter = self.seconds(0.0, 0.04);
                let after = self.seconds(0.5, 5.0);
                self.say(format!("{:?} for {after:?}", self.weather));
                self.later(after, Happening::Repair(Repair::ClearSky));
            }
            11 if self.is_whole(node) && whole > 1 => {
                let life = self.nodes[node].life;
                self.say(format!("node {node} is asked to stop"));
                self.nodes[node].leaving = true;
                let after = self.seconds(4.0, 10.0);
                self.later(after, Happening::Repair(Repair::Stop(node, life)));
            }
            12 if !self.registry.is_away() => {
                let drain = self.luck.chance(0.7);
                let order = if drain { Lifecycle::Drain } else { Lifecycle::Cordon };
                let after = self.seconds(1.0, 8.0);
                self.say(format!("{order:?} node {node} for {after:?}"));
                self.order(node, Some(order));
                self.later(after, Happening::Repair(Repair::Uncordon(node)));
            }
            _ => {}
        }
    }

    fn order(&mut self, node: usize, order: Option<Lifecycle>) {
        let key = Key::Order(self.nodes[node].id.clone());
        let write = match order {
            Some(order) => Write::Put(key, Value::Order(order), None),
            None => Write::Delete(key),
        };
        if self.registry.commit(&[], vec![write]).is_err() {
            // The operator tries again.
            self.later(Duration::from_secs(1), Happening::Repair(Repair::Uncordon(node)));
        }
    }

    fn strike_replica(&mut self) {
        let index = self.luck.below(self.replicas.len() as u64) as usize;
        let Some(mut replica) = self.replicas[index].take() else { return };
        let by_word = self.luck.chance(0.5);
        self.say(format!("replica {index} ends, resigning {by_word}"));
        if by_word {
            replica.resign(&mut self.registry);
        }
        self.replica_lives[index] += 1;
        let after = self.seconds(0.2, 6.0);
        self.later(after, Happening::Repair(Repair::StartReplica(index)));
    }

    fn cut_for_a_while(&mut self, a: Place, b: Place) {
        if a == b {
            return;
        }
        let after = self.seconds(0.2, 9.0);
        let both = self.luck.chance(0.5);
        self.say(format!("cut {a:?} to {b:?}, both ways {both}, for {after:?}"));
        self.cuts.cut(a, b);
        self.later(after, Happening::Repair(Repair::Mend(a, b)));
        if both {
            self.cuts.cut(b, a);
            self.later(after, Happening::Repair(Repair::Mend(b, a)));
        }
    }

    pub(crate) fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::StartNode(node) => {
                if !self.nodes[node].alive {
                    self.say(format!("start node {node}"));
                    self.start_node(node);
                }
            }
            Repair::Thaw(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].frozen {
                    self.say(format!("thaw node {node}"));
                    self.thaw(node);
                }
            }
            Repair::Mend(a, b) => self.cuts.mend(a, b),
            Repair::RegistryBack => {
                self.say("the registry is back".to_owned());
                self.registry.set_away(self.now, false);
            }
            Repair::StartReplica(index) => {
                if self.replicas[index].is_none() {
                    self.say(format!("start replica {index}"));
                    self.start_replica(index);
                }
            }
            Repair::Uncordon(node) => self.order(node, None),
            Repair::ClearSky => (self.weather.loss, self.weather.jitter) = (0.0, Duration::ZERO),
            Repair::Stop(node, life) => {
                if self.nodes[node].life == life && self.nodes[node].alive {
                    self.say(format!("node {node} stops"));
                    self.deregister(node);
                    self.kill_node(node);
                    let after = self.seconds(0.5, 3.0);
                    self.later(after, Happening::Repair(Repair::StartNode(node)));
                }
            }
        }
    }

    /// Everything is mended and nothing breaks any more. Nodes that stop may stop.
    pub(crate) fn make_peace(&mut self) {
        self.say("peace".to_owned());
        self.is_calm = true;
        self.speaks = false;
        self.cuts.mend_all();
        self.repair(Repair::RegistryBack);
        self.repair(Repair::ClearSky);
        for index in 0..self.nodes.len() {
            self.order(index, None);
            self.repair(Repair::StartNode(index));
            let life = self.nodes[index].life;
            self.repair(Repair::Thaw(index, life));
        }
        for index in 0..self.replicas.len() {
            self.repair(Repair::StartReplica(index));
        }
        for client in 0..self.clients.len() {
            if self.clients[client].muted {
                self.clients[client].set_muted(false);
            }
            self.clients[client].wants = true;
            let stays = self.clients[client].stays;
            self.retry(client, stays);
            self.send_commands(client);
        }
    }
}
