//! What the README says that the code knows: the keys of `top`.

use std::{env, fs, path::Path};

use probe_user::tui::keys;

const BEGIN: &str = "<!-- keys: made by the test `readme`, PIPESTALL_BLESS=1 writes them anew -->\n";
const END: &str = "<!-- /keys -->\n";

#[test]
fn the_readme_lists_the_keys_that_there_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("a place for the keys");
    let (listed, after) = rest.split_once(END).expect("the end of the keys");
    let keys = format!("\n{}\n", keys::markdown());
    if env::var_os("PIPESTALL_BLESS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{keys}{END}{after}")).expect("the README is written");
        return;
    }
    assert_eq!(listed, keys, "run this test with PIPESTALL_BLESS=1");
}
