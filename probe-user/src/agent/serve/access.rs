//! Who may do what, and how much of it.
//!
//! Peers are told apart by the credentials that the kernel keeps of a socket's other end. Each
//! user has limits of its own, so that none can shut out another, root least of all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use uzers::os::unix::GroupExt as _;

use crate::{config::Api, core::model::Mono};

/// Connections of one user at a time.
pub(super) const CONNECTIONS_EACH: usize = 32;
/// Connections at a time.
pub(super) const CONNECTIONS: usize = 256;
/// Event streams at a time.
pub(super) const STREAMS: usize = 32;
/// Requests of one user in a second.
pub(super) const REQUESTS: u32 = 100;

const SECOND: Duration = Duration::from_secs(1);

/// What a peer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Nothing.
    Nobody,
    /// Look.
    Reader,
    /// Also end processes, and reload.
    Operator,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) role: Role,
}

impl Peer {
    /// The peer's name for the record.
    pub(super) fn label(&self) -> String {
        match uzers::get_user_by_uid(self.uid) {
            Some(user) => user.name().to_string_lossy().into_owned(),
            None => format!("uid {}", self.uid),
        }
    }
}

#[derive(Clone, Debug)]
struct Group {
    gid: u32,
    name: String,
}

/// Who may, by the configuration.
#[derive(Debug)]
pub(super) struct Access {
    own: u32,
    readers: Option<Group>,
    operators: Option<Group>,
}

impl Access {
    /// Looks the groups up.
    pub(super) fn new(api: &Api) -> Result<Self> {
        Ok(Self {
            own: rustix::process::geteuid().as_raw(),
            readers: api.group.as_deref().map(|name| find("group", name)).transpose()?,
            operators: api
                .operators
                .as_deref()
                .map(|name| find("operators", name))
                .transpose()?,
        })
    }

    /// The group that may connect at all: the operators' only where there are no readers.
    pub(super) fn group(&self) -> Option<u32> {
        self.readers
            .as_ref()
            .or(self.operators.as_ref())
            .map(|group| group.gid)
    }

    /// What a peer may do, by its user and the group that it runs as. Membership in further
    /// groups is the user database's to tell.
    pub(super) fn peer(&self, uid: u32, gid: u32) -> Peer {
        let belongs = |group: &Option<Group>| group.as_ref().is_some_and(|group| is_member(uid, gid, group));
        let role = if uid == 0 || uid == self.own || belongs(&self.operators) {
            Role::Operator
        } else if belongs(&self.readers) {
            Role::Reader
        } else {
            Role::Nobody
        };
        Peer { uid, role }
    }
}

fn find(key: &str, name: &str) -> Result<Group> {
    let gid = uzers::get_group_by_name(name)
        .map(|group| group.gid())
        .or_else(|| name.parse().ok())
        .with_context(|| format!("[api] {key}: there is no group `{name}`; create it (groupadd --system {name}) or name another"))?;
    Ok(Group {
        gid,
        name: name.to_owned(),
    })
}

fn is_member(uid: u32, gid: u32, group: &Group) -> bool {
    if gid == group.gid {
        return true;
    }
    let Some(user) = uzers::get_user_by_uid(uid) else {
        return false;
    };
    user.primary_group_id() == group.gid
        || uzers::get_group_by_name(&group.name)
            .is_some_and(|found| found.members().iter().any(|member| member == user.name()))
}

/// Who uses how much.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage(Arc<Mutex<Used>>);

#[derive(Debug, Default)]
struct Used {
    connections: usize,
    streams: usize,
    /// By user; only those with a connection.
    users: HashMap<u32, User>,
}

#[derive(Debug, Default)]
struct User {
    connections: usize,
    second: Mono,
    requests: u32,
}

/// A connection's place; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
    usage: Usage,
    uid: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.usage.lock();
        used.connections -= 1;
        if let Some(user) = used.users.get_mut(&self.uid) {
            user.connections -= 1;
            if user.connections == 0 {
                used.users.remove(&self.uid);
            }
        }
    }
}

/// A stream's place; dropping it makes room.
#[derive(Debug)]
pub(super) struct StreamPlace(Usage);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.lock().streams -= 1;
    }
}

impl Usage {
    /// Room for another connection of a user's, if there is any.
    pub(super) fn connect(&self, uid: u32) -> Option<Place> {
        let mut all = self.lock();
        let taken = all.connections;
        let user = all.users.entry(uid).or_default();
        // What is over the limit for all is still there for root.
        let full = user.connections >= CONNECTIONS_EACH || taken >= CONNECTIONS && uid != 0;
        if full {
            if user.connections == 0 {
                all.users.remove(&uid);
            }
            return None;
        }
        user.connections += 1;
        all.connections += 1;
        Some(Place {
            usage: self.clone(),
            uid,
        })
    }

    /// Whether a user may make another request in this second; counts it if so.
    pub(super) fn request(&self, uid: u32, now: Mono) -> bool {
        let mut all = self.lock();
        let user = all.users.entry(uid).or_default();
        if now.since(user.second) >= SECOND {
            (user.second, user.requests) = (now, 0);
        }
        user.requests += 1;
        user.requests <= REQUESTS
    }

    /// Room for another event stream, if there is any.
    pub(super) fn stream(&self) -> Option<StreamPlace> {
        let mut used = self.lock();
        if used.streams >= STREAMS {
            return None;
        }
        used.streams += 1;
        Some(StreamPlace(self.clone()))
    }

    /// Connections now.
    pub(super) fn connections(&self) -> usize {
        self.lock().connections
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(readers: Option<u32>, operators: Option<u32>) -> Access {
        let group = |gid| Group {
            gid,
            name: "no-such-group-here".to_owned(),
        };
        Access {
            own: 0,
            readers: readers.map(group),
            operators: operators.map(group),
        }
    }

    #[test]
    fn root_may_everything_a_group_may_look_and_only_operators_act() {
        let nobody_else = access(None, None);
        let both = access(Some(500), Some(600));
        for (access, uid, gid, expected) in [
            (&nobody_else, 0, 0, Role::Operator),
            (&nobody_else, 4_000_000, 4_000_000, Role::Nobody),
            (&both, 4_000_000, 500, Role::Reader),
            (&both, 4_000_000, 600, Role::Operator),
            (&both, 4_000_000, 4_000_000, Role::Nobody),
        ] {
            assert_eq!(access.peer(uid, gid).role, expected, "{uid}:{gid}");
        }
        assert_eq!(both.group(), Some(500));
        assert_eq!(nobody_else.group(), None);
    }

    #[test]
    fn no_user_can_take_what_is_left_for_another() {
        let usage = Usage::default();
        let mut places: Vec<_> = (0..CONNECTIONS_EACH).map(|_| usage.connect(1).unwrap()).collect();
        assert!(usage.connect(1).is_none());
        assert!(usage.connect(2).is_some());
        places.pop();
        assert!(usage.connect(1).is_some());
        drop(places);
        assert_eq!(usage.connections(), 0);

        let everyone: Vec<_> = (0..CONNECTIONS)
            .map(|i| usage.connect(u32::try_from(100 + i).unwrap()).unwrap())
            .collect();
        assert!(usage.connect(99).is_none(), "all places are taken");
        assert!(usage.connect(0).is_some(), "and yet root gets in");
        drop(everyone);
    }

    #[test]
    fn requests_are_limited_by_the_second() {
        let usage = Usage::default();
        let _place = usage.connect(1).unwrap();
        let at = |millis: u64| Mono::from_nanos(5_000_000_000 + millis * 1_000_000);
        assert!((0..REQUESTS).all(|_| usage.request(1, at(0))));
        assert!(!usage.request(1, at(999)));
        assert!(usage.request(1, at(1000)));
    }
}
