//! The contract of the store as one suite, which every engine passes.
//!
//! An engine's `tests/conformance.rs` is one line, with an expression that opens an empty store:
//!
//! ```ignore
//! store_conformance::store!(testing::open());
//! ```
//!
//! It becomes one test per promise of [`store::Store`]. [`catches!`], with the same expression,
//! shows that the suite notices promises that are broken. The modules are named for what they
//! are about; each function states the promise that it checks. The suite is the definition:
//! where the port's words leave a choice, what is asserted here is the choice.
#![expect(clippy::unwrap_used, reason = "a suite of tests: what fails here fails a test")]

pub mod bounds;
pub mod broken;
pub mod checks;
pub mod commits;
pub mod concurrency;
pub mod expiry;
pub mod fanout;
mod harness;
pub mod ids;
pub mod isolation;
pub mod linearizability;
pub mod model;
pub mod reopening;
pub mod scans;
pub mod streams;
pub mod watching;
pub mod work;

pub use harness::Harness;

/// A promise that is waited for in vain is broken. The bound is for what never comes: the
/// longest test takes a minute on an engine that syncs each commit and a machine that is busy.
#[doc(hidden)]
pub async fn in_time(promise: impl Future<Output = ()>) {
    let minutes = std::time::Duration::from_secs(600);
    tokio::time::timeout(minutes, promise).await.expect("a test that does not end");
}

/// One `#[tokio::test]` per promise. The expression opens an empty store as a [`Harness`] and
/// is evaluated once in each test; it may `await`.
#[macro_export]
macro_rules! store {
    ($open:expr) => {
        $crate::store! { @tests $open;
            bounds: what_is_beyond_a_bound_is_refused_and_changes_nothing,
                what_is_at_a_bound_is_taken, a_partition_holds_64_mib_of_records;
            checks: failed_checks_change_nothing, a_position_is_checked_exactly,
                position_zero_demands_that_there_is_no_partition, a_revision_is_checked_exactly,
                an_incarnation_is_checked_at_any_revision, a_change_of_an_entry_is_checked_whole,
                absence_is_checked, several_checks_must_all_hold, a_smaller_fence_is_refused,
                fences_survive_records;
            commits: each_commit_raises_the_revision_by_one, writes_apply_in_order,
                an_empty_commit_counts, a_partition_starts_an_incarnation,
                a_finished_commit_is_seen_by_every_read, an_applied_commit_is_seen_by_every_read,
                a_partition_that_moved_begins_where_it_was, begin_is_refused_where_it_cannot_be,
                an_absent_record_can_be_deleted;
            concurrency: compare_and_set_loses_no_increment, appends_of_many_tasks_are_dense,
                a_commit_is_seen_whole_or_not_at_all, a_dropped_commit_is_whole_or_nothing,
                one_of_many_wins_absence, retries_at_once_apply_once,
                a_read_after_a_commit_never_goes_back;
            expiry: an_expired_record_is_returned_by_nothing, an_expired_record_is_absent,
                a_new_value_has_its_own_expiry,
                an_expired_record_stays_away_when_the_clock_goes_back,
                a_record_of_the_empty_key_is_one, a_sweep_is_a_commit_that_watchers_see,
                a_sweep_leaves_what_is_alive, a_sweep_of_many_records_is_complete;
            ids: a_retry_gets_the_first_reply, an_id_with_other_content_is_an_error,
                an_id_is_known_for_ten_minutes, a_refused_commit_leaves_its_id_free,
                an_id_belongs_to_its_partition;
            isolation: partitions_with_nasty_ids_share_nothing, tenants_share_nothing,
                keys_with_nasty_bytes_share_nothing;
            linearizability: histories_of_a_record_are_linearizable;
            model: random_commits_agree_with_a_model;
            reopening: everything_is_there_after_reopening, streams_go_on_after_reopening,
                ids_and_fences_are_known_after_reopening, expiry_goes_on_over_reopening;
            scans: records_come_in_key_order, a_prefix_bounds_a_scan, pages_join_without_a_gap,
                a_page_holds_one_mib_and_at_least_one_record, a_page_tells_its_position,
                watching_from_the_first_page_completes_a_scan;
            streams: sequences_are_dense_from_one, a_read_is_bounded_by_its_limit_and_one_mib,
                below_a_trim_a_read_says_so, a_trim_beyond_the_end_removes_all,
                a_trim_of_nothing_changes_nothing, a_long_trim_is_complete,
                streams_of_a_partition_are_apart, a_trim_and_appends_in_one_commit;
            watching: changes_come_in_revision_order, a_key_is_told_once_with_its_latest_value,
                a_deletion_is_told, changes_from_zero_are_everything,
                another_incarnation_has_lagged, deletions_are_known_for_ten_minutes,
                stream_heads_are_told, a_watcher_is_woken, a_watcher_tells_only_what_it_follows,
                a_dropped_wait_loses_nothing, a_lagged_watcher_stops_following,
                changes_of_nothing_are_nothing;
            work: a_partition_is_due_at_its_wake_time, a_wake_time_is_moved_and_cleared,
                due_is_bounded_and_of_its_bucket, a_list_is_complete_and_in_order,
                a_list_is_of_its_tenant_and_kind;
        }
    };
    (@tests $open:expr; $($module:ident: $($promise:ident),+;)+) => {
        $(mod $module {
            #[allow(unused_imports, reason = "what the expression needs")]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    $crate::in_time($crate::$module::$promise($open)).await;
                }
            )+
        })+
    };
}

/// As [`store!`], for a fan-out; the expression opens a [`fanout::Pair`].
#[macro_export]
macro_rules! fanout {
    ($open:expr) => {
        $crate::store! { @tests $open;
            fanout: a_message_reaches_every_subscription_once, topics_are_heard_apart,
                messages_of_a_topic_come_in_order, a_subscription_begins_when_it_is_answered,
                a_slow_reader_is_told_that_it_missed_something,
                a_dropped_subscription_leaves_others, a_message_that_is_too_large_is_refused;
        }
    };
}
