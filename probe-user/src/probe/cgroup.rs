//! What the control group of a process tells: its systemd unit, its container, and its pod.
//!
//! Both are conventions of those who make the groups; no container tool is asked.

use procfs::{ProcessCGroup, process::Process};

/// The characters of a container's id: the 32 bytes of a random number, in hexadecimal.
const ID_LEN: usize = 64;

/// The control groups of a process, one for each hierarchy.
pub fn paths(proc: &Process) -> Vec<ProcessCGroup> {
    proc.cgroups().map(|groups| groups.0).unwrap_or_default()
}

/// The path in the unified hierarchy, or where there is none the longest of the old ones'.
pub fn path(groups: &[ProcessCGroup]) -> Option<&str> {
    let unified = groups.iter().find(|g| g.hierarchy == 0 && g.pathname != "/");
    let named = groups
        .iter()
        .find(|g| g.controllers.iter().any(|c| c == "name=systemd") && g.pathname != "/");
    let longest = groups.iter().max_by_key(|g| g.pathname.len());
    unified.or(named).or(longest).map(|g| g.pathname.as_str())
}

/// The systemd unit that a control group belongs to: the last part that is named as one.
pub fn unit(cgroup: &str) -> Option<&str> {
    cgroup
        .rsplit('/')
        .find(|part| matches!(part.rsplit_once('.'), Some((_, "service" | "scope"))))
}

/// The id of the container that a control group belongs to, the innermost if one is in another.
///
/// The part that names it is the id alone (cgroupfs driver) or `TOOL-ID.scope` (systemd driver);
/// containerd joins with colons where its driver and kubelet's differ.
pub fn container(cgroup: &str) -> Option<&str> {
    cgroup.rsplit('/').find_map(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let at = name.len().checked_sub(ID_LEN)?;
        let (tool, id) = name.split_at_checked(at)?;
        let is_id = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        // conmon watches a container from outside.
        let names_it =
            tool.is_empty() || tool.ends_with(['-', ':']) && !tool.trim_end_matches('-').ends_with("conmon");
        (is_id && names_it).then_some(id)
    })
}

/// The UID of the Kubernetes pod that a control group belongs to, the innermost.
///
/// The part that names it is `podUID` (cgroupfs driver) or `kubepods-CLASS-podUID.slice` with
/// underscores (systemd driver), as kubelet makes them (`pkg/kubelet/cm/pod_container_manager_linux.go`).
/// Seen from a control group namespace, the parts above may be missing.
pub fn pod(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| {
        let part = part.split_once(':').map_or(part, |(slice, _)| slice);
        let name = part.strip_suffix(".slice").unwrap_or(part);
        let (before, uid) = name.rsplit_once("pod")?;
        let names_it = before.is_empty() || before.ends_with('-') && before.contains("kubepods");
        let uid = uid.replace('_', "-");
        (names_it && is_pod_uid(&uid)).then_some(uid)
    })
}

/// A UUID; or a hash, which kubelet gives the pods that it has from files.
fn is_pod_uid(uid: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let groups: Vec<_> = uid.split('-').collect();
    let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
    matches!(lengths[..], [32] | [8, 4, 4, 4, 12]) && groups.into_iter().all(is_hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "2f1a7c1e-0d0c-4a9a-9d3f-6f1c2b3a4d5e";
    const FROM_FILE: &str = "8b1e1f4a9c0d2e3f5a6b7c8d9e0f1a2b";
    const ID: &str = "3e74d8f0c7a94b1f8c2d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708";
    const OTHER: &str = "ffffd8f0c7a94b1f8c2d5e6a7b8c9d0e1f2a3b4c5d6e7f8091a2b3c4d5e6f708";

    #[test]
    fn the_unit_is_the_innermost_service_or_scope() {
        for (cgroup, expected) in [
            ("/system.slice/peertube.service", Some("peertube.service")),
            ("/system.slice/peertube.service/worker", Some("peertube.service")),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                Some("session-3.scope"),
            ),
            ("/", None),
            ("/docker/0123", None),
        ] {
            assert_eq!(unit(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn the_container_is_found_in_the_layout_of_each_tool_and_driver() {
        for (layout, cgroup) in [
            ("docker, cgroupfs", "/docker/ID"),
            ("docker, systemd", "/system.slice/docker-ID.scope"),
            (
                "docker, rootless",
                "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-ID.scope",
            ),
            ("docker, seen from a cgroup namespace", "/../docker-ID.scope"),
            (
                "docker with systemd inside",
                "/system.slice/docker-ID.scope/init.scope",
            ),
            ("docker in docker", "/docker/OTHER/docker/ID"),
            ("nerdctl, cgroupfs", "/default/ID"),
            ("nerdctl, systemd", "/system.slice/nerdctl-ID.scope"),
            (
                "containerd under kubelet, cgroupfs",
                "/kubepods/burstable/pod2f1a7c1e-0d0c-4a9a-9d3f-6f1c2b3a4d5e/ID",
            ),
            (
                "containerd under kubelet, systemd",
                "/kubepods.slice/kubepods-burstable.slice/\
                 kubepods-burstable-pod2f1a7c1e_0d0c_4a9a_9d3f_6f1c2b3a4d5e.slice/cri-containerd-ID.scope",
            ),
            (
                "containerd under kubelet, the drivers mixed up",
                "/system.slice/containerd.service/kubepods-pod2f1a7c1e.slice:cri-containerd:ID",
            ),
            (
                "docker under kubelet, systemd",
                "/kubepods.slice/kubepods-pod2f1a7c1e.slice/docker-ID.scope",
            ),
            (
                "kind: kubelet in docker",
                "/docker/OTHER/kubelet/kubepods/besteffort/pod2f1a7c1e/ID",
            ),
            ("cri-o, cgroupfs", "/kubepods/besteffort/pod2f1a7c1e/crio-ID"),
            (
                "cri-o, systemd",
                "/kubepods.slice/kubepods-besteffort.slice/\
                 kubepods-besteffort-pod2f1a7c1e.slice/crio-ID.scope",
            ),
            (
                "cri-o, systemd, in the group that it adds",
                "/kubepods.slice/kubepods-pod2f1a7c1e.slice/crio-ID.scope/container",
            ),
            ("podman, cgroupfs", "/libpod_parent/libpod-ID"),
            ("podman, systemd", "/machine.slice/libpod-ID.scope"),
            ("podman, cgroup v2", "/machine.slice/libpod-ID.scope/container"),
            (
                "podman, rootless",
                "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-ID.scope",
            ),
            (
                "podman under systemd, cgroups split",
                "/system.slice/peertube.service/libpod-payload-ID",
            ),
            ("ECS on EC2", "/ecs/0a1b2c3d4e5f/ID"),
        ] {
            let cgroup = cgroup.replace("ID", ID).replace("OTHER", OTHER);
            assert_eq!(container(&cgroup), Some(ID), "{layout}: {cgroup}");
        }
    }

    #[test]
    fn what_is_beside_a_container_is_in_none() {
        for cgroup in [
            "/".to_owned(),
            "/system.slice/docker.service".to_owned(),
            "/user.slice/user-1000.slice/session-3.scope".to_owned(),
            "/kubepods.slice/kubepods-pod2f1a7c1e_0d0c_4a9a_9d3f_6f1c2b3a4d5e.slice".to_owned(),
            format!("/machine.slice/libpod-conmon-{ID}.scope"),
            format!("/kubepods.slice/crio-conmon-{ID}.scope"),
            format!("/docker/{}", &ID[1..]),
            format!("/docker/0{ID}"),
            format!("/docker/{}", ID.to_uppercase()),
            format!("/docker/é{}", &ID[1..]),
        ] {
            assert_eq!(container(&cgroup), None, "{cgroup}");
        }
    }

    #[test]
    fn the_pod_is_found_under_each_runtime_driver_and_hierarchy() {
        for (layout, cgroup, uid) in [
            ("v1, cgroupfs", "/kubepods/burstable/podPOD/ID", POD),
            ("v1, cgroupfs, guaranteed", "/kubepods/podPOD/ID", POD),
            ("cri-o, cgroupfs", "/kubepods/besteffort/podPOD/crio-ID", POD),
            (
                "v2, containerd, systemd",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUNDER.slice/cri-containerd-ID.scope",
                POD,
            ),
            (
                "v2, cri-o, systemd, guaranteed",
                "/kubepods.slice/kubepods-podUNDER.slice/crio-ID.scope/container",
                POD,
            ),
            (
                "v1, containerd, the drivers mixed up",
                "/system.slice/containerd.service/kubepods-besteffort-podUNDER.slice:cri-containerd:ID",
                POD,
            ),
            (
                "docker, systemd",
                "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUNDER.slice/docker-ID.scope",
                POD,
            ),
            (
                "kind, systemd",
                "/system.slice/docker-OTHER.scope/kubelet.slice/kubelet-kubepods.slice/\
                 kubelet-kubepods-podUNDER.slice/cri-containerd-ID.scope",
                POD,
            ),
            (
                "kind, cgroupfs",
                "/docker/OTHER/kubelet/kubepods/besteffort/podPOD/ID",
                POD,
            ),
            ("a pod of a file's", "/kubepods/burstable/podFILE/ID", FROM_FILE),
            (
                "a pod of a file's, systemd",
                "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podFILE.slice/crio-ID.scope",
                FROM_FILE,
            ),
            ("from a sibling's namespace, cgroupfs", "/../../podPOD/ID", POD),
            (
                "from a sibling's namespace, systemd",
                "/../../kubepods-burstable-podUNDER.slice/cri-containerd-ID.scope",
                POD,
            ),
            (
                "systemd in a pod",
                "/kubepods.slice/kubepods-podUNDER.slice/crio-ID.scope/system.slice/nginx.service",
                POD,
            ),
        ] {
            let cgroup = cgroup
                .replace("UNDER", &POD.replace('-', "_"))
                .replace("POD", POD)
                .replace("FILE", FROM_FILE)
                .replace("ID", ID)
                .replace("OTHER", OTHER);
            assert_eq!(pod(&cgroup).as_deref(), Some(uid), "{layout}: {cgroup}");
            assert_eq!(container(&cgroup), Some(ID), "{layout}: {cgroup}");
        }
    }

    #[test]
    fn what_only_looks_like_a_pod_is_none() {
        for cgroup in [
            "/".to_owned(),
            "/kubepods.slice/kubepods-burstable.slice".to_owned(),
            format!("/machine.slice/libpod-{ID}.scope"),
            format!("/machine.slice/libpod{POD}.slice"),
            format!("/machine.slice/machine-pod{POD}.slice"),
            format!("/kubepods/pod{}", &POD[1..]),
            format!("/kubepods/pod{}", POD.to_uppercase()),
            format!("/kubepods/pod{}", POD.replace('-', "") + "0"),
            "/kubepods/podé".to_owned(),
            "/kubepods/pod".to_owned(),
        ] {
            assert_eq!(pod(&cgroup), None, "{cgroup}");
        }
    }

    #[test]
    fn the_path_is_that_of_the_unified_hierarchy_where_it_says_anything() {
        let groups = |lines: &[(u32, &str, &str)]| {
            lines
                .iter()
                .map(|(hierarchy, controller, path)| ProcessCGroup {
                    hierarchy: *hierarchy,
                    controllers: vec![(*controller).to_owned()],
                    pathname: (*path).to_owned(),
                })
                .collect::<Vec<_>>()
        };
        for (lines, expected) in [
            (groups(&[(0, "", "/a.service")]), Some("/a.service")),
            (
                groups(&[
                    (4, "memory", "/docker/x"),
                    (1, "name=systemd", "/b"),
                    (0, "", "/c"),
                ]),
                Some("/c"),
            ),
            (
                groups(&[
                    (4, "memory", "/docker/x"),
                    (1, "name=systemd", "/b"),
                    (0, "", "/"),
                ]),
                Some("/b"),
            ),
            (
                groups(&[(4, "memory", "/docker/x"), (0, "", "/")]),
                Some("/docker/x"),
            ),
            (groups(&[]), None),
        ] {
            assert_eq!(path(&lines), expected, "{lines:?}");
        }
    }
}
