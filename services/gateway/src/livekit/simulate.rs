//! Test scenarios that developers of clients ask for. Most are the node's to
//! play; two concern the signalling connection and are the gateway's.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use headwater_proto::node::v1 as node;
use headwater_proto::node::v1::simulate::Scenario as ByNode;
use livekit_protocol as lk;
use lk::simulate_scenario::Scenario as Asked;

/// Who plays a scenario.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scenario {
    /// The node.
    Node(node::Simulate),
    /// This gateway, at the participant's next resumes.
    Gateway(ResumeTrial),
}

/// What befalls a participant's next resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResumeTrial {
    /// One connection is cut right after the resume's messages.
    CutAfterMessages,
    /// Up to three connections are cut before any message.
    CutBeforeMessages,
}

/// `None` if nothing was asked for.
pub(crate) fn scenario(simulation: &lk::SimulateScenario) -> Option<Scenario> {
    let by_node = |scenario| Scenario::Node(node::Simulate { scenario: Some(scenario) });
    Some(match simulation.scenario.as_ref()? {
        Asked::SpeakerUpdate(seconds) => {
            by_node(ByNode::SpeakSeconds(u32::try_from(*seconds).unwrap_or(0)))
        }
        // LiveKit's own server migrates by dropping, too.
        Asked::NodeFailure(_) | Asked::Migration(_) => by_node(ByNode::NodeFailure(true)),
        Asked::ServerLeave(_) => by_node(ByNode::ServerLeave(true)),
        Asked::SwitchCandidateProtocol(protocol) => {
            by_node(ByNode::MediaProtocol(media_protocol(*protocol).into()))
        }
        Asked::SubscriberBandwidth(bits) => {
            by_node(ByNode::SubscriberBandwidth(u64::try_from(*bits).unwrap_or(0)))
        }
        Asked::DisconnectSignalOnResume(_) => Scenario::Gateway(ResumeTrial::CutAfterMessages),
        Asked::DisconnectSignalOnResumeNoMessages(_) => {
            Scenario::Gateway(ResumeTrial::CutBeforeMessages)
        }
        Asked::LeaveRequestFullReconnect(_) => by_node(ByNode::FullReconnect(true)),
    })
}

/// TLS runs over TCP; a relay in front of the node would end it.
fn media_protocol(protocol: i32) -> node::MediaProtocol {
    match lk::CandidateProtocol::try_from(protocol) {
        Ok(lk::CandidateProtocol::Tcp | lk::CandidateProtocol::Tls) => node::MediaProtocol::Tcp,
        Ok(lk::CandidateProtocol::Udp) | Err(_) => node::MediaProtocol::Udp,
    }
}

/// How long a trial waits for its participant to resume.
const TRIAL_LIFETIME: Duration = Duration::from_secs(30);

/// Trials that wait at once. At the bound new ones are not taken: they serve tests only.
const TRIALS_MAX: usize = 256;

/// Trials that wait, by participant uid.
#[derive(Debug, Default)]
pub(crate) struct ResumeTrials {
    waiting: BTreeMap<String, (ResumeTrial, u8, Instant)>,
}

impl ResumeTrials {
    pub(crate) fn add(&mut self, uid: &str, trial: ResumeTrial, now: Instant) {
        self.waiting.retain(|_, (_, _, until)| *until > now);
        if self.waiting.len() < TRIALS_MAX {
            let times = match trial {
                ResumeTrial::CutAfterMessages => 1,
                ResumeTrial::CutBeforeMessages => 3,
            };
            self.waiting.insert(uid.to_owned(), (trial, times, now + TRIAL_LIFETIME));
        }
    }

    /// What befalls this resume, if anything.
    pub(crate) fn take(&mut self, uid: &str, now: Instant) -> Option<ResumeTrial> {
        self.waiting.retain(|_, (_, _, until)| *until > now);
        let (trial, times, _) = self.waiting.get_mut(uid)?;
        let trial = *trial;
        *times -= 1;
        if *times == 0 {
            self.waiting.remove(uid);
        }
        Some(trial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trials_run_out_by_count_and_by_time() {
        let now = Instant::now();
        let mut trials = ResumeTrials::default();
        trials.add("PA_1", ResumeTrial::CutBeforeMessages, now);
        trials.add("PA_2", ResumeTrial::CutAfterMessages, now);
        let taken = (0..4).map(|_| trials.take("PA_1", now)).filter(Option::is_some).count();
        assert_eq!(taken, 3);
        assert_eq!(trials.take("PA_2", now + TRIAL_LIFETIME), None);
    }

    #[test]
    fn every_scenario_has_somebody_to_play_it() {
        let asked = [
            Asked::SpeakerUpdate(-1),
            Asked::NodeFailure(true),
            Asked::Migration(true),
            Asked::ServerLeave(true),
            Asked::SwitchCandidateProtocol(2),
            Asked::SubscriberBandwidth(-5),
            Asked::DisconnectSignalOnResume(true),
            Asked::DisconnectSignalOnResumeNoMessages(true),
            Asked::LeaveRequestFullReconnect(true),
        ];
        for asked in asked {
            assert!(scenario(&lk::SimulateScenario { scenario: Some(asked) }).is_some());
        }
        assert_eq!(scenario(&lk::SimulateScenario::default()), None);
    }
}
