//! Changes of status that cannot go wrong, on a real PostgreSQL: in races, and with the database itself holding to
//! the table.

use std::{process::Command, sync::Arc};

use selfheal::{
    Heal, PgHealPool,
    config::{Config, Source},
    http::{Code, Failure},
    transition::{Error, Guard, Installed, Table, Target, Trigger},
};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use crate::server::{Database, server};

const MESSAGE: &str = "[pools.main]\n[transitions.message]\nREADY = [\"SPAM_REVIEW\", \"PROMOTED\"]\nPROMOTED = [\"COMPLETED\"]";
const TABLE: &str = "create table messages (id bigint primary key, status text); \
                     insert into messages select id, 'READY' from generate_series(1, 400) as id";

struct Desk {
    pool: PgHealPool,
    messages: Guard,
}

async fn desk(database: &Database) -> Desk {
    let pool = PgHealPool::builder().max(16).connect(&database.url()).await.expect("it connects");
    sqlx::raw_sql(TABLE).execute(&mut *pool.acquire().await.expect("a connection")).await.expect("a table");
    let config = Config::load(&Source::text("x", MESSAGE)).expect("it is valid");
    let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
    let messages = heal.transition("message").expect("it is there").on(target());
    Desk { pool, messages }
}

fn target() -> Target {
    Target::new("messages").expect("a name")
}

fn table(rows: &[(&str, &[&str])]) -> Table {
    let rows = rows.iter().map(|(state, next)| (*state, next.iter().copied()));
    Table::new("message", rows).expect("it is sound")
}

fn message() -> Table {
    table(&[("READY", &["SPAM_REVIEW", "PROMOTED"]), ("PROMOTED", &["COMPLETED"])])
}

/// Writes down every change, whoever makes it.
async fn witness(pool: &PgHealPool) {
    let make = "create table history (id bigint, was text, becomes text); \
                create function witness() returns trigger language plpgsql as $$ begin \
                insert into history values (old.id, old.status, new.status); return null; end $$; \
                create trigger witness after update on messages for each row execute function witness()";
    sqlx::raw_sql(make).execute(&mut *pool.acquire().await.expect("a connection")).await.expect("a witness");
}

async fn changes(pool: &PgHealPool) -> Vec<(i64, String, String)> {
    sqlx::query_as("select id, was, becomes from history order by id")
        .fetch_all(pool)
        .await
        .expect("it answers")
}

#[tokio::test]
async fn of_many_those_change_that_may_and_each_key_is_answered_once() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, messages } = desk(&database).await;
    let update =
        "update messages set status = case id when 2 then 'PROMOTED' else null end where id in (2, 3)";
    sqlx::query(update).execute(&pool).await.expect("rows");
    let keys = [999_i64, 1, 2, 1, 3, 999];
    let outcome = messages.apply_many(&pool, &keys, "SPAM_REVIEW").await.expect("it answers");
    assert_eq!((outcome.applied, outcome.missing), (vec![1], vec![999]));
    let found: Vec<_> = outcome.blocked.iter().map(|found| (found.key, &*found.state)).collect();
    assert_eq!(found, [(2, "PROMOTED"), (3, "")]);
    assert!(matches!(messages.apply(&pool, 999_i64, "READY").await, Err(Error::Missing)));
}

#[tokio::test]
async fn statuses_may_be_an_enum_and_keys_texts_in_another_schema() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, .. } = desk(&database).await;
    let make = "create schema support; create type support_state as enum ('READY', 'PROMOTED', 'SPAM_REVIEW'); \
                create table support.notes (slug text primary key, state support_state not null); \
                insert into support.notes values ('a', 'READY'), ('b', 'PROMOTED')";
    let mut connection = pool.acquire().await.expect("a connection");
    sqlx::raw_sql(make).execute(&mut *connection).await.expect("a table");
    let config = Config::load(&Source::text("x", MESSAGE)).expect("it is valid");
    let heal = Heal::builder().config(config).pool("main", &pool).start().await.expect("it starts");
    let target = Target::new("support.notes").and_then(|t| t.status("state")).and_then(|t| t.key("slug"));
    let target = target.and_then(|t| t.status_type("support_state")).expect("names");
    let notes = heal.transition("message").expect("it is there").on(target.clone());
    let keys = ["a".to_owned(), "b".to_owned()];
    let outcome = notes.apply_many(&mut *connection, &keys, "SPAM_REVIEW").await.expect("it answers");
    assert_eq!((outcome.applied, outcome.blocked.len()), (vec!["a".to_owned()], 1));
    let table = message();
    let trigger = Trigger::new(&table, &target);
    assert_eq!(trigger.install(&mut connection).await.expect("it may"), Installed::Absent);
    let bypass = sqlx::query("update support.notes set state = 'SPAM_REVIEW' where slug = 'b'");
    bypass.execute(&mut *connection).await.expect_err("the database objects");
}

/// The rows overlap, in opposite orders, and everybody wants something else: nothing is locked out, no row changes
/// twice, and whoever lost is told what the winner left.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_who_race_for_the_same_rows_change_each_of_them_once() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let desk = Arc::new(desk(&database).await);
    witness(&desk.pool).await;
    let mut writers = JoinSet::new();
    for writer in 0..8 {
        let desk = Arc::clone(&desk);
        writers.spawn(async move {
            let to = if writer % 2 == 0 { "SPAM_REVIEW" } else { "PROMOTED" };
            let mut applied = 0;
            for round in 0..20 {
                let mut keys: Vec<i64> = (round * 20 + 1..=round * 20 + 20).collect();
                if writer >= 4 {
                    keys.reverse();
                }
                let outcome =
                    desk.messages.apply_many(&desk.pool, &keys, to).await.expect("nobody is locked out");
                applied += outcome.applied.len();
                assert!(outcome.missing.is_empty());
                for found in &outcome.blocked {
                    assert_ne!(&*found.state, "READY", "the state that the winner left, not the one before");
                }
            }
            applied
        });
    }
    let applied: usize = writers.join_all().await.into_iter().sum();
    let changes = changes(&desk.pool).await;
    assert_eq!((applied, changes.len()), (400, 400));
    assert!(changes.iter().all(|(_, was, becomes)| was == "READY" && becomes != "COMPLETED"));
}

#[tokio::test]
async fn whoever_waited_for_a_winner_is_told_the_state_it_left() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, messages } = desk(&database).await;
    let mut winner = pool.begin().await.expect("a transaction");
    messages.apply(&mut *winner, 7_i64, "PROMOTED").await.expect("it may");
    let loser = messages.apply(&pool, 7_i64, "SPAM_REVIEW");
    let mut loser = std::pin::pin!(loser);
    let waits = async {
        let wait = "select exists (select from pg_stat_activity where wait_event_type = 'Lock' \
                    and datname = current_database())";
        let mut look = PgConnection::connect(&database.url()).await.expect("it connects");
        while !sqlx::query_scalar::<_, bool>(wait).fetch_one(&mut look).await.expect("it answers") {}
    };
    tokio::select! {
        biased;
        early = &mut loser => panic!("it did not wait: {early:?}"),
        () = waits => {}
    }
    winner.commit().await.expect("it is kept");
    let error = loser.await.expect_err("it came too late");
    assert_eq!(error.to_string(), "PROMOTED → SPAM_REVIEW is not allowed: PROMOTED may become COMPLETED");
}

#[tokio::test]
async fn the_database_refuses_what_is_written_past_the_guard() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, messages } = desk(&database).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let (table, target) = (message(), target());
    Trigger::new(&table, &target).install(&mut connection).await.expect("it may");

    messages.apply(&mut *connection, 1_i64, "PROMOTED").await.expect("what is allowed passes");
    let bug = sqlx::query("update messages set status = 'SPAM_REVIEW' where id in (1, 2)");
    let error = bug.execute(&mut *connection).await.expect_err("one of them is PROMOTED");
    let known = error.as_database_error().expect("the database says it");
    assert_eq!(known.message(), "invalid transition of message: PROMOTED → SPAM_REVIEW");
    assert_eq!((known.code().as_deref(), known.constraint()), (Some("23514"), Some("selfheal_transitions")));
    assert_eq!(Failure::from(error).problem().code, Code::TransitionBlocked);

    let same = sqlx::query("update messages set status = status where id = 1");
    same.execute(&mut *connection).await.expect("what stays as it is was not changed");
    let unknown = sqlx::query("update messages set status = null where id = 2");
    unknown.execute(&mut *connection).await.expect_err("no table leads there");
    // Another trigger, which runs before: what counts is what would be kept.
    let sly = "create function sly() returns trigger language plpgsql as \
               $$ begin new.status = 'COMPLETED'; return new; end $$; \
               create trigger zz before update on messages for each row execute function sly()";
    sqlx::raw_sql(sly).execute(&mut *connection).await.expect("a trigger");
    let touched = sqlx::query("update messages set id = 1000 where id = 3");
    touched.execute(&mut *connection).await.expect_err("READY may not become COMPLETED");
}

#[tokio::test]
async fn an_installation_is_repeatable_and_its_state_tells_drift() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, .. } = desk(&database).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let (old, new, target) = (message(), table(&[("READY", &["PROMOTED"])]), target());
    let (old, new) = (Trigger::new(&old, &target), Trigger::new(&new, &target));
    assert_eq!(old.installed(&mut connection).await.expect("it answers"), Installed::Absent);
    for before in [Installed::Absent, Installed::AsDeclared] {
        assert_eq!(old.install(&mut connection).await.expect("it may"), before);
        assert_eq!(old.installed(&mut connection).await.expect("it answers"), Installed::AsDeclared);
    }
    let drifted = Installed::Drifted { version: Some("ed1ca6768324d41b".into()) };
    assert_eq!(new.installed(&mut connection).await.expect("it answers"), drifted);

    for (damage, state) in [
        ("alter table messages disable trigger all", Installed::Disabled),
        (
            "create or replace function selfheal_transitions_messages_status() returns trigger language plpgsql \
             as $$ begin return null; end $$",
            Installed::Altered,
        ),
        (
            "comment on function selfheal_transitions_messages_status() is 'mine'",
            Installed::Drifted { version: None },
        ),
    ] {
        sqlx::raw_sql(damage).execute(&mut *connection).await.expect("it may");
        assert_eq!(old.installed(&mut connection).await.expect("it answers"), state, "{damage}");
        assert_eq!(old.install(&mut connection).await.expect("it may"), state);
        assert_eq!(
            old.installed(&mut connection).await.expect("it answers"),
            Installed::AsDeclared,
            "{damage}"
        );
    }

    new.install(&mut connection).await.expect("it may");
    let now_wrong = sqlx::query("update messages set status = 'SPAM_REVIEW' where id = 1");
    now_wrong.execute(&mut *connection).await.expect_err("the new table holds");
    assert_eq!(new.remove(&mut connection).await.expect("it may"), Installed::AsDeclared);
    assert_eq!(new.remove(&mut connection).await.expect("it may"), Installed::Absent);
    let now_right = sqlx::query("update messages set status = 'SPAM_REVIEW' where id = 1");
    now_right.execute(&mut *connection).await.expect("nobody objects");

    let nowhere = Target::new("mesages").expect("a name");
    let table = message();
    let error = Trigger::new(&table, &nowhere).install(&mut connection).await.expect_err("a slip");
    assert_eq!(error.to_string(), "there is no mesages.status in the database");
}

#[tokio::test]
async fn the_command_installs_tells_and_removes() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let Desk { pool, .. } = desk(&database).await;
    let url = database.url();
    let call = async |verb: &'static str| {
        let url = url.clone();
        let called = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_selfheal"));
            command
                .args(["transitions", verb, "--json", "--database-url", &url])
                .output()
                .expect("the binary runs")
        });
        let output = called.await.expect("no panic");
        let said: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
        (said["state"].as_str().expect("a state").to_owned(), said["done"].clone(), output.status.success())
    };
    assert_eq!(call("status").await, ("absent".into(), serde_json::Value::Null, true));
    assert_eq!(call("install").await, ("installed".into(), "installed".into(), true));
    assert_eq!(call("install").await, ("installed".into(), "nothing".into(), true));
    assert_eq!(call("status").await, ("installed".into(), serde_json::Value::Null, true));
    let (other, target) = (table(&[("READY", &["PROMOTED"])]), target());
    let mut connection = pool.acquire().await.expect("a connection");
    Trigger::new(&other, &target).install(&mut connection).await.expect("it may");
    assert_eq!(call("status").await, ("drifted".into(), serde_json::Value::Null, false));
    assert_eq!(call("install").await, ("installed".into(), "replaced".into(), true));
    assert_eq!(call("remove").await, ("absent".into(), "removed".into(), true));
}
