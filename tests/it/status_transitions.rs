//! Changes of status that cannot go wrong, on SQLite: alone, in one statement for many, and in a race.

use std::{path::PathBuf, sync::Arc};

use selfheal::{
    Heal, SqliteHealPool,
    clock::Clock,
    config::{Config, Source},
    level::Mode,
    transition::{Error, Guard, Outcome, Target},
    transitions,
};
use sqlx::sqlite::SqliteConnectOptions;
use tokio::task::JoinSet;

transitions! {
    /// Where a message stands.
    enum Message("message") {
        Ready = "READY" => [SpamReview, Promoted],
        Promoted = "PROMOTED" => [Completed],
        Completed = "COMPLETED",
        SpamReview = "SPAM_REVIEW",
    }
}

/// A database in a file of its own, which is removed at the end.
struct Desk {
    pool: SqliteHealPool,
    heal: Heal,
    messages: Guard,
    file: PathBuf,
}

impl Drop for Desk {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.file.display()));
        }
    }
}

impl Desk {
    /// Messages 1 to 4, one in each state, in the order of [`Message`].
    async fn open(name: &str, mode: Mode) -> Self {
        let file = std::env::temp_dir().join(format!("selfheal-{name}-{}.db", std::process::id()));
        let options = SqliteConnectOptions::new().filename(&file).create_if_missing(true);
        let pool = SqliteHealPool::builder().max(8).connect_with(options).await.expect("a file");
        let make = "CREATE TABLE messages (id INTEGER PRIMARY KEY, status TEXT) STRICT; \
                    INSERT INTO messages VALUES (1, 'READY'), (2, 'PROMOTED'), (3, 'COMPLETED'), (4, 'SPAM_REVIEW')";
        sqlx::raw_sql(make)
            .execute(&mut *pool.acquire().await.expect("a connection"))
            .await
            .expect("a table");
        let mut config = Config::load(&Source::text("x", "[pools.main]")).expect("it is valid");
        config.runtime.mode = mode;
        let builder = Heal::builder().config(config).pool("main", &pool).inline(Clock::system());
        let heal = builder.transitions::<Message>().start().await.expect("it starts");
        let target = Target::new("messages").expect("a name");
        let messages = heal.transition("message").expect("it was declared").on(target);
        Self { pool, heal, messages, file }
    }

    async fn states(&self) -> Vec<String> {
        let read = "SELECT coalesce(status, 'NULL') FROM messages ORDER BY id";
        sqlx::query_scalar(read).fetch_all(&self.pool).await.expect("it answers")
    }

    /// `from → to × count` of all that was blocked.
    fn blocked(&self) -> Vec<String> {
        let rules = self.heal.transition("message").expect("it was declared");
        let counted = rules.counted();
        counted.iter().map(|edge| format!("{} → {} × {}", edge.from, edge.to, edge.blocked)).collect()
    }
}

fn blocked<K: ToString>(outcome: &Outcome<K>) -> Vec<String> {
    outcome.blocked.iter().map(|found| format!("{} {}", found.key.to_string(), found.state)).collect()
}

#[tokio::test]
async fn one_changes_if_it_may_and_is_told_what_it_may_become_if_not() {
    let desk = Desk::open("one", Mode::Act).await;
    desk.messages.apply(&desk.pool, 1_i64, Message::SpamReview).await.expect("it may");
    let error = desk.messages.apply(&desk.pool, 2_i64, Message::SpamReview).await.expect_err("the bug");
    assert_eq!(error.to_string(), "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
    let missing = desk.messages.apply(&desk.pool, 9_i64, Message::SpamReview).await;
    assert!(matches!(missing, Err(Error::Missing)));
    let nowhere = desk.messages.apply(&desk.pool, 1_i64, "'; DROP TABLE messages; --").await;
    assert!(matches!(nowhere, Err(Error::Blocked(_))));
    assert_eq!(desk.states().await, ["SPAM_REVIEW", "PROMOTED", "COMPLETED", "SPAM_REVIEW"]);
    assert_eq!(desk.blocked(), ["PROMOTED → SPAM_REVIEW × 1", "SPAM_REVIEW → other × 1"]);
}

#[tokio::test]
async fn of_many_those_change_that_may_and_each_key_is_answered_once() {
    let desk = Desk::open("many", Mode::Act).await;
    let mut connection = desk.pool.acquire().await.expect("a connection");
    let keys = [9_i64, 4, 1, 2, 1, 3, 9];
    let outcome = desk.messages.apply_many(&mut *connection, &keys, "SPAM_REVIEW").await.expect("it answers");
    drop(connection);
    assert_eq!((outcome.applied.clone(), outcome.missing.clone()), (vec![1], vec![9]));
    assert_eq!(blocked(&outcome), ["4 SPAM_REVIEW", "2 PROMOTED", "3 COMPLETED"]);
    let why = desk.messages.why(&outcome.blocked[1], "SPAM_REVIEW");
    assert_eq!(why.to_string(), "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
    let nothing = desk.messages.apply_many(&desk.pool, &[] as &[i64], "READY").await.expect("nothing to do");
    assert_eq!(nothing, Outcome::default());
}

#[tokio::test]
async fn a_row_without_a_status_stays_without_one() {
    let desk = Desk::open("null", Mode::Act).await;
    sqlx::query("UPDATE messages SET status = NULL WHERE id = 1").execute(&desk.pool).await.expect("it may");
    let outcome = desk.messages.apply_many(&desk.pool, &[1_i64], "PROMOTED").await.expect("it answers");
    assert_eq!((blocked(&outcome), outcome.missing.len()), (vec!["1 ".to_owned()], 0));
    assert_eq!(desk.states().await[0], "NULL");
}

#[tokio::test]
async fn in_a_transaction_a_change_is_part_of_it() {
    let desk = Desk::open("transaction", Mode::Act).await;
    let mut transaction = desk.pool.begin().await.expect("a transaction");
    let outcome =
        desk.messages.apply_many(&mut *transaction, &[1_i64, 2], "PROMOTED").await.expect("it answers");
    assert_eq!(outcome.applied, [1]);
    transaction.rollback().await.expect("it is undone");
    assert_eq!(desk.states().await[0], "READY");
}

#[tokio::test]
async fn keys_may_be_texts() {
    let desk = Desk::open("texts", Mode::Act).await;
    let make =
        "CREATE TABLE notes (slug TEXT PRIMARY KEY, state TEXT); INSERT INTO notes VALUES ('it''s', 'READY')";
    let mut connection = desk.pool.acquire().await.expect("a connection");
    sqlx::raw_sql(make).execute(&mut *connection).await.expect("a table");
    let target = Target::new("notes").and_then(|t| t.status("state")).and_then(|t| t.key("slug"));
    let notes = desk.heal.transition("message").expect("it was declared").on(target.expect("names"));
    notes.apply(&mut *connection, "it's", Message::Promoted).await.expect("it may");
}

#[tokio::test]
async fn in_mode_observe_all_change_and_what_would_have_been_blocked_is_counted() {
    let desk = Desk::open("observe", Mode::Observe).await;
    let outcome =
        desk.messages.apply_many(&desk.pool, &[1_i64, 2, 3], "SPAM_REVIEW").await.expect("it answers");
    assert_eq!((outcome.applied.len(), outcome.blocked.len()), (3, 0));
    assert_eq!(desk.states().await, ["SPAM_REVIEW"; 4]);
    let counted = desk.heal.transition("message").expect("it was declared").counted();
    let would: Vec<_> = counted.iter().map(|edge| (&*edge.from, edge.blocked, edge.would)).collect();
    assert_eq!(would, [("COMPLETED", 0, 1), ("PROMOTED", 0, 1)]);
    desk.heal.set_mode(Mode::Off, "ann", "a test");
    desk.messages.apply(&desk.pool, 1_i64, "READY").await.expect("all passes");
    assert_eq!(
        desk.heal.transition("message").expect("it was declared").counted().len(),
        2,
        "nothing is counted"
    );
}

/// Two want different things of the same row, many times: one gets it, the other is told what it finds.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_those_who_race_one_wins_and_the_others_are_told_the_state_it_left() {
    let desk = Arc::new(Desk::open("race", Mode::Act).await);
    let fill = "WITH RECURSIVE n (id) AS (SELECT 100 UNION ALL SELECT id + 1 FROM n WHERE id < 149) \
                INSERT INTO messages SELECT id, 'READY' FROM n";
    sqlx::query(fill).execute(&desk.pool).await.expect("rows");
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let desk = Arc::clone(&desk);
        writers.spawn(async move {
            let to = if writer % 2 == 0 { "SPAM_REVIEW" } else { "PROMOTED" };
            let mut won = Vec::new();
            for id in 100..150_i64 {
                let mut transaction = desk.pool.begin().await.expect("a transaction");
                match desk.messages.apply(&mut *transaction, id, to).await {
                    Ok(()) => won.push((id, to)),
                    Err(Error::Blocked(blocked)) => {
                        assert!(["SPAM_REVIEW", "PROMOTED"].contains(&&*blocked.from), "{blocked}");
                    }
                    Err(error) => panic!("{error}"),
                }
                transaction.commit().await.expect("it is kept");
            }
            won
        });
    }
    let mut won: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    won.sort_unstable();
    let ids: Vec<_> = won.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, (100..150).collect::<Vec<_>>(), "each row was changed once");
    let states = desk.states().await;
    assert!(
        won.iter().zip(&states[4..]).all(|((_, to), state)| to == state),
        "and is what its winner made of it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_only_observes_makes_nobody_fail() {
    let desk = Arc::new(Desk::open("observers", Mode::Observe).await);
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let desk = Arc::clone(&desk);
        writers.spawn(async move {
            for round in 0..25 {
                let to = if (writer + round) % 2 == 0 { "SPAM_REVIEW" } else { "PROMOTED" };
                let mut transaction = desk.pool.begin().await.expect("a transaction");
                desk.messages.apply(&mut *transaction, 1_i64, to).await.expect("nothing is held back");
                transaction.commit().await.expect("it is kept");
            }
        });
    }
    writers.join_all().await;
}

#[tokio::test]
async fn what_is_blocked_becomes_an_incident_and_a_metric() {
    let desk = Desk::open("incident", Mode::Act).await;
    let capture = desk.messages.operation("spam-capture");
    let outcome = capture.apply_many(&desk.pool, &[1_i64, 2, 3], "SPAM_REVIEW").await.expect("it answers");
    assert_eq!(outcome.blocked.len(), 2);
    let opened = async {
        while desk.heal.incidents().all().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), opened).await.expect("it is told");
    let incidents = desk.heal.reading().incidents;
    let attempts = incidents[0].attempts.as_ref().expect("it is about such");
    assert_eq!((&*incidents[0].kind, &*incidents[0].subject), ("invalid_transitions", "message"));
    assert_eq!(
        (attempts.operation.as_deref(), attempts.blocked, attempts.made),
        (Some("spam-capture"), 2, 1)
    );
    let shown = &desk.heal.reading().transitions[0];
    assert_eq!((&*shown.machine, shown.blocked.len()), ("message", 2));
}

#[tokio::test]
async fn a_table_that_was_not_declared_is_named_with_those_that_were() {
    let desk = Desk::open("unknown", Mode::Act).await;
    let unknown = desk.heal.transition("mesage").expect_err("there is none");
    assert_eq!(unknown.to_string(), "there is no [transitions.mesage]; there is message");
}

#[tokio::test]
async fn two_tables_of_one_name_must_say_the_same() {
    let pool = SqliteHealPool::builder().connect_lazy_with(SqliteConnectOptions::new());
    let start = async |text: &str| {
        let config = Config::load(&Source::text("x", text)).expect("it is valid");
        let builder = Heal::builder().config(config).pool("main", &pool).inline(Clock::system());
        builder.transitions::<Message>().start().await.map(drop).map_err(|error| error.to_string())
    };
    let same = "[transitions.message]\nREADY = [\"SPAM_REVIEW\", \"PROMOTED\"]\nPROMOTED = [\"COMPLETED\"]";
    assert_eq!(start(same).await, Ok(()));
    let other = "[transitions.message]\nREADY = [\"COMPLETED\"]";
    assert_eq!(start(other).await, Err("two tables of statuses are called message and differ".to_owned()));
}
