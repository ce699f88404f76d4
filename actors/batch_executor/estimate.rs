//! How long so many items take: learnt from every chunk, and never taken for certain.
//!
//! Two questions, and two answers that must not be mixed up.
//!
//! **How long does it take?** is a line, `T(n) = a + m·n`: a chunk costs something however small it is (a round trip,
//! a commit), and something for each item. It is fitted by least squares over all chunks, each weighing .98 of the
//! next (so some fifty of them count: what was learnt at night is forgotten by noon), and weighted by `1/n`, because
//! the noise of a sum grows with what is summed. Two things keep the fit sane. Five *pseudo-chunks* at the configured
//! cost an item stand for what is known before the first chunk; they are a guess, and fade by a fifth with every chunk that
//! is measured. And one pseudo-chunk of no
//! items that took no time, which never fades: if all chunks are of one size, nothing else tells `a` from `m`, and
//! forgetting would let the fit go wherever noise takes it (what is known as wind-up of the estimator).
//!
//! **How long might it take?** is `T95(n) = a + n·q95`, where `q95` is a cost an item that a chunk stays below 95
//! times in 100. It is read from the last 99 costs: of `N` costs the `⌈.95·(N+1)⌉`-th smallest has at least 95 % of
//! what may come next below it, whatever the distribution is, if only the order of the chunks says nothing
//! (Vovk's conformal prediction; 99, so that it is the 95th). No normal distribution is assumed, and none is there: a
//! lock, a checkpoint or a collector makes one chunk in fifty slow, not each a little slower. And `q95` is at least
//! `m·(1 + 1/√n)` with `n` the chunks that count, so that five pseudo-chunks are believed with a margin of 45 %, and
//! a cost that has begun to rise with one of 14 %.
//!
//! Not protected: the one chunk that takes ten times as long as any before it. No estimate sees that one; the guard
//! before each chunk and the reply that does not wait for it do ([`Machine`](super::Machine)). And where one chunk in fifty
//! takes three times as long as the others, or the configured cost is forty times off, `T95` holds, but is more than 30 %
//! too long on average (one in a hundred, and ten times off, it is less: `tests/calibration.rs` has seven loads).
//!
//! Of real chunks of a second, three hundred each (`tests/recorded/`), `T95` holds for 95.3 in 100 on PostgreSQL and 94.7
//! on SQLite, and is 29 and 23 % too long on average; somebody who knew each hundred of them beforehand would be 29 and
//! 24 % too long. Nobody has promised that shorter ones vary as little. Of two thousand that were recorded on a busy
//! machine, of some 15 and 30 ms each, it holds for 94.9 and 94.2 in 100. By that it is 74 and 102 % too long on average,
//! where somebody who knew each hundred of them beforehand would be 69 and 100 % too long: what is left to gain is little.
//! Tried on these and dropped: the quantile of how far costs are off a quickly moving average (it gains where the level of
//! a load changes, and loses as much where one chunk is slow), and the quantile of the last 20 or 40 costs (as long, and
//! it holds less).

use std::{collections::VecDeque, time::Duration};

/// What a chunk weighs beside the next one.
const FADE: f64 = 0.98;
/// How many chunks the configured cost is worth.
const PSEUDO_CHUNKS: f64 = 5.0;
/// What a guess weighs after one more chunk.
const FADE_OF_GUESS: f64 = 0.8;
/// What "no items take no time" weighs, in chunks.
const ANCHOR: f64 = 0.2;
/// Costs that are remembered.
const COSTS: usize = 99;
/// The share of chunks that the upper estimate is to hold for.
const QUANTILE: f64 = 0.95;
/// No item is taken to cost less: an estimate of zero would put any number of items into no time.
const LEAST: f64 = 1e-9;

/// What is known of the time that a kind of operation takes.
#[derive(Clone, Debug)]
pub struct Estimate {
    fit: Fit,
    costs: Costs,
    /// How many measured chunks count.
    weight: f64,
}

impl Estimate {
    /// Nothing is known yet but that an item costs about `per_item`, in chunks of about `chunk`.
    #[must_use]
    pub fn new(per_item: Duration, chunk: u32) -> Self {
        let fit = Fit::new(f64::from(chunk.max(1)), per_item);
        Self { fit, costs: Costs::default(), weight: 0.0 }
    }

    /// A chunk of so many items took so long.
    pub fn learn(&mut self, items: u32, took: Duration) {
        if items == 0 {
            return;
        }
        let (items, took) = (f64::from(items), took.as_secs_f64());
        self.fit.add(items, took);
        self.weight = self.weight * FADE + 1.0;
        self.costs.add((took - self.fit.line().0).max(0.0) / items);
    }

    /// How long so many items take.
    #[must_use]
    pub fn likely(&self, items: u64) -> Duration {
        let (fixed, each) = self.fit.line();
        seconds(fixed + each * items as f64)
    }

    /// How long so many items take at most, 95 times in 100.
    #[must_use]
    pub fn at_most(&self, items: u64) -> Duration {
        seconds(self.fit.line().0 + self.each_at_most() * items as f64)
    }

    /// What an item costs.
    #[must_use]
    pub fn each(&self) -> Duration {
        seconds(self.fit.line().1)
    }

    /// How many items take `target`.
    #[must_use]
    pub fn items_in(&self, target: Duration) -> u32 {
        let (fixed, each) = self.fit.line();
        let items = (target.as_secs_f64() - fixed).max(0.0) / each;
        // A hair below a whole number is that number: 99.999999 items are 100.
        (items + 1e-6) as u32
    }

    /// What an item costs at most, 95 times in 100.
    fn each_at_most(&self) -> f64 {
        let (_, each) = self.fit.line();
        self.costs.quantile().max(each * (1.0 + 1.0 / (self.weight + self.fit.guesses).sqrt()))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A weighted least-squares line, in units of a usual chunk so that nothing depends on the size of the numbers.
#[derive(Clone, Debug)]
struct Fit {
    unit: f64,
    weight: f64,
    n: f64,
    nn: f64,
    t: f64,
    nt: f64,
    /// What a chunk is guessed to take, and what the guess weighs.
    guess: f64,
    guesses: f64,
}

impl Fit {
    fn new(unit: f64, per_item: Duration) -> Self {
        let guess = per_item.as_secs_f64() * unit;
        Self { unit, weight: 0.0, n: 0.0, nn: 0.0, t: 0.0, nt: 0.0, guess, guesses: PSEUDO_CHUNKS }
    }

    fn add(&mut self, items: f64, took: f64) {
        for sum in [&mut self.weight, &mut self.n, &mut self.nn, &mut self.t, &mut self.nt] {
            *sum *= FADE;
        }
        self.guesses *= FADE_OF_GUESS;
        let n = items / self.unit;
        self.weight += 1.0 / n;
        self.n += 1.0;
        self.nn += n;
        self.t += took / n;
        self.nt += took;
    }

    /// The fixed cost, and that of an item. Neither is below nothing.
    fn line(&self) -> (f64, f64) {
        let guess = self.guesses * self.guess;
        let (n, nn) = (self.n + self.guesses, self.nn + self.guesses);
        let (t, nt) = (self.t + guess, self.nt + guess);
        let weight = self.weight + self.guesses + ANCHOR;
        let determinant = weight * nn - n * n;
        let fixed = (t * nn - n * nt) / determinant;
        let each = (weight * nt - n * t) / determinant;
        // A line that begins below zero, or falls, is one through zero.
        let (fixed, each) = if fixed >= 0.0 && each > 0.0 { (fixed, each) } else { (0.0, nt / nn) };
        (fixed, (each / self.unit).max(LEAST))
    }
}

/// The last costs an item, in order of age and in order of size.
#[derive(Clone, Debug, Default)]
struct Costs {
    by_age: VecDeque<f64>,
    by_size: Vec<f64>,
}

impl Costs {
    fn add(&mut self, cost: f64) {
        if self.by_age.len() == COSTS
            && let Some(oldest) = self.by_age.pop_front()
        {
            let at = self.by_size.partition_point(|known| *known < oldest);
            self.by_size.remove(at);
        }
        self.by_age.push_back(cost);
        let at = self.by_size.partition_point(|known| *known < cost);
        self.by_size.insert(at, cost);
    }

    /// The cost that the next one stays below; the largest while there are too few to say.
    fn quantile(&self) -> f64 {
        let rank = ((self.by_size.len() + 1) as f64 * QUANTILE).ceil() as usize;
        let at = rank.min(self.by_size.len());
        at.checked_sub(1).map_or(0.0, |at| self.by_size[at])
    }
}
