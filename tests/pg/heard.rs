//! What one process accepts, others hear of.

use std::time::Duration;

use selfheal::{
    batch_executor::journal::{Fence, Journal, KeyUntil},
    signal::Name,
    store::Jobs,
};
use sqlx::{Connection, PgConnection, postgres::PgListener};

use crate::{
    durable::{self, accept, claim, done, job},
    jobs::pool,
    server::server,
};

const MINUTE: Duration = Duration::from_secs(60);

/// All that was told so far: whoever tells something afterwards is heard afterwards.
async fn told(listener: &mut PgListener, conn: &mut PgConnection) -> Vec<String> {
    sqlx::query("select pg_notify('selfheal_jobs', 'that is all')").execute(conn).await.expect("it tells");
    let mut told = Vec::new();
    loop {
        let next =
            tokio::time::timeout(MINUTE, listener.recv()).await.expect("it is heard").expect("it listens");
        match next.payload() {
            "that is all" => return told,
            queue => told.push(queue.to_owned()),
        }
    }
}

#[tokio::test]
async fn a_queue_that_was_empty_is_told_of_once_and_one_that_is_not_is_not() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let pool = pool(database.options()).await;
    let jobs = Jobs::of(&pool);
    jobs.ready().await.expect("tables");
    let mut listener = PgListener::connect(&database.url()).await.expect("it connects");
    listener.listen("selfheal_jobs").await.expect("it listens");
    let mut conn = PgConnection::connect(&database.url()).await.expect("it connects");

    accept(&jobs, vec![job("a"), job("a"), job("b"), durable::keyed("c", "k", KeyUntil::Over)]).await;
    let mut all = told(&mut listener, &mut conn).await;
    all.sort_unstable();
    assert_eq!(all, ["a", "b", "c"]);
    accept(&jobs, vec![job("a"), durable::keyed("c", "l", KeyUntil::Over)]).await;
    accept(&jobs, vec![durable::later("d")]).await;
    assert_eq!(told(&mut listener, &mut conn).await, [""; 0], "something waits there; nothing is due");

    // Whoever took the last one may be busy with it.
    let claimed = claim(&jobs, &["a"], 9, MINUTE).await;
    accept(&jobs, vec![job("a")]).await;
    assert_eq!(told(&mut listener, &mut conn).await, ["a"]);
    for claimed in claimed {
        assert_eq!(durable::settle(&jobs, claimed.lease, done()).await, Fence::Held);
    }

    for commits in [false, true] {
        let mut tx = pool.begin().await.expect("a transaction");
        jobs.enqueue(&mut tx, &[job("within")]).await.expect("it is enqueued");
        assert_eq!(told(&mut listener, &mut conn).await, [""; 0], "nothing is there yet");
        if commits { tx.commit().await } else { tx.rollback().await }.expect("it ends");
        assert_eq!(told(&mut listener, &mut conn).await, vec!["within"; usize::from(commits)]);
    }
}

async fn listeners(conn: &mut PgConnection, database: &str) -> Vec<i32> {
    let query = "select pid from pg_stat_activity where datname = $1 and application_name = 'selfheal jobs, listening'";
    sqlx::query_scalar(query).bind(database).fetch_all(conn).await.expect("a list")
}

/// One connection, beside the pool, from when somebody waits until nobody can; and another one when it is lost.
#[tokio::test]
async fn who_waits_listens_and_again_when_the_connection_is_lost() {
    let Some(server) = server() else { return };
    let database = server.database().await;
    let name = database.options().get_database().expect("it has a name").to_owned();
    let pool = pool(database.options()).await;
    let size = pool.unguarded().size();
    let jobs = Jobs::of(&pool);
    jobs.ready().await.expect("tables");
    let mut admin = server.admin().await;
    assert!(listeners(&mut admin, &name).await.is_empty(), "nobody waits yet");
    let queue: [Name; 1] = ["q".into()];
    jobs.due(&queue).await;
    let mut before = 0;
    for _ in 0..3 {
        let again = async {
            loop {
                if let [pid] = listeners(&mut admin, &name).await[..]
                    && pid != before
                {
                    return pid;
                }
                jobs.due(&queue).await;
            }
        };
        before = tokio::time::timeout(MINUTE, again).await.expect("it listens");
        let end = sqlx::query("select pg_terminate_backend($1)").bind(before);
        end.execute(&mut admin).await.expect("it ends");
    }
    assert_eq!(pool.unguarded().size(), size, "none of it is the pool's");
    drop(jobs);
    let gone = async {
        while !listeners(&mut admin, &name).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(MINUTE, gone).await.expect("it ends with whoever listened");
}
