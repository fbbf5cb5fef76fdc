//! The cost of a file: plain, over TLS, with two workers, and behind a proxy; each beside the server that people would
//! use instead.

use crate::contender::{Contender, SIZES, Site};
use crate::wrk::{CONNECTIONS, Load, measure};
use instrument::Table;
use test_support::machine::Placement;

/// Where the load runs; the server has the second processor.
const BOTH: [Placement; 2] = [Placement::Apart, Placement::Limit];
const LIMIT: [Placement; 1] = [Placement::Limit];

const AHEAD: &str = "The ratio is that of requests for a second of processor time: above 1 is ahead.";

fn loads(files: &[(&'static str, bool)], quick: bool) -> Vec<Load> {
    let seconds = |file| match file {
        "10m" if !quick => 2,
        _ => 1,
    };
    files.iter().map(|(file, close)| Load { file, close: *close, seconds: seconds(*file) }).collect()
}

/// Plain files.
pub(crate) fn plain(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    let contenders: Vec<Contender> = [Contender::web(site), Contender::nginx(site)].into_iter().flatten().collect();
    contenders.iter().try_for_each(Contender::check)?;
    let all: Vec<(&str, bool)> = SIZES.iter().flat_map(|(name, _)| [(*name, false), (*name, true)]).collect();
    let (some, placements) = if quick { (&all[..2], &LIMIT[..]) } else { (&all[..], &BOTH[..]) };
    let what = format!("`wrk`, {CONNECTIONS} connections. {AHEAD}");
    measure(Table::new("files", what, &[]), &contenders, &loads(some, quick), placements, pairs)
}

/// Files over TLS.
pub(crate) fn secure(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    let contenders: Vec<Contender> =
        [Contender::secure_web(site), Contender::secure_nginx(site, false)].into_iter().flatten().collect();
    let all = [("1k", false), ("100k", false)];
    let what = format!(
        "`wrk`, {CONNECTIONS} kept connections, TLS 1.3 with TLS_AES_256_GCM_SHA384 on both, clients on the same two \
         processors. {AHEAD}"
    );
    measure(Table::new("tls, files", what, &[]), &contenders, &loads(&all, quick), &LIMIT, pairs)
}

/// Files by two workers.
pub(crate) fn workers(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    let contenders: Vec<Contender> =
        [Contender::web_workers(site), Contender::nginx_workers(site)].into_iter().flatten().collect();
    let all = [("1k", false), ("1k", true)];
    let what =
        format!("`wrk`, {CONNECTIONS} connections; two workers each, clients on the same two processors. {AHEAD}");
    measure(Table::new("workers", what, &[]), &contenders, &loads(&all, quick), &LIMIT, pairs)
}

/// Files behind a proxy of TCP.
pub(crate) fn proxied(site: &Site, pairs: usize, quick: bool) -> Result<Table, String> {
    let ours = Contender::before_web(site, Contender::proxy);
    let other = Contender::before_web(site, |web| Contender::haproxy(site, web, "haproxy", ""));
    let contenders: Vec<Contender> = [ours, other].into_iter().flatten().collect();
    let all = [("1k", true), ("1k", false), ("10m", false)];
    let some = if quick { &all[..2] } else { &all[..] };
    let what = format!(
        "`wrk`, {CONNECTIONS} connections to a proxy of TCP in front of pollstack's web; the processor time is the \
         proxy's. {AHEAD}"
    );
    measure(Table::new("proxy", what, &[]), &contenders, &loads(some, quick), &LIMIT, pairs)
}
