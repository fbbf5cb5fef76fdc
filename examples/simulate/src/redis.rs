//! An engine as nodes see it: connections that speak RESP, a script, messages on channels, and the
//! [model](Channels) of what the script does.

use crate::channels::{Broken, Channels, Page};
use redis_protocol::resp3::decode::complete::decode;
use redis_protocol::resp3::types::OwnedFrame;
use std::collections::{BTreeMap, BTreeSet};

/// The name of the one script.
const DIGEST: &str = "the-script";

/// An engine, and its connections.
#[derive(Debug, Default)]
pub struct Redis {
    /// The channels.
    pub channels: Channels,
    conns: BTreeMap<usize, Conn>,
    has_script: bool,
    /// It says so to all commands.
    pub is_loading: bool,
    /// The messages that the script has published since they were taken: channels, ids and texts.
    published: Vec<(String, u64, String)>,
    /// How many commands it has got.
    pub commands: usize,
}

#[derive(Debug, Default)]
struct Conn {
    input: Vec<u8>,
    output: Vec<u8>,
    listens: BTreeSet<String>,
}

impl Redis {
    /// A client connects.
    pub fn connect(&mut self, conn: usize) {
        self.conns.insert(conn, Conn::default());
    }

    /// A client has gone.
    pub fn close(&mut self, conn: usize) {
        self.conns.remove(&conn);
    }

    /// It is started again, with what it had.
    pub fn restart(&mut self) {
        self.conns.clear();
        self.forget_script();
    }

    /// The script is no longer known.
    pub fn forget_script(&mut self) {
        self.has_script = false;
    }

    /// Takes what a client has sent, at `now`, in microseconds. Pushed messages come before the answer to the command
    /// that they are from, or behind it.
    ///
    /// # Errors
    /// A text: it is no command.
    pub fn hear(&mut self, conn: usize, bytes: &[u8], now: u64, pushes_first: bool) -> Result<(), String> {
        let Some(input) = self.conns.get_mut(&conn).map(|conn| &mut conn.input) else { return Ok(()) };
        input.extend(bytes);
        let mut input = std::mem::take(input);
        let mut taken = 0;
        while let Some((frame, len)) = decode(&input[taken..]).map_err(|error| format!("{error}"))? {
            taken += len;
            let words = words(frame).ok_or("a command is an array of strings")?;
            let before = self.published.len();
            let answer = self.command(conn, &words, now)?;
            if !pushes_first {
                self.say(conn, &answer);
            }
            for n in before..self.published.len() {
                self.push(n, now);
            }
            if pushes_first {
                self.say(conn, &answer);
            }
        }
        input.drain(..taken);
        self.conns.entry(conn).and_modify(|conn| conn.input = input);
        Ok(())
    }

    fn say(&mut self, conn: usize, text: &str) {
        self.conns.entry(conn).and_modify(|conn| conn.output.extend(text.bytes()));
    }

    /// Tells the listeners of a message.
    fn push(&mut self, n: usize, now: u64) {
        let Some((channel, id, text)) = self.published.get(n) else { return };
        let push = format!(">3\r\n{}{}{}", string("smessage"), string(channel), string(&format!("{id}-{now} {text}")));
        for conn in self.conns.values_mut().filter(|conn| conn.listens.contains(channel)) {
            conn.output.extend(push.bytes());
        }
    }

    fn command(&mut self, conn: usize, words: &[String], now: u64) -> Result<String, String> {
        self.commands += 1;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if self.is_loading {
            return Ok("-LOADING Redis is loading the dataset in memory\r\n".to_owned());
        }
        Ok(match words[..] {
            ["HELLO", "3"] => "%1\r\n+server\r\n+redis\r\n".to_owned(),
            ["PING"] => "+PONG\r\n".to_owned(),
            ["WAIT", replicas, _] => format!(":{replicas}\r\n"),
            ["SCRIPT", "LOAD", _] => {
                self.has_script = true;
                string(DIGEST)
            }
            ["SSUBSCRIBE", channel] => {
                self.conns.entry(conn).and_modify(|conn| conn.listens.extend([channel.to_owned()]));
                format!(">3\r\n{}{}:1\r\n", string("ssubscribe"), string(channel))
            }
            ["SUNSUBSCRIBE", channel] => {
                self.conns.entry(conn).and_modify(|conn| conn.listens.retain(|other| other != channel));
                format!(">3\r\n{}{}:0\r\n", string("sunsubscribe"), string(channel))
            }
            ["EVALSHA", DIGEST, "2", ..] if !self.has_script => "-NOSCRIPT No matching script\r\n".to_owned(),
            ["EVALSHA", DIGEST, "2", numbers, stream, ref args @ ..] => self.script(numbers, stream, args, now)?,
            _ => return Err(format!("{words:?} is no command")),
        })
    }

    fn script(&mut self, numbers: &str, stream: &str, args: &[&str], now: u64) -> Result<String, String> {
        let name = numbers.strip_suffix(":numbers").filter(|name| stream == format!("{name}:stream"));
        let name = name.ok_or_else(|| format!("{numbers} and {stream} are no channel"))?;
        let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
        let result = match *args {
            ["publish", text, keep, channel] if channel == name => {
                let id = self.channels.publish(now, name, text, number(keep)? as usize);
                if let Ok(Some(id)) = id {
                    self.published.push((name.to_owned(), id, text.to_owned()));
                }
                id.map(|id| format!(":{}\r\n", id.unwrap_or_default()))
            }
            ["read", from, bytes, stamp] => {
                let stamp = (!stamp.is_empty()).then(|| number(stamp)).transpose()?;
                self.channels.read(now, name, number(from)?, number(bytes)? as usize, stamp).map(page)
            }
            _ => return Err(format!("{args:?} are no arguments")),
        };
        Ok(result.unwrap_or_else(|Broken| "-CHANNEL WRONGTYPE Operation against a key\r\n".to_owned()))
    }

    /// Takes at most `most` bytes of what a client is to get.
    pub fn take_output(&mut self, conn: usize, most: usize) -> Vec<u8> {
        let Some(output) = self.conns.get_mut(&conn).map(|conn| &mut conn.output) else { return Vec::new() };
        output.drain(..most.min(output.len())).collect()
    }

    /// Takes the messages that were published since the last time: channels, ids and texts.
    pub fn take_published(&mut self) -> Vec<(String, u64, String)> {
        std::mem::take(&mut self.published)
    }
}

fn words(frame: OwnedFrame) -> Option<Vec<String>> {
    let OwnedFrame::Array { data, .. } = frame else { return None };
    let word =
        |frame| if let OwnedFrame::BlobString { data, .. } = frame { String::from_utf8(data).ok() } else { None };
    data.into_iter().map(word).collect()
}

fn string(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

fn page(page: Page) -> String {
    let messages = page
        .messages
        .iter()
        .map(|message| string(&format!("{}-{}", message.id, message.stamp)) + &string(&message.text));
    let text: String = messages.collect();
    format!("*{}\r\n:{}\r\n:{}\r\n{text}", 2 + 2 * page.messages.len(), page.first, page.next)
}
