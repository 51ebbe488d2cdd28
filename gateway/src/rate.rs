//! How often something may happen: a token bucket. Knows nothing of what it is counting, and keeps no time of its own.

use std::time::{Duration, Instant};

/// So many at once, and one more after each such time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// How many at once.
    pub burst: u32,
    /// After which there may be another one.
    pub every: Duration,
}

/// A token bucket.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    left: u32,
    counted: Instant,
}

impl Bucket {
    /// Full.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            left: rate.burst,
            counted: now,
        }
    }

    /// May there be one more? If so, it counts.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.counted);
        let earned = passed.as_micros() / self.rate.every.as_micros().max(1);
        match u32::try_from(earned) {
            Ok(earned) if earned < self.rate.burst - self.left => {
                self.left += earned;
                // What is left of the time counts for the next one.
                self.counted += self.rate.every * earned;
            }
            _ => {
                self.left = self.rate.burst;
                self.counted = now;
            }
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let begun = Instant::now();
        let rate = Rate {
            burst: 500,
            every: Duration::from_millis(10),
        };
        let mut bucket = Bucket::new(rate, begun);
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        let mut taken =
            |milliseconds, tries: u32| (0..tries).filter(|_| bucket.take(at(milliseconds))).count();
        assert_eq!(taken(0, 600), 500);
        assert_eq!(taken(5, 10), 0);
        assert_eq!(taken(10, 10), 1);
        // The five milliseconds over are not lost.
        assert_eq!(taken(25, 10), 1);
        assert_eq!(taken(30, 10), 1);
        assert_eq!(taken(1030, 1000), 100);
        assert_eq!(taken(3_600_000, 1000), 500);
    }
}
