//! A file with the forms of it that have been compressed before and lie beside it.

use super::coding::{Accepted, Coding};
use super::folder::Folder;
use super::media::Media;
use super::variant::{Found, Variant};
use std::io;
use std::rc::Rc;
use std::time::SystemTime;

/// All that there is of a file.
#[derive(Debug)]
pub(crate) struct Resource {
    plain: Rc<Variant>,
    gzip: Option<Rc<Variant>>,
    brotli: Option<Rc<Variant>>,
}

/// The file or folder at a path.
pub(crate) enum Place {
    File(Rc<Resource>),
    Folder,
    Other,
}

impl Resource {
    /// Opens what is at `path`. Variants that are `known` and unchanged are kept.
    pub(crate) fn open(
        folder: &Folder,
        path: &[u8],
        media: &Media,
        now: SystemTime,
        known: Option<&Resource>,
    ) -> io::Result<Place> {
        let known_plain = known.map(|known| &known.plain);
        let plain = match Variant::open(folder, path, |file| media.of(path, file), Coding::Plain, now, known_plain)? {
            Found::File(plain) => plain,
            Found::Folder => return Ok(Place::Folder),
            Found::Other => return Ok(Place::Other),
        };
        // One that is older has been made of something else.
        let beside = |coding: Coding, known: Option<&Rc<Variant>>| {
            let path = [path, coding.suffix().as_bytes()].concat();
            let known = known.filter(|known| known.media == plain.media);
            match Variant::open(folder, &path, |_| Rc::clone(&plain.media), coding, now, known) {
                Ok(Found::File(variant)) => Some(variant).filter(|variant| variant.is_current(&plain)),
                _ => None,
            }
        };
        let gzip = beside(Coding::Gzip, known.and_then(|known| known.gzip.as_ref()));
        let brotli = beside(Coding::Brotli, known.and_then(|known| known.brotli.as_ref()));
        Ok(Place::File(Rc::new(Resource { plain, gzip, brotli })))
    }

    /// Returns whether what a client gets depends on what it accepts.
    pub(crate) fn varies(&self) -> bool {
        self.gzip.is_some() || self.brotli.is_some()
    }

    /// Returns the variant that suits a client best.
    pub(crate) fn best(&self, accepted: impl FnOnce() -> Accepted) -> &Variant {
        if !self.varies() {
            return &self.plain;
        }
        let accepted = accepted();
        let choices = [(&self.gzip, accepted.gzip), (&self.brotli, accepted.brotli)];
        let choices = choices.into_iter().filter_map(|(variant, quality)| Some((variant.as_ref()?, quality)));
        let choices = choices.filter(|(_, quality)| *quality > 0 && *quality >= accepted.plain);
        choices.max_by_key(|(_, quality)| *quality).map_or(&self.plain, |(variant, _)| variant)
    }

    /// Returns how many files it may hold open.
    pub(crate) fn files(&self) -> usize {
        1 + usize::from(self.gzip.is_some()) + usize::from(self.brotli.is_some())
    }

    /// Returns the memory that its contents take.
    pub(crate) fn weight(&self) -> usize {
        let beside = self.gzip.iter().chain(&self.brotli).map(|variant| variant.weight());
        self.plain.weight() + beside.sum::<usize>()
    }
}
