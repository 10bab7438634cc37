//! How families are defined: one call each, with help and a closed set of label
//! values, all of them resolved at once so that recording looks nothing up.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

/// Everything we name begins with it.
const PREFIX: &str = "headwater";

/// A closed set of label values.
pub trait LabelSet: Copy + 'static {
    /// Names of the labels.
    const NAMES: &'static [&'static str];
    /// Every member, in order.
    const ALL: &'static [Self];
    /// Values of the labels, as many as names.
    fn values(self) -> &'static [&'static str];
    /// Place in [`LabelSet::ALL`].
    fn index(self) -> usize;
}

macro_rules! label_set {
    ($(#[$doc:meta])* $name:ident [$($label:literal),+] {
        $($(#[$variant_doc:meta])* $variant:ident => [$($value:literal),+]),+ $(,)?
    }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $crate::metrics::LabelSet for $name {
            const NAMES: &'static [&'static str] = &[$($label),+];
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn values(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($value),+]),+
                }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}
pub(crate) use label_set;

/// A family with one metric for each member of a label set.
#[derive(Debug, Clone)]
pub struct Family<L, M> {
    members: Vec<M>,
    labels: PhantomData<fn(L)>,
}

impl<L: LabelSet, M> Family<L, M> {
    fn new(member: impl FnMut(&L) -> M) -> Self {
        Self { members: L::ALL.iter().map(member).collect(), labels: PhantomData }
    }

    /// The metric of a member.
    #[must_use]
    pub fn get(&self, label: L) -> &M {
        &self.members[label.index()]
    }
}

/// A counter fed from a plain integer that only rises, such as those of the
/// packet path, which are read once a second.
#[derive(Debug)]
pub struct Total {
    counter: IntCounter,
    seen: AtomicU64,
}

impl Total {
    fn new(counter: IntCounter) -> Self {
        Self { counter, seen: AtomicU64::new(0) }
    }

    /// Tells the integer's value now. One below what was told before counts
    /// nothing: the integer began anew, and goes on from there.
    pub fn set(&self, value: u64) {
        let before = self.seen.swap(value, Ordering::Relaxed);
        self.counter.inc_by(value.saturating_sub(before));
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.counter.get()
    }
}

/// Defines families in a registry.
pub(crate) struct Registrar {
    registry: Registry,
}

impl Registrar {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::with_opts(opts(name, help)))
    }

    pub(crate) fn counters<L: LabelSet>(&self, name: &str, help: &str) -> Family<L, IntCounter> {
        let family = self.add(IntCounterVec::new(opts(name, help), L::NAMES));
        Family::new(|label: &L| family.with_label_values(label.values()))
    }

    pub(crate) fn total(&self, name: &str, help: &str) -> Total {
        Total::new(self.counter(name, help))
    }

    pub(crate) fn totals<L: LabelSet>(&self, name: &str, help: &str) -> Family<L, Total> {
        let family = self.add(IntCounterVec::new(opts(name, help), L::NAMES));
        Family::new(|label: &L| Total::new(family.with_label_values(label.values())))
    }

    pub(crate) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::with_opts(opts(name, help)))
    }

    pub(crate) fn gauges<L: LabelSet>(&self, name: &str, help: &str) -> Family<L, IntGauge> {
        let family = self.add(IntGaugeVec::new(opts(name, help), L::NAMES));
        Family::new(|label: &L| family.with_label_values(label.values()))
    }

    pub(crate) fn float_gauge(&self, name: &str, help: &str) -> Gauge {
        self.add(Gauge::with_opts(opts(name, help)))
    }

    pub(crate) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(histogram_opts(name, help, buckets)))
    }

    pub(crate) fn histograms<L: LabelSet>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> Family<L, Histogram> {
        let family = self.add(HistogramVec::new(histogram_opts(name, help, buckets), L::NAMES));
        Family::new(|label: &L| family.with_label_values(label.values()))
    }

    /// CPU, memory, file descriptors, threads and start time, where the system tells them.
    pub(crate) fn process(&self) {
        #[cfg(target_os = "linux")]
        self.registry
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("names of the process are used once");
    }

    pub(crate) fn build_info(&self, version: &str) {
        let options = opts("build_info", "Always 1; the labels say which build runs.")
            .const_label("version", version);
        self.add(IntGauge::with_opts(options)).set(1);
    }

    fn add<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric =
            metric.expect("names, help and labels of families are constants that a test tries");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("every family is defined once, which a test tries");
        metric
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(format!("{PREFIX}_{name}"), help).buckets(buckets.to_vec())
}
