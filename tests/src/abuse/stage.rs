//! The attacked host: the real binary with default limits, the bundled features, and the hostile guest.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use jsonwebtoken::Algorithm;

use super::attack::Setting;
use crate::bench::SECRET;
use crate::guests::hostile;
use crate::issuer::{IssuerKey, RSA_PUBLIC};
use crate::{Answer, TestAuthority, TestHost};

/// The time in which a busy machine compiles the largest components of an attack, one after another.
const COMPILED_WITHIN: Duration = Duration::from_secs(120);

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
        change(host, "DELETE", Vec::new())?;
        load(host)
    }
}

fn load(host: &TestHost) -> anyhow::Result<()> {
    let loaded = change(host, "PUT", hostile("greedy"))?;
    ensure!(loaded.status == 200, "the guest is not loaded: {}", loaded.text);
    Ok(())
}

/// Changes the hostile guest. That waits for the compilations of the attack before, which go on when its callers have left.
fn change(host: &TestHost, method: &str, component: Vec<u8>) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(host.call_within(COMPILED_WITHIN, method, "/v1/plugins/hostile", component))
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
