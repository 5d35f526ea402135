//! The scripts that Redis runs, each as one step that no other command interrupts.

use std::sync::LazyLock;

use redis::aio::ConnectionLike;
use redis::{Cmd, RedisResult, Script};

macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| Script::new(&whole(include_str!(concat!("scripts/", $name, ".lua")))))
    };
}

/// A script with the parts that several share.
fn whole(script: &str) -> String {
    let verdict = if cfg!(feature = "without-fence") {
        include_str!("scripts/no_verdict.lua")
    } else {
        include_str!("scripts/verdict.lua")
    };
    let script = script.replace("--VERDICT", verdict);
    script.replace("--HELPERS", include_str!("scripts/helpers.lua"))
}

pub(super) static REGISTER: LazyLock<Script> = script!("register");
pub(super) static BEAT: LazyLock<Script> = script!("beat");
pub(super) static REVIVE: LazyLock<Script> = script!("revive");
pub(super) static GIVE_UP: LazyLock<Script> = script!("give_up");
pub(super) static TAKE: LazyLock<Script> = script!("take");
pub(super) static COMMIT: LazyLock<Script> = script!("commit");
pub(super) static HEAL: LazyLock<Script> = script!("heal");
pub(super) static FORWARD: LazyLock<Script> = script!("forward");
pub(super) static CHECK: LazyLock<Script> = script!("check");
pub(super) static FORGET: LazyLock<Script> = script!("forget");
pub(super) static CHANGE_PLUGIN: LazyLock<Script> = script!("change_plugin");
pub(super) static PUT_PLUGIN_BACK: LazyLock<Script> = script!("put_plugin_back");

/// Loads all scripts, which a Redis forgets when it restarts.
///
/// # Errors
/// Where Redis does not take one.
pub(super) async fn load_all(redis: &mut impl ConnectionLike) -> RedisResult<()> {
    for script in [&REGISTER, &BEAT, &REVIVE, &GIVE_UP, &TAKE, &COMMIT, &HEAL, &FORWARD, &CHECK, &FORGET] {
        script.prepare_invoke().load_async(redis).await?;
    }
    Ok(())
}

/// A call of a loaded script with these keys.
pub(super) fn call(script: &Script, keys: &[String]) -> Cmd {
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(script.get_hash()).arg(keys.len()).arg(keys);
    cmd
}
