//! What is shipped beside the program: configurations, manifests, the manual.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::scratch::Scratch;
use tests::{binary, command, need, wait};

/// Checks each manifest of the files that it is given.
const CHECK: &str = r"
import sys, yaml, kubernetes_validate
for path in sys.argv[1:]:
    for manifest in yaml.safe_load_all(open(path)):
        kubernetes_validate.validate(manifest, '1.30', strict=True)
";

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

#[test]
fn the_configurations_that_are_installed_are_valid_and_end_nothing() {
    for name in ["pipestall.toml", "kubernetes/pipestall.toml"] {
        let done = command::run(
            Command::new(binary::pipestall())
                .arg("check-config")
                .arg(deployed(name)),
            wait::PATIENCE,
        );
        done.expect_code(0);
        assert!(!done.stdout.contains("warning:"), "{name}: {}", done.stdout);
        assert!(done.stdout.contains("kill (dry-run)"), "{name}: {}", done.stdout);
        assert!(!done.stdout.contains("(enforce)"), "{name}: {}", done.stdout);
    }
}

#[test]
fn the_kubernetes_manifests_fit_the_schemas_of_the_api() {
    let python = need!(need::on_path("python3"));
    let is_there = command::run(
        Command::new(&python).args(["-c", "import kubernetes_validate"]),
        wait::PATIENCE,
    );
    if !is_there.status.success() {
        return need::skip("the Python package kubernetes-validate is not installed");
    }
    let done = command::run(
        Command::new(&python)
            .args(["-c", CHECK])
            .args(["namespace.yaml", "daemonset.yaml"].map(|name| deployed(&format!("kubernetes/{name}")))),
        wait::PATIENCE,
    );
    done.expect_code(0);
    // And it asks for no more than the unit does.
    let manifest = fs::read_to_string(deployed("kubernetes/daemonset.yaml")).expect("the manifest");
    let unit = fs::read_to_string(deployed("pipestall.service")).expect("the unit");
    let capabilities = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("capabilities");
    let list: Vec<String> = capabilities
        .split(' ')
        .map(|name| format!("{:?}", name.trim_start_matches("CAP_")))
        .collect();
    assert!(
        manifest.contains(&format!("add: [{}]", list.join(", "))),
        "{list:?}"
    );
}

#[test]
fn the_manual_has_a_page_for_each_command_and_completions_for_three_shells() {
    let scratch = Scratch::new();
    let dir = scratch.path("manual");
    let done = command::run(
        Command::new(binary::pipestall()).arg("manual").arg(&dir),
        wait::PATIENCE,
    );
    done.expect_code(0);
    let page = |name: &str| fs::read_to_string(dir.join("man").join(name)).expect(name);
    assert!(page("pipestall.1").contains("pipe"));
    for command in ["ps", "watch", "run", "doctor", "check-config", "record", "replay"] {
        assert!(
            page(&format!("pipestall-{command}.1")).contains(".SH SYNOPSIS"),
            "{command}"
        );
    }
    for completions in ["pipestall.bash", "_pipestall", "pipestall.fish"] {
        let text = fs::read_to_string(dir.join(completions)).expect(completions);
        assert!(text.contains("check-config"), "{completions}");
    }
}
