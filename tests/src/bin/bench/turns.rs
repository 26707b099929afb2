//! Takes turns between what is compared, so that whatever changes on the machine changes for all.

use std::time::Duration;

use ::tests::agent::Agent;
use ::tests::clock;
use anyhow::Result;

use crate::observer::{self, Disturbed, Program, Watching};

/// One of those that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Contender<'a> {
    /// Nothing watches.
    Nobody,
    /// A program does.
    Program(&'a Program),
    /// `pipestall watch` does.
    Product,
    /// `pipestall watch --trace-writes` does, for this command.
    Counting(&'a str),
}

/// The samples of one contender, one a round, nanoseconds an operation.
#[derive(Debug, Default)]
pub(crate) struct Series {
    samples: Vec<f64>,
}

/// How often a sample may be taken again because another tracer came in between.
const RETRIES: u32 = 100;

/// Takes `rounds` samples under each contender, in turns, and every other round the other way round.
/// So many tracers are loaded besides the product's own.
pub(crate) fn take<const N: usize>(
    rounds: u32,
    loaded: usize,
    contenders: &[Contender<'_>; N],
    mut sample: impl FnMut() -> Result<f64>,
) -> Result<[Series; N]> {
    let mut series: [Series; N] = std::array::from_fn(|_| Series::default());
    for round in 0..rounds {
        for turn in 0..N {
            let one = if round % 2 == 0 { turn } else { N - 1 - turn };
            let value = undisturbed(loaded, &contenders[one], &mut sample)?;
            series[one].samples.push(value);
        }
    }
    Ok(series)
}

fn undisturbed(
    loaded: usize,
    contender: &Contender<'_>,
    sample: &mut impl FnMut() -> Result<f64>,
) -> Result<f64> {
    for _ in 0..RETRIES {
        let (watching, tracers) = match contender {
            Contender::Nobody => (Watching::Nobody, loaded),
            Contender::Program(program) => (program.attach()?, loaded),
            Contender::Product => (Watching::Product(Agent::watch(&[])), loaded + 1),
            Contender::Counting(comm) => {
                let watch = Agent::watch(&["--trace-writes", "--comm", comm]);
                (Watching::Product(watch), loaded)
            }
        };
        let tracers = observer::await_tracers(tracers)?;
        let value = sample()?;
        let alone = observer::ensure_still(&tracers);
        drop(watching);
        match alone {
            Ok(()) => return Ok(value),
            Err(error) if error.is::<Disturbed>() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Disturbed.into())
}

impl Series {
    /// The fastest.
    pub(crate) fn minimum(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The middle one.
    pub(crate) fn median(&self) -> f64 {
        median(self.samples.clone())
    }

    /// The median over the rounds of this one's ratio to `other`.
    pub(crate) fn median_ratio(&self, other: &Self) -> f64 {
        median(
            self.samples
                .iter()
                .zip(&other.samples)
                .map(|(one, other)| one / other)
                .collect(),
        )
    }
}

/// Runs batches of `operations`, and gives the fastest one's nanoseconds an operation.
pub(crate) fn fastest_batch(
    batches: u32,
    operations: u32,
    mut batch: impl FnMut() -> Result<()>,
) -> Result<f64> {
    let mut fastest = f64::INFINITY;
    for _ in 0..batches {
        let before = clock::mono();
        batch()?;
        let took = clock::lapse(before, clock::mono());
        fastest = fastest.min(nanos(took) / f64::from(operations));
    }
    Ok(fastest)
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

/// The middle value, or the lower of the two.
pub(crate) fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

/// The smallest value that at least so many percent of all values do not exceed.
pub(crate) fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{median, percentile};

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(values.clone(), 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(values.clone(), 100) - 100.0).abs() < f64::EPSILON);
        assert!((median(values) - 50.0).abs() < f64::EPSILON);
        assert!((median(vec![3.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }
}
