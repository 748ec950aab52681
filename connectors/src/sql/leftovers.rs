//! Staging tables that no session ends: removed when their INSERT ends, however it ends, and found
//! when its program was killed.
//!
//! The name says when the run began. A run that lives longer leaves a sign of life beside its table
//! from time to time, a table of one column whose name says when; a later INSERT removes the tables
//! of runs that have given none for `staging.expire_hours`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::dialect::StagingTable;
use super::exchange::Described;
use super::staging::{NAME, RUN_CHARS, Staging};
use super::system::SqlSystem;

/// How long the removal of a staging table may hold an INSERT up that is done, or has failed.
const REMOVAL: Duration = Duration::from_secs(30);
/// Signs of life within the time after which a run is taken for dead.
const SIGNS: u32 = 6;

/// The staging table of a running INSERT. Dropped, it is removed too.
pub(crate) struct Leftover {
    session: Arc<dyn SqlSystem>,
    staging: Arc<Staging>,
    runtime: Handle,
    signs: Option<JoinHandle<()>>,
}

impl Leftover {
    /// Watches over `staging`, which is made in `session`.
    pub(crate) fn watch(
        session: &Arc<dyn SqlSystem>,
        staging: &Arc<Staging>,
        expire: Duration,
    ) -> Self {
        let (session, staging) = (Arc::clone(session), Arc::clone(staging));
        let signs = staging.stays().then(|| {
            let (session, staging) = (Arc::clone(&session), Arc::clone(&staging));
            tokio::spawn(async move { give_signs(&*session, &staging, expire / SIGNS).await })
        });
        Self {
            session,
            staging,
            runtime: Handle::current(),
            signs,
        }
    }

    /// The rows are in the target, or an error is on its way: a table that stays takes only space,
    /// until a later INSERT finds it.
    pub(crate) async fn remove(mut self) {
        self.end_signs();
        let removed = remove(&*self.session, &self.staging);
        tokio::time::timeout(REMOVAL, removed).await.ok();
    }

    fn end_signs(&mut self) {
        if let Some(signs) = self.signs.take() {
            signs.abort();
        }
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        self.end_signs();
        if self.staging.remove().is_empty() {
            return;
        }
        let (session, staging) = (Arc::clone(&self.session), Arc::clone(&self.staging));
        self.runtime
            .spawn(async move { remove(&*session, &staging).await });
    }
}

async fn remove(session: &dyn SqlSystem, staging: &Staging) {
    let mut gone = true;
    for statement in staging.remove() {
        let doing = "removing a staging table";
        let removed = session.publish(doing, std::slice::from_ref(&statement));
        gone &= removed.await.is_ok();
    }
    if gone {
        staging.is_gone();
    }
}

async fn give_signs(session: &dyn SqlSystem, staging: &Staging, every: Duration) {
    let doing = "saying that a staging table is in use";
    loop {
        tokio::time::sleep(every).await;
        let Some(sign) = staging.next_sign(seconds_now()) else {
            continue;
        };
        // A sign that fails is given again; the last one holds meanwhile.
        if session.publish(doing, &[sign.create]).await.is_ok()
            && let Some(before) = staging.signed(sign.name)
        {
            session.publish(doing, &[before]).await.ok();
        }
    }
}

/// Removes the staging tables beside the target that dead runs left. It would only take space, so
/// errors are left be.
pub(crate) async fn sweep(session: &dyn SqlSystem, described: &Described, expire: Duration) {
    if described.dialect.staging != StagingTable::Permanent {
        return;
    }
    let Ok(tables) = session.tables(NAME).await else {
        return;
    };
    for table in expired(&tables, seconds_now(), expire) {
        let statement = super::staging::drop_beside(described, table);
        let doing = "removing the staging table of a dead run";
        session.publish(doing, &[statement]).await.ok();
    }
}

/// The tables among `tables` that belong to runs whose last sign of life is older than `expire`.
fn expired(tables: &[String], now: u64, expire: Duration) -> Vec<&String> {
    let mut last: HashMap<&str, u64> = HashMap::new();
    let known: Vec<(&String, &str, u64)> = tables
        .iter()
        .filter_map(|table| {
            let (run, at) = run_and_time(table)?;
            Some((table, run, at))
        })
        .collect();
    for (_, run, at) in &known {
        let latest = last.entry(run).or_default();
        *latest = (*latest).max(*at);
    }
    let dead = |run: &str| {
        let silent = now.saturating_sub(last.get(run).copied().unwrap_or(now));
        silent > expire.as_secs()
    };
    let dead = known.into_iter().filter(|(_, run, _)| dead(run));
    dead.map(|(table, ..)| table).collect()
}

/// The run in the name of a staging table or of a sign of life, and the time; none in other names.
fn run_and_time(table: &str) -> Option<(&str, u64)> {
    let lower = table.get(..NAME.len())?.eq_ignore_ascii_case(NAME);
    let mut parts = table.get(NAME.len()..).filter(|_| lower)?.split('_');
    let began = parts.next()?.parse().ok()?;
    let run = parts
        .next()
        .filter(|run| [RUN_CHARS, 2 * RUN_CHARS].contains(&run.len()))?;
    match (parts.next(), parts.next(), parts.next()) {
        (None, ..) => Some((run, began)),
        (Some(at), None, None) => Some((run, at.parse().ok()?)),
        // As they were called once.
        (Some(alive), Some(at), None) if alive.eq_ignore_ascii_case("alive") => {
            Some((run, at.parse().ok()?))
        }
        _ => None,
    }
}

/// Seconds since 1970.
pub(crate) fn seconds_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_without_a_sign_of_life_are_dead() {
        let run = |c: char| c.to_string().repeat(16);
        let (a, b, c) = (run('a'), run('b'), run('c'));
        let tables = [
            format!("casebook_staging_1000_{a}"),
            format!("casebook_staging_1000_{b}"),
            format!("casebook_staging_1000_{b}_alive_5000"),
            format!("CASEBOOK_STAGING_1000_{c}"),
            format!("CASEBOOK_STAGING_1000_{c}_2000"),
            format!("casebook_staging_9000_{}", run('d')),
            format!("casebook_staging_1000_{}_5001", run('g')),
            format!("casebook_staging_9000_{}", run('h').repeat(2)),
            // Not ours, or of no time.
            "casebook_staging_notes".into(),
            format!("casebook_staging_{}", run('e')),
            format!("casebook_staging_1000_{a}_alive"),
            "casebook_staging_1_2_3_4_5".into(),
            "qa".into(),
            "žlutý_kůň_staging_1000".into(),
        ];
        let dead = expired(&tables, 5000 + 3600, Duration::from_secs(3600));
        assert_eq!(dead, [&tables[0], &tables[3], &tables[4]]);
        // A clock that went back kills nobody.
        assert!(expired(&tables, 10, Duration::from_secs(1)).is_empty());
    }
}
