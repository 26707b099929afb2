//! `pipestall ps`: two looks, a moment apart, and no agent.

use std::{collections::HashMap, io::IsTerminal as _, sync::Arc, thread, time::Duration};

mod tree;

use anyhow::{Context as _, Result, anyhow};
use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};
use unicode_width::UnicodeWidthStr as _;

use probe_ebpf::pattern::CommFilter;

use super::{
    explain::{self, Process},
    observe::{Commands, KernelArgs, duration},
    text,
};
use crate::{
    clock,
    config::Config,
    core::{
        chain,
        model::{Bound, Facts, Look, Stall, channel_name},
        reader::State,
        tracker::Tracker,
    },
    event::StallView,
    probe::{
        fallback,
        kernel::{Kernel, ProbeError},
        process::Reader,
        readers::{OpenFiles, People},
    },
};

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A writer is stalled when it is blocked in a write to a pipe, fifo or unix socket and its
reader has taken nothing between two looks; it is draining when a byte went. A writer that
signals keep waking looks younger to ps, which knows only the last sleep; see --min, or let
`pipestall watch` follow it.")]
pub struct Args {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Draw who waits for whom: each culprit, and the writers behind it
    #[arg(long, conflicts_with = "json")]
    tree: bool,
    /// Leave out writers that have been blocked for less
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = duration)]
    min: Duration,
    /// Time between the two looks
    #[arg(long, value_name = "DUR", default_value = "200ms", value_parser = duration)]
    settle: Duration,
    #[command(flatten)]
    commands: Commands,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    explain: explain::Explain,
    #[command(flatten)]
    rules: explain::Rules,
}

/// What is said of nothing.
const NONE: &str = "No stalled writers. (--all looks at every command, --min 0s at every age.)\n";

/// How the looks are taken.
enum Eyes {
    Kernel(Box<Kernel>),
    Proc,
}

pub(super) fn run(args: &Args) -> Result<()> {
    super::log::init(args.kernel.kernel_log);
    let Some(pid) = args.explain.explain else {
        let rows = stalls(args, &args.commands.filter()?)?;
        return if args.json {
            print_json(&rows)
        } else if args.tree {
            super::print(&tree::draw(&rows))
        } else {
            print_table(&rows)
        };
    };
    let config = Config::load(&args.rules.config)?;
    // Whoever it is: that the agent would not see it is part of the explanation.
    let every = CommFilter::parse(["*"]).map_err(|(_, error)| anyhow!(error.as_str()))?;
    let mut stalls = stalls(args, &every)?;
    stalls.retain(|stall| stall.last.writer.process.tgid == pid);
    let more = stalls.len().saturating_sub(1);
    let process = match stalls.into_iter().next() {
        Some(oldest) => Process::Writing(Box::new(oldest), more),
        None => Process::by_pid(pid)?,
    };
    super::print(&if args.json {
        explain::as_json(&config, &process)?
    } else {
        explain::as_text(&config, &process)
    })
}

/// The writers that are blocked now, with their facts: the stalled ones first, by age.
fn stalls(args: &Args, filter: &CommFilter) -> Result<Vec<Stall>> {
    let mut eyes = match Kernel::scanner(&args.kernel.options(*filter)) {
        Ok(kernel) => Eyes::Kernel(Box::new(kernel)),
        Err(error @ ProbeError::NoPrivilege(_)) => {
            anstream::eprintln!(
                "pipestall: {error}. Reading /proc instead: only processes that you may trace are seen, \
                 and how long they have been blocked is not."
            );
            Eyes::Proc
        }
        Err(error) => return Err(error.into()),
    };
    let mut look = || -> Result<Look> {
        match &mut eyes {
            Eyes::Kernel(kernel) => Ok(kernel.look()?.0),
            Eyes::Proc => fallback::look(filter).context("cannot read /proc"),
        }
    };

    let mut tracker = Tracker::new(clock::now());
    tracker.observe(look()?);
    // The second look tells a stuck reader from a slow one, however old the write is.
    thread::sleep(args.settle);
    tracker.observe(look()?);

    let mut reader = Reader::default();
    let mut rows: Vec<_> = tracker
        .stalls()
        .filter(|stall| stall.missing.is_none())
        .filter(|stall| args.explain.explain.is_some() || is_old_enough(stall, args.min))
        .cloned()
        .collect();
    let mut known = HashMap::new();
    for stall in &mut rows {
        let process = stall.last.writer.process;
        let read = || Arc::new(reader.facts(process).unwrap_or_default());
        stall.facts = Some(Arc::clone(known.entry(process).or_insert_with(read)));
    }
    let channels: Vec<_> = rows.iter().map(|stall| stall.last.channel).collect();
    if !channels.is_empty() {
        let files = match &mut eyes {
            Eyes::Kernel(kernel) => kernel.open_files()?,
            Eyes::Proc => OpenFiles::from_proc(),
        };
        let readership = files.readership(&channels, &mut People::default());
        // Of all, since a chain may lead over one that is not shown.
        let blocked = tracker.stalls().filter(|stall| stall.missing.is_none());
        let mut causes: HashMap<_, _> = chain::causes(blocked, &readership).into_iter().collect();
        for stall in &mut rows {
            stall.cause = causes.remove(&stall.id).map(Arc::new);
        }
    }
    rows.sort_by_key(|stall| (stall.draining, stall.since));
    Ok(rows)
}

/// How long the writer has been in its write, drained or not; what is not known passes.
fn is_old_enough(stall: &Stall, min: Duration) -> bool {
    let last = &stall.last;
    stall.bound == Bound::AtLeast || last.last_ran.is_none_or(|ran| last.at.since(ran) >= min)
}

const fn state(stall: &Stall) -> &'static str {
    if stall.draining { "draining" } else { "stalled" }
}

fn print_json(stalls: &[Stall]) -> Result<()> {
    let now = clock::wall();
    let views: Vec<_> = stalls
        .iter()
        .map(|stall| StallView::new(stall, stall.last.at, now).with_state(state(stall)))
        .collect();
    super::print(&format!("{}\n", serde_json::to_string_pretty(&views)?))
}

fn print_table(stalls: &[Stall]) -> Result<()> {
    if stalls.is_empty() {
        return super::print(NONE);
    }
    let (draining, stalled): (Vec<_>, Vec<_>) = stalls.iter().partition(|stall| stall.draining);
    let slow = match draining.len() {
        0 => String::new(),
        n => format!(", {n} draining (slow, but alive)"),
    };
    super::print(&format!(
        "{}\n{} stalled{slow}\n",
        table(stalls, width()),
        stalled.len()
    ))
}

/// The table, as wide as `width` allows; without one, as wide as it gets.
fn table(stalls: &[Stall], width: Option<u16>) -> String {
    let rows: Vec<_> = stalls.iter().map(row).collect();
    let columns = columns(&rows, width);
    let pick = |cells: &[String]| columns.iter().map(|at| cells[*at].clone()).collect::<Vec<_>>();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(pick(&HEADER.map(str::to_owned)));
    match width {
        Some(width) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    for row in &rows {
        let mut row = Row::from(pick(row));
        row.max_height(1);
        table.add_row(row);
    }
    for (at, column) in columns.iter().zip(table.column_iter_mut()) {
        column.set_padding((0, u16::from(*at != COMMAND)));
        if *at == COMMAND {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(8)));
        } else {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
        if RIGHT.contains(at) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// All columns, in their order.
const HEADER: [&str; 10] = [
    "AGE",
    "PID",
    "COMM/THREAD",
    "USER",
    "VIA",
    "STREAM",
    "QUEUED",
    "UNDER",
    "READER",
    "COMMAND",
];
/// Those of numbers.
const RIGHT: [usize; 3] = [0, 1, 6];
/// Left out where there is no room for them, the first one first.
const OPTIONAL: [usize; 2] = [7, 6];
/// Takes what the others leave; if they leave less than so many columns, some of them are left out.
const COMMAND: usize = 9;
const COMMAND_WIDTH: usize = 16;

/// Those of the columns for which there is room.
fn columns(rows: &[[String; 10]], width: Option<u16>) -> Vec<usize> {
    let mut columns: Vec<_> = (0..HEADER.len()).collect();
    let Some(width) = width else { return columns };
    let wide = |at: usize| {
        let cells = rows.iter().map(|row| row[at].width());
        cells.chain([HEADER[at].width()]).max().unwrap_or_default() + 1
    };
    for optional in OPTIONAL {
        let fixed: usize = columns[..columns.len() - 1].iter().map(|at| wide(*at)).sum();
        if fixed + COMMAND_WIDTH <= usize::from(width) {
            break;
        }
        columns.retain(|at| *at != optional);
    }
    columns
}

fn row(stall: &Stall) -> [String; 10] {
    let nothing_known = Facts::default();
    let facts = stall.facts.as_deref().unwrap_or(&nothing_known);
    let last = &stall.last;
    let name = if last.comm == last.thread {
        text::cut(&last.comm, 15)
    } else {
        format!("{}/{}", text::cut(&last.comm, 8), text::cut(&last.thread, 8))
    };
    [
        age(stall),
        last.writer.process.tgid.to_string(),
        name,
        text::cut(facts.user.as_deref().unwrap_or(&last.uid.to_string()), 8),
        channel_name(last.channel.kind).to_owned(),
        place(stall),
        last.queued.map(text::size).unwrap_or_default(),
        facts
            .unit
            .as_deref()
            .or(facts.parent.as_deref())
            .map(|name| text::cut(name, 18))
            .unwrap_or_default(),
        reader(stall),
        facts.cmdline.join(" "),
    ]
    .map(|cell| text::one_line(&cell))
}

/// How long it has lasted, as far as that is known.
fn age(stall: &Stall) -> String {
    let age = text::age(stall.age(stall.last.at));
    match (stall.draining, stall.bound == Bound::AtLeast) {
        (true, _) => "drains".to_owned(),
        (false, true) => format!(">{age}"),
        (false, false) => age,
    }
}

/// Where it writes to: a standard stream, or a descriptor.
fn place(stall: &Stall) -> String {
    let last = &stall.last;
    last.stream
        .map_or_else(|| format!("fd {}", last.fd), |stream| stream.as_str().to_owned())
}

/// Who does not read, in at most 18 columns: the culprit, with its state where that is unusual.
fn reader(stall: &Stall) -> String {
    let Some((cause, culprit)) = stall
        .cause
        .as_deref()
        .and_then(|cause| Some((cause, cause.culprit()?)))
    else {
        return "?".to_owned();
    };
    let pid = culprit.process.tgid;
    if !cause.deadlock.is_empty() {
        return format!("deadlock {pid}");
    }
    let mark = match culprit.person.state {
        State::Running | State::Sleeping => "",
        state @ (State::Uninterruptible
        | State::Stopped
        | State::Traced
        | State::Frozen
        | State::Zombie
        | State::Gone
        | State::Unknown) => state.letter(),
    };
    let name = text::cut(&culprit.person.comm, 8);
    format!("{name} {pid} {mark}").trim_end().to_owned()
}

/// The width to fit the table to; `None` where nobody looks at it.
fn width() -> Option<u16> {
    let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        rustix::termios::tcgetwinsize(&stdout)
            .ok()
            .map(|size| size.ws_col)
            .filter(|w| *w > 0)
            .or_else(columns)
    } else {
        columns()
    }
}
