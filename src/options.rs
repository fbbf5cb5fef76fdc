//! The command lines of the servers: how they are read and explained, and the values of options.

use crate::net::{Address, FileRights, ParseAddressError};
use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Parser, ValueEnum, value_parser};
use clap_complete::Shell;
use nix::unistd::{Group, User};
use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

/// Returns the options that the process was started with, or ends it: with the help or the version if that was
/// asked for, with what [`command`] adds, else with status 2 and one line on standard error, behind `name`, that
/// says what is wrong.
///
/// An empty environment variable is none. A value may begin with a hyphen: `--grace -1s` is a time that cannot
/// be, not an option.
pub fn parse<P: Parser>(name: &str) -> P {
    let mut command = command::<P>();
    let matches = command.clone().try_get_matches().unwrap_or_else(|error| usage_error(name, &command, &error));
    if let Some(kind) = matches.get_one::<Generated>(GENERATE) {
        end(name, generate(*kind, command));
    }
    let parsed = P::from_arg_matches(&matches).map_err(|error| error.format(&mut command));
    let parsed = parsed.unwrap_or_else(|error| usage_error(name, &command, &error));
    if matches.get_flag(PRINT_CONFIG) {
        end(name, print_config(&command, &matches));
    }
    parsed
}

/// Returns the command line of a server, and what all of them have: `--print-config`, and `--generate` for man
/// pages and the completions of shells.
pub fn command<P: Parser>() -> Command {
    let mut command = P::command();
    for arg in P::command().get_arguments() {
        let id = arg.get_id().as_str().to_owned();
        let empty = arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        let takes_value = arg.get_action().takes_values() && !arg.is_positional();
        command = command.mut_arg(id, |arg| {
            let arg = if empty { arg.env(None::<&'static str>) } else { arg };
            if takes_value { arg.allow_hyphen_values(true) } else { arg }
        });
    }
    let print = Arg::new(PRINT_CONFIG).long(PRINT_CONFIG).action(ArgAction::SetTrue);
    let print = print.help("Print the options, where each comes from, and exit").help_heading("More");
    let generate =
        Arg::new(GENERATE).long(GENERATE).exclusive(true).value_name("KIND").value_parser(value_parser!(Generated));
    let generate = generate.help("Print a man page, or the completions of a shell, and exit").help_heading("More");
    let mut command = command.arg(print).arg(generate);
    command.build();
    command
}

const PRINT_CONFIG: &str = "print-config";
const GENERATE: &str = "generate";

/// The value of `--generate`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Generated {
    Man,
    Bash,
    Elvish,
    Fish,
    Zsh,
}

/// Ends the process with status 2, and with one line that says what is wrong; or as clap does, with the help.
fn usage_error(name: &str, command: &Command, error: &clap::Error) -> ! {
    if !error.use_stderr() {
        error.exit();
    }
    let _ = writeln!(io::stderr(), "{name}: {}; see --help", one_line(error, command));
    std::process::exit(error.exit_code());
}

/// Prints `text`, and ends the process.
fn end(name: &str, text: io::Result<Vec<u8>>) -> ! {
    let printed = text.and_then(|text| io::stdout().write_all(&text));
    if let Err(error) = &printed {
        let _ = writeln!(io::stderr(), "{name}: standard output: {error}");
    }
    std::process::exit(i32::from(printed.is_err()));
}

/// Returns the man page of a server.
///
/// # Errors
/// None of the system's: the page is written to memory.
pub fn man<P: Parser>() -> io::Result<Vec<u8>> {
    generate(Generated::Man, command::<P>())
}

fn generate(kind: Generated, mut command: Command) -> io::Result<Vec<u8>> {
    let (name, mut text) = (command.get_name().to_owned(), Vec::new());
    let shell = match kind {
        Generated::Man => return clap_mangen::Man::new(command).render(&mut text).map(|()| text),
        Generated::Bash => Shell::Bash,
        Generated::Elvish => Shell::Elvish,
        Generated::Fish => Shell::Fish,
        Generated::Zsh => Shell::Zsh,
    };
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(text)
}

/// Returns a line for each option: as it would be given, and where it comes from. An option that is not there
/// is a comment.
fn print_config(command: &Command, matches: &ArgMatches) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let own = [PRINT_CONFIG, GENERATE, "help", "version"];
    for arg in command.get_arguments().filter(|arg| !own.contains(&arg.get_id().as_str())) {
        let id = arg.get_id().as_str();
        let name = arg.get_long().map_or_else(String::new, |long| format!("--{long}"));
        let source = match (matches.value_source(id), arg.get_env()) {
            (Some(ValueSource::EnvVariable), Some(variable)) => variable.to_string_lossy().into_owned(),
            (Some(ValueSource::CommandLine), _) => "command line".to_owned(),
            _ => "default".to_owned(),
        };
        if !arg.get_action().takes_values() {
            let comment = if matches.get_flag(id) { "" } else { "# " };
            writeln!(text, "{comment}{name}  # {source}")?;
            continue;
        }
        let Some(values) = matches.get_raw(id) else {
            writeln!(text, "# {name}  # not given")?;
            continue;
        };
        for value in values {
            let equals = if name.is_empty() { "" } else { "=" };
            writeln!(text, "{name}{equals}{}  # {source}", value.to_string_lossy())?;
        }
    }
    Ok(text)
}

/// Returns what is wrong with the arguments in one line, and with which variable if the value came from one.
fn one_line(error: &clap::Error, command: &clap::Command) -> String {
    let text = error.to_string();
    let reason = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = reason.split_whitespace().collect();
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => command.get_arguments().find(|arg| arg.to_string() == *argument),
        _ => None,
    };
    let option = argument.and_then(|arg| Some((arg.get_env()?.to_owned(), format!("--{}", arg.get_long()?))));
    let is_given = |option: &str| std::env::args().any(|arg| arg.split('=').next() == Some(option));
    let variable = option.filter(|(name, option)| std::env::var_os(name).is_some() && !is_given(option));
    let variable = variable.map_or_else(String::new, |(name, _)| format!(" (from {})", name.to_string_lossy()));
    words.join(" ") + &variable
}

/// The value of `--listen`: an address, or several with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressList(pub Vec<Address>);

impl FromStr for AddressList {
    type Err = ParseAddressError;

    /// A comma belongs to a Unix path if no address follows it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut addresses: Vec<Address> = Vec::new();
        for part in text.split(',') {
            match (part.parse(), addresses.last_mut()) {
                (Ok(address), _) => addresses.push(address),
                (Err(_), Some(Address::Unix(path))) => {
                    path.as_mut_os_string().push(",");
                    path.as_mut_os_string().push(part);
                }
                (Err(error), _) => return Err(error),
            }
        }
        Ok(AddressList(addresses))
    }
}

/// Reads the value of an option that is a time: `10s`, `500ms`, `2m`.
///
/// # Errors
/// A text that says what is wrong with it, and how it is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write 10s, 500ms or 2m"))
}

/// Reads the value of an option that is a time in which a client has to do something: above zero, or no client
/// ever could.
///
/// # Errors
/// A text that says what is wrong with it, and how it is written.
pub fn timeout(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| match time {
        Duration::ZERO => Err("no client can be as quick as that; write 10s, 500ms or 2m".to_owned()),
        time => Ok(time),
    })
}

/// The rights to the file of a Unix socket, as options; in the environment they are `POLLSTACK_UNIX_MODE` and
/// `POLLSTACK_UNIX_OWNER`.
#[derive(Clone, Debug, Default, Args)]
pub struct UnixFile {
    /// The mode of a Unix socket, in octal; clients need the right to write it
    #[arg(long, value_name = "MODE", value_parser = mode, env = "POLLSTACK_UNIX_MODE", help_heading = "Network")]
    unix_mode: Option<u32>,

    /// The owner of a Unix socket: USER, USER:GROUP or :GROUP, by name or number
    #[arg(long, value_name = "OWNER", value_parser = owners, env = "POLLSTACK_UNIX_OWNER", help_heading = "Network")]
    unix_owner: Option<Owners>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owners {
    user: Option<u32>,
    group: Option<u32>,
}

impl UnixFile {
    /// Returns the rights.
    pub fn rights(&self) -> FileRights {
        let rights = self.unix_mode.map_or_else(FileRights::default, |mode| FileRights::default().mode(mode));
        self.unix_owner.map_or(rights, |owners| rights.owners(owners.user, owners.group))
    }
}

fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "write three octal digits, as 660".to_owned())
}

fn owners(text: &str) -> Result<Owners, String> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    if user.is_empty() && group.is_empty() {
        return Err("write USER, USER:GROUP or :GROUP".to_owned());
    }
    let find = |kind: &str, name: &str, find: fn(&str) -> nix::Result<Option<u32>>| match (name, name.parse()) {
        ("", _) => Ok(None),
        (_, Ok(number)) => Ok(Some(number)),
        (name, Err(_)) => match find(name) {
            Ok(Some(number)) => Ok(Some(number)),
            Ok(None) => Err(format!("there is no {kind} {name}")),
            Err(error) => Err(format!("cannot look up the {kind} {name}: {error}")),
        },
    };
    let user = find("user", user, |name| Ok(User::from_name(name)?.map(|user| user.uid.as_raw())))?;
    let group = find("group", group, |name| Ok(Group::from_name(name)?.map(|group| group.gid.as_raw())))?;
    Ok(Owners { user, group })
}

/// Reads the value of an option that is a number above zero.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn positive<T: FromStr<Err: ToString> + Default + PartialEq>(text: &str) -> Result<T, String> {
    let number = text.parse().map_err(|error: T::Err| error.to_string())?;
    if number == T::default() { Err("at least 1 is needed".to_owned()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lost otherwise: a socket whose path has a comma in it, or the second of two addresses.
    #[test]
    fn a_comma_is_a_separator_or_a_part_of_a_path() {
        let list = |text: &str| text.parse().map(|AddressList(all)| all.iter().map(Address::to_string).collect());
        let parsed: Result<Vec<String>, _> = list("127.0.0.1:1,unix:/a,b,c,[::1]:2,unix:/d");
        assert_eq!(parsed.unwrap(), ["127.0.0.1:1", "unix:/a,b,c", "[::1]:2", "unix:/d"]);
        for wrong in ["", ",", "127.0.0.1:1,", "127.0.0.1:1,b", "unix:", "unix:@a"] {
            let parsed: Result<Vec<String>, _> = list(wrong);
            assert!(parsed.is_err(), "{wrong:?}");
        }
    }

    /// Lost otherwise: every client, to a time of zero.
    #[test]
    fn no_time_is_no_timeout() {
        assert_eq!(timeout("1ms"), Ok(Duration::from_millis(1)));
        for wrong in ["0s", "0", "-1s", "x"] {
            assert!(timeout(wrong).is_err(), "{wrong:?}");
        }
    }

    /// Lost otherwise: a socket that the wrong users can reach.
    #[test]
    fn owners_and_modes_are_names_or_numbers() {
        assert_eq!(mode("660"), Ok(0o660));
        assert_eq!(owners("root"), Ok(Owners { user: Some(0), group: None }));
        assert_eq!(owners("17:4242"), Ok(Owners { user: Some(17), group: Some(4242) }));
        assert_eq!(owners(":0"), Ok(Owners { user: None, group: Some(0) }));
        assert!(["", ":", "no-such-user", "0:no-such-group"].iter().all(|wrong| owners(wrong).is_err()));
        assert!(["", "9", "1777", "rw"].iter().all(|wrong| mode(wrong).is_err()));
    }

    /// Lost otherwise: a server that is started with a limit of zero, and serves no client.
    #[test]
    fn zero_is_not_positive() {
        assert_eq!(positive::<usize>("1"), Ok(1));
        for wrong in ["0", "-1", "", "x"] {
            assert!(positive::<usize>(wrong).is_err(), "{wrong:?}");
        }
    }
}
