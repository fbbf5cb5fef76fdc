//! Where the time of our servers goes: samples of their stacks, their system calls, and their instructions.

use crate::contender::{Contender, Site};
use crate::fanout;
use crate::wrk::Load;
use instrument::{Callgrind, Instructions, Page, Recording};
use std::path::{Path, PathBuf};
use test_support::machine::{self, Placement};

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
    for Case { name, mut contender, mut load } in cases(part, site)? {
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
        let title = format!("{}, {name}", contender.name);
        page.profile(&title, &profile, &calls, cpu)?;
        match instructions(&mut contender, &mut load) {
            Ok(found) => page.table(&found.table(&title)),
            Err(why) => println!("left out: instructions of {title}: {why}"),
        }
        eprintln!("{name}: profiled");
    }
    let path = folder.join("profile.html");
    page.save(&path).map_err(|error| error.to_string())?;
    Ok(path)
}

/// Returns the instructions of a request: the difference between one load and two.
fn instructions(contender: &mut Contender, load: &mut Requests) -> Result<Instructions, String> {
    if !machine::there("valgrind") {
        return Err("valgrind is not installed".to_owned());
    }
    let mut executed = |loads: usize| {
        let callgrind = Callgrind::new().map_err(|error| error.to_string())?;
        let done =
            contender.once_under(&callgrind.wrapper(), |one| (0..loads).map(|_| load(one)).sum::<Result<f64, _>>());
        let requests = done.ok_or("it does not start")??;
        let found = callgrind.read(Path::new(env!("CARGO_MANIFEST_DIR"))).map_err(|error| error.to_string())?;
        Ok::<_, String>((found, requests))
    };
    let ((short, few), (long, many)) = (executed(1)?, executed(2)?);
    Ok(long.since(&short, (many - few) as usize))
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
