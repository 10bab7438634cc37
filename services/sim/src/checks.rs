//! What must hold of every stream that leaves a node, whatever the network does: looked at
//! before the network gets it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_rtp::sequence::timestamp_distance;
use headwater_rtp::vp8::Vp8Descriptor;
use headwater_rtp::{RtpView, SequenceUnwrapper};

use crate::Time;
use crate::mark::Mark;

/// Violations that are written down; more of them say nothing new.
const VIOLATIONS_MAX: usize = 20;
/// Pictures that are remembered, so that none is named twice: a minute.
const PICTURES_MAX: usize = 2_048;
/// Numbers left out that are remembered. Older ones were given up.
const HOLES_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Last {
    mark: Mark,
    timestamp: u32,
    picture: u16,
}

/// Watches one stream of first transmissions to one subscriber.
#[derive(Debug)]
pub(crate) struct StreamCheck {
    unwrapper: SequenceUnwrapper,
    highest: Option<u64>,
    holes: BTreeSet<u64>,
    last: Option<Last>,
    /// Encoding and frame by picture id, and the ids in order.
    pictures: BTreeMap<u16, (u8, u32)>,
    picture_order: VecDeque<u16>,
    /// Highest encoding that the subscriber wants; `None` if nothing.
    wanted: Option<u8>,
    /// It was paused since the last packet, perhaps within a frame.
    paused: bool,
    video: bool,
}

impl StreamCheck {
    pub(crate) fn new(video: bool) -> Self {
        Self {
            unwrapper: SequenceUnwrapper::new(),
            highest: None,
            holes: BTreeSet::new(),
            last: None,
            pictures: BTreeMap::new(),
            picture_order: VecDeque::new(),
            wanted: Some(u8::MAX),
            paused: false,
            video,
        }
    }

    /// The subscriber wants this encoding at most from now on; nothing if `None`.
    pub(crate) fn want(&mut self, wanted: Option<u8>) {
        self.wanted = wanted;
        self.paused |= wanted.is_none();
    }

    /// Numbers that were left out and never filled.
    pub(crate) fn holes(&self) -> usize {
        self.holes.len()
    }

    /// A packet leaves the node.
    pub(crate) fn note(&mut self, now: Time, view: &RtpView<'_>, violations: &mut Violations) {
        let sequence = self.unwrapper.unwrap(view.sequence());
        if self.video {
            self.note_picture(now, view, violations);
        }
        let Some(highest) = self.highest else {
            self.highest = Some(sequence);
            self.note_in_order(now, view, false, violations);
            return;
        };
        if sequence <= highest {
            // A repetition, or what came late and fills a hole.
            self.holes.remove(&sequence);
            return;
        }
        self.holes.extend(highest + 1..sequence);
        while self.holes.len() > HOLES_MAX {
            self.holes.pop_first();
        }
        self.highest = Some(sequence);
        self.note_in_order(now, view, sequence == highest + 1, violations);
    }

    /// One picture id names one frame.
    fn note_picture(&mut self, now: Time, view: &RtpView<'_>, violations: &mut Violations) {
        let (Some(mark), Ok(read)) =
            (Mark::read(view.payload()), Vp8Descriptor::parse(view.payload()))
        else {
            return;
        };
        let Some(picture) = read.picture_id.map(|picture| picture.value()) else { return };
        let frame = (mark.encoding, mark.frame);
        match self.pictures.insert(picture, frame) {
            None => self.picture_order.push_back(picture),
            Some(before) if before != frame => {
                violations.add(now, view.ssrc(), "a picture id for two frames");
            }
            Some(_) => {}
        }
        if self.picture_order.len() > PICTURES_MAX
            && let Some(oldest) = self.picture_order.pop_front()
        {
            self.pictures.remove(&oldest);
        }
    }

    fn note_in_order(
        &mut self,
        now: Time,
        view: &RtpView<'_>,
        follows: bool,
        violations: &mut Violations,
    ) {
        if view.payload().is_empty() {
            return;
        }
        let Some(mark) = Mark::read(view.payload()) else {
            violations.add(now, view.ssrc(), "a payload was changed behind its descriptor");
            return;
        };
        let picture = if self.video {
            Vp8Descriptor::parse(view.payload())
                .ok()
                .and_then(|read| read.picture_id)
                .map_or(0, |picture| picture.value())
        } else {
            0
        };
        let new = Last { mark, timestamp: view.timestamp(), picture };
        if let Some(old) = self.last.replace(new) {
            let follows = follows && !std::mem::take(&mut self.paused);
            self.compare(now, view.ssrc(), (old, new), follows, violations);
        } else if self.wanted.is_none_or(|wanted| mark.encoding > wanted) {
            violations.add(now, view.ssrc(), "a stream begins above its target");
        }
    }

    fn compare(
        &self,
        now: Time,
        ssrc: u32,
        (old, new): (Last, Last),
        follows: bool,
        violations: &mut Violations,
    ) {
        let same = old.mark.encoding == new.mark.encoding && old.mark.frame == new.mark.frame;
        let step = timestamp_distance(new.timestamp, old.timestamp);
        if self.wanted.is_none() {
            violations.add(now, ssrc, "a packet of a paused subscription");
        }
        let rises = new.mark.encoding > old.mark.encoding;
        if rises && self.wanted.is_some_and(|wanted| new.mark.encoding > wanted) {
            violations.add(now, ssrc, "a switch to a layer above the target");
        }
        if same && step != 0 {
            violations.add(now, ssrc, "a frame with two timestamps");
        }
        if !same && step <= 0 {
            violations.add(now, ssrc, "a timestamp that goes back or stands still");
        }
        if !self.video || !follows {
            return;
        }
        let expected = if same { old.picture } else { (old.picture + 1) & 0x7fff };
        if new.picture != expected {
            violations.add(now, ssrc, "a picture id that does not follow");
        }
        // Before a keyframe anything may be cut off: nobody needs it any more.
        let whole =
            new.mark.packet == 0 && (old.mark.packet + 1 == old.mark.packets || new.mark.key);
        let next = same && new.mark.packet == old.mark.packet + 1;
        if !(whole || next) {
            violations.add(now, ssrc, "a frame that is not whole without a hole");
        }
    }
}

/// What was found wrong.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    list: Vec<String>,
    count: u64,
}

impl Violations {
    fn add(&mut self, now: Time, ssrc: u32, what: &str) {
        self.count += 1;
        if self.list.len() < VIOLATIONS_MAX {
            self.list.push(format!("{:.3} s, SSRC {ssrc}: {what}", now.elapsed().as_secs_f64()));
        }
    }

    pub(crate) fn list(&self) -> &[String] {
        &self.list
    }
}
