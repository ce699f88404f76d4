-- Durable jobs. Times are microseconds since 1970.
create table selfheal_jobs (
    id integer primary key autoincrement,
    queue text not null,
    class integer not null,
    -- 0 pending, 1 leased, 2 done, 3 dead
    state integer not null default 0,
    -- When it may be claimed. Of a leased job: when its lease ends.
    due integer not null,
    accepted_at integer not null,
    -- How often it was leased; the lease in force is the last one.
    token integer not null default 0,
    failures integer not null default 0,
    losses integer not null default 0,
    total integer not null default 1,
    done integer not null default 0,
    blocked integer not null default 0,
    failed integer not null default 0,
    -- For how long it is kept once it is done, and until when.
    keep integer not null default 0,
    forget_at integer,
    key text,
    -- 0 until it is over, 1 until it is forgotten
    key_until integer not null default 0,
    owner text,
    error text,
    progress blob,
    payload blob not null
);
create unique index selfheal_jobs_key on selfheal_jobs (queue, key) where key is not null;
-- In the order in which they are claimed: each class waits ten seconds longer than the one before it.
create index selfheal_jobs_due on selfheal_jobs (queue, due + class * 10000000) where state < 2;
create index selfheal_jobs_over on selfheal_jobs (forget_at) where state >= 2;

-- The other side of the books, kept by the triggers below.
create table selfheal_job_counts (
    queue text primary key,
    accepted integer not null default 0,
    done integer not null default 0,
    dead integer not null default 0
);
create trigger selfheal_job_accepted after insert on selfheal_jobs begin
    insert into selfheal_job_counts (queue, accepted) values (new.queue, 1)
        on conflict (queue) do update set accepted = accepted + 1;
end;
create trigger selfheal_job_over after update of state on selfheal_jobs when new.state >= 2 and old.state < 2 begin
    update selfheal_job_counts set done = done + (new.state = 2), dead = dead + (new.state = 3) where queue = new.queue;
end;
-- What need not be kept is deleted when it is done. Only a leased job can be done.
create trigger selfheal_job_done after delete on selfheal_jobs when old.state = 1 begin
    update selfheal_job_counts set done = done + 1 where queue = old.queue;
end;

-- What operators have said of queues.
create table selfheal_queues (
    queue text primary key,
    paused integer not null default 0,
    by_whom text,
    reason text
);
