//! The one table: medians over rounds, and ratios to the direct way of the same round.
//! Must not judge.

use serde_json::Value;
use std::fmt;

/// One measurement of one round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    pub(super) p50_us: Option<f64>,
    pub(super) p90_us: Option<f64>,
    pub(super) p99_us: Option<f64>,
    pub(super) per_second: Option<f64>,
    pub(super) faults: f64,
    /// CPU time of what stands in between, per call.
    pub(super) cpu_us: Option<f64>,
    /// Its resident memory afterwards.
    pub(super) rss_mib: Option<f64>,
}

/// All measurements.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    base: Option<String>,
    samples: Vec<Sample>,
}

type Part = fn(&Sample) -> Option<f64>;

// === impl Sample ===

impl Sample {
    /// From what a program of the bench printed.
    pub(super) fn read(report: &Value) -> Self {
        let number = |name: &str| report.get(name).and_then(Value::as_f64);
        Self {
            p50_us: number("p50_us"),
            p90_us: number("p90_us"),
            p99_us: number("p99_us"),
            per_second: number("per_second"),
            faults: number("faults").unwrap_or_default(),
            cpu_us: None,
            rss_mib: None,
        }
    }
}

// === impl Sheet ===

impl Sheet {
    /// Adds a measurement to the row `name`; ratios refer to the row `base`.
    pub(super) fn add(&mut self, name: &str, base: Option<&str>, sample: Sample) {
        let found = self.rows.iter_mut().find(|row| row.name == name);
        match found {
            Some(row) => row.samples.push(sample),
            None => self.rows.push(Row {
                name: name.to_owned(),
                base: base.map(str::to_owned),
                samples: vec![sample],
            }),
        }
    }

    fn ratio(&self, row: &Row, part: Part) -> Option<f64> {
        let base = row.base.as_ref()?;
        let base = self.rows.iter().find(|other| other.name == *base)?;
        let pairs = row.samples.iter().zip(&base.samples);
        median(pairs.filter_map(|(own, base)| Some(part(own)? / part(base)?)))
    }
}

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds = self.rows.iter().map(|row| row.samples.len()).max().unwrap_or_default();
        writeln!(
            f,
            "Medians of {rounds} interleaved rounds; ratios are to the first row of a kind."
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "| what | p50 µs | p90 µs | p99 µs | a second | p50 × | a second × | CPU µs | MiB |"
        )?;
        writeln!(f, "|---|---|---|---|---|---|---|---|---|")?;
        for row in &self.rows {
            let of = |part: Part| median(row.samples.iter().filter_map(part));
            let faults: f64 = row.samples.iter().map(|sample| sample.faults).sum();
            write!(f, "| {}", row.name)?;
            if faults > 0.0 {
                write!(f, " ({faults} FAULTS)")?;
            }
            for part in [
                |sample: &Sample| sample.p50_us,
                |sample: &Sample| sample.p90_us,
                |sample: &Sample| sample.p99_us,
                |sample: &Sample| sample.per_second,
            ] {
                write!(f, " | {}", shown(of(part), 0))?;
            }
            write!(f, " | {}", shown(self.ratio(row, |sample| sample.p50_us), 2))?;
            write!(f, " | {}", shown(self.ratio(row, |sample| sample.per_second), 2))?;
            write!(f, " | {}", shown(of(|sample| sample.cpu_us), 0))?;
            writeln!(f, " | {} |", shown(of(|sample| sample.rss_mib), 0))?;
        }
        Ok(())
    }
}

/// A number as people read it: small ones with a digit more.
fn shown(number: Option<f64>, digits: usize) -> String {
    match number {
        None => "–".to_owned(),
        Some(number) if number < 100.0 => format!("{number:.*}", digits.max(1)),
        Some(number) => format!("{number:.digits$}"),
    }
}

fn median(numbers: impl Iterator<Item = f64>) -> Option<f64> {
    let mut numbers: Vec<f64> = numbers.filter(|number| number.is_finite()).collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::{Sample, Sheet};
    use expect_test::expect;

    fn sample(p50_us: f64, per_second: f64) -> Sample {
        let (p50_us, per_second) = (Some(p50_us), Some(per_second));
        Sample { p50_us, per_second, ..Sample::default() }
    }

    #[test]
    fn ratios_are_medians_of_the_rounds_ratios() {
        let mut sheet = Sheet::default();
        for (direct, through) in [(100.0, 200.0), (200.0, 300.0), (100.0, 900.0)] {
            sheet.add("direct", None, sample(direct, 1_000.0));
            sheet.add("through", Some("direct"), sample(through, 500.0));
        }
        sheet.add("broken", None, Sample { faults: 2.0, ..Sample::default() });
        expect![[r#"
            Medians of 3 interleaved rounds; ratios are to the first row of a kind.

            | what | p50 µs | p90 µs | p99 µs | a second | p50 × | a second × | CPU µs | MiB |
            |---|---|---|---|---|---|---|---|---|
            | direct | 100 | – | – | 1000 | – | – | – | – |
            | through | 300 | – | – | 500 | 2.00 | 0.50 | – | – |
            | broken (2 FAULTS) | – | – | – | – | – | – | – | – |
        "#]]
        .assert_eq(&sheet.to_string());
    }
}
