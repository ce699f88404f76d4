//! How long an operation may take and how it is cut, and how durable work is held.

use std::{fmt, time::Duration};

use crate::level::closed_set;

/// The policy of one kind of operation: `[batches.NAME]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long a caller waits for a reply, from when the operation begins. Default 10 s.
    pub deadline: Duration,
    /// What an item is taken to cost until it is known. Default 10 ms.
    pub per_item: Duration,
    /// When a caller whose operation is too long is answered.
    pub reply: Reply,
    /// An operation is done while its caller waits if it takes no more than this share of the deadline, as surely as
    /// 95 in 100. Default 0.8.
    pub inline_share: f64,
    /// A chunk is to take this share of the deadline. Default 0.1: a second of ten.
    pub chunk_share: f64,
    /// The fewest items of a chunk, unless fewer are left. Default 10.
    pub least: u32,
    /// The most items of a chunk, however cheap they turn out. Default 500: what is undone at once, if one of them fails.
    pub most: u32,
    /// By how many items a chunk that was cut smaller grows again, after each that took no longer than it should.
    /// Default 10.
    pub step: u32,
    /// Kept back of the deadline, for the reply itself. Default 200 ms …
    pub reserve: Duration,
    /// … or this share of it, if that is more. Default 0.05.
    pub reserve_share: f64,
    /// The wait before a chunk is tried again that failed because of its surroundings: it doubles from here … Default
    /// 100 ms.
    pub again: Duration,
    /// … and is no longer than this. Default 10 s.
    pub again_max: Duration,
    /// So many items may fail for good before the operation is given up, whatever its size … Default 10.
    pub poison: u32,
    /// … or this share of its items, if that is more: what fails everywhere is no matter of single items. Default
    /// 0.05.
    pub poison_share: f64,
}

/// When the caller of an operation is answered that is too long for it to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reply {
    /// After the first chunk: at once, with a tenth of the deadline's worth done.
    #[default]
    FirstChunk,
    /// When no further chunk fits into the deadline.
    Fill,
}

closed_set!(Reply { FirstChunk = "first_chunk", Fill = "fill" });

/// A policy that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// There is no time.
    NoTime,
    /// An item that costs nothing cannot be counted in chunks.
    FreeItem,
    /// A share that is not above 0 and at most 1.
    Share,
    /// Chunks of no items, or the least above the most.
    Chunk,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTime => "the deadline leaves no time beside what is kept back for the reply",
            Self::FreeItem => "an item costs more than nothing",
            Self::Share => "a share is above 0 and at most 1",
            Self::Chunk => "a chunk has at least one item, and the least is not above the most",
        })
    }
}

impl std::error::Error for Invalid {}

impl Policy {
    /// Whether this policy makes sense.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), Invalid> {
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        let shares = [self.inline_share, self.chunk_share, self.reserve_share, self.poison_share];
        if !shares.into_iter().all(is_share) {
            Err(Invalid::Share)
        } else if self.kept_back() >= self.deadline {
            Err(Invalid::NoTime)
        } else if self.per_item.is_zero() {
            Err(Invalid::FreeItem)
        } else if self.least == 0 || self.least > self.most {
            Err(Invalid::Chunk)
        } else {
            Ok(())
        }
    }

    /// What of a deadline of this length is for the reply itself.
    #[must_use]
    pub fn kept_back(&self) -> Duration {
        self.reserve.max(self.deadline.mul_f64(self.reserve_share))
    }

    /// How long a chunk is to take.
    #[must_use]
    pub fn chunk_target(&self) -> Duration {
        self.deadline.mul_f64(self.chunk_share)
    }

    /// How many of `items` may fail for good.
    #[must_use]
    pub fn may_fail(&self, items: u32) -> u32 {
        self.poison.max((f64::from(items) * self.poison_share) as u32)
    }

    /// The wait after the n-th failure in a row, counted from 1.
    #[must_use]
    pub fn wait(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.again.saturating_mul(doubled).min(self.again_max)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(10),
            per_item: Duration::from_millis(10),
            reply: Reply::FirstChunk,
            inline_share: 0.8,
            chunk_share: 0.1,
            least: 10,
            most: 500,
            step: 10,
            reserve: Duration::from_millis(200),
            reserve_share: 0.05,
            again: Duration::from_millis(100),
            again_max: Duration::from_secs(10),
            poison: 10,
            poison_share: 0.05,
        }
    }
}

/// For how long a claimed job belongs to whoever claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tenure {
    /// A lease ends this long after it was taken or prolonged, by the database's clock. What a process that was killed
    /// had claimed is taken up by another one after this. Default 30 s.
    pub ttl: Duration,
    /// A job whose leases ended without a word this often, without that it got on, takes its process down with it: it
    /// is dead. Default 20. After a quarter of them it is begun by itself, so that its end tells it from those beside it:
    /// fifteen processes in a row must end in its first chunk, and if every other one were killed in it by chance, that
    /// would befall one job in 30,000.
    pub max_losses: u32,
    /// A job that nobody could begin to work on this often is dead. Default 20: ten minutes of a process that is too
    /// old to understand it.
    pub max_failures: u32,
    /// How long a job is left alone that could not be begun. Default 30 s.
    pub again: Duration,
}

impl Tenure {
    /// How often a lease is prolonged: two may fail before it is lost.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        self.ttl / 3
    }
}

impl Default for Tenure {
    fn default() -> Self {
        let half_a_minute = Duration::from_secs(30);
        Self { ttl: half_a_minute, max_losses: 20, max_failures: 20, again: half_a_minute }
    }
}
