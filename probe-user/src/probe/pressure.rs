//! How starved of CPU time the host is (Documentation/accounting/psi.rst).

/// The share of the last ten seconds, from 0 to 1, in which some task waited for a CPU;
/// `None` where the kernel does not tell.
#[must_use]
pub fn cpu() -> Option<f64> {
    parse(&std::fs::read_to_string("/proc/pressure/cpu").ok()?)
}

fn parse(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let percent: f64 = some
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?
        .parse()
        .ok()?;
    Some(percent / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_second_average_of_some_is_read() {
        let text = "some avg10=61.50 avg60=2.00 avg300=0.10 total=123\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse(text), Some(0.615));
        assert_eq!(parse("full avg10=9.00"), None);
        assert_eq!(parse(""), None);
    }
}
