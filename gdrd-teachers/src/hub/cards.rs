//! What is known of public weights: where they are, how large, under which licence, for what.

use gdrd_core::error::{Error, Result};
use gdrd_core::recipe::HubAddress;
use serde::Deserialize;

/// Public weights, as `assets/sources/NAME.toml` describes them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceCard {
    /// The file's name without `.toml`.
    #[serde(skip)]
    pub name: String,
    /// What recipes name, or a web address for files that are not on the Hub and are downloaded by hand.
    pub address: String,
    /// A commit that is known to hold it.
    pub revision: Option<String>,
    /// The kind of teacher that reads it.
    pub kind: String,
    /// The size, as its listing gives it.
    pub size: String,
    /// The licence, as its repository names it, or what is known of it.
    pub licence: String,
    /// What the licence or its owner demands, as far as we know.
    pub terms: String,
    /// What it is, and what it is for.
    pub purpose: String,
}

macro_rules! cards {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../assets/sources/", $name, ".toml")))),*]
    };
}

const CARDS: [(&str, &str); 16] = cards![
    "adaface-ir101-webface12m",
    "adaface-ir18-casia",
    "adaface-ir50-casia",
    "adaface-ir50-ms1mv2",
    "arcface-ir101-webface4m",
    "arcface-r100-glint360k",
    "arcface-r100-ms1mv3",
    "arcface-r50-ms1mv3",
    "auraface",
    "buffalo-l",
    "ddpm-celebahq-256",
    "ddpm-ema-celebahq-256",
    "difface-ffhq-256",
    "guided-diffusion-256",
    "pgdiff-ffhq-512",
    "sd-vae-ft-mse",
];

/// The cards of all public weights that gdrd knows, by name.
///
/// # Errors
/// Never for the cards of this version; a test reads them.
pub fn sources() -> Result<Vec<SourceCard>> {
    let card = |(name, text): &(&str, &str)| -> Result<SourceCard> {
        let card = toml::from_str(text).map_err(|e| Error::data(format!("source card `{name}`: {e}")))?;
        Ok(SourceCard { name: name.to_string(), ..card })
    };
    CARDS.iter().map(card).collect()
}

/// Licence and terms of a file, whatever its revision.
pub(super) fn licence(address: &HubAddress) -> Option<String> {
    let plain = HubAddress { revision: None, ..address.clone() }.to_string();
    let card = sources().ok()?.into_iter().find(|card| card.address == plain)?;
    Some(format!("{}; {}", card.licence, card.terms))
}

#[cfg(test)]
mod tests {
    use gdrd_core::recipe::HUB_SCHEME;

    use super::*;

    #[test]
    fn every_card_is_read_and_says_everything() {
        let cards = sources().expect("cards");
        for card in &cards {
            let facts = [&card.kind, &card.size, &card.licence, &card.terms, &card.purpose];
            assert!(facts.iter().all(|fact| !fact.is_empty()), "{card:?}");
            match card.address.starts_with(HUB_SCHEME) {
                true => assert_eq!(card.address.parse::<HubAddress>().expect("an address").to_string(), card.address),
                false => assert!(card.address.starts_with("https://"), "{card:?}"),
            }
        }
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        assert!(names.is_sorted(), "{names:?}");
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/sources");
        let files = std::fs::read_dir(folder).expect("cards").filter(|file| {
            file.as_ref().is_ok_and(|file| file.path().extension().is_some_and(|ending| ending == "toml"))
        });
        assert_eq!(files.count(), names.len(), "every card of the folder is listed");
    }

    #[test]
    fn the_licence_does_not_depend_on_the_revision() {
        let address = "hf://fal/AuraFace-v1@abc/glintr100.onnx".parse().expect("an address");
        assert!(licence(&address).expect("a card").starts_with("apache-2.0; "));
        assert_eq!(licence(&"hf://nobody/nothing/x".parse().expect("an address")), None);
    }
}
