use candle_core::Device;

use super::*;
use crate::data::Keys;
use crate::plugin::Workbench;

fn tree(people: &[(&str, usize)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (person, count) in people {
        let home = folder.path().join(person);
        std::fs::create_dir(&home).expect("a person");
        for number in 1..=*count {
            let image = image::RgbImage::from_pixel(8, 8, image::Rgb([number as u8, 0, 0]));
            image.save(home.join(format!("{person}_{number:04}.png"))).expect("an image");
        }
    }
    folder
}

fn config(folder: &Path, min_images: usize) -> IdentityFolders {
    IdentityFolders {
        folders: vec![RecipePath::from(folder)],
        size: Some(8),
        exif_orientation: true,
        min_images,
        same_name: SameName::Apart,
        low_resolution: false,
        unreadable: Unreadable::Refuse,
    }
}

fn built(config: &IdentityFolders) -> Result<Box<dyn Dataset>> {
    config.build(&BuildContext::new(&Workbench::new(Device::Cpu)))
}

#[test]
fn people_are_identities_and_pairs_are_found_by_name() {
    let folder = tree(&[("Ann", 2), ("Bob_Lee", 1)]);
    let data = built(&config(folder.path(), 1)).expect("dataset");
    assert_eq!((data.len(), data.people().len()), (3, 2));
    let keys = Keys::of(&*data);
    assert_eq!(keys.find("Bob_Lee/Bob_Lee_0001", &*data).expect("one"), Some(2));
    assert_eq!(keys.find("Bob_Lee/Bob_Lee_0002", &*data).expect("none"), None);
    assert_eq!(data.face(1).expect("face").pixels()[0], 2);
}

#[test]
fn someone_with_too_few_images_is_named() {
    let folder = tree(&[("Ann", 2), ("Bob", 1)]);
    let error = built(&config(folder.path(), 2)).err().expect("one image").to_string();
    assert!(error.contains("`Bob` (1)"), "{error}");
    // What cannot be read does not count, and what lies in another folder does.
    std::fs::write(folder.path().join("Ann/Ann_0002.png"), "no image").expect("written");
    let skipping = IdentityFolders { unreadable: Unreadable::Skip, ..config(folder.path(), 2) };
    let error = built(&skipping).err().expect("one image each").to_string();
    assert!(error.contains("2 people") && error.contains("`Ann` (1)"), "{error}");
    let more = tree(&[("Bob", 3)]);
    let folder = tree(&[("Ann", 2), ("Bob", 1)]);
    let folders = vec![RecipePath::from(folder.path()), RecipePath::from(more.path())];
    let both = IdentityFolders { folders, same_name: SameName::OnePerson, ..config(folder.path(), 2) };
    assert_eq!(built(&both).expect("two people").len(), 6);
}

#[test]
fn what_is_no_image_is_passed_over_and_counted() {
    let folder = tree(&[("Ann", 1), ("Bob", 1)]);
    let write = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("inside")).expect("a folder");
        std::fs::write(path, "no image").expect("written");
    };
    let image = std::fs::read(folder.path().join("Ann/Ann_0001.png")).expect("an image");
    for name in ["Ann_0002.JFIF", "Ann_0003.jpe", "Ann_0004.webp"] {
        std::fs::write(folder.path().join("Ann").join(name), &image).expect("written");
    }
    for hidden in ["Ann/._Ann_0001.jpg", ".DS_Store", ".ipynb_checkpoints/x.jpg", "__MACOSX/y.jpg", "Bob/.z.png"] {
        write(hidden);
    }
    let quiet = built(&config(folder.path(), 1)).expect("dataset");
    assert_eq!((quiet.len(), quiet.people().len(), quiet.notes().len()), (5, 2, 0), "{:?}", quiet.notes());
    ["list.txt", "Ann/a.avif", "Bob/deep/b.jpg", "Bob/c.tif"].iter().for_each(|name| write(name));
    let data = built(&config(folder.path(), 1)).expect("dataset");
    assert_eq!(data.len(), 5);
    let [note] = data.notes() else { panic!("{:?}", data.notes()) };
    assert!(note.contains(": 4: ") && note.contains("a.avif`") && note.contains("deep`"), "{note}");
}

#[test]
fn an_empty_folder_and_a_missing_one_are_errors() {
    let folder = tree(&[]);
    assert!(built(&config(folder.path(), 1)).is_err());
    let error = built(&config(&folder.path().join("gone"), 1)).err().expect("missing").to_string();
    assert!(error.contains("gone"), "{error}");
}

#[test]
fn people_of_one_name_are_two_or_one_as_the_recipe_says() {
    let (a, b) = (tree(&[("Ann", 2)]), tree(&[("Ann", 1), ("Bob", 1)]));
    let both = |same_name| IdentityFolders {
        folders: vec![RecipePath::from(a.path()), RecipePath::from(b.path())],
        same_name,
        ..config(a.path(), 1)
    };
    let apart = built(&both(SameName::Apart)).expect("a dataset");
    assert_eq!(apart.people(), ["Ann", "Ann", "Bob"]);
    // A list that says `Ann 1` cannot mean both.
    let error = Keys::of(&*apart).find("Ann/Ann_0001", &*apart).expect_err("two").to_string();
    let (first, second) = (a.path().join("Ann/Ann_0001.png"), b.path().join("Ann/Ann_0001.png"));
    assert!(error.contains(&*first.to_string_lossy()) && error.contains(&*second.to_string_lossy()), "{error}");
    let one = built(&both(SameName::OnePerson)).expect("a dataset");
    assert_eq!(one.people(), ["Ann", "Bob"]);
    assert_eq!((0..4).map(|index| one.person(index)).collect::<Vec<_>>(), [0, 0, 0, 1].map(Some));
}

#[cfg(unix)]
#[test]
fn names_that_differ_in_bytes_alone_are_not_one_person_without_a_word() {
    let tree = tree(&[("Zo\u{eb}", 2), ("Zoe\u{308}", 2), ("Ann", 2)]);
    let error = built(&config(tree.path(), 1)).err().expect("one name").to_string();
    assert!(error.contains("are one name as text"), "{error}");
    let joined = IdentityFolders { same_name: SameName::OnePerson, ..config(tree.path(), 1) };
    assert_eq!(built(&joined).expect("two people").people().len(), 2);
}

#[test]
fn one_folder_is_one_person() {
    let folder = tree(&[("Ann", 2), ("Bob", 1)]);
    std::os::unix::fs::symlink("Ann", folder.path().join("Cleo")).expect("a link");
    let error = built(&config(folder.path(), 1)).err().expect("one folder twice").to_string();
    assert!(error.contains("Ann`") && error.contains("Cleo` are one folder"), "{error}");
    std::fs::remove_file(folder.path().join("Cleo")).expect("removed");
    let twice = vec![RecipePath::from(folder.path()), RecipePath::from(folder.path())];
    let error = built(&IdentityFolders { folders: twice, ..config(folder.path(), 1) }).err().expect("twice");
    assert!(error.to_string().contains("is listed twice, expected each folder once"), "{error}");
    // A selection of people by links is as good as the people.
    let chosen = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(folder.path().join("Ann"), chosen.path().join("Ann")).expect("a link");
    assert_eq!(built(&config(chosen.path(), 1)).expect("a dataset").len(), 2);
    // A link that leads nowhere is no image that one may pass over.
    std::os::unix::fs::symlink("gone.png", folder.path().join("Bob/Bob_0002.png")).expect("a link");
    let error = built(&config(folder.path(), 1)).err().expect("no file").to_string();
    assert!(error.contains("Bob_0002.png"), "{error}");
}

#[test]
fn the_record_follows_the_bytes() {
    let (a, b) = (tree(&[("Ann", 2)]), tree(&[("Ann", 2)]));
    let print = |folder: &tempfile::TempDir| {
        let bench = Workbench::new(Device::Cpu);
        let cx = BuildContext::new(&bench);
        config(folder.path(), 1).build(&cx).expect("data");
        cx.record().files.into_values().collect::<Vec<_>>()
    };
    assert_eq!(print(&a), print(&b));
    std::fs::copy(a.path().join("Ann/Ann_0001.png"), a.path().join("Ann/Ann_0002.png")).expect("copy");
    assert_ne!(print(&a), print(&b));
}
