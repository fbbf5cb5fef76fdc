//! A stream that blocks, encrypted or not.

use std::fmt::Debug;
use std::io::{Read, Write};

/// A stream that blocks.
pub(super) trait Duplex: Read + Write + Debug {}

impl<T: Read + Write + Debug> Duplex for T {}
