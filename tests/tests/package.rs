//! The Debian package of the program under test, made as `cargo xtask deb` makes it but for the
//! compression.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::scratch::Scratch;
use tests::{binary, command, need, wait};

/// What a service takes; all but the program is to be read.
const PROGRAM: &str = "/usr/bin/pipestall";
/// For packing, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);
const FILES: [&str; 12] = [
    "/etc/pipestall/pipestall.toml",
    "/usr/lib/systemd/system/pipestall.service",
    "/usr/lib/sysusers.d/pipestall.conf",
    "/usr/share/bash-completion/completions/pipestall",
    "/usr/share/zsh/vendor-completions/_pipestall",
    "/usr/share/fish/vendor_completions.d/pipestall.fish",
    "/usr/share/man/man1/pipestall.1.gz",
    "/usr/share/man/man1/pipestall-check-config.1.gz",
    "/usr/share/doc/pipestall/copyright",
    "/usr/share/doc/pipestall/changelog.Debian.gz",
    "/usr/share/doc/pipestall/examples/pipestall.rules.yml",
    "/usr/share/doc/pipestall/examples/pipestall.json",
];

#[test]
fn the_debian_package_has_all_that_a_service_takes_and_makes_its_group() {
    let cargo_deb = need!(need::cargo_deb());
    let dpkg_deb = need!(need::on_path("dpkg-deb"));
    let scratch = Scratch::new();
    let package = Package {
        file: packed(&cargo_deb, &scratch),
        dpkg_deb,
    };

    let fields = package.ask(&["--field"], &[]);
    for field in [
        "Package: pipestall\n",
        "Depends: libc6",
        "systemd-standalone-sysusers",
    ] {
        assert!(fields.contains(field), "{field}\n{fields}");
    }
    assert_has_its_files(&package.ask(&["--contents"], &[]));
    let scripts = scratch.path("scripts");
    package.ask(&["--control"], &[&scripts]);
    assert_sets_up_and_cleans_up(&scripts);
    let root = scratch.path("root");
    package.ask(&["--extract"], &[&root]);
    assert_works_where_it_is_unpacked(&root);
}

struct Package {
    file: PathBuf,
    dpkg_deb: PathBuf,
}

impl Package {
    #[track_caller]
    fn ask(&self, what: &[&str], rest: &[&Path]) -> String {
        let mut command = Command::new(&self.dpkg_deb);
        let done = command::run(command.args(what).arg(&self.file).args(rest), wait::PATIENCE);
        done.expect_code(0);
        done.stdout
    }
}

/// Packs the program under test.
fn packed(cargo_deb: &Path, scratch: &Scratch) -> PathBuf {
    let release = scratch.path("target/release");
    fs::create_dir_all(&release).expect("a target directory");
    let program = release.join("pipestall");
    fs::copy(binary::pipestall(), &program).expect("the program");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let manual = workspace.join("target/manual");
    command::run(Command::new(&program).arg("manual").arg(manual), wait::PATIENCE).expect_code(0);
    let file = scratch.path("pipestall.deb");
    let mut command = Command::new(cargo_deb);
    command
        .args(["--package", "probe-user", "--no-build", "--offline", "--fast"])
        .arg("--output")
        .arg(&file)
        .env("CARGO_TARGET_DIR", scratch.path("target"))
        .current_dir(workspace);
    command::run(&mut command, PATIENCE).expect_code(0);
    file
}

fn assert_has_its_files(listing: &str) {
    let files: Vec<(&str, &str)> = listing
        .lines()
        .filter(|line| !line.ends_with('/'))
        .map(|line| {
            assert!(line.contains(" 0/0 ") || line.contains(" root/root "), "{line}");
            let path = line.rsplit(' ').next().expect("a path");
            (path.trim_start_matches('.'), &line[..10])
        })
        .collect();
    let executable: Vec<_> = files.iter().filter(|(_, mode)| mode.contains('x')).collect();
    assert_eq!(executable, [&(PROGRAM, "-rwxr-xr-x")]);
    for expected in FILES {
        let found = files.iter().find(|(path, _)| *path == expected);
        assert_eq!(
            found.map(|(_, mode)| *mode),
            Some("-rw-r--r--"),
            "{expected}\n{listing}"
        );
    }
    // What is kept is made by the unit, in the place that it names.
    assert!(!listing.contains("./var/"), "{listing}");
}

fn assert_sets_up_and_cleans_up(scripts: &Path) {
    let script = |name: &str| fs::read_to_string(scripts.join(name)).expect(name);
    assert_eq!(script("conffiles").trim(), "/etc/pipestall/pipestall.toml");
    let after = script("postinst");
    let steps = ["systemd-sysusers", "enable pipestall.service", "_dh_action=start"];
    let places = steps.map(|step| after.find(step));
    assert!(
        places[0].is_some() && places.is_sorted(),
        "{steps:?}, in this order: {after}"
    );
    assert!(script("prerm").contains("stop pipestall.service"));
    assert!(script("postrm").contains("rm -rf /var/lib/pipestall"));
}

fn assert_works_where_it_is_unpacked(root: &Path) {
    let copyright = fs::read_to_string(root.join("usr/share/doc/pipestall/copyright")).expect("a copyright");
    for licence in [
        "Expat or Apache-2.0",
        "Permission is hereby granted",
        "common-licenses/Apache-2.0",
    ] {
        assert!(copyright.contains(licence), "{licence}\n{copyright}");
    }
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    for (installed, shipped) in [
        ("etc/pipestall/pipestall.toml", "pipestall.toml"),
        ("usr/lib/systemd/system/pipestall.service", "pipestall.service"),
    ] {
        let installed = fs::read(root.join(installed)).expect(installed);
        assert!(
            installed == fs::read(deploy.join(shipped)).expect(shipped),
            "{shipped}"
        );
    }
    let checked = command::run(
        Command::new(root.join(&PROGRAM[1..]))
            .arg("check-config")
            .arg(root.join("etc/pipestall/pipestall.toml")),
        wait::PATIENCE,
    );
    let summary = &checked.expect_code(0).stdout;
    assert!(summary.contains("kill (dry-run)"), "{summary}");
    if let Ok(sysusers) = need::on_path("systemd-sysusers") {
        let mut command = Command::new(sysusers);
        command
            .arg(format!("--root={}", root.display()))
            .arg("pipestall.conf");
        command::run(&mut command, wait::PATIENCE).expect_code(0);
        let groups = fs::read_to_string(root.join("etc/group")).expect("groups");
        assert!(
            groups.lines().any(|line| line.starts_with("pipestall:")),
            "{groups}"
        );
    }
}
