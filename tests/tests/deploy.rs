//! What is shipped beside the program: configurations, manifests, the manual.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::scratch::Scratch;
use tests::{binary, command, need, wait};

/// What the scripts below do with objects: each is checked against the schemas of an older API and
/// of the newest known, and all are printed as JSON.
const CHECK: &str = r"
import json, os, sys, yaml
import kubernetes_validate
def check(objects):
    for api in ['1.30', kubernetes_validate.latest_version()]:
        for one in objects:
            kubernetes_validate.validate(one, api, strict=True)
    json.dump(objects, sys.stdout)
";

/// The objects of a rendered stream.
const RENDERED: &str = "check([one for one in yaml.safe_load_all(sys.stdin) if one])";

/// The objects that a kustomization names and generates, without what it changes of them.
const NAMED: &str = r"
home = os.path.dirname(sys.argv[1])
read = lambda name: open(os.path.join(home, name)).read()
plan = yaml.safe_load(open(sys.argv[1]))
objects = [one for name in plan['resources'] for one in yaml.safe_load_all(read(name))]
for made in plan['configMapGenerator']:
    objects.append({'apiVersion': 'v1', 'kind': 'ConfigMap', 'metadata': {'name': made['name']},
                    'data': {name: read(name) for name in made['files']}})
check(objects)
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
fn the_kubernetes_objects_fit_the_schemas_of_the_api_and_each_other() {
    let python = need!(need::kubernetes_validate());
    let kustomization = deployed("kubernetes/kustomization.yaml");
    assert_fit_each_other(&objects(script(&python, NAMED).arg(kustomization)));
}

#[test]
fn what_kustomize_makes_of_them_fits_the_schemas_of_the_api_and_each_other() {
    let python = need!(need::kubernetes_validate());
    let (kustomize, verb) = need!(kustomize());
    let mut command = Command::new(kustomize);
    let built = command::run(command.arg(verb).arg(deployed("kubernetes")), wait::PATIENCE);
    assert!(built.expect_code(0).stderr.is_empty(), "{}", built.stderr);
    let scratch = Scratch::new();
    let input = fs::File::open(scratch.write("rendered.yaml", &built.stdout)).expect("what was made");
    let objects = objects(script(&python, RENDERED).stdin(input));

    assert_fit_each_other(&objects);
    for object in objects.iter().filter(|object| object["kind"] != "Namespace") {
        assert_eq!(object["metadata"]["namespace"], "pipestall", "{object:#}");
    }
    // A new configuration gets a new name, so that it rolls out.
    let name = of_kind(&objects, "ConfigMap")["metadata"]["name"]
        .as_str()
        .expect("a name");
    assert!(name.len() > "pipestall-".len(), "{name}");
}

/// A program that renders a kustomization, and what to tell it.
fn kustomize() -> Result<(PathBuf, &'static str), String> {
    if let Ok(kustomize) = need::on_path("kustomize") {
        return Ok((kustomize, "build"));
    }
    let kubectl = need::on_path("kubectl").map_err(|_| "neither kustomize nor kubectl is installed")?;
    let version = command::run(
        Command::new(&kubectl).args(["version", "--client", "--output=json"]),
        wait::PATIENCE,
    );
    // Told since 1.24; Debian's, older, does not know `labels` yet.
    if version.stdout.contains("kustomizeVersion") {
        Ok((kubectl, "kustomize"))
    } else {
        Err("kubectl is older than 1.24".to_owned())
    }
}

fn script((python, packages): &(PathBuf, PathBuf), what: &str) -> Command {
    let mut command = Command::new(python);
    command
        .env("PYTHONPATH", packages)
        .arg("-c")
        .arg(format!("{CHECK}{what}"));
    command
}

/// Runs a script, and takes what it prints.
#[track_caller]
fn objects(script: &mut Command) -> Vec<Value> {
    let done = command::run_with_input(script, wait::PATIENCE);
    serde_json::from_str(&done.expect_code(0).stdout).expect("JSON")
}

#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    let [one] = found[..] else {
        panic!("one {kind} was expected: {objects:#?}")
    };
    one
}

#[track_caller]
fn assert_fit_each_other(objects: &[Value]) {
    assert_eq!(objects.len(), 3, "{objects:#?}");
    of_kind(objects, "Namespace");
    let (config, set) = (of_kind(objects, "ConfigMap"), of_kind(objects, "DaemonSet"));
    let template = &set["spec"]["template"];
    let wanted = set["spec"]["selector"]["matchLabels"]
        .as_object()
        .expect("labels");
    for (label, value) in wanted {
        assert_eq!(template["metadata"]["labels"][label], *value, "{label}");
    }
    let pod = &template["spec"];
    assert_eq!(pod["hostPID"], true);
    let volumes = pod["volumes"].as_array().expect("volumes");
    let mounted = volumes
        .iter()
        .find(|volume| volume["name"] == "config")
        .expect("a configuration");
    assert_eq!(mounted["configMap"]["name"], config["metadata"]["name"]);
    let scratch = Scratch::new();
    let text = config["data"]["pipestall.toml"]
        .as_str()
        .expect("the configuration");
    let file = scratch.write("pipestall.toml", text);
    let checked = command::run(
        Command::new(binary::pipestall()).arg("check-config").arg(file),
        wait::PATIENCE,
    );
    checked.expect_code(0);

    // It asks for no more than the unit does.
    let security = &pod["containers"][0]["securityContext"];
    let unit = fs::read_to_string(deployed("pipestall.service")).expect("the unit");
    let capabilities = unit
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="))
        .expect("capabilities");
    let names: Vec<_> = capabilities
        .split(' ')
        .map(|name| name.trim_start_matches("CAP_"))
        .collect();
    assert_eq!(security["capabilities"]["add"], Value::from(names));
    assert_eq!(security["capabilities"]["drop"], Value::from(vec!["ALL"]));
    assert_eq!(security["privileged"], false);
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
