//! Why a writer is stalled: its readers, the chain from there to whoever does not read, and
//! deadlocks.
//!
//! A channel goes on as soon as *any* of its readers reads. So a chain follows, of several
//! readers, one that could read and does not; and a deadlock is a circle of stalled writers all
//! of whose readers are such as are themselves stuck behind it. Holders of an inherited
//! descriptor count only where there is no reader.
//!
//! Pure, and in time and space that grow with stalls and readers, not with their product: a process
//! may wait in thousands of writes, and hold the reading end of thousands.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use petgraph::{algo::kosaraju_scc, graph::DiGraph};

use super::{
    model::{Channel, Process, Stall, StallId},
    reader::{Client, Kind, Person, Readership, State},
};

/// Chains are shown up to this length.
pub const MAX_LINKS: usize = 32;

/// A process that holds a reading end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Who.
    pub process: Process,
    /// By which descriptor.
    pub fd: u32,
    /// What that means.
    pub kind: Kind,
    /// What was last seen of it.
    pub person: Arc<Person>,
}

/// One step of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What is read from.
    pub channel: Channel,
    /// By whom it should be.
    pub reader: Reader,
}

/// Why a writer is stalled, as far as is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// Who holds the reading end; empty where nobody could be found.
    pub readers: Vec<Reader>,
    /// From the writer's reader to the culprit, in a deadlock once around.
    pub chain: Vec<Link>,
    /// The clients that the last of the chain has to wait for.
    pub clients: Vec<Client>,
    /// The members of the deadlock that the writer is part of.
    pub deadlock: Vec<Process>,
}

impl Cause {
    /// Who does not read, at the end of the chain. In a deadlock everybody waits: there it is
    /// the writer's own reader.
    #[must_use]
    pub fn culprit(&self) -> Option<&Reader> {
        let link = if self.deadlock.is_empty() {
            self.chain.last()
        } else {
            self.chain.first()
        };
        link.map(|link| &link.reader)
    }

    /// A reader, or one further along the chain, that is stopped, traced or frozen, or may be.
    #[must_use]
    pub fn held(&self) -> Option<&Reader> {
        self.parties()
            .filter(|reader| reader.kind != Kind::Holder)
            .find(|reader| reader.person.state.may_be_held())
    }

    /// The states of the writer's readers, holders only if there is nobody else.
    pub fn states(&self) -> impl Iterator<Item = State> {
        let only_holders = self.readers.iter().all(|reader| reader.kind != Kind::Reader);
        self.readers
            .iter()
            .filter(move |reader| reader.kind == Kind::Reader || only_holders)
            .map(|reader| reader.person.state)
    }

    /// The writer's readers, and who else is on the chain.
    pub fn parties(&self) -> impl Iterator<Item = &Reader> {
        self.readers
            .iter()
            .chain(self.chain.iter().map(|link| &link.reader))
    }
}

/// A blocked write: a stall, or one of a process that is not observed.
struct Node {
    process: Process,
    channel: Channel,
    /// Who could end it, by their places among all processes; readers, or else whoever there is.
    by: Vec<usize>,
}

/// The graph of who waits for whom.
struct Graph<'a> {
    readership: &'a Readership,
    people: BTreeMap<Process, Arc<Person>>,
    nodes: Vec<Node>,
    processes: Vec<Process>,
    /// The blocked writes of each process.
    writes: Vec<Vec<usize>>,
    /// The step that leads out of a circle, where there is one: who reads, and the write that
    /// this reader waits in, if it does.
    way_out: Vec<Option<(Process, Option<usize>)>>,
    /// Which deadlock a node is part of.
    circle: Vec<Option<usize>>,
    /// The processes of each deadlock.
    circles: Vec<Vec<Process>>,
    /// The first write of a deadlock that a process waits in.
    first_in: HashMap<(usize, usize), usize>,
}

/// A vertex of the graph in which circles are looked for. That each write waits for processes, and
/// each process in writes, takes far fewer edges than each write for each other behind it.
#[derive(Clone, Copy)]
enum Vertex {
    Write(usize),
    Process,
}

/// Works out the cause of each stall of whose channel the readers were asked for.
#[must_use]
pub fn causes<'a>(
    stalls: impl IntoIterator<Item = &'a Stall>,
    readership: &Readership,
) -> Vec<(StallId, Cause)> {
    let stalls: Vec<_> = stalls
        .into_iter()
        .filter(|stall| readership.ends.contains_key(&stall.last.channel))
        .collect();
    let mut waits: Vec<_> = stalls
        .iter()
        .map(|stall| (stall.last.writer.process, stall.last.channel))
        .collect();
    let observed: BTreeSet<Process> = waits.iter().map(|(process, _)| *process).collect();
    for (process, channels) in &readership.writing {
        if !observed.contains(process) {
            waits.extend(channels.iter().map(|channel| (*process, *channel)));
        }
    }
    let graph = Graph::new(&waits, readership);
    let cause = |(at, stall): (usize, &&Stall)| (stall.id, graph.cause(at));
    stalls.iter().enumerate().map(cause).collect()
}

impl<'a> Graph<'a> {
    fn new(waits: &[(Process, Channel)], readership: &'a Readership) -> Self {
        let people = readership.people.iter();
        let mut graph = Self {
            readership,
            people: people
                .map(|(process, person)| (*process, Arc::new(person.clone())))
                .collect(),
            nodes: Vec::new(),
            processes: Vec::new(),
            writes: Vec::new(),
            way_out: Vec::new(),
            circle: vec![None; waits.len()],
            circles: Vec::new(),
            first_in: HashMap::new(),
        };
        let mut writes: HashMap<Process, Vec<usize>> = HashMap::new();
        for (at, (process, _)) in waits.iter().enumerate() {
            writes.entry(*process).or_default().push(at);
        }
        let mut places: HashMap<Process, usize> = HashMap::new();
        for (process, channel) in waits {
            let by: Vec<_> = readers(readership, *channel, *process)
                .map(|reader| {
                    *places.entry(reader).or_insert_with(|| {
                        graph.processes.push(reader);
                        graph.processes.len() - 1
                    })
                })
                .collect();
            graph.nodes.push(Node {
                process: *process,
                channel: *channel,
                by,
            });
        }
        graph.writes = graph
            .processes
            .iter()
            .map(|process| writes.remove(process).unwrap_or_default())
            .collect();
        graph.find_ways_out();
        graph.find_circles();
        graph
    }

    /// Walks back from every reader that does not itself wait in a write.
    fn find_ways_out(&mut self) {
        let mut waiting_for: Vec<Vec<usize>> = vec![Vec::new(); self.processes.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for place in &node.by {
                waiting_for[*place].push(at);
            }
        }
        let places: HashMap<Process, usize> = self
            .processes
            .iter()
            .enumerate()
            .map(|(at, p)| (*p, at))
            .collect();
        self.way_out = vec![None; self.nodes.len()];
        // Those who could read; and those who wait for nobody knows whom, which leads nowhere but
        // not in a circle either. In the order of their pids.
        let free = (0..).zip(&self.writes).filter(|(_, writes)| writes.is_empty());
        let unknown = (0..).zip(&self.nodes).filter(|(_, node)| node.by.is_empty());
        let unknown = unknown.filter_map(|(at, node)| Some((*places.get(&node.process)?, Some(at))));
        let mut ends: Vec<(usize, Option<usize>)> =
            free.map(|(place, _)| (place, None)).chain(unknown).collect();
        ends.sort_by_key(|(place, _)| self.processes[*place]);
        let mut found = VecDeque::from(ends);
        let mut seen = vec![false; self.processes.len()];
        while let Some((place, through)) = found.pop_front() {
            if std::mem::replace(&mut seen[place], true) {
                continue;
            }
            let reader = self.processes[place];
            for at in std::mem::take(&mut waiting_for[place]) {
                if self.way_out[at].is_none() {
                    self.way_out[at] = Some((reader, through));
                    if let Some(place) = places.get(&self.nodes[at].process) {
                        found.push_back((*place, Some(at)));
                    }
                }
            }
        }
    }

    /// The circles among the writes that no way leads out of.
    fn find_circles(&mut self) {
        let mut waits = DiGraph::<Vertex, ()>::new();
        let stuck = |at: usize| self.way_out[at].is_none() && !self.nodes[at].by.is_empty();
        let processes: Vec<_> = self
            .processes
            .iter()
            .map(|_| waits.add_node(Vertex::Process))
            .collect();
        let mut places = HashMap::new();
        for (at, node) in self.nodes.iter().enumerate().filter(|(at, _)| stuck(*at)) {
            let write = waits.add_node(Vertex::Write(at));
            places.insert(at, write);
            for place in &node.by {
                waits.add_edge(write, processes[*place], ());
            }
        }
        for (process, writes) in processes.iter().zip(&self.writes) {
            for write in writes.iter().filter_map(|at| places.get(at)) {
                waits.add_edge(*process, *write, ());
            }
        }
        let place_of: HashMap<Process, usize> = self.processes.iter().copied().zip(0..).collect();
        for component in kosaraju_scc(&waits) {
            // One vertex alone is in no circle: no write waits for itself but through its process.
            if component.len() == 1 {
                continue;
            }
            let circle = self.circles.len();
            let mut members: Vec<usize> = component
                .iter()
                .filter_map(|vertex| match waits[*vertex] {
                    Vertex::Write(at) => Some(at),
                    Vertex::Process => None,
                })
                .collect();
            members.sort_unstable();
            for at in &members {
                self.circle[*at] = Some(circle);
                if let Some(place) = place_of.get(&self.nodes[*at].process) {
                    self.first_in.entry((circle, *place)).or_insert(*at);
                }
            }
            let mut processes: Vec<_> = members.iter().map(|at| self.nodes[*at].process).collect();
            processes.sort_unstable();
            processes.dedup();
            self.circles.push(processes);
        }
    }

    fn cause(&self, at: usize) -> Cause {
        let Node { process, channel, .. } = self.nodes[at];
        let ends = self.readership.ends.get(&channel).into_iter().flatten();
        let readers = ends
            .filter_map(|end| self.reader(channel, end.process, process))
            .collect();
        let chain = self.chain(at);
        let members = self.circle[at].map(|circle| &self.circles[circle]);
        let last = chain.last().filter(|_| members.is_none());
        let clients = last.and_then(|link| self.readership.clients.get(&link.reader.process));
        Cause {
            readers,
            chain,
            clients: clients.cloned().unwrap_or_default(),
            deadlock: members.cloned().unwrap_or_default(),
        }
    }

    fn chain(&self, from: usize) -> Vec<Link> {
        let mut chain = Vec::new();
        let mut seen = BTreeSet::from([from]);
        let mut at = from;
        while chain.len() < MAX_LINKS {
            let Some((reader, through)) = self.way_out[at].or_else(|| self.around(at)) else {
                break;
            };
            let Node { process, channel, .. } = self.nodes[at];
            let Some(reader) = self.reader(channel, reader, process) else {
                break;
            };
            chain.push(Link { channel, reader });
            match through {
                Some(next) if seen.insert(next) => at = next,
                Some(_) | None => break,
            }
        }
        chain
    }

    /// The next step in a circle, or towards one.
    fn around(&self, at: usize) -> Option<(Process, Option<usize>)> {
        let by = &self.nodes[at].by;
        let inside = self.circle[at].and_then(|circle| {
            let mut firsts = by.iter().filter_map(|place| self.first_in.get(&(circle, *place)));
            firsts.next()
        });
        let next = inside.or_else(|| by.iter().flat_map(|place| &self.writes[*place]).next())?;
        Some((self.nodes[*next].process, Some(*next)))
    }

    fn reader(&self, channel: Channel, process: Process, writer: Process) -> Option<Reader> {
        let ends = self.readership.ends.get(&channel)?;
        let end = ends.iter().find(|end| end.process == process)?;
        Some(Reader {
            process,
            fd: end.fd,
            kind: kind(end.inherited, process, writer),
            person: Arc::clone(self.people.get(&process)?),
        })
    }
}

fn kind(inherited: bool, process: Process, writer: Process) -> Kind {
    match (process == writer, inherited) {
        (true, _) => Kind::Writer,
        (false, true) => Kind::Holder,
        (false, false) => Kind::Reader,
    }
}

/// Who could take something out of a channel: its readers; without any, whoever holds it by
/// accident; without them, the writer itself.
fn readers(readership: &Readership, channel: Channel, writer: Process) -> impl Iterator<Item = Process> {
    let ends = readership.ends.get(&channel).map_or(&[][..], Vec::as_slice);
    let kind_of = move |end: &super::reader::End| kind(end.inherited, end.process, writer);
    let best = ends.iter().map(kind_of).min();
    ends.iter()
        .filter(move |end| Some(kind_of(end)) == best)
        .map(|end| end.process)
}

#[cfg(test)]
mod tests;
