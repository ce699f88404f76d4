//! What a round of the writer has done, told apart by who asked.

use std::collections::{HashMap, HashSet};

use selfheal_actors::batch_executor::journal::{Accepted, End, Fence, JobId, Lease, NewJob, Settle};

use super::{
    dialect::{Dialect, Fresh},
    overview::Look,
};

/// A key that is let go while it is looked up is tried again so often.
const TRIES: usize = 3;

/// Writes `jobs` down and says what became of each, in order. `None`: its key was taken and let go again meanwhile,
/// each time it was tried.
pub(super) async fn accept<DB: Dialect>(
    conn: &mut DB::Connection,
    jobs: &[NewJob],
) -> Result<Vec<Option<Accepted>>, sqlx::Error> {
    let mut answers = told_apart(jobs, DB::accept(conn, jobs).await?);
    for _ in 0..TRIES {
        joined::<DB>(conn, jobs, &mut answers).await?;
        let left: Vec<_> = (0..jobs.len()).filter(|&n| answers[n].is_none()).collect();
        if left.is_empty() {
            break;
        }
        let again: Vec<_> = left.iter().map(|&n| jobs[n].clone()).collect();
        // What has a key for longer than it is kept has only not been swept yet.
        let (queues, keys) = names(again.iter());
        DB::let_go(conn, &queues, &keys).await?;
        let fresh = DB::accept(conn, &again).await?;
        for (n, answer) in left.into_iter().zip(told_apart(&again, fresh)) {
            answers[n] = answer;
        }
    }
    Ok(answers)
}

/// Jobs without a key were written in the order in which they came, so their ids are in that order.
fn told_apart(jobs: &[NewJob], mut fresh: Vec<Fresh>) -> Vec<Option<Accepted>> {
    fresh.sort_by_key(|fresh| fresh.id);
    let (keyed, plain): (Vec<_>, Vec<_>) = fresh.into_iter().partition(|fresh| fresh.key.is_some());
    let mut plain = plain.into_iter().map(|fresh| fresh.id);
    let mut keyed: HashMap<_, _> =
        keyed.into_iter().filter_map(|fresh| Some((fresh.key?, (fresh.id, true)))).collect();
    let answer = |job: &NewJob| match &job.key {
        None => plain.next().map(|id| accepted(job, id, true)),
        Some(key) => {
            // The first of those that share a key is the one that was written.
            let (id, first) = keyed.get_mut(&(job.queue.to_string(), key.text.clone()))?;
            Some(accepted(job, *id, std::mem::take(first)))
        }
    };
    jobs.iter().map(answer).collect()
}

fn accepted(job: &NewJob, id: JobId, fresh: bool) -> Accepted {
    let lease = (fresh && job.hold.is_some()).then_some(Lease { job: id, token: 1 });
    Accepted { id, fresh, lease }
}

/// Finds those whose key was taken.
async fn joined<DB: Dialect>(
    conn: &mut DB::Connection,
    jobs: &[NewJob],
    answers: &mut [Option<Accepted>],
) -> Result<(), sqlx::Error> {
    let missing = jobs.iter().zip(answers.iter()).filter(|(_, answer)| answer.is_none());
    let (queues, keys) = names(missing.map(|(job, _)| job));
    if keys.is_empty() {
        return Ok(());
    }
    let there = DB::look(conn, &Look::Keys { queues, keys }).await?;
    let there: HashMap<_, _> =
        there.iter().filter_map(|job| Some(((&*job.queue, job.key.as_deref()?), job.id))).collect();
    for (job, answer) in jobs.iter().zip(answers) {
        if let (None, Some(key)) = (&answer, &job.key) {
            let id = there.get(&(&*job.queue, key.text.as_str()));
            *answer = id.map(|&id| accepted(job, id, false));
        }
    }
    Ok(())
}

fn names<'a>(jobs: impl Iterator<Item = &'a NewJob>) -> (Vec<&'a str>, Vec<&'a str>) {
    jobs.filter_map(|job| Some((&*job.queue, job.key.as_ref()?.text.as_str()))).unzip()
}

/// Ends leases and says of each, in order, whether it was held.
pub(super) async fn settle<DB: Dialect>(
    conn: &mut DB::Connection,
    ends: &[Settle],
) -> Result<Vec<Fence>, sqlx::Error> {
    let done: Vec<_> =
        ends.iter().filter(|end| matches!(end.end, End::Done { .. })).map(|end| end.lease).collect();
    let mut ended = HashSet::with_capacity(ends.len());
    if !done.is_empty() {
        ended.extend(DB::finish(conn, &done).await?);
    }
    if ended.len() < ends.len() {
        let rest: Vec<_> = ends.iter().filter(|end| !ended.contains(&end.lease)).collect();
        ended.extend(DB::settle(conn, &rest).await?);
    }
    Ok(fences(ends.iter().map(|end| end.lease), &ended))
}

/// Of each lease, in order, whether it is among those that were held.
pub(super) fn fences(leases: impl Iterator<Item = Lease>, held: &HashSet<Lease>) -> Vec<Fence> {
    leases.map(|lease| if held.contains(&lease) { Fence::Held } else { Fence::Lost }).collect()
}

#[cfg(test)]
mod tests {
    use selfheal_actors::batch_executor::journal::{Key, KeyUntil};

    use super::*;

    fn job(key: Option<&str>) -> NewJob {
        let key = key.map(|text| Key { text: text.into(), until: KeyUntil::Over });
        NewJob { key, ..NewJob::new("q", *b"x") }
    }

    #[test]
    fn each_caller_gets_the_answer_to_its_own_job() {
        let jobs = [job(None), job(Some("a")), job(Some("taken")), job(None), job(Some("a"))];
        let fresh = |id, key: Option<&str>| Fresh { id: JobId(id), key: key.map(|k| ("q".into(), k.into())) };
        let told = told_apart(&jobs, vec![fresh(9, None), fresh(8, Some("a")), fresh(7, None)]);
        let told: Vec<_> = told.into_iter().map(|answer| answer.map(|a| (a.id.0, a.fresh))).collect();
        assert_eq!(told, [Some((7, true)), Some((8, true)), None, Some((9, true)), Some((8, false))]);
    }
}
