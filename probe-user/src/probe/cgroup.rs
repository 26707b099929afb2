//! What the control group of a process tells: its systemd unit, and its container.
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

#[cfg(test)]
mod tests {
    use super::*;

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
