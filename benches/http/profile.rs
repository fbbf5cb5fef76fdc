//! Where the time of our servers goes: samples of their stacks, and their system calls.

use crate::contender::{Contender, Site};
use crate::fanout;
use crate::wrk::Load;
use instrument::{Page, Recording};
use std::path::{Path, PathBuf};
use test_support::machine::Placement;

/// A load on a server, which returns how many requests were answered.
type Requests = Box<dyn FnMut(&Contender) -> Result<f64, String>>;

/// A server, and a load on it.
struct Case {
    name: &'static str,
    contender: Contender,
    load: Requests,
}

/// Profiles our server of a part. Returns where the page is.
pub(crate) fn profile(part: &str, site: &Site, folder: &Path, run: &str) -> Result<PathBuf, String> {
    test_support::keep_frames();
    let mut page = Page::new(&format!("Profile: {part}"), run);
    for Case { name, contender, mut load } in cases(part, site)? {
        contender.place();
        load(&contender)?; // to warm up
        let before = contender.cpu();
        let requests = load(&contender)?;
        let cpu = contender.cpu().saturating_sub(before).as_secs_f64() * 1e6 / requests;
        let recording = Recording::start(contender.pid())?;
        load(&contender)?;
        let profile = recording.stop()?;
        let strace = contender.trace().ok_or("strace cannot attach")?;
        let requests = load(&contender)?;
        let calls =
            strace.stop().0.into_iter().map(|(name, count)| (name, count as f64 / requests)).collect::<Vec<_>>();
        page.profile(&format!("{}, {name}", contender.name), &profile, &calls, cpu)?;
        eprintln!("{name}: profiled");
    }
    let path = folder.join("profile.html");
    page.save(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

fn cases(part: &str, site: &Site) -> Result<Vec<Case>, String> {
    let by_wrk = |name, contender: Option<Contender>, close| {
        let load = Load { file: "1k", close, seconds: 3 };
        let load = Box::new(move |one: &Contender| load.requests(one, Placement::Limit)) as Requests;
        Some(Case { name, contender: contender?, load })
    };
    let cases = match part {
        "files" => vec![
            by_wrk("1 KiB, kept connections", Contender::web(site), false),
            by_wrk("1 KiB, a connection each", Contender::web(site), true),
        ],
        "tls, files" => vec![by_wrk("1 KiB over TLS, kept connections", Contender::secure_web(site), false)],
        "proxy" => vec![by_wrk("1 KiB, a connection each", Contender::before_web(site, Contender::proxy), true)],
        "fan-out" => vec![Contender::pubsub().map(|contender| {
            let mut audience = None;
            let load = Box::new(move |one: &Contender| fanout::deliver(one, &mut audience));
            Case { name: "a delivery to one of 1000", contender, load }
        })],
        other => return Err(format!("`{other}` has no profile; there are files, tls, proxy and fan-out")),
    };
    let cases: Vec<Case> = cases.into_iter().flatten().collect();
    if cases.is_empty() { Err("the server does not start".to_owned()) } else { Ok(cases) }
}
