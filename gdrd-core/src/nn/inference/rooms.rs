//! Where the maps of a network lie: which layers a thread takes some images through, and which maps share a room.

use std::ops::Range;

use super::{Layer, Map, Operation};

/// Layers in a row.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) layers: Range<usize>,
    /// Whether a thread takes some images through all of them, instead of all threads all images through one after the other.
    pub(super) by_image: bool,
}

/// Values of a layer's weight from which on all threads share the layer, since each would have to read the weight otherwise.
const SHARED: usize = 1 << 17;

/// Bytes of maps that a thread keeps in its cache while it takes images through a stretch.
pub(super) const CACHED: usize = 512 << 10;

fn stretches(layers: &[Layer]) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        let by_image = !matches!(&layer.kind, Operation::Conv(layer) if layer.weight_len() >= SHARED);
        match stretches.last_mut() {
            Some(last) if last.by_image == by_image => last.layers.end = at + 1,
            _ => stretches.push(Stretch { layers: at..at + 1, by_image }),
        }
    }
    stretches
}

/// Values that a map of one image takes, whichever way it lies.
fn room(map: &Map) -> usize {
    map.pixel_values(1).max(map.values())
}

/// The rooms in which a map's values lie.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Places {
    /// For all images.
    pub(super) shared: Option<usize>,
    /// Of a thread, for the images that it takes through a stretch.
    pub(super) own: Option<usize>,
}

/// Rooms while they are given to maps: for each the values of an image that it holds.
#[derive(Default)]
struct Rooms {
    sizes: Vec<usize>,
    free: Vec<usize>,
}

impl Rooms {
    fn take(&mut self, map: &Map) -> usize {
        let place = self.free.pop().unwrap_or_else(|| {
            self.sizes.push(0);
            self.sizes.len() - 1
        });
        self.sizes[place] = room(map).max(self.sizes[place]);
        place
    }

    fn free(&mut self, place: usize) {
        self.free.push(place);
    }

    fn free_all(&mut self) {
        self.free = (0..self.sizes.len()).collect();
    }
}

/// The stretches of a network, the places of its maps, and the values of an image that each shared room and each room of a thread
/// holds.
pub(super) fn arranged(input: Map, layers: &[Layer], output: Map) -> (Vec<Stretch>, Vec<Places>, [Vec<usize>; 2]) {
    let stretches = stretches(layers);
    let read_by = |layer: &Layer, map: Map| [Some(layer.x), layer.add].iter().flatten().any(|x| x.at == map.at);
    let last = |map: Map| layers.iter().rposition(|layer| read_by(layer, map)).unwrap_or(0);
    let mut places = vec![Places::default(); layers.len() + 1];
    let (mut shared, mut own) = (Rooms::default(), Rooms::default());
    places[0].shared = Some(shared.take(&input));
    for stretch in &stretches {
        own.free_all();
        for at in stretch.layers.clone() {
            let layer = &layers[at];
            let outlives = layer.y.at == output.at || last(layer.y) >= stretch.layers.end;
            let y = &mut places[layer.y.at];
            y.own = stretch.by_image.then(|| own.take(&layer.y));
            y.shared = (outlives || !stretch.by_image).then(|| shared.take(&layer.y));
            // Maps that nothing needs any more give their place to later ones.
            let add = layer.add.filter(|add| add.at != layer.x.at);
            for map in [Some(layer.x), add].into_iter().flatten() {
                let next = layers[at + 1..stretch.layers.end].iter().any(|layer| read_by(layer, map));
                // The rooms of another stretch are no concern of this one.
                if let (false, true, Some(place)) = (next, map.at > stretch.layers.start, places[map.at].own) {
                    own.free(place);
                }
                if !stretch.by_image && last(map) == at && map.at != output.at {
                    places[map.at].shared.into_iter().for_each(|place| shared.free(place));
                }
            }
        }
        // Of maps that threads share, when all have passed the stretch.
        let over = |at: &usize| {
            let map = if *at == 0 { input } else { layers[*at - 1].y };
            stretch.by_image && map.at != output.at && stretch.layers.contains(&last(map))
        };
        (0..stretch.layers.end).filter(over).filter_map(|at| places[at].shared).for_each(|place| shared.free(place));
    }
    (stretches, places, [shared.sizes, own.sizes])
}
