//! The attacked host: the real binary with default limits, the bundled features, and the hostile guest.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};
use jsonwebtoken::Algorithm;

use super::attack::Setting;
use crate::bench::SECRET;
use crate::guests::hostile;
use crate::issuer::{IssuerKey, RSA_PUBLIC};
use crate::{TestAuthority, TestHost};

/// A way to run a host: the binary and its priority.
#[derive(Debug, Clone, Default)]
pub(super) struct Stage {
    /// A binary of the host other than the one beside this program.
    pub(super) binary: Option<PathBuf>,
    /// Whether the host runs at the attackers' priority.
    pub(super) is_decoy: bool,
}

impl Stage {
    /// Starts a host, whose certificate is of this authority if it has TLS.
    pub(super) fn start(&self, setting: Setting, authority: &TestAuthority) -> anyhow::Result<TestHost> {
        let dir = tempfile::tempdir()?;
        let keys = RSA_PUBLIC.to_owned() + &IssuerKey::new(Algorithm::ES384).public_pem;
        std::fs::write(dir.path().join("keys.pem"), keys)?;
        std::fs::write(dir.path().join("roundhouse.toml"), configuration(setting, authority))?;
        let binary = self.binary.clone().unwrap_or_else(TestHost::binary);
        let mut command = if self.is_decoy {
            let mut nice = Command::new("nice");
            nice.args(["-n", "10"]).arg(binary);
            nice
        } else {
            Command::new(binary)
        };
        command = TestHost::in_folder(command, dir.path());
        let mut host = TestHost::start_by(command, dir, &[]);
        SECRET.clone_into(&mut host.key);
        load(&host)?;
        Ok(host)
    }

    /// Removes the hostile guest with its scopes, timers and pauses, and loads it again.
    pub(super) fn refresh(host: &TestHost) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(host.call(
            "DELETE",
            "/v1/plugins/hostile",
            "",
        ));
        load(host)
    }
}

fn load(host: &TestHost) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let loaded = runtime.block_on(host.try_load("hostile", hostile("greedy")));
    ensure!(loaded.status == 200, "the guest is not loaded: {}", loaded.text);
    Ok(())
}

/// The configuration. It leaves the limits at their defaults, which are under test.
fn configuration(setting: Setting, authority: &TestAuthority) -> String {
    let more = match setting {
        Setting::Closed => String::new(),
        Setting::Open => "auth.anonymous = true\n".to_owned(),
        Setting::Tls => authority.issue("host").section("tls") + "tls.api.enabled = false\n",
        Setting::Keys => "auth.jwt.public_key_file = \"keys.pem\"\n".to_owned(),
    };
    format!(
        "auth.jwt.secret = \"{SECRET}\"\n{more}\
         [plugins.hostile.grants]\naudiences = [\"all\"]\nactions = [\"save\"]\n\
         [[api_keys]]\nname = \"figures\"\nkey = \"{SECRET}\"\nscopes = [\"publish\", \"admin\"]\n"
    )
}

/// The component of a bundled feature, as it was built into the host beside this program.
///
/// # Errors
/// If the component was not built.
pub(super) fn bundled(library: &str) -> anyhow::Result<Vec<u8>> {
    let path = crate::target_dir().join("components/wasm32-wasip2/release").join(library).with_extension("wasm");
    std::fs::read(&path).with_context(|| format!("{}: run `cargo build --release`", path.display()))
}
