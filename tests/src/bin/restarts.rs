//! Kills the real binary in the middle of changes and starts it again: `cargo run --release -p roundhouse-tests --bin
//! restarts -- --rounds 500 [--seed N]`.

use std::io::Write as _;

use anyhow::Context as _;
use roundhouse_tests::restarts::restarts;

fn main() -> anyhow::Result<()> {
    let (mut rounds, mut seed) = (500, 1);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a number"))?;
        let number = value.parse().with_context(|| format!("{name} is {value:?}, which is no number"))?;
        match name.as_str() {
            "--rounds" => rounds = number,
            "--seed" => seed = number,
            _ => anyhow::bail!("there is no option {name}: there are --rounds and --seed"),
        }
    }
    let tokio = tokio::runtime::Runtime::new()?;
    let outcome = tokio.block_on(restarts(rounds as usize, seed));
    writeln!(std::io::stdout(), "{outcome:?}").context("cannot write to standard output")
}
