//! The Hub as gdrd's commands use it: the client of gdrd-core, with the licences of public weights, and held to a lock.

mod cards;

use std::collections::BTreeMap;

use gdrd_core::error::Result;
use gdrd_core::observe::Observer;
use gdrd_core::recipe::{Fetch, HubAddress, HubFile, LockedFile};

pub use cards::{SourceCard, sources};
pub use gdrd_core::hub::{Hub, Proxies, Push, Pushed, Settings, Token, Url};

/// The Hub as these settings reach it, which says the licences of the weights that gdrd knows.
pub fn with_licences(settings: Settings) -> Hub {
    Hub::new(settings).with_licences(cards::licence)
}

/// The Hub for one run: files that a lock names are had at the commit that is locked, and must be the locked ones.
pub struct LockedHub {
    hub: Hub,
    locked: BTreeMap<String, LockedFile>,
}

impl LockedHub {
    /// The Hub as these settings reach it, held to `locked`, by address.
    pub fn new(settings: Settings, locked: BTreeMap<String, LockedFile>) -> Self {
        Self { hub: with_licences(settings), locked }
    }
}

impl Fetch for LockedHub {
    fn fetch(&self, address: &HubAddress, observer: &dyn Observer) -> Result<HubFile> {
        self.hub.get(address, self.locked.get(&address.to_string()), observer)
    }
}
