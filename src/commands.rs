//! The commands of a client: push, pop, stat and top.

use crate::cli::{ClientOptions, Command, FaceOptions};
use crate::data;
use pollstack::client::{Client, ClientError, connect, read_by};
use serde_json::Value;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

const BUSY: u8 = 3;
const TIMEOUT: u8 = 4;
const CLOSED: u8 = 5;

/// More bytes than the face of a server answers.
const LONGEST: usize = 1024 * 1024;

/// How often a long run says how far it has come.
const PROGRESS: Duration = Duration::from_secs(1);

/// Runs a command. An error goes to standard error.
pub(crate) fn run(command: &Command) -> ExitCode {
    let result = match command {
        Command::Push { text, file, client } => push(text.as_deref(), file.as_deref(), &new_client(client)),
        Command::Pop { count, client } => pop(*count, &new_client(client)),
        Command::Inspect { data, items } => data::inspect(&data.file, *items),
        Command::Export { data } => data::export(&data.file),
        Command::Import { data } => data::import(&data.file),
        Command::Stat { face } => stat(face),
        Command::Top { face, count } => top(face, *count),
    };
    let Err(error) = result else { return ExitCode::SUCCESS };
    if is_broken_pipe(&*error) {
        return ExitCode::SUCCESS; // the reader has what it wanted
    }
    let _ = writeln!(io::stderr(), "pollstack: {error}");
    match error.downcast_ref() {
        Some(ClientError::Busy) => BUSY.into(),
        Some(ClientError::Closed) => CLOSED.into(),
        Some(error) if error.is_timeout() => TIMEOUT.into(),
        _ => ExitCode::FAILURE,
    }
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn new_client(options: &ClientOptions) -> Client {
    Client::at(options.connect.clone()).timeout(options.timeout).retries(options.retry)
}

fn push(text: Option<&str>, file: Option<&std::path::Path>, client: &Client) -> Result<(), Box<dyn Error>> {
    let source: Box<dyn Read> = match (text, file) {
        (Some("-"), _) => Box::new(io::stdin()),
        (Some(text), _) => return Ok(client.push(text.as_bytes())?),
        (None, Some(path)) => Box::new(File::open(path).map_err(|error| format!("{}: {error}", path.display()))?),
        (None, None) => return Ok(()), // the parser asks for one of them
    };
    let mut progress = Progress::new("pushed");
    for line in BufReader::new(source).split(b'\n') {
        client.push(&line?)?;
        progress.step();
    }
    Ok(())
}

fn pop(count: u64, client: &Client) -> Result<(), Box<dyn Error>> {
    let mut progress = Progress::new("popped");
    let mut stdout = io::stdout().lock();
    while count == 0 || progress.done < count {
        match client.pop() {
            Err(ClientError::Cancelled) if count == 0 => break,
            item => stdout.write_all(&[&item?[..], b"\n"].concat())?,
        }
        stdout.flush()?;
        progress.step();
    }
    Ok(())
}

/// Tells on a terminal how far a long run has come.
struct Progress {
    what: &'static str,
    done: u64,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Progress {
        Progress { what, done: 0, told: Instant::now() }
    }

    fn step(&mut self) {
        self.done += 1;
        if self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            if io::stderr().is_terminal() {
                let _ = write!(io::stderr(), "\r{} {}", self.done, self.what);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if io::stderr().is_terminal() && self.done > 1 {
            let _ = writeln!(io::stderr(), "\r{} {}", self.done, self.what);
        }
    }
}

fn stat(face: &FaceOptions) -> Result<(), Box<dyn Error>> {
    let text = lines(&get(face, "/stack")?);
    Ok(io::stdout().write_all(text.as_bytes())?)
}

/// Returns what the face of a server says about itself, for people.
fn lines(about: &Value) -> String {
    let (parked, clients) = (&about["parked"], &about["clients"]);
    format!(
        "items            {} of {}\nwaiting pushes   {}\nwaiting pops     {}\nclients          {} of {}\n\
         oldest client    {} s\nlingering        {}\nup for           {} s\nversion          {}\n",
        about["depth"],
        about["capacity"],
        parked["pushes"],
        parked["pops"],
        clients["now"],
        clients["most"],
        clients["oldest_seconds"],
        clients["lingering"],
        about["uptime_seconds"],
        about["version"].as_str().unwrap_or_default(),
    )
}

fn top(face: &FaceOptions, count: Option<u64>) -> Result<(), Box<dyn Error>> {
    let is_terminal = io::stdout().is_terminal();
    let mut shown = 0;
    while count.is_none_or(|count| shown < count) {
        if shown > 0 {
            thread::sleep(Duration::from_secs(1));
        }
        let about = get(face, "/stack")?;
        let text = match is_terminal {
            true => format!("\x1b[H\x1b[2J{}\n{}", lines(&about), clients(&get(face, "/clients?limit=20")?)),
            false => format!("{about}\n"),
        };
        io::stdout().write_all(text.as_bytes())?;
        io::stdout().flush()?;
        shown += 1;
    }
    Ok(())
}

/// Returns a line for each client, the oldest first.
fn clients(about: &Value) -> String {
    let row = |client: &Value| {
        let text = |name| client[name].as_str().unwrap_or_default().to_owned();
        let (id, age) = (client["id"].to_string(), client["age_seconds"].as_f64().unwrap_or(0.0));
        format!("{id:<8} {:<28} {:<6} {:<10} {age:>10.1} s\n", text("peer"), text("listener"), text("state"))
    };
    about["oldest"].as_array().into_iter().flatten().map(row).collect()
}

/// Asks the face of a server.
fn get(face: &FaceOptions, path: &str) -> Result<Value, Box<dyn Error>> {
    let (address, end) = (&face.connect, Instant::now().checked_add(face.timeout));
    let unreachable = |error| format!("cannot reach {address}: {error}; is the server started with --http?");
    let mut stream = connect(address, Some(face.timeout)).map_err(unreachable)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut reply = Vec::new();
    if !read_by(&mut stream, end, LONGEST, &mut reply)? {
        return Err(format!("{address} does not answer within {:?}; raise --timeout", face.timeout).into());
    }
    if reply.len() == LONGEST {
        return Err(format!("{address}: the answer is longer than any").into());
    }
    let reply = String::from_utf8(reply)?;
    let body = reply.split_once("\r\n\r\n").filter(|(head, _)| head.starts_with("HTTP/1.1 200 "));
    let (_, body) = body.ok_or_else(|| format!("{address} answers {}", reply.lines().next().unwrap_or("nothing")))?;
    Ok(serde_json::from_str(body)?)
}
