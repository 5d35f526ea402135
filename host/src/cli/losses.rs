//! The option by which an operator accepts that states are lost.

use clap::Args;

#[derive(Debug, Args)]
pub(super) struct LossArgs {
    /// Go on though states are lost that the build cannot take over.
    #[arg(long)]
    lose_writes: bool,
}

impl LossArgs {
    /// The path of a call, with `loseWrites` where states may be lost.
    pub(super) fn path(&self, path: &str) -> String {
        if self.lose_writes { format!("{path}?loseWrites=true") } else { path.to_owned() }
    }
}
