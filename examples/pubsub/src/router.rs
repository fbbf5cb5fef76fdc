//! The table of handlers: by method, and by a pattern of the path with parameters in it.

use percent_encoding::percent_decode_str;
use pollstack::http::Status;
use std::borrow::Cow;
use std::error::Error;
use std::fmt::Display;
use std::str::FromStr;

/// The handlers of a server, whatever they are.
#[derive(Debug)]
pub(crate) struct Router<H> {
    patterns: matchit::Router<Vec<(&'static str, H)>>,
}

/// Why a request is not served as it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is the client's fault, or the server is full: a status, the reason, and a header field
    /// that goes with the status.
    Rejected(Status, Cow<'static, str>, Option<(&'static str, String)>),
    /// Something broke. The client is told no more than that.
    Broken(Box<dyn Error>),
}

impl Failure {
    pub(crate) fn rejected(status: Status, why: impl Into<Cow<'static, str>>) -> Failure {
        Failure::Rejected(status, why.into(), None)
    }

    pub(crate) fn bad(why: impl Into<Cow<'static, str>>) -> Failure {
        Failure::rejected(Status::BAD_REQUEST, why)
    }
}

/// There is no room for one more.
pub(crate) fn busy(why: &'static str) -> Failure {
    Failure::Rejected(Status::SERVICE_UNAVAILABLE, why.into(), Some(("Retry-After", "2".to_owned())))
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure::Broken(Box::new(error))
    }
}

impl<H: Copy> Router<H> {
    /// A table of methods, patterns and handlers; those of a pattern stand together.
    pub(crate) fn new(table: &[(&'static str, &'static str, H)]) -> Result<Self, matchit::InsertError> {
        let mut patterns = matchit::Router::new();
        for routes in table.chunk_by(|one, other| one.1 == other.1) {
            let handlers = routes.iter().map(|(method, _, handler)| (*method, *handler)).collect();
            patterns.insert(routes.first().map_or("", |route| route.1), handlers)?;
        }
        Ok(Router { patterns })
    }

    /// Returns the handler of a request, and the parameters in its path.
    pub(crate) fn find<'a>(&'a self, method: &str, path: &'a str) -> Result<(H, Parameters<'a>), Failure> {
        let found =
            self.patterns.at(path).map_err(|_| Failure::rejected(Status::NOT_FOUND, "There is nothing here."))?;
        match found.value.iter().find(|(other, _)| *other == method) {
            Some((_, handler)) => Ok((*handler, Parameters(found.params))),
            None => {
                let methods: Vec<&str> = found.value.iter().map(|(method, _)| *method).collect();
                let allow = Some(("Allow", methods.join(", ")));
                Err(Failure::Rejected(Status::METHOD_NOT_ALLOWED, "That cannot be done to it.".into(), allow))
            }
        }
    }
}

/// The parameters in a path.
#[derive(Debug)]
pub(crate) struct Parameters<'a>(matchit::Params<'a, 'a>);

impl Parameters<'_> {
    /// A parameter, decoded once, as what it is to be.
    pub(crate) fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, Failure> {
        let text = self.0.get(name).unwrap_or_default();
        parse(name, &percent_decode_str(text).decode_utf8_lossy())
    }
}

/// The parameters behind the `?`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query<'a>(pub Option<&'a str>);

impl Query<'_> {
    /// Returns the first parameter of a name, if there is one, as what it is to be.
    pub(crate) fn get<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Failure> {
        let mut pairs = form_urlencoded::parse(self.0.unwrap_or_default().as_bytes());
        pairs.find(|(other, _)| other == name).map(|(_, value)| parse(name, &value)).transpose()
    }
}

/// Parses a parameter that a client has given; 400 if it is not valid.
pub(crate) fn parse<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::bad(format!("{name}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(failure: Failure) -> (u16, Option<String>) {
        match failure {
            Failure::Rejected(status, _, field) => (status.code(), field.map(|(_, value)| value)),
            Failure::Broken(error) => panic!("{error}"),
        }
    }

    /// Lost otherwise: a handler, to one of another path or method.
    #[test]
    fn handlers_are_found_by_method_and_pattern() {
        let table = [("GET", "/", 1), ("GET", "/a/{n}", 2), ("POST", "/a/{n}", 3), ("GET", "/a/{n}/b", 4)];
        let router = Router::new(&table).unwrap();
        let find = |method, path| router.find(method, path).map(|(handler, _)| handler).map_err(status);
        assert_eq!(find("GET", "/"), Ok(1));
        assert_eq!(find("POST", "/a/7"), Ok(3));
        assert_eq!(find("GET", "/a/7/b"), Ok(4));
        assert_eq!(find("get", "/a/7"), Err((405, Some("GET, POST".to_owned()))));
        for path in ["", "/a", "/a/", "/a/7/", "/a/7/b/c", "//", "*"] {
            assert_eq!(find("GET", path), Err((404, None)), "{path}");
        }
        assert!(Router::new(&[("GET", "/{a}", 1), ("GET", "/{b}", 2)]).is_err(), "two of the same pattern");
    }

    /// Lost otherwise: a number that is not the one in the path.
    #[test]
    fn parameters_are_what_they_are_to_be() {
        let router = Router::new(&[("GET", "/a/{n}", ())]).unwrap();
        let n = |path| router.find("GET", path).unwrap().1.get::<u64>("n").map_err(status);
        assert_eq!((n("/a/7"), n("/a/%37")), (Ok(7), Ok(7)));
        for path in ["/a/x", "/a/-7", "/a/%2537", "/a/%ff", "/a/7%00"] {
            assert_eq!(n(path), Err((400, None)), "{path}");
        }
        let query = |text| Query(text).get::<u64>("after").map_err(status);
        assert_eq!(
            (query(None), query(Some("x=1")), query(Some("x&after=7&after=8"))),
            (Ok(None), Ok(None), Ok(Some(7)))
        );
        assert_eq!((query(Some("after=")), query(Some("after"))), (Err((400, None)), Err((400, None))));
    }
}
