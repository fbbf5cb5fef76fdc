//! Files for accio.

use crate::baseline::CONFIRMATIONS;
use crate::servers::Instance;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};

/// Sends a file of so many MiB, and waits until the server has counted it.
pub(crate) fn upload(target: &Instance, mebibytes: usize) -> io::Result<()> {
    let mut stream = TcpStream::connect(target.address)?;
    stream.write_all(CONFIRMATIONS)?;
    stream.read_exact(&mut [0; 14])?;
    let part = vec![0xA5; 256 * 1024];
    for _ in 0..mebibytes * 4 {
        stream.write_all(&part)?;
    }
    stream.shutdown(Shutdown::Write)?;
    let counted = target.server.line();
    if counted == (mebibytes << 20).to_string() {
        Ok(())
    } else {
        Err(io::Error::other(format!("it counted {counted}")))
    }
}
