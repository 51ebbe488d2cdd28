//! Budgets as their users see them: atomic, kept over a restart, never more left than the truth.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::ledger::{Account, DAY, Ledger};
use super::reservation::STEP;
use super::*;
use std::future::{Future, poll_fn};
use std::task::Poll;

const NOW: Duration = Duration::ZERO;
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

fn budget(day: Option<u64>, execution: Option<u64>) -> Arc<TokenBudget> {
    Arc::new(TokenBudget {
        route: "ai#1".into(),
        max_tokens_per_day: day,
        max_tokens_per_execution: execution,
        max_output_tokens_per_request: None,
    })
}

fn meter(folder: &Path, sandbox: u32) -> Meter {
    Meter::new(
        Arc::new(Budgets::new(folder).unwrap()),
        execution(7, sandbox),
    )
}

fn exceeded(refusal: Refusal) -> Exceeded {
    match refusal {
        Refusal::Exceeded(exceeded) => exceeded,
        Refusal::Unavailable => panic!("unavailable"),
    }
}

#[tokio::test]
async fn what_is_reserved_is_gone_and_what_was_not_used_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    let one = meter.reserve("g", &budget, 60..=60, NOW).await.unwrap();
    let refused = exceeded(
        meter
            .reserve("g", &budget, 41..=41, NOW)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!((refused.bound, refused.limit), (Bound::Day, 100));
    assert_eq!((refused.used, refused.asked), (60, 41));
    let now = std::time::SystemTime::now();
    let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(refused.resets_at, Some((now / DAY + 1) * DAY));
    one.settle(10);
    let other = meter.reserve("g", &budget, 90..=90, NOW).await.unwrap();
    // Another gateway's rule of the same name is another budget.
    assert!(meter.reserve("h", &budget, 100..=100, NOW).await.is_ok());
    // Dropped without a word: it stays charged.
    drop(other);
    let refused = exceeded(meter.reserve("g", &budget, 1..=1, NOW).await.err().unwrap());
    assert_eq!(refused.used, 100);
}

#[tokio::test]
async fn a_call_that_cost_more_than_reserved_is_charged_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    meter
        .reserve("g", &budget, 10..=10, NOW)
        .await
        .unwrap()
        .settle(120);
    let refused = exceeded(meter.reserve("g", &budget, 1..=1, NOW).await.err().unwrap());
    assert_eq!(refused.used, 120);
}

#[tokio::test]
async fn spending_survives_a_restart_and_a_crash_leaves_no_more_than_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let budget = budget(Some(100), Some(80));
    let first = meter(folder.path(), 1);
    first
        .reserve("g", &budget, 50..=50, NOW)
        .await
        .unwrap()
        .settle(20);
    first.budgets.flush();
    // Never settled, as after a crash.
    let lost = first.reserve("g", &budget, 30..=30, NOW).await.unwrap();
    let second = meter(folder.path(), 1);
    let refused = exceeded(
        second
            .reserve("g", &budget, 51..=51, NOW)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!((refused.bound, refused.used), (Bound::Day, 50));
    let refused = exceeded(
        second
            .reserve("g", &budget, 31..=31, NOW)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!((refused.bound, refused.used), (Bound::Execution, 50));
    assert_eq!(refused.resets_at, None);
    // Another execution has its own, and shares the day.
    let other = meter(folder.path(), 2);
    assert!(other.reserve("g", &budget, 50..=50, NOW).await.is_ok());
    assert!(other.reserve("g", &budget, 1..=1, NOW).await.is_err());
    drop(lost);
}

#[tokio::test]
async fn an_execution_that_is_over_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(None, Some(10)));
    assert!(meter.reserve("g", &budget, 10..=10, NOW).await.is_ok());
    assert!(meter.reserve("g", &budget, 1..=1, NOW).await.is_err());
    meter.forget();
    assert!(meter.reserve("g", &budget, 10..=10, NOW).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_in_two_processes_never_spend_the_last_token_twice() {
    let folder = tempfile::tempdir().unwrap();
    let budget = budget(Some(1000), None);
    // Two keepers of one folder are as two processes.
    let meters = [meter(folder.path(), 1), meter(folder.path(), 2)];
    let calls = (0..200).map(|number: usize| {
        let (meter, budget) = (meters[number % 2].clone(), Arc::clone(&budget));
        tokio::spawn(async move {
            let granted = meter.reserve("g", &budget, 17..=17, NOW).await;
            granted.map(|reservation| reservation.settle(13)).is_ok()
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut granted = 0;
    for call in calls {
        granted += u64::from(call.await.unwrap());
    }
    assert!((58..=76).contains(&granted), "{granted}");
    for meter in &meters {
        meter.budgets.flush();
    }
    let refused = exceeded(
        meters[0]
            .reserve("g", &budget, 1001..=1001, NOW)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!(refused.used, granted * 13);
}

#[tokio::test]
async fn a_stream_is_covered_as_it_goes_on_and_no_further_than_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(2000), None));
    let mut stream = meter.reserve("g", &budget, 100..=100, NOW).await.unwrap();
    poll_fn(|cx| stream.poll_cover(cx, 100)).await.unwrap();
    assert_eq!(stream.tokens(), 100);
    poll_fn(|cx| stream.poll_cover(cx, 101)).await.unwrap();
    assert_eq!(stream.tokens(), 101 + STEP);
    // The last step is shorter.
    poll_fn(|cx| stream.poll_cover(cx, 1126)).await.unwrap();
    assert_eq!(stream.tokens(), 2000);
    poll_fn(|cx| stream.poll_cover(cx, 2000)).await.unwrap();
    assert!(poll_fn(|cx| stream.poll_cover(cx, 2001)).await.is_err());
}

#[tokio::test]
async fn a_call_waits_for_what_others_hold_and_for_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    // As much as is left.
    let one = meter.reserve("g", &budget, 10..=1000, NOW).await.unwrap();
    assert_eq!(one.tokens(), 100);
    // More than there is in all.
    assert!(meter.reserve("g", &budget, 101..=101, LONG).await.is_err());
    let (waits, other) = (Duration::from_millis(20), Arc::clone(&budget));
    assert!(meter.reserve("g", &budget, 30..=30, waits).await.is_err());
    let second = meter.clone();
    let second = tokio::spawn(async move { second.reserve("g", &other, 30..=30, LONG).await });
    tokio::time::sleep(waits).await;
    assert!(!second.is_finished());
    one.settle(60);
    let second = second.await.unwrap().unwrap();
    assert_eq!(second.tokens(), 30);
    // 60 are spent, whatever becomes of the 30.
    let refused = exceeded(
        meter
            .reserve("g", &budget, 41..=41, LONG)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!((refused.used, refused.asked), (90, 41));
    drop(second);
    assert!(meter.reserve("g", &budget, 11..=11, LONG).await.is_err());
    assert!(meter.reserve("g", &budget, 10..=10, LONG).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_take_all_there_is_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    let calls = (0..40).map(|_| {
        let (meter, budget) = (meter.clone(), Arc::clone(&budget));
        tokio::spawn(async move {
            let all = meter.reserve("g", &budget, 50..=1000, LONG).await;
            all.map(|reservation| reservation.settle(1)).is_ok()
        })
    });
    let calls: Vec<_> = calls.collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    let refused = exceeded(
        meter
            .reserve("g", &budget, 61..=61, LONG)
            .await
            .err()
            .unwrap(),
    );
    assert_eq!(refused.used, 40);
}

#[tokio::test]
async fn what_another_execution_holds_is_nothing_to_wait_for() {
    let folder = tempfile::tempdir().unwrap();
    let budget = budget(None, Some(100));
    let first = meter(folder.path(), 1);
    let second = Meter::new(Arc::clone(&first.budgets), execution(7, 2));
    let _held = first.reserve("g", &budget, 100..=100, NOW).await.unwrap();
    let own = second.reserve("g", &budget, 90..=90, LONG).await.unwrap();
    own.settle(80);
    assert!(second.reserve("g", &budget, 21..=21, LONG).await.is_err());
}

#[tokio::test]
async fn a_running_stream_waits_for_what_another_holds_and_not_for_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(10_000), None));
    let mut stream = meter.reserve("g", &budget, 100..=100, LONG).await.unwrap();
    let mut brief = meter
        .reserve("g", &budget, 100..=100, Duration::from_millis(50))
        .await
        .unwrap();
    let greedy = meter
        .reserve("g", &budget, 100..=131_072, LONG)
        .await
        .unwrap();
    assert_eq!(greedy.tokens(), 9800);
    // No longer than it was willing to wait for its reservation.
    assert!(poll_fn(|cx| brief.poll_cover(cx, 101)).await.is_err());
    let covered = tokio::spawn(async move {
        let covered = poll_fn(|cx| stream.poll_cover(cx, 300)).await;
        (stream, covered)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!covered.is_finished());
    greedy.settle(5000);
    let (mut stream, covered) = covered.await.unwrap();
    covered.unwrap();
    assert_eq!(stream.tokens(), 300 + STEP);
    drop(brief);
    // Nobody else holds any more: the end of the budget is the end of the stream.
    let over = poll_fn(|cx| stream.poll_cover(cx, 4901));
    let over = tokio::time::timeout(Duration::from_secs(20), over).await;
    assert!(over.expect("nothing to wait for").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_waits_comes_before_calls_that_take_all_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(10_000), None));
    let mut stream = meter.reserve("g", &budget, 100..=100, LONG).await.unwrap();
    let greedy = || {
        let (meter, budget) = (meter.clone(), Arc::clone(&budget));
        async move { meter.reserve("g", &budget, 4100..=131_072, LONG).await }
    };
    let first = greedy().await.unwrap();
    // They are there before it.
    let others: Vec<_> = (0..20).map(|_| tokio::spawn(greedy())).collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let covered = tokio::spawn(async move {
        let covered = poll_fn(|cx| stream.poll_cover(cx, 300)).await;
        covered.map(|()| stream)
    });
    let asked = async {
        while meter.budgets.awaited().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(20), asked).await;
    asked.expect("it waits for nothing");
    assert!(!covered.is_finished());
    first.settle(0);
    let covered = tokio::time::timeout(Duration::from_secs(20), covered).await;
    let stream = covered.expect("the others have all").unwrap().unwrap();
    assert_eq!(stream.tokens(), 300 + STEP);
    // Nothing is kept for it any more.
    assert!(meter.budgets.awaited().is_empty());
    for other in others {
        other.abort();
    }
}

#[tokio::test]
async fn what_is_held_for_too_long_is_given_back_but_for_what_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(10_000), None));
    let greedy = meter.reserve("g", &budget, 100..=131_072, NOW).await;
    let mut greedy = greedy.unwrap();
    poll_fn(|cx| greedy.poll_cover(cx, 1000)).await.unwrap();
    greedy.give_back_after(Duration::from_millis(50), 100);
    let other = meter.reserve("g", &budget, 8900..=131_072, LONG);
    let other = tokio::time::timeout(Duration::from_secs(20), other).await;
    let other = other.expect("it is given back").unwrap();
    assert_eq!((greedy.tokens(), other.tokens()), (1100, 8900));
    assert!(poll_fn(|cx| greedy.poll_cover(cx, 1101)).await.is_err());
    other.settle(0);
    poll_fn(|cx| greedy.poll_cover(cx, 1101)).await.unwrap();
    // Nobody says what it cost: it may have been all that it had.
    drop(greedy);
    let refused = exceeded(meter.reserve("g", &budget, 1..=1, NOW).await.err().unwrap());
    assert_eq!(refused.used, 10_000);
}

#[tokio::test]
async fn who_leaves_when_it_is_granted_and_not_yet_told_has_spent_and_holds_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    let mut left = Box::pin(meter.reserve("g", &budget, 60..=1000, LONG));
    let once = poll_fn(|cx| Poll::Ready(left.as_mut().poll(cx).is_pending()));
    assert!(once.await);
    // Then the thread has answered.
    meter.budgets.flush();
    drop(left);
    let granted = meter.reserve("g", &budget, 80..=80, NOW).await.unwrap();
    granted.settle(80);
    let refused = meter.reserve("g", &budget, 21..=21, LONG);
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    assert!(refused.expect("nobody holds any").is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn askers_that_leave_at_any_moment_leave_all_there_was() {
    let folder = tempfile::tempdir().unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(1000), None));
    for number in 0..300 {
        let (asks, granted) = (meter.clone(), Arc::clone(&budget));
        let call = tokio::spawn(async move {
            let all = asks.reserve("g", &granted, 1..=1000, LONG).await;
            all.map(|reservation| reservation.settle(0)).is_ok()
        });
        tokio::time::sleep(Duration::from_micros(number * 10)).await;
        call.abort();
        // Over in one way or another.
        assert!(call.await.unwrap_or(true));
    }
    assert!(meter.reserve("g", &budget, 1000..=1000, NOW).await.is_ok());
}

#[tokio::test]
async fn a_damaged_file_grants_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("budgets.json"), "{").unwrap();
    let (meter, budget) = (meter(folder.path(), 1), budget(Some(100), None));
    let refused = meter.reserve("g", &budget, 1..=1, NOW).await.err();
    assert_eq!(refused, Some(Refusal::Unavailable));
    std::fs::remove_file(folder.path().join("budgets.json")).unwrap();
    assert!(meter.reserve("g", &budget, 1..=1, NOW).await.is_ok());
}

fn wanted(least: u64, most: u64) -> Wanted {
    Wanted {
        least,
        most,
        own: 0,
        spared: 0,
    }
}

#[test]
fn a_day_begins_anew_and_never_again() {
    let account = Account {
        name: "g/ai#1".into(),
        execution: "boot:7:1".into(),
        budget: budget(Some(100), Some(150)),
    };
    let mut ledger = Ledger::default();
    ledger.turn_to(20_000);
    assert_eq!(ledger.charge(&account, wanted(100, 100)), Ok(100));
    ledger.turn_to(19_999);
    // The clock went back: what is spent is spent.
    assert!(ledger.charge(&account, wanted(1, 1)).is_err());
    ledger.turn_to(20_001);
    assert_eq!(
        ledger.charge(&account, wanted(40, 90)),
        Ok(50),
        "150 for the execution"
    );
    // What was charged yesterday is settled for the execution alone.
    ledger.settle(&account, 20_000, 100, 60);
    assert_eq!(ledger.charge(&account, wanted(40, 40)), Ok(40));
    assert!(ledger.charge(&account, wanted(11, 11)).is_err());
    ledger.keep_boot("another");
    assert_eq!(ledger.charge(&account, wanted(10, 10)), Ok(10));
}
