//! The common parts of the Rust peers: their arguments, the listening socket and the bytes of the protocol.

use std::env;
use std::io::{self, Write};
use std::net::SocketAddr;

/// Connections that the kernel keeps until they are accepted.
pub const BACKLOG: u32 = 4096;

/// Returns the first argument.
pub fn address() -> Result<SocketAddr, Box<dyn std::error::Error>> {
    Ok(env::args().nth(1).ok_or("an address to listen on is missing, 127.0.0.1:0 for example")?.parse()?)
}

/// The benchmark waits for this line before it connects.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    println!("listening on {address}");
    io::stdout().flush()
}

/// A listening socket for mio, whose own bind asks for a backlog of 128. The connections inherit
/// TCP_NODELAY from it, which saves a system call for each.
pub fn listen(address: SocketAddr) -> io::Result<mio::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG as i32)?;
    Ok(mio::net::TcpListener::from_std(socket.into()))
}

/// The stack protocol, doc/protocol.md of the main package.
pub mod stack {
    use std::env;
    use std::num::ParseIntError;
    use std::sync::OnceLock;
    use std::time::Duration;

    /// Items on the stack.
    pub const CAPACITY: usize = 100;
    /// The byte for a client that is one too many.
    pub const BUSY: &[u8] = &[0xFF];

    /// Returns the second argument: how many clients are served at the same time.
    pub fn max_clients() -> Result<usize, ParseIntError> {
        env::args().nth(2).map_or(Ok(100), |argument| argument.parse())
    }

    /// Returns the third argument: for how many seconds the oldest client is safe from newcomers.
    pub fn evict_after() -> Duration {
        static SECONDS: OnceLock<f64> = OnceLock::new();
        let given = || env::args().nth(3).and_then(|argument| argument.parse().ok());
        Duration::from_secs_f64(*SECONDS.get_or_init(|| given().unwrap_or(10.0)))
    }

    /// A header and up to 127 bytes: a request, or what answers one. Push requests and pop
    /// responses have the same form, so an item goes out in the bytes in which it came in.
    #[derive(Clone, Copy)]
    pub struct Frame(pub [u8; 128]);

    pub enum Request {
        Push,
        Pop,
    }

    impl Frame {
        pub const EMPTY: Frame = Frame([0; 128]);
        /// The response to a push is a header that announces nothing.
        pub const STORED: Frame = Frame::EMPTY;

        /// The content of a frame of which `len` bytes have come: `None` if more must follow, an error
        /// if it is a push of nothing.
        pub fn request(&self, len: usize) -> Option<Result<Request, ()>> {
            match self.0[0] {
                _ if len == 0 => None,
                0 => Some(Err(())),
                0x80.. => Some(Ok(Request::Pop)),
                header if len > usize::from(header) => Some(Ok(Request::Push)),
                _ => None,
            }
        }

        pub fn bytes(&self) -> &[u8] {
            &self.0[..=usize::from(self.0[0])]
        }
    }
}
