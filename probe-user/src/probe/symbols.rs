//! The kernel's symbols: what breakpoints can be set on, whether or not its types tell of it.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

const KALLSYMS: &str = "/proc/kallsyms";

/// Those of `names` that are functions of the running kernel or of a module in it, in their order.
///
/// # Errors
/// The list cannot be read.
pub fn functions_among(names: &[&'static str]) -> io::Result<Vec<&'static str>> {
    among(names, BufReader::new(File::open(KALLSYMS)?))
}

/// A line is `address type name` and, of a module, `[module]` (kernel/kallsyms.c, `s_show`).
fn among(names: &[&'static str], symbols: impl BufRead) -> io::Result<Vec<&'static str>> {
    let mut found = vec![false; names.len()];
    for line in symbols.lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace().skip(1);
        if let (Some("t" | "T"), Some(symbol)) = (words.next(), words.next())
            && let Some(i) = names.iter().position(|name| *name == symbol)
        {
            found[i] = true;
        }
    }
    let pairs = names.iter().zip(found);
    Ok(pairs.filter_map(|(name, found)| found.then_some(*name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_their_whole_name_also_in_modules() {
        let symbols = "\
            ffffffff81000000 T _text\n\
            ffffffff81300010 t pipe_write\n\
            ffffffff81300020 t pipe_write.cold\n\
            ffffffff81300030 d fifo_pipe_write\n\
            0000000000000000 t unix_stream_sendmsg\t[unix]\n";
        let names = ["unix_stream_sendmsg", "fifo_pipe_write", "pipe_write"];
        assert_eq!(
            among(&names, symbols.as_bytes()).unwrap(),
            ["unix_stream_sendmsg", "pipe_write"]
        );
    }
}
