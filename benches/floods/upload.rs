//! Files for accio.

use crate::servers::Target;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

pub(crate) const CONFIRMATIONS: &[u8] = b"confirm-accio\r\nconfirm-accio-again\r\n\r\n";

/// Sends a file of so many MiB, and waits until the server has counted it.
pub(crate) fn upload(target: &Target, mebibytes: usize) {
    let mut stream = TcpStream::connect(target.address).expect("the server accepts");
    stream.write_all(CONFIRMATIONS).expect("the server reads");
    stream.read_exact(&mut [0; 14]).expect("the server commands");
    let part = vec![0xA5; 256 * 1024];
    for _ in 0..mebibytes * 4 {
        stream.write_all(&part).expect("the server reads");
    }
    stream.shutdown(Shutdown::Write).expect("an end");
    assert_eq!(target.server.line(), (mebibytes << 20).to_string(), "every byte is counted");
}
